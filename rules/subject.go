package rules

import (
	"encoding/binary"
	"math"
	"slices"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// Subject is what the engine keeps for one device: the last values of the metrics that some matching rule mentions, and its
// alerts. It belongs to its engine and must not be used with another.
//
// Memory is bounded by the rules, never by what the device sends: a device no rule matches costs 144 bytes and its key (the
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
	parts       *parts    // nil where no rule needs them
	expects     *Rule     // of the stand-in for a device that this rule expects
}

// parts are what rules beyond thresholds keep for a device.
type parts struct {
	windows    []expr.Window // by plan window
	watches    []*watch      // by plan watch; nil before the metric's first reading
	detections []detection   // by plan detector
}

// plan is what all devices have in common that the same rules match and the same feeds take from.
type plan struct {
	rules     []*Rule
	metrics   []string
	index     map[string]int32 // metric to its place, where there are too many to compare one by one
	touch     [][]int32        // by metric: the rules that mention it, ascending, some twice
	takers    []*takers        // by metric: who else takes its values; nil: nobody
	cond      []expr.Binding   // by rule, of the condition
	clear     []expr.Binding   // by rule, of the clear condition
	windows   []placedWindow
	watches   []placedRule // rules with Absent
	detectors []placedRule // rules with Anomaly
	timed     []timedRule
}

// takers are the places of windows, feeds, watches and detectors that take a metric's values.
type takers struct{ windows, feeds, watches, detectors []int32 }

type placedWindow struct {
	metric int32
	use    expr.WindowUse
}

type placedRule struct {
	metric int32
	place  int
}

// linearMetrics is up to how many metrics comparing names beats a map.
const linearMetrics = 8

// planOf builds a plan. feeds are numbers of the engine's.
func (e *Engine) planOf(matching []*Rule, feeds []int32) *plan {
	p := &plan{rules: matching, index: map[string]int32{}, cond: make([]expr.Binding, len(matching)), clear: make([]expr.Binding, len(matching))}
	for i, r := range matching {
		switch {
		case r.Absent != nil:
			k := p.mention(r.Absent.Metric, i)
			p.taken(k).watches = append(p.taken(k).watches, int32(len(p.watches)))
			p.watches = append(p.watches, placedRule{k, i})
		case r.Anomaly != nil:
			k := p.mention(r.Anomaly.Metric, i)
			p.taken(k).detectors = append(p.taken(k).detectors, int32(len(p.detectors)))
			p.detectors = append(p.detectors, placedRule{k, i})
		default:
			p.cond[i] = p.bind(r.cond, i)
			p.cond[i].FeedSlots = e.feedSlots(r, r.cond, 0)
			if r.clear != nil {
				p.clear[i] = p.bind(r.clear, i)
				p.clear[i].FeedSlots = e.feedSlots(r, r.clear, len(r.cond.Feeds()))
			}
		}
	}
	for _, f := range feeds {
		k := p.place(e.sources[f].metric)
		p.taken(k).feeds = append(p.taken(k).feeds, f)
	}
	p.timed = e.timedRules(matching)
	if len(p.metrics) <= linearMetrics {
		p.index = nil
	}
	return p
}

// bind finds places for what a rule's program reads.
func (p *plan) bind(prog *expr.Program, rule int) (b expr.Binding) {
	for _, m := range prog.Metrics() {
		b.Slots = append(b.Slots, p.mention(m, rule))
	}
	for _, use := range prog.Windows() {
		k := p.place(use.Metric)
		at := slices.IndexFunc(p.windows, func(w placedWindow) bool { return w.metric == k && w.use.Span == use.Span })
		if at < 0 {
			at = len(p.windows)
			p.windows = append(p.windows, placedWindow{k, use})
			p.taken(k).windows = append(p.taken(k).windows, int32(at))
		}
		p.windows[at].use.Ranks = p.windows[at].use.Ranks || use.Ranks
		b.WindowSlots = append(b.WindowSlots, int32(at))
	}
	return b
}

// mention has a rule evaluated with each value of a metric.
func (p *plan) mention(metric string, rule int) int32 {
	k := p.place(metric)
	p.touch[k] = append(p.touch[k], int32(rule))
	return k
}

// place finds or makes the place of a metric.
func (p *plan) place(metric string) int32 {
	k, known := p.index[metric]
	if !known {
		k = int32(len(p.metrics))
		p.index[metric] = k
		p.metrics = append(p.metrics, metric)
		p.touch = append(p.touch, nil)
		p.takers = append(p.takers, nil)
	}
	return k
}

func (p *plan) taken(k int32) *takers {
	if p.takers[k] == nil {
		p.takers[k] = &takers{}
	}
	return p.takers[k]
}

// watchOf is the number of the watch of the rule at place.
func (p *plan) watchOf(place int) int {
	return slices.IndexFunc(p.watches, func(w placedRule) bool { return w.place == place })
}

func (p *plan) detectorOf(place int) int {
	return slices.IndexFunc(p.detectors, func(d placedRule) bool { return d.place == place })
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

// plan returns the one plan of the rules that match a device and the feeds that take from it.
func (e *Engine) plan(measurement string, labels telemetry.Labels) *plan {
	key := e.scratch[:0]
	var matching []*Rule
	for i, r := range e.set.rules {
		if r.Match.match(measurement, labels) {
			matching = append(matching, r)
			key = binary.AppendUvarint(key, uint64(i)+1)
		}
	}
	var feeds []int32
	key = append(key, 0)
	for i := range e.sources {
		if e.sources[i].match.match(measurement, labels) {
			feeds = append(feeds, int32(i))
			key = binary.AppendUvarint(key, uint64(i))
		}
	}
	e.scratch = key
	p := e.plans[string(key)]
	if p == nil {
		p = e.planOf(matching, feeds)
		e.plans[string(key)] = p
	}
	return p
}

// wake gives s room for values and its place in the order of devices.
func (e *Engine) wake(s *Subject) {
	s.makeRoom()
	s.order = len(e.active)
	e.active = append(e.active, s)
	e.nameWatched(s)
}

func (s *Subject) makeRoom() {
	s.values = make([]float64, len(s.plan.metrics))
	for i := range s.values {
		s.values[i] = math.NaN()
	}
	s.times = make([]int64, len(s.plan.metrics))
	s.alerts = make([]*alert, len(s.plan.rules))
	p := s.plan
	if s.parts = nil; len(p.windows)+len(p.watches)+len(p.detectors) == 0 {
		return
	}
	s.parts = &parts{watches: make([]*watch, len(p.watches))}
	for i := range p.windows {
		s.parts.windows = append(s.parts.windows, expr.NewWindow(p.windows[i].use))
	}
	for i := range p.detectors {
		s.parts.detections = append(s.parts.detections, newDetection(p.rules[p.detectors[i].place].Anomaly))
	}
}

func appendSubjectKey(b []byte, measurement string, labels telemetry.Labels) []byte {
	return labels.AppendKey(telemetry.AppendString(b, measurement))
}
