package broker

import (
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// delayedWill waits for its client to come back.
type delayedWill struct {
	m    *message
	user string
	due  int64 // broker time
}

// takeWill notes a CONNECT's will. The library keeps it, too, and says when it is due, but forgets most of its properties.
func (c *conn) takeWill(cl *mqtt.Client, pk *packets.Packet) {
	if !pk.Connect.WillFlag {
		return
	}
	p := &pk.Connect.WillProperties
	c.will = &message{
		topic: pk.Connect.WillTopic, payload: cl.Properties.Will.Payload, props: appendForwarded(nil, p), origin: cl.ID,
		qos: pk.Connect.WillQos, retain: pk.Connect.WillRetain,
	}
	c.willExpiry = p.MessageExpiryInterval
	c.willDelay = time.Duration(p.WillDelayInterval) * time.Second
	if expiry := time.Duration(c.b.sessions.expiryOf(cl)) * time.Second; c.willDelay > expiry {
		c.willDelay = expiry
	}
	cl.Properties.Will.WillDelayInterval = 0
}

// sendWill publishes the client's will, or lets it wait.
func (c *conn) sendWill() {
	m := c.will
	if m == nil {
		return
	}
	c.will = nil
	b, x := c.b, c.b.sessions
	if c.willExpiry > 0 {
		m.expires = b.clock() + int64(c.willDelay) + int64(c.willExpiry)*int64(time.Second)
	}
	if c.willDelay > 0 {
		x.mu.Lock()
		defer x.mu.Unlock()
		if s := x.byID[c.clientID]; s == nil || s.owner == c || s.owner == nil { // else the client is back
			x.wills[c.clientID] = &delayedWill{m: m, user: c.username, due: b.now() + int64(c.willDelay)}
		}
		return
	}
	b.publishWill(m, c.username)
}

// publishWill journals a will, where its topic is the journal's, and routes it, unless the client has lost the right to.
func (b *Broker) publishWill(m *message, user string) {
	if r := b.cfg.Rights; r != nil && !r.Allowed(m.origin, user, m.topic, true) {
		b.count.deniedWills.Add(1)
		return
	}
	if b.journal.Covers(m.topic) {
		_, err := b.journal.Append(&Message{
			ClientID: m.origin, Username: user, Topic: m.topic, Payload: m.payload, QoS: m.qos, Retain: m.retain, Received: b.clock(),
		})
		if err != nil {
			b.count.dropped.Add(1) // nobody is there to send it again
			b.refusedBecause(err)
		}
	}
	_, _ = b.sessions.route(m, b.targets(m.topic))
}

// sendDueWills publishes the wills whose clients did not come back in time.
func (x *sessions) sendDueWills() {
	now := x.b.now()
	var due []*delayedWill
	x.mu.Lock()
	for id, w := range x.wills {
		if w.due <= now {
			due = append(due, w)
			delete(x.wills, id)
		}
	}
	x.mu.Unlock()
	for _, w := range due {
		x.b.publishWill(w.m, w.user)
	}
}
