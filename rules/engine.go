package rules

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// Options are settings of an engine that rule files do not hold.
type Options struct {
	Zone *time.Location // of hour, weekday and active hours, for rules that name none; nil: UTC
}

// Engine runs a set of rules over the readings of many devices. One goroutine owns it.
//
// Time is what the caller says: now is in nanoseconds on a clock that does not go back (a now before the latest one counts as the
// latest), event times are on the same clock.
type Engine struct {
	set      *Set
	plans    map[string]*plan    // by the numbers of their rules
	subjects map[string]*Subject // by appendSubjectKey
	active   []*Subject          // those that sent a value, in that order: the order of everything that needs one
	timers   timers
	shared   map[string]*occurrence // by labels; of firing alerts
	zone     *time.Location
	wall     int64 // how far the wall clock is ahead of now
	sweeps   []sweep
	sources  []feedSource
	feeds    []expr.Feed // by source
	watches  watches
	expected map[string]*Subject   // stand-ins, by expectedKey
	watched  map[string][]*Subject // devices that rules with Absent watch, by their label device, in the order of active
	guards   []*guard
	freed    []*occurrence // not inhibited any more by what the call at hand did
	now      int64
	pending  int
	firing   int

	env     expr.Env
	bound   *Subject // whose values env sees
	touched []int32  // rules to evaluate for the message at hand
	marked  []uint64 // by rule: the last message that touched it
	message uint64
	scratch []byte
}

// alert is a rule that is pending or firing for a device.
type alert struct {
	rule        *Rule
	subject     *Subject
	place       int // in subject.alerts
	state       State
	activeAt    int64 // the condition holds since then
	startsAt    int64 // fired; wall clock, so that a clock set later does not move it: with the labels it is the alert's identity
	ending      bool  // firing, but the condition has ended and keep_firing_for runs
	endingSince int64
	value       float64 // when it began, then when it fired
	labels      telemetry.Labels
	annotations telemetry.Labels // rendered when it fired
	fingerprint uint64

	due  int64 // when its timer runs out
	heap int   // place in Engine.timers; -1: no timer runs
}

// occurrence joins alerts with equal labels, which receivers cannot tell apart: two devices that differ only in their
// measurement, or in labels that a rule's labels replace. The first to fire is notified, and the last to resolve.
type occurrence struct {
	alerts   []*alert // that fire
	startsAt int64    // of the first
	notified bool     // receivers know of it
}

// NewEngine makes an engine without devices. The set may be shared between engines.
func NewEngine(set *Set, o Options) *Engine {
	e := &Engine{now: math.MinInt64, subjects: map[string]*Subject{}, expected: map[string]*Subject{}, watched: map[string][]*Subject{}, shared: map[string]*occurrence{}, zone: o.Zone}
	if e.zone == nil {
		e.zone = time.UTC
	}
	e.put(set)
	return e
}

// put makes a set the one in force; what belongs to devices follows.
func (e *Engine) put(set *Set) {
	e.set, e.bound = set, nil
	e.plans = map[string]*plan{}
	e.marked = make([]uint64, len(set.rules))
	e.sweeps = sweepsOf(set)
	e.useFeeds(set)
	e.useGuards(set)
}

// Set returns the rules in force.
func (e *Engine) Set() *Set { return e.set }

// Counts tells how many alerts are pending and firing.
func (e *Engine) Counts() (pending, firing int) { return e.pending, e.firing }

// Subject returns the state of a device and makes it if needed. The result stays valid over Reload, but not over Restore. The
// engine keeps labels.
func (e *Engine) Subject(measurement string, labels telemetry.Labels) *Subject {
	e.scratch = appendSubjectKey(e.scratch[:0], measurement, labels)
	if s := e.subjects[string(e.scratch)]; s != nil {
		return s
	}
	key := string(e.scratch)
	s := &Subject{measurement: measurement, labels: labels, plan: e.plan(measurement, labels), order: -1}
	e.subjects[key] = s
	return s
}

