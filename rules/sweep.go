package rules

import (
	"math"
	"slices"
	"time"

	"sluice/rules/expr"
)

// Conditions that time alone can change - windows that run empty, age, hour, weekday, active hours - are evaluated on a grid of
// the wall clock while no message comes: every rule belongs to the sweep of its period, and a sweep is due while anything in it
// can still change. One more sweep follows values of other devices: it is due when one changed, at most once a second.

// sweep is one period's next evaluation.
type sweep struct {
	every time.Duration // 0: the one that follows values of other devices
	next  int64         // engine's clock; math.MaxInt64: nothing to do
	last  int64         // when it ran; math.MinInt64: never
}

// feedEvery is the least time between two evaluations because values of other devices changed.
const feedEvery = int64(time.Second)

// timedRule is a rule of a plan that belongs to a sweep.
type timedRule struct{ place, sweep int }

// every is the period at which the rule is evaluated without messages; 0: not at all.
func (r *Rule) every() time.Duration {
	var d time.Duration
	for _, p := range r.programs() {
		if e := p.Every(); e > 0 && (d == 0 || e < d) {
			d = e
		}
	}
	if r.Active != nil && (d == 0 || r.Active.every() < d) {
		d = r.Active.every()
	}
	return d
}

// fed tells whether the rule reads values of other devices.
func (r *Rule) fed() bool {
	return slices.ContainsFunc(r.programs(), func(p *expr.Program) bool { return len(p.Feeds()) > 0 })
}

// sweepsOf lists the sweeps a set needs, the shortest period first. The one with period 0 is there when any rule is fed.
func sweepsOf(set *Set) []sweep {
	var list []sweep
	add := func(d time.Duration) {
		if !slices.ContainsFunc(list, func(s sweep) bool { return s.every == d }) {
			list = append(list, sweep{every: d, next: math.MaxInt64, last: math.MinInt64})
		}
	}
	for _, r := range set.rules {
		if d := r.every(); d > 0 {
			add(d)
		}
		if r.fed() {
			add(0)
		}
	}
	slices.SortFunc(list, func(a, b sweep) int { return int(a.every - b.every) })
	return list
}

// timedRules finds the sweeps of a plan's rules.
func (e *Engine) timedRules(matching []*Rule) []timedRule {
	var list []timedRule
	for place, r := range matching {
		for i := range e.sweeps {
			if d := e.sweeps[i].every; d > 0 && d == r.every() || d == 0 && r.fed() {
				list = append(list, timedRule{place, i})
			}
		}
	}
	return list
}

// arm has the sweeps of a plan run at their next time.
func (e *Engine) arm(p *plan, now int64) {
	for _, t := range p.timed {
		if s := &e.sweeps[t.sweep]; s.every > 0 && s.next == math.MaxInt64 {
			s.next = e.gridAfter(now, int64(s.every))
		}
	}
}

// armFed has the rules evaluated that read values of other devices.
func (e *Engine) armFed(now int64) {
	if len(e.sweeps) > 0 && e.sweeps[0].every == 0 && e.sweeps[0].next == math.MaxInt64 {
		s := &e.sweeps[0]
		s.next = now
		if s.last != math.MinInt64 {
			s.next = max(now, later(s.last, time.Duration(feedEvery)))
		}
	}
}

// gridAfter is the first multiple of period on the wall clock after now.
func (e *Engine) gridAfter(now, period int64) int64 {
	wall := now + e.wall
	over := wall % period
	if over < 0 {
		over += period
	}
	return later(now, time.Duration(period-over))
}

// SetWallOffset says how far the wall clock is ahead of the engine's clock, for hour, weekday and active hours: 0 at first.
func (e *Engine) SetWallOffset(ns int64) {
	if ns == e.wall {
		return
	}
	e.wall, e.bound = ns, nil
	for i := range e.sweeps {
		if s := &e.sweeps[i]; s.every > 0 && s.next != math.MaxInt64 {
			s.next = e.gridAfter(e.now, int64(s.every))
		}
	}
}

// SetZone sets the zone of hour, weekday and active hours for rules that name none; nil: UTC. It takes effect with the next evaluation.
func (e *Engine) SetZone(zone *time.Location) {
	if e.zone = zone; zone == nil {
		e.zone = time.UTC
	}
}

// runSweeps evaluates what belongs to sweeps that are due.
func (e *Engine) runSweeps(now int64, emit func(*Event)) {
	for i := range e.sweeps {
		s := &e.sweeps[i]
		if s.next > now {
			continue
		}
		s.next, s.last = math.MaxInt64, now
		live := false
		for _, sub := range e.active {
			for _, t := range sub.plan.timed {
				if t.sweep == i {
					e.evaluate(sub, t.place, now, emit)
					live = live || s.every > 0 && !e.settled(sub, t.place, now)
				}
			}
		}
		if live {
			s.next = e.gridAfter(now, int64(s.every))
		}
	}
}

// settled tells whether time alone cannot move a rule on for a device before its next message.
func (e *Engine) settled(s *Subject, place int, now int64) bool {
	r := s.plan.rules[place]
	if r.Active != nil {
		return false
	}
	e.bind(s, now)
	if e.use(&s.plan.cond[place], r); !r.cond.Settled(&e.env) {
		return false
	}
	if r.clear == nil {
		return true
	}
	e.use(&s.plan.clear[place], r)
	return r.clear.Settled(&e.env)
}

func (e *Engine) sweepDue() int64 {
	due := int64(math.MaxInt64)
	for i := range e.sweeps {
		due = min(due, e.sweeps[i].next)
	}
	return due
}
