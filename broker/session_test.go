package broker

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
)

// runKept runs a broker on the store in dir, until stop is called or the test ends.
func runKept(t testing.TB, dir string, change func(*Config, *StoreOptions)) (b *Broker, stop func()) {
	t.Helper()
	cfg := Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}}
	var o StoreOptions
	if change != nil {
		change(&cfg, &o)
	}
	st, err := OpenStore(filepath.Join(dir, "broker"), o)
	if err != nil {
		t.Fatal(err)
	}
	cfg.Store = st
	j := &stubJournal{auto: true}
	if b, err = New(cfg, j); err != nil {
		t.Fatal(err)
	}
	j.b = b
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var once atomic.Bool
	stop = func() {
		if once.Swap(true) {
			return
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := st.Close(); err != nil {
			t.Errorf("close store: %v", err)
		}
	}
	t.Cleanup(stop)
	return b, stop
}

// dialKept connects with a session that is kept: MQTT 3.1.1 without clean session, or MQTT 5 with an expiry of 1 h.
func dialKept(t testing.TB, b *Broker, v5 bool, id string, present bool) *rawClient {
	t.Helper()
	c := dial(t, b)
	c.write(connectKept(v5, id, 3600))
	p := c.expectKind(typeConnack)
	if p[3] != 0 || p[2] == 1 != present {
		t.Fatalf("CONNACK % X, want success, session present %v", p, present)
	}
	return c
}

func connectKept(v5 bool, id string, expiry uint32) []byte {
	body := unhex("00 04 4D 51 54 54 04 00 00 3C")
	if v5 {
		body[6] = 5
		body = binary.BigEndian.AppendUint32(append(body, 5, 0x11), expiry)
	}
	body = append(append(body, byte(len(id)>>8), byte(len(id))), id...)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// filter subscribes to a filter with options as SUBSCRIBE has them.
func (c *rawClient) filter(v5 bool, filter string, options byte) {
	c.t.Helper()
	body := []byte{0, 9}
	if v5 {
		body = append(body, 0)
	}
	body = append(append(append(body, 0, byte(len(filter))), filter...), options)
	c.write(append([]byte{0x82, byte(len(body))}, body...))
	if p := c.expectKind(9); p[len(p)-1] >= 0x80 {
		c.t.Fatalf("SUBACK % X", p)
	}
}

// received is a PUBLISH as a client got it.
type received struct {
	topic, payload string
	qos            byte
	dup, retain    bool
	id             []byte
}

func (c *rawClient) publish(v5 bool) received {
	c.t.Helper()
	p := c.expectKind(typePublish)
	header, _, _ := frameSize(p)
	r := received{qos: p[0] >> 1 & 3, dup: p[0]&flagDup != 0, retain: p[0]&flagRetain != 0}
	b := p[header:]
	n := int(binary.BigEndian.Uint16(b))
	r.topic, b = string(b[2:2+n]), b[2+n:]
	if r.qos > 0 {
		r.id, b = b[:2], b[2:]
	}
	if v5 {
		n, width := uvarint(b)
		b = b[width+n:]
	}
	r.payload = string(b)
	return r
}

func (c *rawClient) ack(kind byte, id []byte) {
	c.t.Helper()
	flags := byte(0)
	if kind == typePubrel {
		flags = 2
	}
	c.write([]byte{kind<<4 | flags, 2, id[0], id[1]})
}

// queueFor has a client publish n numbered messages with QoS 1, each acknowledged.
func queueFor(t testing.TB, b *Broker, topic string, from, n int) {
	t.Helper()
	p := dialV3(t, b, "publisher")
	for i := from; i < from+n; i++ {
		p.write(publishFrame(false, 1, uint16(i+1), topic, fmt.Appendf(nil, "%d", i)))
		p.expectKind(typePuback)
	}
	p.Close()
}

func TestQueue_ComesBackInOrderAndWithoutDup(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("v5=%v/restart=%v", v5, restart), func(t *testing.T) {
				dir := t.TempDir()
				b, stop := runKept(t, dir, nil)
				c := dialKept(t, b, v5, "d", false)
				c.filter(v5, "cmd/#", 1)
				c.Close()
				eventually(t, "the client is away", func() bool { return b.Stats().Sessions.Away == 1 })
				const n = 200
				queueFor(t, b, "cmd/x", 0, n)
				if restart {
					stop()
					b, _ = runKept(t, dir, nil)
				}
				c = dialKept(t, b, v5, "d", true)
				var first []received
				for i := range n {
					m := c.publish(v5)
					if m.payload != fmt.Sprint(i) || m.dup || m.topic != "cmd/x" {
						t.Fatalf("message %d came as %+v", i, m)
					}
					if first = append(first, m); i < n/2 {
						c.ack(typePuback, m.id)
					}
				}
				// What was not acknowledged comes again: in order, with DUP and the same packet ids.
				eventually(t, "acknowledgements are in", func() bool { return b.Stats().Sessions.QueuedBytes == n/2*(messageOverhead+int64(len("cmd/x100"))) })
				c.Close()
				c = dialKept(t, b, v5, "d", true)
				for i := n / 2; i < n; i++ {
					m := c.publish(v5)
					if m.payload != fmt.Sprint(i) || !m.dup || !bytes.Equal(m.id, first[i].id) {
						t.Fatalf("message %d, id % X, came again as %+v", i, first[i].id, m)
					}
					c.ack(typePuback, m.id)
				}
				queueFor(t, b, "cmd/x", n, 1)
				if m := c.publish(v5); m.payload != fmt.Sprint(n) || m.dup {
					t.Fatalf("a new message came as %+v", m)
				}
			})
		}
	}
}

