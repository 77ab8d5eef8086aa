package rules

import (
	"bytes"
	"cmp"
	"math"
	"slices"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// Options are settings of an engine that rule files do not hold. There are none so far.
type Options struct{}

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
	now      int64
	pending  int
	firing   int

	env     expr.Env
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
	startsAt    int64 // fired
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
	firing   int
	startsAt int64
}

// NewEngine makes an engine without devices. The set may be shared between engines.
func NewEngine(set *Set, _ Options) *Engine {
	e := &Engine{now: math.MinInt64, subjects: map[string]*Subject{}, shared: map[string]*occurrence{}}
	e.use(set)
	return e
}

func (e *Engine) use(set *Set) {
	e.set = set
	e.plans = map[string]*plan{}
	e.marked = make([]uint64, len(set.rules))
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
// is not finite. Each rule that mentions a metric taken is evaluated once, in the order of the set. Observe allocates only on transitions.
func (e *Engine) Observe(s *Subject, now, t int64, readings []telemetry.Reading, emit func(*Event)) {
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
		if t < s.times[k] && s.values[k] == s.values[k] {
			continue
		}
		s.values[k], s.times[k] = v, t
		metrics++
		for _, r := range p.touch[k] {
			if e.marked[r] != e.message {
				e.marked[r] = e.message
				e.touched = append(e.touched, r)
			}
		}
	}
	if metrics > 1 {
		slices.Sort(e.touched)
	}
	for _, r := range e.touched {
		e.evaluate(s, int(r), now, emit)
	}
}

// Tick lets timers run out: pending alerts fire, alerts kept firing resolve.
func (e *Engine) Tick(now int64, emit func(*Event)) {
	now = e.advance(now)
	for len(e.timers) > 0 && e.timers[0].due <= now {
		a := e.timers[0]
		if a.state == Pending {
			e.fire(a, now, emit)
		} else {
			e.resolve(a, now, "", emit)
		}
	}
}

// Due is the earliest now at which Tick would do something, or math.MaxInt64.
func (e *Engine) Due() int64 {
	if len(e.timers) == 0 {
		return math.MaxInt64
	}
	return e.timers[0].due
}

func (e *Engine) advance(now int64) int64 {
	e.now = max(e.now, now)
	return e.now
}

// evaluate moves one alert on. The states and what moves between them:
//
//	inactive --condition--> pending --for is over--> firing --ended, keep_firing_for is over--> inactive
//	   ^                       |                        ^  |
//	   +------ condition false-+                        +--+ condition holds again: keep_firing_for starts anew
//
// Ended means the clear condition holds and the condition does not; without a clear condition, that the condition is false.
// What is unknown moves nothing.
func (e *Engine) evaluate(s *Subject, place int, now int64, emit func(*Event)) {
	r := s.plan.rules[place]
	e.env = expr.Env{Values: s.values, Slots: s.plan.cond[place]}
	holds := r.cond.Eval(&e.env)
	a := s.alerts[place]
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
			e.env.Slots = s.plan.clear[place]
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
	a.state, a.startsAt = Firing, now
	a.value = e.valueOf(a)
	a.annotations = a.render(a.value)
	if !e.join(a) {
		return
	}
	emit(a.event(Firing, a.value))
}

// join counts a among the firing alerts with its labels and tells whether it is the first.
func (e *Engine) join(a *alert) bool {
	e.scratch = a.labels.AppendKey(e.scratch[:0])
	o := e.shared[string(e.scratch)]
	if o == nil {
		e.shared[string(e.scratch)] = &occurrence{firing: 1, startsAt: a.startsAt}
		return true
	}
	o.firing++
	a.startsAt = o.startsAt
	return false
}

// part is the opposite of join and tells whether a was the last.
func (e *Engine) part(a *alert) bool {
	e.scratch = a.labels.AppendKey(e.scratch[:0])
	o := e.shared[string(e.scratch)]
	if o.firing--; o.firing > 0 {
		return false
	}
	delete(e.shared, string(e.scratch))
	return true
}

func (e *Engine) resolve(a *alert, now int64, reason string, emit func(*Event)) {
	value := e.valueOf(a)
	e.end(a)
	if !e.part(a) {
		return
	}
	ev := a.event(Resolved, value)
	ev.EndsAt, ev.Reason = now, reason
	if reason != "" {
		ev.Annotations = ev.Annotations.With(telemetry.Label{Name: ReasonAnnotation, Value: reason})
	}
	emit(ev)
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
	s := a.subject
	e.env = expr.Env{Values: s.values, Slots: s.plan.cond[a.place]}
	if v := a.rule.cond.Value(&e.env); v == v {
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
	e.use(set)
	for _, s := range e.subjects { // in any order: plans are the same whichever device comes first
		old := *s
		s.plan = e.plan(s.measurement, s.labels)
		if s.order >= 0 {
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
		a.place = slices.IndexFunc(s.plan.rules, func(r *Rule) bool { return r.Alert == a.rule.Alert })
		a.rule = s.plan.rules[a.place] // an equal rule has equal matchers
		s.alerts[a.place] = a
	}
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
				Value: e.valueOf(a), ActiveAt: a.activeAt, StartsAt: a.startsAt, Fingerprint: a.fingerprint, Webhooks: a.rule.Webhooks}
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
