package expr

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

type tokenKind uint8

const (
	endToken tokenKind = iota
	numberToken
	durationToken
	nameToken   // metric, function or keyword
	quotedToken // `metric name`
	stringToken // "text"
	opToken
)

type token struct {
	kind     tokenKind
	pos, end int
	text     string // of a quoted token or string: without the quotes
}

func (t token) String() string {
	if t.kind == endToken {
		return "the end of the expression"
	}
	return fmt.Sprintf("%q", clip(t.text, 32))
}

// lexer cuts src into tokens. src is valid UTF-8.
type lexer struct {
	src string
	pos int
}

func (l *lexer) next() (token, *Error) {
	for l.pos < len(l.src) && strings.IndexByte(" \t\r\n", l.src[l.pos]) >= 0 {
		l.pos++
	}
	start := l.pos
	if start == len(l.src) {
		return token{kind: endToken, pos: start, end: start}, nil
	}
	r, size := utf8.DecodeRuneInString(l.src[start:])
	switch {
	case r >= '0' && r <= '9' || r == '.':
		return l.number()
	case r == '_' || unicode.IsLetter(r):
		l.pos = start + wordLen(l.src[start:])
		return l.token(nameToken, start), nil
	case r == '`' || r == '"':
		return l.quoted(byte(r))
	case r == '\'':
		return token{}, l.errorf(start, start+1, "a metric name with unusual characters is written between backquotes: `line-3.temp`")
	}
	if n := len("&&"); strings.HasPrefix(l.src[start:], "&&") {
		return token{}, l.errorf(start, start+n, "write \"and\" instead of \"&&\"")
	} else if strings.HasPrefix(l.src[start:], "||") {
		return token{}, l.errorf(start, start+n, "write \"or\" instead of \"||\"")
	}
	for _, op := range [...]string{"==", "!=", "<=", ">=", "<", ">", "+", "-", "*", "/", "%", "(", ")", ","} {
		if strings.HasPrefix(l.src[start:], op) {
			l.pos += len(op)
			return l.token(opToken, start), nil
		}
	}
	switch r {
	case '=':
		return token{}, l.errorf(start, start+1, "write \"==\" to compare")
	case '!':
		return token{}, l.errorf(start, start+1, "write \"not\" instead of \"!\"")
	}
	return token{}, l.errorf(start, start+size, "unexpected character %q", r)
}

func (l *lexer) token(kind tokenKind, start int) token {
	return token{kind: kind, pos: start, end: l.pos, text: l.src[start:l.pos]}
}

func (l *lexer) errorf(pos, end int, format string, args ...any) *Error {
	return &Error{Offset: pos, End: end, Msg: fmt.Sprintf(format, args...)}
}

// number reads 12, 1.5, .5, 1e3, or a duration such as 1h30m.
func (l *lexer) number() (token, *Error) {
	start := l.pos
	digits := func() int {
		from := l.pos
		for l.pos < len(l.src) && l.src[l.pos] >= '0' && l.src[l.pos] <= '9' {
			l.pos++
		}
		return l.pos - from
	}
	whole, fraction := digits(), 0
	if l.pos < len(l.src) && l.src[l.pos] == '.' {
		l.pos++
		fraction = digits()
		if fraction == 0 {
			return token{}, l.errorf(start, l.pos, "bad number %q: want digits after the point", l.src[start:l.pos])
		}
	}
	if e := l.pos; e < len(l.src) && l.src[e]|0x20 == 'e' {
		l.pos++
		if l.pos < len(l.src) && (l.src[l.pos] == '+' || l.src[l.pos] == '-') {
			l.pos++
		}
		if digits() == 0 {
			l.pos = e
		}
	}
	rest := wordLen(l.src[l.pos:])
	if rest == 0 {
		if l.pos < len(l.src) && l.src[l.pos] == '.' {
			return token{}, l.errorf(start, l.pos+1, "bad number %q", l.src[start:l.pos+1])
		}
		return l.token(numberToken, start), nil
	}
	l.pos += rest
	word := l.src[start:l.pos]
	if _, err := ParseDuration(word); err == nil {
		return l.token(durationToken, start), nil
	}
	if whole > 0 && fraction == 0 && unicode.IsLetter(rune(word[len(word)-1])) && strings.Trim(word, "0123456789wdhms") == "" {
		return token{}, l.errorf(start, l.pos, "bad duration %q: %s", clip(word, 32), durationHint)
	}
	return token{}, l.errorf(start, l.pos, "bad number %q: a metric name that starts with a digit is written between backquotes", clip(word, 32))
}

func (l *lexer) quoted(quote byte) (token, *Error) {
	start := l.pos
	n := strings.IndexByte(l.src[start+1:], quote)
	if n < 0 {
		return token{}, l.errorf(start, len(l.src), "no closing %c", quote)
	}
	l.pos = start + 1 + n + 1
	t := token{kind: quotedToken, pos: start, end: l.pos, text: l.src[start+1 : start+1+n]}
	if quote == '"' {
		t.kind = stringToken
	} else if n == 0 {
		return token{}, l.errorf(start, l.pos, "want a metric name between the backquotes")
	}
	return t, nil
}

// wordLen is the length in bytes of the letters, digits and underscores that s starts with.
func wordLen(s string) int {
	for i, r := range s {
		if r != '_' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
			return i
		}
	}
	return len(s)
}

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}