func TestInflight_IsSentAgainAfterARestart(t *testing.T) {
	dir := t.TempDir()
	b, stop := runKept(t, dir, nil)
	c := dialKept(t, b, false, "d", false)
	c.filter(false, "cmd/#", 2)
	p := dialV3(t, b, "p")
	ids := [][]byte{}
	for i := range 3 {
		p.write(publishFrame(false, 2, uint16(i+1), "cmd/x", fmt.Appendf(nil, "%d", i)))
		p.expectKind(typePubrec)
		ids = append(ids, c.publish(false).id)
	}
	// The client has 0 and says so; 1 and 2 it does not acknowledge.
	c.ack(typePubrec, ids[0])
	c.expectKind(typePubrel)
	stop()
	b, _ = runKept(t, dir, nil)
	c = dialKept(t, b, false, "d", true)
	if m := c.expectKind(typePubrel); !bytes.Equal(m[2:4], ids[0]) {
		t.Fatalf("PUBREL % X, want id % X", m, ids[0])
	}
	for i := 1; i < 3; i++ {
		if m := c.publish(false); m.payload != fmt.Sprint(i) || !m.dup || !bytes.Equal(m.id, ids[i]) || m.qos != 2 {
			t.Fatalf("message %d came again as %+v", i, m)
		}
	}
}

// Journal and store commit apart: the store may have outlived a crash that the journal's last message did not.
func TestQoS2_MessageTheJournalLostIsJournalledAgain(t *testing.T) {
	dir := t.TempDir()
	b, stop := runKept(t, dir, nil)
	p := dialKept(t, b, false, "p", false)
	p.write(publishFrame(false, 2, 7, "dev/1", []byte("reading")))
	p.expect("50 02 00 07")
	stop()
	b, _ = runKept(t, dir, nil) // with an empty journal
	p = dialKept(t, b, false, "p", true)
	again := publishFrame(false, 2, 7, "dev/1", []byte("reading"))
	again[0] |= flagDup
	p.write(again)
	p.expect("50 02 00 07")
	if n := len(b.journal.(*stubJournal).received()); n != 1 {
		t.Errorf("acknowledged and journalled %d times, want once", n)
	}
}

