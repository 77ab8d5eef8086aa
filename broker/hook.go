package broker

import (
	"hash/maphash"
	"strings"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// hook is where mochi asks and tells. It runs in the connection's reading goroutine unless a method says otherwise.
type hook struct {
	mqtt.HookBase
	b *Broker
}

func (h *hook) ID() string { return "sluice" }

func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnect, mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnSessionEstablished, mqtt.OnACLCheck,
		mqtt.OnSubscribe, mqtt.OnSubscribed, mqtt.OnPublish, mqtt.OnPublishDropped, mqtt.OnClientExpired,
		mqtt.OnUnsubscribed, mqtt.OnWill, mqtt.OnDisconnect:
		return true
	}
	return false
}

// connOf is cl's connection; nil for the gateway's own client and for sessions without one.
func connOf(cl *mqtt.Client) *conn {
	c, _ := cl.Net.Conn.(*conn)
	return c
}

// OnConnect takes what the connection needs to know from CONNECT, before mochi asks who the client is.
func (h *hook) OnConnect(cl *mqtt.Client, pk packets.Packet) error {
	c := connOf(cl)
	c.clientID = cl.ID
	if c.emptyWill {
		cl.Properties.Will.Payload = nil
	}
	c.v5 = cl.Properties.ProtocolVersion == 5
	c.keepalive = time.Duration(cl.State.Keepalive) * time.Second * 3 / 2 // MQTT 5, 3.1.2.10
	c.takeWill(cl, &pk)
	p := &cl.Properties.Props
	c.mu.Lock()
	c.version = cl.Properties.ProtocolVersion
	if c.v5 {
		c.receiveMaximum, c.aliasesMost, c.packetMost = int(p.ReceiveMaximum), int(p.TopicAliasMaximum), int(p.MaximumPacketSize)
	}
	c.mu.Unlock()
	p.TopicAliasMaximum = 0 // aliases are given here, not by mochi
	// mochi computes keepalive x 1.5 in 16 bits and sets a deadline for each packet; ours replaces it.
	cl.State.Keepalive = 0
	// With a send quota mochi 2.7.9 stops delivering after twice the client's receive maximum, and can deadlock. The
	// session has a window of its own.
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	return nil
}

// OnConnectAuthenticate decides whether the client may have a session.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	b, c := h.b, connOf(cl)
	user, result := b.identify(c, &pk)
	switch result {
	case loginTooMany:
		b.count.loginsThrottled.Add(1)
		return h.refuse(cl, packets.ErrConnectionRateExceeded, packets.Err3ServerUnavailable)
	case loginBusy:
		b.count.loginsThrottled.Add(1)
		return h.refuse(cl, packets.ErrServerBusy, packets.Err3ServerUnavailable)
	case loginWrong:
		b.count.authFailures.Add(1)
		return false
	}
	c.username = user
	cl.Properties.Username = []byte(user) // what was proved, whatever was said
	return b.mayHaveSession(h, c, cl) && b.mayHaveWill(h, cl, &pk)
}

// refuse sends CONNACK with a better reason than mochi's own, which is then not sent, and returns false.
func (h *hook) refuse(cl *mqtt.Client, v5, v3 packets.Code) bool {
	code := v5
	if cl.Properties.ProtocolVersion < 5 {
		code = v3
	}
	_ = h.b.server.SendConnack(cl, code, false, nil)
	return false
}

var idSeed = maphash.MakeSeed()

// OnSessionEstablish comes before a session of the same id is taken over. From here to CONNACK the id is locked: mochi
// looks for the old client and adds the new one in two steps.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	c := connOf(cl)
	l := h.b.lockOf(cl.ID)
	l.Lock()
	c.mu.Lock()
	c.idLock, c.cl = l, cl
	was, resume := h.b.server.Clients.Get(cl.ID)
	if resume {
		c.previous = connOf(was)
		// As mochi decides it, and tells the client.
		resume = !pk.Connect.Clean && !(was.Properties.Clean && was.Properties.ProtocolVersion < 5)
	}
	c.mu.Unlock()
	h.b.sessions.establish(c, cl, resume)
}

// OnSessionEstablished opens the short way for plain messages.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	c := connOf(cl)
	c.established = true
	h.b.sessions.attach(c)
}

// OnDisconnect is called once for a session that was established, before mochi forgets it, if it does; until the connection
// has ended its id is locked, so that mochi does not forget a new session of the same id instead.
func (h *hook) OnDisconnect(cl *mqtt.Client, _ error, expire bool) {
	c := connOf(cl)
	if c == nil {
		return
	}
	l := h.b.lockOf(cl.ID)
	l.Lock()
	c.mu.Lock()
	c.idLock = l
	c.mu.Unlock()
	h.b.sessions.detach(c, cl, expire)
}

// OnWill is called when a will is due. mochi is left with one that nobody hears.
func (h *hook) OnWill(cl *mqtt.Client, _ mqtt.Will) (mqtt.Will, error) {
	if c := connOf(cl); c != nil {
		c.sendWill()
	}
	return mqtt.Will{}, nil
}

// OnACLCheck is also called by publishers, for each delivery.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	r := h.b.cfg.Rights
	if r == nil || cl.Net.Inline {
		return true
	}
	if write && (topic == "" || cl.Properties.ProtocolVersion < 5) {
		return true // asked in OnPublish: when an alias is resolved, and where MQTT 3 has no way to say no
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

// OnUnsubscribed comes before UNSUBACK, and when a session ends.
func (h *hook) OnUnsubscribed(cl *mqtt.Client, pk packets.Packet) {
	h.b.subscriptions.Add(1)
	if c := connOf(cl); c != nil {
		c.unsubscribed(&pk)
	}
}

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
	if pk.Properties.TopicAliasFlag {
		switch {
		case !plainTopic(pk.TopicName):
			c.disconnect(reasonTopicAlias)
			return pk, errReject
		case !c.allowed(pk.TopicName, true):
			c.disconnect(reasonNotAuthorized)
			return pk, errReject
		}
	}
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

// OnPublishDropped is called by the publisher of what a subscriber's queue did not take.
func (h *hook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	h.b.count.deliveriesDropped.Add(1)
}

// OnClientExpired is called by mochi's housekeeping, should it come before ours. mochi would leave the subscriptions behind.
func (h *hook) OnClientExpired(cl *mqtt.Client) {
	l := h.b.lockOf(cl.ID)
	l.Lock()
	defer l.Unlock()
	if now, ok := h.b.server.Clients.Get(cl.ID); ok && now == cl {
		h.b.sessions.expire(cl.ID)
		h.b.server.UnsubscribeClient(cl)
		cl.ClearInflights()
	}
}
