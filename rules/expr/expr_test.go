package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// with makes an Env for p from metric values.
func with(p *Program, values map[string]float64) *Env {
	e := &Env{Binding: &Binding{}}
	for i, m := range p.Metrics() {
		v, ok := values[m]
		if !ok {
			v = math.NaN()
		}
		e.Values = append(e.Values, v)
		e.Times = append(e.Times, 0)
		e.Slots = append(e.Slots, int32(i))
	}
	for i, u := range p.Windows() {
		e.Windows = append(e.Windows, NewWindow(u))
		e.WindowSlots = append(e.WindowSlots, int32(i))
	}
	for i := range p.Feeds() {
		e.Feeds = append(e.Feeds, Feed{Value: math.NaN()})
		e.FeedSlots = append(e.FeedSlots, int32(i))
	}
	return e
}

func mustCompile(t testing.TB, src string) *Program {
	t.Helper()
	p, errs := Compile(src)
	if errs != nil {
		t.Fatalf("Compile(%.200q): %v", src, errs[0])
	}
	return p
}

func TestEval_FollowsPrecedenceAndThreeValuedLogic(t *testing.T) {
	values := map[string]float64{"a": 2, "b": 3, "zero": 0, "big": 1e308, "line-1.temp": 7, "température": 21, "neg": -4}
	for _, c := range []struct {
		src   string
		want  Tri
		value float64 // NaN: unknown
	}{
		{"a > 1", True, 2},
		{"a > 2", False, 2},
		{"a >= 2", True, 2},
		{"a < 2", False, 2},
		{"a <= 2", True, 2},
		{"a == 2", True, 2},
		{"a != 2", False, 2},
		{"1 < a", True, 2},
		{"b > a", True, 3},
		{"a >= b", False, 2},
		{"a <= b", True, 2},
		{"a == b", False, 2},
		{"a != b", True, 2},
		{"b < a", False, 3},
		{"a + b * 2 == 8", True, 8},
		{"(a + b) * 2 == 10", True, 10},
		{"a - b - 1 == -2", True, -2},
		{"b / a / 2 == 0.75", True, 0.75},
		{"b % 2 == 1", True, 1},
		{"neg % 3 == -1", True, -1},
		{"-a < -1.5", True, -2},
		{"- - a == 2", True, 2},
		{"abs(neg) == 4", True, 4},
		{"not a > 1", False, 2},
		{"not not a > 1", True, 2},
		{"a > 1 and b > 5 or a > 0", True, 2},
		{"a > 5 and b > 5 or a > 5", False, 2},
		{"a > 1 or b > 1 and a > 5", True, 2},
		{"not a > 5 and b > 5", False, 2},
		{"a > 5 or b > 2", True, 3},
		{"`line-1.temp` > 6", True, 7},
		{"température > 20", True, 21},
		{"a>1 and(b>1)", True, 2},
		{"a > 1e-3 and a < 2.5E+1 and a > .5", True, 2},
		{"a < 60 * 60 * 24", True, 2},
		{"a ==\n\t2", True, 2},

		{"nothing > 1", Unknown, math.NaN()},
		{"not nothing > 1", Unknown, math.NaN()},
		{"nothing > 1 and a > 1", Unknown, 2},
		{"a > 1 and nothing > 1", Unknown, 2},
		{"nothing > 1 and a > 5", False, 2},
		{"a > 5 and nothing > 1", False, 2},
		{"nothing > 1 or a > 1", True, 2},
		{"a > 1 or nothing > 1", True, 2},
		{"nothing > 1 or a > 5", Unknown, 2},
		{"a > 5 or nothing > 1", Unknown, 2},
		{"nothing == nothing", Unknown, math.NaN()},
		{"nothing != 1", Unknown, math.NaN()},
		{"a / zero > 1", Unknown, math.NaN()},
		{"zero / zero == 1", Unknown, math.NaN()},
		{"a % zero == 0", Unknown, math.NaN()},
		{"big * 10 > 1", Unknown, math.NaN()},
		{"1 / (big * 10) == 0", Unknown, math.NaN()},
		{"big + big > 0", Unknown, math.NaN()},
		{"-big - big < 0", Unknown, math.NaN()},
		{"abs(nothing) >= 0", Unknown, math.NaN()},
	} {
		p := mustCompile(t, c.src)
		e := with(p, values)
		if got := p.Eval(e); got != c.want {
			t.Errorf("Eval(%q) = %v, want %v", c.src, got, c.want)
		}
		if got := p.Value(e); got != c.value && !(math.IsNaN(got) && math.IsNaN(c.value)) {
			t.Errorf("Value(%q) = %v, want %v", c.src, got, c.value)
		}
	}
}

