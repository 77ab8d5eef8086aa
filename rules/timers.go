package rules

import (
	"container/heap"
	"math"
	"time"
)

// timers is a heap of the alerts whose timer runs. Alerts that are due at one time come in the order of their devices' first
// values, then of the rules, so that the order depends on what happened alone.
type timers []*alert

func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	a, b := t[i], t[j]
	switch {
	case a.due != b.due:
		return a.due < b.due
	case a.subject != b.subject:
		return a.subject.order < b.subject.order
	}
	return a.place < b.place
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].heap, t[j].heap = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	a := x.(*alert)
	a.heap = len(*t)
	*t = append(*t, a)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	a := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	a.heap = -1
	return a
}

func (t *timers) rebuild() { heap.Init(t) }

func (e *Engine) schedule(a *alert, due int64) {
	a.due = due
	heap.Push(&e.timers, a)
}

func (e *Engine) unschedule(a *alert) {
	if a.heap >= 0 {
		heap.Remove(&e.timers, a.heap)
	}
}

// later adds without wrapping.
func later(now int64, d time.Duration) int64 {
	if now > math.MaxInt64-int64(d) {
		return math.MaxInt64
	}
	return now + int64(d)
}
