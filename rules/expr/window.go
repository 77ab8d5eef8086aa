package expr

import (
	"encoding/binary"
	"math"

	"sluice/gateway/telemetry"
)

// Bounds on a Window. What it costs: 96 bytes, up to maxSlots slots of 72 bytes (they grow with the number of points), and with
// ranks up to maxRanks points of 24 bytes.
const (
	cells    = 60 // parts of the duration into which points merge when they are too many to keep one by one
	maxSlots = cells + 4
	maxRanks = 256
)

// WindowBytes is the most memory one Window takes, without and with what quantile needs.
const (
	WindowBytes      = 96 + maxSlots*72
	WindowRanksBytes = WindowBytes + 80 + maxRanks*24
)

// Window keeps the points of one metric over one duration in bounded memory, for the functions over time. The zero value is
// not usable; see NewWindow.
//
// Up to 64 points in the duration every function is exact. Beyond, points that share a sixtieth of the duration (cells are aligned
// to the epoch) merge into one slot, which leaves the window with its newest point: then what lies at the window's far end is
// exact to a sixtieth of the duration, and everything else stays exact. Quantiles come from the points themselves, all of them up
// to 256, of more from every second, fourth, ... one, and never from fewer than the 64 newest kept.
//
// The window ends at the device's time: the event time of its newest point, which runs on with the engine's clock from that point's
// arrival. So history that a device buffered is seen as it was, and windows of a silent device run empty.
type Window struct {
	span  int64 // ns
	seen  int64 // engine's clock when the newest point came
	slots []slot
	head  int
	n     int
	dense bool // points of one cell share a slot
	ranks *ranks
}

// slot is one point, or the points of one cell.
type slot struct {
	t0, t1      int64 // event times of the first and last
	first, last float64
	min, max    float64
	sum         float64
	m2          float64 // sum of squared differences from the mean
	n           uint64
}

// NewWindow makes an empty window over span, which is positive.
func NewWindow(use WindowUse) Window {
	w := Window{span: int64(use.Span)}
	if use.Ranks {
		w.ranks = &ranks{stride: 1}
	}
	return w
}

// Add takes a point with event time t at the engine's time now. A t before the newest point's counts as that.
func (w *Window) Add(t, now int64, v float64) {
	v += 0 // -0 becomes 0, so that equal values are equal bytes
	if w.n > 0 {
		t = max(t, w.at(w.n-1).t1)
	}
	oldest := before(t, w.span)
	w.seen = now
	w.expire(oldest)
	if w.ranks != nil {
		w.ranks.add(t, v, oldest)
	}
	if w.dense {
		if s := w.at(w.n - 1); w.cell(s.t1) == w.cell(t) {
			s.add(t, v)
			return
		}
	}
	if w.n == len(w.slots) {
		w.makeRoom()
	}
	w.n++
	*w.at(w.n - 1) = slot{t0: t, t1: t, first: v, last: v, min: v, max: v, sum: v, n: 1}
}

// expire drops what left the window. When that leaves it half empty, points are kept one by one again.
func (w *Window) expire(oldest int64) {
	for w.n > 0 && w.slots[w.head].t1 <= oldest {
		w.head = (w.head + 1) & (len(w.slots) - 1)
		if w.n--; w.n < maxSlots/2 {
			w.dense = false
		}
	}
}

func (w *Window) at(i int) *slot { return &w.slots[(w.head+i)&(len(w.slots)-1)] }

// cell is the number of the sixtieth that t lies in. Sixty and a part of them cover the duration, so at most 61 are in use.
func (w *Window) cell(t int64) int64 {
	size := (w.span + cells - 1) / cells
	c := t / size
	if t%size < 0 {
		c--
	}
	return c
}

