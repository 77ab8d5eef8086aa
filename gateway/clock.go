package main

import (
	"sync/atomic"
	"time"
)

// clock is the gateway's time: the wall clock as it stood at the start plus monotonic time since. It never jumps by itself; when
// the wall clock was set, settle says by how much, and the step is journalled before it takes effect.
type clock struct {
	start  time.Time
	offset atomic.Int64
	wall   func() time.Time
}

func newClock(wall func() time.Time) *clock {
	return &clock{start: wall(), wall: wall}
}

// now is ns since the Unix epoch; safe for concurrent use.
func (c *clock) now() int64 {
	return c.start.UnixNano() + int64(c.wall().Sub(c.start)) + c.offset.Load()
}

// clockStep is the least jump of the wall clock that is journalled; less is drift, which is followed at once.
const clockStep = time.Second

// settle compares with the wall clock. It follows drift, and returns the jump, 0 for none, which take applies.
func (c *clock) settle() (step time.Duration) {
	d := time.Duration(c.wall().Round(0).UnixNano() - c.now())
	if d.Abs() < clockStep {
		c.offset.Add(int64(d))
		return 0
	}
	return d
}

// take moves the gateway's time by a step.
func (c *clock) take(step time.Duration) { c.offset.Add(int64(step)) }
