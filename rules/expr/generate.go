package expr

import (
	"math"
	"slices"
	"time"
)

// generator turns a checked tree into closures.
type generator struct{ uses *uses }

func (g *generator) slot(metric string) int { return slices.Index(g.uses.metrics, metric) }

// fold computes a subtree without metrics and without functions; ok is false for any other.
func fold(n *node) (v float64, ok bool) {
	switch n.kind {
	case numberNode:
		return n.num, true
	case unaryNode:
		if n.op == "-" {
			v, ok = fold(n.args[0])
			return -v, ok
		}
	case binaryNode:
		f := arithmetic(n.op)
		if f == nil {
			return 0, false
		}
		a, ok := fold(n.args[0])
		if !ok {
			return 0, false
		}
		b, ok := fold(n.args[1])
		return f(a, b), ok
	}
	return 0, false
}

func arithmetic(op string) func(a, b float64) float64 {
	switch op {
	case "+":
		return func(a, b float64) float64 { return a + b }
	case "-":
		return func(a, b float64) float64 { return a - b }
	case "*":
		return func(a, b float64) float64 { return a * b }
	case "/":
		return func(a, b float64) float64 { return a / b }
	case "%":
		return math.Mod
	}
	return nil
}

func (g *generator) num(n *node) numFunc {
	if v, ok := fold(n); ok {
		return func(*Env) float64 { return v }
	}
	switch n.kind {
	case metricNode:
		i := g.slot(n.name)
		return func(e *Env) float64 { return e.Values[e.Slots[i]] }
	case unaryNode:
		a := g.num(n.args[0])
		return func(e *Env) float64 { return -a(e) }
	case callNode:
		return g.call(n)
	}
	a, b := g.num(n.args[0]), g.num(n.args[1])
	switch n.op {
	case "+":
		return func(e *Env) float64 { return known(a(e) + b(e)) }
	case "-":
		return func(e *Env) float64 { return known(a(e) - b(e)) }
	case "*":
		return func(e *Env) float64 { return known(a(e) * b(e)) }
	case "/":
		return func(e *Env) float64 { return known(a(e) / b(e)) }
	}
	return func(e *Env) float64 { return math.Mod(a(e), b(e)) }
}

func (g *generator) call(n *node) numFunc {
	f, use := n.fn, n.use
	switch {
	case f.number != nil:
		a := g.num(n.args[0])
		return func(e *Env) float64 { return f.number(a(e)) }
	case f.wall != nil:
		return func(e *Env) float64 {
			t := time.Unix(0, e.Wall).UTC()
			if e.Zone != nil {
				t = t.In(e.Zone)
			}
			return float64(f.wall(t))
		}
	case f.window != nil:
		of := f.window
		return func(e *Env) float64 { return of(&e.Windows[e.WindowSlots[use]], e.Now) }
	case f.ranks != nil:
		q := n.num
		return func(e *Env) float64 { return e.Windows[e.WindowSlots[use]].quantile(q, e.Now) }
	case n.age:
		i := g.slot(n.args[0].name)
		return func(e *Env) float64 {
			k := e.Slots[i]
			if v := e.Values[k]; v != v {
				return v
			}
			return float64(max(e.Now-e.Times[k], 0)) / 1e9
		}
	case n.args[0].kind == stringNode:
		most := int64(n.num) // 0: however old
		return func(e *Env) float64 {
			f := &e.Feeds[e.FeedSlots[use]]
			if most > 0 && e.Now-f.Time >= most {
				return math.NaN()
			}
			return f.Value
		}
	case len(n.args) == 2:
		return func(e *Env) float64 { return e.Windows[e.WindowSlots[use]].last(e.Now) }
	}
	return g.num(n.args[0])
}