func TestCompile_ErrorsPointAndTeach(t *testing.T) {
	for _, c := range []struct {
		src    string
		offset int
		msg    string // part of it
	}{
		{"", 0, "empty"},
		{"  ", 0, "empty"},
		{"temperature", 0, "want a condition such as temperature > 0, got a number"},
		{"5", 0, "want a condition such as temperature > 20, got a number"},
		{"1 > 0", 0, "mentions no metric"},
		{"a > 1 and temperature", 10, "and wants a condition such as temperature > 0, got a number"},
		{"a or b", 0, "or wants a condition"},
		{"not a", 4, "not wants a condition"},
		{"(a > 1) + 2 > 3", 0, "+ wants a number, got a condition"},
		{"(a > 1) == (b > 1)", 0, "== wants a number, got a condition"},
		{"-(a > 1) > 0", 1, "- wants a number, got a condition"},
		{"abs(a > 1) > 0", 4, "abs wants a number"},
		{"abs() > a", 0, "abs wants a number, as in abs(current)"},
		{"abs(a, a) > a", 7, "abs wants a number"},
		{"1 < a < 5", 6, "comparisons do not chain"},
		{"a = 1", 2, `write "=="`},
		{"a > 1 && b > 1", 6, `write "and"`},
		{"a > 1 || b > 1", 6, `write "or"`},
		{"!a", 0, `write "not"`},
		{"a > 'x'", 4, "backquotes"},
		{"a > $value", 4, "unexpected character '$'"},
		{"a > 1 b", 6, `want an operator or the end of the expression, got "b"`},
		{"a >", 3, "want a number or a metric, got the end of the expression"},
		{"a > and", 4, `want a number or a metric, got "and"`},
		{"(a > 1", 0, "no closing )"},
		{"(a > 1 b", 7, `want an operator or ")", got "b"`},
		{"abs(a > 1", 3, "no closing )"},
		{"a > 1)", 5, `got ")"`},
		{"`a > 1", 0, "no closing `"},
		{"`` > 1", 0, "want a metric name"},
		{`"x" > a`, 0, "fits only last"},
		{"a / 0 > 1", 4, "division by zero"},
		{"a % (1 - 1) > 1", 4, "division by zero"},
		{"a > 1e999", 4, "out of range"},
		{"a > 1e308 * 10", 4, "out of range"},
		{"a > 1.", 4, "bad number"},
		{"a > 1.2.3", 4, "bad number"},
		{"a > 12abc", 4, "bad number"},
		{"a > 5x", 4, "bad number"},
		{"a > 1and b > 1", 4, "bad number"},
		{"a > 1m1h", 4, `bad duration "1m1h"`},
		{"a > 5m", 4, "the duration 5m fits only"},
		{"rate(a) > 0.5", 0, "rate wants a metric and a duration, as in rate(temperature, 1m)"},
		{"rate(1m, a) > 0.5", 5, "rate wants a metric and a duration"},
		{"rate(a + 1, 1m) > 0.5", 5, "rate wants a metric and a duration"},
		{"rate(a, 60) > 0.5", 8, "rate wants a metric and a duration"},
		{"rate(a, 1m, 2m) > 0.5", 12, "rate wants a metric and a duration"},
		{"avg(a, 0s) > 1", 7, "longer than 0"},
		{"rate(a, 1m)", 0, "want a condition such as rate(temperature, 1m) > 0, got a number"},
		{"quantile(a, 0.95, 5m) > 1", 9, "quantile wants a number from 0 to 1, a metric and a duration, as in quantile(0.95, latency, 5m)"},
		{"quantile(95, a, 5m) > 1", 9, "number from 0 to 1"},
		{"quantile(-0.1, a, 5m) > 1", 9, "number from 0 to 1"},
		{"quantile(1 - a, a, 5m) > 1", 9, "number from 0 to 1"},
		{"age(a, 5m) > 1", 7, "age wants a metric, as in age(temperature)"},
		{"last(a > 1) > 1", 5, "last wants a metric; or a metric and a duration; or a selector of devices and a metric; or"},
		{`last("device=x", 5m) > a`, 17, "last wants"},
		{"a > 1 and hour(a) >= 6", 15, "hour wants no argument, as in hour()"},
		{"weekday() == 1", 0, "mentions no metric of the device itself"},
		{`last("device=x", a) > 1`, 0, "mentions no metric of the device itself"},
		{`last("device=x", a, 0s) > b`, 20, "longer than 0"},
		{"foo(a) > 1", 0, "unknown function foo: there are abs, rate"},
		{"foo(a + (b > 1)) > 1", 8, "+ wants a number"},
		{"averag(a, 5m) > 1", 0, "unknown function averag: there are"},
		{"agv(a, 5m) > 1", 0, "unknown function agv: did you mean avg?"},
		{"a > 1 and hours() > 1", 10, "unknown function hours: did you mean hour?"},
		{"a > 1 and hour() and a > 2", 10, "and wants a condition such as hour() > 0, got a number"},
		{manyWindows(MaxUses + 1), 19 * MaxUses, "the limit is 16 pairs of a metric and a duration"},
		{"a > \xff", 4, "not valid UTF-8"},
		{strings.Repeat("(", 100) + "a" + strings.Repeat(")", 100) + " > 1", 64, "nested too deeply"},
		{strings.Repeat("not ", 100) + "a > 1", 4 * 64, "nested too deeply"},
		{strings.Repeat("-", 100) + "a > 1", 64, "nested too deeply"},
		{"a" + strings.Repeat("+1", 1000) + " > 1", 0, "too large"},
		{"a > 1" + strings.Repeat(" ", MaxSource), 0, "too long"},
	} {
		p, errs := Compile(c.src)
		if len(errs) == 0 {
			t.Errorf("Compile(%.40q) = %v, want an error with %q", c.src, p, c.msg)
			continue
		}
		if e := errs[0]; e.Offset != c.offset || !strings.Contains(e.Msg, c.msg) {
			t.Errorf("Compile(%.40q): %q at %d, want %q at %d", c.src, e.Msg, e.Offset, c.msg, c.offset)
		}
	}
}

