package stream

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// Schema is the version of the record format. Keys may be added under the same number; anything else raises it.
const Schema = 1

// Reasons why a point cannot be sent, as they stand in counters.
const (
	reasonMeasurement = "measurement"
	reasonTag         = "tag"
	reasonField       = "field_name"
	reasonValue       = "field_value"
	reasonNoFields    = "no_fields"
	reasonDamaged     = "damaged"
	reasonType        = "record_type"
)

type unwritable struct{ reason, detail string }

func (e *unwritable) Error() string { return e.reason + ": " + e.detail }

// Encoder renders records as JSON, one object each, on one line:
//
//	{"schema":1,"id":"<32 hex digits>","version":"<16 hex digits>-<8 hex digits>",
//	 "measurement":"telemetry","tags":{"device":"d1","gateway":"plant-7","window":"10s"},
//	 "time":<ns>,"end":<ns>,
//	 "fields":{"temperature_count":3,"temperature_mean":21.5},
//	 "aggregates":{"temperature":{"count":3,"sum":64.5,"min":21,"max":22,"first":21,"last":22,"stddev":0.40824829046386296,
//	               "first_time":<ns>,"last_time":<ns>}}}
//
// id stands for the identity: the first 16 bytes of SHA-256 over measurement, tags, window and time as in identity below. version
// grows with every correction of the same identity, compared as text: the LSN of the journal record that caused it and the output's
// number under that record. end and aggregates are absent without a window. Tags are sorted; numbers are the shortest that read back the same.
//
// It allocates nothing for points like those before. The zero value is ready. Not safe for concurrent use.
type Encoder struct {
	point   telemetry.Point
	reader  telemetry.PointReader
	id      [32]byte
	version [25]byte

	key    []byte
	window time.Duration
	label  string // of window
}

// Append appends r as JSON, without a line feed. On an error dst is returned as it was.
func (e *Encoder) Append(dst []byte, r *uplink.Record) ([]byte, error) {
	if err := e.read(r); err != nil {
		return dst, err
	}
	b, err := e.append(dst)
	if err != nil {
		return dst, err
	}
	return b, nil
}

// read takes a record in: its point, id and version.
func (e *Encoder) read(r *uplink.Record) *unwritable {
	if r.Type != uplink.TypePoint {
		return &unwritable{reasonType, fmt.Sprintf("record type %d is not a point", r.Type)}
	}
	if err := e.reader.Read(r.Body, &e.point); err != nil {
		return &unwritable{reasonDamaged, err.Error()}
	}
	e.key = identity(e.key[:0], &e.point)
	sum := sha256.Sum256(e.key)
	hex.Encode(e.id[:], sum[:16])
	var v [12]byte
	binary.BigEndian.PutUint64(v[:], r.Cause.LSN)
	binary.BigEndian.PutUint32(v[8:], r.Cause.Ordinal)
	hex.Encode(e.version[:16], v[:8])
	e.version[16] = '-'
	hex.Encode(e.version[17:], v[8:])
	return nil
}

// identity appends what makes a point this point: measurement, then name and value of every label, each as length (varint) and bytes;
// then the window in ns (varint) and the time in ns (zigzag varint).
func identity(b []byte, p *telemetry.Point) []byte {
	b = telemetry.AppendString(b, p.Measurement)
	b = p.Labels.AppendKey(b)
	b = binary.AppendUvarint(b, uint64(p.Window))
	return binary.AppendVarint(b, p.Time)
}

func (e *Encoder) append(b []byte) ([]byte, *unwritable) {
	p := &e.point
	b = append(b, `{"schema":`...)
	b = strconv.AppendInt(b, Schema, 10)
	b = append(append(b, `,"id":"`...), e.id[:]...)
	b = append(append(b, `","version":"`...), e.version[:]...)
	b = append(b, `","measurement":`...)
	if p.Measurement == "" {
		return nil, &unwritable{reasonMeasurement, "it is empty"}
	}
	var ok bool
	if b, ok = appendString(b, p.Measurement); !ok {
		return nil, notText(reasonMeasurement, p.Measurement)
	}
	b, err := e.appendTags(b)
	if err != nil {
		return nil, err
	}
	b = strconv.AppendInt(append(b, `,"time":`...), p.Time, 10)
	if p.Window != 0 {
		b = strconv.AppendInt(append(b, `,"end":`...), p.Time+int64(p.Window), 10)
	}
	if b, err = appendFields(b, p); err != nil {
		return nil, err
	}
	if p.Window != 0 && len(p.Aggregates) > 0 {
		if b, err = appendAggregates(b, p); err != nil {
			return nil, err
		}
	}
	return append(b, '}'), nil
}

func notText(reason, s string) *unwritable {
	return &unwritable{reason, fmt.Sprintf("invalid UTF-8 in %q", s[:min(len(s), 80)])}
}

