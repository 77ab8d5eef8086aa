package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/gateway/seglog"
)

// ShedReason says why a record will never be delivered although nobody refused it.
type ShedReason int

const (
	ShedFull    ShedReason = iota // the bound on disk was reached
	ShedExpired                   // older than the destination's retry_for
	ShedDamaged                   // the disk gave back something else; see seglog.Damage
	ShedPurged                    // an operator wanted it
	numShedReasons
)

var shedNames = [numShedReasons]string{"outbox_full", "expired", "damaged", "purged"}

// String is the reason as it stands in metrics and data_gap points.
func (r ShedReason) String() string { return shedNames[r] }

// Shed tells of records that will not be delivered.
type Shed struct {
	Count    uint64
	From, To int64 // journal times in ns of the first and of the first one kept; 0 where unknown
	Reason   ShedReason
}

// position is the cursor together with the counters that must agree with it. It is stored as one value:
//
//	version 3 | next | acked LSN, ordinal, time (zigzag) | delivered | rejected | n shed {count} | n holes {from, to - from}
//	| degraded | tried | tried time (zigzag)
//	| n lanes {from, tried - from, since (zigzag), until (zigzag), acked LSN, ordinal, time (zigzag)}
//
// all unsigned varints unless said otherwise. Version 1 has no third line; it and version 2 count
// three reasons and have no lanes. seglog.Slots adds generation and checksum.
type position struct {
	next      uint64 // the oldest record that is not accounted for
	acked     Cause  // of the last record that is
	delivered uint64
	rejected  uint64
	shed      [numShedReasons]uint64
	degraded  uint64 // merged into records of a deeper tier
	tried     uint64 // records below may have reached the destination; only where records can be merged
	triedTime int64  // the latest journal time of those known
	holes     []span // accounted for ahead of older records: shed, or delivered by a lane; ascending, apart, all above next
	lanes     []lane // those that next has not passed yet, oldest first
}

// lane is what was delivered newest first: records from its first on, while older ones wait. Only records go that way of which no earlier version
// can be among the older ones, see reader.
type lane struct {
	from, tried  uint64 // records [from, tried) may have reached the destination
	since, until int64  // journal time at its beginning, and the latest of a record that it has tried
	acked        Cause  // of the last record that it has accounted for
}

// has tells whether the lane may have sent the record.
func (l *lane) has(lsn uint64) bool { return l.from <= lsn && lsn < l.tried }

// maxLanes bounds how often newer records overtake a backlog that itself has been overtaken, maxHoles what is kept of where they are.
const (
	maxLanes = 8
	maxHoles = 1000
)

// span is the records [from, to).
type span struct{ from, to uint64 }

const positionVersion = 3

func (p *position) append(b []byte) []byte {
	b = append(b, positionVersion)
	b = binary.AppendUvarint(b, p.next)
	b = binary.AppendUvarint(b, p.acked.LSN)
	b = binary.AppendUvarint(b, uint64(p.acked.Ordinal))
	b = binary.AppendVarint(b, p.acked.Time)
	b = binary.AppendUvarint(b, p.delivered)
	b = binary.AppendUvarint(b, p.rejected)
	b = binary.AppendUvarint(b, uint64(len(p.shed)))
	for _, n := range p.shed {
		b = binary.AppendUvarint(b, n)
	}
	b = binary.AppendUvarint(b, uint64(len(p.holes)))
	for _, h := range p.holes {
		b = binary.AppendUvarint(b, h.from)
		b = binary.AppendUvarint(b, h.to-h.from)
	}
	b = binary.AppendUvarint(b, p.degraded)
	b = binary.AppendUvarint(b, p.tried)
	b = binary.AppendVarint(b, p.triedTime)
	b = binary.AppendUvarint(b, uint64(len(p.lanes)))
	for i := range p.lanes {
		l := &p.lanes[i]
		b = binary.AppendUvarint(b, l.from)
		b = binary.AppendUvarint(b, l.tried-l.from)
		b = binary.AppendVarint(b, l.since)
		b = binary.AppendVarint(b, l.until)
		b = binary.AppendUvarint(b, l.acked.LSN)
		b = binary.AppendUvarint(b, uint64(l.acked.Ordinal))
		b = binary.AppendVarint(b, l.acked.Time)
	}
	return b
}

