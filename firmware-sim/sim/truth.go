package sim

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
	"unicode/utf8"
)

// EventKind names what an Event tells.
type EventKind string

// A message at QoS 1 or 2 is told by one publish, any number of resent, and exactly one of acked and lost. At QoS 0
// there is no acknowledgement: publish is followed by exactly one sent.
const (
	Publish    EventKind = "publish" // handed to the MQTT client for the first time
	Resent     EventKind = "resent"  // sent again after a reconnect
	Acked      EventKind = "acked"   // PUBACK (QoS 1) or PUBCOMP (QoS 2) read
	Sent       EventKind = "sent"    // QoS 0 handed to a connection that was up; nothing more can be known
	Lost       EventKind = "lost"    // never acknowledged and no longer tried; it may or may not have arrived
	Connect    EventKind = "connect"
	Disconnect EventKind = "disconnect"
	FaultStart EventKind = "fault_start"
	FaultEnd   EventKind = "fault_end"
)

// Value is one number of a payload. Booleans count as 1 and 0.
type Value struct {
	Name  string
	Value float64
}

// Event is one line of ground truth. Fields that do not belong to its kind are zero.
type Event struct {
	T    time.Time
	Kind EventKind

	// Of one message.
	ID        uint64 // one for each message put on the wire, 1 upwards; a duplicate fault makes a second ID with the same Seq
	Device    string
	Topic     string
	Line      string
	Seq       uint64
	TS        int64   // the device's own stamp as in the payload, ms since 1970
	TrueTS    int64   // when the reading was due, ms since 1970; differs from TS under wrong_clock
	Values    []Value // the numbers in the payload; none where it is malformed. Not to be changed
	Fault     string  // names of the faults that touched this message, joined by +
	Malformed string  // how the payload is broken; empty: it is well formed
	QoS       byte
	Payload   []byte    // as published; not in the JSON lines. Not to be changed
	AckedAt   time.Time // of acked

	// Of a connection.
	Client         string
	SessionPresent bool // of connect: the server still knew the session

	Reason string // of lost and disconnect: why; of fault_start and fault_end: the kind of fault
}

// AppendJSON appends e as one JSON object without a line end.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"t":"`...)
	b = e.T.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
	b = append(b, `","event":"`...)
	b = append(b, e.Kind...)
	b = append(b, '"')
	if e.ID != 0 {
		b = appendUint(b, "id", e.ID)
		b = appendString(b, "device", e.Device)
		b = appendString(b, "topic", e.Topic)
		b = appendString(b, "line", e.Line)
		b = appendUint(b, "qos", uint64(e.QoS))
		b = appendUint(b, "seq", e.Seq)
		b = append(b, `,"ts":`...)
		b = strconv.AppendInt(b, e.TS, 10)
		if e.TrueTS != e.TS {
			b = append(b, `,"true_ts":`...)
			b = strconv.AppendInt(b, e.TrueTS, 10)
		}
		b = append(b, `,"values":{`...)
		for i, v := range e.Values {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendQuoted(b, v.Name)
			b = append(b, ':')
			b = appendNumber(b, v.Value)
		}
		b = append(b, '}')
	}
	if e.Fault != "" {
		b = appendString(b, "fault", e.Fault)
	}
	if e.Malformed != "" {
		b = appendString(b, "malformed", e.Malformed)
	}
	if !e.AckedAt.IsZero() {
		b = append(b, `,"acked_at":"`...)
		b = e.AckedAt.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000Z")
		b = append(b, '"')
	}
	if e.Client != "" {
		b = appendString(b, "client", e.Client)
	}
	if e.Kind == Connect {
		b = append(b, `,"session_present":`...)
		b = strconv.AppendBool(b, e.SessionPresent)
	}
	if e.Reason != "" {
		b = appendString(b, "reason", e.Reason)
	}
	return append(b, '}')
}

func appendUint(b []byte, key string, v uint64) []byte {
	b = append(b, ',')
	b = appendQuoted(b, key)
	b = append(b, ':')
	return strconv.AppendUint(b, v, 10)
}

func appendString(b []byte, key, v string) []byte {
	b = append(b, ',')
	b = appendQuoted(b, key)
	b = append(b, ':')
	return appendQuoted(b, v)
}

// appendNumber writes the shortest decimal that reads back as v, without an exponent: the same bytes in the payload
// and in the ground truth.
func appendNumber(b []byte, v float64) []byte { return strconv.AppendFloat(b, v, 'f', -1, 64) }

// appendQuoted writes s as a JSON string; invalid UTF-8 becomes U+FFFD, as encoding/json does.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// record hands events to the writer and the callback, one at a time. Safe for concurrent use.
type record struct {
	onEvent func(Event)
	failed  func(error) // called once, at the first write error

	mu  sync.Mutex // guards what follows and the order of the lines
	out *bufio.Writer
	buf []byte
	err error
}

func newRecord(w io.Writer, onEvent func(Event), failed func(error)) *record {
	r := &record{onEvent: onEvent, failed: failed}
	if w != nil {
		r.out = bufio.NewWriterSize(w, 64<<10)
	}
	return r
}

func (r *record) put(e *Event) {
	if r.out == nil && r.onEvent == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	e.T = time.Now()
	if e.Kind == Acked {
		e.AckedAt = e.T
	}
	if r.onEvent != nil {
		r.onEvent(*e)
	}
	if r.out != nil && r.err == nil {
		r.buf = append(e.AppendJSON(r.buf[:0]), '\n')
		if r.out.Available() < len(r.buf) {
			r.note(r.out.Flush()) // whole lines only: somebody may be reading along, or we may be killed
		}
		if r.err == nil {
			_, err := r.out.Write(r.buf)
			r.note(err)
		}
	}
}

// flush pushes buffered lines out and returns the first write error of the whole run.
func (r *record) flush() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out != nil && r.err == nil {
		r.note(r.out.Flush())
	}
	return r.err
}

func (r *record) note(err error) {
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("write ground truth: %w", err)
		r.failed(r.err)
	}
}
