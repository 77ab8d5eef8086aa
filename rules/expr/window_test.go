package expr

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"

	"sluice/gateway/telemetry"
)

type point struct {
	t int64
	v float64
}

// naive keeps every point and looks at all of them.
type naive struct {
	span, seen int64
	all        []point
}

func (n *naive) inside(now int64) []point {
	if len(n.all) == 0 {
		return nil
	}
	oldest := n.all[len(n.all)-1].t + max(now-n.seen, 0) - n.span
	var in []point
	for _, p := range n.all {
		if p.t > oldest {
			in = append(in, p)
		}
	}
	return in
}

// results computes every function the plain way; NaN is unknown.
func (n *naive) results(now int64) map[string]float64 {
	nan := math.NaN()
	in := n.inside(now)
	r := map[string]float64{"rate": nan, "delta": nan, "avg": nan, "min": nan, "max": nan, "sum": nan, "count": float64(len(in)), "stddev": nan, "last": nan, "q0": nan, "q50": nan, "q95": nan, "q100": nan}
	if len(n.all) == 0 {
		r["count"] = nan
	}
	if len(in) == 0 {
		return r
	}
	var values []float64
	sum := 0.0
	for _, p := range in {
		values = append(values, p.v)
		sum += p.v
	}
	mean, m2 := sum/float64(len(in)), 0.0
	for _, v := range values {
		m2 += (v - mean) * (v - mean)
	}
	r["sum"], r["avg"], r["stddev"] = sum, mean, math.Sqrt(m2/float64(len(in)))
	r["min"], r["max"], r["last"] = slices.Min(values), slices.Max(values), values[len(values)-1]
	if len(in) > 1 {
		d, dt := in[len(in)-1].v-in[0].v, in[len(in)-1].t-in[0].t
		r["delta"] = d
		if dt > 0 {
			r["rate"] = d / (float64(dt) / 1e9)
		}
	}
	slices.Sort(values)
	for name, q := range map[string]float64{"q0": 0, "q50": 0.5, "q95": 0.95, "q100": 1} {
		rank := q * float64(len(values)-1)
		lo, hi := values[int(math.Floor(rank))], values[int(math.Ceil(rank))]
		r[name] = lo + (hi-lo)*(rank-math.Floor(rank))
	}
	return r
}

func (w *Window) results(now int64) map[string]float64 {
	r := map[string]float64{}
	for i := range functions {
		if f := &functions[i]; f.window != nil {
			r[f.name] = f.window(w, now)
		}
	}
	r["last"] = w.last(now)
	r["q0"], r["q50"], r["q95"], r["q100"] = w.quantile(0, now), w.quantile(0.5, now), w.quantile(0.95, now), w.quantile(1, now)
	return r
}

func near(a, b float64) bool {
	return math.IsNaN(a) && math.IsNaN(b) || math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b))
}

func restored(t interface{ Fatalf(string, ...any) }, w *Window, use WindowUse) Window {
	b := w.Snapshot(nil)
	again := NewWindow(use)
	d := telemetry.NewDecoder(b)
	if !again.Restore(d) || len(d.Rest()) > 0 {
		t.Fatalf("Restore refuses what Snapshot wrote: %x", b)
	}
	if c := again.Snapshot(nil); !bytes.Equal(b, c) {
		t.Fatalf("snapshot of the restored window differs:\n%x\n%x", b, c)
	}
	return again
}

