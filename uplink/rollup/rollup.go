// Package rollup folds readings into event-time windows aligned to the epoch. It is pure: time moves only by what the caller
// passes in, equal inputs give equal outputs in equal order, and one goroutine owns a Rollup.
package rollup

import (
	"math"
	"slices"
	"time"

	"sluice/gateway/telemetry"
)

// Config are the rules of one measurement's windows.
type Config struct {
	Window   time.Duration // length; windows start at multiples of it
	Grace    time.Duration // first emission is due at end + Grace
	Lateness time.Duration // a reading older than now - (Window + Grace + Lateness) is late
	// Quantiles gives each aggregate a sketch from its first reading on.
	Quantiles bool
	// Final emits a window once only, when no reading can correct it any more: for those who derive points a second time.
	Final bool
}

// resendEvery bounds how often one window is sent again while corrections keep arriving.
const resendEvery = int64(time.Second)

// Device is the rollup's side of one set of series that share their labels. The owner keeps it and numbers it.
type Device struct {
	ID   uint32
	open []*window // ascending start
}

type window struct {
	start int64
	dev   *Device
	aggs  []telemetry.Aggregate // by the owner's metric number; Count 0 where the metric has no reading here
	dirty bool
}

// bucket holds the windows of all devices with one start.
type bucket struct {
	start   int64
	windows []*window // in order of creation, for the snapshot
	dirty   []*window // in order of first change since the last emission
	next    int64     // not emitted before
}

// Rollup holds the windows of one measurement that can still change.
type Rollup struct {
	window, grace, lateness int64
	quantiles, final        bool
	sealed                  int64     // windows that end here or before are closed, even if time goes back
	buckets                 []*bucket // ascending start
	free                    []*window
}

// New makes an empty Rollup. c.Window must be positive.
func New(c Config) *Rollup {
	r := &Rollup{window: int64(c.Window), sealed: math.MinInt64}
	r.Configure(c)
	return r
}

// Configure replaces everything but the window's length, which cannot change.
func (r *Rollup) Configure(c Config) {
	r.grace, r.lateness, r.quantiles, r.final = int64(c.Grace), int64(c.Lateness), c.Quantiles, c.Final
}

// Window is the length of the windows.
func (r *Rollup) Window() time.Duration { return time.Duration(r.window) }

// Late tells whether a reading with event time t can no longer correct its window at now. A window that was forgotten stays closed
// when the clock goes back: what would come into it then would replace the whole of it at the destination.
func (r *Rollup) Late(t, now int64) bool {
	return now-t > r.window+r.grace+r.lateness || t < r.sealed
}

// Open tells whether the window that t lies in can still change at now; readings that are Late by themselves may lie in one.
func (r *Rollup) Open(d *Device, t, now int64) bool {
	start := floor(t, r.window)
	return d.find(start) != nil || !r.Late(start+r.window-1, now)
}

// Start is the start of the window that t lies in.
func (r *Rollup) Start(t int64) int64 { return floor(t, r.window) }

// Seal closes the window that starts there, and those before, for good: somebody else puts it out from now on.
func (r *Rollup) Seal(start int64) { r.sealed = max(r.sealed, start+r.window) }

// Add counts one reading of metric number metric with event time t, whose window must be Open.
func (r *Rollup) Add(d *Device, metric int, t int64, v float64) {
	start := floor(t, r.window)
	w := d.find(start)
	if w == nil {
		w = r.create(d, start)
	}
	for len(w.aggs) <= metric {
		w.aggs = append(w.aggs, telemetry.Aggregate{})
	}
	if a := &w.aggs[metric]; r.quantiles {
		a.AddSketched(t, v)
	} else {
		a.Add(t, v)
	}
	if !w.dirty {
		w.dirty = true
		b := r.bucket(start)
		b.dirty = append(b.dirty, w)
	}
}

func (d *Device) find(start int64) *window {
	for i := len(d.open) - 1; i >= 0; i-- {
		if d.open[i].start == start {
			return d.open[i]
		}
		if d.open[i].start < start {
			return nil
		}
	}
	return nil
}

