package expr

import (
	"encoding/binary"
	"math"
	"slices"

	"sluice/gateway/telemetry"
)

// ranks keeps the points of a window, or an even share of them, and their values in order: what quantile needs.
type ranks struct {
	t      []int64 // ring of points; its length is a power of two
	v      []float64
	head   int
	n      int
	sorted []float64 // the n values, ascending
	stride uint32    // every stride-th point is kept
	skip   uint32    // points to pass over before the next is kept
}

func (r *ranks) add(t int64, v float64, oldest int64) {
	for r.n > 0 && r.t[r.head] <= oldest {
		at, _ := slices.BinarySearch(r.sorted, r.v[r.head])
		r.sorted = append(r.sorted[:at], r.sorted[at+1:]...)
		r.head = (r.head + 1) & (len(r.t) - 1)
		r.n--
	}
	if r.n < maxRanks/4 && r.stride > 1 {
		r.stride /= 2
		r.skip = min(r.skip, r.stride-1)
	}
	if r.n == 0 { // the newest point is always known when nothing else is
		r.skip = 0
	}
	if r.skip > 0 {
		r.skip--
		return
	}
	if r.n == len(r.t) {
		r.makeRoom()
	}
	at := (r.head + r.n) & (len(r.t) - 1)
	r.t[at], r.v[at] = t, v
	r.n++
	r.skip = r.stride - 1
	place, _ := slices.BinarySearch(r.sorted, v)
	r.sorted = slices.Insert(r.sorted, place, v)
}

// makeRoom doubles the ring up to maxRanks, then drops every second point.
func (r *ranks) makeRoom() {
	size, step := max(4, 2*len(r.t)), 1
	if len(r.t) == maxRanks {
		size, step = maxRanks, 2
		r.stride *= 2
	}
	times, values := make([]int64, 0, size), make([]float64, 0, size)
	if step == 2 { // in place: the steady state allocates nothing
		times, values = r.t[:0], r.v[:0]
		rotate(r.t, r.head)
		rotate(r.v, r.head)
		r.head = 0
	}
	for i := 0; i < r.n; i += step {
		at := (r.head + i) & (len(r.t) - 1)
		times, values = append(times, r.t[at]), append(values, r.v[at])
	}
	r.n, r.head = len(times), 0
	r.t, r.v = times[:size], values[:size]
	if step == 2 {
		r.sorted = append(r.sorted[:0], r.v[:r.n]...)
		slices.Sort(r.sorted)
	} else {
		r.sorted = append(make([]float64, 0, size), r.sorted...)
	}
}

// rotate moves element k to the front.
func rotate[T any](s []T, k int) {
	slices.Reverse(s[:k])
	slices.Reverse(s[k:])
	slices.Reverse(s)
}

// quantile interpolates between the two nearest ranks (R-7 in Hyndman & Fan 1996), of points newer than oldest.
func (r *ranks) quantile(q float64, oldest int64) float64 {
	sorted := r.sorted
	gone := 0
	for gone < r.n && r.t[(r.head+gone)&(len(r.t)-1)] <= oldest {
		gone++
	}
	var buf [maxRanks]float64
	if gone > 0 {
		sorted = buf[:0]
		for i := gone; i < r.n; i++ {
			sorted = append(sorted, r.v[(r.head+i)&(len(r.t)-1)])
		}
		slices.Sort(sorted)
	}
	if len(sorted) == 0 {
		return math.NaN()
	}
	rank := q * float64(len(sorted)-1)
	low := int(rank)
	high := min(low+1, len(sorted)-1)
	part := rank - float64(low)
	if part == 0 || sorted[low] == sorted[high] {
		return sorted[low]
	}
	return sorted[low]*(1-part) + sorted[high]*part // no difference: that could overflow
}

func (r *ranks) snapshot(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(r.stride))
	b = binary.AppendUvarint(b, uint64(r.skip))
	b = binary.AppendUvarint(b, uint64(r.n))
	for i := range r.n {
		at := (r.head + i) & (len(r.t) - 1)
		b = binary.AppendVarint(b, r.t[at])
		b = telemetry.AppendFloat(b, r.v[at])
	}
	return b
}

func (r *ranks) restore(d *telemetry.Decoder) bool {
	stride, skip, n := d.Uvarint(), d.Uvarint(), d.Count(9)
	if stride == 0 || stride > 1<<31 || stride&(stride-1) != 0 || skip >= stride || n > maxRanks {
		return false
	}
	r.stride, r.skip, r.n = uint32(stride), uint32(skip), n
	if n == 0 {
		return true
	}
	size := 4
	for size < n {
		size *= 2
	}
	r.t, r.v = make([]int64, size), make([]float64, size)
	for i := range n {
		r.t[i], r.v[i] = d.Varint(), d.Float()
		if r.v[i]-r.v[i] != 0 || i > 0 && r.t[i] < r.t[i-1] {
			return false
		}
	}
	r.sorted = append(make([]float64, 0, size), r.v[:n]...)
	slices.Sort(r.sorted)
	return true
}
