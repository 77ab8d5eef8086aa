package broker

import (
	"bytes"
	"encoding/binary"
	"net"
)

// connect is what the connection itself wants to know of a CONNECT.
type connect struct {
	v5     bool
	accept bool
	// The answer when it is not accepted: a CONNACK code of the client's version; 0: none, the connection is closed.
	code byte

	// What the library refuses although the standards allow it, as offsets into the body; 0: not so.
	emptyWill     int // of the length of a will without payload
	emptyUser     int // of the length of a user name without a character
	emptyPassword int // of the length of an empty password
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
	body := frame[header:]
	r := reader{b: body}
	at := func() int { return len(body) - len(r.b) }
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
		start := at()
		if payload := r.binary(); r.bad == 0 && len(payload) == 0 {
			c.emptyWill = start
		}
	}
	if flags&flagUser != 0 {
		start := at()
		if user := r.text(); r.bad == 0 && len(user) == 0 {
			c.emptyUser = start
		}
	}
	if flags&flagPassword != 0 {
		start := at()
		if password := r.binary(); r.bad == 0 && len(password) == 0 {
			c.emptyPassword = start
		}
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

// rewritten is the CONNECT as the library takes it: a will has a payload, which the hook takes out again, and what is empty
// of name and password is not there.
func (c *connect) rewritten(frame []byte, header int) []byte {
	if c.emptyWill == 0 && c.emptyUser == 0 && c.emptyPassword == 0 {
		return frame
	}
	body := bytes.Clone(frame[header:])
	flagsAt := 2 + int(binary.BigEndian.Uint16(body)) + 1
	if c.emptyPassword != 0 {
		body = append(body[:c.emptyPassword], body[c.emptyPassword+2:]...)
		body[flagsAt] &^= flagPassword
	}
	if c.emptyUser != 0 {
		// A password without a name proves nothing.
		body = body[:c.emptyUser]
		body[flagsAt] &^= flagUser | flagPassword
	}
	if i := c.emptyWill; i != 0 {
		body = append(body[:i], append([]byte{0, 1, 0}, body[i+2:]...)...)
	}
	f := []byte{frame[0]}
	for n := len(body); ; {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			f = append(f, d|0x80)
			continue
		}
		return append(append(f, d), body...)
	}
}

// connect looks at the CONNECT that stands at c.r and is size bytes long. What is not accepted is answered here.
func (c *conn) connect(header, size int) (newSize int, err error) {
	frame := c.in[c.r : c.r+size]
	k := readConnect(frame, header)
	if !k.accept {
		c.b.count.malformed.Add(1)
		return 0, c.refuseConnect(k.v5, k.code)
	}
	c.emptyWill = k.emptyWill != 0
	if f := k.rewritten(frame, header); len(f) != size || &f[0] != &frame[0] {
		rest := c.in[c.r+size : c.w]
		in := make([]byte, max(firstBuffer, len(f)+len(rest)))
		copy(in[copy(in, f):], rest)
		c.in, c.r, c.w = in, 0, len(f)+len(rest)
		return len(f), nil
	}
	return size, nil
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