// manyWindows is a condition over n windows, each written in 19 bytes.
func manyWindows(n int) string {
	var parts []string
	for i := range n {
		parts = append(parts, fmt.Sprintf("avg(a, %02dm) < 1", i+1))
	}
	return strings.Join(parts, " or ")
}

func TestCompile_ReportsEveryTypeError(t *testing.T) {
	_, errs := Compile("a and (b > 1) + 1 > rate(c, 1)")
	var at []int
	for _, e := range errs {
		at = append(at, e.Offset)
	}
	if !slices.Equal(at, []int{0, 6, 28}) {
		t.Errorf("errors at %v, want at 0, 6, 28: %v", at, errs)
	}
}

func TestMetrics_AreListedOnceInOrderOfMention(t *testing.T) {
	p := mustCompile(t, "b > a and a > c or b > 1")
	if want := []string{"b", "a", "c"}; !slices.Equal(p.Metrics(), want) {
		t.Errorf("Metrics() = %v, want %v", p.Metrics(), want)
	}
}

func TestCompile_LongestAllowedChainsWork(t *testing.T) {
	for _, src := range []string{
		"a" + strings.Repeat("+1", 498) + " > 1",
		"a>1" + strings.Repeat(" or a>1", 249),
		"a>1" + strings.Repeat(" and a>1", 249),
		"a>1" + strings.Repeat(" and (a>1) and not -abs(a) > 1", 80),
		strings.Repeat("(", MaxDepth) + "a > 1" + strings.Repeat(")", MaxDepth),
	} {
		p := mustCompile(t, src)
		if got := p.Eval(with(p, map[string]float64{"a": 2})); got != True {
			t.Errorf("Eval(%.40q...) = %v", src, got)
		}
	}
}

