package main

import (
	"math"
	"slices"
)

// relativeEntropy is a published detector, here to check the scorer and to be compared with: a window of 52 points is quantised
// into five bins of the file's range, and raises an alarm when it agrees with no window before by a chi-squared test.
// Wang et al., "Statistical Techniques for Online Anomaly Detection in Data Centers" (2011). It knows each file's range
// beforehand. Published on the whole corpus: 54.6 standard, 47.6 low-FP, 58.8 low-FN.
func relativeEntropy(values []float64) []bool {
	const (
		bins     = 5
		size     = 52
		critical = 13.276704135987622 // chi-squared, 4 degrees of freedom, 1 %
	)
	alarms := make([]bool, len(values))
	low, high := slices.Min(values), slices.Max(values)
	step := (high - low) / bins
	if step == 0 {
		return alarms
	}
	type histogram [bins]float64
	var known []histogram
	var seen []int
	for i := size - 1; i < len(values); i++ {
		var now histogram
		for _, v := range values[i+1-size : i+1] {
			now[min(int(math.Ceil((v-low)/step)), bins-1)]++
		}
		best, least := -1, critical
		for k := range known {
			if s := 2 * size * divergence(now[:], known[k][:]); s < least {
				best, least = k, s
			}
		}
		switch {
		case best < 0:
			alarms[i] = len(known) > 0
			known, seen = append(known, now), append(seen, 1)
		default:
			seen[best]++
			alarms[i] = seen[best] <= 1
		}
	}
	return alarms
}

// divergence is Kullback and Leibler's, of p from q, which have the same sum.
func divergence(p, q []float64) float64 {
	total, d := 0.0, 0.0
	for _, v := range p {
		total += v
	}
	for i := range p {
		switch {
		case p[i] > 0 && q[i] == 0:
			return math.Inf(1)
		case p[i] > 0:
			d += p[i] / total * math.Log(p[i]/q[i])
		}
	}
	return d
}
