package decode

import (
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// scanner is a payload being read, and the first fault found in it. Methods that read return the offset where they stopped, or
// -1 with the fault kept.
type scanner struct {
	b       []byte
	scratch []byte // text that does not stand in b as it is
	err     *Error
}

// begin starts on a payload.
func (d *scanner) begin(payload []byte) { d.b, d.err = payload, nil }

// end lets go of the payload.
func (d *scanner) end() {
	d.b = nil
	if cap(d.scratch) > 4<<10 { // one huge string with escapes is no reason to keep its room
		d.scratch = nil
	}
}

// fail keeps the first refusal of the payload. Every scanning method returns the offset where it stopped, or fail's -1.
func (d *scanner) fail(reason, format string, args ...any) int {
	if d.err == nil {
		d.err = &Error{reason, fmt.Sprintf(format, args...)}
	}
	return -1
}

func (d *scanner) unexpected(i int, want string) int {
	if i >= len(d.b) {
		return d.fail(ReasonSyntax, "the payload ends at byte %d, want %s", i, want)
	}
	return d.fail(ReasonSyntax, "want %s at byte %d, got %s", want, i, excerpt(d.b[i:min(len(d.b), i+12)]))
}

func (d *scanner) space(i int) int {
	for i < len(d.b) && (d.b[i] == ' ' || d.b[i] == '\n' || d.b[i] == '\t' || d.b[i] == '\r') {
		i++
	}
	return i
}

func (d *scanner) word(i int, w string) bool {
	return len(d.b)-i >= len(w) && string(d.b[i:i+len(w)]) == w
}

// noValue says what stands at i instead of a value.
func (d *scanner) noValue(i int) int {
	end := i
	for end < len(d.b) && (d.b[end] == '-' || d.b[end] == '+' || 'A' <= d.b[end]&^0x20 && d.b[end]&^0x20 <= 'Z') {
		end++
	}
	if isNotFinite(d.b[i:end]) {
		return d.fail(ReasonNotFinite, "%s at byte %d: JSON has finite numbers only", d.b[i:end], i)
	}
	return d.unexpected(i, "a value")
}

// str reads the string that starts at i with its quote. The text aliases the payload, or scratch where it had escapes.
func (d *scanner) str(i int) (text []byte, end int) {
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
func (d *scanner) escaped(start, i int) (text []byte, end int) {
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

// skip passes over the JSON value at i.
func (d *scanner) skip(i, depth int) int {
	if i >= len(d.b) {
		return d.unexpected(i, "a value")
	}
	if depth > MaxDepth {
		return d.fail(ReasonDepth, "nested deeper than %d", MaxDepth)
	}
	switch c := d.b[i]; {
	case c == '"':
		_, end := d.str(i)
		return end
	case c == '{' || c == '[':
		return d.skipInside(i, c == '{', depth)
	case d.word(i, "true"), d.word(i, "null"):
		return i + 4
	case d.word(i, "false"):
		return i + 5
	}
	if _, length := scanNumber(d.b[i:], false); length > 0 {
		return i + length
	}
	return d.noValue(i)
}

// skipInside passes over the object or array at i.
func (d *scanner) skipInside(i int, object bool, depth int) int {
	closing := byte(']')
	if object {
		closing = '}'
	}
	if i = d.space(i + 1); i < len(d.b) && d.b[i] == closing {
		return i + 1
	}
	for {
		if object {
			if i >= len(d.b) || d.b[i] != '"' {
				return d.unexpected(i, "a key")
			}
			_, end := d.str(i)
			if end < 0 {
				return end
			}
			if i = d.space(end); i >= len(d.b) || d.b[i] != ':' {
				return d.unexpected(i, "a colon")
			}
			i = d.space(i + 1)
		}
		if i = d.skip(i, depth+1); i < 0 {
			return i
		}
		if i = d.space(i); i >= len(d.b) {
			return d.unexpected(i, "a comma or an end")
		}
		switch d.b[i] {
		case ',':
			i = d.space(i + 1)
		case closing:
			return i + 1
		default:
			return d.unexpected(i, "a comma or an end")
		}
	}
}
