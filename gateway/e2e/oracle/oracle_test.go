package oracle

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/store"
)

var schema = Schema{Window: time.Second, Stats: []string{"mean", "min", "max", "last", "first", "sum"}, Device: "device",
	Metrics: []string{"temperature"}, Tags: map[string]string{"site": "lab"}}

func TestWindows_MatchesFiguresWorkedOutByHand(t *testing.T) {
	at := func(ms int64) time.Time { return time.UnixMilli(1_700_000_000_000 + ms) }
	got := Windows([]Reading{
		{"d", "temperature", at(999), 4}, // arrives first, is the last of its window
		{"d", "temperature", at(0), -1},
		{"d", "temperature", at(500), 9},
		{"d", "temperature", at(1000), 7}, // the next window
		{"e", "temperature", at(0), 5},
	}, time.Second)
	if len(got) != 3 {
		t.Fatalf("%d windows, want 3", len(got))
	}
	a := got[Key{"d", "temperature", at(0).UnixNano()}]
	if a.Count != 3 || a.Sum != 12 || a.Mean() != 4 || a.Min != -1 || a.Max != 9 || a.First != -1 || a.Last != 4 {
		t.Errorf("window = %+v, want count 3, sum 12, min -1, max 9, first -1, last 4", *a)
	}
}

// run builds readings and the points a correct gateway stores for them.
func run(rng *rand.Rand) (map[Key]*Aggregate, []store.Stored) {
	var readings []Reading
	base := time.UnixMilli(1_700_000_000_000)
	for i := range 500 {
		readings = append(readings, Reading{fmt.Sprint("d", i%3), "temperature", base.Add(time.Duration(i) * 13 * time.Millisecond), rng.NormFloat64()})
	}
	want := Windows(readings, time.Second)
	var points []store.Stored
	for k := range want {
		a, fields := want[k], map[string]float64{}
		for _, s := range append([]string{"count"}, schema.Stats...) {
			fields["temperature_"+s], _ = a.Stat(s)
		}
		points = append(points, store.Stored{Writes: 1, Line: store.Line{Measurement: "telemetry", Time: k.Start, Fields: fields,
			Tags: []store.Tag{{Name: "device", Value: k.Device}, {Name: "site", Value: "lab"}}}})
	}
	return want, points
}

// Each planted fault is one a faulty gateway could commit; an oracle that misses one proves nothing.
func TestCompare_NamesEveryPlantedFault(t *testing.T) {
	for name, plant := range map[string]func(p *[]store.Stored){
		"window missing":        func(p *[]store.Stored) { *p = (*p)[1:] },
		"window extra":          func(p *[]store.Stored) { e := (*p)[0]; e.Time += 3600e9; *p = append(*p, e) },
		"reading lost":          func(p *[]store.Stored) { (*p)[0].Fields["temperature_count"]-- },
		"reading counted twice": func(p *[]store.Stored) { (*p)[0].Fields["temperature_count"]++ },
		"sum of another":        func(p *[]store.Stored) { (*p)[0].Fields["temperature_sum"] += 1e-3 },
		"stale last":            func(p *[]store.Stored) { (*p)[0].Fields["temperature_last"]++ },
		"first missing":         func(p *[]store.Stored) { delete((*p)[0].Fields, "temperature_first") },
		"stat nobody asked for": func(p *[]store.Stored) { (*p)[0].Fields["temperature_stddev"] = 1 },
		"metric nobody sent":    func(p *[]store.Stored) { (*p)[0].Fields["pressure_count"] = 1 },
		"tag wrong":             func(p *[]store.Stored) { (*p)[0].Tags[1].Value = "elsewhere" },
		"device wrong":          func(p *[]store.Stored) { (*p)[0].Tags[0].Value = "d9" },
		"window shifted":        func(p *[]store.Stored) { (*p)[0].Time++ },
	} {
		want, points := run(rand.New(rand.NewPCG(1, 2)))
		if diffs := Compare(want, points, schema); len(diffs) != 0 {
			t.Fatalf("correct points: %d differences, want none: %v", len(diffs), diffs)
		}
		plant(&points)
		if diffs := Compare(want, points, schema); len(diffs) == 0 {
			t.Errorf("%s: not noticed", name)
		} else if s := diffs[0].String(); !strings.Contains(s, "want") {
			t.Errorf("%s: difference reads %q", name, s)
		}
	}
}
