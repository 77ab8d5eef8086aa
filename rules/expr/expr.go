// Package expr compiles the condition language of alert rules: numbers, metric names, arithmetic, comparisons, and, or, not.
//
// The language has no loops, no assignment and no calls that take time: the cost of a Program is bounded by the length of its
// source. A Program is pure: what it yields depends on its Env alone. The package does no I/O, reads no clock, starts no goroutine.
//
// Logic is three-valued (Kleene 1952, Introduction to Metamathematics, §64): a metric the device never sent, a division by
// zero and a result beyond the range of a float64 are unknown; a comparison with an unknown side is unknown; "and" and "or" are
// unknown only where the unknown side would decide.
package expr

import "math"

// Bounds on one expression. They bound the stack, the time to compile and the time to evaluate.
const (
	MaxSource = 4096 // bytes
	MaxDepth  = 64   // nested parentheses, nots, signs and calls
	MaxNodes  = 1000 // operands and operators
)

// Tri is a truth value.
type Tri uint8

// The truth values.
const (
	False Tri = iota
	True
	Unknown
)

func (t Tri) String() string { return [...]string{"false", "true", "unknown"}[t] }

// Env is what an expression sees. Values[Slots[i]] is the last value of the metric Program.Metrics()[i], NaN when the device
// never sent it; values are otherwise finite.
type Env struct {
	Values []float64
	Slots  []int32
}

// Program is a compiled condition. It is immutable and safe for concurrent use.
type Program struct {
	metrics []string
	cond    condFunc
	value   numFunc
}

type (
	condFunc func(*Env) Tri
	numFunc  func(*Env) float64 // NaN: unknown
)

// Metrics lists the metrics the program reads, each once, in order of first mention. The caller must not change it.
func (p *Program) Metrics() []string { return p.metrics }

// Eval tells whether the condition holds. It allocates nothing.
func (p *Program) Eval(env *Env) Tri { return p.cond(env) }

// Value is the number the condition is about, for people: of a comparison the side that mentions a metric (the left one when
// both do), of "and" the first such value that is known, of "or" that of the first side that holds. It is finite, or NaN when
// nothing is known.
func (p *Program) Value(env *Env) float64 { return p.value(env) }

// Error is one fault in an expression. Offset and End are byte positions in the source, Offset <= End <= len(source).
type Error struct {
	Offset, End int
	Msg         string
}

func (e *Error) Error() string { return e.Msg }

// Compile parses and checks src, which must be a condition over at least one metric. It returns either a program or every fault
// found: the first fault of syntax, or all faults of type.
func Compile(src string) (*Program, []*Error) {
	n, err := parse(src)
	if err != nil {
		return nil, []*Error{err}
	}
	c := checker{}
	switch t := c.check(n); {
	case len(c.errs) > 0:
		return nil, c.errs
	case t == number:
		return nil, []*Error{n.errorf("want a condition such as %s, got a number", example(n))}
	case t != condition:
		return nil, []*Error{n.errorf("want a condition such as temperature > 20, got a %s", t)}
	case len(c.metrics) == 0:
		return nil, []*Error{n.errorf("the condition mentions no metric, so no message would ever have it evaluated")}
	}
	g := generator{slot: make(map[string]int, len(c.metrics))}
	for i, m := range c.metrics {
		g.slot[m] = i
	}
	return &Program{metrics: c.metrics, cond: g.cond(n), value: g.value(n)}, nil
}

func example(n *node) string {
	if n.kind == metricNode {
		return quoteName(n.name) + " > 0"
	}
	return "temperature > 20"
}

// known turns a result that is not finite into the unknown number.
func known(v float64) float64 {
	if v-v != 0 {
		return math.NaN()
	}
	return v
}