// makeRoom doubles the slots up to maxSlots, then merges those of one cell. The length stays a power of two.
func (w *Window) makeRoom() {
	if len(w.slots) < maxSlots {
		grown := make([]slot, max(4, 2*len(w.slots)))
		for i := range w.n {
			grown[i] = *w.at(i)
		}
		w.slots, w.head = grown, 0
		return
	}
	w.dense = true
	kept := 1
	for i := 1; i < w.n; i++ {
		s, last := w.at(i), w.at(kept-1)
		if w.cell(s.t1) == w.cell(last.t1) {
			last.merge(s)
			continue
		}
		*w.at(kept) = *s
		kept++
	}
	w.n = kept
}

func (s *slot) add(t int64, v float64) {
	mean := s.sum / float64(s.n)
	s.n++
	s.sum += v
	s.m2 += (v - mean) * (v - s.sum/float64(s.n)) // Welford 1962
	s.t1, s.last = t, v
	s.min, s.max = min(s.min, v), max(s.max, v)
}

// merge adds the points of a later slot.
func (s *slot) merge(b *slot) {
	d := b.sum/float64(b.n) - s.sum/float64(s.n)
	s.m2 += b.m2 + d*d*float64(s.n)*float64(b.n)/float64(s.n+b.n) // Chan, Golub, LeVeque 1979
	s.n += b.n
	s.sum += b.sum
	s.t1, s.last = b.t1, b.last
	s.min, s.max = min(s.min, b.min), max(s.max, b.max)
}

// before is t - d without wrapping.
func before(t, d int64) int64 {
	if t < math.MinInt64+d {
		return math.MinInt64
	}
	return t - d
}

// oldest is the time at and before which points are outside the window, at the engine's time now.
func (w *Window) oldest(now int64) int64 {
	ref := w.at(w.n - 1).t1
	if gone := now - w.seen; gone > 0 {
		if ref > math.MaxInt64-gone {
			return math.MaxInt64
		}
		ref += gone
	}
	return before(ref, w.span)
}

// from is the place of the first slot inside the window; w.n when there is none.
func (w *Window) from(now int64) int {
	if w.n == 0 {
		return 0
	}
	oldest, i := w.oldest(now), 0
	for i < w.n && w.at(i).t1 <= oldest {
		i++
	}
	return i
}

// Empty tells whether the window holds no point at the engine's time now; it stays so until the next Add.
func (w *Window) Empty(now int64) bool { return w.from(now) == w.n }

// count is the number of points; unknown when there never was one.
func (w *Window) count(now int64) float64 {
	if w.n == 0 {
		return math.NaN()
	}
	n := uint64(0)
	for i := w.from(now); i < w.n; i++ {
		n += w.at(i).n
	}
	return float64(n)
}

// total is the number of points and their sum.
func (w *Window) total(now int64) (n uint64, sum float64) {
	for i := w.from(now); i < w.n; i++ {
		s := w.at(i)
		n += s.n
		sum += s.sum
	}
	return n, sum
}

func (w *Window) sum(now int64) float64 {
	n, sum := w.total(now)
	if n == 0 {
		return math.NaN()
	}
	return known(sum)
}

func (w *Window) avg(now int64) float64 {
	n, sum := w.total(now)
	return known(sum / float64(n)) // 0/0 is NaN
}

func (w *Window) min(now int64) float64 {
	i := w.from(now)
	if i == w.n {
		return math.NaN()
	}
	v := w.at(i).min
	for i++; i < w.n; i++ {
		v = min(v, w.at(i).min)
	}
	return v
}

func (w *Window) max(now int64) float64 {
	i := w.from(now)
	if i == w.n {
		return math.NaN()
	}
	v := w.at(i).max
	for i++; i < w.n; i++ {
		v = max(v, w.at(i).max)
	}
	return v
}

// stddev is that of the population.
func (w *Window) stddev(now int64) float64 {
	n, sum := w.total(now)
	if n == 0 {
		return math.NaN()
	}
	mean, m2 := sum/float64(n), 0.0
	for i := w.from(now); i < w.n; i++ {
		s := w.at(i)
		d := s.sum/float64(s.n) - mean
		m2 += s.m2 + float64(s.n)*d*d
	}
	return known(math.Sqrt(m2 / float64(n)))
}