// Observe takes the readings one message brought for a device. t is their event time; one ahead of now counts as now. A reading
// older than the last of its metric is not taken, so that history a device buffered raises nothing, and neither is one that
// is not finite. Each rule that mentions a metric taken is evaluated once, in the order of the set. Observe allocates only on
// transitions, and while windows grow to what they need.
func (e *Engine) Observe(s *Subject, now, t int64, readings []telemetry.Reading, emit func(*Event)) {
	e.observe(s, now, t, readings, live, emit)
}

func (e *Engine) observe(s *Subject, now, t int64, readings []telemetry.Reading, ev evidence, emit func(*Event)) {
	now = e.advance(now)
	t = min(t, now)
	p := s.plan
	if len(p.metrics) == 0 {
		return
	}
	e.message++
	e.touched = e.touched[:0]
	metrics := 0
	for i := range readings {
		v := readings[i].Value
		k := p.slot(readings[i].Metric)
		if k < 0 || v-v != 0 {
			continue
		}
		if s.order < 0 {
			e.wake(s)
		}
		if x := p.takers[k]; x != nil && x.watches != nil {
			e.sign(s, x.watches, k, now, t, ev, emit)
		}
		if t < s.times[k] && s.values[k] == s.values[k] {
			if p.watches != nil {
				metrics += e.touch(p, k)
			}
			continue
		}
		s.values[k], s.times[k] = v, t
		if x := p.takers[k]; x != nil {
			e.take(s, x, now, t, v)
		}
		metrics += e.touch(p, k)
	}
	if metrics > 1 {
		slices.Sort(e.touched)
	}
	for _, r := range e.touched {
		e.evaluate(s, int(r), now, emit)
	}
	if len(p.timed) > 0 && metrics > 0 {
		e.arm(p, now)
	}
	e.notifyFreed(emit)
}

// touch notes the rules that a metric of the message at hand concerns.
func (e *Engine) touch(p *plan, k int32) int {
	for _, r := range p.touch[k] {
		if e.marked[r] != e.message {
			e.marked[r] = e.message
			e.touched = append(e.touched, r)
		}
	}
	return 1
}

// take hands a value to windows, detectors and feeds.
func (e *Engine) take(s *Subject, x *takers, now, t int64, v float64) {
	for _, i := range x.windows {
		s.parts.windows[i].Add(t, now, v)
	}
	for _, i := range x.detectors {
		s.parts.detections[i].observe(t, v)
	}
	if x.feeds != nil {
		e.feed(x.feeds, now, t, v)
	}
}

// Tick lets time pass: conditions that time alone can change are evaluated, devices fall silent, pending alerts fire, alerts kept
// firing resolve.
func (e *Engine) Tick(now int64, emit func(*Event)) {
	now = e.advance(now)
	e.runSweeps(now, emit)
	e.runWatches(now, emit)
	for len(e.timers) > 0 && e.timers[0].due <= now {
		a := e.timers[0]
		if a.state == Pending {
			e.fire(a, now, emit)
		} else {
			e.resolve(a, now, "", emit)
		}
	}
	e.notifyFreed(emit)
}

// Due is the earliest now at which Tick would do something, or math.MaxInt64.
func (e *Engine) Due() int64 {
	due := min(e.sweepDue(), e.watchDue())
	if len(e.timers) == 0 {
		return due
	}
	return min(due, e.timers[0].due)
}

func (e *Engine) advance(now int64) int64 {
	if e.now == math.MinInt64 && now > e.now {
		e.now = now
		e.expect(now)
	}
	e.now = max(e.now, now)
	return e.now
}

// bind points the expression's view at a device.
func (e *Engine) bind(s *Subject, now int64) {
	if e.bound == s && e.env.Now == now {
		return
	}
	e.bound = s
	e.env.Values, e.env.Times = s.values, s.times
	e.env.Now, e.env.Wall = now, now+e.wall
	e.env.Feeds = e.feeds
	if s.parts != nil {
		e.env.Windows = s.parts.windows
	}
}

// use points it at a program of a rule.
func (e *Engine) use(b *expr.Binding, r *Rule) {
	e.env.Binding, e.env.Zone = b, r.Zone
	if r.Zone == nil {
		e.env.Zone = e.zone
	}
}

