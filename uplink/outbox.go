package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
	"sluice/uplink/condense"
)

// WhenFull says what an outbox does at its bound.
type WhenFull string

const (
	// Refuse makes Put return ErrFull: the pipeline waits, and in the end devices get no acknowledgements.
	Refuse WhenFull = "refuse"
	// DropOldest sheds the oldest whole segments, counted to the record.
	DropOldest WhenFull = "drop_oldest"
	// Degrade merges the oldest points into longer windows before anything is dropped, see OutboxOptions.Ladder; what does not fit
	// even so is shed, the oldest first. Without a ladder it is DropOldest.
	Degrade WhenFull = "degrade"
)

// ErrFull is returned by Put when the bound is reached or the disk is full, and nothing was put; by Flush and Sync when the disk is
// full, and what was put is kept in memory for the next try. It goes away: wait for Room, or try again later.
var ErrFull = errors.New("outbox is full")

// OutboxOptions configure OpenOutbox; zero values are defaults.
type OutboxOptions struct {
	FS           fsys.FS // nil: the operating system
	SegmentBytes int64   // 16 MiB, less where MaxBytes is small
	MaxBytes     int64   // bound on disk, at least 512 KiB; 0: none but the disk
	WhenFull     WhenFull
	// Ladder are the windows that Degrade merges into, ascending, each a multiple of the one before.
	Ladder []time.Duration
	// Horizon, with Degrade, is how long after a point was put a corrected version of it may still be put: the longest window +
	// grace + lateness of any source. What is younger is not merged.
	Horizon time.Duration
	// LiveWindow is the shortest window that is put, 0 for readings: what a forecast begins with, until merging has been measured.
	LiveWindow time.Duration
	// Readings tells Degrade what points without a window are; nil: none are readings.
	Readings condense.Policy
	// CursorEvery is the least time between two stores of the cursor. 0: after every acknowledgement, as webhooks want
	// it; a store is not synced, so it costs a write to the page cache.
	CursorEvery time.Duration
	// OnShed is told of every record that will not be delivered and is not in the quarantine. It runs in the goroutine of Put or of the
	// Forwarder, with no lock held, and must not block.
	OnShed func(Shed)
	Losses LossOptions
	Urgent bool         // keep what PutUrgent gets in a log of its own
	Log    *slog.Logger // nil: none
}

// Outbox is the durable queue of one destination. Put, Flush and Sync belong to the pipeline's goroutine; the rest is safe for
// concurrent use. One Forwarder at a time may drain it.
type Outbox struct {
	o     OutboxOptions
	dir   string
	log   *seglog.Log
	slots *seglog.Slots
	wake  chan struct{} // 1: something became visible; more signals merge
	room  chan struct{} // 1: space was freed; more signals merge
	press chan struct{} // 1: there is little room left that merging may make; more signals merge

	mu         sync.Mutex
	held       Cause  // of the last record put or known to be delivered
	settled    int64  // journal time up to which the pipeline has put all it has to put: of the last record before a Flush
	putRecords uint64 // since it was opened
	putBytes   uint64 // of those, on disk
	skipped    uint64
	unflushed  int    // bytes put and not yet visible
	diskBytes  int64  // of the log, without what is unflushed
	shedTo     uint64 // records below were deleted, delivered or not
	gone       span   // what open found missing that a forwarder had not delivered
	pos        position
	leased     uint64 // records below are in the forwarder's hands; never below pos.next
	laneOpen   bool   // the last lane of pos is the one in use
	laneMarked uint64 // records of it below are marked as tried on disk
	ackedBytes int64  // since the last trim
	trimmedTo  uint64 // pos.next at the last trim
	savedAt    time.Time
	dirty      bool  // pos differs from what the slot holds
	storeErr   error // why the cursor could not be stored last time
	oldest     int64
	sheds      []Shed // to be told once mu is free
	closed     bool

	losses  *losses   // of the root
	urgent  *Outbox   // of the root; nil: none
	movedAt time.Time // when a record was accounted for last, or began to wait with none before it

	tier
}

// recordHead stands before each body: LSN u64, ordinal u32, little-endian. recordOnDisk is about what a record takes beside
// its body.
const (
	recordHead   = 12
	recordOnDisk = recordHead + 32
)

const (
	minOutbox   = 512 << 10
	segmentHead = 8 << 10 // of every segment file of seglog's
)

// flushBytes bounds what waits in memory when the caller does not flush.
const flushBytes = 1 << 20

