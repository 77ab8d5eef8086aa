package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/gateway/seglog"
)

// Types of records in the store's log. Bodies are unsigned varints unless said otherwise; a string has its length before it.
const (
	recSession     = 1  // number | id | user | version, a byte | expiry s | window | last packet id, 0: none: a connection begins; the number is new or known
	recDetach      = 2  // number | expiry s: the connection has ended, at the record's time
	recEnd         = 3  // number: the session is no more
	recSubscribe   = 4  // number | filter | options as in SUBSCRIBE, a byte | identifier
	recUnsubscribe = 5  // number | filter
	recMessage     = 6  // seq | flags, a byte | expires ns | topic | origin | properties | payload | n {number | flags, a byte | packet id | n {identifier}}
	recClear       = 7  // topic: its retained message is no more
	recDone        = 8  // number | seq: the message is off the session's queue
	recRel         = 9  // number | seq: QoS 2, the client has it and owes PUBCOMP
	recReceived    = 10 // number | packet id: a QoS 2 message of the client
	recReleased    = 11 // number | packet id
	recAlive       = 12 // nothing: the process ran at the record's time
)

// Flags of recMessage, for the message and for each delivery: QoS and retain as in PUBLISH, and
const (
	keepRetained = 0x10 // the message is its topic's retained one
	maySent      = 0x08 // the delivery may have been sent
	clientHasIt  = 0x20 // as after recRel
)

const snapshotVersion = 1

func appendText[S string | []byte](b []byte, s S) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSession(b []byte, s *session) []byte {
	b = appendText(appendText(binary.AppendUvarint(b, s.number), s.id), s.user)
	b = binary.AppendUvarint(append(b, s.version), uint64(s.expiry))
	b = binary.AppendUvarint(b, uint64(s.window))
	if s.numbers == 0 {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(packetID(s.numbers)))
}

func appendSubscription(b []byte, s *session, f *subscription) []byte {
	options := f.Qos | f.RetainHandling<<4
	if f.NoLocal {
		options |= 1 << 2
	}
	if f.RetainAsPublished {
		options |= 1 << 3
	}
	b = append(appendText(binary.AppendUvarint(b, s.number), f.Filter), options)
	return binary.AppendUvarint(b, uint64(max(0, f.Identifier)))
}

// appendMessage encodes m and, of its deliveries, those to stored sessions.
func appendMessage(b []byte, m *message, seq uint64, keep bool, to []delivery) []byte {
	flags := m.qos << 1
	if m.retain {
		flags |= flagRetain
	}
	if keep {
		flags |= keepRetained
	}
	b = append(binary.AppendUvarint(b, seq), flags)
	b = binary.AppendUvarint(b, uint64(m.expires))
	b = appendText(appendText(appendText(appendText(b, m.topic), m.origin), m.props), m.payload)
	n := 0
	for _, d := range to {
		if d.s.stored() {
			n++
		}
	}
	b = binary.AppendUvarint(b, uint64(n))
	for _, d := range to {
		if !d.s.stored() {
			continue
		}
		flags := d.e.flags
		if d.e.dup || d.e.sent {
			flags |= maySent
		}
		if d.e.rel {
			flags |= clientHasIt
		}
		b = append(binary.AppendUvarint(b, d.s.number), flags)
		b = binary.AppendUvarint(b, uint64(d.e.packetID()))
		b = binary.AppendUvarint(b, uint64(len(d.e.ids)))
		for _, i := range d.e.ids {
			b = binary.AppendUvarint(b, uint64(i))
		}
	}
	return b
}

// What follows appends to the store; sessions.mu is held, and there is a store.

func (x *sessions) record(typ byte, body []byte) (uint64, error) {
	x.store.body = body[:0]
	return x.store.append(typ, x.b.clock(), body)
}

func (x *sessions) recordSession(s *session) {
	_, _ = x.record(recSession, appendSession(x.store.body[:0], s))
}

func (x *sessions) recordDetach(s *session) {
	_, _ = x.record(recDetach, binary.AppendUvarint(binary.AppendUvarint(x.store.body[:0], s.number), uint64(s.expiry)))
}