func (g *generator) cond(n *node) condFunc {
	switch n.op {
	case "not":
		a := g.cond(n.args[0])
		return func(e *Env) Tri { return [...]Tri{True, False, Unknown}[a(e)] }
	case "and":
		a, b := g.cond(n.args[0]), g.cond(n.args[1])
		return func(e *Env) Tri {
			l := a(e)
			if l == False {
				return False
			}
			r := b(e)
			if r == False || l == True {
				return r
			}
			return Unknown
		}
	case "or":
		a, b := g.cond(n.args[0]), g.cond(n.args[1])
		return func(e *Env) Tri {
			l := a(e)
			if l == True {
				return True
			}
			r := b(e)
			if r == True || l == False {
				return r
			}
			return Unknown
		}
	}
	if c, ok := fold(n.args[1]); ok && n.args[0].kind == metricNode {
		return threshold(n.op, g.slot(n.args[0].name), c)
	}
	return compare(n.op, g.num(n.args[0]), g.num(n.args[1]))
}

func truth(b bool) Tri {
	if b {
		return True
	}
	return False
}

// threshold is the common case of compare: a metric against a constant, in one closure.
func threshold(op string, slot int, c float64) condFunc {
	var keep func(v float64) bool
	switch op {
	case ">":
		return func(e *Env) Tri {
			v := e.Values[e.Slots[slot]]
			if v != v {
				return Unknown
			}
			return truth(v > c)
		}
	case "<":
		return func(e *Env) Tri {
			v := e.Values[e.Slots[slot]]
			if v != v {
				return Unknown
			}
			return truth(v < c)
		}
	case ">=":
		keep = func(v float64) bool { return v >= c }
	case "<=":
		keep = func(v float64) bool { return v <= c }
	case "==":
		keep = func(v float64) bool { return v == c }
	default:
		keep = func(v float64) bool { return v != c }
	}
	return func(e *Env) Tri {
		v := e.Values[e.Slots[slot]]
		if v != v {
			return Unknown
		}
		return truth(keep(v))
	}
}

func compare(op string, a, b numFunc) condFunc {
	var holds func(l, r float64) bool
	switch op {
	case ">":
		holds = func(l, r float64) bool { return l > r }
	case "<":
		holds = func(l, r float64) bool { return l < r }
	case ">=":
		holds = func(l, r float64) bool { return l >= r }
	case "<=":
		holds = func(l, r float64) bool { return l <= r }
	case "==":
		holds = func(l, r float64) bool { return l == r }
	default:
		holds = func(l, r float64) bool { return l != r }
	}
	return func(e *Env) Tri {
		l, r := a(e), b(e)
		if l != l || r != r {
			return Unknown
		}
		return truth(holds(l, r))
	}
}

// value follows Program.Value's contract. It is nil for a subtree without a metric.
func (g *generator) value(n *node) numFunc {
	switch n.op {
	case "not":
		return g.value(n.args[0])
	case "and":
		a, b := g.value(n.args[0]), g.value(n.args[1])
		if a == nil || b == nil {
			return either(a, b)
		}
		return func(e *Env) float64 {
			if v := a(e); v == v {
				return v
			}
			return b(e)
		}
	case "or":
		a, b := g.value(n.args[0]), g.value(n.args[1])
		if a == nil || b == nil {
			return either(a, b)
		}
		holds := g.cond(n.args[0])
		return func(e *Env) float64 {
			first, second := a, b
			if holds(e) != True {
				first, second = b, a
			}
			if v := first(e); v == v { // each side once: nested ors must not double the work
				return v
			}
			return second(e)
		}
	}
	for _, side := range n.args {
		if mentionsMetric(side) {
			return g.num(side)
		}
	}
	return nil
}

func either(a, b numFunc) numFunc {
	if a == nil {
		return b
	}
	return a
}

// mentionsMetric tells whether a metric of the device itself is in the subtree.
func mentionsMetric(n *node) bool {
	if n.kind == callNode && len(n.args) > 0 && n.args[0].kind == stringNode {
		return false
	}
	return n.kind == metricNode || slices.ContainsFunc(n.args, mentionsMetric)
}
