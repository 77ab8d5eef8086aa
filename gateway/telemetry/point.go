package telemetry

import "time"

// Stat is one figure of an Aggregate, named as in the point schema: <metric>_<stat>.
type Stat string

// The stats a source may ask for.
const (
	StatCount  Stat = "count"
	StatMean   Stat = "mean"
	StatMin    Stat = "min"
	StatMax    Stat = "max"
	StatLast   Stat = "last"
	StatSum    Stat = "sum"
	StatFirst  Stat = "first"
	StatStddev Stat = "stddev"
	StatP50    Stat = "p50"
	StatP90    Stat = "p90"
	StatP95    Stat = "p95"
	StatP99    Stat = "p99"
)

// Stats lists every Stat that Aggregate.Stat can compute, in the order destinations write them.
var Stats = []Stat{StatCount, StatMean, StatMin, StatMax, StatLast, StatSum, StatFirst, StatStddev, StatP50, StatP90, StatP95, StatP99}

// Quantile is the share of readings that a Stat such as p95 stands for; ok is false for others.
func (s Stat) Quantile() (q float64, ok bool) {
	switch s {
	case StatP50:
		return 0.5, true
	case StatP90:
		return 0.9, true
	case StatP95:
		return 0.95, true
	case StatP99:
		return 0.99, true
	}
	return 0, false
}

// Sketched tells whether a Stat needs a sketch.
func (s Stat) Sketched() bool {
	_, ok := s.Quantile()
	return ok
}

// Stat returns one figure of a; ok is false for a Stat that a does not hold.
func (a *Aggregate) Stat(s Stat) (v float64, ok bool) {
	switch s {
	case StatCount:
		return float64(a.Count), true
	case StatMean:
		return a.Mean(), true
	case StatMin:
		return a.Min, true
	case StatMax:
		return a.Max, true
	case StatLast:
		return a.Last, true
	case StatSum:
		return a.Total(), true
	case StatFirst:
		return a.First, true
	case StatStddev:
		return a.Stddev(), true
	}
	if q, quantile := s.Quantile(); quantile {
		return a.Quantile(q)
	}
	return 0, false
}

// Point is what a destination stores: one measurement, one set of labels, one time. A point with a Window carries mergeable
// Aggregates, each standing for the fields <metric>_<stat>; a point without carries plain Fields. Points with equal
// measurement, labels, window and time are the same point: the later one replaces the earlier.
type Point struct {
	Measurement string
	Labels      Labels
	Time        int64         // ns since the Unix epoch; the window's start
	Window      time.Duration // 0: no window
	Fields      []Field
	Aggregates  []MetricAggregate
	Stats       []Stat // which stats of each aggregate to write
}

// Field is a plain value of a point.
type Field struct {
	Name  string
	Value float64
}

// MetricAggregate is one metric's aggregate in a point.
type MetricAggregate struct {
	Metric string
	Aggregate
}

// EachField calls f for every field as the destination stores it: plain fields under their names, aggregates as
// <metric>_<stat>. name is valid only during the call. The window itself is the label `window`, see WindowLabel.
func (p *Point) EachField(f func(name []byte, v float64)) {
	var buf [128]byte
	for i := range p.Fields {
		f(append(buf[:0], p.Fields[i].Name...), p.Fields[i].Value)
	}
	for i := range p.Aggregates {
		m := &p.Aggregates[i]
		for _, s := range p.Stats {
			if v, ok := m.Stat(s); ok {
				f(append(append(append(buf[:0], m.Metric...), '_'), s...), v)
			}
		}
	}
}

// WindowLabel renders a window as the label value in the point schema: "10s", "1m", "1h".
func WindowLabel(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return itoa(int64(d/time.Hour)) + "h"
	case d%time.Minute == 0:
		return itoa(int64(d/time.Minute)) + "m"
	case d%time.Second == 0:
		return itoa(int64(d/time.Second)) + "s"
	}
	return itoa(int64(d/time.Millisecond)) + "ms"
}