func (x *sessions) recordEnd(s *session) {
	_, _ = x.record(recEnd, binary.AppendUvarint(x.store.body[:0], s.number))
}

func (x *sessions) recordSubscribe(s *session, f subscription) uint64 {
	pos, _ := x.record(recSubscribe, appendSubscription(x.store.body[:0], s, &f))
	return pos
}

func (x *sessions) recordUnsubscribe(s *session, filter string) uint64 {
	pos, _ := x.record(recUnsubscribe, appendText(binary.AppendUvarint(x.store.body[:0], s.number), filter))
	return pos
}

func (x *sessions) recordMessage(m *message, keep bool, to []delivery) (uint64, error) {
	x.seq++
	for _, d := range to {
		d.e.seq = x.seq
	}
	return x.record(recMessage, appendMessage(x.store.body[:0], m, x.seq, keep, to))
}

func (x *sessions) recordClear(topic string) {
	_, _ = x.record(recClear, appendText(x.store.body[:0], topic))
}

func (x *sessions) recordDone(s *session, e *entry) {
	_, _ = x.record(recDone, binary.AppendUvarint(binary.AppendUvarint(x.store.body[:0], s.number), e.seq))
}

func (x *sessions) recordRel(s *session, e *entry) {
	_, _ = x.record(recRel, binary.AppendUvarint(binary.AppendUvarint(x.store.body[:0], s.number), e.seq))
}

func (x *sessions) recordReceived(s *session, id uint16, received bool) (uint64, error) {
	typ := byte(recReleased)
	if received {
		typ = recReceived
	}
	return x.record(typ, binary.AppendUvarint(binary.AppendUvarint(x.store.body[:0], s.number), uint64(id)))
}

// A snapshot is a list of records that make the book anew:
//
//	version 1 | LSN it covers | last session number | last seq | alive i64 ns, 8 bytes | records {length | type, a byte | time ns, 8 bytes | body}

// snapshotPlan is a book's contents at one moment. What it points to does not change any more, or is a copy.
type snapshotPlan struct {
	lsn, lastNumber, seq uint64
	now                  int64
	sessions             []session // copies, with queues of copies
	retained             []*message
}

// plan notes everything that is stored. sessions.mu is held.
func (x *sessions) plan() *snapshotPlan {
	p := &snapshotPlan{lsn: uint64(x.store.log.Next()) - 1, lastNumber: x.lastNumber, seq: x.seq, now: x.b.clock()}
	for _, s := range x.byNumber {
		c := *s
		c.filters = make(map[string]subscription, len(s.filters))
		for k, f := range s.filters {
			c.filters[k] = f
		}
		c.received = make(map[uint16]struct{}, len(s.received))
		for id := range s.received {
			c.received[id] = struct{}{}
		}
		entries := make([]entry, 0, s.live())
		c.queue = make([]*entry, 0, s.live())
		for _, e := range s.queue {
			if !e.done {
				entries = append(entries, *e)
				c.queue = append(c.queue, &entries[len(entries)-1])
			}
		}
		p.sessions = append(p.sessions, c)
	}
	for _, m := range x.retained.topics {
		p.retained = append(p.retained, m)
	}
	return p
}