func (r *Rollup) create(d *Device, start int64) *window {
	var w *window
	if n := len(r.free); n > 0 {
		w, r.free = r.free[n-1], r.free[:n-1]
		clear(w.aggs)
		*w = window{aggs: w.aggs[:0]}
	} else {
		w = &window{}
	}
	w.start, w.dev = start, d
	i := len(d.open)
	for i > 0 && d.open[i-1].start > start {
		i--
	}
	d.open = slices.Insert(d.open, i, w)
	b := r.bucket(start)
	b.windows = append(b.windows, w)
	return w
}

func (r *Rollup) bucket(start int64) *bucket {
	i := len(r.buckets)
	for i > 0 && r.buckets[i-1].start > start {
		i--
	}
	if i > 0 && r.buckets[i-1].start == start {
		return r.buckets[i-1]
	}
	b := &bucket{start: start, next: start + r.window + r.grace}
	r.buckets = slices.Insert(r.buckets, i, b)
	return b
}

// Emit is called with one device's whole window; aggs is by metric number and valid during the call.
type Emit func(d *Device, start int64, aggs []telemetry.Aggregate)

// Tick emits, oldest window first, every window that changed and is due at now, and forgets the windows that no reading can
// correct any more.
func (r *Rollup) Tick(now int64, emit Emit) {
	for _, b := range r.buckets {
		if len(b.dirty) == 0 || b.next > now || r.final && !r.Late(b.start+r.window-1, now) {
			continue
		}
		b.emit(emit)
		b.next = now + resendEvery
	}
	r.forget(now)
}

// Reemit marks every window as changed: the next emission tells of all of them.
func (r *Rollup) Reemit() {
	for _, b := range r.buckets {
		b.dirty = b.dirty[:0]
		for _, w := range b.windows {
			w.dirty = true
			b.dirty = append(b.dirty, w)
		}
	}
}

// Flush emits every window that changed, due or not: the measurement's windows end here.
func (r *Rollup) Flush(emit Emit) {
	for _, b := range r.buckets {
		b.emit(emit)
	}
}

func (b *bucket) emit(emit Emit) {
	for _, w := range b.dirty {
		w.dirty = false
		emit(w.dev, w.start, w.aggs)
	}
	b.dirty = b.dirty[:0]
}

func (r *Rollup) forget(now int64) {
	n := 0
	for _, b := range r.buckets {
		if !r.Late(b.start+r.window-1, now) || len(b.dirty) > 0 {
			break
		}
		for _, w := range b.windows {
			w.dev.drop(w)
			r.recycle(w)
		}
		r.sealed = max(r.sealed, b.start+r.window)
		n++
	}
	r.buckets = slices.Delete(r.buckets, 0, n)
}

func (d *Device) drop(w *window) {
	if i := slices.Index(d.open, w); i >= 0 {
		d.open = slices.Delete(d.open, i, i+1)
	}
}

// maxFree bounds the windows kept for reuse.
const maxFree = 4096

func (r *Rollup) recycle(w *window) {
	w.dev = nil
	if len(r.free) < maxFree {
		r.free = append(r.free, w)
	}
}

// Due is the earliest time at which Tick would emit something, or math.MaxInt64.
func (r *Rollup) Due() int64 {
	due := int64(math.MaxInt64)
	for _, b := range r.buckets {
		if len(b.dirty) > 0 && b.next < due {
			due = b.next
		}
	}
	return due
}

// Idle tells whether the device has no window that can still change.
func (d *Device) Idle() bool { return len(d.open) == 0 }

// Held is the number of windows that can still change.
func (r *Rollup) Held() (windows int) {
	for _, b := range r.buckets {
		windows += len(b.windows)
	}
	return windows
}

// Floor is the start of the window of that length that t lies in.
func Floor(t int64, window time.Duration) int64 { return floor(t, int64(window)) }

func floor(t, step int64) int64 {
	m := t % step
	if m < 0 {
		m += step
	}
	return t - m
}
