package main

import "math"

// profile is one of the three cost profiles of the Numenta Anomaly Benchmark. A true positive is worth 1 in all of them.
type profile struct {
	name                        string
	falsePositive, missedWindow float64
}

var profiles = [...]profile{
	{"standard", 0.11, 1},
	{"low-FP", 0.22, 1},
	{"low-FN", 0.11, 2},
}

const (
	outside   = -1 // of every window
	probation = -2 // the start of a file, which is not scored
)

// A detection at relative position y (-1: a window's first point, 0: its end, above 0: past it) is worth 2/(1+e^5y) - 1.
// Lavin & Ahmad, "Evaluating Real-time Anomaly Detection Algorithms - the Numenta Anomaly Benchmark" (2015), section II.
func worth(y float64) float64 {
	if y > 3 { // far past a window, as far as without one
		return -1
	}
	return 2/(1+math.Exp(5*y)) - 1
}

// marks tells for every point of a file which window it is in (or outside, probation) and what a detection there is worth, before
// weights: in a window 1 at its first point, falling to 0; outside from 0 just after a window to -1.
func marks(f *file) (window []int, value []float64) {
	n := len(f.values)
	window, value = make([]int, n), make([]float64, n)
	quiet := min(int(0.15*float64(n)), 750) // 15 % of the file, of 5,000 points at most
	next, last := 0, -1                     // window to come; window passed
	for i := range n {
		if next < len(f.windows) && i > f.windows[next][1] {
			last, next = next, next+1
		}
		switch {
		case next < len(f.windows) && i >= f.windows[next][0]:
			w := f.windows[next]
			window[i] = next
			value[i] = worth(-float64(w[1]-i+1)/float64(w[1]-w[0]+1)) / worth(-1)
		case last >= 0:
			w := f.windows[last]
			window[i], value[i] = outside, worth(float64(i-w[1])/float64(w[1]-w[0]))
		default:
			window[i], value[i] = outside, -1
		}
		if i < quiet {
			window[i] = probation
		}
	}
	return window, value
}

// tally is the raw score of some files and what it counts.
type tally struct {
	raw, perfect, none float64 // score; that of a perfect and of a silent detector
	windows, found     int
	falseAlarms        int
}

// normal is the score on NAB's scale: 0 is a silent detector, 100 a perfect one.
func (t tally) normal() float64 { return 100 * (t.raw - t.none) / (t.perfect - t.none) }

func (t *tally) add(o tally) {
	t.raw, t.perfect, t.none = t.raw+o.raw, t.perfect+o.perfect, t.none+o.none
	t.windows, t.found, t.falseAlarms = t.windows+o.windows, t.found+o.found, t.falseAlarms+o.falseAlarms
}

// score counts the earliest detection in each window, and every detection outside.
func score(f *file, alarms []bool, p profile) tally {
	window, value := f.marks()
	best := make([]float64, len(f.windows))
	for i := range best {
		best[i] = -p.missedWindow
	}
	t := tally{windows: len(f.windows), perfect: float64(len(f.windows)), none: -p.missedWindow * float64(len(f.windows))}
	for i, a := range alarms {
		switch w := window[i]; {
		case !a || w == probation:
		case w == outside:
			t.raw += p.falsePositive * value[i]
			t.falseAlarms++
		default:
			best[w] = max(best[w], value[i])
		}
	}
	for _, b := range best {
		t.raw += b
		if b > -p.missedWindow {
			t.found++
		}
	}
	return t
}
