package influx

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// Reasons why a point cannot be written as line protocol, as they stand in counters.
const (
	reasonMeasurement = "measurement"
	reasonTag         = "tag"
	reasonField       = "field_name"
	reasonValue       = "field_value"
	reasonNoFields    = "no_fields"
	reasonTime        = "time_range"
	reasonTooLong     = "too_long"
	reasonDamaged     = "damaged"
	reasonType        = "record_type"
	reasonConflict    = "type_conflict"
)

// unwritable is the error of an Encoder: the point would be refused, silently lost, or read back as something else.
type unwritable struct{ reason, detail string }

func (e *unwritable) Error() string { return e.reason + ": " + e.detail }

const (
	// InfluxDB keeps a series and its field name in one key: 65,535 bytes with a separator of 4.
	maxKey = 65535 - 4
	// The storage engine reserves the outermost nanoseconds.
	minTime = math.MinInt64 + 2
	maxTime = math.MaxInt64 - 1
)

// Encoder writes points as line protocol, one line each, without allocating: sorted tags, numbers always as floats, the time always in
// nanoseconds. The zero value is ready. Not safe for concurrent use.
type Encoder struct {
	window time.Duration
	label  string // of window
	typed  *typed // nil: all fields are floats
}

// Append appends p and a line feed to dst. On an error, which says why the point cannot be stored faithfully, dst is returned
// as it was.
func (e *Encoder) Append(dst []byte, p *telemetry.Point) ([]byte, error) {
	b, err := e.append(dst, p)
	if err != nil {
		return dst, err
	}
	return b, nil
}

func (e *Encoder) append(b []byte, p *telemetry.Point) ([]byte, error) {
	start := len(b)
	if p.Time < minTime || p.Time > maxTime {
		return nil, &unwritable{reasonTime, strconv.FormatInt(p.Time, 10)}
	}
	switch {
	case p.Measurement == "":
		return nil, &unwritable{reasonMeasurement, "it is empty"}
	case p.Measurement[0] == '#':
		return nil, &unwritable{reasonMeasurement, "a line that starts with # is a comment"}
	}
	b, err := appendName(b, p.Measurement, escMeasurement)
	if err != nil {
		return nil, &unwritable{reasonMeasurement, err.Error()}
	}
	if b, err = e.appendTags(b, p); err != nil {
		return nil, &unwritable{reasonTag, err.Error()}
	}
	series := len(b) - start
	b = append(b, ' ')
	fields := len(b)
	for i := range p.Fields {
		f := &p.Fields[i]
		if f.Name == "time" {
			return nil, &unwritable{reasonField, `"time" is reserved`}
		}
		at := len(b)
		if b, err = appendName(b, f.Name, escField); err != nil {
			return nil, &unwritable{reasonField, err.Error()}
		}
		if series+len(b)-at > maxKey {
			return nil, tooLong(series + len(b) - at)
		}
		if b, err = e.value(b, f.Name, "", f.Value); err != nil {
			return nil, &unwritable{reasonValue, f.Name + ": " + err.Error()}
		}
	}
	for i := range p.Aggregates {
		m := &p.Aggregates[i]
		from := len(b)
		if b, err = appendName(b, m.Metric, escField); err != nil {
			return nil, &unwritable{reasonField, err.Error()}
		}
		to := len(b)
		if series+to-from+16 > maxKey { // 16: more than _ and any stat
			return nil, tooLong(series + to - from + 16)
		}
		first := true
		for _, s := range p.Stats {
			v, ok := m.Stat(s)
			if !ok {
				continue
			}
			if !first {
				b = append(b, b[from:to]...)
			}
			first = false
			b = append(b, '_')
			b = append(b, s...) // one that Stat knows, so harmless
			if b, err = e.value(b, m.Metric, s, v); err != nil {
				return nil, &unwritable{reasonValue, m.Metric + ": " + err.Error()}
			}
		}
		if first { // no stat of it is wanted
			b = b[:from]
		}
	}
	if len(b) == fields {
		return nil, &unwritable{reasonNoFields, "it has no field"}
	}
	b[len(b)-1] = ' ' // the comma behind the last field
	b = strconv.AppendInt(b, p.Time, 10)
	return append(b, '\n'), nil
}

func tooLong(n int) error {
	return &unwritable{reasonTooLong, strconv.Itoa(n) + " bytes of measurement, tags and field name"}
}