// OpenOutbox opens or creates the outbox in dir, and finds out what it held.
func OpenOutbox(dir string, o OutboxOptions) (*Outbox, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	switch o.WhenFull {
	case "":
		o.WhenFull = DropOldest
	case Refuse, DropOldest, Degrade:
	default:
		return nil, fmt.Errorf("open outbox %s: when_full: want refuse, drop_oldest or degrade, got %q", dir, o.WhenFull)
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 16 << 20
	}
	if o.MaxBytes > 0 {
		o.MaxBytes = max(o.MaxBytes, minOutbox)
		o.SegmentBytes = min(o.SegmentBytes, o.MaxBytes/8)
		if o.WhenFull == Degrade {
			o.SegmentBytes = min(o.SegmentBytes, o.MaxBytes/32) // several tiers share the bound
		}
	}
	if o.FS == nil {
		o.FS = fsys.OS{}
	}
	b, err := openOutbox(dir, o)
	if err != nil {
		return nil, err
	}
	b.root, b.tiers = b, []*Outbox{b}
	if b.losses, err = openLosses(b); err == nil {
		err = b.openTiers()
	}
	if err == nil {
		err = b.openUrgent()
	}
	if err != nil {
		b.Close()
		return nil, fmt.Errorf("open outbox %s: %w", dir, err)
	}
	b.losses.recover()
	return b, nil
}

// openOutbox opens one tier.
func openOutbox(dir string, o OutboxOptions) (*Outbox, error) {
	b := &Outbox{o: o, dir: dir, wake: make(chan struct{}, 1), room: make(chan struct{}, 1), press: make(chan struct{}, 1)}
	if err := b.open(); err != nil {
		if b.slots != nil {
			b.slots.Close()
		}
		if b.log != nil {
			b.log.Close()
		}
		return nil, fmt.Errorf("open outbox %s: %w", dir, err)
	}
	return b, nil
}

func (b *Outbox) open() (err error) {
	if err := b.o.FS.MkdirAll(b.dir); err != nil {
		return err
	}
	if b.slots, err = seglog.OpenSlots(b.o.FS, b.dir, "cursor"); err != nil {
		return err
	}
	value, _, err := b.slots.Load()
	if err != nil {
		return err
	}
	if value == nil {
		b.pos.next = 1
	} else if b.pos, err = parsePosition(value); err != nil {
		return err
	}
	var rec seglog.Recovery
	// A power cut may have kept the cursor and lost the end of the log: what the log lost then was delivered.
	b.log, rec, err = seglog.Open(b.dir, seglog.Options{CutTorn: true, FS: b.o.FS, SegmentBytes: b.o.SegmentBytes, MinNext: seglog.LSN(b.pos.next),
		Retain: true, NoPrealloc: true, Log: b.o.Log})
	if err != nil {
		return err
	}
	b.pos.clip(uint64(b.log.Next()))
	b.held = b.pos.acked
	if rec.Last != 0 {
		c, err := b.causeAt(uint64(rec.Last))
		if err != nil {
			return err
		}
		if c.After(b.held) {
			b.held = c
		}
	}
	// Acknowledged segments are deleted only once the cursor is synced, shed ones once the rest is: whatever else is missing below
	// the first record was shed, in the forwarder's hands or not.
	b.shedTo = uint64(b.log.First())
	b.forgetHand()
	b.dirty = true
	if _, err := b.trim(); err != nil {
		return err
	}
	if b.pending() > 0 {
		if c, err := b.causeAt(b.pos.next); err == nil {
			b.oldest = c.Time
		}
		signal(b.wake)
	}
	return nil
}

// forgetHand takes records back that a forwarder had read. Those that are no longer on disk were shed meanwhile.
func (b *Outbox) forgetHand() {
	b.leased = b.pos.next
	first := uint64(b.log.First())
	if first <= b.pos.next {
		return
	}
	b.gone = span{b.pos.next, first}
	lost := b.pos.cover(b.pos.next, first)
	b.pos.shed[ShedFull] += lost
	b.leased = b.pos.next
	b.dirty = true
	b.noteShed(Shed{Count: lost, Reason: ShedFull})
}

// dropHand is forgetHand for a forwarder that still has the records: those that are gone from the disk are lost, and what they were is
// known.
func (b *Outbox) dropHand(hand []Record) {
	b.mu.Lock()
	defer b.unlock()
	first := uint64(b.log.First())
	t := newTally(&b.o, b.held.Time)
	for i := range hand {
		if r := &hand[i]; r.LSN >= b.pos.next && r.LSN < first && !b.pos.accounted(r.LSN) {
			t.add(r)
		}
	}
	if len(t.bySource) == 0 {
		return
	}
	b.root.losses.begin(b.name, ShedFull, first, t)
	b.forgetHand()
	b.root.losses.end(true)
}