func TestQoS2_IsTakenOnceAcrossARestart(t *testing.T) {
	dir := t.TempDir()
	b, stop := runKept(t, dir, nil)
	s := dialKept(t, b, false, "s", false)
	s.filter(false, "cmd/#", 1)
	s.Close()
	p := dialKept(t, b, false, "p", false)
	p.write(publishFrame(false, 2, 7, "cmd/x", []byte("once")))
	p.expect("50 02 00 07")
	stop()
	b, stop = runKept(t, dir, nil)
	p = dialKept(t, b, false, "p", true)
	again := publishFrame(false, 2, 7, "cmd/x", []byte("once"))
	again[0] |= flagDup
	p.write(again)
	p.expect("50 02 00 07") // once: whoever answered two would be sent two PUBCOMPs, the second perhaps for another message
	p.ack(typePubrel, []byte{0, 7})
	p.expect("70 02 00 07")
	stop()
	b, _ = runKept(t, dir, nil)
	// Released: the id may be used again.
	p = dialKept(t, b, false, "p", true)
	p.write(publishFrame(false, 2, 7, "cmd/x", []byte("another")))
	p.expect("50 02 00 07")
	s = dialKept(t, b, false, "s", true)
	for _, want := range []string{"once", "another"} {
		if m := s.publish(false); m.payload != want {
			t.Fatalf("received %+v, want %q", m, want)
		}
	}
	s.expectNothing(50 * time.Millisecond)
}

func TestSubscriptions_SurviveWithTheirOptions(t *testing.T) {
	dir := t.TempDir()
	b, stop := runKept(t, dir, nil)
	c := dialKept(t, b, true, "d", false)
	c.filter(true, "own", 1|1<<2)  // not its own messages
	c.filter(true, "keep", 1|1<<3) // retain as published
	c.filter(true, "gone", 1)
	c.write(unhex("82 0B 00 02 02 0B 2A 00 03 69 64 73 01")) // "ids" with subscription identifier 42
	c.expectKind(9)
	c.write(unhex("A2 09 00 03 00 00 04 67 6F 6E 65"))
	c.expectKind(11)
	stop()
	b, _ = runKept(t, dir, nil)
	c = dialKept(t, b, true, "d", true)
	p := dialV3(t, b, "p")
	c.write(publishFrame(true, 1, 1, "own", []byte("mine")))
	c.expectKind(typePuback)
	for _, topic := range []string{"own", "gone", "keep", "ids"} {
		f := publishFrame(false, 1, 1, topic, []byte("x"))
		f[0] |= flagRetain
		p.write(f)
		p.expectKind(typePuback)
	}
	want := []received{{topic: "own"}, {topic: "keep", retain: true}, {topic: "ids"}}
	for _, w := range want {
		raw := c.expectKind(typePublish)
		n := int(raw[3])
		if got := string(raw[4 : 4+n]); got != w.topic || raw[0]&flagRetain != 0 != w.retain {
			t.Errorf("received % X, want topic %s, retain %v", raw, w.topic, w.retain)
		}
		if props := raw[4+n+2:]; w.topic == "ids" && !bytes.HasPrefix(props, []byte{2, 0x0B, 42}) {
			t.Errorf("properties % X, want identifier 42", props)
		}
	}
	c.expectNothing(30 * time.Millisecond)
}

func TestRetained_SurvivesARestartAndSoDoesItsEnd(t *testing.T) {
	dir := t.TempDir()
	b, stop := runKept(t, dir, nil)
	p := dialV5(t, b, "p")
	retain := func(topic, payload string, props string) {
		t.Helper()
		body := append([]byte{0, byte(len(topic))}, topic...)
		body = append(body, 0, 1)
		body = append(append(body, byte(len(unhex(props)))), unhex(props)...)
		body = append(body, payload...)
		p.write(append([]byte{0x33, byte(len(body))}, body...))
		p.expect("40 02 00 01")
	}
	retain("r/kept", "1", "03 00 01 74") // content type "t"
	retain("r/gone", "2", "")
	retain("r/gone", "", "")
	retain("r/late", "3", "02 00 00 00 01") // expires in 1 s
	retain("r/kept", "4", "03 00 01 74")
	time.Sleep(1100 * time.Millisecond) // message expiry is in whole seconds
	stop()
	b, _ = runKept(t, dir, nil)
	c := dialV5(t, b, "c")
	c.filter(true, "r/+", 1)
	c.expect("33 10 00 06 72 2F 6B 65 70 74 00 01 04 03 00 01 74 34")
	c.expectNothing(30 * time.Millisecond)
	if n := b.Stats().Sessions.Retained; n > 2 {
		t.Errorf("%d retained messages", n)
	}
}

