// Package store is the far side of the uplink for tests and benchmarks: a stand-in for an InfluxDB v2 server whose
// failures are switched by the test, and VictoriaMetrics as a child process. The stand-in keeps what the last write of each
// point said and how often it was written; it is not a database.
package store

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Line is one parsed line of line protocol. Values are numbers only: the point schema has no others.
type Line struct {
	Measurement string
	Tags        []Tag // sorted by name
	Fields      map[string]float64
	Time        int64 // ns
}

// Tag is one tag of a line.
type Tag struct{ Name, Value string }

// Tag returns the value of a tag, "" when absent.
func (l *Line) Tag(name string) string {
	for _, t := range l.Tags {
		if t.Name == name {
			return t.Value
		}
	}
	return ""
}

// Key identifies the point: measurement, tags and time. Equal keys overwrite.
func (l *Line) Key() string {
	var b strings.Builder
	b.WriteString(l.Measurement)
	for _, t := range l.Tags {
		fmt.Fprintf(&b, "\x00%s\x01%s", t.Name, t.Value)
	}
	fmt.Fprintf(&b, "\x00\x00%d", l.Time)
	return b.String()
}

// ParseLine parses one line, strictly: it refuses what InfluxDB refuses (missing time or field, empty tag values, duplicate
// or reserved tags) and also what InfluxDB takes but the gateway must never send (a measurement that reads as a comment, a field
// named time, values that are not floats).
func ParseLine(s string) (Line, error) {
	var l Line
	rest := s
	var err error
	if l.Measurement, rest, err = token(rest, ", "); err != nil || l.Measurement == "" || s[0] == '#' {
		return l, fmt.Errorf("measurement: %q", s)
	}
	for strings.HasPrefix(rest, ",") {
		var t Tag
		if t.Name, rest, err = name(rest[1:]); err != nil {
			return l, fmt.Errorf("tag name: %w: %q", err, s)
		}
		if t.Value, rest, err = token(rest[1:], ", "); err != nil {
			return l, fmt.Errorf("tag %s: %w: %q", t.Name, err, s)
		}
		if t.Name == "" || t.Value == "" || t.Name == "time" || t.Name == "_field" || t.Name == "_measurement" {
			return l, fmt.Errorf("tag %q=%q is empty or reserved: %q", t.Name, t.Value, s)
		}
		if l.Tag(t.Name) != "" {
			return l, fmt.Errorf("tag %s twice: %q", t.Name, s)
		}
		l.Tags = append(l.Tags, t)
	}
	slices.SortFunc(l.Tags, func(a, b Tag) int { return strings.Compare(a.Name, b.Name) })
	l.Fields = map[string]float64{}
	for sep := byte(' '); ; sep = ',' {
		if rest == "" || rest[0] != sep {
			break
		}
		var field, value string
		if field, rest, err = name(rest[1:]); err != nil {
			return l, fmt.Errorf("field name: %w: %q", err, s)
		}
		if value, rest, err = token(rest[1:], ", "); err != nil {
			return l, fmt.Errorf("field %s: %w: %q", field, err, s)
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || v-v != 0 || field == "" || field == "time" {
			return l, fmt.Errorf("field %q=%q is no finite float: %q", field, value, s)
		}
		if _, ok := l.Fields[field]; ok {
			return l, fmt.Errorf("field %s twice: %q", field, s)
		}
		l.Fields[field] = v
	}
	if len(l.Fields) == 0 || !strings.HasPrefix(rest, " ") {
		return l, fmt.Errorf("no field or no time: %q", s)
	}
	if l.Time, err = strconv.ParseInt(rest[1:], 10, 64); err != nil {
		return l, fmt.Errorf("time %q: %q", rest[1:], s)
	}
	return l, nil
}

var errEnd = errors.New("line ends early")

// name reads a tag or field name up to its "="; a space or comma in it must be escaped.
func name(s string) (tok, rest string, err error) {
	tok, rest, err = token(s, "=, ")
	if err == nil && rest[0] != '=' {
		err = errors.New("name without a value")
	}
	return tok, rest, err
}

// token reads up to one of the unescaped bytes in stop and undoes the escapes; rest starts with the stop byte.
func token(s, stop string) (tok, rest string, err error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\\' && i+1 < len(s) && strings.IndexByte(`,= \`, s[i+1]) >= 0:
			i++
			b.WriteByte(s[i])
		case strings.IndexByte(stop, c) >= 0:
			return b.String(), s[i:], nil
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errEnd
}
