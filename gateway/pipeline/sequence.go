package pipeline

import (
	"encoding/binary"
	"slices"

	"sluice/gateway/telemetry"
)

// maxSpans bounds the gaps remembered for one device; beyond it the lowest numbers are forgotten, so that an old message may
// count again but none that was never seen is taken for a duplicate.
const maxSpans = 64

type span struct{ lo, hi uint64 }

// spans is a set of numbers as ascending, disjoint, non-adjacent ranges.
type spans []span

func (s spans) has(n uint64) bool {
	if k := len(s); k > 0 && n > s[k-1].hi {
		return false
	}
	_, ok := s.locate(n)
	return ok
}

// locate returns the first span whose hi is at least n, and whether it holds n.
func (s spans) locate(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s, n, func(sp span, n uint64) int {
		switch {
		case sp.hi < n:
			return -1
		case sp.lo > n:
			return 1
		}
		return 0
	})
}

func (s spans) add(n uint64) spans {
	if k := len(s); k > 0 && s[k-1].hi+1 == n && n != 0 {
		s[k-1].hi = n
		return s
	}
	i, ok := s.locate(n)
	if ok {
		return s
	}
	left := i > 0 && s[i-1].hi+1 == n
	right := i < len(s) && s[i].lo == n+1
	switch {
	case left && right:
		s[i-1].hi = s[i].hi
		return slices.Delete(s, i, i+1)
	case left:
		s[i-1].hi = n
	case right:
		s[i].lo = n
	default:
		s = slices.Insert(s, i, span{n, n})
		if len(s) > maxSpans {
			s = slices.Delete(s, 0, 1)
		}
	}
	return s
}

// sequence remembers which sequence numbers of one device were seen. A device that restarts or wraps begins a new epoch; the
// old one stays known for resends.
type sequence struct {
	seen     spans
	last     uint64 // last accepted number
	newest   int64  // newest event time accepted
	old      spans  // the epoch before
	oldUntil int64  // newest event time of that epoch
}

// duplicate tells whether number n with event time t was counted before, and remembers it otherwise. timed tells that t is the
// device's own. A number seen before starts a new epoch only with a stamp newer than all before, and only where a restart
// counts up again: at 0 or 1, or right behind the number accepted last.
func (q *sequence) duplicate(n uint64, t int64, timed bool) bool {
	if q.seen.has(n) {
		highest := q.seen[len(q.seen)-1].hi
		restart := timed && t > q.newest && highest > n && (n <= 1 || q.last == n-1)
		if !restart {
			return true
		}
		q.old, q.oldUntil = q.seen, q.newest
		q.seen = nil
	} else if timed && t <= q.oldUntil && q.old.has(n) {
		return true
	}
	q.seen = q.seen.add(n)
	q.last = n
	q.newest = max(q.newest, t)
	return false
}

func (s spans) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	for _, sp := range s {
		b = binary.AppendUvarint(b, sp.lo)
		b = binary.AppendUvarint(b, sp.hi-sp.lo)
	}
	return b
}

func restoreSpans(d *telemetry.Decoder) spans {
	var s spans
	for range d.Count(2) {
		lo := d.Uvarint()
		s = append(s, span{lo, lo + d.Uvarint()})
	}
	return s
}

func (q *sequence) snapshot(b []byte) []byte {
	b = q.seen.append(b)
	b = binary.AppendUvarint(b, q.last)
	b = binary.AppendVarint(b, q.newest)
	b = q.old.append(b)
	return binary.AppendVarint(b, q.oldUntil)
}

func (q *sequence) restore(d *telemetry.Decoder) {
	q.seen = restoreSpans(d)
	q.last, q.newest = d.Uvarint(), d.Varint()
	q.old, q.oldUntil = restoreSpans(d), d.Varint()
}

// resendWindow is how many messages of one client are remembered to recognise a DUP resend; it covers what a client can have
// in flight.
const resendWindow = 1024

// resends remembers the last messages without a sequence of one client.
type resends struct {
	ring []uint64 // oldest at pos when full
	pos  int
}

func resendKey(packetID uint16, size int, sum uint32) uint64 {
	return uint64(sum)<<32 | uint64(uint16(size))<<16 | uint64(packetID)
}

// duplicate tells whether a message with the DUP flag was counted before, and remembers it otherwise.
func (r *resends) duplicate(key uint64, dup bool) bool {
	if dup && slices.Contains(r.ring, key) {
		return true
	}
	if len(r.ring) < resendWindow {
		r.ring = append(r.ring, key)
		return false
	}
	r.ring[r.pos] = key
	r.pos = (r.pos + 1) % resendWindow
	return false
}
