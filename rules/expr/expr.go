// Package expr compiles the condition language of alert rules: numbers, metric names, functions over time, other devices' values,
// the time of day, arithmetic, comparisons, and, or, not.
//
// The language has no loops, no assignment and no calls that take time: the cost of a Program is bounded by the length of its
// source. A Program is pure: what it yields depends on its Env alone. The package does no I/O, reads no clock, starts no goroutine.
//
// Logic is three-valued (Kleene 1952, Introduction to Metamathematics, §64): a metric the device never sent, a division by
// zero and a result beyond the range of a float64 are unknown; a comparison with an unknown side is unknown; "and" and "or" are
// unknown only where the unknown side would decide.
package expr

import (
	"math"
	"time"
)

// Bounds on one expression. They bound the stack, the time to compile and the time to evaluate.
const (
	MaxSource = 4096 // bytes
	MaxDepth  = 64   // nested parentheses, nots, signs and calls
	MaxNodes  = 1000 // operands and operators
	MaxUses   = 16   // windows (pairs of a metric and a duration) of one expression, and values of other devices
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
// never sent it; values are otherwise finite. Times holds the event times of the values. Windows[WindowSlots[i]] and
// Feeds[FeedSlots[i]] belong to Program.Windows()[i] and Program.Feeds()[i] in the same way; what a program does not use may be nil.
type Env struct {
	Values  []float64
	Times   []int64
	Windows []Window
	Feeds   []Feed
	*Binding
	Now  int64          // ns on the clock of Times and of windows, which is never set back
	Wall int64          // ns since the Unix epoch, for hour and weekday
	Zone *time.Location // of hour and weekday; nil: UTC
}

// Binding says where in an Env a program finds what it reads.
type Binding struct{ Slots, WindowSlots, FeedSlots []int32 }

// Feed is the newest value of some metric among devices that a selector matches.
type Feed struct {
	Value float64 // NaN: none yet
	Time  int64   // event time
}

// WindowUse is a window that a program reads.
type WindowUse struct {
	Metric string
	Span   time.Duration
	Ranks  bool // for quantile
}

// FeedUse is a value of other devices that a program reads. Selector is as written, at byte Offset of the source.
type FeedUse struct {
	Selector string
	Metric   string
	Offset   int
}

// Mention says where a metric stands in the source; Other tells that it is another device's.
type Mention struct {
	Metric string
	Offset int
	Other  bool
}

// Program is a compiled condition. It is immutable and safe for concurrent use.
type Program struct {
	uses
	cond  condFunc
	value numFunc
}

// uses is what a program reads.
type uses struct {
	metrics  []string
	mentions []Mention
	windows  []WindowUse
	feeds    []FeedUse
	every    time.Duration // 0: depends on messages alone
	clock    bool          // depends on the time even when no window holds a point
}

type (
	condFunc func(*Env) Tri
	numFunc  func(*Env) float64 // NaN: unknown
)

// Metrics lists the metrics of the device that the program reads, each once, in order of first mention. The caller must not
// change it, nor what the next methods return.
func (p *Program) Metrics() []string { return p.metrics }

// Mentions lists every place where a metric is named.
func (p *Program) Mentions() []Mention { return p.mentions }

// Windows lists the windows the program reads, each metric and duration once.
func (p *Program) Windows() []WindowUse { return p.windows }

// Feeds lists the values of other devices the program reads, each once.
func (p *Program) Feeds() []FeedUse { return p.feeds }

// Every is how often the condition is to be evaluated while no message comes, because time alone can change it: 0 for never, else
// a sixtieth of the shortest duration in it, at least a second and at most a minute; 15 minutes for hour and weekday alone.
func (p *Program) Every() time.Duration { return p.every }

// Settled tells whether time alone cannot change the condition before the next message.
func (p *Program) Settled(env *Env) bool {
	if p.clock {
		return false
	}
	for i := range p.windows {
		if !env.Windows[env.WindowSlots[i]].Empty(env.Now) {
			return false
		}
	}
	return true
}

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
	t := c.check(n)
	if len(c.ages) > 0 {
		c.tick(ageEvery)
	}
	switch {
	case len(c.errs) > 0:
		return nil, c.errs
	case t == number:
		return nil, []*Error{n.errorf("want a condition such as %s, got a number", example(n))}
	case t != condition:
		return nil, []*Error{n.errorf("want a condition such as temperature > 20, got a %s", t)}
	case len(c.metrics) == 0:
		return nil, []*Error{n.errorf("the condition mentions no metric of the device itself, so no message would ever have it evaluated")}
	}
	g := generator{uses: &c.uses}
	return &Program{uses: c.uses, cond: g.cond(n), value: g.value(n)}, nil
}

func example(n *node) string {
	if n.kind == callNode && functionNamed(n.name) != nil {
		return functionNamed(n.name).example + " > 0"
	}
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
