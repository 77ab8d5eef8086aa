package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
)

// The simulation runs sessions and their store on a file system in memory, in one goroutine and without a network: clients
// connect, subscribe, publish, acknowledge and go, in an order drawn from a seed, while a simple model of a broker keeps
// account of what each of them may and must get. Power may fail before any file operation, and any operation may fail.

type simWorld struct {
	t       testing.TB
	fs      *simfs.FS
	rng     *rand.Rand
	b       *Broker
	st      *Store
	now     int64
	number  int // of the last message
	clients []*simClient
	// What each topic retains, in the order of publication: the number of the message, 0 for none.
	retained map[string][]simRetained
}

type simRetained struct {
	number int
	pos    uint64
}

// simClient is a client as the model has it.
type simClient struct {
	attached uint64 // position of the record of its connection
	id       string
	c        *conn
	filters  map[string]byte     // durable ones, and those being made
	mail     []*simMail          // in the order of publication
	owed     map[uint16]*simMail // QoS 2: PUBCOMP is
}

// simMail is a message the client is to get.
type simMail struct {
	number   int
	qos      byte
	pos      uint64 // of the record that queued it
	mayBeDup bool   // the client was connected meanwhile, and went
	seen     bool   // it was sent, and the next time it has DUP
	rec      uint64 // QoS 2: position of the record of PUBREC; then only PUBREL may come
	acked    uint64 // position of the record that took it off the queue; 0: not acknowledged
	unknown  bool   // it may or may not have been queued
}

var simTopics = []string{"a", "b/1", "b/2"}

func newSimWorld(t testing.TB, seed uint64) *simWorld {
	w := &simWorld{t: t, fs: simfs.New(seed), rng: rand.New(rand.NewPCG(seed, 7)), now: 1_800_000_000_000_000_000, retained: map[string][]simRetained{}}
	for i := range 3 {
		w.clients = append(w.clients, &simClient{id: fmt.Sprint("c", i), filters: map[string]byte{}, owed: map[uint16]*simMail{}})
	}
	return w
}

// start opens the store and a broker on it, which never runs.
func (w *simWorld) start() error {
	st, err := OpenStore("/data/broker", StoreOptions{FS: w.fs, SegmentBytes: 16 << 10, SnapshotBytes: 4 << 10})
	if err != nil {
		return err
	}
	w.st = st
	w.b, err = New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, Store: st, Clock: func() int64 { return w.now }}, &stubJournal{auto: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return nil
}

// connect makes a connection whose writer never runs, so that what it is sent can be looked at.
func (w *simWorld) connect(k *simClient) {
	near, far := net.Pipe()
	far.Close()
	c := newConn(w.b, near, addressOf(nil), true)
	c.clientID, c.out.writing = k.id, true
	cl := w.b.server.NewClient(c, "test", k.id, false)
	cl.Properties.ProtocolVersion, cl.Properties.Clean = 4, false
	c.cl = cl
	_, resume := w.b.server.Clients.Get(k.id)
	w.b.sessions.establish(c, cl, resume)
	w.b.server.Clients.Add(cl)
	c.established, c.connacked = true, true
	w.b.sessions.attach(c)
	k.c, k.attached = c, uint64(w.st.log.Next())-1
}

func (w *simWorld) disconnect(k *simClient) {
	if k.c != nil {
		w.b.sessions.detach(k.c, k.c.cl, false)
		k.gone()
	}
}

// gone is what the end of a connection means to the client.
func (k *simClient) gone() {
	for _, m := range k.mail {
		m.mayBeDup = m.mayBeDup || k.c != nil
	}
	k.c = nil
}

func (w *simWorld) subscribe(k *simClient, filter string, qos byte) {
	f := subscription{Filter: filter, Qos: qos}
	w.b.server.Topics.Subscribe(k.id, f)
	pos := w.b.sessions.subscribe(k.c, []subscription{f}, []byte{qos})
	k.c.granted = nil
	// SUBACK waits for this.
	if w.commit(); w.st.durable.Load() >= pos && pos > 0 {
		k.filters[filter] = qos
	}
}

