package broker

import (
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// subscription is a filter with its options.
type subscription = packets.Subscription

// session is what the broker keeps for a client id: the messages on their way to it and its subscriptions. It is the
// same object while the client comes and goes; sessions.mu guards it.
//
// The library keeps no message for a subscriber: its queue forgets the order and loses what does not fit.
type session struct {
	id, user string
	number   uint64 // the session's name in the store; 0: it ends with its connection and is not stored
	version  byte
	expiry   uint32 // seconds it outlives its connection

	owner    *conn         // the connection it belongs to, from before its CONNACK on; nil: the client is away
	conn     *conn         // owner, once it may be sent to
	attached bool          // it has a connection: owner or, while the store is read, the one of then
	patience time.Duration // for how long it may make publishers wait
	window   int           // how many messages may be sent and not finished
	closedAt int64         // when the connection ended, ns since the Unix epoch, for the store
	endsAt   int64         // broker time at which the session ends; 0: attached

	// queue[next:] waits to be sent, what stands before is sent and not finished, or finished.
	queue    []*entry
	next     int
	open     int    // sent and not finished
	finished int    // of queue, still standing there
	bytes    int    // of what is not finished
	waiting  int    // bytes of queue[next:], without free ones
	free     int    // how many of what is not finished are free
	numbers  uint64 // how many packet ids were given out

	filters  map[string]subscription // stored sessions only
	received map[uint16]struct{}     // QoS 2 messages of the client that it has not released; stored sessions only
}

// entry is one message in a session's queue.
type entry struct {
	m      *message
	seq    uint64 // names the message in the store; 0: not stored
	ids    []int  // subscription identifiers
	number uint64 // of the packet id, ascending in a queue
	flags  byte   // QoS and retain as delivered
	dup    bool   // it may have been sent on an earlier connection
	rel    bool   // QoS 2: the client has it, PUBREL is due
	sent   bool   // on this connection
	free   bool   // a retained message the client asked for: no sign of its being slow
	done   bool
}

const packetIDs = 65535

func packetID(number uint64) uint16 { return uint16((number-1)%packetIDs) + 1 }
func (e *entry) packetID() uint16   { return packetID(e.number) }
func (e *entry) size() int          { return e.m.size() }

// weight is what e adds to the bytes that wait.
func (e *entry) weight() int {
	if e.free {
		return 0
	}
	return e.size()
}

func (s *session) stored() bool { return s.number != 0 }

// lasting tells whether it outlives its connection.
func (s *session) lasting() bool { return s.expiry > 0 || s.stored() }

// live is how many messages are queued or not finished.
func (s *session) live() int { return len(s.queue) - s.finished }

// nextNumber gives out the next packet id that is not in use; ok is false when there is none.
func (s *session) nextNumber() (n uint64, ok bool) {
	for range packetIDs {
		s.numbers++
		if !s.uses(s.numbers) {
			return s.numbers, true
		}
	}
	return 0, false
}

// uses tells whether a message that is not finished has n's packet id. Most of the time the oldest one is too young for that.
func (s *session) uses(n uint64) bool {
	for _, e := range s.queue {
		if e.done {
			continue
		}
		if e.number+packetIDs > n {
			return false
		}
		if packetID(e.number) == packetID(n) {
			return true
		}
	}
	return false
}

// numberFor is the next number, from s.numbers on, that has the packet id.
func (s *session) numberFor(id uint16) uint64 {
	return s.numbers + 1 + (uint64(id)+packetIDs-uint64(packetID(s.numbers+1)))%packetIDs
}

func (s *session) push(e *entry) {
	s.queue = append(s.queue, e)
	s.bytes += e.size()
	s.waiting += e.weight()
	if e.free {
		s.free++
	}
}

// find returns the message with a packet id among those sent, nil when there is none.
func (s *session) find(id uint16) *entry {
	for _, e := range s.queue[:s.next] {
		if !e.done && e.packetID() == id {
			return e
		}
	}
	return nil
}

// finish takes e out of the queue.
func (s *session) finish(e *entry) {
	if e.done {
		return
	}
	e.done = true
	s.bytes -= e.size()
	if e.sent {
		s.open--
		e.sent = false
	} else {
		s.waiting -= e.weight()
	}
	if e.free {
		s.free--
	}
	s.finished++
	if n := len(s.queue); s.finished == n {
		s.empty()
	} else if s.finished > 32 && s.finished > n/2 {
		before := 0
		for _, e := range s.queue[:s.next] {
			if e.done {
				before++
			}
		}
		s.queue = slices.DeleteFunc(s.queue, func(e *entry) bool { return e.done })
		s.next -= before
		s.finished = 0
	}
}

// empty takes what is finished out of the queue, when that is all there is; a long queue's memory is given back.
func (s *session) empty() {
	clear(s.queue)
	s.queue, s.next, s.finished = s.queue[:0], 0, 0
	if cap(s.queue) > 256 {
		s.queue = nil
	}
}

// rewind makes everything that is not finished wait to be sent again, in the same order: the connection ended.
func (s *session) rewind() {
	s.queue = slices.DeleteFunc(s.queue, func(e *entry) bool { return e.done })
	s.finished, s.next, s.open, s.waiting = 0, 0, 0, 0
	for _, e := range s.queue {
		s.waiting += e.weight()
		e.dup = e.dup || e.sent
		e.sent = false
	}
}

// oldestUnsent is the first message of the queue that was never sent; nil when there is none.
func (s *session) oldestUnsent() *entry {
	s.skip()
	for _, e := range s.queue[s.next:] {
		if !e.done && !e.dup && !e.rel {
			return e
		}
	}
	return nil
}

// skip moves next past messages that were finished before they were sent.
func (s *session) skip() {
	for s.next < len(s.queue) && s.queue[s.next].done {
		s.next++
	}
}

// sending counts e, which stands at next, as sent.
func (s *session) sending(e *entry) {
	e.sent = true
	s.open++
	s.next++
	s.waiting -= e.weight()
}

// simulate counts as sent whatever the connection of then may have been sent, while the store is read.
func (s *session) simulate() {
	if !s.attached {
		return
	}
	for s.skip(); s.next < len(s.queue) && s.open < s.window; s.skip() {
		s.sending(s.queue[s.next])
	}
}
