package broker

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// What mochi's own connections do around its packet processor is done here instead, because they cost two goroutines and
// their buffers each: decode a packet, give it to the processor, and know what the end of a connection means.

// establish makes a session of a CONNECT that is accepted by readConnect, or answers why there is none.
func (c *conn) establish(frame []byte, header int) error {
	b := c.b
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(frame) - header}}
	if err := pk.ConnectDecode(bytes.Clone(frame[header:])); err != nil {
		b.count.malformed.Add(1)
		return c.refuseConnect(pk.ProtocolVersion == 5, codeOf(err, reasonMalformed))
	}
	if len(pk.Connect.Username) == 0 { // and a password without a name proves nothing
		pk.Connect.UsernameFlag, pk.Connect.PasswordFlag, pk.Connect.Password = false, false, nil
	}
	c.tally.packets++
	c.tally.bytes += int64(len(frame))
	cl := b.server.NewClient(nil, "sluice", "", false)
	cl.Net.Conn = c // what mochi writes; it reads nothing
	cl.ParseConnect("sluice", pk)
	c.meet(cl, &pk)
	if !b.authenticate(c, cl, &pk) {
		return net.ErrClosed
	}
	sessionPresent := c.takeSession(cl, &pk)
	if err := b.server.SendConnack(cl, packets.CodeSuccess, sessionPresent, nil); err != nil {
		return fmt.Errorf("send connack: %w", err)
	}
	c.established = true
	b.sessions.attach(c)
	return nil
}

// meet takes what the connection needs to know from CONNECT, before anybody asks who the client is.
func (c *conn) meet(cl *mqtt.Client, pk *packets.Packet) {
	c.clientID = cl.ID
	c.v5 = cl.Properties.ProtocolVersion == 5
	c.keepalive = time.Duration(cl.State.Keepalive) * time.Second * 3 / 2 // MQTT 5, 3.1.2.10
	c.takeWill(cl, pk)
	p := &cl.Properties.Props
	c.mu.Lock()
	c.version = cl.Properties.ProtocolVersion
	if c.v5 {
		c.receiveMaximum, c.aliasesMost, c.packetMost = int(p.ReceiveMaximum), int(p.TopicAliasMaximum), int(p.MaximumPacketSize)
	}
	c.mu.Unlock()
	// With a send quota mochi 2.7.9 would look for messages of its own to send, of which it has none. The session has a
	// window of its own.
	p.ReceiveMaximum, p.TopicAliasMaximum = 0, 0
	cl.State.Inflight.ResetSendQuota(0)
}

// authenticate decides whether the client may have a session; if not, it is told.
func (b *Broker) authenticate(c *conn, cl *mqtt.Client, pk *packets.Packet) bool {
	user, result := b.identify(c, pk)
	switch result {
	case loginTooMany:
		b.count.loginsThrottled.Add(1)
		return b.refuse(cl, packets.ErrConnectionRateExceeded, packets.Err3ServerUnavailable)
	case loginBusy:
		b.count.loginsThrottled.Add(1)
		return b.refuse(cl, packets.ErrServerBusy, packets.Err3ServerUnavailable)
	case loginWrong:
		b.count.authFailures.Add(1)
		return b.refuse(cl, packets.ErrBadUsernameOrPassword, packets.Err3NotAuthorized)
	}
	c.username = user
	cl.Properties.Username = []byte(user) // what was proved, whatever was said
	return b.mayHaveSession(c, cl) && b.mayHaveWill(cl, pk)
}

// refuse sends CONNACK with the reason of the client's version, and returns false.
func (b *Broker) refuse(cl *mqtt.Client, v5, v3 packets.Code) bool {
	code := v5
	if cl.Properties.ProtocolVersion < 5 {
		code = v3
	}
	_ = b.server.SendConnack(cl, code, false, nil)
	return false
}

// takeSession makes cl the one of its id, and returns whether it goes on with a session there was. From here to CONNACK the
// id is locked: looking for the old client and adding the new one are two steps.
func (c *conn) takeSession(cl *mqtt.Client, pk *packets.Packet) (resumed bool) {
	b := c.b
	l := b.lockOf(cl.ID)
	l.Lock()
	c.mu.Lock()
	c.idLock, c.cl = l, cl
	was, resume := b.server.Clients.Get(cl.ID)
	if resume {
		c.previous = connOf(was)
		resume = !pk.Connect.Clean && !(was.Properties.Clean && was.Properties.ProtocolVersion < 5) // MQTT-3.1.2-4, MQTT 3.1.1: 3.1.2-6
	}
	c.mu.Unlock()
	b.sessions.establish(c, cl, resume)
	if was != nil {
		_ = b.server.DisconnectClient(was, packets.ErrSessionTakenOver) // MQTT-3.1.4-3
		switch {
		case !resume:
			b.server.UnsubscribeClient(was)
			was.ClearInflights()
		default: // the index of subscriptions goes by the id and stays as it is
			cl.State.Inflight = was.State.Inflight.Clone()
			cl.State.Inflight.ResetReceiveQuota(int32(b.server.Options.Capabilities.ReceiveMaximum))
			for filter, f := range was.State.Subscriptions.GetAll() {
				cl.State.Subscriptions.Add(filter, f)
			}
		}
	}
	b.server.Clients.Add(cl)
	info := b.server.Info
	if n := atomic.AddInt64(&info.ClientsConnected, 1); n > atomic.LoadInt64(&info.ClientsMaximum) {
		atomic.StoreInt64(&info.ClientsMaximum, n) // of $SYS: nothing depends on a race here
	}
	return resume
}

