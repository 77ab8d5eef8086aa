package broker

import (
	"errors"
	"sync"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// SessionLimits bound what is kept for clients, and for how long. A zero field is its default.
type SessionLimits struct {
	Expiry         time.Duration // 7 days, at most, of a session whose client is away
	QueuedMessages int           // 10,000 of a session, at most 60,000; beyond, the oldest unsent one is dropped
	QueuedBytes    int           // 16 MiB of a session; beyond, the oldest unsent one is dropped
	TotalBytes     int           // 64 MiB of all sessions; beyond, new messages are not queued
}

func (l *SessionLimits) setDefaults() {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&l.QueuedMessages, 10_000)
	l.QueuedMessages = min(l.QueuedMessages, 60_000) // there are 65,535 packet ids
	set(&l.QueuedBytes, 16<<20)
	set(&l.TotalBytes, 64<<20)
	if l.Expiry <= 0 {
		l.Expiry = 7 * 24 * time.Hour
	}
}

// maxWindow is how many QoS 1 and 2 messages are on their way to a client at a time, unless it wants fewer.
const maxWindow = 1000

// book is what sessions and the store have in common: everything that is kept.
type book struct {
	byID       map[string]*session
	byNumber   map[uint64]*session // stored ones
	lastNumber uint64
	seq        uint64 // of the last message
	queued     int    // bytes in all queues
	retained   retained
}

func newBook() *book {
	return &book{byID: map[string]*session{}, byNumber: map[uint64]*session{}, retained: retained{topics: map[string]*message{}}}
}

// sessions delivers messages to clients and keeps them for those who are away. Its mutex is taken before a connection's.
type sessions struct {
	b      *Broker
	limits SessionLimits
	store  *Store // nil: nothing survives the process

	mu sync.Mutex
	*book
	sys   retained                // of $SYS
	wills map[string]*delayedWill // by client id
	turn  uint                    // of the shared subscriptions

	waitMu  sync.Mutex
	waiters chan struct{} // closed by the next commit, when not nil
}

// delivery is a stored session's share of a message.
type delivery struct {
	s *session
	e *entry
}

var errNoStore = errors.New("store of sessions takes no changes")

// route sends m to its targets, keeps it for those of them who are away, and retains it. When it returns pos > 0, m may be
// acknowledged once the store is durable up to pos. An error means that m has to be refused: nobody was sent anything. With
// QoS 0 there is no error: what can be done is done.
func (x *sessions) route(m *message, targets []target) (pos uint64, err error) {
	pos, _, err = x.routeFrom(m, targets)
	return pos, err
}

// routeFrom is route for a publisher that can be made to wait a little, for the sake of a subscriber that works hard.
func (x *sessions) routeFrom(m *message, targets []target) (pos uint64, wait time.Duration, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.store != nil && m.qos > 0 && !x.store.works() && (m.retain || x.anyStored(m, targets)) {
		x.b.count.storeRefused.Add(1)
		return 0, 0, errNoStore
	}
	keep := m.retain && x.retain(m)
	var few [4]delivery
	queued, stored := few[:0], 0
	var chosen map[int]string
	for i := range targets {
		t := &targets[i]
		if t.share > 0 {
			if chosen == nil {
				chosen = x.choose(targets)
			}
			if chosen[t.share] != t.id {
				continue
			}
		}
		s := x.byID[t.id]
		if s == nil || t.noLocal && m.origin == t.id || !x.mayRead(s, m.topic) {
			continue
		}
		flags := min(m.qos, t.qos) << 1
		if m.retain && t.asPublished {
			flags |= flagRetain
		}
		if flags&0x06 == 0 {
			s.deliver(m, flags, t.ids)
			continue
		}
		if e := x.enqueue(s, m, flags, t.ids); e != nil {
			queued = append(queued, delivery{s, e})
			if s.stored() {
				stored++
			}
		}
	}
	if x.store != nil && (keep || stored > 0) {
		pos, err = x.recordMessage(m, keep, queued)
	}
	for _, d := range queued {
		x.pump(d.s, d.e)
		wait = max(wait, x.crowded(d.s))
	}
	if m.qos == 0 {
		return 0, wait, nil
	}
	return pos, wait, err
}

