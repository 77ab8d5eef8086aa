// Package decode turns what a device published into readings. It is pure: bytes and a Spec in, samples or a reason for the
// refusal out; no I/O, no clock, no goroutines. It never panics on a payload and never guesses: what it cannot read exactly
// is refused with a reason, so that the pipeline can quarantine the bytes.
//
// A Decoder belongs to one goroutine. What it remembers between payloads (names it has interned) never changes a result,
// except where it is Stateful.
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
	MaxBatch      = 4096 // readings in one payload of a format that holds several samples
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
	ReasonBirth         = "birth"           // sparkplug: data without the birth that says what it is
)

// Reasons lists every reason, for those who pre-register metrics.
var Reasons = []string{
	ReasonEmpty, ReasonSyntax, ReasonDepth, ReasonUTF8, ReasonDuplicateKey, ReasonTooManyFields, ReasonKeyTooLong, ReasonName,
	ReasonType, ReasonNotFinite, ReasonNoReadings, ReasonTime, ReasonSequence, ReasonLabel, ReasonBirth,
}

// Spec says how one source's payloads are read.
//
// Fields, Labels, TimeField and Sequence name a place in the payload: nested keys and array indices joined either by dots
// (params.temperature:0.tC) or by underscores, as the metric will be called. A reading and a label are always called by the
// joined form.
type Spec struct {
	Format      string   // a row of the table below: json, value
	TimeField   string   // where the device's time stands; "" if it sends none
	TimeUnit    string   // s ms us ns rfc3339 auto; "" is auto
	Sequence    string   // where the sequence number stands; "" if there is none
	Fields      []string // readings to take; empty: every number and boolean
	Labels      []string // fields that become labels
	Metric      string   // format value: the metric's name; "" is "value"
	Zone        *Zone    `json:",omitempty"` // of times that do not say theirs; nil: such a time is refused
	Measurement string   `json:"-"`          // the source's; format influx
}

// Message is one payload as received.
type Message struct {
	Topic    string
	Labels   []telemetry.Label // captured from the topic
	Rest     string            // the levels that # stands for in the source's topic
	Payload  []byte
	Received int64 // ns since the Unix epoch
	Retain   bool
}

// capture returns the label of that name that the topic gave, or "".
func (m *Message) capture(name string) string {
	for i := range m.Labels {
		if m.Labels[i].Name == name {
			return m.Labels[i].Value
		}
	}
	return ""
}

// Batch is what one payload held. The caller may reuse it; a Decoder overwrites it whole. A batch without samples, states and
// commands is a message of a kind that carries no readings, such as a device's answer to a command.
type Batch struct {
	Samples  []Sample // json and value: at most one
	States   []DeviceState
	Commands []Command
}

// Sample is what a device measured at one time. Its strings outlive the payload; its slices are overwritten by the next
// Decode into the same Batch.
type Sample struct {
	Labels      []telemetry.Label // from the payload, in its order, not sorted
	Time        int64             // ns since the Unix epoch; 0: the payload has none
	Sequence    uint64
	HasSequence bool
	Historical  bool                // stored by the device while it was offline: no news for rules
	Readings    []telemetry.Reading // finite, names not empty and without duplicates, in the payload's order
	Refused     []Refusal
	Units       []Unit // what the payload or its format says, for readings here or to come
}

// Unit says what a metric of the sample's device counts, in the words of the device or format: Cel, %RH, kWh.
type Unit struct{ Metric, Unit string }

// DeviceState says that a device came or went.
type DeviceState struct {
	Labels []telemetry.Label // as a Sample's
	Online bool
	Reason string // a word from a fixed vocabulary: StateBirth and the like
	Time   int64  // ns since the Unix epoch; 0: the payload has none
}

// Reasons of a DeviceState.
const (
	StateAvailability = "availability" // the device, its will or its gateway said so
	StateBirth        = "birth"        // sparkplug NBIRTH, DBIRTH; a LoRaWAN join
	StateDeath        = "death"        // sparkplug NDEATH, DDEATH
	StateSleeping     = "sleeping"     // homie: silent on purpose
	StateAlert        = "alert"        // homie: online, and asks for attention
	StateLost         = "lost"         // homie: went without a word
)

