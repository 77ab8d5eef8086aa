// Package decode turns what a device published into readings. It is pure: bytes and a Spec in, samples or a reason for the
// refusal out; no I/O, no clock, no goroutines. It never panics on a payload and never guesses: what it cannot read exactly
// is refused with a reason, so that the pipeline can quarantine the bytes.
//
// A Decoder belongs to one goroutine. What it remembers between payloads (names it has interned) never changes a result.
package decode

import (
	"fmt"
	"slices"
	"strings"

	"sluice/gateway/telemetry"
)

// Limits that hold for every format. A payload beyond them is refused whole.
const (
	MaxDepth      = 32   // nested objects and arrays, the outermost counted
	MaxReadings   = 256  // readings in one sample
	MaxKeys       = 1024 // keys and selected array elements in one payload
	MaxKeyBytes   = 64   // one key
	MaxNameBytes  = 256  // a metric or label name after joining nested keys
	MaxLabelBytes = 256  // a label's value
)

// Reasons for which a payload, or one field of it, is refused. The set is fixed and small: reasons are metric labels.
const (
	ReasonEmpty         = "empty"           // no bytes, or only white space
	ReasonSyntax        = "syntax"          // not the format it should be
	ReasonDepth         = "depth"           // deeper than MaxDepth
	ReasonUTF8          = "utf8"            // invalid UTF-8, or half of a surrogate pair
	ReasonDuplicateKey  = "duplicate_key"   // one key twice in an object, or two fields that join to one name
	ReasonTooManyFields = "too_many_fields" // more than MaxReadings or MaxKeys
	ReasonKeyTooLong    = "key_too_long"    // longer than MaxKeyBytes or MaxNameBytes
	ReasonName          = "name"            // an empty name, or control characters in it
	ReasonType          = "type"            // there, but of the wrong type: text where a number should be
	ReasonNotFinite     = "not_finite"      // NaN, an infinity, or a number beyond float64
	ReasonNoReadings    = "no_readings"     // well formed, but nothing in it that is a reading
	ReasonTime          = "time"            // the time field is there and is no time
	ReasonSequence      = "sequence"        // the sequence field is there and is no integer in 0..2^64-1
	ReasonLabel         = "label"           // a label field is empty, too long, holds control characters or is no scalar
)

// Reasons lists every reason, for those who pre-register metrics.
var Reasons = []string{
	ReasonEmpty, ReasonSyntax, ReasonDepth, ReasonUTF8, ReasonDuplicateKey, ReasonTooManyFields, ReasonKeyTooLong, ReasonName,
	ReasonType, ReasonNotFinite, ReasonNoReadings, ReasonTime, ReasonSequence, ReasonLabel,
}

// Spec says how one source's payloads are read.
//
// Fields, Labels, TimeField and Sequence name a place in the payload: nested keys and array indices joined either by dots
// (params.temperature:0.tC) or by underscores, as the metric will be called. A reading and a label are always called by the
// joined form.
type Spec struct {
	Format    string   // a row of the table below: json, value
	TimeField string   // where the device's time stands; "" if it sends none
	TimeUnit  string   // s ms us ns rfc3339 auto; "" is auto
	Sequence  string   // where the sequence number stands; "" if there is none
	Fields    []string // readings to take; empty: every number and boolean
	Labels    []string // fields that become labels
	Metric    string   // format value: the metric's name; "" is "value"
}

// Message is one payload as received.
type Message struct {
	Topic    string
	Payload  []byte
	Received int64 // ns since the Unix epoch
	Retain   bool
}

// Batch is what one payload held. The caller may reuse it; a Decoder overwrites it whole.
type Batch struct {
	Samples []Sample // json and value: exactly one
}

// Sample is what a device measured at one time. Its strings outlive the payload; its slices are overwritten by the next
// Decode into the same Batch.
type Sample struct {
	Labels      []telemetry.Label // from the payload, in its order, not sorted
	Time        int64             // ns since the Unix epoch; 0: the payload has none
	Sequence    uint64
	HasSequence bool
	Readings    []telemetry.Reading // finite, names not empty and without duplicates, in the payload's order
	Refused     []Refusal
}

// Refusal is a field that was there but holds no finite number. null is not refused: it is how a device says "nothing".
type Refusal struct {
	Field  string
	Reason string // ReasonType, ReasonNotFinite or ReasonName
	Detail string // for people
}

// Error refuses a whole payload.
type Error struct {
	Reason string // one of Reasons
	Detail string // for people, in one line; may quote a little of the payload
}

func (e *Error) Error() string { return e.Reason + ": " + e.Detail }

// Decoder reads payloads of one source. It is not safe for concurrent use.
type Decoder interface {
	// Decode overwrites out with what m holds. The error is nil or an *Error; with an error out is empty. Nothing in out
	// aliases m.Payload. At least one sample has at least one reading, else the payload is refused.
	Decode(m *Message, out *Batch) error
}

// formats is every format there is: one file and one row each.
var formats = []struct {
	name string
	open func(Spec) (Decoder, error)
}{
	{"json", newJSON},
	{"value", newValue},
}

// Formats lists the names a Spec's Format may have.
func Formats() []string {
	names := make([]string, len(formats))
	for i := range formats {
		names[i] = formats[i].name
	}
	return names
}

// New returns a decoder for spec. The error names the part of spec that is wrong, in the words of the configuration.
func New(spec Spec) (Decoder, error) {
	for i := range formats {
		if formats[i].name == spec.Format {
			return formats[i].open(spec)
		}
	}
	return nil, fmt.Errorf("format: want one of %s, got %q", strings.Join(Formats(), " "), spec.Format)
}

// places refuses names that are empty or stand in two roles.
func (s *Spec) places() error {
	roles := map[string]string{}
	claim := func(role, name string) error {
		if name == "" {
			return fmt.Errorf("%s: a name is empty", role)
		}
		if was := roles[name]; was != "" {
			return fmt.Errorf("%s: %q already stands under %s", role, name, was)
		}
		roles[name] = role
		return nil
	}
	if s.TimeField != "" {
		if err := claim("time", s.TimeField); err != nil {
			return err
		}
	}
	if s.Sequence != "" {
		if err := claim("sequence", s.Sequence); err != nil {
			return err
		}
	}
	for _, name := range s.Labels {
		if err := claim("labels", name); err != nil {
			return err
		}
	}
	for _, name := range s.Fields {
		if err := claim("fields", name); err != nil {
			return err
		}
	}
	if !slices.Contains(units, s.TimeUnit) {
		return fmt.Errorf("time: want unit s, ms, us, ns, rfc3339 or auto, got %q", s.TimeUnit)
	}
	return nil
}

// reset empties b for one payload and keeps its memory.
func (b *Batch) reset() { b.Samples = b.Samples[:0] }

// add returns the next sample, empty, on the memory of an earlier one where there is one.
func (b *Batch) add() *Sample {
	if len(b.Samples) < cap(b.Samples) {
		b.Samples = b.Samples[:len(b.Samples)+1]
	} else {
		b.Samples = append(b.Samples, Sample{})
	}
	s := &b.Samples[len(b.Samples)-1]
	*s = Sample{Labels: s.Labels[:0], Readings: s.Readings[:0], Refused: s.Refused[:0]}
	return s
}

// excerpt quotes the beginning of b for a Detail.
func excerpt(b []byte) string {
	const most = 40
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