func TestValue_OfNestedOrsTakesNoExponentialTime(t *testing.T) {
	for _, src := range []string{
		strings.Repeat("a > 1 or (", 60) + "a > 1" + strings.Repeat(")", 60),
		strings.Repeat("(", 60) + "a > 1" + strings.Repeat(" or a > 1)", 60),
		strings.Repeat("a > 1 and (b > 1 or (", 30) + "a > 1" + strings.Repeat("))", 30),
	} {
		p := mustCompile(t, src)
		done := make(chan float64)
		go func() { done <- p.Value(with(p, nil)) }()
		select {
		case v := <-done:
			if !math.IsNaN(v) {
				t.Errorf("Value(%.30q...) = %v, want unknown", src, v)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("Value(%.30q...) takes more than 10 s", src)
		}
	}
}

func TestParseDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "5m": 5 * time.Minute, "1h30m": 90 * time.Minute, "5d": 120 * time.Hour, "1w2d": 9 * 24 * time.Hour,
		"250ms": 250 * time.Millisecond, "1m500ms": time.Minute + 500*time.Millisecond, "0s": 0, "90m": 90 * time.Minute, "3650d": MaxDuration,
	} {
		if got, err := ParseDuration(s); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "30", "s", "5x", "-5m", "1.5h", "1m1h", "1m1m", " 5m", "5 m", "5M", "3651d", "3650d1ms", "99999999999999999999s",
		"9223372036854775807ms", "1d\x00", "١s"} {
		if got, err := ParseDuration(s); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", s, got)
		}
	}
}

// tree is a random expression with the plainest evaluation one can write: a pointer is known or nil.
type tree struct {
	op   string
	args []*tree
	num  float64
	name string
}

func (x *tree) text() string {
	switch {
	case x.op == "num":
		return fmt.Sprint(x.num)
	case x.op == "metric":
		return x.name
	case x.op == "abs":
		return "abs(" + x.args[0].text() + ")"
	case len(x.args) == 1:
		return "(" + x.op + " " + x.args[0].text() + ")"
	}
	return "(" + x.args[0].text() + " " + x.op + " " + x.args[1].text() + ")"
}

func (x *tree) number(values map[string]float64) *float64 {
	fine := func(v float64) *float64 {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil
		}
		return &v
	}
	switch x.op {
	case "num":
		return &x.num
	case "metric":
		if v, ok := values[x.name]; ok {
			return &v
		}
		return nil
	}
	var in []float64
	for _, a := range x.args {
		v := a.number(values)
		if v == nil {
			return nil
		}
		in = append(in, *v)
	}
	switch x.op {
	case "abs":
		return fine(math.Abs(in[0]))
	case "+":
		return fine(in[0] + in[1])
	case "*":
		return fine(in[0] * in[1])
	case "/":
		return fine(in[0] / in[1])
	case "%":
		return fine(math.Mod(in[0], in[1]))
	}
	if len(in) == 1 {
		return fine(-in[0])
	}
	return fine(in[0] - in[1])
}

// condition: nil is unknown.
func (x *tree) condition(values map[string]float64) *bool {
	yes, no := true, false
	switch x.op {
	case "not":
		if v := x.args[0].condition(values); v != nil {
			r := !*v
			return &r
		}
		return nil
	case "and", "or":
		decisive := x.op == "or"
		unknown := false
		for _, a := range x.args {
			switch v := a.condition(values); {
			case v == nil:
				unknown = true
			case *v == decisive:
				return v
			}
		}
		if unknown {
			return nil
		}
		if decisive {
			return &no
		}
		return &yes
	}
	l, r := x.args[0].number(values), x.args[1].number(values)
	if l == nil || r == nil {
		return nil
	}
	v := map[string]bool{"<": *l < *r, "<=": *l <= *r, ">": *l > *r, ">=": *l >= *r, "==": *l == *r, "!=": *l != *r}[x.op]
	return &v
}

func randomTree(t *rapid.T, depth int, cond bool) *tree {
	pick := func(names ...string) string { return rapid.SampledFrom(names).Draw(t, "op") }
	sub := func(op string, cond bool, n int) *tree {
		x := &tree{op: op}
		for range n {
			x.args = append(x.args, randomTree(t, depth-1, cond))
		}
		return x
	}
	if cond {
		if depth <= 1 {
			return sub(pick("<", "<=", ">", ">=", "==", "!="), false, 2)
		}
		switch op := pick("not", "and", "or", "<", "<=", ">", ">=", "==", "!="); op {
		case "not":
			return sub(op, true, 1)
		case "and", "or":
			return sub(op, true, 2)
		default:
			return sub(op, false, 2)
		}
	}
	op := "metric"
	if depth > 0 {
		op = pick("metric", "num", "+", "-", "*", "/", "%", "neg", "abs")
	}
	switch op {
	case "metric":
		return &tree{op: op, name: pick("m1", "m2", "m3", "m4")}
	case "num":
		return &tree{op: op, num: rapid.SampledFrom([]float64{0, 1, 2, 0.5, 1e300, 3}).Draw(t, "num")}
	case "neg":
		return sub("-", false, 1)
	case "abs":
		return sub(op, false, 1)
	}
	return sub(op, false, 2)
}

