package uplink

import (
	"context"
	"hash/maphash"
	"sync"

	"sluice/uplink/condense"
)

// cutHand ends a hand that will go out in several requests at once before the first record that has an earlier version of itself in another
// of them: a correction is never under way together with what it replaces.
func (f *Forwarder) cutHand() {
	limit := f.limit
	if f.o.InFlight < 2 || len(f.hand) <= limit {
		return
	}
	clear(f.seen)
	for i := range f.hand {
		r := &f.hand[i]
		h, ok := condense.ReadHead(r.Body)
		if !ok || r.Type != TypePoint {
			continue
		}
		k := maphash.Bytes(f.hash, h.Identity)
		if at, known := f.seen[k]; known && at != i/limit {
			f.hand = f.hand[:i]
			f.read.back(r.LSN)
			return
		}
		f.seen[k] = i / limit
	}
}

// back makes the reader read from lsn on again.
func (r *reader) back(lsn uint64) {
	if r.lane == nil {
		b := r.out
		b.mu.Lock()
		b.leased = max(lsn, b.pos.next)
		b.unlock()
	}
	r.seek(lsn)
}

// burst tries the whole hand at once, in as many requests as it takes. What did not go well stays work, in order, and the first of it
// is judged.
func (f *Forwarder) burst(ctx context.Context) error {
	if f.o.InFlight < 2 || f.failures > 0 || len(f.hand) <= f.limit || len(f.hand) > f.limit*f.o.InFlight {
		return nil
	}
	hand := f.hand
	var parts [][]Record
	for len(hand) > 0 {
		n := min(f.limit, len(hand))
		parts, hand = append(parts, hand[:n]), hand[n:]
	}
	results := make([]*Error, len(parts))
	var wg sync.WaitGroup
	for i := range parts {
		wg.Go(func() { results[i] = f.attempt(ctx, parts[i]) })
	}
	wg.Wait()
	f.work = f.work[:0]
	first := -1
	for i := len(parts) - 1; i >= 0; i-- {
		if results[i] != nil {
			f.work, first = append(f.work, piece{recs: parts[i]}), i
		}
	}
	for i := range parts {
		if results[i] == nil {
			if err := f.delivered(ctx, parts[i]); err != nil {
				return err
			}
		}
	}
	if first < 0 {
		return nil
	}
	return f.judge(ctx, f.top(), results[first])
}
