package decode

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// gather takes the values of one payload's fields in, each by the role of its place, whatever syntax they came in.
type gather struct {
	scanner
	fields fieldTree
	clock  timeReader
	labels stringCache

	// Of the payload at hand.
	s        *Sample
	received int64
	keys     int
	payloads uint64 // counts payloads
	objects  uint64 // counts objects, over all payloads
	texts    [textSlots]string
}

// tooLong stands for text that is not worth remembering: what a layout compares is short.
var tooLong = []byte("...")

// textSlots is how many strings a layout can ask for.
const textSlots = 4

func newGather(spec Spec) (gather, error) {
	if err := spec.places(); err != nil {
		return gather{}, err
	}
	return gather{fields: *newFieldTree(spec), clock: newTimeReader(spec.TimeUnit, spec.Zone)}, nil
}

// begin starts on a payload whose values go into s.
func (d *gather) begin(m *Message, payload []byte, s *Sample) {
	if d.fields.places > maxPlaces {
		d.fields.forget()
	}
	d.scanner.begin(payload)
	d.s, d.received, d.keys = s, m.Received, 0
	d.texts = [textSlots]string{}
	d.payloads++
}

// noReadings refuses a payload without readings, for the reason its first field was refused.
func noReadings(refused []Refusal) *Error {
	if len(refused) == 0 {
		return &Error{ReasonNoReadings, "no number or boolean to read"}
	}
	return &Error{refused[0].Reason, excerpt([]byte(refused[0].Field)) + ": " + refused[0].Detail}
}

// use marks p's name as taken in this payload.
func (d *gather) use(p *place) bool {
	if p.name.payload == d.payloads {
		d.fail(ReasonDuplicateKey, "two fields join to the name %s", excerpt([]byte(p.name.text)))
		return false
	}
	p.name.payload = d.payloads
	return true
}

func (d *gather) refuse(p *place, reason, detail string) {
	d.s.Refused = append(d.s.Refused, Refusal{Field: p.name.text, Reason: reason, Detail: detail})
}

// took refuses what cannot be read at p, where something is read; what is "an object" and the like. -1 ends the payload.
func (d *gather) took(p *place, what string) int {
	switch p.role {
	case roleReading:
		if len(d.fields.spec.Fields) == 0 {
			return 0
		}
		if !d.use(p) {
			return -1
		}
		d.refuse(p, ReasonType, what+", not a number")
	case roleTime:
		return d.fail(ReasonTime, "%s: %s, not a time", p.dotted, what)
	case roleSequence:
		return d.fail(ReasonSequence, "%s: %s, not a number", p.dotted, what)
	case roleLabel:
		return d.fail(ReasonLabel, "%s: %s, not a string", p.dotted, what)
	case roleText: // that something stands there is all a layout learns
		d.texts[p.slot] = what
	}
	return 0
}

func (d *gather) takeString(p *place, text []byte) int {
	switch p.role {
	case roleNone:
		return 0
	case roleTime:
		if !d.clock.text {
			return d.took(p, "the string "+excerpt(text))
		}
		ns, why := d.clock.fromText(text, d.received)
		if why != "" {
			return d.fail(ReasonTime, "%s: %s: %s", p.dotted, excerpt(text), why)
		}
		if !d.use(p) {
			return -1
		}
		d.setTime(ns)
		return 0
	case roleLabel:
		return d.takeLabel(p, text)
	case roleReading:
		return d.takeWord(p, text)
	case roleText:
		if len(text) > MaxLabelBytes {
			text = tooLong
		}
		d.texts[p.slot] = d.labels.intern(text)
		return 0
	case roleUnit:
		d.takeUnit(p, text)
		return 0
	}
	return d.took(p, "the string "+excerpt(text))
}

// takeWord reads a number or a switch position that stands in quotes, where the configuration names the field or the format
// says that it is one. Elsewhere text is no reading: serial numbers look like numbers too.
func (d *gather) takeWord(p *place, text []byte) int {
	if len(d.fields.spec.Fields) == 0 && !p.words {
		return 0
	}
	if v, ok := valueWord(bytes.TrimSpace(text)); ok {
		return d.takeReading(p, v, 0)
	}
	if p.words {
		return 0
	}
	if _, err := parseValue(text); err != nil && err.Reason == ReasonNotFinite {
		if !d.use(p) {
			return -1
		}
		d.refuse(p, ReasonNotFinite, err.Detail)
		return 0
	}
	return d.took(p, "the string "+excerpt(text))
}

