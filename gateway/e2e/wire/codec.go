// Package wire is a raw MQTT 3.1.1 and 5 client for tests and load: it writes frames byte by byte, so that it can do what
// a polite library never does (send half a packet, resend with or without DUP, pipeline a fixed window), and it remembers
// exactly which messages were acknowledged and when. It imports nothing of the gateway. A Device runs in the goroutine that
// calls Run; while connected it also owns one reader goroutine, which ends before Run returns.
package wire

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Packet types, MQTT 5 section 2.1.2.
const (
	CONNECT    = 1
	CONNACK    = 2
	PUBLISH    = 3
	PUBACK     = 4
	PUBREC     = 5
	PUBREL     = 6
	PUBCOMP    = 7
	SUBSCRIBE  = 8
	SUBACK     = 9
	PINGREQ    = 12
	PINGRESP   = 13
	DISCONNECT = 14
)

// Protocol levels, as they stand in CONNECT.
const (
	V311 = 4
	V5   = 5
)

// MaxPacket bounds what ReadPacket accepts, in bytes of remaining length.
const MaxPacket = 1 << 20

// Connect holds what a CONNECT says.
type Connect struct {
	ClientID      string
	Version       byte // V311 or V5; 0 means V311
	Clean         bool
	KeepAlive     uint16 // seconds
	User          string // "" sends no user name
	Password      string
	SessionExpiry uint32 // seconds, MQTT 5 only
}

// AppendConnect appends a CONNECT packet to dst.
func AppendConnect(dst []byte, c Connect) []byte {
	var flags byte
	if c.Clean {
		flags |= 0x02
	}
	if c.User != "" {
		flags |= 0x80
		if c.Password != "" {
			flags |= 0x40
		}
	}
	version := c.Version
	if version == 0 {
		version = V311
	}
	body := appendString(nil, "MQTT")
	body = append(body, version, flags)
	body = binary.BigEndian.AppendUint16(body, c.KeepAlive)
	if version == V5 {
		if c.SessionExpiry > 0 {
			body = append(body, 5, 0x11)
			body = binary.BigEndian.AppendUint32(body, c.SessionExpiry)
		} else {
			body = append(body, 0)
		}
	}
	body = appendString(body, c.ClientID)
	if c.User != "" {
		body = appendString(body, c.User)
		if c.Password != "" {
			body = appendString(body, c.Password)
		}
	}
	return appendFrame(dst, CONNECT<<4, body)
}

// Publish holds what a PUBLISH says. ID is ignored at QoS 0.
type Publish struct {
	Topic   string
	Payload []byte
	ID      uint16
	QoS     byte
	DUP     bool
	Retain  bool
}

// AppendPublish appends a PUBLISH packet to dst; version 5 packets carry an empty property list.
func AppendPublish(dst []byte, version byte, p Publish) []byte {
	flags := byte(PUBLISH<<4) | p.QoS<<1
	if p.DUP {
		flags |= 0x08
	}
	if p.Retain {
		flags |= 0x01
	}
	n := 2 + len(p.Topic) + len(p.Payload)
	if p.QoS > 0 {
		n += 2
	}
	if version == V5 {
		n++
	}
	dst = append(dst, flags)
	dst = appendLength(dst, n)
	dst = appendString(dst, p.Topic)
	if p.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.ID)
	}
	if version == V5 {
		dst = append(dst, 0)
	}
	return append(dst, p.Payload...)
}

// AppendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP in its four-byte form, which both versions read as success.
func AppendAck(dst []byte, packetType byte, id uint16) []byte {
	first := packetType << 4
	if packetType == PUBREL {
		first |= 0x02
	}
	return append(dst, first, 2, byte(id>>8), byte(id))
}

// AppendSubscribe appends a SUBSCRIBE for one filter.
func AppendSubscribe(dst []byte, version byte, id uint16, filter string, qos byte) []byte {
	body := binary.BigEndian.AppendUint16(nil, id)
	if version == V5 {
		body = append(body, 0)
	}
	body = append(appendString(body, filter), qos)
	return appendFrame(dst, SUBSCRIBE<<4|0x02, body)
}

// AppendPing appends a PINGREQ.
func AppendPing(dst []byte) []byte { return append(dst, PINGREQ<<4, 0) }

// AppendDisconnect appends a DISCONNECT in its two-byte form.
func AppendDisconnect(dst []byte) []byte { return append(dst, DISCONNECT<<4, 0) }

// Packet is a packet as received. Topic and Payload are set for PUBLISH; ID for packets that carry one; Reason for
// CONNACK and acknowledgements (0 where the packet has none); SessionPresent for CONNACK.
type Packet struct {
	Type           byte
	Flags          byte
	ID             uint16
	Reason         byte
	SessionPresent bool
	Topic          string
	Payload        []byte
	Body           []byte // everything after the fixed header
}

var errShort = errors.New("packet shorter than its type needs")

// ReadPacket reads one packet. version says how to read the properties.
func ReadPacket(r *bufio.Reader, version byte) (Packet, error) {
	first, err := r.ReadByte()
	if err != nil {
		return Packet{}, err
	}
	n, shift := 0, 0
	for {
		b, err := r.ReadByte()
		if err != nil {
			return Packet{}, unexpected(err)
		}
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return Packet{}, errors.New("remaining length longer than four bytes")
		}
	}
	if n > MaxPacket {
		return Packet{}, fmt.Errorf("packet of %d bytes, want at most %d", n, MaxPacket)
	}
	p := Packet{Type: first >> 4, Flags: first & 0x0f, Body: make([]byte, n)}
	if _, err := io.ReadFull(r, p.Body); err != nil {
		return Packet{}, unexpected(err)
	}
	if err := p.parse(version); err != nil {
		return Packet{}, fmt.Errorf("packet type %d: %w", p.Type, err)
	}
	return p, nil
}

func (p *Packet) parse(version byte) error {
	b := p.Body
	switch p.Type {
	case CONNACK:
		if len(b) < 2 {
			return errShort
		}
		p.SessionPresent, p.Reason = b[0]&1 == 1, b[1]
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		if len(b) < 2 {
			return errShort
		}
		p.ID = binary.BigEndian.Uint16(b)
		if len(b) > 2 {
			p.Reason = b[2]
		}
	case SUBACK:
		if len(b) < 3 {
			return errShort
		}
		p.ID, p.Reason = binary.BigEndian.Uint16(b), b[len(b)-1]
	case DISCONNECT:
		if len(b) > 0 {
			p.Reason = b[0]
		}
	case PUBLISH:
		if len(b) < 2 {
			return errShort
		}
		n := int(binary.BigEndian.Uint16(b))
		b = b[2:]
		if len(b) < n {
			return errShort
		}
		p.Topic, b = string(b[:n]), b[n:]
		if p.Flags>>1&3 > 0 {
			if len(b) < 2 {
				return errShort
			}
			p.ID, b = binary.BigEndian.Uint16(b), b[2:]
		}
		if version == V5 {
			n, used := binary.Uvarint(b) // the encoding of MQTT's variable byte integer
			if used <= 0 || uint64(len(b)-used) < n {
				return errShort
			}
			b = b[used+int(n):]
		}
		p.Payload = b
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func appendString(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

func appendLength(dst []byte, n int) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

func appendFrame(dst []byte, first byte, body []byte) []byte {
	return append(appendLength(append(dst, first), len(body)), body...)
}
