package telemetry

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func aggregateOf(times []int64, values []float64) Aggregate {
	var a Aggregate
	for i := range times {
		a.AddSketched(times[i], values[i])
	}
	return a
}

func near(a, b float64) bool {
	return a == b || math.Abs(a-b) <= 1e-9*math.Max(1, math.Max(math.Abs(a), math.Abs(b)))
}

func TestAggregate_AgreesWithTheTextbook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 1, 50).Draw(t, "values")
		times := rapid.SliceOfN(rapid.Int64Range(0, 20), len(values), len(values)).Draw(t, "times")
		a := aggregateOf(times, values)

		sum, lo, hi := 0.0, values[0], values[0]
		first, last := 0, 0
		for i, v := range values {
			sum += v
			lo, hi = min(lo, v), max(hi, v)
			if times[i] < times[first] {
				first = i
			}
			if times[i] >= times[last] {
				last = i
			}
		}
		mean, sq := sum/float64(len(values)), 0.0
		for _, v := range values {
			sq += (v - mean) * (v - mean)
		}
		if a.Count != uint64(len(values)) || !near(a.Total(), sum) || a.Min != lo || a.Max != hi || !near(a.Mean(), mean) {
			t.Fatalf("got %+v, want count %d sum %g min %g max %g mean %g", a, len(values), sum, lo, hi, mean)
		}
		if a.First != values[first] || a.Last != values[last] {
			t.Fatalf("first %g last %g, want %g %g", a.First, a.Last, values[first], values[last])
		}
		if want := math.Sqrt(sq / float64(len(values))); math.Abs(a.Stddev()-want) > 1e-6*math.Max(1, hi-lo) {
			t.Fatalf("stddev %g, want %g", a.Stddev(), want)
		}
	})
}

func TestAggregate_MergeOfPartsIsTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 2, 50).Draw(t, "values")
		times := rapid.SliceOfN(rapid.Int64Range(0, 20), len(values), len(values)).Draw(t, "times")
		cut := rapid.IntRange(0, len(values)).Draw(t, "cut")
		whole := aggregateOf(times, values)
		got := aggregateOf(times[:cut], values[:cut])
		got.Merge(aggregateOf(times[cut:], values[cut:]))
		for _, s := range Stats {
			g, _ := got.Stat(s)
			w, _ := whole.Stat(s)
			if math.Abs(g-w) > 1e-6*math.Max(1, math.Abs(w)) {
				t.Fatalf("%s: merged %g, whole %g", s, g, w)
			}
		}
	})
}

func TestAggregate_HugeValuesStayFinite(t *testing.T) {
	a := aggregateOf([]int64{1, 2, 3}, []float64{math.MaxFloat64, math.MaxFloat64, -math.MaxFloat64})
	for _, s := range Stats {
		if v, ok := a.Stat(s); !ok || math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("%s = %g, %v", s, v, ok)
		}
	}
}

func TestAggregate_SumKeepsWhatNaiveAdditionLoses(t *testing.T) {
	// Neumaier's example: plain summation gives 0.
	a := aggregateOf([]int64{1, 2, 3, 4}, []float64{1, 1e100, 1, -1e100})
	if a.Total() != 2 {
		t.Errorf("sum = %g, want 2", a.Total())
	}
}

func TestPoint_SurvivesItsBinaryForm(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringN(1, 8, 20)
		p := Point{
			Measurement: text.Draw(t, "measurement"),
			Labels:      LabelsFromMap(rapid.MapOf(text, text).Draw(t, "labels")),
			Time:        rapid.Int64().Draw(t, "time"),
			Stats:       []Stat{StatCount, StatMean},
		}
		for i := range rapid.IntRange(0, 4).Draw(t, "metrics") {
			n := rapid.IntRange(1, 3).Draw(t, "n")
			m := MetricAggregate{Metric: string(rune('a' + i))}
			for range n {
				at, v := rapid.Int64Range(0, 1e18).Draw(t, "t"), rapid.Float64Range(-1e9, 1e9).Draw(t, "v")
				if i%2 == 0 {
					m.AddSketched(at, v)
				} else {
					m.Add(at, v)
				}
			}
			p.Aggregates = append(p.Aggregates, m)
			p.Fields = append(p.Fields, Field{Name: m.Metric, Value: m.Last})
		}
		b := MarshalPoint(nil, &p)
		var got Point
		if err := ParsePoint(b, &got); err != nil {
			t.Fatalf("ParsePoint: %v", err)
		}
		if again := MarshalPoint(nil, &got); string(again) != string(b) {
			t.Fatalf("round trip changed the point: %+v, was %+v", got, p)
		}
		for i := range p.Aggregates {
			for _, s := range Stats {
				g, _ := got.Aggregates[i].Stat(s)
				w, _ := p.Aggregates[i].Stat(s)
				if g != w {
					t.Fatalf("%s of %s: %g, was %g", s, p.Aggregates[i].Metric, g, w)
				}
			}
		}
	})
}

func FuzzParsePoint(f *testing.F) {
	p := Point{Measurement: "m", Labels: NewLabels(Label{"a", "b"}), Time: 1, Window: 10, Stats: Stats, Fields: []Field{{"x", 1}}}
	m := MetricAggregate{Metric: "t"}
	m.Add(1, 2)
	p.Aggregates = append(p.Aggregates, m)
	f.Add(MarshalPoint(nil, &p))
	s := MetricAggregate{Metric: "s"}
	s.AddSketched(1, 2)
	s.AddSketched(2, -2)
	p.Aggregates = append(p.Aggregates, s)
	f.Add(MarshalPoint(nil, &p))
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Point
		if ParsePoint(b, &p) == nil {
			var q Point
			if err := ParsePoint(MarshalPoint(nil, &p), &q); err != nil {
				t.Fatalf("accepted point does not survive: %v", err)
			}
		}
	})
}

func TestLabels_LastOfEqualNamesWinsAndEmptyOnesGo(t *testing.T) {
	l := NewLabels(Label{"b", "1"}, Label{"a", "x"}, Label{"b", "2"}, Label{"c", ""})
	if got := l.String(); got != `{a="x", b="2"}` {
		t.Errorf("got %s", got)
	}
	if string(NewLabels(Label{"a", "bc"}).AppendKey(nil)) == string(NewLabels(Label{"ab", "c"}).AppendKey(nil)) {
		t.Error("different labels share a key")
	}
}

func TestWindowLabel(t *testing.T) {
	for d, want := range map[int64]string{1e9: "1s", 10e9: "10s", 60e9: "1m", 90e9: "90s", 3600e9: "1h", 500e6: "500ms"} {
		if got := WindowLabel(time.Duration(d)); got != want {
			t.Errorf("WindowLabel(%d) = %s, want %s", d, got, want)
		}
	}
}