// A client that is about to let too much wait may slow those down who publish to it: in all patienceMost, and as much again
// as it earns by taking messages. So one that is merely busy is not closed for a burst, and one that takes nothing, or next
// to nothing, delays nobody for long.
const (
	patienceMost  = 250 * time.Millisecond
	patienceEarns = 20 * time.Microsecond // a message taken
	patienceStep  = 200 * time.Microsecond
)

// crowded returns how long a publisher to s should wait.
func (x *sessions) crowded(s *session) time.Duration {
	if s.conn == nil || s.patience < patienceStep {
		return 0
	}
	full := s.waiting > x.b.limits.QueueBytes/2
	if s.lasting() {
		full = s.waiting > x.limits.QueuedBytes/2 || s.live()-s.free > x.limits.QueuedMessages/2
	}
	if !full {
		return 0
	}
	s.patience -= patienceStep
	return patienceStep
}

// anyStored tells whether m would be queued in a stored session.
func (x *sessions) anyStored(m *message, targets []target) bool {
	for i := range targets {
		if s := x.byID[targets[i].id]; s != nil && s.stored() && min(m.qos, targets[i].qos) > 0 {
			return true
		}
	}
	return false
}

// choose selects one session for each share among targets: the next one in turn, of those that are connected if there are.
func (x *sessions) choose(targets []target) map[int]string {
	x.turn++
	type candidates struct{ connected, away []string }
	shares := map[int]candidates{}
	for i := range targets {
		t := &targets[i]
		if s := x.byID[t.id]; t.share > 0 && s != nil {
			c := shares[t.share]
			if s.conn != nil {
				c.connected = append(c.connected, t.id)
			} else {
				c.away = append(c.away, t.id)
			}
			shares[t.share] = c
		}
	}
	chosen := map[int]string{}
	for n, c := range shares {
		list := c.connected
		if len(list) == 0 {
			list = c.away
		}
		chosen[n] = list[x.turn%uint(len(list))]
	}
	return chosen
}

// mayRead tells whether the session's user may be sent what is published to topic.
func (x *sessions) mayRead(s *session, topic string) bool {
	r := x.b.cfg.Rights
	return r == nil || r.Allowed(s.id, s.user, topic, false)
}

// enqueue puts m into s's queue, nil when there is no room.
func (x *sessions) enqueue(s *session, m *message, flags byte, ids []int) *entry {
	if !x.makeRoom(s, m.size()) {
		return nil
	}
	return x.push(s, m, flags, ids, false)
}

func (x *sessions) push(s *session, m *message, flags byte, ids []int, free bool) *entry {
	n, ok := s.nextNumber()
	if !ok {
		x.b.count.queueDropped.Add(1)
		return nil
	}
	e := &entry{m: m, ids: ids, number: n, flags: flags, free: free}
	s.push(e)
	x.queued += e.size()
	return e
}

// makeRoom tells whether s may have another message of a size. A connected client that lets that many wait is too slow
// and closed. For a stored session the oldest messages not sent yet go.
func (x *sessions) makeRoom(s *session, size int) bool {
	l, n := &x.limits, &x.b.count
	full := func() bool {
		if s.lasting() {
			return s.live()-s.free >= l.QueuedMessages || s.bytes+size > l.QueuedBytes
		}
		return s.waiting+size > x.b.limits.QueueBytes
	}
	if full() && s.conn != nil {
		s.conn.tooSlow()
		s.conn = nil
	}
	for full() {
		e := s.oldestUnsent()
		if !s.lasting() || e == nil {
			n.queueDropped.Add(1)
			return false
		}
		x.drop(s, e)
		n.queueDropped.Add(1)
	}
	if x.queued+size > l.TotalBytes {
		n.queueRefused.Add(1)
		return false
	}
	return true
}

// drop finishes a message without the client's doing.
func (x *sessions) drop(s *session, e *entry) {
	x.finish(s, e)
	if s.stored() {
		x.recordDone(s, e)
	}
}

func (x *sessions) finish(s *session, e *entry) {
	if !e.done {
		x.queued -= e.size()
		s.finish(e)
	}
}

