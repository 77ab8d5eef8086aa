package broker

import (
	"encoding/binary"
	"errors"
)

// MQTT control packet types: the high nibble of a frame's first byte.
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
)

// Reason codes of MQTT 5 that the connection itself sends.
const (
	reasonMalformed     = 0x81
	reasonProtocolError = 0x82
	reasonVersion       = 0x84
	reasonClientID      = 0x85
	reasonNotAuthorized = 0x87
	reasonShuttingDown  = 0x8B
	reasonAuthMethod    = 0x8C
	reasonKeepAlive     = 0x8D
	reasonTopicName     = 0x90
	reasonPacketIDInUse = 0x91
	reasonTopicAlias    = 0x94
	reasonTooLarge      = 0x95
	reasonQuota         = 0x97
)

var errMalformed = errors.New("malformed packet")

// frameSize reads a fixed header: header is its length, size the whole frame's. Both are 0 while b is too short to tell.
//
//	byte 0: type (4 bits), flags (4 bits)
//	bytes 1-4: remaining length, 7 bits a byte, least significant first, high bit: another follows
func frameSize(b []byte) (header, size int, err error) {
	remaining := 0
	for i := 1; i < len(b); i++ {
		remaining |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if i > 1 && b[i] == 0 {
				return 0, 0, errMalformed // longer than need be, MQTT-1.5.5-1
			}
			return i + 1, i + 1 + remaining, nil
		}
		if i == 4 {
			return 0, 0, errMalformed
		}
	}
	return 0, 0, nil
}

// publish is a PUBLISH of the plain kind: not retained, QoS 0 or 1, and without properties.
type publish struct {
	topic, payload []byte
	qos            byte
	dup            bool
	packetID       uint16
}

// parsePlainPublish reads frame, whose fixed header is header bytes long. What is not plain or not well-formed is not ok,
// and left to the library to handle or to refuse.
func parsePlainPublish(frame []byte, header int, v5 bool) (p publish, ok bool) {
	flags := frame[0] & 0x0f
	const retain, dup = 0x01, 0x08
	p.qos, p.dup = flags>>1&3, flags&dup != 0
	if flags&retain != 0 || p.qos > 1 || p.qos == 0 && p.dup {
		return p, false
	}
	b := frame[header:]
	if len(b) < 2 {
		return p, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; n == 0 || n > len(b) {
		return p, false
	}
	p.topic, b = b[:n], b[n:]
	if p.qos > 0 {
		if len(b) < 2 {
			return p, false
		}
		p.packetID, b = binary.BigEndian.Uint16(b), b[2:]
		if p.packetID == 0 {
			return p, false
		}
	}
	if v5 {
		if len(b) == 0 || b[0] != 0 {
			return p, false
		}
		b = b[1:]
	}
	p.payload = b
	return p, true
}

// uvarint reads a variable byte integer; width 0 means b holds none.
func uvarint(b []byte) (v, width int) {
	for i := 0; i < len(b) && i < 4; i++ {
		v |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1
		}
	}
	return 0, 0
}

// packetIDOf reads the packet id that begins a frame's body.
func packetIDOf(frame []byte, header int) (id uint16, ok bool) {
	if len(frame) < header+2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(frame[header:]), true
}