// delta is the newest value minus the oldest; unknown with fewer than two points.
func (w *Window) delta(now int64) float64 {
	d, _ := w.change(now)
	return d
}

// rate is delta in units a second.
func (w *Window) rate(now int64) float64 {
	d, ns := w.change(now)
	return known(d / (float64(ns) / 1e9)) // points of one time have no rate: x/0 is not known
}

func (w *Window) change(now int64) (delta float64, ns int64) {
	i := w.from(now)
	if i == w.n || i == w.n-1 && w.at(i).n == 1 {
		return math.NaN(), 0
	}
	a, b := w.at(i), w.at(w.n-1)
	return known(b.last - a.first), b.t1 - a.t0
}

func (w *Window) last(now int64) float64 {
	if w.from(now) == w.n {
		return math.NaN()
	}
	return w.at(w.n - 1).last
}

func (w *Window) quantile(q float64, now int64) float64 {
	if w.from(now) == w.n {
		return math.NaN()
	}
	return known(w.ranks.quantile(q, w.oldest(now)))
}

// Snapshot appends the state to b. Windows of one use and history append the same bytes:
//
//	seen (zigzag) | 0 or 1 dense | n slots { n | t0 (zigzag) | t1 - t0 | n = 1: v (f64), else first last min max sum m2 (6 x f64) }
//	| with ranks: stride | skip | n points { t (zigzag) v (f64) }
func (w *Window) Snapshot(b []byte) []byte {
	b = binary.AppendVarint(b, w.seen)
	if w.dense {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(w.n))
	for i := range w.n {
		s := w.at(i)
		b = binary.AppendUvarint(b, s.n)
		b = binary.AppendVarint(b, s.t0)
		b = binary.AppendUvarint(b, uint64(s.t1-s.t0))
		if s.n == 1 {
			b = telemetry.AppendFloat(b, s.last)
			continue
		}
		for _, v := range [...]float64{s.first, s.last, s.min, s.max, s.sum, s.m2} {
			b = telemetry.AppendFloat(b, v)
		}
	}
	if w.ranks != nil {
		b = w.ranks.snapshot(b)
	}
	return b
}

// Restore reads what Snapshot wrote for an empty window of the same use; false when it is damaged.
func (w *Window) Restore(d *telemetry.Decoder) bool {
	w.seen = d.Varint()
	dense := d.Byte()
	n := d.Count(11)
	if dense > 1 || n > maxSlots || dense == 1 && n == 0 {
		return false
	}
	w.dense = dense == 1
	if n > 0 {
		size := 4
		for size < n {
			size *= 2
		}
		w.slots, w.n = make([]slot, size), n
	}
	for i := range n {
		s := &w.slots[i]
		s.n, s.t0 = d.Uvarint(), d.Varint()
		gap := d.Uvarint()
		if s.n == 0 || gap > math.MaxInt64 || s.t0 > math.MaxInt64-int64(gap) {
			return false
		}
		s.t1 = s.t0 + int64(gap)
		if i > 0 && s.t0 < w.slots[i-1].t1 {
			return false
		}
		if s.n == 1 {
			v := d.Float()
			s.first, s.last, s.min, s.max, s.sum = v, v, v, v, v
		} else {
			for _, f := range [...]*float64{&s.first, &s.last, &s.min, &s.max, &s.sum, &s.m2} {
				*f = d.Float()
			}
		}
		if s.last-s.last != 0 || s.first-s.first != 0 { // sums may be beyond the range; readings are not
			return false
		}
	}
	if w.ranks != nil && !w.ranks.restore(d) {
		return false
	}
	return d.Err() == nil && (w.ranks == nil || (w.ranks.n > 0) == (w.n > 0))
}
