package broker

import (
	"bytes"
	"net"
	"strings"
	"time"
	"unicode/utf8"
)

// topic is what a connection remembers of a topic it publishes to.
type topic struct {
	name       string
	plain      bool // a client may publish to it: UTF-8, no wildcards, not $, within Limits
	heard      bool // some client subscribes to it
	targets    []target
	generation uint64 // of the broker's subscriptions when heard was found out
}

// topicCache saves the copy and the look-up of a topic for each message. It belongs to one goroutine.
type topicCache map[string]*topic

const topicsCached = 1024

// get returns what is known of name; the pointer is valid until the next get.
func (tc *topicCache) get(b *Broker, name []byte) *topic {
	t := (*tc)[string(name)] // without a copy
	if t == nil {
		t = tc.add(b, string(name))
	}
	return t.look(b)
}

// getString is get.
func (tc *topicCache) getString(b *Broker, name string) *topic {
	t := (*tc)[name]
	if t == nil {
		t = tc.add(b, strings.Clone(name)) // it may alias a packet
	}
	return t.look(b)
}

func (tc *topicCache) add(b *Broker, name string) *topic {
	if *tc == nil || len(*tc) >= topicsCached {
		*tc = topicCache{}
	}
	t := &topic{name: name, plain: plainTopic(name) && b.topicFits(name), generation: ^uint64(0)}
	(*tc)[name] = t
	return t
}

// look finds out whether t is heard, unless that is known and no subscription was made since.
func (t *topic) look(b *Broker) *topic {
	// Read before the look-up: a subscription made meanwhile raises it, and the next message looks again.
	if g := b.subscriptions.Load(); t.plain && g != t.generation {
		t.targets, t.generation = b.targets(t.name), g
		t.heard = len(t.targets) > 0
	}
	return t
}

func plainTopic(name string) bool {
	return len(name) > 0 && name[0] != '$' && !strings.ContainsAny(name, "+#\x00") && utf8.ValidString(name)
}

// mayPublish waits until the client may send another message: its rate, and its messages without acknowledgement, are
// bounded by not reading. errIdle: it is not yet time, and the connection will have its turn then.
func (c *conn) mayPublish() error {
	if int(c.heldCount.Load())+len(c.staged) >= c.b.limits.Unacknowledged {
		c.settle()
		c.waiting(c.waitRoom)
	}
	if c.notBefore > 0 { // the message has been paid for
		if c.b.now() < c.notBefore {
			if c.b.draining.Load() {
				return c.park()
			}
			return errIdle
		}
		c.notBefore = 0
		return nil
	}
	wait := c.bucket.take(c.b.now)
	switch {
	case wait <= 0:
		return nil
	case c.watched != nil:
		c.notBefore = c.b.now() + int64(wait)
		time.AfterFunc(wait, func() {
			if c.wants() {
				c.b.workers.add(c)
			}
		})
		return errIdle
	}
	c.settle()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-c.closed:
		return net.ErrClosed
	}
}

// publish deals with a plain PUBLISH, and leaves all others to mochi.
func (c *conn) publish(frame []byte, header int) (done bool, err error) {
	if !c.established {
		return false, nil
	}
	p, ok := parsePlainPublish(frame, header, c.v5)
	if !ok {
		return false, nil
	}
	t := c.topics.get(c.b, p.topic)
	if !t.plain || !c.allowed(t.name, true) {
		return false, nil
	}
	c.tally.messages++
	c.tally.bytes += int64(len(frame))
	m := Message{
		ClientID: c.clientID, Username: c.username, Topic: t.name, Payload: p.payload,
		QoS: p.qos, Dup: p.dup, PacketID: p.packetID, Received: c.received,
	}
	pos, epoch, outcome := c.journal(&m)
	if outcome == refused {
		return true, c.disconnect(reasonQuota)
	}
	k := mark{size: 4}
	if t.heard {
		// It is kept for longer than the buffer it came in.
		m := &message{topic: t.name, payload: bytes.Clone(p.payload), origin: c.clientID, qos: p.qos}
		if k.stored, err = c.deliver(m, t.targets); err != nil {
			return true, c.disconnect(reasonQuota)
		}
	}
	if p.qos == 1 {
		if outcome == journalled {
			k.pos, k.epoch, k.received = pos, epoch, c.lastRead
		}
		c.staged = append(c.staged, k)
		c.stagedFrames = append(c.stagedFrames, typePuback<<4, 2, byte(p.packetID>>8), byte(p.packetID))
	}
	return true, nil
}

// outcome is what became of a message.
type outcome byte

const (
	uncovered  outcome = iota // not the journal's
	journalled                // QoS 1 or 2, in the journal
	best                      // QoS 0, in the journal
	dropped                   // QoS 0, not taken
	refused                   // QoS 1 or 2, not taken
)

// journal offers m to the journal and counts. pos and epoch are set when it was journalled. m is not kept.
func (c *conn) journal(m *Message) (pos uint64, epoch uint32, o outcome) {
	if !c.b.journal.Covers(m.Topic) {
		c.tally.uncovered++
		return 0, 0, uncovered
	}
	c.msg = *m                      // the interface makes what it is given escape; this is on the heap already
	epoch = c.b.faults.Load().epoch // before Append: see faults
	pos, err := c.b.journal.Append(&c.msg)
	c.msg.Payload = nil
	switch {
	case err == nil && m.QoS > 0:
		c.tally.journalled++
		return pos, epoch, journalled
	case err == nil:
		c.tally.qos0++
		return 0, 0, best
	case m.QoS > 0:
		c.tally.refused++
		c.b.refusedBecause(err)
		return 0, 0, refused
	}
	c.tally.dropped++
	c.b.refusedBecause(err)
	return 0, 0, dropped
}

func (c *conn) allowed(topic string, write bool) bool {
	r := c.b.cfg.Rights
	return r == nil || r.Allowed(c.clientID, c.username, topic, write)
}
