package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Error is one fault in a configuration, with its place. Line 0 means that the place is the file, or the environment
// variable that File then names, as a whole.
type Error struct {
	File         string
	Line, Column int
	Msg          string
}

// Error renders file:line:column: message.
func (e Error) Error() string {
	switch {
	case e.File == "":
		return e.Msg
	case e.Line == 0:
		return e.File + ": " + e.Msg
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// Errors is everything found in one go, in the order of the file.
type Errors []Error

// Error renders one line for each.
func (e Errors) Error() string {
	var b strings.Builder
	for i, x := range e {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(x.Error())
	}
	return b.String()
}

// inOrder sorts by place; what has none comes at the end.
func (e Errors) inOrder() Errors {
	slices.SortStableFunc(e, func(a, b Error) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		if c := cmp.Compare(a.File, b.File); c != 0 {
			return c
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Msg, b.Msg))
	})
	return slices.Compact(e)
}