// appendTags writes the labels, which are sorted, with the window among them in its place.
func (e *Encoder) appendTags(b []byte, p *telemetry.Point) ([]byte, error) {
	window := p.Window == 0
	var err error
	for i := range p.Labels {
		l := &p.Labels[i]
		if !window && l.Name >= "window" {
			if l.Name == "window" {
				return nil, errors.New(`a label "window" besides the window itself`)
			}
			b, window = e.appendWindow(b, p.Window), true
		}
		if i > 0 && l.Name <= p.Labels[i-1].Name {
			return nil, errors.New("labels are not sorted")
		}
		if l.Value == "" {
			continue // InfluxDB's way to say that a tag is absent
		}
		if l.Name == "time" || l.Name == "_field" || l.Name == "_measurement" {
			return nil, fmt.Errorf("%q is reserved", l.Name)
		}
		b = append(b, ',')
		if b, err = appendName(b, l.Name, escTag); err != nil {
			return nil, err
		}
		b = append(b, '=')
		if b, err = appendName(b, l.Value, escTag); err != nil {
			return nil, err
		}
	}
	if !window {
		b = e.appendWindow(b, p.Window)
	}
	return b, nil
}

func (e *Encoder) appendWindow(b []byte, w time.Duration) []byte {
	if w != e.window {
		e.window, e.label = w, telemetry.WindowLabel(w)
	}
	b = append(b, ",window="...)
	return append(b, e.label...)
}

// Classes of bytes in names and tag values.
const (
	classComma byte = 1 << iota
	classSpace
	classEqual
	classBackslash
	classQuote
	classControl
	classHigh
)

// What is escaped by a backslash in each place.
const (
	escMeasurement = classComma | classSpace
	escTag         = classComma | classSpace | classEqual
	escField       = classComma | classSpace | classEqual | classQuote // a quote is refused, see appendName
)

var classes = func() (t [256]byte) {
	for c := range t {
		switch {
		case c == ',':
			t[c] = classComma
		case c == ' ':
			t[c] = classSpace
		case c == '=':
			t[c] = classEqual
		case c == '\\':
			t[c] = classBackslash
		case c == '"':
			t[c] = classQuote
		case c < 0x20 || c == 0x7f:
			t[c] = classControl
		case c >= 0x80:
			t[c] = classHigh
		}
	}
	return t
}()

// appendName writes a measurement, tag key, tag value or field key.
//
// A backslash stands for itself unless something follows that could be escaped; there, and at the end, servers read it in
// different ways, so such names are refused. So are quotes in field keys, which VictoriaMetrics takes for the beginning of a string.
func appendName(b []byte, s string, escape byte) ([]byte, error) {
	if s == "" {
		return nil, errors.New("a name is empty")
	}
	var seen byte
	for i := 0; i < len(s); i++ {
		seen |= classes[s[i]]
	}
	if seen&(escape|classControl|classHigh|classBackslash) == 0 {
		return append(b, s...), nil
	}
	switch {
	case seen&classControl != 0:
		return nil, fmt.Errorf("a line feed or other control character in %q", clip(s))
	case seen&classHigh != 0 && !utf8.ValidString(s):
		return nil, fmt.Errorf("invalid UTF-8 in %q", clip(s))
	case seen&classQuote&escape != 0:
		return nil, fmt.Errorf("a quote in %q", clip(s))
	}
	for i := 0; i < len(s); i++ {
		c := classes[s[i]]
		switch {
		case c == classBackslash && (i+1 == len(s) || classes[s[i+1]]&escTag != 0):
			return nil, fmt.Errorf("a backslash before a comma, a space, an equals sign or the end in %q", clip(s))
		case c&escape != 0:
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b, nil
}

func clip(s string) string { return strings.ToValidUTF8(s[:min(len(s), 80)], "\uFFFD") }

// appendValue writes =value and a comma.
func appendValue(b []byte, v float64) ([]byte, error) {
	if v-v != 0 {
		return nil, errors.New("not a finite number")
	}
	b = append(b, '=')
	b = appendFloat(b, v)
	return append(b, ','), nil
}

// appendFloat writes the shortest decimal that reads back as v. Most sensor values have few decimals: those are found by a division,
// whose correct rounding (IEEE 754) makes it the inverse of reading the decimal, at a fifth of strconv's cost.
func appendFloat(b []byte, v float64) []byte {
	const scale = 1e4
	m := v * scale
	if m > -1e15 && m < 1e15 {
		n := int64(m + math.Copysign(0.5, m))
		if float64(n)/scale == v {
			return appendDecimal(b, n)
		}
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64)
}

// appendDecimal writes n / 10,000 without trailing zeros.
func appendDecimal(b []byte, n int64) []byte {
	if n < 0 {
		b = append(b, '-')
		n = -n
	}
	b = strconv.AppendInt(b, n/1e4, 10)
	frac := n % 1e4
	if frac == 0 {
		return b
	}
	d := [5]byte{'.', byte('0' + frac/1000), byte('0' + frac/100%10), byte('0' + frac/10%10), byte('0' + frac%10)}
	end := 5
	for d[end-1] == '0' {
		end--
	}
	return append(b, d[:end]...)
}