var errPosition = errors.New("cursor is damaged or from a newer version")

func parsePosition(b []byte) (p position, err error) {
	if len(b) == 0 || b[0] == 0 || b[0] > positionVersion {
		return p, errPosition
	}
	version := b[0]
	b = b[1:]
	bad := false
	uvarint := func() uint64 {
		v, n := binary.Uvarint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	varint := func() int64 {
		v, n := binary.Varint(b)
		if n <= 0 {
			bad, b = true, nil
			return 0
		}
		b = b[n:]
		return v
	}
	p.next = uvarint()
	p.acked.LSN = uvarint()
	ordinal := uvarint()
	p.acked.Ordinal = uint32(ordinal)
	p.acked.Time = varint()
	p.delivered, p.rejected = uvarint(), uvarint()
	reasons := uint64(len(p.shed))
	if version < 3 {
		reasons = 3
	}
	if uvarint() != reasons {
		return p, errPosition
	}
	for i := range p.shed[:reasons] {
		p.shed[i] = uvarint()
	}
	last := p.next
	for range min(uvarint(), uint64(len(b))) {
		h := span{from: uvarint()}
		h.to = h.from + uvarint()
		if h.from <= last || h.to <= h.from {
			return p, errPosition
		}
		last = h.to
		p.holes = append(p.holes, h)
	}
	if version > 1 {
		p.degraded, p.tried, p.triedTime = uvarint(), uvarint(), varint()
	}
	if version > 2 {
		for range min(uvarint(), uint64(len(b))) {
			l := lane{from: uvarint()}
			l.tried = l.from + uvarint()
			l.since, l.until = varint(), varint()
			l.acked.LSN, l.acked.Ordinal = uvarint(), uint32(uvarint())
			l.acked.Time = varint()
			if l.tried < l.from {
				return p, errPosition
			}
			p.lanes = append(p.lanes, l)
		}
	}
	if bad || len(b) != 0 || p.next == 0 || ordinal > math.MaxUint32 {
		return p, errPosition
	}
	return p, nil
}

// inHoles counts records below lsn that lie in holes.
func (p *position) inHoles(lsn uint64) (n uint64) {
	for _, h := range p.holes {
		if h.from < lsn {
			n += min(h.to, lsn) - h.from
		}
	}
	return n
}

// accounted tells whether record lsn lies in a hole.
func (p *position) accounted(lsn uint64) bool {
	for _, h := range p.holes {
		if lsn < h.from {
			return false
		}
		if lsn < h.to {
			return true
		}
	}
	return false
}

// cover accounts for the records [from, to), and tells how many of them were not accounted for yet.
func (p *position) cover(from, to uint64) (added uint64) {
	from = max(from, p.next)
	if from >= to {
		return 0
	}
	added = to - from
	all := make([]span, 0, len(p.holes)+1)
	grown := span{from, to}
	for _, h := range p.holes {
		if overlap := min(h.to, to); overlap > max(h.from, from) {
			added -= overlap - max(h.from, from)
		}
		switch {
		case h.to < grown.from:
			all = append(all, h)
		case grown.to < h.from:
			all = append(all, grown)
			grown = h
		default:
			grown.from, grown.to = min(grown.from, h.from), max(grown.to, h.to)
		}
	}
	p.holes = append(all, grown)
	p.advance(p.next)
	return added
}

// advance moves next to lsn and past any hole that begins there. Lanes that it has passed tell no more than it.
func (p *position) advance(lsn uint64) {
	p.next = lsn
	for len(p.holes) > 0 && p.holes[0].from <= p.next {
		p.next = max(p.next, p.holes[0].to)
		p.holes = p.holes[1:]
	}
	for len(p.lanes) > 0 && p.lanes[0].tried <= p.next && p.lanes[0].from <= p.next {
		l := &p.lanes[0]
		if l.acked.After(p.acked) {
			p.acked = l.acked
		}
		p.triedTime = max(p.triedTime, l.until)
		p.lanes = p.lanes[1:]
	}
}

// clip forgets what is said of records from end on, which a power cut took out of the log: they will be put again.
func (p *position) clip(end uint64) {
	for n := len(p.holes); n > 0 && p.holes[n-1].to > end; n = len(p.holes) {
		h := &p.holes[n-1]
		gone := h.to - max(h.from, end)
		p.delivered -= min(gone, p.delivered)
		if h.to = end; h.from >= end {
			p.holes = p.holes[:n-1]
		}
	}
	for i := range p.lanes {
		l := &p.lanes[i]
		l.from, l.tried = min(l.from, end), min(l.tried, end)
	}
}

// outcome counts what became of the records that an ack accounts for.
type outcome struct{ delivered, rejected, expired uint64 }

// ack accounts for every record up to last, whose cause is c; oldest is the time of the next record in hand, 0 when there is none.
func (b *Outbox) ack(last uint64, c Cause, n outcome, bytes int, oldest int64) error {
	b.mu.Lock()
	defer b.unlock()
	p := &b.pos
	if last < p.next {
		return fmt.Errorf("acknowledge record %d of outbox %s: the cursor is at %d already", last, b.dir, p.next)
	}
	passed := last + 1 - p.next - p.inHoles(last+1)
	known := n.delivered + n.rejected + n.expired
	if known > passed {
		return fmt.Errorf("acknowledge record %d of outbox %s: %d outcomes for %d records", last, b.dir, known, passed)
	}
	p.delivered += n.delivered
	p.rejected += n.rejected
	p.shed[ShedExpired] += n.expired
	p.shed[ShedDamaged] += passed - known
	b.noteShed(Shed{Count: n.expired, From: c.Time, To: c.Time, Reason: ShedExpired})
	b.noteShed(Shed{Count: passed - known, From: p.acked.Time, To: c.Time, Reason: ShedDamaged})
	p.acked = c
	p.triedTime = max(p.triedTime, c.Time)
	p.advance(last + 1)
	b.movedAt = time.Now()
	b.leased = max(b.leased, p.next)
	b.dirty = true
	if oldest == 0 {
		oldest = c.Time
	}
	b.oldest = oldest
	b.ackedBytes += int64(bytes)
	if b.ackedBytes >= b.o.SegmentBytes/2 {
		b.trim() // its error is logged by save, or seglog; what stays is tried again with the next
	} else if now := time.Now(); now.Sub(b.savedAt) >= b.o.CursorEvery {
		b.save(false)
	}
	return nil
}

// ackAhead accounts for records that a lane has delivered, or otherwise done with, ahead of older ones. What was shed meanwhile stays counted
// as that.
func (b *Outbox) ackAhead(recs []Record, n outcome) {
	b.mu.Lock()
	defer b.unlock()
	p := &b.pos
	last := recs[len(recs)-1].Cause
	if b.laneOpen && len(p.lanes) > 0 {
		l := &p.lanes[len(p.lanes)-1]
		l.acked, l.until = last, max(l.until, last.Time)
	}
	var added uint64
	for i := 0; i < len(recs); {
		from := recs[i].LSN
		to := from + 1
		for i++; i < len(recs) && recs[i].LSN == to; i++ {
			to++
		}
		added += p.cover(from, to)
	}
	shed := n.delivered + n.rejected + n.expired - added
	for _, k := range []*uint64{&n.delivered, &n.expired, &n.rejected} {
		less := min(shed, *k)
		*k, shed = *k-less, shed-less
	}
	p.delivered += n.delivered
	p.rejected += n.rejected
	p.shed[ShedExpired] += n.expired
	b.noteShed(Shed{Count: n.expired, From: last.Time, To: last.Time, Reason: ShedExpired})
	b.leased = max(b.leased, p.next)
	b.dirty = true
	if time.Since(b.savedAt) >= b.o.CursorEvery {
		b.save(false)
	}
}

// idle stores a cursor that is behind, when the forwarder has nothing to do.
func (b *Outbox) idle() {
	b.mu.Lock()
	b.save(false)
	b.unlock()
}

// save stores the position. Where that fails delivery goes on: after a crash more would be sent again, nothing is lost.
func (b *Outbox) save(sync bool) error {
	if !b.dirty && !sync {
		return nil
	}
	p := b.pos
	if b.below != nil && b.laneOpen && len(p.lanes) > 0 {
		p.lanes = slices.Clone(p.lanes)
		l := &p.lanes[len(p.lanes)-1]
		if !b.pinned { // a batch that is made again must find what it found
			l.tried += b.triedAhead()
		}
		b.laneMarked = l.tried
	}
	err := b.slots.Store(p.append(nil), sync)
	if err != nil {
		if b.storeErr == nil {
			b.o.Log.Error("cursor cannot be stored: a restart would deliver again", "outbox", b.dir, "err", err)
		}
		err = fmt.Errorf("store cursor: %w", err)
	} else {
		b.dirty = false
	}
	b.storeErr = err
	b.savedAt = time.Now()
	return err
}

// trim deletes segments of which every record is accounted for, once the cursor that says so is durable.
func (b *Outbox) trim() (freed bool, err error) {
	if err := b.save(true); err != nil {
		return false, err
	}
	before := b.log.Segments()
	b.ackedBytes, b.trimmedTo = 0, b.pos.next
	defer b.measure()
	if err := b.log.TrimBefore(seglog.LSN(b.pos.next)); err != nil {
		return false, fmt.Errorf("trim: %w", err)
	}
	b.diskBytes = b.log.DiskBytes()
	if b.log.Segments() < before {
		signal(b.room)
		return true, nil
	}
	return false, nil
}

// shedOldest deletes the oldest segment although its records are not delivered. What the forwarder holds in memory at that moment is not shed: it can
// still be delivered from there.
func (b *Outbox) shedOldest() error {
	// What was delivered is known as that: the cursor has not moved since it was synced by trim, see makeRoom. What was put is
	// known from what stays: the first record of every segment is synced before the segment has a name.
	first := uint64(b.log.First())
	to, ok := b.log.Second()
	if !ok {
		return ErrFull // one segment only
	}
	c, err := b.causeAt(first)
	if err != nil {
		return err
	}
	lost, err := b.tallyRange(max(b.leased, b.pos.next), uint64(to))
	if err != nil {
		return err
	}
	held := lossHand{From: max(first, b.pos.next), To: min(b.leased, uint64(to))}
	if held.From < held.To {
		inHand, err := b.tallyRange(held.From, held.To)
		if err != nil {
			return err
		}
		held.Losses = inHand.losses(ShedFull)
	}
	b.root.losses.hold(b.name, b.pos.next, held)
	b.root.losses.begin(b.name, ShedFull, uint64(to), lost)
	err = b.log.TrimTo(b.log.Bytes()-1, b.log.Next())
	gone := uint64(b.log.First()) > first
	b.root.losses.end(gone)
	if err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	if !gone {
		return ErrFull
	}
	b.shedTo = uint64(b.log.First())
	b.diskBytes = b.log.DiskBytes()
	b.settle(c.Time)
	b.trimmedTo = max(b.trimmedTo, b.pos.next)
	return nil // a crash before the next save finds segments gone behind the cursor, and counts the same
}

// settle counts what was shed and is not in the forwarder's hands. from is the time of the oldest.
func (b *Outbox) settle(from int64) {
	first := b.shedTo
	n := b.pos.cover(b.leased, first)
	if n == 0 {
		return
	}
	b.pos.shed[ShedFull] += n
	b.dirty = true
	s := Shed{Count: n, From: from, Reason: ShedFull}
	if c, err := b.causeAt(first); err == nil {
		s.To = c.Time
		if b.pos.next == first {
			b.oldest = c.Time
		}
	}
	b.noteShed(s)
}

func (b *Outbox) noteShed(s Shed) {
	if s.Count > 0 {
		b.sheds = append(b.sheds, s)
	}
}
