package detect

import (
	"math"
	"math/rand/v2"
)

// signal is a series whose truth is known: value i, from noise that is the same in every run.
type signal func(i int, r *rand.Rand) float64

const (
	minute = int64(60e9)
	epoch  = int64(1_750_000_000_000_000_000) / hour * hour
)

func gaussian(_ int, r *rand.Rand) float64    { return 50 + 2*r.NormFloat64() }
func uniform(_ int, r *rand.Rand) float64     { return 10 * r.Float64() }
func exponential(_ int, r *rand.Rand) float64 { return 5 * r.ExpFloat64() }
func laplace(_ int, r *rand.Rand) float64     { return r.ExpFloat64() - r.ExpFloat64() }
func lognormal(_ int, r *rand.Rand) float64   { return math.Exp(r.NormFloat64()) }
func coarse(_ int, r *rand.Rand) float64      { return math.Round(20 + 0.4*r.NormFloat64()) }
func tenths(_ int, r *rand.Rand) float64      { return math.Round(10*(21+0.03*r.NormFloat64())) / 10 }
func onOff(i int, _ *rand.Rand) float64       { return float64(i / 30 % 2) }
func constant(int, *rand.Rand) float64        { return 42 }
func zero(int, *rand.Rand) float64            { return 0 }
func poisson(_ int, r *rand.Rand) float64 {
	n, p := 0.0, r.Float64()
	for ; p > math.Exp(-3); n++ {
		p *= r.Float64()
	}
	return n
}

// daily is a day's course with noise, one point a minute.
func daily(i int, r *rand.Rand) float64 {
	return 20 + 10*math.Sin(2*math.Pi*float64(i)/1440) + 0.5*r.NormFloat64()
}

// slow repeats each reading ten times, as a sensor does that is polled faster than it measures.
func slow() signal {
	v := 0.0
	return func(i int, r *rand.Rand) float64 {
		if i%10 == 0 {
			v = 30 + r.NormFloat64()
		}
		return v
	}
}

// presence is on and off for spans of very different lengths.
func presence() signal {
	v, left := 0.0, 0
	return func(_ int, r *rand.Rand) float64 {
		if left--; left < 0 {
			v, left = 1-v, int(math.Exp(3+1.2*r.NormFloat64()))
		}
		return v
	}
}

// shiftWork is noise by day and nothing by night.
func shiftWork(i int, r *rand.Rand) float64 {
	if h := i / 60 % 24; h < 6 || h >= 18 {
		return 0
	}
	return 400 + 20*r.NormFloat64()
}

// sluggish is noise in which each point resembles the one before: first-order autoregression.
func sluggish(phi float64) signal {
	v := 0.0
	return func(_ int, r *rand.Rand) float64 {
		v = phi*v + r.NormFloat64()
		return 100 + v
	}
}

// walk never comes back: steps are noise.
func walk() signal {
	v := 1000.0
	return func(_ int, r *rand.Rand) float64 {
		v += r.NormFloat64()
		return v
	}
}

// from plays before until point n and then changes what it gives.
func from(n int, before signal, then func(i int, v float64, r *rand.Rand) float64) signal {
	return func(i int, r *rand.Rand) float64 {
		v := before(i, r)
		if i >= n {
			v = then(i-n, v, r)
		}
		return v
	}
}

func noise(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x5eed)) }

func build(c Config) *series {
	d, err := New(c)
	if err != nil {
		panic(err)
	}
	return d.(*series)
}

// begins runs n points of s, one every step ns, and returns the points at which an alarm began.
func begins(d Detector, s signal, seed uint64, n int, step int64) []int {
	var at []int
	r, before := noise(seed), false
	for i := range n {
		_, alarm := d.Observe(epoch+int64(i)*step, s(i, r))
		if alarm && !before {
			at = append(at, i)
		}
		before = alarm
	}
	return at
}