func (w *simWorld) publish(topic string, qos byte, retain bool) {
	w.number++
	m := &message{topic: topic, payload: fmt.Appendf(nil, "%d %0500d", w.number, 0), qos: qos, retain: retain}
	if retain && w.rng.IntN(3) == 0 {
		m.payload = nil
	}
	pos, err := w.b.sessions.route(m, w.b.targets(topic))
	if errors.Is(err, errNoStore) {
		return
	}
	if qos == 0 || pos == 0 {
		pos = uint64(w.st.log.Next()) - 1
	}
	if retain {
		if w.retained[topic] == nil {
			w.retained[topic] = []simRetained{{}}
		}
		r := simRetained{w.number, pos}
		if m.payload == nil {
			r.number = 0
		}
		w.retained[topic] = append(w.retained[topic], r)
	}
	for _, k := range w.clients {
		granted := byte(0)
		for f, q := range k.filters {
			if f == topic || matches(f, topic) {
				granted = max(granted, min(q, qos))
			}
		}
		if granted > 0 && m.payload != nil { // an empty one says nothing of its number
			k.mail = append(k.mail, &simMail{number: w.number, qos: granted, pos: pos, unknown: err != nil})
		}
	}
}

func (w *simWorld) commit() { _ = w.st.commit() }

// read takes everything k was sent and checks it against the model; it acknowledges the first n.
func (w *simWorld) read(k *simClient, n int) {
	c := k.c
	c.mu.Lock()
	frames := c.out.queue
	c.out.queue = nil
	c.mu.Unlock()
	last := 0
	for len(frames) > 0 {
		header, size, err := frameSize(frames)
		if err != nil || size > len(frames) {
			w.t.Fatalf("%s was sent % X", k.id, frames)
		}
		f := frames[:size]
		frames = frames[size:]
		switch f[0] >> 4 {
		case typePubrel:
			id := f[header : header+2]
			m := k.owed[binary.BigEndian.Uint16(id)]
			if m == nil {
				w.t.Fatalf("%s was sent PUBREL % X for nothing", k.id, id)
			}
			w.acknowledge(k, typePubcomp, id, m)
			continue
		case typePublish:
		default:
			w.t.Fatalf("%s was sent a packet of type %d", k.id, f[0]>>4)
		}
		qos := f[0] >> 1 & 3
		body := f[header:]
		topic := int(binary.BigEndian.Uint16(body))
		body = body[2+topic:]
		if qos == 0 {
			continue
		}
		id := body[:2]
		if len(body) == 2 {
			w.acknowledge(k, typePuback, id, nil)
			if qos == 2 {
				w.acknowledge(k, typePubrec, id, nil)
				w.acknowledge(k, typePubcomp, id, nil)
			}
			continue
		}
		var number int
		fmt.Sscan(string(body[2:]), &number)
		var mail *simMail
		for _, m := range k.mail {
			if m.number == number {
				mail = m
			}
		}
		dup := f[0]&flagDup != 0
		switch {
		case mail == nil:
			w.t.Fatalf("%s was sent message %d, which is not for it", k.id, number)
		case number <= last:
			w.t.Fatalf("%s was sent message %d after %d", k.id, number, last)
		case dup && !mail.mayBeDup:
			w.t.Fatalf("%s was sent message %d with DUP for the first time", k.id, number)
		case !dup && mail.seen:
			w.t.Fatalf("%s was sent message %d again, without DUP", k.id, number)
		case mail.rec > 0:
			w.t.Fatalf("%s was sent message %d after PUBREC", k.id, number)
		case qos != mail.qos:
			w.t.Fatalf("%s was sent message %d with QoS %d, want %d", k.id, number, qos, mail.qos)
		}
		last = number
		mail.seen = true
		if n--; n >= 0 {
			if qos == 1 {
				w.acknowledge(k, typePuback, id, mail)
			} else {
				w.acknowledge(k, typePubrec, id, nil)
				mail.rec = uint64(w.st.log.Next()) - 1
				k.owed[binary.BigEndian.Uint16(id)] = mail
				if n%2 == 0 || n > 100 { // else PUBREL comes again with the next connection
					w.acknowledge(k, typePubcomp, id, mail)
				}
			}
		}
	}
}

func (w *simWorld) acknowledge(k *simClient, kind byte, id []byte, m *simMail) {
	before := len(k.c.out.queue)
	w.b.sessions.acked(k.c, []byte{kind << 4, 2, id[0], id[1]}, 2)
	if kind == typePubrec { // the PUBREL in answer
		k.c.out.queue = append(k.c.out.queue[:before], k.c.out.queue[min(before+4, len(k.c.out.queue)):]...)
	}
	if m != nil {
		m.acked = uint64(w.st.log.Next()) - 1
	}
}

