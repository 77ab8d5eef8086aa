package broker

import (
	"bytes"
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// What a client may send is checked here, before the library: MQTT 3.1, 3.1.1 and 5, whole packets, to the last byte. The
// library lets some of what the standards forbid pass, and answers some of the rest with codes of the wrong version.

// validate returns the reason code of MQTT 5 that a frame deserves; 0: it is well-formed. The frame is whole and its fixed
// header header bytes long. CONNECT has a check of its own.
func validate(frame []byte, header int, v5 bool) byte {
	flags := frame[0] & 0x0f
	r := reader{b: frame[header:]}
	kind := frame[0] >> 4
	switch kind {
	case typePublish:
		return r.publish(flags, v5)
	case typePubrel, typeSubscribe, typeUnsubscribe:
		if flags != 2 {
			return reasonMalformed
		}
	case typeConnect, typePuback, typePubrec, typePubcomp, typePingreq, typeDisconnect, typeAuth:
		if flags != 0 {
			return reasonMalformed
		}
	default: // reserved, or a server's
		if kind == 0 || flags != 0 {
			return reasonMalformed
		}
		return reasonProtocolError
	}
	switch kind {
	case typeConnect: // the second one
		return reasonProtocolError
	case typePuback, typePubrec:
		r.acknowledgement(v5, receivedCodes)
	case typePubrel, typePubcomp:
		r.acknowledgement(v5, releasedCodes)
	case typeSubscribe, typeUnsubscribe:
		r.filters(v5, kind == typeSubscribe)
	case typeDisconnect:
		r.disconnect(v5)
	case typeAuth:
		if !v5 {
			return reasonMalformed
		}
		return reasonProtocolError // no authentication method was agreed on
	}
	return r.end()
}

// Reason codes a client may send.
var (
	receivedCodes   = []byte{0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99}
	releasedCodes   = []byte{0x00, 0x92}
	disconnectCodes = []byte{0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
)

// reader takes a packet's body apart. The first fault stays in bad.
type reader struct {
	b   []byte
	bad byte
}

func (r *reader) fail(reason byte) {
	if r.bad == 0 {
		r.bad = reason
	}
	r.b = nil
}

// end is the fault, or that of bytes left over.
func (r *reader) end() byte {
	if len(r.b) > 0 {
		r.fail(reasonMalformed)
	}
	return r.bad
}

func (r *reader) take(n int) []byte {
	if n > len(r.b) {
		r.fail(reasonMalformed)
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) length() int {
	v, width := uvarint(r.b)
	if width == 0 || width > 1 && r.b[width-1] == 0 {
		r.fail(reasonMalformed)
		return 0
	}
	r.b = r.b[width:]
	return v
}

func (r *reader) binary() []byte { return r.take(int(r.uint16())) }

func (r *reader) text() []byte {
	s := r.binary()
	if !utf8.Valid(s) || bytes.IndexByte(s, 0) >= 0 {
		r.fail(reasonMalformed)
	}
	return s
}

func (r *reader) packetID() {
	if r.uint16() == 0 {
		r.fail(reasonProtocolError)
	}
}

// Properties by the packets that may hold them, MQTT 5, 2.2.2.2; bit n stands for identifier n.
const (
	connectProps     uint64 = 1<<0x11 | 1<<0x15 | 1<<0x16 | 1<<0x17 | 1<<0x19 | 1<<0x21 | 1<<0x22 | 1<<0x26 | 1<<0x27
	willProps        uint64 = 1<<0x01 | 1<<0x02 | 1<<0x03 | 1<<0x08 | 1<<0x09 | 1<<0x18 | 1<<0x26
	publishProps     uint64 = 1<<0x01 | 1<<0x02 | 1<<0x03 | 1<<0x08 | 1<<0x09 | 1<<0x23 | 1<<0x26
	acknowledgeProps uint64 = 1<<0x1F | 1<<0x26
	subscribeProps   uint64 = 1<<0x0B | 1<<0x26
	unsubscribeProps uint64 = 1 << 0x26
	disconnectProps  uint64 = 1<<0x11 | 1<<0x1F | 1<<0x26
)

// properties returns which were there.
func (r *reader) properties(allowed uint64) (seen uint64) {
	p := reader{b: r.take(r.length())}
	for len(p.b) > 0 {
		id := p.byte()
		bit := uint64(1) << id // 0 from 64 on
		switch {
		case allowed&bit == 0:
			p.fail(reasonProtocolError)
		case seen&bit != 0 && id != 0x26:
			p.fail(reasonProtocolError)
		}
		seen |= bit
		switch id {
		case 0x01, 0x17, 0x19: // payload format, request problem and response information
			if p.byte() > 1 {
				p.fail(reasonProtocolError)
			}
		case 0x02, 0x11, 0x18: // message and session expiry, will delay
			p.uint32()
		case 0x27: // maximum packet size
			if p.uint32() == 0 {
				p.fail(reasonProtocolError)
			}
		case 0x21: // receive maximum
			if p.uint16() == 0 {
				p.fail(reasonProtocolError)
			}
		case 0x23: // topic alias
			if p.uint16() == 0 {
				p.fail(reasonTopicAlias)
			}
		case 0x22: // topic alias maximum
			p.uint16()
		case 0x08: // response topic
			if bytes.ContainsAny(p.text(), "+#") {
				p.fail(reasonProtocolError)
			}
		case 0x03, 0x15, 0x1F: // content type, authentication method, reason string
			p.text()
		case 0x09, 0x16: // correlation and authentication data
			p.binary()
		case 0x0B: // subscription identifier
			if p.length() == 0 {
				p.fail(reasonProtocolError)
			}
		case 0x26: // user property
			p.text()
			p.text()
		}
	}
	if p.bad != 0 {
		r.fail(p.bad)
	}
	return seen
}

func (r *reader) publish(flags byte, v5 bool) byte {
	qos := flags >> 1 & 3
	if qos == 3 {
		return reasonMalformed
	}
	if qos == 0 && flags&0x08 != 0 {
		return reasonProtocolError
	}
	topic := r.text()
	if qos > 0 {
		r.packetID()
	}
	var seen uint64
	if v5 {
		seen = r.properties(publishProps)
	}
	switch {
	case r.bad != 0:
	case bytes.ContainsAny(topic, "+#"):
		return reasonTopicName
	case len(topic) == 0 && seen&(1<<0x23) == 0:
		return reasonProtocolError
	}
	return r.bad
}

func (r *reader) acknowledgement(v5 bool, codes []byte) {
	r.packetID()
	if !v5 || len(r.b) == 0 {
		return
	}
	if !slices.Contains(codes, r.byte()) {
		r.fail(reasonProtocolError)
	}
	if len(r.b) > 0 {
		r.properties(acknowledgeProps)
	}
}

func (r *reader) filters(v5, subscribe bool) {
	r.packetID()
	if v5 && subscribe {
		r.properties(subscribeProps)
	} else if v5 {
		r.properties(unsubscribeProps)
	}
	if r.bad == 0 && len(r.b) == 0 {
		r.fail(reasonProtocolError)
	}
	for len(r.b) > 0 {
		filter := r.text()
		if !subscribe {
			continue
		}
		options := r.byte()
		const noLocal, retainHandling = 0x04, 0x30
		switch {
		case !v5 && options > 2, options&0xC0 != 0:
			r.fail(reasonMalformed)
		case options&3 == 3, options&retainHandling == retainHandling,
			options&noLocal != 0 && bytes.HasPrefix(filter, []byte("$share/")):
			r.fail(reasonProtocolError)
		}
	}
}

func (r *reader) disconnect(v5 bool) {
	if !v5 || len(r.b) == 0 {
		return
	}
	if !slices.Contains(disconnectCodes, r.byte()) {
		r.fail(reasonProtocolError)
	}
	if len(r.b) > 0 {
		r.properties(disconnectProps)
	}
}
