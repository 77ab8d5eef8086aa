package condense

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

var testStats = []telemetry.Stat{telemetry.StatCount, telemetry.StatMean}

func windowed(device string, start int64, window time.Duration, values ...float64) []byte {
	var a telemetry.Aggregate
	for i, v := range values {
		a.Add(start+int64(i), v)
	}
	return telemetry.MarshalPoint(nil, &telemetry.Point{
		Measurement: "line", Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: device}), Time: start, Window: window,
		Aggregates: []telemetry.MetricAggregate{{Metric: "t", Aggregate: a}, {Metric: "v", Aggregate: a}, {Metric: "w", Aggregate: a}}, Stats: testStats,
	})
}

func plain(measurement string, t int64, v float64) []byte {
	return telemetry.MarshalPoint(nil, &telemetry.Point{Measurement: measurement, Time: t, Fields: []telemetry.Field{{Name: "t", Value: v}}})
}

func points(t testing.TB, m *Merger) (out []telemetry.Point) {
	t.Helper()
	if err := m.Each(func(body []byte) error {
		var p telemetry.Point
		if err := telemetry.ParsePoint(body, &p); err != nil {
			t.Fatal(err)
		}
		out = append(out, p)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestMerger_WindowsOfOneSeriesBecomeOne(t *testing.T) {
	m := New(time.Minute, nil)
	for w := range int64(6) {
		if fate := m.Add(windowed("a", 120e9+w*10e9, 10*time.Second, float64(w), float64(10+w))); fate != Merged {
			t.Fatalf("Add = %v", fate)
		}
		m.Add(windowed("b", 120e9+w*10e9, 10*time.Second, 1))
	}
	got := points(t, m)
	if len(got) != 2 || got[0].Time != 120e9 || got[0].Window != time.Minute || got[0].Labels.Get("device") != "a" {
		t.Fatalf("got %+v", got)
	}
	a := got[0].Aggregates[0].Aggregate
	if a.Count != 12 || a.Total() != 90 || a.Min != 0 || a.Max != 15 || a.First != 0 || a.Last != 15 || fmt.Sprint(got[0].Stats) != fmt.Sprint(testStats) {
		t.Errorf("got %+v, stats %v", a, got[0].Stats)
	}
}

func TestMerger_PartsOfOneWindowHaveDifferentIdentities(t *testing.T) {
	first, second := New(time.Minute, nil), New(time.Minute, nil)
	first.Add(windowed("a", 120e9, 10*time.Second, 1))
	second.Add(windowed("a", 140e9, 10*time.Second, 1))
	second.Add(windowed("a", 130e9, 10*time.Second, 1))
	if a, b := points(t, first)[0], points(t, second)[0]; a.Time != 120e9 || b.Time != 130e9 {
		t.Errorf("times %d and %d, want those of the earliest windows", a.Time, b.Time)
	}
}

func TestMerger_ReadingsBecomeAggregatesAndAlertsStay(t *testing.T) {
	m := New(time.Minute, func(measurement string) (Readings, []telemetry.Stat) {
		switch measurement {
		case "raw":
			return Merge, testStats
		case "both":
			return Covered, nil
		}
		return Keep, nil
	})
	for _, c := range []struct {
		body []byte
		want Fate
	}{
		{plain("raw", 61e9, 3), Merged}, {plain("raw", 62e9, 5), Merged}, {plain("both", 61e9, 3), Dropped}, {plain("alerts", 61e9, 1), Kept},
		{[]byte("not a point"), Kept}, {windowed("a", 0, time.Hour, 1), Merged}, {append(windowed("a", 0, time.Hour, 1), 0), Kept},
	} {
		if got := m.Add(c.body); got != c.want {
			t.Errorf("Add(%q) = %v, want %v", c.body, got, c.want)
		}
	}
	got := points(t, m)
	if len(got) != 2 || got[0].Aggregates[0].Count != 2 || got[0].Aggregates[0].Mean() != 4 || got[0].Time != 61e9 || got[1].Window != time.Hour {
		t.Errorf("got %+v", got)
	}
}

func TestMerger_MetricsThatComeAndGoAreAllThere(t *testing.T) {
	m := New(time.Minute, nil)
	one := telemetry.Point{Measurement: "line", Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: "a"}), Time: 10e9, Window: 10 * time.Second,
		Stats: []telemetry.Stat{telemetry.StatMax}}
	var a telemetry.Aggregate
	a.Add(11e9, 7)
	one.Aggregates = []telemetry.MetricAggregate{{Metric: "extra", Aggregate: a}}
	m.Add(windowed("a", 0, 10*time.Second, 1, 2))
	m.Add(telemetry.MarshalPoint(nil, &one))
	m.Add(windowed("a", 20e9, 10*time.Second, 3))
	got := points(t, m)
	if len(got) != 1 || len(got[0].Aggregates) != 4 || got[0].Aggregates[0].Count != 3 || got[0].Aggregates[3].Count != 1 || len(got[0].Stats) != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestBucket_AlignsBeforeTheEpochToo(t *testing.T) {
	for _, c := range [][2]int64{{0, 0}, {59e9, 0}, {60e9, 60e9}, {-1, -60e9}, {-60e9, -60e9}} {
		if got := Bucket(c[0], time.Minute); got != c[1] {
			t.Errorf("Bucket(%d) = %d, want %d", c[0], got, c[1])
		}
	}
}

func FuzzMerger_CountsAreConserved(f *testing.F) {
	f.Add(windowed("a", 0, 10*time.Second, 1, 2), windowed("a", 10e9, 10*time.Second, 3), plain("raw", 61e9, 3))
	f.Add(windowed("a", 0, 10*time.Second, 1), windowed("b", 0, time.Hour, 3), []byte{1})
	count := func(body []byte) (n uint64) {
		var p telemetry.Point
		if telemetry.ParsePoint(body, &p) != nil {
			return 0
		}
		for i := range p.Aggregates {
			n += p.Aggregates[i].Count
		}
		return n + uint64(len(p.Fields))
	}
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		policy := func(string) (Readings, []telemetry.Stat) { return Merge, testStats }
		m, again := New(time.Minute, policy), New(time.Minute, policy)
		var want, got uint64
		var bodies [2][]byte
		for _, body := range [][]byte{a, b, c} {
			if m.Add(bytes.Clone(body)) == Merged {
				want += count(body)
			}
			again.Add(body)
		}
		for i, m := range []*Merger{m, again} {
			m.Each(func(body []byte) error { bodies[i] = append(bodies[i], body...); return nil })
		}
		m.Each(func(body []byte) error { got += count(body); return nil })
		if got != want || !bytes.Equal(bodies[0], bodies[1]) {
			t.Fatalf("merged to %d readings, want %d; the same again: %v", got, want, bytes.Equal(bodies[0], bodies[1]))
		}
	})
}

