package uplink

import (
	"fmt"
	"math"
	"slices"

	"sluice/gateway/seglog"
	"sluice/uplink/condense"
)

// reader hands an outbox's records to its forwarder, in order. It is the forwarder's alone.
type reader struct {
	out    *Outbox
	cursor *seglog.Cursor
	next   uint64        // the record expected
	ahead  seglog.Record // read and not handed out yet; Body nil when there is none
	arena  arena         // of the bodies in hand
	lane   *lane         // what it reads goes ahead of older records; nil: in order
}

func (b *Outbox) reader() *reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leased = b.pos.next
	return &reader{out: b, next: b.pos.next, cursor: b.log.Cursor(seglog.LSN(b.pos.next))}
}

// read appends visible records to batch until it holds maxRecords or maxBytes (at least one record, whatever its size), or
// a record is missing in between: what a batch holds has no gap, so that settle can tell what was shed from what is damaged.
// It does not wait.
func (r *reader) read(batch []Record, maxRecords, maxBytes int) ([]Record, error) {
	b := r.out
	b.mu.Lock()
	before := b.leased
	if r.lane == nil {
		b.leased = math.MaxUint64 // until it is known how far this read comes
	}
	from := max(r.next, b.pos.next)
	holes := slices.Clone(b.pos.holes)
	b.mu.Unlock()

	if len(batch) == 0 {
		r.arena.reset()
	}
	var err error
	got, size, first := 0, 0, int64(0)
	for len(batch) < maxRecords {
		if r.ahead.Body == nil {
			rec, ok, e := r.cursor.TryNext()
			if e != nil {
				err = fmt.Errorf("read outbox %s: %w", b.dir, e)
				break
			}
			if !ok {
				break
			}
			r.ahead = rec
		}
		lsn := uint64(r.ahead.LSN)
		for len(holes) > 0 && holes[0].to <= lsn {
			holes = holes[1:]
		}
		if len(holes) > 0 && holes[0].from <= lsn { // delivered ahead, or shed since it was read
			if got > 0 && r.lane == nil {
				break
			}
			r.seek(holes[0].to)
			continue
		}
		if lsn < from || r.lane != nil && !r.lane.may(&r.ahead) {
			r.ahead.Body = nil
			continue
		}
		if got > 0 && (r.lane == nil && lsn != r.next || size+len(r.ahead.Body) > maxBytes) {
			break
		}
		raw := r.ahead
		raw.Body = r.arena.keep(raw.Body) // the cursor's buffer is valid until its next call only
		r.ahead.Body = nil
		r.next = lsn + 1
		size += len(raw.Body)
		rec, e := splitRecord(raw)
		if e != nil { // not a record of ours: ack counts it as damaged
			continue
		}
		if got == 0 {
			first = rec.Cause.Time
		}
		got++
		batch = append(batch, rec)
	}

	if r.lane != nil {
		b.tryAhead(r.next)
	} else {
		r.lease(before, got > 0, got > 0 && got == len(batch), first)
	}
	if got > 0 {
		return batch, nil // what was read counts; an error comes again with the next call
	}
	return batch, err
}

// lease says how far an in-order read came; oldest is the journal time of its first record, which opens the hand.
func (r *reader) lease(before uint64, got, opens bool, oldest int64) {
	b := r.out
	b.mu.Lock()
	defer b.unlock()
	b.leased = before
	if got {
		b.leased = r.next
	}
	b.try()
	var shedFrom int64
	if r.ahead.Body != nil {
		shedFrom = r.ahead.Time
	}
	b.settle(shedFrom)
	if opens {
		b.oldest = oldest
	}
}

// seek goes on at lsn.
func (r *reader) seek(lsn uint64) {
	r.cursor.Close()
	r.cursor, r.next, r.ahead = r.out.log.Cursor(seglog.LSN(lsn)), lsn, seglog.Record{}
}

// may tells whether a record can overtake what was put before the lane began: an earlier version of it would be a window that ended
// before that. Readings have no versions.
func (l *lane) may(raw *seglog.Record) bool {
	if raw.Type != TypePoint || len(raw.Body) < recordHead {
		return false
	}
	h, ok := condense.ReadHead(raw.Body[recordHead:])
	return ok && (h.Window == 0 || h.Time+int64(h.Window) > l.since)
}

// openLane begins a lane at what will be put next.
func (b *Outbox) openLane() *reader {
	b.mu.Lock()
	defer b.unlock()
	from := uint64(b.log.Next())
	if len(b.pos.lanes) >= maxLanes || len(b.pos.holes) > maxHoles/2 || from <= b.pos.next {
		return nil
	}
	b.pos.lanes = append(b.pos.lanes, lane{from: from, tried: from, since: b.held.Time, until: b.held.Time})
	b.laneOpen = true
	b.dirty = true
	b.save(true) // where it fails it says so: after a crash the lane is not known, and what it sent is sent again
	l := b.pos.lanes[len(b.pos.lanes)-1]
	return &reader{out: b, next: from, cursor: b.log.Cursor(seglog.LSN(from)), lane: &l}
}

// closeLane ends the lane's use.
func (b *Outbox) closeLane() {
	b.mu.Lock()
	defer b.unlock()
	b.laneOpen = false
	b.pos.advance(b.pos.next)
	b.dirty = true
}

// tryAhead marks records below lsn as tried by the lane.
func (b *Outbox) tryAhead(lsn uint64) {
	b.mu.Lock()
	defer b.unlock()
	if !b.laneOpen || len(b.pos.lanes) == 0 {
		return
	}
	l := &b.pos.lanes[len(b.pos.lanes)-1]
	if lsn <= l.tried {
		return
	}
	l.tried = lsn
	if b.below != nil && lsn > b.laneMarked {
		b.dirty = true
		b.save(true)
	}
}

func (r *reader) close() error { return r.cursor.Close() }
