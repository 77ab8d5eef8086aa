package decode

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// influxDecoder reads InfluxDB line protocol, strictly: a line that InfluxDB would refuse refuses the payload, with the number
// of the line. Each line is a sample; its fields are the readings (booleans are 0 and 1, strings are not read), its tags and its
// measurement, under the name measurement, are labels. The measurement is left out where it is the source's own. Times count ns, or
// what Spec.TimeUnit says.
type influxDecoder struct {
	scanner
	spec   Spec
	clock  timeReader
	labels stringCache
	fault  map[string]string // of names seen
	line   int
	read   int
}

func newInflux(spec Spec) (Decoder, error) {
	switch {
	case spec.TimeField != "":
		return nil, errors.New("time: format influx has its own; only its unit can be set")
	case spec.Sequence != "":
		return nil, errors.New("sequence: format influx carries none")
	case len(spec.Labels) > 0:
		return nil, errors.New("labels: every tag of a line is a label")
	case spec.TimeUnit == "rfc3339":
		return nil, errors.New("time: line protocol has numbers: want unit s, ms, us or ns")
	}
	if err := spec.places(); err != nil {
		return nil, err
	}
	unit := spec.TimeUnit
	if unit == "" || unit == "auto" {
		unit = "ns"
	}
	return &influxDecoder{spec: spec, clock: newTimeReader(unit, nil), fault: map[string]string{}}, nil
}

func (d *influxDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	d.begin(m.Payload)
	d.line, d.read = 0, 0
	d.lines(out)
	d.end()
	if d.err != nil {
		out.reset()
		return d.err
	}
	return nil
}

func (d *influxDecoder) lines(out *Batch) {
	if !utf8.Valid(d.b) {
		d.fail(ReasonUTF8, "the payload is not valid UTF-8")
		return
	}
	lines := 0
	for i := 0; i < len(d.b); {
		d.line++
		i = d.blanks(i)
		switch {
		case i == len(d.b):
		case d.b[i] == '\n', d.b[i] == '\r':
			i++
		case d.b[i] == '#':
			if end := bytes.IndexByte(d.b[i:], '\n'); end >= 0 {
				i += end + 1
			} else {
				i = len(d.b)
			}
		default:
			lines++
			if i = d.point(i, out.add()); i < 0 {
				return
			}
			if s := &out.Samples[len(out.Samples)-1]; len(s.Readings) == 0 && len(s.Refused) == 0 {
				out.Samples = out.Samples[:len(out.Samples)-1] // strings only
			}
		}
	}
	if lines == 0 {
		d.fail(ReasonEmpty, "the payload has no line")
	}
}

func (d *influxDecoder) blanks(i int) int {
	for i < len(d.b) && (d.b[i] == ' ' || d.b[i] == '\t') {
		i++
	}
	return i
}

func (d *influxDecoder) bad(reason, format string, args ...any) int {
	return d.fail(reason, "line %d: "+format, append([]any{d.line}, args...)...)
}

// point reads the line that starts at i into s and returns what follows it.
func (d *influxDecoder) point(i int, s *Sample) int {
	measurement, i := d.token(i, ", ")
	switch {
	case i < 0:
		return i
	case len(measurement) == 0:
		return d.bad(ReasonSyntax, "the measurement is empty")
	}
	if string(measurement) != d.spec.Measurement && !d.label(s, "measurement", measurement) {
		return -1
	}
	for i < len(d.b) && d.b[i] == ',' {
		if i = d.tag(i+1, s); i < 0 {
			return i
		}
	}
	if i == len(d.b) || d.b[i] != ' ' {
		return d.bad(ReasonSyntax, "no fields")
	}
	i = d.blanks(i)
	for {
		if i = d.readField(i, s); i < 0 {
			return i
		}
		if i == len(d.b) || d.b[i] != ',' {
			break
		}
		i++
	}
	if i < len(d.b) && d.b[i] == ' ' {
		i = d.blanks(i)
		if i = d.time(i, s); i < 0 {
			return i
		}
	}
	if i = d.blanks(i); i < len(d.b) && d.b[i] == '\r' {
		i++
	}
	switch {
	case i == len(d.b):
		return i
	case d.b[i] != '\n':
		return d.bad(ReasonSyntax, "want the line's end, got %s", excerpt(d.b[i:]))
	}
	return i + 1
}

// token reads up to one of the bytes in stops, which it returns unread. A backslash before a comma, an equals sign or a space
// takes that byte as it is; any other backslash is itself. The text aliases the payload, or scratch where it had escapes.
func (d *influxDecoder) token(i int, stops string) (text []byte, end int) {
	start, escaped := i, false
	for ; i < len(d.b); i++ {
		c := d.b[i]
		switch {
		case c == '\\' && i+1 < len(d.b) && (d.b[i+1] == ',' || d.b[i+1] == '=' || d.b[i+1] == ' '):
			if !escaped {
				d.scratch = append(d.scratch[:0], d.b[start:i]...)
				escaped = true
			}
			i++
			d.scratch = append(d.scratch, d.b[i])
			continue
		case c == '\n' || c == '\r' || bytes.IndexByte([]byte(stops), c) >= 0:
			if escaped {
				return d.scratch, i
			}
			return d.b[start:i], i
		}
		if escaped {
			d.scratch = append(d.scratch, c)
		}
	}
	if escaped {
		return d.scratch, i
	}
	return d.b[start:i], i
}

func (d *influxDecoder) tag(i int, s *Sample) int {
	key, i := d.token(i, "=, ")
	if len(key) == 0 || i == len(d.b) || d.b[i] != '=' {
		return d.bad(ReasonSyntax, "a tag needs a name, = and a value")
	}
	name := d.name(key)
	if name == "" {
		return -1
	}
	value, i := d.token(i+1, ", =")
	if i < len(d.b) && d.b[i] == '=' {
		return d.bad(ReasonSyntax, "the tag %s has two =", excerpt([]byte(name)))
	}
	if !d.label(s, name, value) {
		return -1
	}
	return i
}

