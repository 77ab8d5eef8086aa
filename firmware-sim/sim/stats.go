package sim

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Stats is what a fleet has done so far.
type Stats struct {
	Elapsed     time.Duration
	Devices     int
	Connections int
	Connected   int

	Planned   int64 // readings to take; 0: no end
	Readings  int64 // taken
	Dropped   int64 // of these, not published: dropout
	Published int64 // messages handed to the client, duplicates of the duplicate fault counted
	Acked     int64 // QoS 1 and 2
	Sent      int64 // QoS 0
	Resent    int64 // times a message was sent again after a reconnect
	Lost      int64 // given up
	InFlight  int64 // published and neither acknowledged nor given up

	Connects        int64
	LostConnections int64
	ConnectFailures int64

	Behind time.Duration // how far the slowest connection is behind its schedule

	// From publish to acknowledgement, reconnects included, to within 25 % above; 0: none yet.
	AckP50, AckP99, AckMax time.Duration
}

type counters struct {
	readings, dropped, published, acked, sent, resent, lost atomic.Int64
	connects, lostConnections, connectFailures              atomic.Int64
	latency                                                 latencies
}

// progress grows whenever something gets ahead.
func (c *counters) progress() int64 {
	return c.readings.Load() + c.published.Load() + c.acked.Load() + c.lost.Load()
}

// Stats returns the figures of now, or of the end once Run has returned.
func (f *Fleet) Stats() Stats {
	c := &f.stats
	s := Stats{
		Devices: f.cfg.Devices, Connections: len(f.links), Planned: f.planned,
		Readings: c.readings.Load(), Dropped: c.dropped.Load(),
		// Outcomes before publishes, so that InFlight is never negative.
		Acked: c.acked.Load(), Sent: c.sent.Load(), Lost: c.lost.Load(),
		Resent: c.resent.Load(), Connects: c.connects.Load(), LostConnections: c.lostConnections.Load(),
		ConnectFailures: c.connectFailures.Load(),
	}
	s.Published = c.published.Load()
	s.InFlight = max(0, s.Published-s.Acked-s.Sent-s.Lost)
	s.AckP50, s.AckP99, s.AckMax = c.latency.quantiles()
	if f.startNS.Load() == 0 {
		return s
	}
	s.Elapsed = f.elapsed()
	if end := f.endNS.Load(); end != 0 {
		s.Elapsed = time.Duration(end - f.startNS.Load())
	}
	for _, l := range f.links {
		if l.up.Load() {
			s.Connected++
		}
		if next := l.nextDue.Load(); next != done {
			s.Behind = max(s.Behind, s.Elapsed-time.Duration(next))
		}
	}
	return s
}

// latencies is a histogram in microseconds with four buckets an octave. Safe for concurrent use.
type latencies struct {
	buckets [4 * 48]atomic.Int64
	max     atomic.Int64
}

func (h *latencies) add(d time.Duration) {
	us := max(d.Microseconds(), 1)
	h.buckets[min(bucketOf(uint64(us)), len(h.buckets)-1)].Add(1)
	for old := h.max.Load(); int64(d) > old && !h.max.CompareAndSwap(old, int64(d)); old = h.max.Load() {
	}
}

// bucketOf numbers the quarter octave of us >= 1; the two bits after the leading one choose the quarter.
func bucketOf(us uint64) int {
	octave := bits.Len64(us) - 1
	quarter := us << 2 >> octave & 3
	return octave*4 + int(quarter)
}

// upperBound is the first value beyond bucket i.
func upperBound(i int) time.Duration {
	octave, quarter := i/4, i%4
	return time.Duration(float64(uint64(1)<<octave) * (1 + float64(quarter+1)/4) * float64(time.Microsecond))
}

func (h *latencies) quantiles() (p50, p99, highest time.Duration) {
	var total int64
	var n [len(h.buckets)]int64
	for i := range h.buckets {
		n[i] = h.buckets[i].Load()
		total += n[i]
	}
	highest = time.Duration(h.max.Load())
	var seen int64
	for i := range n {
		before := seen
		seen += n[i]
		if total > 0 && before*2 < total && seen*2 >= total {
			p50 = min(upperBound(i), highest)
		}
		if total > 0 && before*100 < total*99 && seen*100 >= total*99 {
			p99 = min(upperBound(i), highest)
		}
	}
	return p50, p99, highest
}