// holds tells whether the condition of the rule at place holds.
func (e *Engine) holds(s *Subject, place int, now int64) expr.Tri {
	r := s.plan.rules[place]
	switch {
	case r.cond != nil:
	case r.Absent != nil:
		if w := s.parts.watches[s.plan.watchOf(place)]; w != nil {
			return w.silent(now)
		}
		return expr.Unknown
	default:
		return s.parts.detections[s.plan.detectorOf(place)].holds()
	}
	e.bind(s, now)
	e.use(&s.plan.cond[place], r)
	return r.cond.Eval(&e.env)
}

// evaluate moves one alert on. The states and what moves between them:
//
//	inactive --condition--> pending --for is over--> firing --ended, keep_firing_for is over--> inactive
//	   ^                       |                        ^  |
//	   +------ condition false-+                        +--+ condition holds again: keep_firing_for starts anew
//
// Ended means the clear condition holds and the condition does not; without a clear condition, that the condition is false.
// What is unknown moves nothing. Outside its active hours a rule has no alerts.
func (e *Engine) evaluate(s *Subject, place int, now int64, emit func(*Event)) {
	r := s.plan.rules[place]
	a := s.alerts[place]
	if r.Active != nil && !r.Active.open(now+e.wall, e.zoneOf(r)) {
		switch {
		case a == nil:
		case a.state == Pending:
			e.end(a)
		default:
			e.resolve(a, now, ReasonInactive, emit)
		}
		return
	}
	holds := e.holds(s, place, now)
	switch {
	case a == nil:
		if holds == expr.True {
			e.begin(s, place, now, emit)
		}
	case a.state == Pending:
		switch {
		case holds == expr.False:
			e.end(a)
		case holds == expr.True && now >= a.due:
			e.fire(a, now, emit)
		}
	case holds == expr.True:
		e.keep(a)
	default:
		ended := expr.Unknown
		if holds == expr.False {
			ended = expr.True
		}
		if r.clear != nil {
			e.use(&s.plan.clear[place], r)
			ended = r.clear.Eval(&e.env)
		}
		switch {
		case ended == expr.False:
			e.keep(a)
		case ended == expr.True && !a.ending:
			a.ending, a.endingSince = true, now
			e.schedule(a, later(now, r.KeepFiringFor))
			fallthrough
		case ended == expr.True:
			if now >= a.due {
				e.resolve(a, now, "", emit)
			}
		}
	}
}

func (e *Engine) zoneOf(r *Rule) *time.Location {
	if r.Zone != nil {
		return r.Zone
	}
	return e.zone
}

func (e *Engine) begin(s *Subject, place int, now int64, emit func(*Event)) {
	r := s.plan.rules[place]
	a := &alert{rule: r, subject: s, place: place, state: Pending, activeAt: now, heap: -1}
	a.name()
	a.value = e.valueOf(a)
	s.alerts[place] = a
	e.pending++
	if r.For == 0 {
		e.fire(a, now, emit)
		return
	}
	e.schedule(a, later(now, r.For))
}

// name works out the alert's labels.
func (a *alert) name() {
	pairs := make([]telemetry.Label, 0, len(a.rule.Labels)+1)
	pairs = append(append(pairs, a.rule.Labels...), telemetry.Label{Name: AlertNameLabel, Value: a.rule.Alert})
	a.labels = a.subject.labels.With(pairs...)
	a.fingerprint = Fingerprint(a.labels)
}

// keep ends keep_firing_for before its time: the alert goes on.
func (e *Engine) keep(a *alert) {
	if a.ending {
		a.ending = false
		e.unschedule(a)
	}
}

func (e *Engine) fire(a *alert, now int64, emit func(*Event)) {
	e.unschedule(a)
	e.pending--
	e.firing++
	a.state, a.startsAt = Firing, now+e.wall
	a.value = e.valueOf(a)
	a.annotations = a.render(a.value)
	o, first := e.join(a)
	if !first {
		return
	}
	ev := a.event(Firing, a.value)
	if len(e.guards) > 0 {
		ev.Inhibited = e.inhibited(a.rule.Alert, a.labels)
		e.enter(o)
	}
	o.notified = !ev.Inhibited
	emit(ev)
}