// With no more points in the duration than there are slots, every function equals the naive one, at any time, restored at any time.
func TestWindow_IsExactWhereThePointsFit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		use := WindowUse{Metric: "a", Span: time.Duration(rapid.Int64Range(1, 1e6).Draw(t, "span")), Ranks: true}
		w, n := NewWindow(use), naive{span: int64(use.Span)}
		at, now := rapid.Int64Range(-1e6, 1e6).Draw(t, "start"), int64(0)
		step := int64(use.Span)/60 + 1
		for range rapid.IntRange(0, 150).Draw(t, "points") {
			at += rapid.Int64Range(0, 3*step).Draw(t, "dt")
			now += rapid.Int64Range(0, 2*step).Draw(t, "dnow")
			if len(n.inside(now)) >= maxSlots-1 { // keep it from merging
				at += int64(use.Span) / 2
			}
			v := float64(rapid.IntRange(-5, 5).Draw(t, "value"))
			w.Add(at, now, v)
			n.all, n.seen = append(n.all, point{at, v}), now
			if w.dense {
				t.Skip("merged")
			}
			later := now + rapid.Int64Range(0, 2*int64(use.Span)).Draw(t, "later")
			for _, when := range []int64{now, later} {
				want, got := n.results(when), w.results(when)
				for name, v := range want {
					if !near(v, got[name]) {
						t.Fatalf("%s = %v, want %v (span %v, now %d, points %v)", name, got[name], v, use.Span, when, n.inside(when))
					}
				}
			}
			w = restored(t, &w, use)
		}
	})
}

// Beyond, the window may hold points up to a sixtieth of the duration older than it should, and no others: what it says is what
// the naive functions say of some such set. Quantiles are within the ranks that the share of points kept allows.
func TestWindow_DenseIsExactButForItsFarEnd(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		use := WindowUse{Metric: "a", Span: time.Duration(rapid.Int64Range(600, 1e6).Draw(t, "span")), Ranks: true}
		w, n := NewWindow(use), naive{span: int64(use.Span)}
		at := rapid.Int64Range(-1e6, 1e6).Draw(t, "start")
		step := rapid.Int64Range(1, int64(use.Span)/50).Draw(t, "step")
		seed := rapid.Uint64().Draw(t, "seed")
		for i := range rapid.IntRange(100, 2000).Draw(t, "points") {
			seed = seed*6364136223846793005 + 1442695040888963407
			at += int64(seed>>33) % (2 * step)
			v := float64(seed>>40%1000) / 10
			w.Add(at, at, v)
			n.all, n.seen = append(n.all, point{at, v}), at
			if w.n > maxSlots {
				t.Fatalf("%d slots", w.n)
			}
			if i%97 != 0 {
				continue
			}
			w = restored(t, &w, use)
			got := w.results(at)
			inside := len(n.inside(at))
			wider := naive{span: n.span + (n.span+cells-1)/cells, seen: n.seen, all: n.all}
			k := int(got["count"])
			if k < inside || k > len(wider.inside(at)) {
				t.Fatalf("count = %d, want %d to %d", k, inside, len(wider.inside(at)))
			}
			same := naive{span: math.MaxInt32, seen: n.seen, all: n.all[len(n.all)-k:]}
			for name, v := range same.results(at) {
				if name[0] != 'q' && !near(v, got[name]) {
					t.Fatalf("%s = %v, want %v of the %d newest points", name, got[name], v, k)
				}
			}
			if w.ranks.n < min(inside, maxRanks/4)-1 {
				t.Fatalf("quantiles come from %d of %d points", w.ranks.n, inside)
			}
		}
	})
}

func TestWindow_QuantileOfManyPointsIsCloseInRank(t *testing.T) {
	use := WindowUse{Metric: "a", Span: time.Minute, Ranks: true}
	w, n := NewWindow(use), naive{span: int64(use.Span)}
	seed := uint64(1)
	for i := range int64(20_000) { // 1,000 in the minute
		seed = seed*6364136223846793005 + 1442695040888963407
		at, v := i*60e6, -math.Log(float64(seed>>11+1)/(1<<53)) // exponential, as latencies are
		w.Add(at, at, v)
		n.all, n.seen = append(n.all, point{at, v}), at
		if i < 1000 || i%501 != 0 {
			continue
		}
		for _, q := range []float64{0.5, 0.9, 0.95} {
			got, below := w.quantile(q, at), 0
			in := n.inside(at)
			for _, p := range in {
				if p.v < got {
					below++
				}
			}
			// 128 to 256 of 1,000 points: four standard errors of a rank, sqrt(q(1-q)/128).
			if rank := float64(below) / float64(len(in)); math.Abs(rank-q) > 4*math.Sqrt(q*(1-q)/128) {
				t.Errorf("after %d points quantile(%v) has rank %.3f", i, q, rank)
			}
		}
	}
}

