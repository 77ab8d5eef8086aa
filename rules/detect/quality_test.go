package detect

import (
	"math/rand/v2"
	"testing"
	"time"
)

// clean is what must stay quiet, with the most alarms in 10,000 points that any method may raise on it.
var clean = []struct {
	name string
	s    func() signal
	most float64
}{
	{"gaussian", func() signal { return gaussian }, 1},
	{"uniform", func() signal { return uniform }, 1},
	{"exponential", func() signal { return exponential }, 2},
	{"laplace", func() signal { return laplace }, 2.5},
	{"lognormal", func() signal { return lognormal }, 5},
	{"poisson", func() signal { return poisson }, 6},
	{"coarse", func() signal { return coarse }, 1.5},
	{"tenths", func() signal { return tenths }, 0.5},
	{"on and off", func() signal { return onOff }, 0.5},
	{"constant", func() signal { return constant }, 0},
	{"zero", func() signal { return zero }, 0},
	{"daily", func() signal { return daily }, 1},
	{"slow", slow, 2},
	{"presence", presence, 5},
	{"shift work", func() signal { return shiftWork }, 2},
	{"sluggish 0.5", func() signal { return sluggish(0.5) }, 1.5},
	{"sluggish 0.95", func() signal { return sluggish(0.95) }, 2},
	{"walk", walk, 6},
}

func TestDetectors_StayQuietOnCleanSignals(t *testing.T) {
	const n, seeds = 20000, 5 // a fortnight at one point a minute, five times
	for _, method := range Methods() {
		for _, c := range clean {
			if method == Jump && c.name == "shift work" {
				continue // it jumps twice a day
			}
			alarms := 0
			for seed := range uint64(seeds) {
				alarms += len(begins(build(Config{Method: method}), c.s(), seed, n, minute))
			}
			rate := float64(alarms) / n / seeds * 10000
			t.Logf("%-9s %-14s %5.2f alarms in 10,000 points", method, c.name, rate)
			if rate > c.most {
				t.Errorf("%s on %s: %.2f alarms in 10,000 points, want at most %v", method, c.name, rate, c.most)
			}
		}
	}
}

// At one point a second ten times as many points an hour must not mean ten times as many alarms, nor the turn of an hour be one.
func TestDetectors_StayQuietOnFastSignals(t *testing.T) {
	const second, days = int64(time.Second), 4
	fast := func(i int, r *rand.Rand) float64 { return daily(i/60, r) }
	for _, method := range Methods() {
		at := begins(build(Config{Method: method}), fast, 1, days*86400, second)
		t.Logf("%-9s %d alarms in %d days", method, len(at), days)
		if len(at) > 2*days {
			t.Errorf("%s: %d alarms in %d days at one point a second, at %v", method, len(at), days, at)
		}
	}
}

func TestDetectors_FindWhatTheyAreFor(t *testing.T) {
	const at, seeds = 8000, 20
	type change = func(i int, v float64, r *rand.Rand) float64
	shift := func(by float64) change { return func(_ int, v float64, _ *rand.Rand) float64 { return v + by } }
	drift := func(by float64) change {
		return func(i int, v float64, _ *rand.Rand) float64 { return v + by*float64(i) }
	}
	stuck := func(v float64) change { return func(int, float64, *rand.Rand) float64 { return v } }
	spike := func(by float64) change {
		return func(i int, v float64, _ *rand.Rand) float64 {
			if i == 0 {
				return v + by
			}
			return v
		}
	}
	louder := func(_ int, v float64, _ *rand.Rand) float64 { return 50 + 4*(v-50) }
	mirrored := func(_ int, v float64, _ *rand.Rand) float64 { return 40 - v } // day for night: no value is new
	plain := func(s signal) func() signal { return func() signal { return s } }
	for _, c := range []struct {
		method, name string
		before       func() signal
		then         change
		within       int // points
	}{
		{Auto, "spike of 10 sd", plain(gaussian), spike(20), 1},
		{Auto, "shift of 6 sd", plain(gaussian), shift(12), 3},
		{Auto, "spike within the day's range", plain(daily), spike(8), 1},
		{Auto, "pattern ends", plain(daily), stuck(20), 400},
		{Auto, "stuck", plain(gaussian), stuck(51.3), 20},
		{Auto, "four times the noise", plain(gaussian), louder, 50},
		{Seasonal, "spike of 10 sd", plain(gaussian), spike(20), 1},
		{Seasonal, "night by day", plain(daily), mirrored, 300},
		{EWMA, "spike of 10 sd", plain(gaussian), spike(20), 1},
		{EWMA, "shift of 6 sd", plain(gaussian), shift(12), 3},
		{CUSUM, "shift of 1 sd", plain(gaussian), shift(2), 100},
		{CUSUM, "shift of -1 sd", plain(gaussian), shift(-2), 100},
		{CUSUM, "drift of 0.005 sd a point", plain(gaussian), drift(0.01), 400},
		{Flatline, "stuck", plain(gaussian), stuck(51.3), 10},
		{Flatline, "stuck, repeats each reading", slow, stuck(29.7), 120},
		{Flatline, "stuck, few values", plain(coarse), stuck(20), 120},
		{Jump, "step of 10 sd in a walk", walk, shift(10), 1},
		{Jump, "spike of 12 sd", plain(gaussian), spike(25), 1},
	} {
		found, worst := 0, 0
		for seed := range uint64(seeds) {
			d := build(Config{Method: c.method, Cooldown: time.Minute})
			for _, b := range begins(d, from(at, c.before(), c.then), seed, at+c.within, minute) {
				if b >= at {
					found, worst = found+1, max(worst, b-at)
					break
				}
			}
		}
		t.Logf("%-9s %-30s found %d of %d, at most %d points late", c.method, c.name, found, seeds, worst)
		if found < seeds*9/10 {
			t.Errorf("%s, %s: found %d of %d within %d points", c.method, c.name, found, seeds, c.within)
		}
	}
}
