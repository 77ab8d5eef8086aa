package rules

import (
	"encoding/binary"
	"math"

	"sluice/gateway/telemetry"
)

// Subject is what the engine keeps for one device: the last values of the metrics that some matching rule mentions, and its
// alerts. It belongs to its engine and must not be used with another.
//
// Memory is bounded by the rules, never by what the device sends: a device no rule matches costs 128 bytes and its key (the
// measurement and labels); any other costs in addition 16 bytes a mentioned metric and 8 bytes a matching rule, both from its
// first value on, and about 300 bytes an alert that is pending or firing, plus the text of its labels and annotations. What
// devices matched by the same rules have in common they share.
type Subject struct {
	measurement string
	labels      telemetry.Labels
	plan        *plan
	values      []float64 // by plan metric; NaN: never sent
	times       []int64   // event time of each value
	alerts      []*alert  // by plan rule; nil: inactive
	order       int       // place in Engine.active; -1 before the first value
}

// plan is what all devices have in common that the same rules match.
type plan struct {
	rules   []*Rule
	metrics []string
	index   map[string]int32 // metric to its place, where there are too many to compare one by one
	touch   [][]int32        // by metric: the rules that mention it, ascending, twice where expr and clear both do
	cond    [][]int32        // by rule: expr.Env.Slots of the condition
	clear   [][]int32        // by rule: the same of the clear condition
}

// linearMetrics is up to how many metrics comparing names beats a map.
const linearMetrics = 8

func newPlan(matching []*Rule) *plan {
	p := &plan{rules: matching}
	place := map[string]int32{}
	slots := func(rule int, metrics []string) []int32 {
		out := make([]int32, len(metrics))
		for i, m := range metrics {
			k, known := place[m]
			if !known {
				k = int32(len(p.metrics))
				place[m] = k
				p.metrics = append(p.metrics, m)
				p.touch = append(p.touch, nil)
			}
			p.touch[k] = append(p.touch[k], int32(rule))
			out[i] = k
		}
		return out
	}
	for i, r := range matching {
		p.cond = append(p.cond, slots(i, r.cond.Metrics()))
		if r.clear != nil {
			p.clear = append(p.clear, slots(i, r.clear.Metrics()))
		} else {
			p.clear = append(p.clear, nil)
		}
	}
	if len(p.metrics) > linearMetrics {
		p.index = place
	}
	return p
}

// slot is the place of a metric, or -1 when no rule mentions it.
func (p *plan) slot(metric string) int32 {
	if p.index != nil {
		if k, ok := p.index[metric]; ok {
			return k
		}
		return -1
	}
	for k, m := range p.metrics {
		if m == metric {
			return int32(k)
		}
	}
	return -1
}

// plan returns the one plan of the rules that match a device.
func (e *Engine) plan(measurement string, labels telemetry.Labels) *plan {
	key := e.scratch[:0]
	var matching []*Rule
	for i, r := range e.set.rules {
		if r.Match.match(measurement, labels) {
			matching = append(matching, r)
			key = binary.AppendUvarint(key, uint64(i))
		}
	}
	e.scratch = key
	p := e.plans[string(key)]
	if p == nil {
		p = newPlan(matching)
		e.plans[string(key)] = p
	}
	return p
}

// wake gives s room for values and its place in the order of devices.
func (e *Engine) wake(s *Subject) {
	s.makeRoom()
	s.order = len(e.active)
	e.active = append(e.active, s)
}

func (s *Subject) makeRoom() {
	s.values = make([]float64, len(s.plan.metrics))
	for i := range s.values {
		s.values[i] = math.NaN()
	}
	s.times = make([]int64, len(s.plan.metrics))
	s.alerts = make([]*alert, len(s.plan.rules))
}

func appendSubjectKey(b []byte, measurement string, labels telemetry.Labels) []byte {
	return labels.AppendKey(telemetry.AppendString(b, measurement))
}
