package uplink

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/uplink/condense"
)

// Degrading. An outbox with a ladder is a chain of tiers, each an outbox in a folder of its own: the live one, which Put fills, and
// one for every step. The forwarder's goroutine, which alone reads, merges batches of the oldest records of a tier into the next:
//
//	live  -- 1m -->  1m/  -- 10m -->  1m-10m/  -- 1h -->  1m-10m-1h/
//
// Each source record then counts in exactly one record, whatever crashes in between:
//
//   - Records made of the batch [a, b) have causes (b-1, 0...): a target whose last cause is at or behind the source's cursor shows
//     an unfinished batch and its end. The batch is then made again from the same records, and what the target holds is skipped.
//     Until the cursor is durable behind b nothing of the source is shed.
//   - A correction replaces the earlier version. Only records older than the newest by more than Horizon are merged, so all versions
//     are at hand, and the last one counts.
//   - What may be at the destination already must not arrive a second time within a longer window. So records that were tried, and
//     corrections of windows that ended by then, go on as they are for good. Before a record is tried this is made durable.
//   - Parts of one window from two batches must not replace each other, so a merged point's time is that of the earliest
//     point in it. Batches end between windows where the records allow it.
type tier struct {
	root   *Outbox
	tiers  []*Outbox // of the root: itself, then the others, shallow ones first
	name   string    // "" for the live one, else its folder
	step   time.Duration
	source *Outbox // where its records come from
	below  *Outbox // where they go; nil: nowhere

	deep    atomic.Int64 // of the root: bytes of the other tiers on disk
	reserve int64        // of MaxBytes, for a batch that is in two tiers

	hands     sync.Mutex   // of the root: held by the forwarder while it runs, else by who merges
	merges    atomic.Bool  // of the root: a forwarder runs that can merge
	fullSince atomic.Int64 // of the root: since when Put waits for a merge, ns; 0: it does not, or there was one

	// The mutex of the outbox guards these.
	tried  uint64 // records below were read to be delivered; pos.tried runs ahead of it
	pinned bool   // a batch is under way: its records must stay on disk
}

const (
	kept = 1 << 31 // ordinals below are of records that must not be merged any more

	// maxTriedAhead bounds how many records are marked as tried ahead of time, so that the mark is synced rarely: one for each
	// 16 KiB of the bound. After a crash so many are kept from being merged, in the order of 1 % of the outbox.
	maxTriedAhead = 10000

	batchRecords = 500000 // bounds a batch's memory: about 50 bytes each
	batchGroups  = 50000  // and what it is merged into: about 1 KB each
)