func TestEval_EqualsPlainInterpreter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := randomTree(t, 4, true)
		src := x.text()
		p, errs := Compile(src)
		if errs != nil {
			for _, e := range errs {
				if !strings.Contains(e.Msg, "division by zero") && !strings.Contains(e.Msg, "out of range") && !strings.Contains(e.Msg, "no metric") {
					t.Fatalf("Compile(%q): %s", src, e.Msg)
				}
			}
			return
		}
		values := map[string]float64{}
		for _, m := range p.Metrics() {
			if rapid.IntRange(0, 4).Draw(t, "known") > 0 {
				values[m] = rapid.SampledFrom([]float64{0, 1, -1, 2, 0.5, 3, -1e300, 1e300}).Draw(t, m)
			}
		}
		want := Unknown
		if v := x.condition(values); v != nil {
			want = truth(*v)
		}
		e := with(p, values)
		if got := p.Eval(e); got != want {
			t.Fatalf("Eval(%q) over %v = %v, want %v", src, values, got, want)
		}
		v := p.Value(e)
		if math.IsInf(v, 0) || want != Unknown && math.IsNaN(v) && !strings.Contains(src, "num") && len(values) == len(p.Metrics()) && !strings.ContainsAny(src, "/%*+-") {
			t.Fatalf("Value(%q) over %v = %v", src, values, v)
		}
	})
}

func FuzzCompile(f *testing.F) {
	for _, s := range []string{"temperature > -15", "rate(temperature, 1m) > 0.5 and hour() >= 6", "quantile(.9,a,5m)<1 or age(a)>30", "`a b` % 2 == 1 or not (x<1)", "1h30m", "((((", "a > 1e999",
		`last("x", y) > 1`, "abs(-x)*2>=y/3", "\xff", "a>1" + strings.Repeat(" or a>1", 200)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		p, errs := Compile(src)
		if (p == nil) == (len(errs) == 0) {
			t.Fatalf("Compile(%q) = %v, %v: want either a program or errors", src, p, errs)
		}
		for _, e := range errs {
			if e.Offset < 0 || e.Offset > e.End || e.End > len(src) || e.Msg == "" {
				t.Fatalf("Compile(%q): bad error %+v", src, e)
			}
		}
		if p == nil {
			return
		}
		for _, v := range []float64{math.NaN(), 0, -1, 1e308} {
			e := with(p, nil)
			for i := range e.Values {
				e.Values[i] = v
			}
			for i := range e.Windows {
				for k := range 3 * int64(v) % 5 {
					e.Windows[i].Add(k, k, v)
				}
			}
			if got := p.Eval(e); got > Unknown {
				t.Fatalf("Eval(%q) = %v", src, got)
			}
			if got := p.Value(e); math.IsInf(got, 0) {
				t.Fatalf("Value(%q) = %v", src, got)
			}
		}
	})
}

func TestEval_DoesNotAllocate(t *testing.T) {
	p := mustCompile(t, "a + b * 2 > 1 and not abs(a) < 1 or b == 3")
	e := with(p, map[string]float64{"a": 1, "b": 2})
	if n := testing.AllocsPerRun(100, func() { p.Eval(e); p.Value(e) }); n != 0 {
		t.Errorf("%v allocations an evaluation, want 0", n)
	}
}

func BenchmarkEval(b *testing.B) {
	for _, src := range []string{"temperature > 80", "temperature >= 80", "temperature > 80 and humidity < 30", "(a + b) / 2 - c > 5 or not abs(d) < 1",
		"temperature > 80 and hour() >= 6"} {
		b.Run(src, func(b *testing.B) {
			p := mustCompile(b, src)
			e := with(p, map[string]float64{"temperature": 81, "humidity": 20, "a": 1, "b": 2, "c": 3, "d": 4})
			b.ReportAllocs()
			for b.Loop() {
				p.Eval(e)
			}
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Compile("temperature > 80 and humidity < 30")
	}
}
