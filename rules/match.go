package rules

import (
	"fmt"
	"slices"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// MeasurementLabel is the match key that stands for the measurement of a device instead of one of its labels.
const MeasurementLabel = "measurement"

// Matchers select devices by their labels: every pattern must match, and a label the device lacks matches nothing. In a pattern
// * stands for any characters, ? for one, and \ takes the next character literally. No matchers match every device.
type Matchers []matcher

type matcher struct {
	label   string
	pattern string
	literal bool // pattern is plain text
}

// maxPattern bounds a pattern; matching costs at most the product of the lengths of pattern and value.
const maxPattern = 256 // bytes

// ParseMatchers builds Matchers from label names and patterns. The error names the first bad pattern by label name.
func ParseMatchers(patterns map[string]string) (Matchers, error) {
	names := make([]string, 0, len(patterns))
	for name := range patterns {
		names = append(names, name)
	}
	slices.Sort(names)
	m := make(Matchers, 0, len(names))
	for _, name := range names {
		one, err := newMatcher(name, patterns[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		m = append(m, one)
	}
	return m, nil
}

func newMatcher(label, pattern string) (matcher, error) {
	switch {
	case pattern == "":
		return matcher{}, fmt.Errorf("want a pattern such as \"freezer-*\", got empty text")
	case len(pattern) > maxPattern:
		return matcher{}, fmt.Errorf("the pattern is longer than %d bytes", maxPattern)
	case !utf8.ValidString(pattern):
		return matcher{}, fmt.Errorf("the pattern is not valid UTF-8")
	}
	literal := true
	for i := 0; i < len(pattern); i++ {
		switch pattern[i] {
		case '*', '?':
			literal = false
		case '\\':
			literal = false
			if i++; i == len(pattern) {
				return matcher{}, fmt.Errorf(`bad pattern %s: nothing follows the last \`, quote(pattern))
			}
		case '[', ']', '{', '}':
			return matcher{}, fmt.Errorf(`bad pattern %s: only * and ? are special; write \%c for the character itself`, quote(pattern), pattern[i])
		}
	}
	return matcher{label: label, pattern: pattern, literal: literal}, nil
}

// Match tells whether labels satisfy every matcher.
func (m Matchers) Match(labels telemetry.Labels) bool { return m.match("", labels) }

func (m Matchers) match(measurement string, labels telemetry.Labels) bool {
	for i := range m {
		v := labels.Get(m[i].label)
		if m[i].label == MeasurementLabel && measurement != "" {
			v = measurement
		}
		if v == "" || !m[i].matches(v) {
			return false
		}
	}
	return true
}

func (m *matcher) matches(v string) bool {
	if m.literal {
		return v == m.pattern
	}
	return glob(m.pattern, v)
}

// Patterns are the label names and patterns, in the order of the names.
func (m Matchers) Patterns() telemetry.Labels {
	l := make(telemetry.Labels, len(m))
	for i := range m {
		l[i] = telemetry.Label{Name: m[i].label, Value: m[i].pattern}
	}
	return l
}

// String renders the matchers for people.
func (m Matchers) String() string { return m.Patterns().String() }

// glob matches without recursion: on a mismatch only the last * is tried again, one character further, which is enough because
// an earlier * can always take less.
func glob(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		if p < len(pattern) {
			switch c := pattern[p]; c {
			case '*':
				star, mark = p, i
				p++
				continue
			case '?':
				_, size := utf8.DecodeRuneInString(s[i:])
				p, i = p+1, i+size
				continue
			default:
				next := p + 1
				if c == '\\' {
					c, next = pattern[p+1], p+2
				}
				if s[i] == c {
					p, i = next, i+1
					continue
				}
			}
		}
		if star < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(s[mark:])
		mark += size
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}