func (d *influxDecoder) label(s *Sample, name string, value []byte) bool {
	why := d.nameFault(name)
	switch {
	case len(value) == 0:
		why = "the value is empty"
	case len(value) > MaxLabelBytes:
		why = "the value is longer than " + strconv.Itoa(MaxLabelBytes) + " bytes"
	case hasControl(value):
		why = "the value holds control characters"
	}
	if why != "" {
		return d.bad(ReasonLabel, "%s: %s", excerpt([]byte(name)), why) > 0
	}
	for i := range s.Labels {
		if s.Labels[i].Name == name {
			return d.bad(ReasonDuplicateKey, "the tag %s stands twice", excerpt([]byte(name))) > 0
		}
	}
	s.Labels = append(s.Labels, telemetry.Label{Name: name, Value: d.labels.intern(value)})
	return true
}

// name interns a tag's or a field's name, "" with the fault kept where it is too long.
func (d *influxDecoder) name(key []byte) string {
	if len(key) > MaxNameBytes {
		d.bad(ReasonKeyTooLong, "the name %s is longer than %d bytes", excerpt(key), MaxNameBytes)
		return ""
	}
	return d.labels.intern(key)
}

func (d *influxDecoder) nameFault(name string) string {
	why, known := d.fault[name]
	if known {
		return why
	}
	why = nameFault(name)
	if len(d.fault) >= maxPlaces {
		clear(d.fault)
	}
	d.fault[name] = why
	return why
}

func (d *influxDecoder) readField(i int, s *Sample) int {
	key, i := d.token(i, "=, ")
	if len(key) == 0 || i == len(d.b) || d.b[i] != '=' {
		return d.bad(ReasonSyntax, "a field needs a name, = and a value")
	}
	name := d.name(key)
	if name == "" {
		return -1
	}
	if why := d.nameFault(name); why != "" {
		return d.bad(ReasonName, "%s: %s", excerpt([]byte(name)), why)
	}
	if i++; i < len(d.b) && d.b[i] == '"' {
		return d.text(i + 1)
	}
	start := i
	for i < len(d.b) && d.b[i] != ',' && d.b[i] != ' ' && d.b[i] != '\n' && d.b[i] != '\r' {
		i++
	}
	v, why, reason := influxValue(d.b[start:i])
	if reason == ReasonSyntax {
		return d.bad(ReasonSyntax, "%s: %s %s", excerpt([]byte(name)), excerpt(d.b[start:i]), why)
	}
	if !d.spec.wants(name) {
		return i
	}
	if s.has(name) {
		return d.bad(ReasonDuplicateKey, "the field %s stands twice", excerpt([]byte(name)))
	}
	if d.read++; d.read > MaxBatch || len(s.Readings) == MaxReadings {
		return d.bad(ReasonTooManyFields, "more than %d readings in it or %d in all", MaxReadings, MaxBatch)
	}
	if reason != "" {
		s.Refused = append(s.Refused, Refusal{name, reason, excerpt(d.b[start:i]) + " " + why})
		return i
	}
	s.Readings = append(s.Readings, telemetry.Reading{Metric: name, Value: v})
	return i
}

// text passes over a string field, whose quote ended before i.
func (d *influxDecoder) text(i int) int {
	first := d.line
	for ; i < len(d.b); i++ {
		switch d.b[i] {
		case '\\':
			i++
		case '\n':
			d.line++ // a string may hold line breaks
		case '"':
			return i + 1
		}
	}
	d.line = first
	return d.bad(ReasonSyntax, "a string without its closing quote")
}

// influxValue reads a field's value but strings. reason is ReasonSyntax where it is none, ReasonNotFinite where float64 cannot hold
// it.
func influxValue(text []byte) (v float64, why, reason string) {
	switch string(text) {
	case "t", "T", "true", "True", "TRUE":
		return 1, "", ""
	case "f", "F", "false", "False", "FALSE":
		return 0, "", ""
	}
	if isNotFinite(text) {
		return 0, "is not a finite number", ReasonNotFinite
	}
	n, end := scanNumber(text, true)
	if end > 0 && end == len(text) {
		if v, ok := n.float(text); ok {
			return v, "", ""
		}
		return 0, "is beyond the range of float64", ReasonNotFinite
	}
	if end > 0 && end == len(text)-1 && (text[end] == 'i' || text[end] == 'u') {
		signed := text[end] == 'i'
		fits := n.whole && n.exp == 0 && (signed && (n.mant < 1<<63 || n.neg && n.mant == 1<<63) || !signed && !n.neg)
		if v, ok := n.float(text[:end]); ok && fits && bytes.IndexByte(text, '.') < 0 {
			return v, "", ""
		}
	}
	return 0, "is no number, boolean or string", ReasonSyntax
}

func (d *influxDecoder) time(i int, s *Sample) int {
	n, length := scanNumber(d.b[i:], false)
	if length < 0 {
		if i == len(d.b) || d.b[i] == '\n' || d.b[i] == '\r' {
			return i // blanks at the line's end
		}
		return d.bad(ReasonSyntax, "want a time, got %s", excerpt(d.b[i:]))
	}
	_, exact, _ := n.scaled(0)
	ns, ok := d.clock.fromNumber(n)
	if !exact || n.exp != 0 || !ok {
		return d.bad(ReasonTime, "%s is no time in whole units within the years 1678 to 2262", excerpt(d.b[i:i+length]))
	}
	s.Time = ns
	return i + length
}
