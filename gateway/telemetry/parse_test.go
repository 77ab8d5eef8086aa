package telemetry

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"
)

func anyPoint(rng *rand.Rand) *Point {
	word := func(n int) string { return "w" + strconv.Itoa(rng.IntN(n)) }
	p := &Point{Measurement: word(2), Time: rng.Int64()}
	var pairs []Label
	for range rng.IntN(5) {
		pairs = append(pairs, Label{word(6), word(30)})
	}
	if p.Labels = NewLabels(pairs...); len(p.Labels) == 0 {
		p.Labels = nil
	}
	if rng.IntN(2) == 0 {
		for range rng.IntN(4) {
			p.Fields = append(p.Fields, Field{word(9), rng.Float64()})
		}
		return p
	}
	p.Window = time.Duration(rng.Int64N(1e12))
	p.Stats = append(p.Stats, Stats[:rng.IntN(4)]...)
	for range rng.IntN(4) {
		m := MetricAggregate{Metric: word(9)}
		for i := range rng.IntN(3) {
			m.Add(int64(i), rng.Float64())
		}
		p.Aggregates = append(p.Aggregates, m)
	}
	return p
}

// What is parsed must not depend on what was parsed before, and labels that ParsePoint gave away must stay.
func TestParsePoint_ReusesWithoutMixing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p, q Point
	var r PointReader
	type given struct{ got, want Labels }
	var labels []given
	for n := range 5000 {
		want := anyPoint(rng)
		b := MarshalPoint(nil, want)
		var fresh Point
		if err := ParsePoint(b, &fresh); err != nil {
			t.Fatal(err)
		}
		if err := ParsePoint(b, &p); err != nil {
			t.Fatal(err)
		}
		if err := r.Read(b, &q); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string]*Point{"ParsePoint": &p, "Read": &q} {
			if string(MarshalPoint(nil, got)) != string(b) {
				t.Fatalf("point %d: %s gives %+v, want %+v", n, name, got, want)
			}
		}
		if !reflect.DeepEqual(fresh.Labels, want.Labels) {
			t.Fatalf("point %d: labels %v, want %v", n, fresh.Labels, want.Labels)
		}
		labels = append(labels, given{p.Labels, want.Labels})
		if n%37 == 0 {
			ParsePoint(b[:rng.IntN(len(b))], &p) // damaged: leaves p in any state
			r.Read(b[:rng.IntN(len(b))], &q)
		}
	}
	for n, g := range labels {
		if !reflect.DeepEqual(g.got, g.want) {
			t.Fatalf("point %d: its labels have become %v, want %v", n, g.got, g.want)
		}
	}
}

func BenchmarkParsePoint(b *testing.B) {
	var bodies [][]byte
	for d := range 100 {
		p := Point{Measurement: "telemetry", Labels: NewLabels(Label{"device", "pump-" + strconv.Itoa(d)}, Label{"gateway", "plant-7"}, Label{"site", "plant-7"}),
			Window: 10 * time.Second, Stats: []Stat{StatCount, StatMean, StatMin, StatMax, StatLast}}
		for _, m := range []string{"temperature", "humidity", "vibration"} {
			a := MetricAggregate{Metric: m}
			a.Add(1, 20.5)
			a.Add(2, 21.25)
			p.Aggregates = append(p.Aggregates, a)
		}
		bodies = append(bodies, MarshalPoint(nil, &p))
	}
	b.Run("ParsePoint", func(b *testing.B) {
		b.ReportAllocs()
		var p Point
		for i := 0; b.Loop(); i++ {
			if err := ParsePoint(bodies[i%len(bodies)], &p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("PointReader", func(b *testing.B) {
		b.ReportAllocs()
		var p Point
		var r PointReader
		for i := 0; b.Loop(); i++ {
			if err := r.Read(bodies[i%len(bodies)], &p); err != nil {
				b.Fatal(err)
			}
		}
	})
}