// step does one thing. It returns false when power has failed.
func (w *simWorld) step() bool {
	k := w.clients[w.rng.IntN(len(w.clients))]
	w.now += int64(time.Millisecond)
	switch n := w.rng.IntN(20); {
	case n < 9:
		w.publish(simTopics[w.rng.IntN(len(simTopics))], byte(w.rng.IntN(3)), w.rng.IntN(4) == 0)
	case n < 11:
		if k.c == nil {
			w.connect(k)
		} else {
			w.disconnect(k)
		}
	case n < 12:
		if k.c != nil {
			w.subscribe(k, []string{"a", "b/+", "#"}[w.rng.IntN(3)], byte(1+w.rng.IntN(2)))
		}
	case n < 16:
		if k.c != nil {
			w.read(k, w.rng.IntN(4))
		}
	case n < 18:
		w.commit()
	default:
		if w.st.log.Bytes() > 2<<10 {
			w.snapshot()
		}
	}
	return !w.fs.Crashed()
}

func (w *simWorld) snapshot() {
	w.st.tried = time.Time{}
	w.st.o.SnapshotBytes = 1
	w.b.sessions.snapshotIfDue()
}

// afterCrash forgets what the clients cannot know to be kept.
func (w *simWorld) afterCrash(durable uint64) {
	for _, k := range w.clients {
		k.gone()
		for _, m := range k.mail {
			m.seen = m.seen && m.pos <= durable && k.attached <= durable
			if m.rec > durable {
				m.rec = 0
			}
			if m.pos > durable || m.pos == 0 {
				m.unknown = true
			}
			if m.acked > durable {
				m.acked, m.unknown, m.mayBeDup = 0, true, true
			}
		}
	}
	for topic, list := range w.retained {
		i := len(list)
		for i > 0 && list[i-1].pos > durable {
			i--
		}
		w.retained[topic] = list[max(0, i-1):] // the last durable one, or any after it
	}
}

// check has every client fetch what waits for it, and compares with the model.
func (w *simWorld) check() {
	w.t.Helper()
	for topic, list := range w.retained {
		have := 0
		if m := w.b.sessions.retained.topics[topic]; m != nil {
			fmt.Sscan(string(m.payload), &have)
		}
		ok := slices.ContainsFunc(list, func(r simRetained) bool { return r.number == have })
		if !ok {
			w.t.Fatalf("topic %s retains message %d, want one of %v", topic, have, list)
		}
		w.retained[topic] = []simRetained{{number: have}}
	}
	for _, k := range w.clients {
		w.disconnect(k)
		w.connect(k)
		if s := k.c.session; !maps.Equal(filtersOf(s), k.filters) {
			for f := range k.filters {
				if _, ok := s.filters[f]; !ok {
					w.t.Fatalf("%s has subscriptions %v, want %v", k.id, filtersOf(s), k.filters)
				}
			}
			k.filters = filtersOf(s)
		}
		for range len(k.mail) + 3 {
			w.read(k, 1000)
		}
		for _, m := range k.mail {
			if m.acked == 0 && !m.unknown {
				w.t.Fatalf("%s was never sent message %d, queued at %d", k.id, m.number, m.pos)
			}
		}
		k.mail = nil
		if s := k.c.session; s.live() != 0 || s.bytes != 0 || s.open != 0 || s.waiting != 0 {
			w.t.Fatalf("%s: %d messages left, %d bytes, %d open, %d waiting", k.id, s.live(), s.bytes, s.open, s.waiting)
		}
	}
	if w.b.sessions.queued != 0 {
		w.t.Fatalf("%d bytes queued in empty queues", w.b.sessions.queued)
	}
}

func filtersOf(s *session) map[string]byte {
	m := map[string]byte{}
	for f, o := range s.filters {
		m[f] = o.Qos
	}
	return m
}

func (w *simWorld) open() {
	w.t.Helper()
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
}

func TestSessions_BehaveLikeAModelOfABroker(t *testing.T) {
	for seed := range uint64(40) {
		w := newSimWorld(t, seed)
		w.open()
		for i := range 600 {
			w.step()
			if i%150 == 149 { // restart after a kill: what was committed is there
				w.commit()
				durable := w.st.durable.Load()
				w.fs.Crash()
				w.fs.Restart(simfs.KeepAll, seed)
				w.afterCrash(durable)
				w.open()
			}
		}
		w.commit()
		w.check()
	}
}

