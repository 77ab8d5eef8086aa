package main

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogram_QuantilesAreWithinThreePercent(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var h histogram
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(1 + rng.ExpFloat64()*float64(3*time.Millisecond))
		h.add(d)
		all = append(all, d)
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.99, 0.999} {
		got, want := h.quantile(q), all[int(q*float64(len(all)))]
		if got > want || float64(got) < 0.96*float64(want) {
			t.Errorf("quantile(%v) = %v, want at most 3 %% below %v", q, got, want)
		}
	}
	if h.quantile(1) > h.most || h.latency().Max != millis(all[len(all)-1]) {
		t.Errorf("max = %v, want %v", h.most, all[len(all)-1])
	}
}

func TestHistogram_BucketsAreContiguous(t *testing.T) {
	last := -1
	for v := uint64(0); v < 1<<14; v++ {
		i := bucket(v)
		if i != last && i != last+1 {
			t.Fatalf("bucket(%d) = %d after %d", v, i, last)
		}
		if lowest(i) > v {
			t.Fatalf("lowest(bucket(%d)) = %d", v, lowest(i))
		}
		last = i
	}
}
