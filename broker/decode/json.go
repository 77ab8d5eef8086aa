package decode

import (
	"strconv"
	"unicode/utf8"
)

// jsonDecoder reads JSON objects (RFC 8259) in one strict pass: everything in the payload is checked, also where nothing is
// read from it. A payload is one object; its numbers and booleans (true is 1, false is 0) are readings, called by their keys,
// nested ones joined by underscores.
//
// With Spec.Fields exactly the named places are readings, and what else than a number or boolean stands there is refused. An
// array is read only where Spec names it (then its elements are <name>_0, <name>_1, ...) or one of its elements (rows.0.t).
//
// It has its own scanner because a lenient parser saves nothing here: after fastjson come a second pass to validate, a third
// for UTF-8, and lookups for duplicates, and its numbers are not always the nearest float64 (docs/decisions.md).
//
// A payload that is the bare word online or offline, in any case, is no JSON and yet what many devices have as their will under
// the prefix of their telemetry: it is a state of the device.
type jsonDecoder struct{ gather }

func newJSON(spec Spec) (Decoder, error) {
	g, err := newGather(spec)
	if err != nil {
		return nil, err
	}
	return &jsonDecoder{g}, nil
}

func (d *jsonDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	if online, ok := onlineWord(m.Payload); ok {
		return out.state(online, StateAvailability, 0)
	}
	if d.read(m, out); d.err == nil && len(d.s.Readings) == 0 {
		d.err = noReadings(d.s.Refused)
	}
	if d.err != nil {
		out.reset()
		return d.err
	}
	return nil
}

// read adds a sample with what the payload holds; under are the keys its object is taken to stand under. d.err says why the payload
// is refused.
func (d *jsonDecoder) read(m *Message, out *Batch, under ...string) {
	d.begin(m, m.Payload, out.add())
	at := &d.fields.root
	for _, key := range under {
		if at = d.fields.child(at, nil, []byte(key)); at == nil {
			d.fail(ReasonKeyTooLong, "the topic's %s is longer than %d bytes", excerpt([]byte(key)), MaxNameBytes)
			return
		}
	}
	d.document(at)
	d.end()
}

func (d *jsonDecoder) document(at *place) {
	if !utf8.Valid(d.b) {
		d.fail(ReasonUTF8, "the payload is not valid UTF-8")
		return
	}
	i := d.space(0)
	switch {
	case i == len(d.b):
		d.fail(ReasonEmpty, "the payload is empty")
		return
	case len(d.b) >= 3 && string(d.b[:3]) == "\uFEFF":
		d.fail(ReasonSyntax, "the payload starts with a byte order mark")
		return
	}
	if d.b[i] != '{' {
		if c := d.b[i]; c == '[' || c == '"' || c == '-' || isDigit(c) || d.word(i, "true") || d.word(i, "false") || d.word(i, "null") {
			d.fail(ReasonType, "the payload is not an object but %s", excerpt(d.b[i:]))
		} else {
			d.unexpected(i, "an object")
		}
		return
	}
	if i = d.object(i, at, 1); i < 0 {
		return
	}
	if i = d.space(i); i < len(d.b) {
		d.unexpected(i, "nothing after the object")
	}
}

// object reads the object that starts at i with its brace; at is its place.
func (d *jsonDecoder) object(i int, at *place, depth int) int {
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	d.objects++
	object := d.objects
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == '}' {
		return i + 1
	}
	var prev *place
	for {
		if i >= len(d.b) || d.b[i] != '"' {
			return d.unexpected(i, "a key")
		}
		key, end := d.str(i)
		if end < 0 {
			return end
		}
		if len(key) > MaxKeyBytes {
			return d.fail(ReasonKeyTooLong, "the key %s is longer than %d bytes", excerpt(key), MaxKeyBytes)
		}
		if d.keys++; d.keys > MaxKeys {
			return d.fail(ReasonTooManyFields, "more than %d keys", MaxKeys)
		}
		p := d.fields.child(at, prev, key)
		if p == nil {
			return d.fail(ReasonKeyTooLong, "the keys down to %s join to more than %d bytes", excerpt(key), MaxNameBytes)
		}
		if p.object == object {
			return d.fail(ReasonDuplicateKey, "the key %s stands twice in one object", excerpt(key))
		}
		p.object = object
		prev = p

		if i = d.space(end); i >= len(d.b) || d.b[i] != ':' {
			return d.unexpected(i, "a colon")
		}
		if i = d.value(d.space(i+1), p, depth); i < 0 {
			return i
		}
		if i = d.space(i); i >= len(d.b) {
			return d.unexpected(i, "a comma or }")
		}
		switch d.b[i] {
		case ',':
			i = d.space(i + 1)
		case '}':
			return i + 1
		default:
			return d.unexpected(i, "a comma or }")
		}
	}
}

// array reads the array that starts at i with its bracket; at is the place it stands at.
func (d *jsonDecoder) array(i int, at *place, depth int) int {
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	at = d.fields.arrayAt(at)
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == ']' {
		return i + 1
	}
	var prev *place
	for n := 0; ; n++ {
		element := at
		if !at.muted {
			if d.keys++; d.keys > MaxKeys {
				return d.fail(ReasonTooManyFields, "more than %d keys and elements", MaxKeys)
			}
			d.scratch = strconv.AppendInt(d.scratch[:0], int64(n), 10)
			if element = d.fields.child(at, prev, d.scratch); element == nil {
				return d.fail(ReasonKeyTooLong, "the keys down to element %d join to more than %d bytes", n, MaxNameBytes)
			}
			prev = element
		}
		if i = d.value(i, element, depth); i < 0 {
			return i
		}
		if i = d.space(i); i >= len(d.b) {
			return d.unexpected(i, "a comma or ]")
		}
		switch d.b[i] {
		case ',':
			i = d.space(i + 1)
		case ']':
			return i + 1
		default:
			return d.unexpected(i, "a comma or ]")
		}
	}
}

// value reads the value that starts at i; p is its place.
func (d *jsonDecoder) value(i int, p *place, depth int) int {
	if i >= len(d.b) {
		return d.unexpected(i, "a value")
	}
	switch c := d.b[i]; c {
	case '{':
		if d.took(p, "an object") < 0 {
			return -1
		}
		return d.object(i, p, depth+1)
	case '[':
		if p.role != roleReading && d.took(p, "an array") < 0 {
			return -1
		}
		return d.array(i, p, depth+1)
	case '"':
		text, end := d.str(i)
		if end < 0 || d.takeString(p, text) < 0 {
			return -1
		}
		return end
	case 't':
		if d.word(i, "true") {
			return d.takeBool(p, true, i+4)
		}
	case 'f':
		if d.word(i, "false") {
			return d.takeBool(p, false, i+5)
		}
	case 'n':
		if d.word(i, "null") {
			return i + 4
		}
	default:
		if n, length := scanNumber(d.b[i:], false); length > 0 {
			return d.takeNumber(p, n, d.b[i:i+length], i+length)
		}
	}
	return d.noValue(i)
}
