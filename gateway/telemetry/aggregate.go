package telemetry

import (
	"math"
	"slices"
)

// Aggregate sums up one series over a window. The zero value is an empty window; it merges as identity.
// Times are event times in nanoseconds since the Unix epoch.
type Aggregate struct {
	Count     uint64
	Sum       float64 // compensated: the total is Sum + carry
	carry     float64 // Neumaier (1974), Rundungsfehleranalyse einiger Verfahren zur Summation endlicher Summen
	Min, Max  float64
	First     float64 // by event time, ties by arrival
	Last      float64
	FirstTime int64
	LastTime  int64
	mean, m2  float64 // Welford (1962)
	sketch    *Sketch // nil, or of every reading; copies of an Aggregate share it, and those are for reading
}

// Add counts one reading with event time t. v must be finite.
func (a *Aggregate) Add(t int64, v float64) {
	a.Count++
	if a.Count == 1 {
		a.Min, a.Max, a.First, a.Last, a.FirstTime, a.LastTime = v, v, v, v, t, t
	} else {
		if v < a.Min {
			a.Min = v
		}
		if v > a.Max {
			a.Max = v
		}
		if t < a.FirstTime {
			a.First, a.FirstTime = v, t
		}
		if t >= a.LastTime {
			a.Last, a.LastTime = v, t
		}
	}
	if a.sketch != nil {
		a.sketch.Add(v)
	}
	a.addSum(v)
	d := v - a.mean
	a.mean += d / float64(a.Count)
	a.m2 += d * (v - a.mean)
}

// AddSketched is Add for series of which somebody wants quantiles. The sketch is there when every reading was added so.
func (a *Aggregate) AddSketched(t int64, v float64) {
	if a.Count == 0 {
		a.sketch = &Sketch{}
	}
	a.Add(t, v)
}

func (a *Aggregate) addSum(v float64) {
	s := a.Sum + v
	if math.Abs(a.Sum) >= math.Abs(v) {
		a.carry += (a.Sum - s) + v
	} else {
		a.carry += (v - s) + a.Sum
	}
	a.Sum = s
}

// Merge adds the readings of b, which count as having arrived after those of a.
// Variances combine as in Chan, Golub and LeVeque (1979).
func (a *Aggregate) Merge(b Aggregate) {
	if b.Count == 0 {
		return
	}
	if a.Count == 0 {
		*a = b
		a.sketch = nil
		if b.sketch != nil {
			a.sketch = &Sketch{bins: slices.Clone(b.sketch.bins)}
		}
		return
	}
	if a.sketch != nil && b.sketch != nil {
		a.sketch.Merge(b.sketch)
	} else {
		a.sketch = nil // of some of the readings it would tell nothing of all
	}
	n := a.Count + b.Count
	d := b.mean - a.mean
	a.m2 += b.m2 + d*d*float64(a.Count)/float64(n)*float64(b.Count)
	a.mean += d * (float64(b.Count) / float64(n))
	a.Count = n
	a.Min, a.Max = min(a.Min, b.Min), max(a.Max, b.Max)
	if b.FirstTime < a.FirstTime {
		a.First, a.FirstTime = b.First, b.FirstTime
	}
	if b.LastTime >= a.LastTime {
		a.Last, a.LastTime = b.Last, b.LastTime
	}
	a.addSum(b.Sum)
	a.addSum(b.carry)
}

// Total returns the compensated sum, clamped to the finite range.
func (a *Aggregate) Total() float64 { return clampFinite(a.Sum + a.carry) }

// Mean returns the mean, or 0 for an empty window. Where the sum overflows it falls back to the running mean.
func (a *Aggregate) Mean() float64 {
	if a.Count == 0 {
		return 0
	}
	if t := a.Sum + a.carry; !math.IsInf(t, 0) && !math.IsNaN(t) {
		return t / float64(a.Count)
	}
	return clampFinite(a.mean)
}

// Quantile returns the value that a share q of the readings lie below, within SketchAccuracy and never outside Min and Max; ok is false
// without a sketch.
func (a *Aggregate) Quantile(q float64) (v float64, ok bool) {
	if a.sketch == nil {
		return 0, false
	}
	return min(max(a.sketch.Quantile(q), a.Min), a.Max), true
}

// Stddev returns the population standard deviation.
func (a *Aggregate) Stddev() float64 {
	if a.Count == 0 || !(a.m2 > 0) {
		return 0
	}
	return clampFinite(math.Sqrt(a.m2 / float64(a.Count)))
}

func clampFinite(v float64) float64 {
	switch {
	case math.IsNaN(v):
		return 0
	case v > math.MaxFloat64:
		return math.MaxFloat64
	case v < -math.MaxFloat64:
		return -math.MaxFloat64
	}
	return v
}
