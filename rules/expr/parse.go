package expr

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

type nodeKind uint8

const (
	numberNode nodeKind = iota
	durationNode
	stringNode
	metricNode
	callNode  // name(args)
	unaryNode // op "-" or "not"
	binaryNode
)

// node is one operand or operator of the tree.
type node struct {
	kind     nodeKind
	pos, end int    // bytes in the source
	op       string // of unary and binary nodes
	name     string // of metrics and calls; the text of durations and strings
	num      float64
	args     []*node

	fn  *function // of a checked call
	use int       // of a checked call: its place in uses.windows or uses.feeds
	age bool      // a checked call of age
}

func (n *node) errorf(format string, args ...any) *Error {
	return &Error{Offset: n.pos, End: n.end, Msg: fmt.Sprintf(format, args...)}
}

// quoteName writes a metric name as the language reads it.
func quoteName(name string) string {
	first, _ := utf8.DecodeRuneInString(name)
	if wordLen(name) == len(name) && wordLen(strings.TrimLeft(string(first), "0123456789")) > 0 && !keyword(name) {
		return name
	}
	return "`" + name + "`"
}

func keyword(name string) bool { return name == "and" || name == "or" || name == "not" }

// parser is a recursive descent over the grammar
//
//	or  = and {"or" and}          and = not {"and" not}        not = "not" not | cmp
//	cmp = sum [("<"|"<="|">"|">="|"=="|"!=") sum]              sum = mul {("+"|"-") mul}
//	mul = sign {("*"|"/"|"%") sign}                            sign = "-" sign | atom
//	atom = number | duration | metric | `metric` | function "(" [or {"," or}] ")" | "(" or ")"
type parser struct {
	lex   lexer
	tok   token
	depth int
	nodes int
}

func parse(src string) (*node, *Error) {
	if len(src) > MaxSource {
		return nil, &Error{Msg: fmt.Sprintf("the expression is too long: %d bytes, the limit is %d", len(src), MaxSource)}
	}
	if i := invalidUTF8(src); i >= 0 {
		return nil, &Error{Offset: i, End: i + 1, Msg: "the expression is not valid UTF-8"}
	}
	p := parser{lex: lexer{src: src}}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == endToken {
		return nil, &Error{Msg: "the expression is empty"}
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if p.tok.kind != endToken {
		return nil, p.unexpected("an operator or the end of the expression")
	}
	return n, nil
}

func invalidUTF8(s string) int {
	for i, r := range s {
		if r == utf8.RuneError {
			if _, size := utf8.DecodeRuneInString(s[i:]); size == 1 {
				return i
			}
		}
	}
	return -1
}

func (p *parser) advance() *Error {
	t, err := p.lex.next()
	p.tok = t
	return err
}

func (p *parser) at(text string) bool {
	return (p.tok.kind == opToken || p.tok.kind == nameToken) && p.tok.text == text
}

func (p *parser) atAny(texts ...string) bool {
	for _, t := range texts {
		if p.at(t) {
			return true
		}
	}
	return false
}

func (p *parser) unexpected(want string) *Error {
	return &Error{Offset: p.tok.pos, End: p.tok.end, Msg: fmt.Sprintf("want %s, got %s", want, p.tok)}
}

// add counts n against MaxNodes.
func (p *parser) add(n *node) (*node, *Error) {
	if p.nodes++; p.nodes > MaxNodes {
		return nil, n.errorf("the expression is too large: the limit is %d operands and operators", MaxNodes)
	}
	return n, nil
}

// enter counts one level against MaxDepth; leave ends it.
func (p *parser) enter() *Error {
	if p.depth++; p.depth > MaxDepth {
		return &Error{Offset: p.tok.pos, End: p.tok.end, Msg: fmt.Sprintf("the expression is nested too deeply: the limit is %d levels", MaxDepth)}
	}
	return nil
}

func (p *parser) leave() { p.depth-- }

// chain parses operand {op operand}, grouping to the left.
func (p *parser) chain(operand func() (*node, *Error), ops ...string) (*node, *Error) {
	left, err := operand()
	for err == nil && p.atAny(ops...) {
		op := p.tok.text
		if err := p.advance(); err != nil {
			return nil, err
		}
		right, rerr := operand()
		if rerr != nil {
			return nil, rerr
		}
		left, err = p.add(&node{kind: binaryNode, op: op, pos: left.pos, end: right.end, args: []*node{left, right}})
	}
	return left, err
}

func (p *parser) or() (*node, *Error)  { return p.chain(p.and, "or") }
func (p *parser) and() (*node, *Error) { return p.chain(p.not, "and") }
func (p *parser) sum() (*node, *Error) { return p.chain(p.mul, "+", "-") }
func (p *parser) mul() (*node, *Error) { return p.chain(p.sign, "*", "/", "%") }

func (p *parser) not() (*node, *Error) {
	if !p.at("not") {
		return p.cmp()
	}
	return p.unary(p.not)
}

func (p *parser) sign() (*node, *Error) {
	if !p.at("-") {
		return p.atom()
	}
	return p.unary(p.sign)
}

func (p *parser) unary(operand func() (*node, *Error)) (*node, *Error) {
	op := p.tok
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return nil, err
	}
	n, err := operand()
	if err != nil {
		return nil, err
	}
	return p.add(&node{kind: unaryNode, op: op.text, pos: op.pos, end: n.end, args: []*node{n}})
}