func TestRetained_OptionsOfTheSubscriptionDecide(t *testing.T) {
	b, _ := runKept(t, t.TempDir(), nil)
	p := dialV3(t, b, "p")
	f := publishFrame(false, 1, 1, "r", []byte("x"))
	f[0] |= flagRetain
	p.write(f)
	p.expectKind(typePuback)
	c := dialV5(t, b, "c")
	c.filter(true, "r", 1<<4) // only if it is new: it is
	if m := c.publish(true); !m.retain || m.qos != 0 {
		t.Fatalf("received %+v", m)
	}
	c.filter(true, "r", 1<<4)
	c.filter(true, "r", 2<<4)
	c.filter(true, "$share/g/r", 0)
	c.expectNothing(30 * time.Millisecond)
	c.filter(true, "r", 0)
	c.publish(true)
}

func TestClean_DiscardsAndTakeoverKeeps(t *testing.T) {
	b, _ := runKept(t, t.TempDir(), nil)
	c := dialKept(t, b, false, "d", false)
	c.filter(false, "cmd/#", 1)
	queueFor(t, b, "cmd/x", 0, 3)
	for range 3 {
		c.publish(false)
	}
	// Taken over: the new connection gets what the old one did not acknowledge.
	again := dialKept(t, b, false, "d", true)
	for i := range 3 {
		if m := again.publish(false); m.payload != fmt.Sprint(i) || !m.dup {
			t.Fatalf("message %d came as %+v", i, m)
		}
	}
	c.expectClosed()
	clean := dialV3(t, b, "d")
	queueFor(t, b, "cmd/x", 3, 1)
	clean.expectNothing(30 * time.Millisecond)
	clean.Close()
	eventually(t, "the clean session has ended", func() bool { return b.Stats().Sessions.Sessions == 0 })
	dialKept(t, b, false, "d", false)
	if n := b.Stats().Sessions.QueuedBytes; n != 0 {
		t.Errorf("%d bytes queued", n)
	}
}

func TestSession_ExpiryCountsTheTimeTheBrokerWasDown(t *testing.T) {
	dir := t.TempDir()
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	clock := func(c *Config, _ *StoreOptions) { c.Clock = now.Load }
	b, stop := runKept(t, dir, clock)
	for id, expiry := range map[string]uint32{"short": 10, "long": 1000} {
		c := dial(t, b)
		c.write(connectKept(true, id, expiry))
		c.expectKind(typeConnack)
		c.filter(true, "cmd/#", 1)
		c.Close()
	}
	eventually(t, "both are away", func() bool { return b.Stats().Sessions.Away == 2 })
	queueFor(t, b, "cmd/x", 0, 2)
	stop()
	now.Add(int64(11 * time.Second))
	b, _ = runKept(t, dir, clock)
	eventually(t, "the short one has expired", func() bool { s := b.Stats(); return s.Sessions.Expired == 1 && s.Subscriptions == 1 })
	dialKept(t, b, true, "long", true)
	// A new session of that id gets nothing of the old one.
	c := dialKept(t, b, true, "short", false)
	c.expectNothing(30 * time.Millisecond)
}

func TestMessage_ExpiredOneIsNotSentLater(t *testing.T) {
	var now atomic.Int64
	now.Store(time.Now().UnixNano())
	b, _ := runKept(t, t.TempDir(), func(c *Config, _ *StoreOptions) { c.Clock = now.Load })
	c := dialKept(t, b, true, "d", false)
	c.filter(true, "cmd", 1)
	c.Close()
	eventually(t, "the client is away", func() bool { return b.Stats().Sessions.Away == 1 })
	p := dialV5(t, b, "p")
	p.send("32 0E 00 03 63 6D 64 00 01 05 02 00 00 00 0A 61")
	p.expectKind(typePuback)
	p.send("32 0E 00 03 63 6D 64 00 02 05 02 00 00 00 64 62")
	p.expectKind(typePuback)
	now.Add(int64(20 * time.Second))
	c = dialKept(t, b, true, "d", true)
	raw := c.expectKind(typePublish)
	if !bytes.HasSuffix(raw, unhex("05 02 00 00 00 50 62")) {
		t.Fatalf("received % X, want the second message, with 80 s left", raw)
	}
	c.expectNothing(30 * time.Millisecond)
	if n := b.Stats().Sessions.QueueExpired; n != 1 {
		t.Errorf("%d expired, want 1", n)
	}
}

