package uplink

import (
	"context"
	"fmt"
	"math"

	"sluice/gateway/seglog"
)

// purge is an operator's wish to have records gone.
type purge struct {
	before int64
	done   chan purged // 1
}

type purged struct {
	records uint64
	err     error
}

// Purge gives up every record that the journal has from before that time, ns since the Unix epoch, 0 for all there are. They are
// counted as shed with the reason purged, and stand in the log of losses. It waits for a request under way, and until Run runs.
func (f *Forwarder) Purge(ctx context.Context, before int64) (records uint64, err error) {
	if before == 0 {
		before = math.MaxInt64
	}
	p := &purge{before: before, done: make(chan purged, 1)}
	select {
	case f.asked <- p:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case r := <-p.done:
		return r.records, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// serve does what was asked for, with the hands empty.
func (f *Forwarder) serve() {
	p := f.todo
	f.todo = nil
	if p == nil {
		select {
		case p = <-f.asked:
		default:
			return
		}
	}
	f.giveBack()
	var r purged
	if r.err = f.root.finish(); r.err == nil {
		for _, t := range f.root.all() {
			n, err := t.purge(p.before)
			r.records += n
			if err != nil {
				r.err = fmt.Errorf("purge outbox %s: %w", t.dir, err)
				break
			}
		}
	}
	f.rewind()
	p.done <- r
}

// purge sheds the records of one tier that are older than before, up to the first that is not.
func (b *Outbox) purge(before int64) (records uint64, err error) {
	b.mu.Lock()
	defer b.unlock()
	if err := b.flush(); err != nil {
		return 0, err
	}
	b.forgetHand()
	t := newTally(&b.o, b.held.Time)
	to := b.pos.next
	last := b.pos.acked
	c := b.log.Cursor(seglog.LSN(to))
	defer c.Close()
	for {
		raw, ok, err := c.TryNext()
		if err != nil {
			return 0, err
		}
		if !ok {
			to = uint64(b.log.Next())
			break
		}
		to = uint64(raw.LSN)
		r, err := splitRecord(raw)
		if err == nil && r.Cause.Time >= before {
			break
		}
		if err == nil && !b.pos.accounted(to) {
			last = r.Cause
			t.add(&r)
		}
	}
	if to == b.pos.next {
		return 0, nil
	}
	b.root.losses.begin(b.name, ShedPurged, to, t)
	records = b.pos.cover(b.pos.next, to)
	b.pos.shed[ShedPurged] += records
	if last.After(b.pos.acked) {
		b.pos.acked = last
	}
	b.pos.triedTime = max(b.pos.triedTime, last.Time)
	b.leased, b.dirty = b.pos.next, true
	b.noteShed(Shed{Count: records, To: last.Time, Reason: ShedPurged})
	_, err = b.trim()
	b.root.losses.end(true)
	if c, e := b.causeAt(b.pos.next); e == nil && b.pending() > 0 {
		b.oldest = c.Time
	}
	return records, err
}