func BenchmarkMerger(b *testing.B) {
	var bodies [][]byte
	for w := range int64(30) {
		for d := range 200 {
			bodies = append(bodies, windowed(fmt.Sprintf("device-%d", d), w*10e9, 10*time.Second, 1, 2, 3))
		}
	}
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		m := New(time.Minute, nil)
		for _, body := range bodies {
			m.Add(body)
		}
		m.Each(func([]byte) error { return nil })
		n += len(bodies)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
}

func sketched(start int64, stats []telemetry.Stat, values ...float64) []byte {
	var a telemetry.Aggregate
	for i, v := range values {
		a.AddSketched(start+int64(i), v)
	}
	return telemetry.MarshalPoint(nil, &telemetry.Point{
		Measurement: "line", Time: start, Window: 10 * time.Second, Stats: stats,
		Aggregates: []telemetry.MetricAggregate{{Metric: "t", Aggregate: a}},
	})
}

// The ladder keeps quantiles: sketches merge, by the fast way and the slow one, and readings get one where their source wants it.
func TestMerger_QuantilesAreThoseOfAllReadings(t *testing.T) {
	stats := []telemetry.Stat{telemetry.StatCount, telemetry.StatP90}
	m := New(time.Minute, func(string) (Readings, []telemetry.Stat) { return Merge, stats })
	for w := range int64(5) {
		values := make([]float64, 20)
		for i := range values {
			values[i] = float64(20*w) + float64(i) + 1
		}
		m.Add(sketched(60e9+w*10e9, stats, values...))
	}
	for i := range int64(10) {
		m.Add(plain("raw", 60e9+i, float64(i+1)))
	}
	got := points(t, m)
	if len(got) != 2 {
		t.Fatalf("got %d points", len(got))
	}
	for i, want := range []float64{90, 9} {
		if v, ok := got[i].Aggregates[0].Stat(telemetry.StatP90); !ok || v < want*0.99 || v > want*1.01 {
			t.Errorf("%s: p90 = %g, %v; want %g", got[i].Measurement, v, ok, want)
		}
	}
}

// A window that was sent without sketches, and again with them after its source's stats were changed, is the same window.
func TestReadHead_IdentityDoesNotDependOnTheVersion(t *testing.T) {
	a, _ := ReadHead(sketched(60e9, testStats, 1))
	var agg telemetry.Aggregate
	agg.Add(60e9, 1)
	b, _ := ReadHead(telemetry.MarshalPoint(nil, &telemetry.Point{Measurement: "line", Time: 60e9, Window: 10 * time.Second,
		Aggregates: []telemetry.MetricAggregate{{Metric: "t", Aggregate: agg}}}))
	if !bytes.Equal(a.Identity, b.Identity) || !bytes.Equal(a.Series, b.Series) || !bytes.HasPrefix(a.Identity, a.Series) {
		t.Errorf("%q is not %q", a.Identity, b.Identity)
	}
}