func TestSessions_SurvivePowerLossAtAnyFileOperation(t *testing.T) {
	const steps = 120
	stride := 1
	if testing.Short() {
		stride = 7
	}
	for seed := range uint64(3) {
		w := newSimWorld(t, seed)
		w.open()
		for range steps {
			w.step()
		}
		ops := w.fs.Ops()
		for n := 1 + int(seed)%stride; n <= ops; n += stride {
			policy := simfs.Policies[n%len(simfs.Policies)]
			t.Run(fmt.Sprintf("seed=%d/op=%d/%s", seed, n, strings.ReplaceAll(policy.String(), " ", "_")), func(t *testing.T) {
				w := newSimWorld(t, seed)
				w.fs.CrashBefore(n)
				if w.start() == nil {
					for range steps {
						if !w.step() {
							break
						}
					}
				}
				durable := uint64(0)
				if w.st != nil {
					durable = w.st.durable.Load()
				}
				w.fs.Restart(policy, uint64(n))
				w.fs.CrashBefore(0)
				w.afterCrash(durable)
				w.open()
				w.check()
				// And it goes on.
				for range 30 {
					w.step()
				}
				w.commit()
				durable = w.st.durable.Load()
				w.fs.Crash()
				w.fs.Restart(simfs.DropAll, uint64(n))
				w.afterCrash(durable)
				w.open()
				w.check()
			})
		}
	}
}

func TestSessions_SurviveAnyFailingFileOperation(t *testing.T) {
	const steps = 120
	w := newSimWorld(t, 1)
	w.open()
	for range steps {
		w.step()
	}
	ops := w.fs.Ops()
	for n := 1; n <= ops; n += 2 {
		for _, fault := range []simfs.Fault{simfs.EIO, simfs.ENOSPC, simfs.FailedSync, simfs.DoneAnyway} {
			t.Run(fmt.Sprintf("op=%d/%v", n, fault), func(t *testing.T) {
				w := newSimWorld(t, 1)
				w.fs.FailAt(n, fault)
				if err := w.start(); err != nil {
					return // refused to open: said so
				}
				for range steps {
					w.step()
				}
				w.commit() // the fault was one: it has gone
				w.commit()
				if !w.st.works() {
					w.snapshot()
				}
				if !w.st.works() {
					t.Fatal("the store did not recover")
				}
				durable := w.st.durable.Load()
				w.fs.Crash()
				w.fs.Restart(simfs.DropAll, uint64(n))
				w.afterCrash(durable)
				w.open()
				w.check()
			})
		}
	}
}

func FuzzReplay(f *testing.F) {
	w := newSimWorld(f, 5)
	w.open()
	for range 60 {
		w.step()
	}
	w.snapshot()
	v, _, err := w.st.slots.Load()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(v)
	f.Add([]byte{snapshotVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReplay()
		_ = r.snapshot(b)
		for len(b) > 2 {
			n := min(int(b[0]), len(b)-2)
			r.apply(b[1]%14, 1, b[2:2+n])
			b = b[2+n:]
		}
		k := r.finish()
		bytes := 0
		for _, s := range k.byNumber {
			if s.live() != len(s.queue) || s.open != 0 || k.byID[s.id] != s {
				t.Fatalf("session %+v", s)
			}
			bytes += s.bytes
		}
		if bytes != k.queued {
			t.Fatalf("%d bytes queued, %d counted", bytes, k.queued)
		}
	})
}

// A snapshot may hold what the log did not get to write: numbering must go on behind it.
func TestStore_SnapshotAheadOfTheLogHidesNoLaterRecord(t *testing.T) {
	w := newSimWorld(t, 1)
	w.open()
	k := w.clients[0]
	w.connect(k)
	w.subscribe(k, "a", 1)
	w.disconnect(k)
	w.commit()
	crash := func() {
		durable := w.st.durable.Load()
		w.fs.Crash()
		w.fs.Restart(simfs.DropAll, 1)
		w.afterCrash(durable)
		w.open()
	}
	for range 5 {
		w.publish("a", 1, false)
	}
	w.snapshot()
	if w.st.snapshots.Load() != 1 {
		t.Fatal("no snapshot")
	}
	crash()
	for range 3 {
		w.publish("a", 1, false)
	}
	w.commit()
	crash()
	w.check()
}
