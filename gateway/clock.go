package main

import (
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/pipeline"
)

// clock is the gateway's time: the wall clock as it stood at the start plus monotonic time since. It never jumps by itself; when
// the wall clock was set, settle says by how much, and the step is journalled before it takes effect.
//
// A machine without a battery-backed clock boots with a time that is none. Then the clock is unset: it runs on a scale of its own, from the
// last journalled time on, and the fold holds back what comes; see pipeline.Boot. It is set as soon as the wall clock shows a
// plausible time.
type clock struct {
	start   int64 // wall clock at the start of the process
	offset  atomic.Int64
	wall    func() time.Time
	mono    func() time.Duration // since the start, whatever becomes of the wall clock
	uptime  func() time.Duration // of the machine
	machine string               // this boot of it; "": not known
	synced  func() bool          // whether the kernel says that its clock follows a good one

	unset   atomic.Bool
	last    int64         // newest time that was certainly one, when the process started
	least   time.Time     // no build of this program is older
	began   time.Duration // uptime at the start
	ignored bool          // the wall clock shows no time any more, and is not followed; belongs to who calls settle
}

func newClock(wall func() time.Time) *clock {
	start := wall()
	return &clock{
		start: start.UnixNano(), wall: wall, least: builtAfter(), synced: func() bool { return false },
		mono:   func() time.Duration { return wall().Sub(start) },
		uptime: func() time.Duration { return wall().Sub(start) },
	}
}

// newMachineClock is the clock of this machine.
func newMachineClock() *clock {
	c := newClock(time.Now)
	if c.machine = kernelBoot(); c.machine != "" {
		c.uptime = kernelUptime
	}
	c.synced = kernelSynced
	return c
}

// now is ns since the Unix epoch, or on the scale of a clock that is not set; safe for concurrent use.
func (c *clock) now() int64 {
	return c.start + int64(c.mono()) + c.offset.Load()
}

const (
	// clockStep is the least jump of the wall clock that is journalled; less is drift, which is followed at once.
	clockStep = time.Second
	// clockBehind is how far a clock may stand behind the journal at a start and be taken for right.
	clockBehind = time.Minute
	// clockTrust is how long a clock that stands behind the journal, but not before this program was built, is doubted: it may be the
	// journal's that was wrong. A kernel that says its clock is synchronised is believed at once.
	clockTrust = 10 * time.Minute
)

// begin decides, at the start of the process, whether the wall clock shows a time; s is how the journal ends. It returns the boot's record.
func (c *clock) begin(s pipeline.ClockState) pipeline.Boot {
	c.began = c.uptime()
	c.last = s.True
	wall := c.wall().Round(0).UnixNano()
	same := s.Unset && c.machine != "" && s.Machine == c.machine
	switch {
	case same && s.Zero+int64(c.began) >= s.Now:
		// The machine did not restart, so the scale goes on, whatever became of the wall clock. When that was set meanwhile, settle says so.
		c.unset.Store(true)
		c.offset.Add(s.Zero + int64(c.began) - c.now())
	case !c.plausible():
		c.unset.Store(true)
		c.offset.Add(max(wall, s.Now) - c.now())
	}
	return pipeline.Boot{Machine: c.machine, Uptime: int64(c.began), Unset: c.unset.Load()}
}

// plausible tells whether the wall clock shows a time that can be now.
func (c *clock) plausible() bool {
	wall := c.wall().Round(0)
	switch {
	case wall.Before(c.least):
		return false
	case wall.UnixNano() >= c.last-int64(clockBehind):
		return true
	}
	return c.synced() || c.uptime()-c.began >= clockTrust
}

// settle compares with the wall clock. It follows drift, and returns the jump, 0 for none, which take applies; set tells that the clock was unset and is
// set by that jump, which may be 0 then. It is for one goroutine.
func (c *clock) settle() (step time.Duration, set bool) {
	wall := c.wall().Round(0)
	c.ignored = false
	d := time.Duration(wall.UnixNano() - c.now())
	switch {
	case c.unset.Load():
		if !c.plausible() {
			return 0, false
		}
		return d, true
	case wall.Before(c.least): // it was set to nonsense: a scale of our own is better
		c.ignored = true
		return 0, false
	case d.Abs() < clockStep:
		c.offset.Add(int64(d))
		return 0, false
	}
	return d, false
}

// take moves the gateway's time by a step, to what the wall clock shows.
func (c *clock) take(step time.Duration) {
	c.offset.Add(int64(step))
	c.unset.Store(false)
}

// takeBack undoes take.
func (c *clock) takeBack(step time.Duration, unset bool) {
	c.offset.Add(int64(-step))
	c.unset.Store(unset)
}

// sourceDate is when this code was written: no build is older.
var sourceDate = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// builtAfter is a time that lies before this moment for sure.
func builtAfter() time.Time {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil && t.After(sourceDate) {
				return t.AddDate(0, 0, -1) // the builder's clock need not be exact
			}
		}
	}
	return sourceDate
}

// kernelBoot names this boot of the machine, "" where the kernel has no name for it.
func kernelBoot() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// kernelUptime is the time since the machine's boot, with what it slept.
func kernelUptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// kernelSynced tells whether something keeps the kernel's clock right; false where the kernel does not say.
func kernelSynced() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t) // changes nothing
	return err == nil && state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0
}
