package detect

import (
	"math"

	"sluice/gateway/telemetry"
)

// moments are the exponentially weighted mean and variance of what was learned. The zero value has learned nothing.
type moments struct {
	mean, variance float64
	n              uint16 // learned; stays at its maximum
}

// Fewer values than this tell nothing about a spread.
const fewest = 10

// deviation is how many standard deviations x is off the mean, taking them for at least floor; 0 while there are too few values.
func (m *moments) deviation(x, floor float64) float64 {
	if m.n < fewest {
		return 0
	}
	d := x - m.mean
	if d == 0 {
		return 0
	}
	return max(-MaxScore, min(MaxScore, d/max(math.Sqrt(m.variance), floor)))
}

// learn weighs x with rate, and the first ones evenly.
func (m *moments) learn(x, rate float64) {
	if m.n < math.MaxUint16 {
		m.n++
	}
	rate = max(rate, 1/float64(m.n))
	d := x - m.mean
	m.mean += rate * d
	m.variance = (1 - rate) * (m.variance + rate*d*d) // West (1979), with weights that decay
}

func (m *moments) append(b []byte) []byte {
	return appendFloats(append(b, byte(m.n), byte(m.n>>8)), m.mean, m.variance)
}

func (m *moments) restore(d *telemetry.Decoder) {
	m.n = uint16(d.Byte()) | uint16(d.Byte())<<8
	m.mean, m.variance = restoreFloat(d), restoreAtLeast(d, 0)
}

// tail makes deviations comparable between series. A normal distribution goes beyond 1.645 standard deviations in 10 % and beyond 2.576
// in 1 % of all points; measured series do so far more often, each in its own way. tail learns where these two quantiles lie and
// bends the logarithmic scale so that they come where the normal ones are: noise that is normal keeps its scores, a series
// with spikes every day has to do better to be noticed.
type tail struct {
	high, higher float64 // logarithms of the 90 % and the 99 % quantile
	n            uint16  // learned; stays at its maximum
}

var (
	normalHigh, normalHigher = math.Log(1.6449), math.Log(2.5758)
)

const (
	tailRate = 0.003 // of learning: a memory of some hundred points: what is unusual now will soon be less so
	// The quantiles are not taken for less than this, or numeric dust becomes an event: 0.5 and 1 standard deviations.
	leastHigh, leastHigher = -0.6931, 0.0
	leastSpan              = 0.15 // between the quantiles
)

// score bends x, a deviation of either sign, and learns it.
func (c *tail) score(x float64) float64 {
	if c.n == 0 {
		c.high, c.higher = normalHigh, normalHigher
	}
	if c.n < math.MaxUint16 {
		c.n++
	}
	x = math.Abs(x)
	l := math.Log(max(x, 1e-3))
	span := max(c.higher-c.high, leastSpan)
	bent := math.Exp(normalHigh + (l-c.high)/span*(normalHigher-normalHigh))

	step := 2 * span * max(tailRate, 2/(float64(c.n)+20)) // quantiles by stochastic approximation, Robbins & Monro (1951)
	c.high = max(follow(c.high, l, 0.90, step), leastHigh)
	c.higher = max(follow(c.higher, l, 0.99, step), leastHigher, c.high+0.1)
	if x < 1e-3 {
		return 0
	}
	return min(bent, MaxScore)
}

// follow moves an estimate of the p-quantile by one value x.
func follow(q, x, p, step float64) float64 {
	if x > q {
		return q + step*p
	}
	return q - step*(1-p)
}

func (c *tail) append(b []byte) []byte {
	return appendFloats(append(b, byte(c.n), byte(c.n>>8)), c.high, c.higher)
}

func (c *tail) restore(d *telemetry.Decoder) {
	c.n = uint16(d.Byte()) | uint16(d.Byte())<<8
	c.high, c.higher = restoreFloat(d), restoreFloat(d)
	if c.n > 0 && !(c.high >= leastHigh && c.higher >= leastHigher && c.higher <= 100 && c.higher >= c.high) {
		d.Fail()
	}
}
