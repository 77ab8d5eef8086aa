package broker

import (
	"bytes"
	"hash/maphash"
	"runtime"
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
		mqtt.OnSubscribed, mqtt.OnPublish, mqtt.OnPublished, mqtt.OnPublishDropped, mqtt.OnClientExpired:
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
	c.v5 = cl.Properties.ProtocolVersion == 5
	c.keepalive = time.Duration(cl.State.Keepalive) * time.Second * 3 / 2 // MQTT 5, 3.1.2.10
	c.windowed = c.v5 && cl.Properties.Props.ReceiveMaximum > 0
	c.mu.Lock()
	c.version = cl.Properties.ProtocolVersion
	if c.windowed {
		c.window.size = int(cl.Properties.Props.ReceiveMaximum)
	}
	c.mu.Unlock()
	// mochi computes keepalive x 1.5 in 16 bits and sets a deadline for each packet; ours replaces it.
	cl.State.Keepalive = 0
	// With a send quota mochi 2.7.9 stops delivering after twice the client's receive maximum, and can deadlock. The
	// connection has a window of its own.
	cl.Properties.Props.ReceiveMaximum = 0
	cl.State.Inflight.ResetSendQuota(0)
	return nil
}

// OnConnectAuthenticate decides whether the client may have a session.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	b, c := h.b, connOf(cl)
	user, ok := b.identify(c, &pk)
	if !ok {
		b.count.authFailures.Add(1)
		return false
	}
	c.username = user
	if c.certUser != "" {
		cl.Properties.Username = []byte(user)
	}
	if was, ok := b.server.Clients.Get(cl.ID); ok && b.hasUsers() && !bytes.Equal(was.Properties.Username, cl.Properties.Username) {
		// Another user's session: to take it over would be to read what waits there.
		b.count.authFailures.Add(1)
		return h.refuse(cl, packets.ErrClientIdentifierNotValid, packets.Err3ClientIdentifierNotValid)
	}
	if pk.Connect.WillFlag {
		if !plainTopic(pk.Connect.WillTopic) {
			return h.refuse(cl, packets.ErrTopicNameInvalid, packets.Err3NotAuthorized)
		}
		if !c.allowed(pk.Connect.WillTopic, true) {
			b.count.authFailures.Add(1)
			return h.refuse(cl, packets.ErrNotAuthorized, packets.Err3NotAuthorized)
		}
	}
	return true
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

// identify returns the user name the client has proved, "" for an anonymous one.
func (b *Broker) identify(c *conn, pk *packets.Packet) (user string, ok bool) {
	if c.certUser != "" {
		return c.certUser, true
	}
	if pk.Connect.UsernameFlag && b.cfg.Authenticate != nil {
		user = string(pk.Connect.Username)
		b.hashing <- struct{}{} // hashing is slow by design; a flood of logins must not take every processor
		defer func() { <-b.hashing }()
		return user, b.cfg.Authenticate(user, pk.Connect.Password)
	}
	return "", b.cfg.AllowAnonymous || c.local && b.cfg.Authenticate == nil
}

// hasUsers tells whether user names prove anything.
func (b *Broker) hasUsers() bool { return b.cfg.Authenticate != nil }

var idSeed = maphash.MakeSeed()

// OnSessionEstablish comes before a session of the same id is taken over. From here to CONNACK the id is locked: mochi
// looks for the old client and adds the new one in two steps.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, pk packets.Packet) {
	c := connOf(cl)
	l := h.b.lockOf(cl.ID)
	l.Lock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idLock, c.cl = l, cl
	if was, ok := h.b.server.Clients.Get(cl.ID); ok {
		c.previous = connOf(was)
	}
}

// OnSessionEstablished opens the short way for plain messages.
func (h *hook) OnSessionEstablished(cl *mqtt.Client, pk packets.Packet) {
	connOf(cl).established = true
}

// OnACLCheck is also called by publishers, for each delivery.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	r := h.b.cfg.Rights
	if r == nil || cl.Net.Inline {
		return true
	}
	if write && topic == "" {
		return true // a topic alias: asked again in OnPublish, when it is resolved
	}
	if rest, ok := strings.CutPrefix(topic, "$share/"); ok && !write {
		_, topic, _ = strings.Cut(rest, "/")
	}
	c := connOf(cl)
	if c == nil {
		return r.Allowed(cl.ID, string(cl.Properties.Username), topic, write)
	}
	return r.Allowed(c.clientID, c.username, topic, write)
}

// OnSubscribed comes before SUBACK.
func (h *hook) OnSubscribed(cl *mqtt.Client, pk packets.Packet, reasonCodes []byte) {
	h.b.subscriptions.Add(1)
}

var (
	// Whatever else OnPublish returns is acknowledged by mochi 2.7.9.
	errReject error = packets.ErrRejectPacket
	// Acknowledged and not routed.
	errNobodyListens error = packets.CodeSuccessIgnore
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
	if t := c.topics.getString(h.b, pk.TopicName); t.plain && !t.heard && !pk.FixedHeader.Retain {
		return pk, errNobodyListens
	}
	return pk, nil
}

// OnPublished comes after a message was queued to its subscribers. It lets their writers run: a publisher with a full
// buffer would otherwise fill the library's short queues, which drop what does not fit.
func (h *hook) OnPublished(cl *mqtt.Client, pk packets.Packet) {
	if pk.Ignore || cl.Net.Inline {
		return
	}
	const burst = 64 // far less than Capabilities.MaximumClientWritesPending
	c := connOf(cl)
	if c.routed++; c.routed%burst == 0 {
		time.Sleep(50 * time.Microsecond)
	} else {
		runtime.Gosched()
	}
}

// OnPublishDropped is called by the publisher of what a subscriber's queue did not take.
func (h *hook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	h.b.count.deliveriesDropped.Add(1)
}

// OnClientExpired is called by mochi's housekeeping, which would leave the session's subscriptions behind.
func (h *hook) OnClientExpired(cl *mqtt.Client) {
	l := h.b.lockOf(cl.ID)
	l.Lock()
	defer l.Unlock()
	if now, ok := h.b.server.Clients.Get(cl.ID); ok && now == cl {
		h.b.server.UnsubscribeClient(cl)
		cl.ClearInflights()
	}
}