// deliver sends a QoS 0 message, or drops it.
func (s *session) deliver(m *message, flags byte, ids []int) {
	c := s.conn
	if c == nil {
		return
	}
	c.mu.Lock()
	if c.closing || !c.appendDelivery(m, flags, 0, ids, c.b.clock()) {
		c.mu.Unlock()
		c.b.count.deliveriesDropped.Add(1)
		return
	}
	c.flush(false)
}

// pump sends what the client's window and its connection have room for. fresh is a message whose rights were just asked.
func (x *sessions) pump(s *session, fresh *entry) {
	c := s.conn
	if c == nil {
		return
	}
	now := x.b.clock()
	sent := false
	c.mu.Lock()
	for s.skip(); s.next < len(s.queue) && s.open < s.window && !c.closing; s.skip() {
		// The rest is sent as acknowledgements come in. It must not look like a client that takes nothing.
		if s.open > 0 && c.out.size() > x.b.limits.QueueBytes/2 {
			break
		}
		e := s.queue[s.next]
		switch {
		case e.rel:
			id := e.packetID()
			c.out.queue = append(c.out.queue, typePubrel<<4|0x02, 2, byte(id>>8), byte(id))
		case !e.dup && e.m.expired(now):
			x.drop(s, e)
			x.b.count.queueExpired.Add(1)
			continue
		case e != fresh && !x.mayRead(s, e.m.topic):
			x.drop(s, e)
			x.b.count.queueDenied.Add(1)
			continue
		default:
			flags := e.flags
			if e.dup {
				flags |= flagDup
			}
			if !c.appendDelivery(e.m, flags, e.packetID(), e.ids, now) { // MQTT-3.1.2-25: as if it had been delivered
				x.drop(s, e)
				x.b.count.deliveriesDropped.Add(1)
				continue
			}
		}
		s.sending(e)
		sent = true
	}
	if sent {
		c.flush(false)
		return
	}
	c.mu.Unlock()
}

// acked deals with the client's answer to a message: PUBACK, PUBREC or PUBCOMP. frame is well-formed.
func (x *sessions) acked(c *conn, frame []byte, header int) {
	const failure, notFound = 0x80, 0x92
	body := frame[header:]
	id, ok := packetIDOf(frame, header)
	if !ok {
		return
	}
	reason := byte(0)
	if len(body) > 2 {
		reason = body[2]
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || s.owner != c {
		return // another connection has taken the session over
	}
	e := s.find(id)
	kind := frame[0] >> 4
	pubrel := []byte{typePubrel<<4 | 0x02, 2, body[0], body[1]}
	if e == nil {
		if kind == typePubrec && reason < failure {
			if c.v5 {
				pubrel[1] = 3
				pubrel = append(pubrel, notFound)
			}
			c.queueFrame(pubrel)
		}
		return
	}
	switch qos := e.flags >> 1 & 3; {
	case kind == typePubrec && qos == 2 && reason < failure:
		if !e.rel {
			e.rel = true
			if s.stored() {
				x.recordRel(s, e)
			}
		}
		c.queueFrame(pubrel)
		return
	case kind == typePubrec && qos == 2, kind == typePubcomp && qos == 2 && e.rel, kind == typePuback && qos == 1:
		s.patience = min(s.patience+patienceEarns, patienceMost)
		x.drop(s, e)
		x.pump(s, nil)
	} // else it answers something else
}

// establish gives the client's session, or a new one, to c, before CONNACK. resume tells that CONNACK will say that there
// was one. The client id's lock is held.
func (x *sessions) establish(c *conn, cl *mqtt.Client, resume bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.wills, cl.ID)
	s := x.byID[cl.ID]
	if s != nil && !resume {
		x.end(s)
		s = nil
	}
	if s == nil {
		s = &session{id: cl.ID, filters: map[string]subscription{}}
		x.byID[s.id] = s
	} else {
		s.rewind()
	}
	s.owner, s.conn, s.attached, s.endsAt = c, nil, true, 0
	s.user, s.version, s.window, s.expiry = c.username, cl.Properties.ProtocolVersion, maxWindow, x.expiryOf(cl)
	if c.receiveMaximum > 0 {
		s.window = min(s.window, c.receiveMaximum)
	}
	c.session = s
	switch {
	case x.store == nil:
	case s.stored():
		x.recordSession(s)
	case s.expiry > 0:
		x.lastNumber++
		s.number = x.lastNumber
		x.byNumber[s.number] = s
		x.recordSession(s)
		for _, f := range s.filters {
			x.recordSubscribe(s, f)
		}
		for _, e := range s.queue {
			_, _ = x.recordMessage(e.m, false, []delivery{{s, e}})
		}
	}
}