func TestAck_WaitsUntilWhatIsQueuedOrRetainedIsDurable(t *testing.T) {
	const interval = 300 * time.Millisecond
	b, _ := runKept(t, t.TempDir(), func(_ *Config, o *StoreOptions) { o.CommitInterval = interval })
	c := dialKept(t, b, false, "d", false)
	c.filter(false, "cmd/#", 1)
	c.Close()
	eventually(t, "the client is away", func() bool { return b.Stats().Sessions.Away == 1 })
	p := dialV3(t, b, "p")
	p.write(publishFrame(false, 1, 1, "other/x", nil)) // nobody is to get it
	p.expectKind(typePuback)
	durable := func() uint64 { return b.sessions.durable() }
	for i, retain := range []byte{0, flagRetain} {
		before := durable()
		f := publishFrame(false, 1, 2, []string{"cmd/x", "other/y"}[i], []byte("x"))
		f[0] |= retain
		p.write(f)
		start := time.Now()
		p.expectKind(typePuback)
		if durable() == before {
			t.Errorf("retain=%v: acknowledged after %v and not durable", retain != 0, time.Since(start))
		}
	}
	p.write(publishFrame(false, 2, 3, "cmd/x", []byte("x")))
	before := durable()
	p.expectKind(typePubrec)
	if durable() == before {
		t.Error("PUBREC before the message was durable")
	}
}

func TestQueue_FullOneLosesItsOldestAndCounts(t *testing.T) {
	b, _ := runKept(t, t.TempDir(), func(c *Config, _ *StoreOptions) {
		c.Sessions = SessionLimits{QueuedMessages: 10, TotalBytes: 3000}
	})
	for _, id := range []string{"d", "e"} {
		c := dialKept(t, b, false, id, false)
		c.filter(false, "cmd/"+id, 1)
		c.Close()
	}
	eventually(t, "the clients are away", func() bool { return b.Stats().Sessions.Away == 2 })
	queueFor(t, b, "cmd/d", 0, 15)
	if n := b.Stats().Sessions.QueueDropped; n != 5 {
		t.Errorf("%d dropped, want 5", n)
	}
	p := dialV3(t, b, "p")
	p.write(publishFrame(false, 1, 1, "cmd/e", make([]byte, 2500))) // more than all queues may have
	p.expectKind(typePuback)
	if n := b.Stats().Sessions.QueueRefused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
	c := dialKept(t, b, false, "d", true)
	for i := 5; i < 15; i++ {
		if m := c.publish(false); m.payload != fmt.Sprint(i) {
			t.Fatalf("received %+v, want %d", m, i)
		}
	}
}

// revocable lets a user read until told otherwise.
type revocable struct{ denied atomic.Bool }

func (r *revocable) Allowed(_, _, topic string, write bool) bool { return write || !r.denied.Load() }

func TestReplay_RespectsTheRightsOfNow(t *testing.T) {
	dir := t.TempDir()
	r := &revocable{}
	rights := func(c *Config, _ *StoreOptions) { c.Rights = r }
	b, stop := runKept(t, dir, rights)
	c := dialKept(t, b, false, "d", false)
	c.filter(false, "cmd/#", 1)
	queueFor(t, b, "cmd/x", 0, 1)
	c.publish(false) // sent and not acknowledged
	c.Close()
	eventually(t, "the client is away", func() bool { return b.Stats().Sessions.Away >= 1 })
	queueFor(t, b, "cmd/x", 1, 2)
	r.denied.Store(true)
	stop()
	b, _ = runKept(t, dir, rights)
	c = dialKept(t, b, false, "d", true)
	c.expectNothing(50 * time.Millisecond)
	if s := b.Stats().Sessions; s.QueueDenied != 3 || s.QueuedBytes != 0 {
		t.Errorf("%+v, want 3 denied", s)
	}
}