func (p *snapshotPlan) encode() []byte {
	b := []byte{snapshotVersion}
	b = binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, p.lsn), p.lastNumber), p.seq)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.now))
	var body []byte
	add := func(typ byte, at int64) {
		b = append(binary.AppendUvarint(b, uint64(len(body))), typ)
		b = append(binary.LittleEndian.AppendUint64(b, uint64(at)), body...)
		body = body[:0]
	}
	type share struct {
		seq uint64
		d   delivery
	}
	var shares []share
	for i := range p.sessions {
		s := &p.sessions[i]
		body = appendSession(body, s)
		add(recSession, p.now)
		if !s.attached {
			body = binary.AppendUvarint(binary.AppendUvarint(body, s.number), uint64(s.expiry))
			add(recDetach, s.closedAt)
		}
		for _, f := range s.filters {
			body = appendSubscription(body, s, &f)
			add(recSubscribe, p.now)
		}
		for id := range s.received {
			body = binary.AppendUvarint(binary.AppendUvarint(body, s.number), uint64(id))
			add(recReceived, p.now)
		}
		for _, e := range s.queue {
			shares = append(shares, share{e.seq, delivery{s, e}})
		}
	}
	for _, m := range p.retained {
		body = appendMessage(body, m, 0, true, nil)
		add(recMessage, p.now)
	}
	slices.SortStableFunc(shares, func(a, b share) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return 0
	})
	for i := 0; i < len(shares); {
		var to []delivery
		j := i
		for ; j < len(shares) && shares[j].seq == shares[i].seq; j++ {
			to = append(to, shares[j].d)
		}
		body = appendMessage(body, shares[i].d.e.m, shares[i].seq, false, to)
		add(recMessage, p.now)
		i = j
	}
	return b
}

var errSnapshot = errors.New("snapshot is damaged")

// replay makes a book of a snapshot and the records after it. It takes any bytes: what cannot be read, or speaks of sessions
// and messages that are not known, changes nothing.
type replay struct {
	*book
	covered uint64
	alive   int64 // latest time seen
	unread  int   // records that could not be read
}

func newReplay() *replay { return &replay{book: newBook()} }

// bytesReader reads what the functions above encode; bad is set once and for all when there is not enough.
type bytesReader struct {
	b   []byte
	bad bool
}

func (r *bytesReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *bytesReader) bytes() []byte {
	n := r.uvarint()
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *bytesReader) text() string { return string(r.bytes()) }

func (r *bytesReader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *bytesReader) int64() int64 {
	if len(r.b) < 8 {
		r.bad = true
		return 0
	}
	v := binary.LittleEndian.Uint64(r.b)
	r.b = r.b[8:]
	return int64(v)
}

func (k *replay) snapshot(value []byte) error {
	if len(value) == 0 {
		return errSnapshot
	}
	if v := value[0]; v != snapshotVersion {
		return fmt.Errorf("%w: snapshot of sessions %d, this program reads %d", seglog.ErrVersion, v, snapshotVersion)
	}
	r := bytesReader{b: value[1:]}
	k.covered, k.lastNumber, k.seq = r.uvarint(), r.uvarint(), r.uvarint()
	k.alive = r.int64()
	for !r.bad && len(r.b) > 0 {
		n := r.uvarint()
		typ, at := r.byte(), r.int64()
		if r.bad || n > uint64(len(r.b)) {
			return errSnapshot
		}
		k.apply(typ, at, r.b[:n])
		r.b = r.b[n:]
	}
	if r.bad || k.unread > 0 {
		return errSnapshot
	}
	return nil
}

// apply makes one record's change. It keeps nothing of body.
func (k *replay) apply(typ byte, at int64, body []byte) {
	r := bytesReader{b: body}
	k.alive = max(k.alive, at)
	switch typ {
	case recSession:
		k.applySession(&r)
	case recMessage:
		k.applyMessage(&r)
	case recClear:
		if topic := r.text(); !r.bad {
			k.retained.clear(topic)
		}
	case recAlive:
	case recDetach, recEnd, recSubscribe, recUnsubscribe, recDone, recRel, recReceived, recReleased:
		s := k.byNumber[r.uvarint()]
		if !r.bad && s != nil {
			k.applyTo(s, typ, at, &r)
		}
	default:
		r.bad = true
	}
	if r.bad {
		k.unread++
	}
}

