package broker

import (
	"strings"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi asks and tells. It runs in the goroutine that has the connection's turn.
type hook struct {
	mqtt.HookBase
	b *Broker
}

func (h *hook) ID() string { return "sluice" }

func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnACLCheck, mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnUnsubscribed, mqtt.OnPublish:
		return true
	}
	return false
}

// connOf is cl's connection; nil for the gateway's own client and for sessions without one.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnACLCheck is asked about publishes and subscriptions.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	r := h.b.cfg.Rights
	if r == nil || cl.Net.Inline {
		return true
	}
	if write && cl.Properties.ProtocolVersion < 5 {
		return true // asked in OnPublish: MQTT 3 has no way to say no
	}
	if rest, ok := strings.CutPrefix(topic, "$share/"); ok && !write {
		_, topic, _ = strings.Cut(rest, "/")
	}
	c := connOf(cl)
	if c == nil {
		return r.Allowed(cl.ID, string(cl.Properties.Username), topic, write)
	}
	ok := r.Allowed(c.clientID, c.username, topic, write)
	if !ok && write {
		h.b.count.deniedPublishes.Add(1)
	}
	return ok
}

// OnSubscribe takes out what is over the limits: the library refuses a filter that is empty.
func (h *hook) OnSubscribe(cl *mqtt.Client, pk packets.Packet) packets.Packet {
	if cl.Net.Inline {
		return pk
	}
	c := connOf(cl)
	c.overQuota, c.existed = c.overQuota[:0], c.existed[:0]
	room := h.b.limits.Subscriptions - cl.State.Subscriptions.Len()
	for i := range pk.Filters {
		filter := &pk.Filters[i].Filter
		_, has := cl.State.Subscriptions.Get(*filter)
		c.existed = append(c.existed, has)
		if !h.b.topicFits(*filter) {
			h.b.count.overLimits.Add(1)
			*filter = ""
			continue
		}
		if has || h.b.limits.Subscriptions < 0 {
			continue
		}
		if room--; room < 0 {
			h.b.count.overLimits.Add(1)
			*filter = ""
			c.overQuota = append(c.overQuota, i)
		}
	}
	return pk
}

// subscriptionRefused is the code mochi gives what Rights do not allow, MQTT 3.1.1's only one.
const subscriptionRefused = 0x80

// OnSubscribed comes before SUBACK, which has reasonCodes.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, reasonCodes []byte) {
	if c := connOf(cl); c != nil && c.v5 {
		for _, i := range c.overQuota {
			reasonCodes[i] = reasonQuota
		}
	}
	for i, code := range reasonCodes {
		if code == subscriptionRefused && pk.Filters[i].Filter != "" {
			h.b.count.deniedSubscriptions.Add(1)
		}
	}
	h.b.subscriptions.Add(1)
	if c := connOf(cl); c != nil {
		c.subscribed(&pk, reasonCodes)
	}
}

// OnUnsubscribed is called when a session ends, for all its subscriptions.
func (h *hook) OnUnsubscribed(*mqtt.Client, packets.Packet) { h.b.subscriptions.Add(1) }

var (
	// Whatever else OnPublish returns is acknowledged by mochi 2.7.9.
	errReject error = packets.ErrRejectPacket
	// Acknowledged, and neither routed nor retained by mochi.
	errRouted error = packets.CodeSuccessIgnore
)

// OnPublish journals what came through mochi. The acknowledgement mochi then writes is held by the connection.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	c := connOf(cl)
	if !c.v5 && !c.allowed(pk.TopicName, true) {
		h.b.count.deniedPublishes.Add(1)
		return pk, errRouted // like mosquitto: to end the connection would end it again and again
	}
	m := Message{
		ClientID: c.clientID, Username: c.username, Topic: pk.TopicName, Payload: pk.Payload,
		QoS: pk.FixedHeader.Qos, Retain: pk.FixedHeader.Retain, Dup: pk.FixedHeader.Dup,
		PacketID: pk.PacketID, Received: c.received,
	}
	pos, epoch, outcome := c.journal(&m)
	switch outcome {
	case refused:
		c.disconnect(reasonQuota)
		return pk, errReject
	case journalled:
		c.mu.Lock()
		c.pos, c.epoch, c.posTime = pos, epoch, c.lastRead
		c.unwritten++
		c.mu.Unlock()
	}
	if err := c.route(&pk, outcome == journalled); err != nil {
		c.disconnect(reasonQuota)
		return pk, errReject
	}
	return pk, errRouted
}
