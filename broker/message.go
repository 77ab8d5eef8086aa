package broker

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// message is one publish on its way to subscribers. All who are to get it share it, and it never changes.
type message struct {
	topic   string
	payload []byte
	props   []byte // the MQTT 5 properties that are passed on, encoded; without message expiry
	origin  string // client id of the publisher; "": the gateway
	qos     byte
	retain  bool
	expires int64 // ns since the Unix epoch; 0: never
}

// messageOverhead stands for what a message costs beyond its bytes, wherever bytes are bounded.
const messageOverhead = 96

func (m *message) size() int {
	return len(m.topic) + len(m.payload) + len(m.props) + messageOverhead
}

func (m *message) expired(now int64) bool { return m.expires > 0 && now >= m.expires }

// appendForwarded encodes those properties of a PUBLISH, or of a will, that belong to the message and not to its delivery.
func appendForwarded(b []byte, p *packets.Properties) []byte {
	if p.PayloadFormatFlag {
		b = append(b, packets.PropPayloadFormat, p.PayloadFormat)
	}
	if p.ContentType != "" {
		b = appendString(append(b, packets.PropContentType), p.ContentType)
	}
	if p.ResponseTopic != "" {
		b = appendString(append(b, packets.PropResponseTopic), p.ResponseTopic)
	}
	if len(p.CorrelationData) > 0 {
		b = appendString(append(b, packets.PropCorrelationData), p.CorrelationData)
	}
	for _, u := range p.User {
		b = appendString(append(b, packets.PropUser), u.Key)
		b = appendString(b, u.Val)
	}
	return b
}

// appendString adds a string or binary data with its length before it, as MQTT has it; what is longer than MQTT can say,
// which cannot have come in, is cut.
func appendString[S string | []byte](b []byte, s S) []byte {
	s = s[:min(len(s), 0xffff)]
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

// messageOf is pk as a message. It shares pk's memory, which mochi allocates for each packet.
func messageOf(pk *packets.Packet, now int64) *message {
	m := &message{
		topic: pk.TopicName, payload: pk.Payload, props: appendForwarded(nil, &pk.Properties), origin: pk.Origin,
		qos: pk.FixedHeader.Qos, retain: pk.FixedHeader.Retain,
	}
	if s := pk.Properties.MessageExpiryInterval; s > 0 {
		m.expires = now + int64(s)*int64(time.Second)
	}
	return m
}

// Flags of a PUBLISH's first byte.
const (
	flagRetain = 0x01
	flagDup    = 0x08
)

// appendPublish encodes m as a PUBLISH for one subscriber. topic is m's, or "" where alias stands for it; alias 0: none.
func appendPublish(b []byte, m *message, flags byte, id uint16, v5 bool, topic string, alias uint16, ids []int, now int64) []byte {
	body := 2 + len(topic) + len(m.payload)
	if flags&0x06 != 0 {
		body += 2
	}
	props := 0
	if v5 {
		props = len(m.props)
		if m.expires > 0 {
			props += 5
		}
		if alias > 0 {
			props += 3
		}
		for _, i := range ids {
			props += 1 + lengthOf(i)
		}
		body += lengthOf(props) + props
	}
	b = slices.Grow(b, 1+lengthOf(body)+body)
	b = append(b, typePublish<<4|flags)
	b = appendLength(b, body)
	b = appendString(b, topic)
	if flags&0x06 != 0 {
		b = binary.BigEndian.AppendUint16(b, id)
	}
	if v5 {
		b = appendLength(b, props)
		if m.expires > 0 {
			left := max(1, (m.expires-now+int64(time.Second)-1)/int64(time.Second)) // 0 would mean at once
			b = binary.BigEndian.AppendUint32(append(b, packets.PropMessageExpiryInterval), uint32(left))
		}
		if alias > 0 {
			b = binary.BigEndian.AppendUint16(append(b, packets.PropTopicAlias), alias)
		}
		for _, i := range ids {
			b = appendLength(append(b, packets.PropSubscriptionIdentifier), i)
		}
		b = append(b, m.props...)
	}
	return append(b, m.payload...)
}

// appendLength encodes a variable byte integer, MQTT 5, 1.5.5.
func appendLength(b []byte, n int) []byte {
	for n > 0x7f {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func lengthOf(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}