func (k *replay) applySession(r *bytesReader) {
	n, id, user, version := r.uvarint(), r.text(), r.text(), r.byte()
	expiry, window, last := r.uvarint(), r.uvarint(), r.uvarint()
	if r.bad || n == 0 || last > packetIDs {
		r.bad = true
		return
	}
	s := k.byNumber[n]
	if s == nil {
		if old := k.byID[id]; old != nil {
			k.book.remove(old)
		}
		s = &session{id: id, number: n, filters: map[string]subscription{}}
		k.byID[id], k.byNumber[n] = s, s
		k.lastNumber = max(k.lastNumber, n)
		s.numbers = last // a number whose packet id it is
	}
	s.rewind()
	s.user, s.version, s.expiry, s.window, s.attached = user, version, uint32(expiry), int(min(window, maxWindow)), true
	s.simulate()
}

func (k *replay) applyTo(s *session, typ byte, at int64, r *bytesReader) {
	switch typ {
	case recDetach:
		if expiry := r.uvarint(); !r.bad {
			s.expiry, s.attached, s.closedAt = uint32(expiry), false, at
			s.rewind()
		}
	case recEnd:
		k.book.remove(s)
	case recSubscribe:
		f := subscription{Filter: r.text()}
		options := r.byte()
		f.Identifier = int(r.uvarint())
		f.Qos, f.NoLocal, f.RetainAsPublished, f.RetainHandling = options&3, options&4 != 0, options&8 != 0, options>>4&3
		if !r.bad && f.Filter != "" {
			s.filters[f.Filter] = f
		}
	case recUnsubscribe:
		delete(s.filters, r.text())
	case recReceived, recReleased:
		id := r.uvarint()
		if r.bad || id == 0 || id > packetIDs {
			r.bad = true
		} else if typ == recReceived {
			if s.received == nil {
				s.received = map[uint16]struct{}{}
			}
			s.received[uint16(id)] = struct{}{}
		} else {
			delete(s.received, uint16(id))
		}
	case recDone, recRel:
		seq := r.uvarint()
		for _, e := range s.queue {
			if r.bad || e.done || e.seq != seq {
				continue
			}
			if typ == recRel {
				e.rel = true
				return
			}
			k.queued -= e.size()
			s.finish(e)
			s.simulate()
			return
		}
	}
}

func (k *replay) applyMessage(r *bytesReader) {
	seq, flags, expires := r.uvarint(), r.byte(), r.uvarint()
	m := &message{topic: r.text(), origin: r.text(), qos: flags >> 1 & 3, retain: flags&flagRetain != 0, expires: int64(expires)}
	m.props, m.payload = slices.Clone(r.bytes()), slices.Clone(r.bytes())
	if r.bad || m.topic == "" {
		r.bad = true
		return
	}
	k.seq = max(k.seq, seq)
	if flags&keepRetained != 0 {
		if len(m.payload) == 0 {
			k.retained.clear(m.topic)
		} else {
			k.retained.set(m)
		}
	}
	for n := r.uvarint(); n > 0 && !r.bad; n-- {
		s := k.byNumber[r.uvarint()]
		flags := r.byte()
		id := r.uvarint()
		var ids []int
		for i := r.uvarint(); i > 0 && !r.bad; i-- {
			ids = append(ids, int(r.uvarint()))
		}
		if r.bad || id == 0 || id > packetIDs {
			r.bad = true
			return
		}
		if s == nil || flags&0x06 == 0 || s.live() >= packetIDs {
			continue
		}
		e := &entry{
			m: m, seq: seq, ids: ids, number: s.numberFor(uint16(id)), flags: flags & (0x06 | flagRetain),
			dup: flags&maySent != 0, rel: flags&clientHasIt != 0,
		}
		s.numbers = e.number
		s.push(e)
		k.queued += e.size()
		s.simulate()
	}
}

// finish ends the replay: every connection is gone, at the last moment known or a little later.
func (k *replay) finish() *book {
	for _, s := range k.byNumber {
		if s.attached {
			s.attached = false
			s.closedAt = k.alive + int64(aliveEvery)
			// The connection may have been sent messages that the log did not get to know of. Their ids must not come again soon.
			s.numbers += packetIDs / 2
		}
		s.rewind()
		if s.expiry == 0 {
			k.book.remove(s)
		}
	}
	return k.book
}

// aliveEvery is how often a running broker with connected sessions says so to the store.
const aliveEvery = time.Minute