// join counts a among the firing alerts with its labels and tells whether it is the first.
func (e *Engine) join(a *alert) (o *occurrence, first bool) {
	e.scratch = a.labels.AppendKey(e.scratch[:0])
	o = e.shared[string(e.scratch)]
	if o == nil {
		o = &occurrence{alerts: []*alert{a}, startsAt: a.startsAt}
		e.shared[string(e.scratch)] = o
		return o, true
	}
	o.alerts = append(o.alerts, a)
	a.startsAt = o.startsAt
	return o, false
}

// part is the opposite of join and tells whether a was the last.
func (e *Engine) part(a *alert) (o *occurrence, last bool) {
	e.scratch = a.labels.AppendKey(e.scratch[:0])
	o = e.shared[string(e.scratch)]
	o.alerts = slices.DeleteFunc(o.alerts, func(x *alert) bool { return x == a })
	if len(o.alerts) > 0 {
		return o, false
	}
	delete(e.shared, string(e.scratch))
	return o, true
}

func (e *Engine) resolve(a *alert, now int64, reason string, emit func(*Event)) {
	value := e.valueOf(a)
	e.end(a)
	o, last := e.part(a)
	if !last {
		return
	}
	ev := a.event(Resolved, value)
	ev.EndsAt, ev.Reason, ev.Inhibited = now+e.wall, reason, !o.notified
	if reason != "" {
		ev.Annotations = ev.Annotations.With(telemetry.Label{Name: ReasonAnnotation, Value: reason})
	}
	emit(ev)
	if len(e.guards) > 0 {
		e.freed = append(e.freed, e.exit(o, a.rule.Alert, a.labels)...)
	}
}

// end makes the alert inactive.
func (e *Engine) end(a *alert) {
	e.unschedule(a)
	if a.state == Pending {
		e.pending--
	} else {
		e.firing--
	}
	a.subject.alerts[a.place] = nil
}

func (a *alert) event(state State, value float64) *Event {
	return &Event{Alert: a.rule.Alert, State: state, Labels: a.labels, Annotations: a.annotations, Value: value,
		StartsAt: a.startsAt, Fingerprint: a.fingerprint, Webhooks: a.rule.Webhooks}
}

// valueOf is the value the condition is about now, or a.value when it is not known now.
func (e *Engine) valueOf(a *alert) float64 {
	s, v := a.subject, 0.0
	switch {
	case a.rule.Absent != nil:
		v = s.parts.watches[s.plan.watchOf(a.place)].silence(e.now)
	case a.rule.Anomaly != nil:
		v = s.values[s.plan.detectors[s.plan.detectorOf(a.place)].metric]
	default:
		e.bind(s, e.now)
		e.use(&s.plan.cond[a.place], a.rule)
		v = a.rule.cond.Value(&e.env)
	}
	if v == v {
		return v
	}
	return a.value
}

func (a *alert) render(value float64) telemetry.Labels {
	if len(a.rule.Annotations) == 0 {
		return nil
	}
	out := make(telemetry.Labels, len(a.rule.Annotations))
	for i := range out {
		out[i] = telemetry.Label{Name: a.rule.Annotations[i].Name, Value: a.rule.templates[i].render(a.labels, value)}
	}
	return out
}

// Reload puts another set in force. Alerts of rules that are in both, with the same name and definition, go on; of those that
// are not, firing ones resolve with a reason and pending ones end. A metric only new rules mention is unknown until it is sent.
func (e *Engine) Reload(set *Set, now int64, emit func(*Event)) {
	now = e.advance(now)
	for _, s := range e.active {
		for _, a := range s.alerts {
			if a == nil {
				continue
			}
			reason := ReasonChanged
			switch r := set.byName[a.rule.Alert]; {
			case r == nil:
				reason = ReasonRemoved
			case r.key == a.rule.key:
				continue
			}
			if a.state == Firing {
				e.resolve(a, now, reason, emit)
			} else {
				e.end(a)
			}
		}
	}
	e.put(set)
	e.watches = e.watches[:0]
	for _, s := range e.subjects { // in any order: plans are the same whichever device comes first
		old := *s
		s.plan = e.plan(s.measurement, s.labels)
		if s.order >= 0 {
			s.makeRoom()
			s.adopt(&old)
		}
	}
	for key, s := range e.expected {
		if next := set.byName[s.expects.Alert]; next == nil || next.key != s.expects.key {
			delete(e.expected, key)
			s.plan = &plan{}
			continue
		} else {
			old := *s
			s.expects, s.plan = next, e.planOf([]*Rule{next}, nil)
			s.makeRoom()
			s.adopt(&old)
		}
	}
	e.active = slices.DeleteFunc(e.active, func(s *Subject) bool {
		if len(s.plan.metrics) > 0 {
			return false
		}
		*s = Subject{measurement: s.measurement, labels: s.labels, plan: s.plan, order: -1}
		return true
	})
	for i, s := range e.active {
		s.order = i
	}
	e.timers.rebuild()
	clear(e.watched)
	for _, s := range e.active {
		e.nameWatched(s)
		e.rewatch(s)
		e.arm(s.plan, now)
	}
	e.expect(now)
	e.regroup(set)
	e.freed = e.freed[:0]
	e.eachFiring(func(o *occurrence) { e.freed = append(e.freed, o) })
	e.notifyFreed(emit)
}

