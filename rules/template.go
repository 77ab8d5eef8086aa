package rules

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// template is an annotation cut into pieces: text, the value, or a label.
type template []piece

type piece struct {
	kind pieceKind
	text string // literal text, or the label's name
}

type pieceKind uint8

const (
	literalPiece pieceKind = iota
	valuePiece
	labelPiece
)

// maxAnnotation bounds a rendered annotation: labels come from devices. What is longer is cut and ends in "...".
const maxAnnotation = 4096 // bytes

// templateError is a fault at a byte offset of an annotation.
type templateError struct {
	offset int
	msg    string
}

// parseTemplate knows {{ $value }} and {{ $labels.name }}; anything else between double braces is an error.
func parseTemplate(s string) (template, *templateError) {
	var t template
	for at := 0; at < len(s); {
		open := strings.Index(s[at:], "{{")
		if open < 0 {
			return append(t, piece{text: s[at:]}), nil
		}
		if open > 0 {
			t = append(t, piece{text: s[at : at+open]})
		}
		open += at
		end := strings.Index(s[open:], "}}")
		if end < 0 {
			return nil, &templateError{open, "no closing }}"}
		}
		end += open
		name := strings.TrimSpace(s[open+2 : end])
		label, isLabel := strings.CutPrefix(name, "$labels.")
		switch {
		case name == "$value":
			t = append(t, piece{kind: valuePiece})
		case isLabel && labelName(label):
			t = append(t, piece{kind: labelPiece, text: label})
		default:
			return nil, &templateError{open, fmt.Sprintf("unknown reference %s: an annotation knows {{ $value }} and {{ $labels.name }}", quote(name))}
		}
		at = end + 2
	}
	return t, nil
}

func (t template) render(labels telemetry.Labels, value float64) string {
	var b strings.Builder
	for _, p := range t {
		switch p.kind {
		case literalPiece:
			b.WriteString(p.text)
		case valuePiece:
			b.WriteString(FormatValue(value))
		case labelPiece:
			if v := labels.Get(p.text); v != "" {
				b.WriteString(v)
			} else {
				b.WriteString("[no label " + p.text + "]")
			}
		}
	}
	s := b.String()
	if len(s) > maxAnnotation {
		n := maxAnnotation - len("...")
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "..."
	}
	return s
}

// FormatValue renders a value as annotations do: the shortest decimal that reads back as the same number, with an exponent only
// for the very large and the very small.
func FormatValue(v float64) string {
	if a := math.Abs(v); a != 0 && (a < 1e-6 || a >= 1e15) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// labelName tells whether s is a letter or underscore followed by letters, digits and underscores, all ASCII.
func labelName(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c != '_' && (c|0x20 < 'a' || c|0x20 > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