var comparisons = []string{"<", "<=", ">", ">=", "==", "!="}

func (p *parser) cmp() (*node, *Error) {
	left, err := p.sum()
	if err != nil || !p.atAny(comparisons...) {
		return left, err
	}
	op := p.tok.text
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.atAny(comparisons...) {
		return nil, &Error{Offset: p.tok.pos, End: p.tok.end, Msg: `comparisons do not chain: write "1 < x and x < 5"`}
	}
	return p.add(&node{kind: binaryNode, op: op, pos: left.pos, end: right.end, args: []*node{left, right}})
}

func (p *parser) atom() (*node, *Error) {
	t := p.tok
	n := &node{pos: t.pos, end: t.end, name: t.text}
	switch {
	case p.at("("):
		return p.parens()
	case t.kind == numberToken:
		v, err := strconv.ParseFloat(t.text, 64)
		if err != nil || math.IsInf(v, 0) {
			return nil, n.errorf("the number %s is out of range", clip(t.text, 32))
		}
		n.kind, n.num = numberNode, v
	case t.kind == durationToken:
		n.kind = durationNode
	case t.kind == stringToken:
		n.kind = stringNode
	case t.kind == quotedToken:
		n.kind = metricNode
	case t.kind == nameToken && !keyword(t.text):
		if err := p.advance(); err != nil {
			return nil, err
		}
		if p.at("(") {
			return p.call(t)
		}
		n.kind = metricNode
		return p.add(n)
	default:
		return nil, p.unexpected("a number or a metric")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	return p.add(n)
}

func (p *parser) parens() (*node, *Error) {
	open := p.tok
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return nil, err
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.at(")") {
		if p.tok.kind == endToken {
			return nil, &Error{Offset: open.pos, End: open.end, Msg: "no closing )"}
		}
		return nil, p.unexpected(`an operator or ")"`)
	}
	n.pos, n.end = open.pos, p.tok.end
	return n, p.advance()
}

func (p *parser) call(name token) (*node, *Error) {
	open := p.tok
	if err := p.enter(); err != nil {
		return nil, err
	}
	defer p.leave()
	if err := p.advance(); err != nil {
		return nil, err
	}
	n := &node{kind: callNode, name: name.text, pos: name.pos}
	for !p.at(")") {
		if len(n.args) > 0 {
			if !p.at(",") {
				if p.tok.kind == endToken {
					return nil, &Error{Offset: open.pos, End: open.end, Msg: "no closing )"}
				}
				return nil, p.unexpected(`"," or ")"`)
			}
			if err := p.advance(); err != nil {
				return nil, err
			}
		}
		a, err := p.or()
		if err != nil {
			return nil, err
		}
		n.args = append(n.args, a)
	}
	n.end = p.tok.end
	if err := p.advance(); err != nil {
		return nil, err
	}
	return p.add(n)
}
