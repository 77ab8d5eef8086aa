package pipeline

import (
	"encoding/binary"

	"sluice/gateway/telemetry"
)

// Journal record types. The journal is the only truth: everything else follows from these.
const (
	RecordMessage   byte = 1  // a PUBLISH as received; the record's time is its arrival
	RecordTick      byte = 2  // time passed; no body
	RecordConfigure byte = 3  // a Spec as JSON: from here on it is in force
	RecordBoot      byte = 4  // a process started: boot id, version
	RecordClockStep byte = 5  // the wall clock was set: zigzag ns it moved by; the record's time is the new time
	RecordOperator  byte = 6  // a notify.Command as JSON: somebody silenced or acknowledged something
	RecordAudit     byte = 7  // an Audit as JSON: somebody did something else that others should know of
	RecordBackfill  byte = 9  // windows recomputed from the local history, see Backfill
	RecordHistory   byte = 10 // how far the local history goes back, see HistoryBegins
	RecordRequeue   byte = 8  // a Requeue: what was quarantined is put back on its way
)

// Message is a PUBLISH as the journal keeps it.
type Message struct {
	ClientID, Username, Topic string
	Payload                   []byte
	QoS                       byte
	Retain, Dup               bool
	PacketID                  uint16
}

// AppendMessageHead appends everything but the payload, which follows it in the record body:
//
//	flags: bits 0-1 QoS, 2 retain, 3 DUP | packet id u16 little-endian | client id | user name | topic | payload to the end
func AppendMessageHead(b []byte, m *Message) []byte {
	flags := m.QoS & 3
	if m.Retain {
		flags |= 4
	}
	if m.Dup {
		flags |= 8
	}
	b = append(b, flags, byte(m.PacketID), byte(m.PacketID>>8))
	b = telemetry.AppendString(b, m.ClientID)
	b = telemetry.AppendString(b, m.Username)
	return telemetry.AppendString(b, m.Topic)
}

// rawMessage is a message record in place: its slices alias the record body.
type rawMessage struct {
	flags                     byte
	packetID                  uint16
	clientID, topic, username []byte
	payload                   []byte
}

func (m *rawMessage) qos() byte    { return m.flags & 3 }
func (m *rawMessage) retain() bool { return m.flags&4 != 0 }
func (m *rawMessage) dup() bool    { return m.flags&8 != 0 }

func (m *rawMessage) parse(body []byte) bool {
	if len(body) < 3 {
		return false
	}
	m.flags, m.packetID = body[0], binary.LittleEndian.Uint16(body[1:])
	rest := body[3:]
	for _, f := range [...]*[]byte{&m.clientID, &m.username, &m.topic} {
		n, k := binary.Uvarint(rest)
		if k <= 0 || n > uint64(len(rest)-k) {
			return false
		}
		*f, rest = rest[k:k+int(n)], rest[k+int(n):]
	}
	m.payload = rest
	return true
}

// ParseMessage decodes a message record for people and tools; Payload aliases body.
func ParseMessage(body []byte) (Message, bool) {
	var m rawMessage
	if !m.parse(body) {
		return Message{}, false
	}
	return Message{
		ClientID: string(m.clientID), Username: string(m.username), Topic: string(m.topic), Payload: m.payload,
		QoS: m.qos(), Retain: m.retain(), Dup: m.dup(), PacketID: m.packetID,
	}, true
}
