package decode

import (
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"sluice/gateway/telemetry"
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
type jsonDecoder struct {
	fields fieldTree
	clock  timeReader
	labels stringCache

	// Of the payload at hand.
	b        []byte
	s        *Sample
	keys     int
	payloads uint64 // counts payloads
	objects  uint64 // counts objects, over all payloads
	scratch  []byte
	err      *Error
}

func newJSON(spec Spec) (Decoder, error) {
	if err := spec.places(); err != nil {
		return nil, err
	}
	return &jsonDecoder{fields: *newFieldTree(spec), clock: newTimeReader(spec.TimeUnit)}, nil
}

func (d *jsonDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	if d.fields.places > maxPlaces {
		d.fields.forget()
	}
	d.b, d.s, d.keys, d.err = m.Payload, out.add(), 0, nil
	d.payloads++
	d.document()
	d.b = nil
	if cap(d.scratch) > 4<<10 { // one huge string with escapes is no reason to keep its room
		d.scratch = nil
	}
	if d.err == nil && len(d.s.Readings) == 0 {
		d.err = noReadings(d.s.Refused)
	}
	if d.err != nil {
		out.reset()
		return d.err
	}
	return nil
}

// noReadings refuses a payload without readings, for the reason its first field was refused.
func noReadings(refused []Refusal) *Error {
	if len(refused) == 0 {
		return &Error{ReasonNoReadings, "no number or boolean to read"}
	}
	return &Error{refused[0].Reason, excerpt([]byte(refused[0].Field)) + ": " + refused[0].Detail}
}

// fail keeps the first refusal of the payload. Every scanning method returns the offset where it stopped, or fail's -1.
func (d *jsonDecoder) fail(reason, format string, args ...any) int {
	if d.err == nil {
		d.err = &Error{reason, fmt.Sprintf(format, args...)}
	}
	return -1
}

func (d *jsonDecoder) unexpected(i int, want string) int {
	if i >= len(d.b) {
		return d.fail(ReasonSyntax, "the payload ends at byte %d, want %s", i, want)
	}
	return d.fail(ReasonSyntax, "want %s at byte %d, got %s", want, i, excerpt(d.b[i:min(len(d.b), i+12)]))
}

func (d *jsonDecoder) document() {
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
	if i = d.object(i, &d.fields.root, 1); i < 0 {
		return
	}
	if i = d.space(i); i < len(d.b) {
		d.unexpected(i, "nothing after the object")
	}
}

func (d *jsonDecoder) space(i int) int {
	for i < len(d.b) && (d.b[i] == ' ' || d.b[i] == '\n' || d.b[i] == '\t' || d.b[i] == '\r') {
		i++
	}
	return i
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
			return d.takeNumber(p, n, i, i+length)
		}
	}
	return d.noValue(i)
}

func (d *jsonDecoder) word(i int, w string) bool {
	return len(d.b)-i >= len(w) && string(d.b[i:i+len(w)]) == w
}

// noValue says what stands at i instead of a value.
func (d *jsonDecoder) noValue(i int) int {
	end := i
	for end < len(d.b) && (d.b[end] == '-' || d.b[end] == '+' || 'A' <= d.b[end]&^0x20 && d.b[end]&^0x20 <= 'Z') {
		end++
	}
	if isNotFinite(d.b[i:end]) {
		return d.fail(ReasonNotFinite, "%s at byte %d: JSON has finite numbers only", d.b[i:end], i)
	}
	return d.unexpected(i, "a value")
}

// use marks p's name as taken in this payload.
func (d *jsonDecoder) use(p *place) bool {
	if p.name.payload == d.payloads {
		d.fail(ReasonDuplicateKey, "two fields join to the name %s", excerpt([]byte(p.name.text)))
		return false
	}
	p.name.payload = d.payloads
	return true
}

func (d *jsonDecoder) refuse(p *place, reason, detail string) {
	d.s.Refused = append(d.s.Refused, Refusal{Field: p.name.text, Reason: reason, Detail: detail})
}

// took refuses what cannot be read at p, where something is read; what is "an object" and the like. -1 ends the payload.
func (d *jsonDecoder) took(p *place, what string) int {
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
	}
	return 0
}

func (d *jsonDecoder) takeString(p *place, text []byte) int {
	switch p.role {
	case roleNone:
		return 0
	case roleTime:
		if !d.clock.text {
			return d.took(p, "the string "+excerpt(text))
		}
		ns, why := parseRFC3339(text)
		if why != "" {
			return d.fail(ReasonTime, "%s: %s: %s", p.dotted, excerpt(text), why)
		}
		if !d.use(p) {
			return -1
		}
		d.s.Time = ns
		return 0
	case roleLabel:
		return d.takeLabel(p, text)
	case roleReading:
		if len(d.fields.spec.Fields) == 0 {
			return 0
		}
	}
	return d.took(p, "the string "+excerpt(text))
}

func (d *jsonDecoder) takeLabel(p *place, text []byte) int {
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
func (d *jsonDecoder) takeBool(p *place, v bool, end int) int {
	switch p.role {
	case roleNone:
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

func (d *jsonDecoder) takeNumber(p *place, n number, start, end int) int {
	text := d.b[start:end]
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
		d.s.Time = ns
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

func (d *jsonDecoder) takeReading(p *place, v float64, end int) int {
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
	return end
}

// str reads the string that starts at i with its quote. The text aliases the payload, or scratch where it had escapes.
func (d *jsonDecoder) str(i int) (text []byte, end int) {
	start := i + 1
	for i = start; i < len(d.b); i++ {
		switch c := d.b[i]; {
		case c == '"':
			return d.b[start:i], i + 1
		case c == '\\':
			return d.escaped(start, i)
		case c < 0x20:
			return nil, d.fail(ReasonSyntax, "a raw control character at byte %d", i)
		}
	}
	return nil, d.unexpected(i, "a closing quote")
}

// escaped goes on with a string from its first backslash, at i.
func (d *jsonDecoder) escaped(start, i int) (text []byte, end int) {
	d.scratch = append(d.scratch[:0], d.b[start:i]...)
	for i < len(d.b) {
		c := d.b[i]
		switch {
		case c == '"':
			return d.scratch, i + 1
		case c < 0x20:
			return nil, d.fail(ReasonSyntax, "a raw control character at byte %d", i)
		case c != '\\':
			d.scratch = append(d.scratch, c)
			i++
			continue
		}
		if i+1 >= len(d.b) {
			break
		}
		switch c = d.b[i+1]; c {
		case '"', '\\', '/':
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, ok := hex4(d.b, i+2)
			if !ok {
				return nil, d.unexpected(i, `\u and four hex digits`)
			}
			i += 6
			if utf16.IsSurrogate(r) {
				low, ok := rune(0), false
				if i+1 < len(d.b) && d.b[i] == '\\' && d.b[i+1] == 'u' {
					low, ok = hex4(d.b, i+2)
				}
				if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
					return nil, d.fail(ReasonUTF8, "half of a surrogate pair before byte %d", i)
				}
				i += 6
			}
			d.scratch = utf8.AppendRune(d.scratch, r)
			continue
		default:
			return nil, d.unexpected(i, "a known escape")
		}
		d.scratch = append(d.scratch, c)
		i += 2
	}
	return nil, d.unexpected(len(d.b), "a closing quote")
}

func hex4(b []byte, i int) (r rune, ok bool) {
	if i+4 > len(b) {
		return 0, false
	}
	for _, c := range b[i : i+4] {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
