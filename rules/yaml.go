package rules

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// syntax reports what the YAML reader refused.
func (p *parser) syntax(err error) {
	var load *yaml.LoadError
	switch {
	case !errors.As(err, &load):
		p.failFile("%v", err)
	case strings.Contains(load.Message, "no documents"):
	case load.Mark.Line > 0:
		p.failAt(load.Mark.Line, max(load.Mark.Column, 1), "%s", load.Message)
	case strings.Contains(load.Message, "multiple"):
		p.failFile("the file holds more than one YAML document: remove the \"---\" lines")
	default:
		p.failFile("%s", load.Message)
	}
}

func invalidUTF8(b []byte) int {
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

func (p *parser) failFile(format string, args ...any) { p.failAt(0, 0, format, args...) }

func (p *parser) failAt(line, column int, format string, args ...any) {
	p.found++
	switch {
	case len(p.errs) > maxErrors:
	case len(p.errs) == maxErrors:
		p.errs = append(p.errs, Error{File: p.file, Line: line, Column: column, Msg: "too many errors; the rest is not shown"})
	default:
		p.errs = append(p.errs, Error{File: p.file, Line: line, Column: column, Msg: fmt.Sprintf(format, args...), Source: p.src.line(line)})
	}
}

func (p *parser) fail(n *yaml.Node, format string, args ...any) {
	p.failAt(n.Line, n.Column, format, args...)
}

// failIn reports a fault at a byte offset of a scalar's value.
func (p *parser) failIn(n *yaml.Node, offset int, format string, args ...any) {
	line, column := p.locate(n, offset)
	p.failAt(line, column, format, args...)
}

// locate finds where byte offset of a scalar's value stands in the file. It walks value and source side by side and takes any
// run of white space for any other, which covers folded and indented text. Where escapes make them differ, it is the scalar's start.
func (p *parser) locate(n *yaml.Node, offset int) (line, column int) {
	text, i := p.src.text, p.src.offset(n.Line, n.Column)
	if i < 0 {
		return n.Line, n.Column
	}
	switch {
	case n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0:
		i++
	case n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		eol := bytes.IndexByte(text[i:], '\n')
		if eol < 0 {
			return n.Line, n.Column
		}
		i += eol
	}
	blank := func(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }
	skip := func() {
		for i < len(text) && blank(text[i]) {
			i++
		}
	}
	if n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		skip()
	}
	v := n.Value
	for k := 0; k < offset && k < len(v); k++ {
		switch {
		case blank(v[k]):
			if k == 0 || !blank(v[k-1]) {
				skip()
			}
		case i < len(text) && text[i] == v[k]:
			i++
			if v[k] == '\'' && n.Style&yaml.SingleQuotedStyle != 0 {
				i++
			}
		default:
			return n.Line, n.Column
		}
	}
	if offset < len(v) && !blank(v[offset]) {
		skip()
	}
	return p.src.position(min(i, len(text)))
}

// key is what a mapping may hold: read takes the value; without it the key is known but refused with later as the reason. doc and
// shape describe it to editors; see Schema.
type key struct {
	name     string
	required bool
	read     func(n *yaml.Node)
	later    string
	doc      string
	shape    shape
}

// mapping reads a YAML mapping with known keys only. what names it in messages.
func (p *parser) mapping(n *yaml.Node, what string, keys []key) bool {
	if n = p.resolve(n); n == nil {
		return false
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s: want keys and values (%s), got %s", what, keyNames(keys), kind(n))
		return false
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := p.keyName(n.Content[i], seen)
		if !ok {
			continue
		}
		at := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
		switch {
		case at < 0:
			p.fail(n.Content[i], "%s", unknownKey(name, what, keys))
		case keys[at].later != "":
			p.fail(n.Content[i], "%s: %s", name, keys[at].later)
		default:
			keys[at].read(n.Content[i+1])
		}
	}
	for _, k := range keys {
		if k.required && !seen[k.name] {
			p.fail(n, "%s: the key %s is missing", what, k.name)
		}
	}
	return true
}

// keyName returns the text of a key unless it is no text or was there before.
func (p *parser) keyName(n *yaml.Node, seen map[string]bool) (string, bool) {
	n = p.resolve(n)
	switch {
	case n == nil:
		return "", false
	case n.Kind != yaml.ScalarNode:
		p.fail(n, "want a plain word as key, got %s", kind(n))
		return "", false
	case n.Value == "<<" && n.Tag == "!!merge":
		p.fail(n, "merge keys (<<) are not supported: write the keys out")
		return "", false
	case seen[n.Value]:
		p.fail(n, "the key %s is here twice", quote(n.Value))
		return "", false
	}
	seen[n.Value] = true
	return n.Value, true
}

// resolve follows an alias and counts the value against maxNodes, so that aliases cannot multiply the work. nil means the file
// is beyond the bound, which is reported once.
func (p *parser) resolve(n *yaml.Node) *yaml.Node {
	if p.nodes++; p.nodes > maxNodes {
		if p.nodes == maxNodes+1 {
			p.fail(n, "the file holds more than %d values once its aliases are followed", maxNodes)
		}
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func (p *parser) list(n *yaml.Node, what string, item func(n *yaml.Node)) {
	if n = p.resolve(n); n == nil {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n, "%s: want a list, got %s", what, kind(n))
		return
	}
	for _, c := range n.Content {
		if p.nodes > maxNodes {
			return
		}
		item(c)
	}
}

// text returns the text of a scalar; numbers and words such as yes are text as written.
func (p *parser) text(n *yaml.Node, what string, limit int) (*yaml.Node, bool) {
	if n = p.resolve(n); n == nil {
		return nil, false
	}
	switch {
	case n.Kind != yaml.ScalarNode:
		p.fail(n, "%s: want text, got %s", what, kind(n))
	case n.Tag == "!!null" || n.Value == "":
		p.fail(n, "%s: want text, got nothing", what)
	case len(n.Value) > limit:
		p.fail(n, "%s: longer than %d bytes", what, limit)
	default:
		return n, true
	}
	return nil, false
}

func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "keys and values"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	}
	return "the text " + quote(n.Value)
}

func keyNames(keys []key) string {
	var names []string
	for _, k := range keys {
		if k.later == "" {
			names = append(names, k.name)
		}
	}
	return strings.Join(names, ", ")
}

func unknownKey(name, what string, keys []key) string {
	best, distance := "", 3
	for _, k := range keys {
		if d := editDistance(name, k.name); k.later == "" && d < distance {
			best, distance = k.name, d
		}
	}
	if best != "" {
		return fmt.Sprintf("unknown key %s: did you mean %s?", quote(name), best)
	}
	return fmt.Sprintf("unknown key %s: %s has %s", quote(name), what, keyNames(keys))
}

// editDistance counts the insertions, deletions and substitutions between two short words (Levenshtein 1966); 99 for long ones.
func editDistance(a, b string) int {
	if len(a) > 32 || len(b) > 32 {
		return 99
	}
	var row [33]int
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