// takeUnit keeps a unit for the metric that p is named after.
func (d *gather) takeUnit(p *place, text []byte) {
	if unit := d.unitWord(text); unit != "" && p.name.fault == "" {
		d.s.Units = append(d.s.Units, Unit{p.name.text, unit})
	}
}

// maxUnitBytes bounds a unit; no real one is near.
const maxUnitBytes = 32

// unitWord interns a unit as a device spells it, "" where it cannot be one.
func (d *gather) unitWord(text []byte) string {
	if len(text) == 0 || len(text) > maxUnitBytes || !utf8.Valid(text) || hasControl(text) {
		return ""
	}
	return d.labels.intern(text)
}

func (d *gather) takeLabel(p *place, text []byte) int {
	switch {
	case len(text) == 0:
		return d.fail(ReasonLabel, "%s: the value is empty", p.dotted)
	case len(text) > MaxLabelBytes:
		return d.fail(ReasonLabel, "%s: the value is longer than %d bytes", p.dotted, MaxLabelBytes)
	case hasControl(text):
		return d.fail(ReasonLabel, "%s: %s holds control characters", p.dotted, excerpt(text))
	case p.name.fault != "":
		return d.fail(ReasonLabel, "%q: %s", p.dotted, p.name.fault)
	case !d.use(p):
		return -1
	}
	d.s.Labels = append(d.s.Labels, d.labels.labelValue(p.name, text))
	return 0
}

// takeBool returns end, where the value ended, unless the payload is refused; so does takeNumber.
func (d *gather) takeBool(p *place, v bool, end int) int {
	switch p.role {
	case roleNone, roleUnit:
		return end
	case roleText:
		d.texts[p.slot] = strconv.FormatBool(v)
		return end
	case roleReading:
		f := 0.0
		if v {
			f = 1
		}
		return d.takeReading(p, f, end)
	case roleLabel:
		d.scratch = strconv.AppendBool(d.scratch[:0], v)
		if d.takeLabel(p, d.scratch) < 0 {
			return -1
		}
		return end
	}
	return d.took(p, "a boolean")
}

// takeNumber takes n, which text writes.
func (d *gather) takeNumber(p *place, n number, text []byte, end int) int {
	switch p.role {
	case roleReading:
		f, ok := n.float(text)
		if !ok {
			if !d.use(p) {
				return -1
			}
			d.refuse(p, ReasonNotFinite, excerpt(text)+" is beyond the range of float64")
			return end
		}
		return d.takeReading(p, f, end)
	case roleTime:
		ns, ok := d.clock.fromNumber(n)
		switch {
		case !d.clock.number:
			return d.took(p, "the number "+excerpt(text))
		case !ok:
			return d.fail(ReasonTime, "%s: %s is outside the years 1678 to 2262", p.dotted, excerpt(text))
		case !d.use(p):
			return -1
		}
		d.setTime(ns)
	case roleSequence:
		seq, ok := n.integer()
		if !ok {
			return d.fail(ReasonSequence, "%s: %s is no integer from 0 to 2^64-1", p.dotted, excerpt(text))
		}
		if !d.use(p) {
			return -1
		}
		d.s.Sequence, d.s.HasSequence = seq, true
	case roleLabel:
		if d.takeLabel(p, text) < 0 {
			return -1
		}
	}
	return end
}

// clockSet is when a clock is taken for set, in the year 2001: before, a device with a layout of its own counts from its start.
const clockSet = 1_000_000_000 * 1_000_000_000

func (d *gather) setTime(ns int64) {
	if d.fields.layout == nil || ns >= clockSet {
		d.s.Time = ns
	}
}

func (d *gather) takeReading(p *place, v float64, end int) int {
	if !d.use(p) {
		return -1
	}
	if p.name.fault != "" {
		d.refuse(p, ReasonName, p.name.fault)
		return end
	}
	if len(d.s.Readings) == MaxReadings {
		return d.fail(ReasonTooManyFields, "more than %d readings", MaxReadings)
	}
	d.s.Readings = append(d.s.Readings, telemetry.Reading{Metric: p.name.text, Value: v})
	if p.unit != "" {
		d.s.Units = append(d.s.Units, Unit{p.name.text, p.unit})
	}
	return end
}