// causeAt reads the head of the first record at or after lsn.
func (b *Outbox) causeAt(lsn uint64) (Cause, error) {
	c := b.log.Cursor(seglog.LSN(lsn))
	defer c.Close()
	r, ok, err := c.TryNext()
	if err != nil || !ok {
		return Cause{}, err
	}
	rec, err := splitRecord(r)
	return rec.Cause, err
}

func splitRecord(r seglog.Record) (Record, error) {
	if len(r.Body) < recordHead {
		return Record{}, fmt.Errorf("outbox record %d is shorter than its head", r.LSN)
	}
	return Record{
		LSN:   uint64(r.LSN),
		Cause: Cause{LSN: binary.LittleEndian.Uint64(r.Body), Ordinal: binary.LittleEndian.Uint32(r.Body[8:]), Time: r.Time},
		Type:  r.Type,
		Body:  r.Body[recordHead:],
	}, nil
}

// Put queues one record. A cause that is not after Held is skipped: it was put before a crash. The record is visible to the
// forwarder after Flush and durable after Sync. Errors: ErrFull, seglog.ErrTooLarge, or what the device said; then nothing was put.
func (b *Outbox) Put(cause Cause, typ byte, body []byte) error {
	b.mu.Lock()
	err := b.put(cause, typ, body)
	b.unlock()
	if err != nil {
		return fmt.Errorf("put into outbox %s: %w", b.dir, err)
	}
	return nil
}

func (b *Outbox) put(cause Cause, typ byte, body []byte) error {
	if !cause.After(b.held) {
		b.skipped++
		return nil
	}
	size := recordOnDisk + len(body)
	if b.o.MaxBytes > 0 {
		if int64(size) > b.o.MaxBytes/2 {
			return seglog.ErrTooLarge
		}
		for b.diskBytes+b.deep.Load()+b.onDisk(b.unflushed+size) > b.o.MaxBytes-b.reserve {
			if err := b.makeRoom(); err != nil {
				return err
			}
		}
		if b.below != nil && b.pressed() {
			signal(b.press)
		}
	}
	var head [recordHead]byte
	binary.LittleEndian.PutUint64(head[:], cause.LSN)
	binary.LittleEndian.PutUint32(head[8:], cause.Ordinal)
	if _, err := b.log.Append(typ, cause.Time, head[:], body); err != nil {
		if !errors.Is(err, seglog.ErrFull) { // more waits in memory than seglog wants to keep
			return err
		}
		if err := b.flush(); err != nil {
			return err
		}
		if _, err := b.log.Append(typ, cause.Time, head[:], body); err != nil {
			return asFull(err)
		}
	}
	if b.pending() == 1 {
		b.oldest, b.movedAt = cause.Time, time.Now()
	}
	b.held = cause
	b.putRecords++
	b.putBytes += uint64(size)
	if b.unflushed += size; b.unflushed >= flushBytes {
		b.flush() // the record stays in memory when this fails, and the next Flush, Sync or Append says so
	}
	return nil
}

// onDisk is what n bytes of records will take, with the heads of new segments.
func (b *Outbox) onDisk(n int) int64 {
	return int64(n) + (int64(n)/(b.o.SegmentBytes-segmentHead)+1)*segmentHead
}

// makeRoom frees at least one segment, or says why not.
func (b *Outbox) makeRoom() error {
	if err := b.flush(); err != nil {
		return err
	}
	if b.pos.next > b.trimmedTo {
		if freed, err := b.trim(); err != nil || freed {
			return err
		}
	}
	if b.o.WhenFull == Refuse {
		return ErrFull
	}
	if did, err := b.mergeHere(); err != nil || did {
		return err
	}
	if b.mergeMakesRoom() {
		return ErrFull
	}
	if freed, err := b.shedDeepest(); err != nil || freed {
		return err
	}
	if b.pinned {
		return ErrFull // for as long as the batch takes
	}
	return b.shedOldest()
}

// Flush lets the forwarder see what was put. It does not sync.
func (b *Outbox) Flush() error {
	b.mu.Lock()
	err := b.flush()
	b.settled = b.held.Time
	b.unlock()
	if b.urgent != nil {
		err = errors.Join(err, b.urgent.Flush())
	}
	if err != nil {
		return fmt.Errorf("flush outbox %s: %w", b.dir, err)
	}
	return nil
}

func (b *Outbox) flush() error {
	if b.unflushed == 0 {
		return nil
	}
	if err := b.log.Flush(); err != nil {
		return asFull(err)
	}
	b.shown()
	return nil
}

// shown notes that everything put is visible.
func (b *Outbox) shown() {
	b.unflushed = 0
	b.diskBytes = b.log.DiskBytes()
	signal(b.wake)
	if b.root != nil && b.root != b && b.name == urgentName {
		signal(b.root.wake)
	}
}

