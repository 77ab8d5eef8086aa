// Package stream is what the destinations that take points one by one (Kafka, NATS, MQTT) share: the JSON form of a point, which is
// the contract with whoever reads them (docs/destinations.md), addresses made from a point's labels, and the memory of what a
// delivery that was cut off had delivered already. It is pure: no I/O, no clock, no goroutines.
package stream

import (
	"fmt"
	"hash/maphash"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// Message is one point on its way.
type Message struct {
	Record  int    // into the records of that Deliver
	Time    int64  // the point's, ns since the Unix epoch
	Address []byte // what Fill's caller made of the point: a key, a subject, a topic
	ID      []byte // "<id>.<version>": the same whenever this record is sent, another for every correction
	Body    []byte // JSON, see Encoder

	key key
	end [3]int // of Address, ID and Body in the buffer
}

// Queue renders the records of one Deliver into Messages. It remembers, in memory, which records were delivered by a Deliver that did not end
// well, so that a batch that broke off goes on where it stood. The zero value is ready. Not safe for concurrent use.
type Queue struct {
	Messages []Message

	enc     Encoder
	buf     []byte
	done    map[key]struct{} // delivered, and perhaps asked for again
	highest uint64           // LSN in done
	seed    maphash.Seed
}

// key is a record of an outbox. The LSN alone would not do: an outbox that saves space may put another record in its place.
type key struct{ lsn, sum uint64 }

// Fill makes q.Messages of recs in their order, without those that were delivered before. It returns the records that cannot be
// sent: a type that is not a point, a point that JSON cannot carry, a body beyond maxBytes. Messages are valid until the next Fill.
func (q *Queue) Fill(recs []uplink.Record, maxBytes int, address func(b []byte, p *telemetry.Point) []byte) (refused []uplink.Refused) {
	q.Messages, q.buf = q.Messages[:0], q.buf[:0]
	if len(recs) > 0 && recs[0].LSN > q.highest {
		clear(q.done)
	}
	if q.done == nil {
		q.done, q.seed = make(map[key]struct{}), maphash.MakeSeed()
	}
	for i := range recs {
		r := &recs[i]
		k := key{r.LSN, maphash.Bytes(q.seed, r.Body)}
		if _, ok := q.done[k]; ok {
			continue
		}
		start := len(q.buf)
		m, err := q.render(i, r, address)
		m.key = k
		if n := m.end[2] - m.end[1]; err == nil && n > maxBytes {
			err = &unwritable{"too_large", fmt.Sprintf("%d bytes, and at most %d are sent", n, maxBytes)}
		}
		if err != nil {
			q.buf = q.buf[:start]
			refused = append(refused, uplink.Refused{Index: i, Reason: err.reason, Detail: err.detail})
			continue
		}
		q.Messages = append(q.Messages, m)
	}
	q.cut()
	return refused
}

func (q *Queue) render(i int, r *uplink.Record, address func(b []byte, p *telemetry.Point) []byte) (Message, *unwritable) {
	m := Message{Record: i}
	if err := q.enc.read(r); err != nil {
		return m, err
	}
	m.Time = q.enc.point.Time
	q.buf = address(q.buf, &q.enc.point)
	m.end[0] = len(q.buf)
	q.buf = append(append(append(q.buf, q.enc.id[:]...), '.'), q.enc.version[:]...)
	m.end[1] = len(q.buf)
	b, err := q.enc.append(q.buf)
	if err != nil {
		return m, err
	}
	q.buf = b
	m.end[2] = len(b)
	return m, nil
}

// cut points the messages into the buffer, which moves no more.
func (q *Queue) cut() {
	at := 0
	for i := range q.Messages {
		m := &q.Messages[i]
		m.Address = q.buf[at:m.end[0]:m.end[0]]
		m.ID = q.buf[m.end[0]:m.end[1]:m.end[1]]
		m.Body = q.buf[m.end[1]:m.end[2]:m.end[2]]
		at = m.end[2]
	}
}

// Delivered notes that the destination has confirmed m, in a Deliver that will not end well.
func (q *Queue) Delivered(m *Message) {
	q.done[m.key] = struct{}{}
	q.highest = max(q.highest, m.key.lsn)
}

// Release gives up the memory behind Messages without using it again: for when someone may still read it.
func (q *Queue) Release() { q.buf, q.Messages = nil, nil }