// expiryOf is how many seconds cl's session outlives its connection.
func (x *sessions) expiryOf(cl *mqtt.Client) uint32 {
	most := uint32(x.limits.Expiry / time.Second)
	p := &cl.Properties
	switch {
	case p.ProtocolVersion == 5:
		return min(p.Props.SessionExpiryInterval, most)
	case p.Clean:
		return 0
	}
	return most
}

// attach begins to send, after CONNACK.
func (x *sessions) attach(c *conn) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if s := c.session; s != nil && s.owner == c {
		s.conn, s.patience = c, patienceMost
		x.pump(s, nil)
	}
}

// detach ends c's hold of its session, once. ends tells that the session ends with it.
func (x *sessions) detach(c *conn, cl *mqtt.Client, ends bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || s.owner != c {
		return
	}
	if s.stored() {
		for _, id := range c.lost {
			x.released(s, id)
		}
	}
	s.owner, s.conn, s.attached = nil, nil, false
	if ends {
		x.end(s)
		return
	}
	s.rewind()
	s.expiry = x.expiryOf(cl) // DISCONNECT may have changed it
	s.closedAt = x.b.clock()
	s.endsAt = x.b.now() + int64(s.expiry)*int64(time.Second)
	if s.stored() {
		x.recordDetach(s)
	}
}

// end removes a session and whatever waits in it.
func (x *sessions) end(s *session) {
	if s.stored() {
		x.recordEnd(s)
	}
	x.book.remove(s)
	if w := x.wills[s.id]; w != nil {
		w.due = 0 // MQTT 5, 3.1.3.2.2: no later than the session's end
	}
}

func (k *book) remove(s *session) {
	k.queued -= s.bytes
	delete(k.byNumber, s.number)
	if k.byID[s.id] == s {
		delete(k.byID, s.id)
	}
}

// receive notes that the client sent a QoS 2 message, which it must not be able to send twice. pos is as with route.
func (x *sessions) receive(c *conn, id uint16) (pos uint64, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || !s.stored() || s.owner != c {
		return 0, nil
	}
	if !x.store.works() {
		return 0, errNoStore
	}
	if s.received == nil {
		s.received = map[uint16]struct{}{}
	}
	s.received[id] = struct{}{}
	return x.recordReceived(s, id, true)
}

// release notes that the client has released a QoS 2 message. Its PUBCOMP has to wait for pos: the id may be used again
// after it.
func (x *sessions) release(c *conn, id uint16) (pos uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || !s.stored() || s.owner != c {
		return 0
	}
	return x.released(s, id)
}

func (x *sessions) released(s *session, id uint16) (pos uint64) {
	if _, ok := s.received[id]; !ok {
		return 0
	}
	delete(s.received, id)
	pos, _ = x.recordReceived(s, id, false)
	return pos
}

// subscribe notes the filters that were granted. pos is what has to be durable before the client is told.
func (x *sessions) subscribe(c *conn, filters []subscription, codes []byte) (pos uint64) {
	const refused = 0x80
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || s.owner != c {
		return 0
	}
	for i, f := range filters {
		if i >= len(codes) || codes[i] >= refused {
			continue
		}
		c.granted = append(c.granted, granted{f, i < len(c.existed) && c.existed[i]})
		s.filters[f.Filter] = f
		if s.stored() {
			pos = max(pos, x.recordSubscribe(s, f))
		}
	}
	return pos
}

// unsubscribe forgets filters. pos is as with subscribe.
func (x *sessions) unsubscribe(c *conn, filters []subscription) (pos uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || s.owner != c {
		return 0
	}
	for _, f := range filters {
		delete(s.filters, f.Filter)
		if s.stored() {
			pos = max(pos, x.recordUnsubscribe(s, f.Filter))
		}
	}
	return pos
}
