package broker

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// target is a client that subscribes to a topic.
type target struct {
	id          string
	qos         byte
	noLocal     bool // not the client's own messages
	asPublished bool // with the retain flag they came with
	share       int  // 0: it gets every message; else one of those with the same number does
	ids         []int
}

// targets finds out who subscribes to topic.
func (b *Broker) targets(topic string) []target {
	found := b.server.Topics.Subscribers(topic)
	if len(found.Subscriptions) == 0 && len(found.Shared) == 0 {
		return nil
	}
	list := make([]target, 0, len(found.Subscriptions)+len(found.Shared))
	for id, s := range found.Subscriptions {
		list = append(list, targetOf(id, s))
	}
	filters := make([]string, 0, len(found.Shared))
	for f := range found.Shared {
		filters = append(filters, f)
	}
	for i, f := range filters {
		for id, s := range found.Shared[f] {
			t := targetOf(id, s)
			t.share = i + 1
			list = append(list, t)
		}
	}
	return list
}

func targetOf(id string, s subscription) target {
	t := target{id: id, qos: s.Qos, noLocal: s.NoLocal, asPublished: s.RetainAsPublished}
	if s.Identifiers == nil && s.Identifier > 0 {
		t.ids = []int{s.Identifier}
	}
	for _, i := range s.Identifiers {
		if i > 0 {
			t.ids = append(t.ids, i)
		}
	}
	slices.Sort(t.ids)
	return t
}

// Publish routes a message of the gateway's own to subscribers, and keeps it for those who are away. It is not journalled and
// no rights of a publisher are asked. It does not wait until what is kept is durable.
func (b *Broker) Publish(topic string, payload []byte, qos byte, retain bool) error {
	if !plainTopic(topic) || qos > 2 {
		return fmt.Errorf("publish to %q with QoS %d: not a topic and a QoS", topic, qos)
	}
	m := &message{topic: strings.Clone(topic), payload: slices.Clone(payload), qos: qos, retain: retain}
	if _, err := b.sessions.route(m, b.targets(topic)); err != nil {
		return fmt.Errorf("publish to %q: %w", topic, err)
	}
	return nil
}

// deliver routes a client's message. pos is as with sessions.route.
func (c *conn) deliver(m *message, targets []target) (pos uint64, err error) {
	pos, wait, err := c.b.sessions.routeFrom(m, targets)
	if err != nil {
		c.b.refusedBecause(err)
		return 0, err
	}
	// Writers run now: a publisher with a full buffer would otherwise fill the subscribers' queues before they had a
	// chance to send.
	const burst = 64
	if c.routed++; c.routed%burst == 0 {
		wait = max(wait, 50*time.Microsecond)
	}
	if wait > 0 {
		c.waiting(func() { time.Sleep(wait) })
	} else if len(targets) > 0 {
		runtime.Gosched()
	}
	return pos, nil
}

// appendDelivery queues m for the client; false when it is larger than the client takes. c.mu is held, and the caller
// flushes.
func (c *conn) appendDelivery(m *message, flags byte, id uint16, ids []int, now int64) bool {
	topic, alias := m.topic, uint16(0)
	fresh := false
	if c.aliasesMost > 0 {
		if a, ok := c.aliases[topic]; ok {
			topic, alias = "", a
		} else if len(c.aliases) < c.aliasesMost {
			alias, fresh = uint16(len(c.aliases)+1), true
		}
	}
	before := len(c.out.queue)
	q := appendPublish(c.out.queue, m, flags, id, c.v5, topic, alias, ids, now)
	if n := len(q) - before; c.packetMost > 0 && n > c.packetMost {
		c.out.queue = q[:before]
		return false
	}
	c.out.queue = q
	if fresh {
		if c.aliases == nil {
			c.aliases = map[string]uint16{}
		}
		c.aliases[topic] = alias
	}
	c.b.delivered(len(q) - before)
	return true
}

// queueFrame sends a frame.
func (c *conn) queueFrame(frame []byte) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return
	}
	c.out.queue = append(c.out.queue, frame...)
	c.flush(false)
}

// tooSlow closes the connection of a client that lets too much wait.
func (c *conn) tooSlow() {
	c.mu.Lock()
	if !c.closing {
		c.b.count.slowClosed.Add(1)
		c.out.queue = c.out.queue[:0]
		c.close()
	}
	c.flush(false)
}

func (c *conn) hasRoom(bytes int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.out.size() <= bytes
}

