package rules

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Error is one fault in a rule file. Line and Column are 1-based and count characters; both are 0 when the file as a whole is at fault.
type Error struct {
	File         string
	Line, Column int
	Msg          string
	Source       string // the line at fault, without its end; empty when unknown
}

// Error renders file:line:column: message.
func (e Error) Error() string {
	if e.Line == 0 {
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// snippetWidth bounds the source shown with an error, in characters, so that one line of a terminal holds it.
const snippetWidth = 100

// Snippet renders the source line and a caret under the fault, each line ended, for terminals; "" when the line is unknown.
// Characters that could steer a terminal are shown as '?'.
func (e Error) Snippet() string {
	if e.Source == "" || e.Column < 1 {
		return ""
	}
	line := []rune(e.Source)
	at := min(e.Column-1, len(line))
	from := 0
	if at > snippetWidth*3/4 {
		from = at - snippetWidth*3/4
	}
	line = line[from:min(len(line), from+snippetWidth)]
	at -= from
	var text, caret strings.Builder
	for i, r := range line {
		if r == '\t' {
			r = ' '
		} else if !unicode.IsPrint(r) {
			r = '?'
		}
		text.WriteRune(r)
		if i < at {
			caret.WriteByte(' ')
		}
	}
	return "    " + strings.TrimRight(text.String(), " ") + "\n    " + caret.String() + "^\n"
}

// Errors are the faults of a set of rule files, in file and line order.
type Errors []Error

// Error joins the faults, one a line.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Detail renders every fault with its source line and a caret, for terminals.
func (e Errors) Detail() string {
	var b strings.Builder
	for i := range e {
		b.WriteString(e[i].Error())
		b.WriteByte('\n')
		b.WriteString(e[i].Snippet())
	}
	return b.String()
}

// Unwrap lets errors.As find each fault.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i := range e {
		errs[i] = e[i]
	}
	return errs
}

func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	slices.SortStableFunc(e, func(a, b Error) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	return e
}

// quote renders text of a user for a message: on one line, at most 64 bytes.
func quote(s string) string {
	if len(s) > 64 {
		s = strings.ToValidUTF8(s[:64], "") + "..."
	}
	return strconv.Quote(s)
}

// source finds lines and characters in a file.
type source struct {
	text  []byte
	start []int // byte offset of each line
}

func newSource(text []byte) *source {
	s := &source{text: text, start: []int{0}}
	if bytes.HasPrefix(text, []byte("\ufeff")) {
		s.start[0] = len("\ufeff")
	}
	for i, c := range text {
		if c == '\n' || c == '\r' && (i+1 == len(text) || text[i+1] != '\n') {
			s.start = append(s.start, i+1)
		}
	}
	return s
}

// line returns the text of the 1-based line n without its end, or "".
func (s *source) line(n int) string {
	if n < 1 || n > len(s.start) {
		return ""
	}
	end := len(s.text)
	if n < len(s.start) {
		end = s.start[n]
	}
	return strings.TrimRight(string(s.text[s.start[n-1]:end]), "\r\n")
}

// offset is the byte offset of a 1-based line and column, or -1.
func (s *source) offset(line, column int) int {
	if line < 1 || line > len(s.start) || column < 1 {
		return -1
	}
	i := 0
	text := s.line(line)
	for at := range text {
		if i++; i == column {
			return s.start[line-1] + at
		}
	}
	if i+1 == column {
		return s.start[line-1] + len(text)
	}
	return -1
}

// position is the 1-based line and column of a byte offset.
func (s *source) position(offset int) (line, column int) {
	line, exact := slices.BinarySearch(s.start, offset)
	if exact {
		line++
	}
	if line == 0 {
		return 1, 1
	}
	return line, len([]rune(string(s.text[s.start[line-1]:offset]))) + 1
}
