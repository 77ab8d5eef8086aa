package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"sluice/gateway/seglog"
)

// ShedReason says why a record will never be delivered although nobody refused it.
type ShedReason int

const (
	ShedFull    ShedReason = iota // the bound on disk was reached
	ShedExpired                   // older than the destination's retry_for
	ShedDamaged                   // the disk gave back something else; see seglog.Damage
	numShedReasons
)

var shedNames = [numShedReasons]string{"outbox_full", "expired", "damaged"}

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
//	version 2 | next | acked LSN, ordinal, time (zigzag) | delivered | rejected | n shed {count} | n holes {from, to - from}
//	| degraded | tried | tried time (zigzag)
//
// all unsigned varints unless said otherwise. Version 1 has no last line. seglog.Slots adds generation and checksum.
type position struct {
	next      uint64 // the oldest record that is not accounted for
	acked     Cause  // of the last record that is
	delivered uint64
	rejected  uint64
	shed      [numShedReasons]uint64
	degraded  uint64 // merged into records of a deeper tier
	tried     uint64 // records below may have reached the destination; only where records can be merged
	triedTime int64  // the latest journal time of those known
	holes     []span // shed already, behind records that are still in the forwarder's hands; ascending, apart, all above next
}

// span is the records [from, to).
type span struct{ from, to uint64 }

const positionVersion = 2

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
	return binary.AppendVarint(b, p.triedTime)
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
	if uvarint() != uint64(len(p.shed)) {
		return p, errPosition
	}
	for i := range p.shed {
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

// advance moves next to lsn and past any hole that begins there.
func (p *position) advance(lsn uint64) {
	p.next = lsn
	for len(p.holes) > 0 && p.holes[0].from <= p.next {
		p.next = max(p.next, p.holes[0].to)
		p.holes = p.holes[1:]
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
	err := b.slots.Store(b.pos.append(nil), sync)
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
	c, err := b.causeAt(first)
	if err != nil {
		return err
	}
	if err := b.log.TrimTo(b.log.Bytes()-1, b.log.Next()); err != nil {
		return fmt.Errorf("trim: %w", err)
	}
	if uint64(b.log.First()) == first {
		return ErrFull // one segment only
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
	start := max(b.leased, b.pos.next)
	if n := len(b.pos.holes); n > 0 {
		start = max(start, b.pos.holes[n-1].to)
	}
	if first <= start {
		return
	}
	b.pos.shed[ShedFull] += first - start
	b.dirty = true
	if n := len(b.pos.holes); n > 0 && b.pos.holes[n-1].to == start {
		b.pos.holes[n-1].to = first
	} else {
		b.pos.holes = append(b.pos.holes, span{start, first})
	}
	b.pos.advance(b.pos.next)
	s := Shed{Count: first - start, From: from, Reason: ShedFull}
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
