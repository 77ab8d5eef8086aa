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

// next reads more records into a hand of n records and size bytes: for an empty one, from the tier whose turn it is.
func (f *Forwarder) next(n, size int) (err error) {
	limit := f.o.BatchRecords
	if len(f.lanes) > 1 && f.failures > 0 {
		limit = min(limit, maxProbe, int(f.root.o.MaxBytes>>16)+1)
	}
	if n > 0 || len(f.lanes) == 1 {
		f.hand, err = f.read.read(f.hand, limit, f.o.BatchBytes-size)
		return err
	}
	order := make([]*reader, 0, len(f.lanes)+1)
	if f.backlog {
		order = append(order, f.lanes[0])
	}
	for i := len(f.lanes) - 1; i >= 0; i-- {
		order = append(order, f.lanes[i])
	}
	for _, r := range order {
		r.out.mu.Lock()
		pinned := r.out.pinned
		r.out.mu.Unlock()
		if pinned {
			continue
		}
		var e error
		if f.hand, e = r.read(f.hand, limit, f.o.BatchBytes); e != nil {
			err = errors.Join(err, e)
		}
		if len(f.hand) > 0 {
			f.read, f.out, f.backlog = r, r.out, r != f.lanes[0]
			return nil
		}
	}
	return err
}

// wanted tells whether the hand should be given back, so that records can be merged.
func (f *Forwarder) wanted() bool {
	return len(f.lanes) > 1 && !f.storing && !f.stuck && f.root.pressed()
}

// unfinished fires in a while when a batch could not be completed.
func (f *Forwarder) unfinished() <-chan time.Time {
	for _, r := range f.lanes[1:] {
		if r.out.unfinished() {
			return time.After(lookEvery)
		}
	}
	return nil
}

// degrade merges records while the outbox is past its watermark, with the hands empty, and then waits as long as the last
// failed delivery asked for. It returns errors of ctx and of a closed outbox only.
func (f *Forwarder) degrade(ctx context.Context) error {
	if len(f.lanes) == 1 {
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
	for did := true; did && err == nil && f.root.pressed() && ctx.Err() == nil; {
		did, err = f.root.degrade()
		f.rewind()
	}
	if errors.Is(err, seglog.ErrClosed) {
		return err
	}
	if err != nil && !f.stuck {
		f.o.Log.Error("records cannot be merged into longer windows", "destination", f.o.Name, "err", err)
	}
	f.stuck = err != nil
	return ctx.Err()
}

// giveBack empties the hand: what was in it and not acknowledged is read again.
func (f *Forwarder) giveBack() {
	if len(f.hand) == 0 {
		return
	}
	f.hand, f.fate, f.work = f.hand[:0], f.fate[:0], f.work[:0]
	f.rewind()
}

// rewind sets the readers to where their tiers' cursors are.
func (f *Forwarder) rewind() {
	for _, r := range f.lanes {
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
	r.cursor.Close()
	r.cursor, r.next, r.ahead = b.log.Cursor(seglog.LSN(at)), at, seglog.Record{}
}