// appendTags writes the labels, which are sorted, with the window among them in its place.
func (e *Encoder) appendTags(b []byte) ([]byte, *unwritable) {
	p := &e.point
	b = append(b, `,"tags":{`...)
	window := p.Window == 0
	var ok bool
	for i := range p.Labels {
		l := &p.Labels[i]
		if !window && l.Name >= "window" {
			if l.Name == "window" {
				return nil, &unwritable{reasonTag, `a label "window" besides the window itself`}
			}
			b, window = e.appendWindow(b), true
		}
		if i > 0 && l.Name <= p.Labels[i-1].Name {
			return nil, &unwritable{reasonDamaged, "labels are not sorted"}
		}
		if b, ok = appendString(b, l.Name); !ok {
			return nil, notText(reasonTag, l.Name)
		}
		b = append(b, ':')
		if b, ok = appendString(b, l.Value); !ok {
			return nil, notText(reasonTag, l.Value)
		}
		b = append(b, ',')
	}
	if !window {
		b = e.appendWindow(b)
	}
	return closeObject(b), nil
}

func (e *Encoder) appendWindow(b []byte) []byte {
	if w := e.point.Window; w != e.window {
		e.window, e.label = w, telemetry.WindowLabel(w)
	}
	return append(append(append(b, `"window":"`...), e.label...), `",`...)
}

// appendFields writes what every destination stores: plain fields, and <metric>_<stat> of aggregates.
func appendFields(b []byte, p *telemetry.Point) ([]byte, *unwritable) {
	b = append(b, `,"fields":{`...)
	start := len(b)
	var ok bool
	for i := range p.Fields {
		f := &p.Fields[i]
		if b, ok = appendString(b, f.Name); !ok {
			return nil, notText(reasonField, f.Name)
		}
		if b, ok = appendNumber(append(b, ':'), f.Value); !ok {
			return nil, notFinite(f.Name)
		}
		b = append(b, ',')
	}
	for i := range p.Aggregates {
		m := &p.Aggregates[i]
		for _, s := range p.Stats {
			v, known := m.Stat(s)
			if !known {
				continue
			}
			if b, ok = appendString(b, m.Metric); !ok {
				return nil, notText(reasonField, m.Metric)
			}
			b[len(b)-1] = '_' // instead of the closing quote; a stat that Stat knows needs no escape
			b = append(append(b, s...), `":`...)
			if b, ok = appendNumber(b, v); !ok {
				return nil, notFinite(m.Metric)
			}
			b = append(b, ',')
		}
	}
	if len(b) == start && len(p.Aggregates) == 0 {
		return nil, &unwritable{reasonNoFields, "it has no field"}
	}
	return closeObject(b), nil
}

func notFinite(name string) *unwritable {
	return &unwritable{reasonValue, name + ": not a finite number"}
}

// appendAggregates writes what can be merged without loss, whatever stats the source selects.
func appendAggregates(b []byte, p *telemetry.Point) ([]byte, *unwritable) {
	b = append(b, `,"aggregates":{`...)
	var ok bool
	for i := range p.Aggregates {
		m := &p.Aggregates[i]
		if b, ok = appendString(b, m.Metric); !ok {
			return nil, notText(reasonField, m.Metric)
		}
		b = strconv.AppendUint(append(b, `:{"count":`...), m.Count, 10)
		if m.Count > 0 {
			finite := true
			for _, n := range [...]struct {
				key string
				v   float64
			}{{`,"sum":`, m.Total()}, {`,"min":`, m.Min}, {`,"max":`, m.Max}, {`,"first":`, m.First}, {`,"last":`, m.Last}, {`,"stddev":`, m.Stddev()}} {
				b, ok = appendNumber(append(b, n.key...), n.v)
				finite = finite && ok
			}
			if !finite {
				return nil, notFinite(m.Metric)
			}
			b = strconv.AppendInt(append(b, `,"first_time":`...), m.FirstTime, 10)
			b = strconv.AppendInt(append(b, `,"last_time":`...), m.LastTime, 10)
		}
		b = append(b, `},`...)
	}
	return closeObject(b), nil
}

// closeObject replaces the comma behind the last member.
func closeObject(b []byte) []byte {
	if b[len(b)-1] == ',' {
		b = b[:len(b)-1]
	}
	return append(b, '}')
}

// appendNumber writes the shortest decimal that reads back as v; ok is false where JSON has no number for it.
func appendNumber(b []byte, v float64) (_ []byte, ok bool) {
	if v-v != 0 {
		return b, false
	}
	if n := int64(v); float64(n) == v && n > -1<<53 && n < 1<<53 && n != 0 { // 0 may be -0
		return strconv.AppendInt(b, n, 10), true
	}
	return strconv.AppendFloat(b, v, 'g', -1, 64), true
}

// appendString writes s as a JSON string (RFC 8259, 7); ok is false when it is not UTF-8.
func appendString(b []byte, s string) (_ []byte, ok bool) {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	from, high := 0, false
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' {
			high = high || c >= utf8.RuneSelf
			continue
		}
		b = append(b, s[from:i]...)
		from = i + 1
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
	}
	b = append(append(b, s[from:]...), '"')
	return b, !high || utf8.ValidString(s)
}

// Describe renders a record as JSON, or says why that cannot be done.
func Describe(r uplink.Record) string {
	var e Encoder
	b, err := e.Append(nil, &r)
	if err != nil {
		return "# " + err.Error()
	}
	return string(b)
}
