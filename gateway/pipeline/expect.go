package pipeline

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"sluice/broker/decode"
	"sluice/gateway/telemetry"
)

// Expect is what a source's payloads must keep to beyond being readable. What does not is quarantined with its bytes: a sample
// without a required metric whole, otherwise only the readings that are out of range or in another unit.
type Expect struct {
	Require []string          `json:"require,omitempty"` // metrics in every sample
	Ranges  map[string]Range  `json:"ranges,omitempty"`  // by metric
	Units   map[string]string `json:"units,omitempty"`   // by metric; holds where the payload or its format says a unit
}

// Range is the lowest and the highest value expected; nil is no bound.
type Range struct {
	Min *float64 `json:"min,omitempty"`
	Max *float64 `json:"max,omitempty"`
}

// expectation is an Expect ready to check; metrics in order, so that details do not depend on a map's.
type expectation struct {
	require []string
	limits  []limit
}

type limit struct {
	metric   string
	min, max float64
	unit     string // "": any
}

func (e *Expect) compile() (*expectation, error) {
	if e == nil {
		return nil, nil
	}
	x := &expectation{require: e.Require}
	metrics := slices.AppendSeq(slices.Collect(maps.Keys(e.Ranges)), maps.Keys(e.Units))
	slices.Sort(metrics)
	for _, m := range slices.Compact(metrics) {
		l := limit{metric: m, min: math.Inf(-1), max: math.Inf(1), unit: e.Units[m]}
		if r, ok := e.Ranges[m]; ok {
			if r.Min != nil {
				l.min = *r.Min
			}
			if r.Max != nil {
				l.max = *r.Max
			}
		}
		if !(l.min <= l.max) {
			return nil, fmt.Errorf("ranges: %s: %v is above %v", m, l.min, l.max)
		}
		x.limits = append(x.limits, l)
	}
	return x, nil
}

func (x *expectation) limit(metric string) *limit {
	for i := range x.limits {
		if x.limits[i].metric == metric {
			return &x.limits[i]
		}
	}
	return nil
}

// only takes out of readings what expect would quarantine, and says nothing.
func (x *expectation) only(dev *device, readings []telemetry.Reading) []telemetry.Reading {
	for _, metric := range x.require {
		if !slices.ContainsFunc(readings, func(r telemetry.Reading) bool { return r.Metric == metric }) {
			return nil
		}
	}
	return slices.DeleteFunc(readings, func(r telemetry.Reading) bool {
		lim := x.limit(r.Metric)
		return lim != nil && (r.Value < lim.min || r.Value > lim.max || lim.unit != "" && dev.unit(r.Metric) != "" && dev.unit(r.Metric) != lim.unit)
	})
}

// expect quarantines the readings of s that the source does not expect, takes them out, and returns how many are left.
func (f *Fold) expect(te *topicEntry, m *rawMessage, dev *device, s *decode.Sample) int {
	x, l := te.src.expect, te.src.ledger
	for _, metric := range x.require {
		if n := len(s.Readings); n > 0 && !slices.ContainsFunc(s.Readings, func(r telemetry.Reading) bool { return r.Metric == metric }) {
			f.refuse(l, te, m, "decode", ReasonMissing, "no "+strconv.Quote(metric)+", which the source requires", n)
			s.Readings = s.Readings[:0]
			return 0
		}
	}
	if len(x.limits) == 0 {
		return len(s.Readings)
	}
	kept := s.Readings[:0]
	for _, r := range s.Readings {
		lim := x.limit(r.Metric)
		switch {
		case lim == nil:
			kept = append(kept, r)
		case r.Value < lim.min || r.Value > lim.max:
			f.at.names = []string{r.Metric}
			f.refuse(l, te, m, "decode", ReasonRange, fmt.Sprintf("%s: %v is outside %v to %v", r.Metric, r.Value, lim.min, lim.max), 1)
		case lim.unit != "" && dev.unit(r.Metric) != "" && dev.unit(r.Metric) != lim.unit:
			f.at.names = []string{r.Metric}
			f.refuse(l, te, m, "decode", ReasonUnit, fmt.Sprintf("%s: in %q, want %q", r.Metric, dev.unit(r.Metric), lim.unit), 1)
		default:
			kept = append(kept, r)
		}
	}
	s.Readings = kept
	return len(kept)
}
