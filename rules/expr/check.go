package expr

import (
	"fmt"
	"slices"
	"strings"
)

type valueType uint8

const (
	number valueType = iota
	condition
	duration
	text
	broken // already reported
)

func (t valueType) String() string {
	return [...]string{"number", "condition", "duration", "text", "faulty part"}[t]
}

type function struct {
	name  string
	args  int
	later bool
}

// functions lists every function of the language. A later one is known by name, so that it is refused as such and not as a typo.
var functions = []function{
	{name: "abs", args: 1},
	{name: "rate", later: true},
	{name: "delta", later: true},
	{name: "avg", later: true},
	{name: "min", later: true},
	{name: "max", later: true},
	{name: "sum", later: true},
	{name: "count", later: true},
	{name: "stddev", later: true},
	{name: "quantile", later: true},
	{name: "last", later: true},
	{name: "age", later: true},
	{name: "hour", later: true},
	{name: "weekday", later: true},
}

// checker finds the types, the faults and the metrics of a tree.
type checker struct {
	errs    []*Error
	metrics []string
}

func (c *checker) fail(n *node, format string, args ...any) valueType {
	c.errs = append(c.errs, n.errorf(format, args...))
	return broken
}

func (c *checker) check(n *node) valueType {
	switch n.kind {
	case numberNode:
		return number
	case durationNode:
		return duration
	case stringNode:
		return text
	case metricNode:
		if !slices.Contains(c.metrics, n.name) {
			c.metrics = append(c.metrics, n.name)
		}
		return number
	case callNode:
		return c.call(n)
	case unaryNode:
		want := number
		if n.op == "not" {
			want = condition
		}
		return c.operands(n, want, want)
	}
	switch n.op {
	case "and", "or":
		return c.operands(n, condition, condition)
	case "+", "-", "*", "/", "%":
		t := c.operands(n, number, number)
		if zero := n.args[1]; t == number && (n.op == "/" || n.op == "%") {
			if v, ok := fold(zero); ok && v == 0 {
				return c.fail(zero, "division by zero")
			}
		}
		return t
	}
	return c.operands(n, number, condition)
}

// operands wants every operand of n to be of one type and yields result.
func (c *checker) operands(n *node, want, result valueType) valueType {
	for _, a := range n.args {
		if t := c.check(a); t != want && t != broken {
			result = c.fail(a, "%s", mismatch(n.op, a, want, t))
		} else if t == broken {
			result = broken
		}
	}
	if result == number && !slices.ContainsFunc(n.args, func(a *node) bool { _, ok := fold(a); return !ok }) {
		if v, ok := fold(n); ok && v-v != 0 && !divides(n) {
			return c.fail(n, "the constant is out of range")
		}
	}
	return result
}

func divides(n *node) bool { return n.kind == binaryNode && (n.op == "/" || n.op == "%") }

func mismatch(op string, a *node, want, got valueType) string {
	switch {
	case got == duration:
		return fmt.Sprintf("the duration %s fits only the functions over time (rate, avg, ...), which are not available in this version", a.name)
	case got == text:
		return fmt.Sprintf("text such as %q fits only last(\"labels\", metric), which is not available in this version", clip(a.name, 32))
	case want == condition:
		return fmt.Sprintf("%s wants a condition such as %s, got a number", op, example(a))
	}
	return fmt.Sprintf("%s wants a number, got a condition", op)
}

func (c *checker) call(n *node) valueType {
	i := slices.IndexFunc(functions, func(f function) bool { return f.name == n.name })
	if i < 0 {
		return c.fail(n, "unknown function %s: this version has %s", clip(n.name, 32), available())
	}
	f := functions[i]
	if f.later {
		return c.fail(n, "%s is not available in this version: an expression sees the last value of each metric", f.name)
	}
	if len(n.args) != f.args {
		return c.fail(n, "%s takes %d argument, got %d", f.name, f.args, len(n.args))
	}
	return c.operands(&node{kind: callNode, op: f.name, name: f.name, pos: n.pos, end: n.end, args: n.args}, number, number)
}

func available() string {
	var names []string
	for _, f := range functions {
		if !f.later {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}
