package expr

import (
	"fmt"
	"slices"
	"strings"
	"time"
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

// checker finds the types, the faults and the metrics of a tree.
type checker struct {
	errs []*Error
	ages []*node // calls of age that are compared with no constant so far
	uses
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
		c.mention(n)
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
	t := c.operands(n, number, condition)
	if t == condition {
		c.ageLimit(n.args[0], n.args[1])
		c.ageLimit(n.args[1], n.args[0])
	}
	return t
}

// mention counts n among the metrics of the device.
func (c *checker) mention(n *node) {
	c.mentions = append(c.mentions, Mention{Metric: n.name, Offset: n.pos})
	if !slices.Contains(c.metrics, n.name) {
		c.metrics = append(c.metrics, n.name)
	}
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
		return fmt.Sprintf("the duration %s fits only the functions over time, as in avg(temperature, %s)", a.name, a.name)
	case got == text:
		return fmt.Sprintf("text such as %q fits only last, as in %s", clip(a.name, 32), functionNamed("last").example)
	case want == condition:
		return fmt.Sprintf("%s wants a condition such as %s, got a number", op, example(a))
	}
	return fmt.Sprintf("%s wants a number, got a condition", op)
}

// call checks the arguments of a function and notes what it reads; n.use is its place among that.
func (c *checker) call(n *node) valueType {
	f := functionNamed(n.name)
	if f == nil {
		for _, a := range n.args {
			c.check(a)
		}
		return c.fail(n, "%s", unknownFunction(n.name))
	}
	form, at := f.form(n.args)
	if form == nil {
		if at == nil || len(n.args) == 0 {
			at = n
		}
		return c.fail(at, "%s wants %s, as in %s", f.name, f.wants(), f.example)
	}
	n.fn = f
	if f.clock && f.name != "age" {
		c.tick(clockEvery)
		c.clock = true
	}
	switch *form {
	case "":
		return number
	case "n":
		return c.operands(&node{kind: callNode, op: f.name, pos: n.pos, end: n.end, args: n.args}, number, number)
	case "m":
		c.mention(n.args[0])
		if f.name == "age" {
			c.clock = true
			n.age = true
			c.ages = append(c.ages, n)
		}
		return number
	}
	return c.overTime(n, *form)
}

// overTime notes the window or the feed that a call reads.
func (c *checker) overTime(n *node, form string) valueType {
	args := n.args
	if form[0] == 'q' {
		v, ok := fold(args[0])
		if !ok || !(v >= 0 && v <= 1) {
			return c.fail(args[0], "quantile wants a number from 0 to 1 first, as in %s", n.fn.example)
		}
		n.num, args = v, args[1:]
	}
	if form[0] == 's' {
		return c.other(n, args)
	}
	metric, span := args[0], args[1]
	d, err := ParseDuration(span.name)
	if err != nil || d <= 0 {
		return c.fail(span, "a duration must be longer than 0")
	}
	c.mention(metric)
	c.tick(every(d))
	n.use = slices.IndexFunc(c.windows, func(w WindowUse) bool { return w.Metric == metric.name && w.Span == d })
	if n.use < 0 {
		if n.use = len(c.windows); n.use == MaxUses {
			return c.fail(n, "the limit is %d pairs of a metric and a duration in one expression", MaxUses)
		}
		c.windows = append(c.windows, WindowUse{Metric: metric.name, Span: d})
	}
	if n.fn.ranks != nil {
		c.windows[n.use].Ranks = true
	}
	return number
}

// other notes a value of other devices.
func (c *checker) other(n *node, args []*node) valueType {
	if len(args) == 3 {
		d, err := ParseDuration(args[2].name)
		if err != nil || d <= 0 {
			return c.fail(args[2], "a duration must be longer than 0")
		}
		n.num = float64(d)
		c.tick(every(d))
		c.clock = true
	}
	selector, metric := args[0], args[1]
	c.mentions = append(c.mentions, Mention{Metric: metric.name, Offset: metric.pos, Other: true})
	n.use = slices.IndexFunc(c.feeds, func(f FeedUse) bool { return f.Metric == metric.name && f.Selector == selector.name })
	if n.use < 0 {
		if n.use = len(c.feeds); n.use == MaxUses {
			return c.fail(n, "the limit is %d values of other devices in one expression", MaxUses)
		}
		c.feeds = append(c.feeds, FeedUse{Selector: selector.name, Metric: metric.name, Offset: selector.pos + 1})
	}
	return number
}

// tick has the condition evaluated at least every d while no message comes.
func (c *checker) tick(d time.Duration) {
	if c.every == 0 || d < c.every {
		c.every = d
	}
}

// ageLimit looks at a comparison of age with a constant, which says how fine its steps have to be.
func (c *checker) ageLimit(call, limit *node) {
	if !call.age {
		return
	}
	if v, ok := fold(limit); ok && v > 0 && v < MaxDuration.Seconds() {
		c.tick(every(time.Duration(v * 1e9)))
		c.ages = slices.DeleteFunc(c.ages, func(n *node) bool { return n == call })
	}
}

// form finds the form that args have. When there is none, at is the first argument that fits none.
func (f *function) form(args []*node) (form *string, at *node) {
	longest := -1
	for i := range f.forms {
		want := f.forms[i]
		fit := 0
		for fit < len(want) && fit < len(args) && fits(want[fit], args[fit]) {
			fit++
		}
		if fit == len(want) && fit == len(args) {
			return &f.forms[i], nil
		}
		if fit > longest {
			longest, at = fit, nil
			if fit < len(args) {
				at = args[fit]
			}
		}
	}
	return nil, at
}

func fits(want byte, a *node) bool {
	switch want {
	case 'm':
		return a.kind == metricNode
	case 'd':
		return a.kind == durationNode
	case 's':
		return a.kind == stringNode
	case 'q':
		return a.kind != metricNode && a.kind != durationNode && a.kind != stringNode
	}
	return true
}

// wants says the arguments of a function in words.
func (f *function) wants() string {
	words := map[byte]string{'n': "a number", 'q': "a number from 0 to 1", 'm': "a metric", 'd': "a duration", 's': "a selector of devices"}
	var forms []string
	for _, form := range f.forms {
		if form == "" {
			return "no argument"
		}
		var list []string
		for i := range len(form) {
			list = append(list, words[form[i]])
		}
		if n := len(list); n > 1 {
			list = []string{strings.Join(list[:n-1], ", ") + " and " + list[n-1]}
		}
		forms = append(forms, list[0])
	}
	return strings.Join(forms, "; or ")
}
