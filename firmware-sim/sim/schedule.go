package sim

import (
	"container/heap"
	"time"
)

// task is something a connection has to do at a time: take a device's next reading, or send a message that was held
// back.
type task struct {
	at     time.Duration // since the start of the run
	order  uint64        // ties: first come, first served, so that a run repeats exactly
	device *device       // take a reading
	held   *message      // or send this
}

// schedule is a queue of tasks by time. It has one owner and reads no clock.
type schedule struct {
	tasks taskHeap
	order uint64
}

func (s *schedule) add(t task) {
	s.order++
	t.order = s.order
	heap.Push(&s.tasks, t)
}

// next returns the earliest task without removing it.
func (s *schedule) next() (task, bool) {
	if len(s.tasks) == 0 {
		return task{}, false
	}
	return s.tasks[0], true
}

func (s *schedule) pop() task { return heap.Pop(&s.tasks).(task) }

// stop forgets every task and returns how many messages were held back.
func (s *schedule) stop() (held int) {
	for _, t := range s.tasks {
		if t.held != nil {
			held++
		}
	}
	s.tasks = nil
	return held
}

type taskHeap []task

func (h taskHeap) Len() int { return len(h) }
func (h taskHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].order < h[j].order
}
func (h taskHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *taskHeap) Push(x any)   { *h = append(*h, x.(task)) }
func (h *taskHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = task{}
	*h = old[:len(old)-1]
	return t
}
