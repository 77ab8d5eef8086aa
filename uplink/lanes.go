package uplink

import (
	"context"
	"errors"
	"time"

	"sluice/gateway/seglog"
)

const (
	lookEvery = time.Second // between two looks at the bound while the destination is away

	// maxProbe bounds a hand after a failure where records can be merged: what was tried cannot be merged any more. It is one record for each
	// 64 KiB of the bound.
	maxProbe = 100
)

// overtakeAfter is how much older than the newest record the oldest must be for live records to overtake a backlog, in journal time.
const overtakeAfter = 10 * time.Second

// next reads more records into a hand of n records and size bytes: for an empty one, from the reader whose turn it is.
func (f *Forwarder) next(n, size int) (err error) {
	if n > 0 {
		f.hand, err = f.read.read(f.hand, f.most, f.o.BatchBytes-size)
		return err
	}
	var readers []*reader
	if readers, err = f.order(); err != nil {
		return err
	}
	f.most = f.batchNow()
	for _, r := range readers {
		r.out.mu.Lock()
		pinned := r.out.pinned
		r.out.mu.Unlock()
		if pinned {
			continue
		}
		most, bytes := f.most, f.o.BatchBytes
		if f.o.InFlight > 1 && f.failures == 0 && f.limit == f.o.BatchRecords && f.most == f.limit && r != f.urgent {
			most, bytes = most*f.o.InFlight, bytes*2
		}
		var e error
		if f.hand, e = r.read(f.hand, most, bytes); e != nil {
			err = errors.Join(err, e)
		}
		if len(f.hand) > 0 {
			f.read, f.out, f.most = r, r.out, most
			if r != f.urgent {
				f.backlog = r != f.live()
			}
			return nil
		}
	}
	return err
}

// batchNow is how many records one request may hold at the moment.
func (f *Forwarder) batchNow() int {
	limit := f.o.BatchRecords
	if len(f.lanes) > 1 && (f.failures > 0 || !f.proven) {
		limit = min(limit, maxProbe, int(f.root.o.MaxBytes>>16)+1)
	}
	if m := f.o.Meter; m != nil {
		wire := max(f.wire, 1)
		if f.wire == 0 {
			wire = firstWire
		}
		if r := m.b.BytesPerSecond; r > 0 { // so that no request takes long, and no alert waits for one
			limit = min(limit, int(float64(4*r)/wire))
		}
		if left, _, ok := m.Left(time.Now()); ok {
			limit = min(limit, int(float64(left)/2/wire))
		}
	}
	return max(limit, 1)
}

// firstWire is what a record takes on the wire until it has been measured.
const firstWire = 300

// live is the reader of the newest records.
func (f *Forwarder) live() *reader {
	if f.fresh != nil {
		return f.fresh
	}
	return f.lanes[0]
}

// order is whose turn it is, and who comes next when that one has nothing.
func (f *Forwarder) order() ([]*reader, error) {
	order := make([]*reader, 0, len(f.lanes)+3)
	p := f.pause()
	if f.urgent != nil && !p.Alerts {
		order = append(order, f.urgent)
	}
	if p.Reason != "" {
		return order, nil
	}
	f.overtake()
	lanes := f.lanes[min(f.level, len(f.lanes)-1):]
	if f.level > 0 {
		for i := len(lanes) - 1; i >= 0; i-- {
			order = append(order, lanes[i])
		}
		return order, nil
	}
	if f.backlog {
		order = append(order, f.live())
	}
	for i := len(lanes) - 1; i >= 0; i-- {
		order = append(order, lanes[i])
	}
	return append(order, f.live()), nil
}

// overtake begins a lane for live records when those in order are old, and ends one that has nothing left to overtake.
func (f *Forwarder) overtake() {
	if f.fresh != nil {
		f.root.mu.Lock()
		over := f.root.pos.next >= f.fresh.next || len(f.root.pos.lanes) == 0 || len(f.root.pos.holes) > maxHoles
		f.root.mu.Unlock()
		if over {
			f.endLane()
		}
	}
	if !f.o.NewestFirst || f.failures > 0 || f.level > 0 {
		return
	}
	if f.root.behind(f.live(), uint64(f.o.BatchRecords/5+1)) < overtakeAfter {
		return
	}
	if next := f.root.openLane(); next != nil {
		f.endReader()
		f.fresh = next
	}
}