// Command is a message to a device that keeps its data readable, such as a request for a sparkplug birth. It is never
// needed for what the payload at hand leads to.
type Command struct {
	Topic   string
	Payload []byte // valid until the next Decode
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
	// Decode overwrites out with what m holds. The error is nil or an *Error; with an error out has no samples and no states.
	// Nothing in out aliases m.Payload.
	Decode(m *Message, out *Batch) error
}

// Stateful is a Decoder whose results depend on payloads before.
type Stateful interface {
	// Snapshot appends what the decoder remembers to b; equal states give equal bytes.
	Snapshot(b []byte) []byte
	// Restore replaces what the decoder remembers by what Snapshot wrote. With an error it remembers nothing.
	Restore(b []byte) error
}

// formats is every format there is: one file and one row each. A preset has topics: those its devices use by default.
var formats = []struct {
	name   string
	open   func(Spec) (Decoder, error)
	topics []string
	local  bool // times are local and do not say their zone
}{
	{name: "json", open: newJSON},
	{name: "value", open: newValue},
	{name: "senml", open: newSenML},
	{name: "cbor", open: newCBOR},
	{name: "influx", open: newInflux},
	{name: "sparkplug", open: newSparkplug, topics: []string{"spBv1.0/#"}},
	{name: "availability", open: newAvailability},
	{name: "tasmota", open: newTasmota, topics: []string{"tele/{device}/+", "stat/{device}/RESULT"}, local: true},
	{name: "shelly", open: newShelly, topics: []string{"{device}/events/rpc", "{device}/status/+", "{device}/online", "shellies/{device}/#"}},
	{name: "zigbee2mqtt", open: newZigbee2MQTT, topics: []string{"zigbee2mqtt/#"}},
	{name: "esphome", open: newESPHome, topics: []string{
		"{device}/sensor/+/state", "{device}/binary_sensor/+/state", "{device}/switch/+/state", "{device}/number/+/state", "{device}/status"}},
	{name: "ttn", open: newTTN, topics: []string{"v3/{application}/devices/{device}/+"}},
	{name: "chirpstack", open: newChirpStack, topics: []string{"application/{application}/device/{device}/event/+"}},
	{name: "homie", open: newHomie, topics: []string{"homie/5/{device}/#", "homie/{device}/#"}},
}

// Topics returns the topics of a preset, as a source's topic is written: {name} captures a level. It is nil for a format
// that needs a topic of its own.
func Topics(format string) []string {
	for i := range formats {
		if formats[i].name == format {
			return formats[i].topics
		}
	}
	return nil
}

// Local tells whether the devices of a format send local times without their zone, so that Spec.Zone should be set.
func Local(format string) bool {
	for i := range formats {
		if formats[i].name == format {
			return formats[i].local
		}
	}
	return false
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
	if spec.Zone != nil {
		if err := spec.Zone.check(); err != nil {
			return nil, err
		}
	}
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
func (b *Batch) reset() {
	b.Samples, b.States, b.Commands = b.Samples[:0], b.States[:0], b.Commands[:0]
}

// add returns the next sample, empty, on the memory of an earlier one where there is one.
func (b *Batch) add() *Sample {
	if len(b.Samples) < cap(b.Samples) {
		b.Samples = b.Samples[:len(b.Samples)+1]
	} else {
		b.Samples = append(b.Samples, Sample{})
	}
	s := &b.Samples[len(b.Samples)-1]
	*s = Sample{Labels: s.Labels[:0], Readings: s.Readings[:0], Refused: s.Refused[:0], Units: s.Units[:0]}
	return s
}

// state adds a state of the device that labels name and returns nil, so that a Decode can end with it.
func (b *Batch) state(online bool, reason string, t int64, labels ...telemetry.Label) error {
	b.States = append(b.States, DeviceState{Labels: labels, Online: online, Reason: reason, Time: t})
	return nil
}

// excerpt quotes the beginning of b for a Detail.
func excerpt(b []byte) string {
	const most = 40
	if len(b) > most {
		return fmt.Sprintf("%q...", b[:most])
	}
	return fmt.Sprintf("%q", b)
}