// dispatch gives a packet to mochi's processor. The frame is well-formed and not kept.
func (c *conn) dispatch(frame []byte, header int) error {
	b, cl := c.b, c.cl
	pk := packets.Packet{ProtocolVersion: cl.Properties.ProtocolVersion}
	err := pk.FixedHeader.Decode(frame[0])
	pk.FixedHeader.Remaining = len(frame) - header
	body := bytes.Clone(frame[header:]) // what becomes of the packet shares it
	if err == nil {
		switch pk.FixedHeader.Type {
		case packets.Publish:
			err = pk.PublishDecode(body)
		case packets.Pubrel:
			err = pk.PubrelDecode(body)
		case packets.Subscribe:
			err = pk.SubscribeDecode(body)
		case packets.Unsubscribe:
			err = pk.UnsubscribeDecode(body)
		case packets.Disconnect:
			err = pk.DisconnectDecode(body)
		default:
			err = packets.ErrProtocolViolation
		}
	}
	if err != nil {
		b.count.malformed.Add(1)
		return c.disconnect(codeOf(err, reasonMalformed))
	}
	c.tally.bytes += int64(len(frame))
	switch pk.FixedHeader.Type {
	case packets.Publish:
		if err := c.resolveAlias(&pk); err != nil {
			return err
		}
		if !mqtt.IsValidFilter(pk.TopicName, true) { // mochi would leave it without an answer
			return c.denied(&pk)
		}
	case packets.Unsubscribe:
		return c.unsubscribe(&pk)
	}
	err = b.server.InjectPacket(cl, pk)
	if pk.FixedHeader.Type == packets.Subscribe && c.over.Load() {
		b.dropStray(cl, pk.Filters)
	}
	switch {
	case err == nil && pk.FixedHeader.Type == packets.Disconnect:
		c.goodbye = true
		return net.ErrClosed
	case err == nil:
		return nil
	case errors.Is(err, packets.CodeDisconnectWillMessage): // MQTT 5, 3.14.2.1
		return net.ErrClosed
	}
	return c.disconnect(codeOf(err, reasonProtocolError))
}

// dropStray takes subscriptions out of the index that a client made while another connection took its session over: they
// would stay there for good.
func (b *Broker) dropStray(cl *mqtt.Client, filters []subscription) {
	l := b.lockOf(cl.ID)
	l.Lock()
	defer l.Unlock()
	now, ok := b.server.Clients.Get(cl.ID)
	if ok && now == cl {
		return
	}
	for _, f := range filters {
		if ok {
			if _, has := now.State.Subscriptions.Get(f.Filter); has {
				continue
			}
		}
		if b.server.Topics.Unsubscribe(f.Filter, cl.ID) {
			atomic.AddInt64(&b.server.Info.Subscriptions, -1)
			b.subscriptions.Add(1)
		}
	}
}

// codeOf is the reason code that err has, if it is one of refusal.
func codeOf(err error, other byte) byte {
	var code packets.Code
	if errors.As(err, &code) && code.Code >= packets.ErrUnspecifiedError.Code {
		return code.Code
	}
	return other
}

// resolveAlias replaces a topic alias by its topic; from there on the packet is like any other.
func (c *conn) resolveAlias(pk *packets.Packet) error {
	p := &pk.Properties
	if !p.TopicAliasFlag {
		return nil
	}
	if p.TopicAlias == 0 || p.TopicAlias > c.b.server.Options.Capabilities.TopicAliasMaximum {
		return c.disconnect(reasonTopicAlias)
	}
	if pk.TopicName == "" {
		if pk.TopicName = c.aliased[p.TopicAlias]; pk.TopicName == "" {
			return c.disconnect(reasonTopicAlias)
		}
	} else {
		if c.aliased == nil {
			c.aliased = map[uint16]string{}
		}
		c.aliased[p.TopicAlias] = pk.TopicName
	}
	p.TopicAliasFlag, p.TopicAlias = false, 0
	return nil
}

// denied answers a PUBLISH on a topic no client may publish to: those of $SYS, and what looks like a shared subscription.
// MQTT 3 has no way to say no; to leave it without an answer would end the client's deliveries.
func (c *conn) denied(pk *packets.Packet) error {
	c.b.count.deniedPublishes.Add(1)
	kind := byte(typePuback)
	switch pk.FixedHeader.Qos {
	case 0:
		return nil
	case 2:
		kind = typePubrec
	}
	frame := []byte{kind << 4, 2, byte(pk.PacketID >> 8), byte(pk.PacketID)}
	if c.v5 {
		frame[1] = 3
		frame = append(frame, reasonNotAuthorized)
	}
	_, err := c.Write(frame)
	return err
}

// tidy ends what the connection holds of its session, however far it came.
func (c *conn) tidy() {
	defer c.b.recovered("end of a connection")
	cl := c.cl
	if cl == nil {
		return
	}
	if c.established && !c.goodbye {
		c.sendWill()
	}
	cl.Stop(nil)
	atomic.AddInt64(&c.b.server.Info.ClientsConnected, -1)
	l := c.b.lockOf(cl.ID)
	l.Lock()
	defer l.Unlock()
	p := &cl.Properties
	ends := p.ProtocolVersion == 5 && p.Props.SessionExpiryInterval == 0 || p.ProtocolVersion < 5 && p.Clean
	c.b.sessions.detach(c, cl, ends)
	if now, ok := c.b.server.Clients.Get(cl.ID); ok && now == cl && ends {
		cl.ClearInflights()
		c.b.server.UnsubscribeClient(cl)
		c.b.server.Clients.Delete(cl.ID)
	}
}
