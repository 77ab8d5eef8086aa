package uplink

import (
	"math"
	"time"
)

// planInput is what the choice of a level of the ladder is made from.
type planInput struct {
	left    float64       // bytes that points may still use on the wire
	lasts   time.Duration // and for how long
	wire    float64       // bytes on the wire of one record; 0: not known yet
	in      float64       // records put a second
	pending []float64     // records waiting: live, then one for each step of the ladder
	shrink  []float64     // what one live record becomes, 1 for live, less with each step
	level   int           // the one in force
}

// plan returns from which step of the ladder on points are to be sent, 0 for all of them, so that what waits and what will come until
// the budget turns fits into it: resolution is given up before the budget is overrun. It goes back only when a fifth is to spare.
func plan(in planInput) int {
	last := len(in.pending) - 1
	if in.wire <= 0 {
		return min(in.level, last)
	}
	for k := 0; k < last; k++ {
		room := in.left
		if k < in.level {
			room *= 0.8
		}
		if in.need(k) <= room {
			return k
		}
	}
	return last
}

// need is the bytes of everything that waits and will come, sent from step k on.
func (in *planInput) need(k int) float64 {
	records := in.in * in.lasts.Seconds() * in.shrink[k]
	for i, n := range in.pending {
		records += n * in.shrink[max(i, k)] / in.shrink[i]
	}
	return records * in.wire
}

// inflow measures what is put into an outbox. The zero value is ready.
type inflow struct {
	began, at      time.Time
	records, bytes float64 // each fading with inflowWindow
	lastRecords    uint64
	lastBytes      uint64
}

const inflowWindow = 10 * time.Minute

// sample takes in how much was put since the outbox was opened.
func (f *inflow) sample(now time.Time, records, bytes uint64) {
	if f.began.IsZero() {
		f.began, f.at, f.lastRecords, f.lastBytes = now, now, records, bytes
		return
	}
	fade := math.Exp(-now.Sub(f.at).Seconds() / inflowWindow.Seconds())
	f.records = f.records*fade + float64(records-f.lastRecords)
	f.bytes = f.bytes*fade + float64(bytes-f.lastBytes)
	f.at, f.lastRecords, f.lastBytes = now, records, bytes
}

// rates are per second; measured tells over how long, 0 when that is too short to say.
func (f *inflow) rates() (records, bytes float64, measured time.Duration) {
	measured = f.at.Sub(f.began)
	if measured < 5*time.Second {
		return 0, 0, 0
	}
	w := inflowWindow.Seconds()
	over := w * (1 - math.Exp(-measured.Seconds()/w))
	return f.records / over, f.bytes / over, measured
}

// shrinks estimates what a live record becomes at each step of the ladder, in records and in bytes on disk: 1 for the live tier, then
// as measured where something was merged, else as the windows say.
func (b *Outbox) shrinks() (records, bytes []float64, steps []time.Duration) {
	records, bytes = []float64{1}, []float64{1}
	live := b.o.LiveWindow
	if live <= 0 {
		live = time.Second
	}
	liveSize := b.recordSize()
	size := liveSize
	window := live
	for s := b; s.below != nil; s = s.below {
		t := s.below
		n, m := s.own(), t.own()
		ratio := min(1, float64(window)/float64(t.step))
		if n.Degraded > 1000 && m.Enqueued > 0 {
			ratio = min(1, float64(m.Enqueued)/float64(n.Degraded))
		}
		if sz := t.recordSize(); sz > 0 {
			size = sz
		}
		records = append(records, max(records[len(records)-1]*ratio, 1e-6))
		r := records[len(records)-1]
		if liveSize > 0 && size > 0 {
			r *= size / liveSize
		}
		bytes = append(bytes, min(r, bytes[len(bytes)-1]))
		steps = append(steps, t.step)
		window = t.step
	}
	return records, bytes, steps
}

// recordSize is about what a record of this tier takes on disk, 0 when there are too few to say.
func (b *Outbox) recordSize() float64 {
	n := b.own().Pending
	size := b.log.Bytes() - int64(b.log.Segments())*segmentHead
	if n < 100 || size <= 0 {
		return 0
	}
	return float64(size) / float64(n)
}

// waiting is the records of each tier of the ladder, the live one first.
func (b *Outbox) waiting() (n []float64) {
	for t := b; t != nil; t = t.below {
		n = append(n, float64(t.own().Pending))
	}
	return n
}

// planEvery is how often the level of the ladder is looked at.
const planEvery = 5 * time.Second

// plan sets the level of the ladder from which on points are sent, and learns what a record takes on the wire.
func (f *Forwarder) plan(now time.Time) {
	m := f.o.Meter
	f.status.mu.Lock()
	f.status.limit = min(f.limit, f.o.BatchRecords)
	f.status.mu.Unlock()
	if m == nil || now.Before(f.planned) {
		return
	}
	f.planned = now.Add(planEvery)
	put, bytes := f.root.inflowNow()
	f.inflow.sample(now, put, bytes)
	left, lasts, ok := m.Left(now)
	if !ok || len(f.lanes) == 1 {
		return
	}
	rate, _, measured := f.inflow.rates()
	if measured < time.Minute {
		rate = 0
	}
	records, _, _ := f.root.shrinks()
	was := f.level
	f.level = plan(planInput{left: float64(left), lasts: lasts, wire: f.wire, in: rate, pending: f.root.waiting(), shrink: records, level: f.level})
	if f.level == was {
		return
	}
	f.status.mu.Lock()
	f.status.level = f.level
	f.status.mu.Unlock()
	if f.level > 0 {
		f.endLane()
	}
	f.o.Log.Warn("budget of bytes: points are sent at another resolution", "destination", f.o.Name, "level", f.level, "before", was)
}

// weigh learns from requests that carried n records and took so many bytes on the wire.
func (f *Forwarder) weigh(n int, bytes int64) {
	if n == 0 || bytes <= 0 {
		return
	}
	w := float64(bytes) / float64(n)
	if f.wire == 0 {
		f.wire = w
	}
	share := min(float64(n)/1000+0.05, 0.5) // large requests say more
	f.wire += (w - f.wire) * share
}