func TestShared_GoesToOneAndPrefersWhoIsThere(t *testing.T) {
	b, _ := runKept(t, t.TempDir(), nil)
	var there []*rawClient
	for _, id := range []string{"a", "b", "away"} {
		c := dialKept(t, b, true, id, false)
		c.filter(true, "$share/g/cmd/#", 1)
		if id == "away" {
			c.Close()
		} else {
			there = append(there, c)
		}
	}
	eventually(t, "one is away", func() bool { return b.Stats().Sessions.Away == 1 })
	queueFor(t, b, "cmd/x", 0, 10)
	var got []string
	for _, c := range there {
		for range 5 { // in turn
			got = append(got, c.publish(true).payload)
		}
	}
	slices.Sort(got)
	if s := strings.Join(got, ""); s != "0123456789" {
		t.Errorf("received %s", s)
	}
}

func TestWill_WaitsForItsDelay(t *testing.T) {
	b, _ := runKept(t, t.TempDir(), nil)
	s := dialV3(t, b, "s")
	s.filter(false, "w", 0)
	// MQTT 5, session expiry 100 s, will on "w" with a delay of 1 s.
	connect := "10 1F 00 04 4D 51 54 54 05 04 00 3C 05 11 00 00 00 64 00 01 64 05 18 00 00 00 01 00 01 77 00 01 78"
	c := dial(t, b)
	c.send(connect)
	c.expectKind(typeConnack)
	c.Close()
	c = dial(t, b) // in time
	c.send(connect)
	c.expectKind(typeConnack)
	s.expectNothing(1500 * time.Millisecond)
	c.Close()
	start := time.Now()
	s.expect("30 04 00 01 77 78")
	if d := time.Since(start); d < 900*time.Millisecond {
		t.Errorf("the will came after %v", d)
	}
}

func TestStore_FailureRefusesWhatItCouldNotKeepAndNothingElse(t *testing.T) {
	fs := simfs.New(1)
	b, _ := runKept(t, "/data", func(_ *Config, o *StoreOptions) { o.FS = fs })
	c := dialKept(t, b, true, "d", false)
	c.filter(true, "cmd/#", 1)
	c.Close()
	eventually(t, "the client is away", func() bool { return b.Stats().Sessions.Away == 1 })
	eventually(t, "and that is stored", func() bool { return uint64(b.sessions.store.log.Next())-1 == b.sessions.durable() })
	fs.SetCapacity(1) // the disk is full
	first := dialV5(t, b, "first")
	first.write(publishFrame(true, 1, 1, "cmd/x", nil))
	first.expectNothing(50 * time.Millisecond)
	eventually(t, "the store has failed", func() bool { return b.Stats().Sessions.StoreFaults == 1 })
	p := dialV5(t, b, "p")
	p.write(publishFrame(true, 1, 1, "dev/1", nil)) // the journal's alone
	p.expectKind(typePuback)
	p.write(publishFrame(true, 1, 2, "cmd/x", nil))
	if m := p.expectKind(typeDisconnect); m[2] != reasonQuota {
		t.Errorf("DISCONNECT % X", m)
	}
	p.expectClosed()
	fs.SetCapacity(0)
	first.expectKind(typePuback) // nothing was lost
	queueFor(t, b, "cmd/x", 0, 1)
	if n := b.Stats().Sessions.StoreRefused; n != 1 {
		t.Errorf("%d refused, want 1", n)
	}
}

func TestMatches_FollowsTheStandard(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"#", "a", true}, {"#", "a/b", true}, {"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true},
		{"a/#", "a", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false}, {"+", "a", true}, {"+", "a/b", false}, {"+/+", "/a", true},
		{"/+", "/a", true}, {"+", "/a", false}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a//c", true}, {"a/+", "a", false},
		{"a/+/#", "a", false}, {"+/#", "a", true}, {"a/b", "a/b", true}, {"a/b", "a/b/c", false}, {"a/+", "a/", true},
	} {
		if got := matches(tc.filter, tc.topic); got != tc.want {
			t.Errorf("%q matches %q: %v, want %v", tc.filter, tc.topic, got, tc.want)
		}
	}
}