// behind is how much older the record that r will read is than the newest, 0 when only a few are in between.
func (b *Outbox) behind(r *reader, few uint64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := max(r.next, b.pos.next)
	if uint64(b.log.Next()) < next+few {
		return 0
	}
	oldest := b.oldest
	if r.lane != nil {
		if c, err := b.causeAt(next); err == nil {
			oldest = c.Time
		}
	}
	return time.Duration(b.held.Time - oldest)
}

func (f *Forwarder) endReader() {
	if f.fresh != nil {
		f.fresh.close()
		f.fresh = nil
	}
}

func (f *Forwarder) endLane() {
	if f.fresh != nil {
		f.root.closeLane()
		f.endReader()
	}
}

// pause is what the bounds on traffic say.
func (f *Forwarder) pause() Pause {
	if f.o.Meter == nil {
		return Pause{}
	}
	return f.o.Meter.Pause(time.Now())
}

// resting notes that there is nothing to send, or nothing that may be sent.
func (f *Forwarder) resting() {
	if f.failures > 0 {
		return
	}
	if f.o.Meter != nil && f.pause().Reason != "" && f.root.Counters().Pending > 0 {
		f.status.set(Paused)
		return
	}
	f.status.set(Idle)
}

// wanted tells whether the hand should be given back, so that records can be merged.
func (f *Forwarder) wanted() bool {
	return len(f.lanes) > 1 && !f.storing && !f.stuck && f.root.pressed()
}

// look fires in a while when there is something to do that no record wakes the forwarder for.
func (f *Forwarder) look() <-chan time.Time {
	later := f.o.Meter != nil || f.level > 0 || f.root.losses.waiting()
	for _, r := range f.lanes[1:] {
		later = later || r.out.unfinished()
	}
	if later {
		return time.After(lookEvery)
	}
	if c := f.o.Canary; c != nil {
		return time.After(c.next())
	}
	return nil
}

// degrade merges records while the outbox is past its watermark, with the hands empty, and then waits as long as the last
// failed delivery asked for. It returns errors of ctx and of a closed outbox only.
func (f *Forwarder) degrade(ctx context.Context) error {
	f.plan(time.Now())
	if len(f.lanes) == 1 && !f.recall {
		return nil
	}
	for {
		if err := f.merge(ctx); err != nil {
			return err
		}
		if !f.recall {
			return nil
		}
		wait := time.Until(f.rest)
		if f.rest.IsZero() {
			wait = lookEvery
		}
		if wait <= 0 {
			f.recall = false
			return nil
		}
		t := time.NewTimer(min(wait, lookEvery))
		select {
		case <-ctx.Done():
			t.Stop()
			return ctx.Err()
		case <-t.C:
		case <-f.root.press:
			t.Stop()
		case f.todo = <-f.asked:
			t.Stop()
			f.serve()
		case <-f.kick:
			t.Stop()
			f.failures, f.recall = 0, false
			return nil
		}
	}
}

// merge makes batches until the outbox is below its watermark, or there is nothing that may be merged yet.
func (f *Forwarder) merge(ctx context.Context) error {
	f.giveBack()
	err := f.root.finish()
	for did := true; did && err == nil && (f.root.pressed() || f.level > 0) && ctx.Err() == nil; {
		did, err = f.root.degrade(f.level)
		f.rewind()
	}
	if errors.Is(err, seglog.ErrClosed) {
		return err
	}
	if err != nil && !f.stuck {
		f.o.Log.Error("records cannot be merged into longer windows", "destination", f.o.Name, "err", err)
	}
	f.stuck = err != nil
	f.root.merges.Store(!f.stuck && f.root.below != nil)
	return ctx.Err()
}

// giveBack empties the hand: what was in it and not acknowledged is read again.
func (f *Forwarder) giveBack() {
	if len(f.hand) == 0 {
		return
	}
	f.out.dropHand(f.hand)
	if f.fresh != nil && f.read == f.fresh {
		f.fresh.seek(f.hand[0].LSN)
	}
	f.hand, f.fate, f.work = f.hand[:0], f.fate[:0], f.work[:0]
	f.rewind()
}

// rewind sets the readers to where their tiers' cursors are.
func (f *Forwarder) rewind() {
	for _, r := range f.readers() {
		r.rewind()
	}
}

// rewind goes back, or forth, to the outbox's cursor.
func (r *reader) rewind() {
	b := r.out
	b.mu.Lock()
	b.forgetHand()
	at := b.pos.next
	b.unlock()
	if at == r.next && r.ahead.Body == nil {
		return
	}
	r.seek(at)
}