// Sync makes everything put durable, and visible. Call it before a checkpoint that lies behind these causes.
func (b *Outbox) Sync() error {
	if err := b.log.Commit(); err != nil {
		return fmt.Errorf("sync outbox %s: %w", b.dir, asFull(err))
	}
	b.mu.Lock()
	b.shown()
	b.settled = b.held.Time
	b.unlock()
	if b.urgent != nil {
		return b.urgent.Sync()
	}
	return nil
}

func asFull(err error) error {
	if errors.Is(err, seglog.ErrFull) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// Held is the cause of the last record put, delivered or shed; a Put that is not after it is skipped.
func (b *Outbox) Held() Cause {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// Room receives a value after space was freed: the moment to try a Put again that returned ErrFull.
func (b *Outbox) Room() <-chan struct{} { return b.room }

// Counters is where every record went. Enqueued is the sum of the others.
type Counters struct {
	Enqueued  uint64
	Pending   uint64
	Delivered uint64
	Rejected  uint64 // in the quarantine
	Degraded  uint64 // no longer records of their own: merged into others that are counted here
	Shed      [numShedReasons]uint64
}

// Counters returns the conserved counters, kept over restarts.
func (b *Outbox) Counters() Counters {
	c := b.own
	if len(b.tiers) > 1 {
		c = b.sum
	}
	n := c()
	if b.urgent != nil {
		n.add(b.urgent.own())
	}
	return n
}

func (c *Counters) add(o Counters) {
	c.Enqueued += o.Enqueued
	c.Pending += o.Pending
	c.Delivered += o.Delivered
	c.Rejected += o.Rejected
	c.Degraded += o.Degraded
	for i := range c.Shed {
		c.Shed[i] += o.Shed[i]
	}
}

// own counts this tier's records alone.
func (b *Outbox) own() Counters {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count()
}

// count is own for a caller who holds mu.
func (b *Outbox) count() Counters {
	c := Counters{Pending: b.pending(), Delivered: b.pos.delivered, Rejected: b.pos.rejected, Degraded: b.pos.degraded, Shed: b.pos.shed}
	c.Enqueued = c.Pending + c.Delivered + c.Rejected + c.Degraded
	for _, n := range c.Shed {
		c.Enqueued += n
	}
	return c
}

func (b *Outbox) pending() uint64 {
	return uint64(b.log.Next()) - b.pos.next - b.pos.inHoles(math.MaxUint64)
}

// Bytes is the outbox's size on disk; OldestTime the journal time of its oldest undelivered record, 0 when there is none;
// Skipped how many Puts were replays since it was opened; DeviceBytes what was written to its files since.
func (b *Outbox) Bytes() (n int64) {
	for _, t := range b.all() {
		n += t.log.Bytes()
	}
	return n
}

// DeviceBytes: see Bytes.
func (b *Outbox) DeviceBytes() (n int64) {
	for _, t := range b.all() {
		n += t.log.DeviceBytes()
	}
	return n
}

// OldestTime: see Bytes.
func (b *Outbox) OldestTime() (oldest int64) {
	for _, t := range b.all() {
		t.mu.Lock()
		if t.pending() > 0 && (oldest == 0 || t.oldest < oldest) {
			oldest = t.oldest
		}
		t.mu.Unlock()
	}
	return oldest
}

// Skipped: see Bytes.
func (b *Outbox) Skipped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.skipped
}

// Close stores the cursor, commits the log and closes the files. End the Forwarder first.
func (b *Outbox) Close() (err error) {
	for i := len(b.tiers) - 1; i > 0; i-- {
		err = errors.Join(err, b.tiers[i].Close())
	}
	if b.urgent != nil {
		err = errors.Join(err, b.urgent.Close())
	}
	b.mu.Lock()
	defer b.unlock()
	if b.closed {
		return err
	}
	b.closed = true
	if b.losses != nil {
		err = errors.Join(err, b.losses.slots.Close())
	}
	return errors.Join(err, b.save(false), b.log.Close(), b.slots.Close())
}

// signal sets a merged wake-up.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// unlock frees mu and then tells what was shed.
func (b *Outbox) unlock() {
	sheds := b.sheds
	b.sheds = nil
	if b.root != nil && b.root.losses != nil && len(sheds) > 0 { // in the order that shedDeepest has, too
		b.root.losses.reconcile(b.name, &b.pos, b.held.Time)
	}
	b.mu.Unlock()
	if b.o.OnShed == nil {
		return
	}
	for _, s := range sheds {
		b.o.OnShed(s)
	}
}
