package notify

import "container/heap"

// timer is when an entry's next escalation or a group's next look is due.
type timer struct {
	due   int64
	seq   uint64 // of the entry or the group: orders what is due at one time
	heap  int    // place in Policy.timers, or idle
	entry *entry // one of both
	group *group
}

const idle = -1

// timers is a heap.
type timers []*timer

func (t timers) Len() int { return len(t) }

func (t timers) Less(i, j int) bool {
	a, b := t[i], t[j]
	switch {
	case a.due != b.due:
		return a.due < b.due
	case (a.entry != nil) != (b.entry != nil):
		return a.entry != nil // so that an escalation shares the notification of its group
	}
	return a.seq < b.seq
}

func (t timers) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].heap, t[j].heap = i, j
}

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	one := x.(*timer)
	one.heap = len(*t)
	*t = append(*t, one)
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := len(*t) - 1
	one := (*t)[last]
	(*t)[last] = nil
	*t = (*t)[:last]
	one.heap = idle
	return one
}

func (p *Policy) start(t *timer, due int64) {
	t.due = due
	heap.Push(&p.timers, t)
}

func (p *Policy) stop(t *timer) {
	if t.heap != idle {
		heap.Remove(&p.timers, t.heap)
	}
}
