package sim

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestSchedule_ByTimeThenFirstComeFirstServed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s schedule
		type entry struct {
			at time.Duration
			m  *message
		}
		var want []entry
		for _, at := range rapid.SliceOfN(rapid.Int64Range(0, 5), 0, 40).Draw(t, "times") {
			e := entry{time.Duration(at), &message{}}
			want = append(want, e)
			s.add(task{at: e.at, held: e.m})
		}
		slices.SortStableFunc(want, func(a, b entry) int { return int(a.at - b.at) })
		for i, w := range want {
			peek, ok := s.next()
			got := s.pop()
			if !ok || got.held != w.m || peek.held != w.m || got.at != w.at {
				t.Fatalf("task %d at %v, want %v (same message: %v)", i, got.at, w.at, got.held == w.m)
			}
		}
		if _, ok := s.next(); ok {
			t.Fatal("a task is left over")
		}
	})
}

func TestLatencies_QuantilesWithinAQuarter(t *testing.T) {
	var h latencies
	if p50, p99, highest := h.quantiles(); p50 != 0 || p99 != 0 || highest != 0 {
		t.Errorf("empty: %v %v %v", p50, p99, highest)
	}
	for ms := 1; ms <= 1000; ms++ {
		h.add(time.Duration(ms) * time.Millisecond)
	}
	p50, p99, highest := h.quantiles()
	if p50 < 500*time.Millisecond || p50 > 625*time.Millisecond || p99 < 990*time.Millisecond || p99 > time.Second || highest != time.Second {
		t.Errorf("1..1000 ms: p50 %v, p99 %v, max %v", p50, p99, highest)
	}
	h.add(0)
	h.add(time.Duration(1<<63 - 1))
}