func TestWindow_SeesBufferedHistoryAsItWas(t *testing.T) {
	w := NewWindow(WindowUse{Metric: "a", Span: time.Minute})
	now := int64(time.Hour)
	for i := range int64(10) { // ten points of half an hour ago, all sent now
		w.Add(now/2+i*1e10, now, float64(i))
	}
	if got := w.count(now); got != 6 {
		t.Errorf("count = %v, want the 6 of the device's last minute", got)
	}
	if got := w.count(now + int64(time.Minute)); got != 0 {
		t.Errorf("a minute later count = %v, want 0", got)
	}
	w.Add(now/2+1e11, now+int64(time.Minute), 10)
	if got := w.count(now + int64(time.Minute)); got != 6 {
		t.Errorf("with the next of its history count = %v, want 6", got)
	}
}

func TestWindow_TimesAtTheEndsOfTheRangeDoNotWrap(t *testing.T) {
	for _, at := range []int64{math.MinInt64 + 1, 0, math.MaxInt64 - 1, math.MaxInt64} {
		for _, now := range []int64{math.MinInt64, at, math.MaxInt64} {
			w := NewWindow(WindowUse{Metric: "a", Span: MaxDuration, Ranks: true})
			for range 300 {
				w.Add(at, now, 1)
			}
			if w.Empty(now) || w.avg(now) != 1 {
				t.Errorf("at %d, now %d: avg = %v", at, now, w.avg(now))
			}
			w.results(math.MaxInt64)
		}
	}
}

func TestWindow_MemoryIsBounded(t *testing.T) {
	w := NewWindow(WindowUse{Metric: "a", Span: time.Hour, Ranks: true})
	for i := range int64(100_000) {
		w.Add(i*1e9, i*1e9, float64(i%977))
	}
	plain := int(unsafe.Sizeof(w)) + cap(w.slots)*int(unsafe.Sizeof(slot{}))
	if plain > WindowBytes {
		t.Errorf("a window takes %d bytes, WindowBytes is %d", plain, WindowBytes)
	}
	r := w.ranks
	if all := plain + int(unsafe.Sizeof(*r)) + 8*(cap(r.t)+cap(r.v)+cap(r.sorted)); all > WindowRanksBytes {
		t.Errorf("with ranks it takes %d bytes, WindowRanksBytes is %d", all, WindowRanksBytes)
	}
}

func TestWindow_AddAndEveryFunctionDoNotAllocate(t *testing.T) {
	w := NewWindow(WindowUse{Metric: "a", Span: time.Minute, Ranks: true})
	at := int64(0)
	add := func() {
		at += 1e8
		w.Add(at, at, float64(at%977))
	}
	for range 2000 {
		add()
	}
	if n := testing.AllocsPerRun(3000, add); n != 0 {
		t.Errorf("%v allocations a point", n)
	}
	for i := range functions {
		f := &functions[i]
		if f.window == nil {
			continue
		}
		if n := testing.AllocsPerRun(10, func() { f.window(&w, at) }); n != 0 {
			t.Errorf("%s allocates %v times", f.name, n)
		}
	}
	if n := testing.AllocsPerRun(10, func() { w.quantile(0.5, at); w.quantile(0.5, at+1e10) }); n != 0 {
		t.Errorf("quantile allocates %v times", n)
	}
}

