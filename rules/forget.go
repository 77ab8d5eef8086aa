package rules

import (
	"container/heap"
	"slices"
)

// Forget drops devices that will not be heard of again, such as those of a source that was removed: their firing alerts resolve with
// the reason, pending ones end, nobody waits for them any more, and what was known of them is released. A device that a rule expects
// is waited for anew. The subjects must not be used afterwards; one that comes back is a new one.
func (e *Engine) Forget(subjects []*Subject, now int64, reason string, emit func(*Event)) {
	now = e.advance(now)
	gone := make(map[*Subject]bool, len(subjects))
	for _, s := range subjects {
		gone[s] = true
	}
	for _, s := range e.active { // in this order, whatever the caller's is
		if !gone[s] || s.expects != nil {
			continue
		}
		for _, a := range s.alerts {
			switch {
			case a == nil:
			case a.state == Firing:
				e.resolve(a, now, reason, emit)
			default:
				e.end(a)
			}
		}
	}
	e.active = slices.DeleteFunc(e.active, func(s *Subject) bool { return gone[s] && s.expects == nil })
	for i, s := range e.active {
		s.order = i
	}
	for _, s := range subjects {
		if s.expects == nil {
			e.release(s, now)
		}
	}
	e.bound = nil
	e.notifyFreed(emit)
}

// release takes a device out of everything but Engine.active.
func (e *Engine) release(s *Subject, now int64) {
	e.scratch = appendSubjectKey(e.scratch[:0], s.measurement, s.labels)
	if e.subjects[string(e.scratch)] == s {
		delete(e.subjects, string(e.scratch))
	}
	if s.parts == nil {
		return
	}
	device := s.labels.Get(DeviceLabel)
	if left := slices.DeleteFunc(e.watched[device], func(x *Subject) bool { return x == s }); len(left) == 0 {
		delete(e.watched, device)
	} else {
		e.watched[device] = left
	}
	for _, w := range s.parts.watches {
		if w == nil {
			continue
		}
		if w.heap >= 0 {
			heap.Remove(&e.watches, w.heap)
		}
		e.missAgain(s.plan.rules[w.place], device, now)
	}
}

// missAgain waits anew for an expected device, unless another one that goes by its name is there.
func (e *Engine) missAgain(r *Rule, device string, now int64) {
	x := e.expected[expectedKey(r, device)]
	if x == nil || !x.parts.watches[0].arrived {
		return
	}
	for _, s := range e.watched[device] {
		if at := slices.Index(s.plan.rules, r); at >= 0 && s.expects == nil && s.parts.watches[s.plan.watchOf(at)] != nil {
			return
		}
	}
	w := x.parts.watches[0]
	w.arrived, w.offline, w.fresh, w.last = false, false, true, now
	e.watchUntil(w, w.due())
}
