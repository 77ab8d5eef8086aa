package broker

import (
	"bytes"
	"net"
)

// connect is what the connection itself wants to know of a CONNECT.
type connect struct {
	v5     bool
	accept bool
	// The answer when it is not accepted: a CONNACK code of the client's version; 0: none, the connection is closed.
	code byte
}

// Positions of the flags in CONNECT's flags byte.
const (
	flagReserved = 1 << iota
	flagClean
	flagWill
	flagWillQoS1
	flagWillQoS2
	flagWillRetain
	flagPassword
	flagUser
)

// readConnect checks a CONNECT's body.
func readConnect(frame []byte, header int) (c connect) {
	r := reader{b: frame[header:]}
	name, level := r.text(), r.byte()
	known := string(name) == "MQTT" && (level == 4 || level == 5) || string(name) == "MQIsdp" && level == 3
	c.v5 = level >= 5 && level < 0x80 // a bridge of mosquitto sets the high bit at its first attempt
	refuse := func(v5, v3 byte) connect {
		if c.code = v3; c.v5 {
			c.code = v5
		}
		return c
	}
	switch {
	case r.bad != 0 || frame[0]&0x0f != 0:
		return refuse(reasonMalformed, 0)
	case !known && (c.v5 || string(name) == "MQTT" || string(name) == "MQIsdp"):
		return refuse(reasonVersion, 1)
	case !known:
		return c
	}
	flags := r.byte()
	r.uint16() // keepalive
	const willQoS = flagWillQoS1 | flagWillQoS2
	switch {
	case flags&flagReserved != 0, flags&willQoS == willQoS, flags&flagWill == 0 && flags&(willQoS|flagWillRetain) != 0,
		!c.v5 && flags&(flagUser|flagPassword) == flagPassword:
		return refuse(reasonMalformed, 0)
	}
	var seen uint64
	if c.v5 {
		seen = r.properties(connectProps)
	}
	id := r.text()
	if flags&flagWill != 0 {
		if c.v5 {
			r.properties(willProps)
		}
		topic := r.text()
		if r.bad == 0 && (len(topic) == 0 || bytes.ContainsAny(topic, "+#")) {
			return refuse(reasonTopicName, 0)
		}
		r.binary()
	}
	if flags&flagUser != 0 {
		r.text()
	}
	if flags&flagPassword != 0 {
		r.binary()
	}
	const method, data = 1 << 0x15, 1 << 0x16
	switch reason := r.end(); {
	case reason != 0:
		return refuse(reason, 0)
	case seen&data != 0 && seen&method == 0:
		return refuse(reasonProtocolError, 0)
	case seen&method != 0:
		return refuse(reasonAuthMethod, 0)
	case !c.v5 && len(id) == 0 && (flags&flagClean == 0 || level == 3):
		return refuse(reasonClientID, 2)
	}
	c.accept = true
	return c
}

// connect deals with the client's CONNECT.
func (c *conn) connect(frame []byte, header int) error {
	k := readConnect(frame, header)
	if !k.accept {
		c.b.count.malformed.Add(1)
		return c.refuseConnect(k.v5, k.code)
	}
	return c.establish(frame, header)
}

// refuseConnect answers with CONNACK, unless code is 0, and closes. It returns net.ErrClosed.
func (c *conn) refuseConnect(v5 bool, code byte) error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return net.ErrClosed
	}
	switch {
	case code != 0 && v5:
		c.out.queue = append(c.out.queue, typeConnack<<4, 3, 0, code, 0)
	case code != 0:
		c.out.queue = append(c.out.queue, typeConnack<<4, 2, 0, code)
	}
	c.ended, c.connacked = true, true
	c.close()
	c.flush(true)
	return net.ErrClosed
}
