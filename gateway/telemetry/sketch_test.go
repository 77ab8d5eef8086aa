package telemetry

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/DataDog/sketches-go/ddsketch"
	"pgregory.net/rapid"
)

func sketchOf(values []float64) *Sketch {
	s := &Sketch{}
	for _, v := range values {
		s.Add(v)
	}
	return s
}

var quantiles = []float64{0, 0.1, 0.5, 0.9, 0.95, 0.99, 1}

func TestSketch_QuantilesAreWithinOnePercentOfTheValueAtThatRank(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(-1000, 1000), rapid.Float64Range(-1e-3, 1e-3), rapid.Just(0.0)), 1, 200).Draw(t, "values")
		s := sketchOf(values)
		slices.Sort(values)
		for _, q := range quantiles {
			want := values[int(q*float64(len(values)-1))]
			if got := s.Quantile(q); math.Abs(got-want) > SketchAccuracy*math.Abs(want)*(1+1e-9)+3e-308 { // subnormal numbers count as 0
				t.Fatalf("quantile %g of %d values: %g, want %g", q, len(values), got, want)
			}
		}
	})
}

// The reference is the library's own sketch.
func TestSketch_AgreesWithTheLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 50 {
		ref, err := ddsketch.NewDefaultDDSketch(SketchAccuracy)
		if err != nil {
			t.Fatal(err)
		}
		s := &Sketch{}
		for range 1 + r.IntN(2000) {
			v := math.Abs(r.NormFloat64()) * math.Pow(10, float64(r.IntN(6)-2)) // it rounds ranks of negative values the other way
			if err := ref.Add(v); err != nil {
				t.Fatal(err)
			}
			s.Add(v)
		}
		for _, q := range quantiles {
			want, err := ref.GetValueAtQuantile(q)
			if got := s.Quantile(q); err != nil || got != want {
				t.Errorf("quantile %g of %d values: %g, the library says %g (%v)", q, s.Count(), got, want, err)
			}
		}
	}
}

func TestSketch_MergeOfPartsIsTheWholeWhateverTheOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Float64Range(-1e6, 1e6), 0, 80).Draw(t, "values")
		cut := rapid.IntRange(0, len(values)).Draw(t, "cut")
		a, b := sketchOf(values[cut:]), sketchOf(values[:cut])
		a.Merge(b)
		if got, want := a.append(nil), sketchOf(values).append(nil); string(got) != string(want) {
			t.Fatalf("merged %v, whole %v", got, want)
		}
	})
}

func TestSketch_IsBoundedAndKeepsTheOuterQuantiles(t *testing.T) {
	s := &Sketch{}
	for e := -300.0; e < 300; e += 0.005 {
		s.Add(math.Pow(10, e))
		s.Add(-math.Pow(10, e))
	}
	if len(s.bins) > maxBins || s.Count() < 240_000 {
		t.Fatalf("%d bins, %d values", len(s.bins), s.Count())
	}
	for q, want := range map[float64]float64{0.998: math.Pow(10, 297.6), 0.002: -math.Pow(10, 297.6)} {
		if got := s.Quantile(q); math.Abs(math.Log10(got/want)) > 0.02 {
			t.Errorf("quantile %g: %g, want about %g", q, got, want)
		}
	}
	if !slices.IsSortedFunc(s.bins, func(a, b bin) int { return int(a.key) - int(b.key) }) {
		t.Error("bins are out of order")
	}
}

func TestSketch_HugeAndTinyValuesStayFinite(t *testing.T) {
	s := sketchOf([]float64{math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 0, 1})
	for _, q := range quantiles {
		if v := s.Quantile(q); math.IsNaN(v) || math.IsInf(v, 0) {
			t.Errorf("quantile %g = %g", q, v)
		}
	}
}

func TestAggregate_QuantilesNeedEveryReading(t *testing.T) {
	var whole, part Aggregate
	whole.AddSketched(1, 5)
	whole.AddSketched(2, 7)
	part.Add(3, 9)
	if v, ok := whole.Stat(StatP50); !ok || v < 4.95 || v > 5.05 {
		t.Errorf("p50 = %g, %v", v, ok)
	}
	if v, ok := whole.Stat(StatP99); !ok || v > whole.Max {
		t.Errorf("p99 = %g, %v: above the highest reading", v, ok)
	}
	shared := whole
	whole.Merge(part)
	if _, ok := whole.Stat(StatP50); ok {
		t.Error("a quantile of some of the readings passes for one of all")
	}
	if v, ok := shared.Stat(StatP50); !ok || v > 5.05 {
		t.Errorf("a merge changed another aggregate: %g, %v", v, ok)
	}
	var into Aggregate
	into.Merge(shared)
	into.AddSketched(4, 100)
	if shared.sketch.Count() != 2 {
		t.Error("a merge shares its sketch")
	}
}

func TestPoint_VersionOneIsReadAsBefore(t *testing.T) {
	p := Point{Measurement: "m", Window: 10, Stats: []Stat{StatCount}}
	m := MetricAggregate{Metric: "t"}
	m.Add(1, 2)
	m.Add(2, 3)
	p.Aggregates = append(p.Aggregates, m)
	b := MarshalPoint(nil, &p)
	if b[0] != pointVersion {
		t.Errorf("version %d of a point without sketches", b[0])
	}
	var got Point
	if err := ParsePoint(b, &got); err != nil || got.Aggregates[0].Count != 2 {
		t.Errorf("%v %+v", err, got)
	}
	p.Aggregates[0].AddSketched(3, 4) // too late: it has readings without
	if MarshalPoint(nil, &p)[0] != pointVersion {
		t.Error("a sketch of some of the readings is stored")
	}
}

func BenchmarkAggregate_AddSketched(b *testing.B) {
	values := make([]float64, 1024)
	for i := range values {
		values[i] = 20 + rand.Float64()
	}
	b.ReportAllocs()
	var a Aggregate
	for i := 0; b.Loop(); i++ {
		a.AddSketched(int64(i), values[i%1024])
	}
}
