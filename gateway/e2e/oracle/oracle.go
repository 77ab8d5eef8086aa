// Package oracle recomputes, from what a publisher saw acknowledged, what the destination must hold, and names every
// difference. It is pure, and written without a look at the gateway's own rollup: event time from the payload, windows
// aligned to the epoch, plain sums.
package oracle

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/gateway/e2e/store"
)

// Reading is one number in one acknowledged message.
type Reading struct {
	Device string
	Metric string
	Time   time.Time // the payload's; unique within device and metric, so that first and last need no tie rule
	Value  float64
}

// Key names one expected aggregate.
type Key struct {
	Device string
	Metric string
	Start  int64 // ns since the epoch
}

// Aggregate is what one window of one series amounts to.
type Aggregate struct {
	Count                 int
	Sum, Min, Max         float64
	First, Last           float64
	firstTime, lastMoment time.Time
}

// Mean is Sum / Count.
func (a *Aggregate) Mean() float64 { return a.Sum / float64(a.Count) }

// Stat returns a figure by its name in the point schema.
func (a *Aggregate) Stat(name string) (float64, bool) {
	switch name {
	case "count":
		return float64(a.Count), true
	case "sum":
		return a.Sum, true
	case "mean":
		return a.Mean(), true
	case "min":
		return a.Min, true
	case "max":
		return a.Max, true
	case "first":
		return a.First, true
	case "last":
		return a.Last, true
	}
	return 0, false
}

// Windows folds readings into windows of the given length. The order of readings does not matter.
func Windows(readings []Reading, window time.Duration) map[Key]*Aggregate {
	out := map[Key]*Aggregate{}
	for _, r := range readings {
		ns := r.Time.UnixNano()
		k := Key{r.Device, r.Metric, ns - ns%int64(window)}
		a := out[k]
		if a == nil {
			a = &Aggregate{Min: math.Inf(1), Max: math.Inf(-1)}
			out[k] = a
		}
		if a.Count == 0 || r.Time.Before(a.firstTime) {
			a.First, a.firstTime = r.Value, r.Time
		}
		if a.Count == 0 || r.Time.After(a.lastMoment) {
			a.Last, a.lastMoment = r.Value, r.Time
		}
		a.Count++
		a.Sum += r.Value
		a.Min, a.Max = math.Min(a.Min, r.Value), math.Max(a.Max, r.Value)
	}
	return out
}

// Schema says where Compare finds things in a point.
type Schema struct {
	Window  time.Duration
	Stats   []string // which must be there, besides count; no other stat may
	Device  string   // the tag that holds the device
	Metrics []string
	Tags    map[string]string // tags every point must carry
}

// Difference is one point where the store and the oracle disagree.
type Difference struct {
	Key
	Stat      string
	Got, Want float64 // NaN where there is none
	Writes    int     // of the point; 0 when missing
	Versions  int
}

func (d Difference) String() string {
	start := time.Unix(0, d.Start).UTC().Format("15:04:05.000")
	return fmt.Sprintf("%s %s_%s in window %s: got %v, want %v (written %d times, %d versions)", d.Device, d.Metric, d.Stat, start, d.Got, d.Want, d.Writes, d.Versions)
}

// Compare lists every difference between the expected windows and the points of one measurement: a window missing or extra,
// a stat missing, extra or wrong, a tag missing or wrong. Sums and means may differ by rounding (1 part in 1e9).
func Compare(want map[Key]*Aggregate, points []store.Stored, s Schema) []Difference {
	var diffs []Difference
	seen := map[Key]bool{}
	for _, p := range points {
		for name, value := range s.Tags {
			if got := p.Tag(name); got != value {
				diffs = append(diffs, Difference{Key: Key{Device: p.Tag(s.Device), Start: p.Time}, Stat: fmt.Sprintf("tag %s=%q, want %q", name, got, value), Got: math.NaN(), Want: math.NaN(), Writes: p.Writes, Versions: p.Versions})
			}
		}
		for name, got := range p.Fields {
			metric, stat := splitField(name, s.Metrics)
			k := Key{p.Tag(s.Device), metric, p.Time}
			a := want[k]
			d := Difference{Key: k, Stat: stat, Got: got, Want: math.NaN(), Writes: p.Writes, Versions: p.Versions}
			if a == nil || (stat != "count" && !slices.Contains(s.Stats, stat)) {
				diffs = append(diffs, d)
				continue
			}
			seen[k] = true
			if d.Want, _ = a.Stat(stat); !near(d.Got, d.Want) {
				diffs = append(diffs, d)
			}
		}
		for _, metric := range s.Metrics {
			k := Key{p.Tag(s.Device), metric, p.Time}
			a := want[k]
			if a == nil {
				continue
			}
			for _, stat := range append([]string{"count"}, s.Stats...) {
				if _, ok := p.Fields[metric+"_"+stat]; !ok {
					w, _ := a.Stat(stat)
					diffs = append(diffs, Difference{Key: k, Stat: stat, Got: math.NaN(), Want: w, Writes: p.Writes, Versions: p.Versions})
				}
			}
		}
	}
	for k, a := range want {
		if !seen[k] {
			diffs = append(diffs, Difference{Key: k, Stat: "count", Got: math.NaN(), Want: float64(a.Count)})
		}
	}
	slices.SortFunc(diffs, func(a, b Difference) int {
		if a.Start != b.Start {
			return int(min(max(a.Start-b.Start, -1), 1))
		}
		return strings.Compare(a.Device+a.Metric+a.Stat, b.Device+b.Metric+b.Stat)
	})
	return diffs
}

// Counts sums what the store and the oracle counted, for the one line a reader looks at first.
func Counts(want map[Key]*Aggregate, points []store.Stored) (stored, expected float64) {
	for _, p := range points {
		for name, v := range p.Fields {
			if strings.HasSuffix(name, "_count") {
				stored += v
			}
		}
	}
	for _, a := range want {
		expected += float64(a.Count)
	}
	return stored, expected
}

func splitField(name string, metrics []string) (metric, stat string) {
	for _, m := range metrics {
		if rest, ok := strings.CutPrefix(name, m+"_"); ok {
			return m, rest
		}
	}
	return name, ""
}

func near(got, want float64) bool {
	return got == want || math.Abs(got-want) <= 1e-9*math.Max(math.Abs(got), math.Abs(want))
}