// rewatch puts the watches of a device back into the heap.
func (e *Engine) rewatch(s *Subject) {
	if s.parts == nil {
		return
	}
	for _, w := range s.parts.watches {
		if w != nil && w.heap >= 0 {
			w.heap = -1
			e.watchUntil(w, w.scheduled)
		}
	}
}

// adopt moves what goes on from the old plan to the new one.
func (s *Subject) adopt(old *Subject) {
	for k, metric := range old.plan.metrics {
		if to := s.plan.slot(metric); to >= 0 {
			s.values[to], s.times[to] = old.values[k], old.times[k]
		}
	}
	for _, a := range old.alerts {
		if a == nil {
			continue
		}
		a.place = s.plan.placeOf(a.rule)
		a.rule = s.plan.rules[a.place] // an equal rule has equal matchers
		s.alerts[a.place] = a
	}
	if old.parts == nil || s.parts == nil {
		return
	}
	for i, w := range old.plan.windows {
		for to, n := range s.plan.windows {
			if n.use == w.use {
				s.parts.windows[to] = old.parts.windows[i]
			}
		}
	}
	for i, w := range old.parts.watches {
		if place := s.plan.placeOf(old.plan.rules[old.plan.watches[i].place]); w != nil && place >= 0 {
			w.place = place
			s.parts.watches[s.plan.watchOf(place)] = w
		}
	}
	for i := range old.parts.detections {
		if place := s.plan.placeOf(old.plan.rules[old.plan.detectors[i].place]); place >= 0 {
			s.parts.detections[s.plan.detectorOf(place)] = old.parts.detections[i]
		}
	}
}

// placeOf finds the rule with the name and definition of r, or -1.
func (p *plan) placeOf(r *Rule) int {
	return slices.IndexFunc(p.rules, func(x *Rule) bool { return x.Alert == r.Alert && x.key == r.key })
}

// Alerts lists what is pending and firing, by name and labels. The views are copies; their slices must not be changed.
func (e *Engine) Alerts() []AlertView {
	views := make([]AlertView, 0, e.pending+e.firing)
	for _, s := range e.active {
		for _, a := range s.alerts {
			if a == nil {
				continue
			}
			v := AlertView{Alert: a.rule.Alert, Group: a.rule.Group, State: a.state, Labels: a.labels, Annotations: a.annotations,
				Value: e.valueOf(a), ActiveAt: a.activeAt + e.wall, StartsAt: a.startsAt, Fingerprint: a.fingerprint, Webhooks: a.rule.Webhooks,
				Inhibited: e.inhibited(a.rule.Alert, a.labels)}
			if a.rule.Anomaly != nil {
				v.Score = s.parts.detections[s.plan.detectorOf(a.place)].score
			}
			if a.state == Pending {
				v.Annotations = a.render(v.Value)
			}
			views = append(views, v)
		}
	}
	slices.SortStableFunc(views, func(a, b AlertView) int {
		if c := cmp.Compare(a.Alert, b.Alert); c != 0 {
			return c
		}
		return bytes.Compare(a.Labels.AppendKey(nil), b.Labels.AppendKey(nil))
	})
	return views
}