// waitQueue waits until no more than so many bytes are queued. It may be called by the client's own goroutine only.
func (c *conn) waitQueue(bytes int) {
	c.mu.Lock()
	defer func() { c.mu.Unlock() }()
	for !c.closing && c.out.size() > bytes {
		if !c.out.writing {
			c.flush(false)
			c.mu.Lock()
			continue
		}
		if c.out.idle == nil {
			c.out.idle = make(chan struct{})
		}
		idle := c.out.idle
		c.mu.Unlock()
		select {
		case <-idle:
		case <-c.closed:
		}
		c.mu.Lock()
	}
}

// route is deliver for what came through mochi. Its acknowledgement is on its way, and held until what is kept is durable.
//
// The id of a journalled QoS 2 message is not kept over a restart: journal and store commit apart, so the store might know an id
// whose message the journal lost, and the resend would be acknowledged and nowhere. It is journalled again instead, and whoever
// reads the journal knows it by its DUP flag or its sequence.
func (c *conn) route(pk *packets.Packet, journalled bool) error {
	t := c.topics.getString(c.b, pk.TopicName)
	targets := t.targets
	if !t.plain { // clients may use topics that begin with a dollar sign among themselves
		targets = c.b.targets(pk.TopicName)
	}
	var pos uint64
	var err error
	if pk.FixedHeader.Retain || len(targets) > 0 {
		m := messageOf(pk, c.received)
		m.topic = t.name
		if pos, err = c.deliver(m, targets); err != nil {
			return err
		}
	}
	if pk.FixedHeader.Qos == 2 && !journalled {
		received, err := c.b.sessions.receive(c, pk.PacketID)
		if err != nil {
			c.b.refusedBecause(err)
			return err
		}
		pos = max(pos, received)
	}
	c.wait(pos)
	return nil
}

// wait makes acknowledgements mochi writes from now on wait until the store is durable up to pos.
func (c *conn) wait(pos uint64) {
	if pos > 0 {
		c.mu.Lock()
		c.stored = max(c.stored, pos)
		c.mu.Unlock()
	}
}

// subscribed takes note of a SUBSCRIBE that mochi is about to acknowledge.
func (c *conn) subscribed(pk *packets.Packet, codes []byte) {
	c.waitStored(c.b.sessions.subscribe(c, pk.Filters, codes))
}

// unsubscribe deals with an UNSUBSCRIBE. mochi 2.7.9 would take every filter that anybody has for one of this client's.
func (c *conn) unsubscribe(pk *packets.Packet) error {
	const noneExisted, idInUse = 0x11, reasonPacketIDInUse
	b := c.b
	c.tally.packets++
	_, inUse := c.cl.State.Inflight.Get(pk.PacketID)
	codes := make([]byte, 0, len(pk.Filters))
	for _, f := range pk.Filters {
		_, has := c.cl.State.Subscriptions.Get(f.Filter)
		switch {
		case inUse:
			codes = append(codes, idInUse)
		case !has:
			codes = append(codes, noneExisted)
		default:
			codes = append(codes, 0)
			b.server.Topics.Unsubscribe(f.Filter, c.clientID)
			c.cl.State.Subscriptions.Delete(f.Filter)
			atomic.AddInt64(&b.server.Info.Subscriptions, -1)
		}
	}
	b.subscriptions.Add(1)
	if !inUse {
		c.waitStored(b.sessions.unsubscribe(c, pk.Filters))
	}
	ack := []byte{typeUnsuback << 4, 2, byte(pk.PacketID >> 8), byte(pk.PacketID)}
	if c.v5 {
		ack = appendLength(ack[:1], 3+len(codes))
		ack = append(ack, byte(pk.PacketID>>8), byte(pk.PacketID), 0)
		ack = append(ack, codes...)
	}
	_, err := c.Write(ack)
	return err
}

// waitStored waits for the store; when that fails, the client is not told that it worked.
func (c *conn) waitStored(pos uint64) {
	var err error
	c.waiting(func() { err = c.b.sessions.waitStored(c, pos) })
	if err != nil {
		_ = c.disconnect(reasonQuota)
	}
}

// answer deals with the client's answers to messages it was sent; mochi, which sent none, would take them for answers about
// the client's own.
func (c *conn) answer(frame []byte, header int) (done bool) {
	if !c.established {
		return false
	}
	switch frame[0] >> 4 {
	case typePuback, typePubrec, typePubcomp:
		c.tally.packets++
		c.tally.bytes += int64(len(frame))
		c.b.sessions.acked(c, frame, header)
		return true
	case typePingreq:
		c.tally.packets++
		c.tally.bytes += int64(len(frame))
		c.settle() // what came before is counted by then
		c.mu.Lock()
		if !c.closing {
			c.out.queue = append(c.out.queue, typePingresp<<4, 0)
		}
		c.flush(true)
		return true
	case typePubrel:
		if id, ok := packetIDOf(frame, header); ok {
			c.wait(c.b.sessions.release(c, id))
		}
	}
	return false
}
