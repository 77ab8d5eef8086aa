package telemetry

import (
	"slices"
	"strings"
)

// Label is one name/value pair.
type Label struct{ Name, Value string }

// Labels are sorted by name, without duplicates and without empty values. They are immutable once built.
type Labels []Label

// NewLabels sorts pairs, keeps the last of equal names and drops empty values. It may reorder pairs.
func NewLabels(pairs ...Label) Labels {
	slices.SortStableFunc(pairs, func(a, b Label) int { return strings.Compare(a.Name, b.Name) })
	out := pairs[:0]
	for i, p := range pairs {
		if i+1 < len(pairs) && pairs[i+1].Name == p.Name {
			continue
		}
		if p.Value != "" {
			out = append(out, p)
		}
	}
	return Labels(out)
}

// LabelsFromMap builds Labels from m.
func LabelsFromMap(m map[string]string) Labels {
	pairs := make([]Label, 0, len(m))
	for k, v := range m {
		pairs = append(pairs, Label{k, v})
	}
	return NewLabels(pairs...)
}

// Get returns the value of name, or "".
func (l Labels) Get(name string) string {
	for i := range l {
		if l[i].Name == name {
			return l[i].Value
		}
	}
	return ""
}

// With returns a new Labels with the pairs of more added; more wins on equal names.
func (l Labels) With(more ...Label) Labels {
	pairs := make([]Label, 0, len(l)+len(more))
	pairs = append(append(pairs, l...), more...)
	return NewLabels(pairs...)
}

// Map returns a copy as a map.
func (l Labels) Map() map[string]string {
	m := make(map[string]string, len(l))
	for _, p := range l {
		m[p.Name] = p.Value
	}
	return m
}

// AppendKey appends an injective encoding of l to b; equal Labels have equal keys.
func (l Labels) AppendKey(b []byte) []byte {
	for _, p := range l {
		b = AppendString(b, p.Name)
		b = AppendString(b, p.Value)
	}
	return b
}

// String renders {name="value", ...} for people.
func (l Labels) String() string {
	var s strings.Builder
	s.WriteByte('{')
	for i, p := range l {
		if i > 0 {
			s.WriteString(", ")
		}
		s.WriteString(p.Name)
		s.WriteString(`="`)
		s.WriteString(p.Value)
		s.WriteByte('"')
	}
	s.WriteByte('}')
	return s.String()
}
