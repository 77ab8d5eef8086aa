package decode

import (
	"slices"
	"strings"

	"sluice/gateway/telemetry"
)

// role is what a place in the payload is read as.
type role uint8

const (
	roleNone role = iota
	roleReading
	roleTime
	roleSequence
	roleLabel
	roleText // kept in the slot that a layout names
	roleUnit // the unit of the metric that the place is named after
)

// layout says what a preset's places are; path is their keys and indices joined by dots. nil: the spec says it.
type layout func(path string) placement

// placement is what a layout says of one place.
type placement struct {
	role  role
	name  string // of the reading; "": the path joined by underscores
	unit  string // of the reading
	words bool   // ON, OFF and numbers in quotes are readings too
	skip  bool   // nothing below is read
	array bool   // its elements have places of their own
	slot  int    // roleText
}

// maxPlaces bounds what a fieldTree remembers, about 2 MB at worst. A device that invents keys makes it forget, not grow.
const maxPlaces = 4096

// fieldTree remembers the places that payloads of one source have: for each its name, so that names are allocated once, and
// its role. Payloads of one source mostly carry the same keys in the same order, so each place remembers which one followed
// it: a lookup is then one comparison.
type fieldTree struct {
	spec   Spec
	layout layout
	wanted Spec // with a layout: whose Fields to read
	root   place
	names  map[string]*fieldName
	places int
}

// place is one object key or array index, below the object or array that holds it.
type place struct {
	key      string
	dotted   string     // path joined by dots
	name     *fieldName // path joined by underscores; nil at the root
	role     role
	indexed  bool   // spec names elements of an array here
	object   uint64 // the last object that had this key, as the scanner numbers them
	children map[string]*place
	first    *place // the child that came first last time
	next     *place // the sibling that came next last time
	unit     string
	words    bool
	slot     int
	array    *place // stands for an array here, so that {"a":{"0":1}} and {"a":[1]} stay apart

	// In arrays.
	inArray bool
	muted   bool // nothing in it is read
	selects bool // spec names the array: its scalar elements are readings
}

// fieldName is a joined name. Two places may share one: {"a_b":1,"a":{"b":2}}.
type fieldName struct {
	text    string
	fault   string // why it cannot be a metric or label; "" if it can
	payload uint64 // the last payload that used it
	label   string // the last value as a label
}

func newFieldTree(spec Spec) *fieldTree {
	t := &fieldTree{spec: spec}
	t.forget()
	return t
}

func (t *fieldTree) forget() {
	t.root = place{}
	t.names = make(map[string]*fieldName)
	t.places = 0
}

// child returns the place under parent with this key; prev is the sibling before it in this payload, or nil. It is nil where
// the joined name would be longer than MaxNameBytes.
func (t *fieldTree) child(parent, prev *place, key []byte) *place {
	expected := &parent.first
	if prev != nil {
		expected = &prev.next
	}
	if p := *expected; p != nil && p.key == string(key) {
		return p
	}
	p := parent.children[string(key)]
	if p == nil {
		if p = t.add(parent, string(key)); p == nil {
			return nil
		}
	}
	*expected = p
	return p
}

func (t *fieldTree) add(parent *place, key string) *place {
	p := &place{key: key, dotted: key, inArray: parent.inArray, muted: parent.muted}
	joined := key
	if parent.name != nil {
		p.dotted = parent.dotted + "." + key
		joined = parent.name.text + "_" + key
	}
	var said placement
	if t.layout != nil {
		if !p.muted {
			said = t.layout(p.dotted)
		}
		if joined = said.name; joined == "" {
			joined = joinedName(p.dotted)
		}
		switch {
		case slices.Contains(t.spec.Labels, p.dotted) || slices.Contains(t.spec.Labels, joined):
			said = placement{role: roleLabel}
		case said.role == roleReading && !t.wanted.wants(joined):
			said.role = roleNone
		}
	}
	if len(joined) > MaxNameBytes {
		return nil
	}
	if p.name = t.names[joined]; p.name == nil {
		p.name = &fieldName{text: joined, fault: nameFault(joined)}
		t.names[joined] = p.name
	}
	switch {
	case t.layout == nil && !p.muted:
		p.role, p.indexed = t.spec.role(p.dotted, joined)
	case t.layout != nil:
		p.role, p.indexed, p.muted = said.role, said.array, p.muted || said.skip
		p.unit, p.words, p.slot = said.unit, said.words, said.slot
	}
	if t.layout == nil && p.role == roleNone && (parent.selects || len(t.spec.Fields) == 0 && !p.inArray) {
		p.role = roleReading
	}
	if parent.children == nil {
		parent.children = make(map[string]*place)
	}
	parent.children[key] = p
	t.places++
	return p
}

// arrayAt returns the place that stands for an array at p. Unless spec names the array or something in it, it is muted: its
// elements share this one place.
func (t *fieldTree) arrayAt(p *place) *place {
	if p.array == nil {
		selects := len(t.spec.Fields) > 0 && p.role == roleReading
		p.array = &place{dotted: p.dotted, name: p.name, inArray: true, selects: selects, muted: !selects && !p.indexed}
		t.places++
	}
	return p.array
}

// role says what a place is read as, and whether an array there has elements that s names.
func (s *Spec) role(dotted, joined string) (r role, indexed bool) {
	at := func(name string) bool {
		if name == "" { // not configured; an empty key is no match for it
			return false
		}
		if rest, ok := strings.CutPrefix(name, dotted+"."); ok && rest != "" && isDigit(rest[0]) {
			indexed = true
		}
		if rest, ok := strings.CutPrefix(name, joined+"_"); ok && rest != "" && isDigit(rest[0]) {
			indexed = true
		}
		return name == dotted || name == joined
	}
	for _, name := range s.Fields {
		if at(name) {
			r = roleReading
		}
	}
	for _, name := range s.Labels {
		if at(name) {
			r = roleLabel
		}
	}
	if at(s.Sequence) {
		r = roleSequence
	}
	if at(s.TimeField) {
		r = roleTime
	}
	return r, indexed
}

// joinedName joins a path as presets name their metrics: every separator becomes an underscore.
func joinedName(path string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(".:/ ", r) {
			return '_'
		}
		return r
	}, path)
}

// nameFault says why name cannot name a metric or label.
func nameFault(name string) string {
	if strings.Trim(name, "_") == "" {
		return "the name is empty"
	}
	if hasControl(name) {
		return "the name holds control characters"
	}
	return ""
}

// hasControl tells C0 and C1 control characters, which no destination stores as they are.
func hasControl[T string | []byte](s T) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == 0x7f || c == 0xc2 && i+1 < len(s) && s[i+1] < 0xa0 {
			return true
		}
	}
	return false
}

// stringCache interns label values. A device that invents values makes it forget, not grow.
type stringCache map[string]string

func (c *stringCache) intern(b []byte) string {
	if s, ok := (*c)[string(b)]; ok {
		return s
	}
	if *c == nil || len(*c) >= maxPlaces {
		*c = make(stringCache)
	}
	s := string(b)
	(*c)[s] = s
	return s
}

func (c *stringCache) internString(s string) string {
	if known, ok := (*c)[s]; ok {
		return known
	}
	return c.intern([]byte(s))
}

// labelValue interns b as the value of n.
func (c *stringCache) labelValue(n *fieldName, b []byte) telemetry.Label {
	if n.label != string(b) {
		n.label = c.intern(b)
	}
	return telemetry.Label{Name: n.text, Value: n.label}
}
