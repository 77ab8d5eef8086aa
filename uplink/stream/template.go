package stream

import (
	"errors"
	"fmt"
	"strings"

	"sluice/gateway/telemetry"
)

// Template is an address with labels in it, such as edge/{site}/{device}. {measurement} and {window} stand for the point's; every
// other name for the label, which may be absent.
type Template struct {
	parts []part
	clean Clean
}

type part struct{ literal, label string } // one of them

// Clean appends a label's value in a form that is one level of an address and nothing else. It is never given an empty value.
type Clean func(b []byte, value string) []byte

// absent stands for a label that a point does not have.
const absent = "_"

// maxLevel bounds what one label puts into an address, in bytes: NATS takes a line of 4 KiB.
const maxLevel = 128

// ParseTemplate reads s. clean is applied to every value that is put in.
func ParseTemplate(s string, clean Clean) (*Template, error) {
	if s == "" {
		return nil, errors.New("it is empty")
	}
	t := &Template{clean: clean}
	for rest := s; rest != ""; {
		open := strings.IndexAny(rest, "{}")
		if open < 0 {
			t.parts = append(t.parts, part{literal: rest})
			break
		}
		if rest[open] == '}' {
			return nil, fmt.Errorf("%q: a } without its {", s)
		}
		if open > 0 {
			t.parts = append(t.parts, part{literal: rest[:open]})
		}
		name, after, ok := strings.Cut(rest[open+1:], "}")
		if !ok || name == "" || strings.Contains(name, "{") {
			return nil, fmt.Errorf(`%q: want {label}`, s)
		}
		t.parts = append(t.parts, part{label: name})
		rest = after
	}
	return t, nil
}

// Append appends the address of p.
func (t *Template) Append(b []byte, p *telemetry.Point) []byte {
	for i := range t.parts {
		if t.parts[i].label == "" {
			b = append(b, t.parts[i].literal...)
			continue
		}
		v := value(t.parts[i].label, p)
		if v == "" {
			b = append(b, absent...)
			continue
		}
		b = t.clean(b, shorten(v))
	}
	return b
}

// Sample is an address with x for every label, to hold it against a destination's rules.
func (t *Template) Sample() string {
	var b strings.Builder
	for i := range t.parts {
		b.WriteString(t.parts[i].literal)
		if t.parts[i].label != "" {
			b.WriteByte('x')
		}
	}
	return b.String()
}

func value(label string, p *telemetry.Point) string {
	switch label {
	case "measurement":
		return p.Measurement
	case "window":
		if p.Window == 0 {
			return ""
		}
		return telemetry.WindowLabel(p.Window)
	}
	return p.Labels.Get(label)
}

// shorten cuts at a character's beginning. Two long values may then share an address; the record tells them apart.
func shorten(s string) string {
	if len(s) <= maxLevel {
		return s
	}
	n := maxLevel
	for n > maxLevel-4 && s[n]&0xC0 == 0x80 {
		n--
	}
	return s[:n]
}