func FuzzWindowRestore(f *testing.F) {
	use := WindowUse{Metric: "a", Span: time.Minute, Ranks: true}
	for _, n := range []int64{0, 1, 50, 1000} {
		w := NewWindow(use)
		for i := range n {
			w.Add(i*1e9, i*1e9, float64(i))
		}
		f.Add(w.Snapshot(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		w := NewWindow(use)
		if !w.Restore(telemetry.NewDecoder(b)) {
			return
		}
		newest := w.seen
		if w.n > 0 {
			newest = max(newest, w.at(w.n-1).t1)
		}
		w.results(newest)
		for range 400 {
			w.Add(newest, newest, 1)
		}
		if w.n > maxSlots || w.ranks.n > maxRanks {
			t.Fatalf("%d slots, %d ranks", w.n, w.ranks.n)
		}
		restored(t, &w, use)
	})
}

func TestFunctions_TimeAndOtherDevices(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	wall := time.Date(2026, 3, 1, 23, 30, 0, 0, time.UTC).UnixNano() // a Sunday; Monday 0:30 in Berlin
	feed := Feed{Value: 21, Time: 100e9}
	for _, c := range []struct {
		src  string
		zone *time.Location
		now  int64
		feed Feed
		want Tri
	}{
		{"hour() == 23 and a > 0", nil, 0, feed, True},
		{"hour() == 0 and a > 0", berlin, 0, feed, True},
		{"weekday() == 0 and a > 0", nil, 0, feed, True},
		{"weekday() == 1 and a > 0", berlin, 0, feed, True},
		{"last(a) == 5", nil, 0, feed, True},
		{"age(a) == 0", nil, 40e9, feed, True},
		{"age(a) == 2.5", nil, 42.5e9, feed, True},
		{"age(b) > 0 or a < 0", nil, 42e9, feed, Unknown},
		{`last("x=y", a) - a == 16`, nil, 101e9, feed, True},
		{`last("x=y", a) - a == 16`, nil, 101e9, Feed{Value: math.NaN()}, Unknown},
		{`last("x=y", a, 1m) - a == 16`, nil, 159e9, feed, True},
		{`last("x=y", a, 1m) - a == 16`, nil, 160e9, feed, Unknown},
	} {
		p := mustCompile(t, c.src)
		e := with(p, map[string]float64{"a": 5})
		for i := range e.Times {
			e.Times[i] = 40e9
		}
		for i := range e.Feeds {
			e.Feeds[i] = c.feed
		}
		e.Wall, e.Zone, e.Now = wall, c.zone, c.now
		if got := p.Eval(e); got != c.want {
			t.Errorf("Eval(%q) in %v at %d = %v, want %v", c.src, c.zone, c.now, got, c.want)
		}
	}
}

func TestEvery_FollowsTheShortestDuration(t *testing.T) {
	for src, want := range map[string]time.Duration{
		"a > 1":                                0,
		"avg(a, 5m) > 1":                       5 * time.Second,
		"avg(a, 5m) > 1 or max(a, 1h) > 2":     5 * time.Second,
		"avg(a, 10s) > 1":                      time.Second,
		"avg(a, 7d) > 1":                       time.Minute,
		"a > 1 and hour() > 6":                 15 * time.Minute,
		"age(a) > 600":                         10 * time.Second,
		"30 < age(a)":                          time.Second,
		"age(a) > 1e12":                        10 * time.Second,
		"age(a) > b":                           10 * time.Second,
		"age(a) > 7200 and age(b) / 2 > 1":     10 * time.Second,
		`last("device=x", b) > a`:              0,
		`last("device=x", b, 10m) > a`:         10 * time.Second,
		"rate(a, 1m) > 0.5 and weekday() != 0": time.Second,
	} {
		if got := mustCompile(t, src).Every(); got != want {
			t.Errorf("Every() of %q = %v, want %v", src, got, want)
		}
	}
}

func BenchmarkWindow(b *testing.B) {
	for _, rate := range []int64{1, 1000} {
		for _, src := range []string{"rate(a, 1m) > 1e9", "avg(a, 1m) > 1e9", "max(a, 1m) > 1e9", "stddev(a, 1m) > 1e9", "count(a, 1m) > 1e9", "quantile(0.95, a, 1m) > 1e9"} {
			b.Run(fmt.Sprintf("%s,points=%d/s", src, rate), func(b *testing.B) {
				p := mustCompile(b, src)
				e := with(p, map[string]float64{"a": 1})
				seed := uint64(1)
				b.ReportAllocs()
				for b.Loop() {
					seed = seed*6364136223846793005 + 1442695040888963407
					e.Now += 1e9 / rate
					e.Windows[0].Add(e.Now, e.Now, float64(seed>>40))
					p.Eval(e)
				}
			})
		}
	}
}