// openTiers opens the ladder below the live tier b, and tiers of earlier ladders, which are drained.
func (b *Outbox) openTiers() error {
	ladder := map[string]bool{}
	name := ""
	if b.o.WhenFull == Degrade && b.o.MaxBytes > 0 {
		for _, step := range b.o.Ladder {
			name = strings.TrimPrefix(name+"-"+telemetry.WindowLabel(step), "-")
			ladder[name] = true
		}
	}
	there, err := b.o.FS.ReadDir(b.dir)
	if err != nil {
		return fmt.Errorf("open outbox %s: %w", b.dir, err)
	}
	all := make(map[string]bool)
	for name := range ladder {
		all[name] = true
	}
	for _, name := range there {
		if _, ok := stepOf(name); ok {
			all[name] = true
		}
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	// A tier comes after its source.
	slices.SortFunc(names, func(a, b string) int {
		if n := strings.Count(a, "-") - strings.Count(b, "-"); n != 0 {
			return n
		}
		return strings.Compare(a, b)
	})
	byName := map[string]*Outbox{"": b}
	for _, name := range names {
		parent := ""
		if i := strings.LastIndexByte(name, '-'); i > 0 {
			parent = name[:i]
		}
		source := byName[parent]
		o := b.o
		o.MaxBytes, o.WhenFull = 0, DropOldest
		t, err := openOutbox(filepath.Join(b.dir, name), o)
		if err != nil {
			return err
		}
		t.root, t.name, t.source = b, name, source
		t.step, _ = stepOf(name)
		byName[name] = t
		b.tiers = append(b.tiers, t)
		if source != nil {
			if ladder[name] {
				source.below = t
			}
			source.pinned = source.pinned || t.unfinished()
		}
	}
	if len(ladder) > 0 {
		b.reserve = b.o.MaxBytes / 8
	}
	for _, t := range b.tiers {
		t.knowTried()
	}
	b.measure()
	return nil
}

// knowTried sets the marks of a tier that was opened. While nothing is merged they are not kept, so when that begins again all there is may
// have been tried.
func (b *Outbox) knowTried() {
	switch p := &b.pos; {
	case b.below == nil && p.tried != 0:
		p.tried, b.dirty = 0, true
		b.save(true)
	case b.below != nil && p.tried == 0 && p.acked.LSN > 0:
		p.tried, p.triedTime = uint64(b.log.Next()), max(p.triedTime, b.held.Time)
	}
	b.tried = b.pos.tried
}

// stepOf reads the last step in a tier's name.
func stepOf(name string) (time.Duration, bool) {
	var step time.Duration
	for _, s := range strings.Split(name, "-") {
		d, err := time.ParseDuration(s)
		if err != nil || d <= step || telemetry.WindowLabel(d) != s {
			return 0, false
		}
		step = d
	}
	return step, true
}

// unfinished tells whether the batch that t holds the last record of is still in its source.
func (t *Outbox) unfinished() bool {
	if t.source == nil {
		return false
	}
	t.source.mu.Lock()
	defer t.source.mu.Unlock()
	return t.Held().LSN >= t.source.pos.next
}

// measure keeps the root's view of the other tiers' size.
func (b *Outbox) measure() {
	r := b.root
	if r == nil || len(r.all()) < 2 {
		return
	}
	var n int64
	for _, t := range r.all()[1:] {
		n += t.log.DiskBytes()
	}
	r.deep.Store(n)
}

// try marks what the forwarder has read as tried. The caller holds mu.
func (b *Outbox) try() {
	if b.below == nil || b.leased <= b.tried {
		return
	}
	b.tried = b.leased
	if b.tried > b.pos.tried {
		b.pos.tried = b.tried + b.triedAhead()
		b.save(true) // where it fails it says so, and delivery goes on
	}
}

func (b *Outbox) triedAhead() uint64 { return min(maxTriedAhead, uint64(b.root.o.MaxBytes>>14)) }

// pressed tells whether it is time to merge: past 80 % of the bound.
func (b *Outbox) pressed() bool {
	return b.below != nil && b.log.DiskBytes()+b.deep.Load() > b.o.MaxBytes/5*4
}

// mergePatience is how long Put answers ErrFull, and so holds up whoever puts, before it sheds what merging might have saved: a
// forwarder that is about to merge takes milliseconds, one that waits for an answer takes as long as that.
const mergePatience = 2 * time.Second

// mergeHere merges a batch in Put's goroutine while no forwarder runs: at the start, when what the journal still holds is put
// again. The caller holds mu of the live tier, b, which is free meanwhile.
func (b *Outbox) mergeHere() (did bool, err error) {
	if b.below == nil || !b.hands.TryLock() {
		return false, nil
	}
	defer b.hands.Unlock()
	b.mu.Unlock()
	defer b.mu.Lock()
	did, err = b.degrade(0)
	if err != nil {
		b.o.Log.Error("records cannot be merged into longer windows", "outbox", b.dir, "err", err)
		return false, nil // shed, rather than stand still
	}
	return did, nil
}

// mergeMakesRoom tells whether to wait for a batch that may be merged, and wakes the forwarder to do so. The caller holds mu of the
// live tier, b.
func (b *Outbox) mergeMakesRoom() bool {
	if b.below == nil || !b.merges.Load() {
		return false
	}
	if !b.ripeLocked() && !b.ripeBelow() && !b.pinned {
		return false
	}
	now := time.Now().UnixNano()
	b.fullSince.CompareAndSwap(0, now)
	signal(b.press)
	return now-b.fullSince.Load() < int64(mergePatience)
}

// shedDeepest sheds the oldest segment of the deepest tier that has one to spare. The caller holds mu of the live tier, b.
func (b *Outbox) shedDeepest() (freed bool, err error) {
	for i := len(b.tiers) - 1; i > 0 && !freed && err == nil; i-- {
		t := b.tiers[i]
		t.mu.Lock()
		if !t.pinned && t.log.Segments() > 1 {
			if freed, err = t.trim(); err == nil && !freed {
				err = t.shedOldest()
				freed = err == nil
			}
		}
		b.sheds = append(b.sheds, t.sheds...)
		t.sheds = nil
		t.mu.Unlock()
	}
	b.measure()
	return freed, err
}

// sum counts over all tiers: what was put into the live one is in one of the others or merged.
func (b *Outbox) sum() (c Counters) {
	var degraded, made uint64
	for _, t := range b.tiers {
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	for i, t := range b.tiers {
		o := t.count()
		if i == 0 {
			c.Enqueued = o.Enqueued
		} else {
			made += o.Enqueued
		}
		degraded += o.Degraded
		c.Pending += o.Pending
		c.Delivered += o.Delivered
		c.Rejected += o.Rejected
		for r := range c.Shed {
			c.Shed[r] += o.Shed[r]
		}
	}
	if degraded >= made {
		c.Degraded = degraded - made
	} else { // a batch is under way: it waits in two tiers
		c.Pending -= min(c.Pending, made-degraded)
	}
	return c
}

// TierStatus is one tier of a ladder.
type TierStatus struct {
	Step    time.Duration // 0: as it was put
	Pending uint64
	Bytes   int64
}

// Tiers tells what is where; one entry when there is no ladder. Safe for concurrent use.
func (b *Outbox) Tiers() []TierStatus {
	s := make([]TierStatus, 0, len(b.tiers))
	for _, t := range b.tiers {
		s = append(s, TierStatus{t.step, t.own().Pending, t.log.Bytes()})
	}
	return s
}

// finish completes the batches that were under way when the program ended, or when the disk failed. The forwarder's hands must
// be empty.
func (b *Outbox) finish() error {
	for _, t := range b.tiers[1:] {
		if t.unfinished() {
			if _, err := t.take(); err != nil {
				return err
			}
		}
	}
	return nil
}

// degrade merges one batch: when the outbox is past its watermark, of the largest tier; else of one before level, which is not sent. did
// is false when nothing may be merged at the moment. The forwarder's hands must be empty.
func (b *Outbox) degrade(level int) (did bool, err error) {
	if err := b.finish(); err != nil {
		return false, err
	}
	pressed := b.pressed()
	var sources []*Outbox
	for t := b; t.below != nil && (pressed || len(sources) < level); t = t.below {
		sources = append(sources, t)
	}
	depth := make(map[*Outbox]int)
	for i, s := range sources {
		depth[s] = i
	}
	slices.SortStableFunc(sources, func(s, t *Outbox) int { return int((t.log.DiskBytes() - s.log.DiskBytes()) >> 10) })
	for _, s := range sources {
		if !(pressed && s.ripe()) && !(depth[s] < level && s.due()) {
			continue
		}
		if did, err = s.below.take(); did || err != nil {
			return did, err
		}
	}
	return false, nil
}

// ripe tells whether there is a batch that is worth it, and old enough.
func (b *Outbox) ripe() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ripeLocked()
}

// ripeBelow tells whether a tier below has one.
func (b *Outbox) ripeBelow() bool {
	for t := b.below; t != nil && t.below != nil; t = t.below {
		if t.ripe() {
			return true
		}
	}
	return false
}

func (b *Outbox) ripeLocked() bool {
	return b.pending() > 0 && b.log.DiskBytes() > b.root.batchBytes() && (b.name != "" || b.oldest < b.settled-int64(b.o.Horizon))
}

// due tells whether the oldest record is old enough for whole windows of the next step to be made.
func (b *Outbox) due() bool {
	b.root.mu.Lock()
	now := b.root.settled
	b.root.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	wait := 2 * b.below.step
	if b.name == "" {
		wait += b.o.Horizon
	}
	return b.pending() > 0 && b.oldest < max(b.settled, now)-int64(wait)
}

// batchBytes bounds the records of one batch.
func (b *Outbox) batchBytes() int64 { return b.o.MaxBytes / 16 }

// take merges one batch of the source's oldest records into t.
func (t *Outbox) take() (did bool, err error) {
	s := t.source
	defer t.measure()
	again := t.unfinished()
	s.mu.Lock()
	s.forgetHand()
	pinned := s.pinned
	s.pinned = true
	s.pos.tried = max(s.tried, s.pos.next)
	err = s.save(true)
	if err == nil {
		if err = s.log.Commit(); err == nil { // a batch is made of durable records, or it could not be made again
			s.shown()
		}
	}
	bt := batch{s: s, t: t, from: s.pos.next, tried: s.pos.tried, triedTime: s.pos.triedTime, newest: s.settled,
		holes: slices.Clone(s.pos.holes), lanes: slices.Clone(s.pos.lanes)}
	s.unlock()
	if s.name == "" {
		bt.horizon = int64(s.o.Horizon)
	}
	if err == nil {
		did, err = bt.run(again)
	}
	if !did {
		s.mu.Lock()
		s.pinned = pinned || t.Held().LSN >= s.pos.next
		s.mu.Unlock()
	}
	if err != nil {
		return false, fmt.Errorf("merge outbox %s into %s: %w", s.dir, t.step, err)
	}
	return did, nil
}

// batch is records [from, end) of s on their way into t.
type batch struct {
	s, t      *Outbox
	from, end uint64
	tried     uint64
	triedTime int64
	newest    int64  // journal time
	horizon   int64  // 0: there are no corrections
	holes     []span // these records are accounted for
	lanes     []lane

	versions map[identity]uint64 // the last record of each point in the batch
	first    int64               // journal time of the first record
	last     Cause               // of the last record
	records  uint64
}

// identity is a hash of a point's identity that nobody can make collide.
type identity [16]byte

func identityOf(b []byte) identity {
	h := sha256.Sum256(b)
	return identity(h[:16])
}

// run makes the batch; again tells that it was begun before.
func (bt *batch) run(again bool) (did bool, err error) {
	if again {
		bt.end = bt.t.Held().LSN + 1
	} else if err := bt.choose(); err != nil || bt.end == bt.from {
		return false, err
	}
	if err := bt.compare(); err != nil {
		return false, err
	}
	m := condense.New(bt.t.step, bt.s.o.Readings)
	if err := bt.merge(m); err != nil {
		return false, err
	}
	n := uint32(kept)
	err = m.Each(func(body []byte) error {
		n++
		return bt.t.Put(Cause{LSN: bt.end - 1, Ordinal: n, Time: bt.first}, TypePoint, body)
	})
	if err == nil {
		err = bt.t.Sync()
	}
	if err == nil {
		err = bt.done()
	}
	return err == nil, err
}

// each reads records from the start of the batch on, until f returns false.
func (bt *batch) each(f func(r Record) bool) error {
	c := bt.s.log.Cursor(seglog.LSN(bt.from))
	defer func() { c.Close() }()
	holes := bt.holes
	for {
		raw, ok, err := c.TryNext()
		if err != nil || !ok {
			return err
		}
		for len(holes) > 0 && holes[0].to <= uint64(raw.LSN) {
			holes = holes[1:]
		}
		if len(holes) > 0 && holes[0].from <= uint64(raw.LSN) {
			c.Close()
			c = bt.s.log.Cursor(seglog.LSN(holes[0].to))
			continue
		}
		r, err := splitRecord(raw)
		if err != nil {
			r = Record{LSN: uint64(raw.LSN)} // not a record of ours: done counts it as damaged
		}
		if !f(r) {
			return nil
		}
	}
}

// choose sets the end: as much as may be merged and fits, ending where all windows do, if there is such a place in its second half.
func (bt *batch) choose() error {
	limit := bt.newest - bt.horizon
	maxBytes := bt.s.root.batchBytes()
	groups := make(map[identity]struct{})
	var starts []int64 // of the window each record comes to lie in
	var lsns []uint64
	var bytes int64
	var key []byte
	err := bt.each(func(r Record) bool {
		if bt.horizon > 0 && r.Cause.Time >= limit || bytes >= maxBytes || len(lsns) >= batchRecords || len(groups) >= batchGroups {
			return false
		}
		start := int64(0)
		if h, ok := condense.ReadHead(r.Body); ok && r.Type == TypePoint {
			start = condense.Bucket(h.Time, bt.t.step)
			key = fmt.Appendf(append(key[:0], h.Series...), "%d", start)
			groups[identityOf(key)] = struct{}{}
		} else if len(starts) > 0 {
			start = starts[len(starts)-1]
		}
		bytes += int64(len(r.Body) + recordOnDisk)
		lsns, starts = append(lsns, r.LSN), append(starts, start)
		return true
	})
	if err != nil {
		return err
	}
	bt.end = bt.from
	if len(lsns) == 0 {
		return nil
	}
	bt.end = lsns[len(lsns)-1] + 1
	high := slices.Clone(starts) // the highest start up to here
	for i := 1; i < len(high); i++ {
		high[i] = max(high[i], high[i-1])
	}
	low := starts[len(starts)-1] // the lowest from here on
	for i := len(starts) - 1; i > len(starts)/2; i-- {
		if low = min(low, starts[i]); high[i-1] < low {
			bt.end = lsns[i]
			break
		}
	}
	return nil
}

// compare finds the last version of every point of the batch, also behind it.
func (bt *batch) compare() error {
	bt.versions = make(map[identity]uint64)
	lastTime := int64(0)
	seen := false
	return bt.each(func(r Record) bool {
		inside := r.LSN < bt.end
		if !inside && (bt.horizon == 0 || r.Cause.Time > lastTime+bt.horizon) {
			return false
		}
		if inside && (!seen || r.Cause.Time > lastTime) {
			lastTime, seen = r.Cause.Time, true
		}
		h, ok := condense.ReadHead(r.Body)
		if !ok || r.Type != TypePoint {
			return true
		}
		id := identityOf(h.Identity)
		if _, known := bt.versions[id]; inside || known {
			bt.versions[id] = r.LSN
		}
		return true
	})
}

// merge gives m what may be merged, and puts what may not be into the target as it is.
func (bt *batch) merge(m *condense.Merger) error {
	ordinal := uint32(0)
	var failed error
	err := bt.each(func(r Record) bool {
		if r.LSN >= bt.end {
			return false
		}
		if r.Type == 0 {
			return true
		}
		if bt.records == 0 {
			bt.first = r.Cause.Time
		}
		bt.records++
		bt.last = r.Cause
		tried := r.LSN < bt.tried
		if tried {
			bt.triedTime = max(bt.triedTime, r.Cause.Time)
		}
		for i := range bt.lanes {
			if l := &bt.lanes[i]; l.has(r.LSN) {
				tried, l.until = true, max(l.until, r.Cause.Time)
			}
		}
		fate := condense.Kept
		h, ok := condense.ReadHead(r.Body)
		if ok && r.Type == TypePoint {
			if bt.versions[identityOf(h.Identity)] > r.LSN {
				return true // a later version stands for it
			}
			late := bt.horizon > 0 && bt.late(h.Time+int64(h.Window))
			final := bt.s.name != "" && r.Cause.Ordinal < kept
			if !tried && !late && !final {
				fate = m.Add(r.Body)
			}
		}
		if fate == condense.Kept {
			ordinal++
			failed = bt.t.Put(Cause{LSN: bt.end - 1, Ordinal: ordinal, Time: bt.first}, r.Type, r.Body)
		}
		return failed == nil
	})
	return errors.Join(err, failed)
}

// late tells whether a window with this end may have been sent already.
func (bt *batch) late(end int64) bool {
	for i := range bt.lanes {
		if l := &bt.lanes[i]; l.since <= end && end <= l.until {
			return true
		}
	}
	return end <= bt.triedTime
}

// done moves the source's cursor behind the batch.
func (bt *batch) done() error {
	s := bt.s
	s.mu.Lock()
	defer s.unlock()
	p := &s.pos
	passed := bt.end - p.next - p.inHoles(bt.end)
	p.degraded += bt.records
	p.shed[ShedDamaged] += passed - bt.records
	s.noteShed(Shed{Count: passed - bt.records, From: p.acked.Time, To: bt.last.Time, Reason: ShedDamaged})
	if bt.records > 0 {
		p.acked = bt.last
	}
	p.triedTime = max(p.triedTime, bt.triedTime)
	for i := range p.lanes {
		p.lanes[i].until = bt.lanes[i].until
	}
	p.advance(bt.end)
	s.leased = p.next
	s.dirty, s.pinned = true, false
	s.oldest = bt.last.Time
	_, err := s.trim() // on an error the cursor is durable later, and the batch is made again after a crash
	if err != nil {
		s.o.Log.Warn("outbox cannot be trimmed", "outbox", s.dir, "err", err)
	}
	s.root.fullSince.Store(0)
	signal(s.root.room)
	return nil
}
