package uplink

import (
	"context"
	"math"
	"time"
)

const (
	tellEvery = 5 * time.Second // between two looks at what was lost: a range that grows is told of again
	tellMost  = 500
)

// waiting tells whether the destination is still to hear of a loss.
func (l *losses) waiting() bool {
	if !l.out.o.Losses.Tell {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.v.Losses {
		if !l.v.Losses[i].Told {
			return true
		}
	}
	return false
}

// tellLosses delivers data_gap points for what was shed, once the destination takes records again. They are in no counter of the
// outbox: nobody put them.
func (f *Forwarder) tellLosses(ctx context.Context) {
	now := time.Now()
	if f.failures > 0 || f.recall || now.Before(f.tellAt) || f.pause().Reason != "" || !f.root.losses.waiting() {
		return
	}
	if !f.proven && f.root.Counters().Pending > 0 {
		return // let the backlog find out whether the destination is there
	}
	f.tellAt = now.Add(tellEvery)
	bodies, entries := f.root.losses.untold(tellMost)
	recs := make([]Record, len(bodies))
	held := f.root.Held()
	for i, body := range bodies {
		recs[i] = Record{LSN: uint64(i + 1), Cause: Cause{LSN: held.LSN, Ordinal: math.MaxUint32, Time: entries[i].Noted}, Type: TypePoint, Body: body}
	}
	e := f.attempt(ctx, recs)
	if e != nil && e.Kind == KindRejected {
		for i := range recs { // each by itself; what the destination will not have is in the log of losses all the same
			if e = f.attempt(ctx, recs[i:i+1]); e != nil && e.Kind != KindRejected {
				entries = entries[:i]
				break
			}
			if e != nil {
				f.o.Log.Warn("destination refuses to be told of a loss", "destination", f.o.Name, "reason", entries[i].Reason,
					"points", entries[i].Points, "err", e)
				e = nil
			}
		}
	}
	if e == nil || len(entries) < len(recs) {
		f.root.losses.told(entries)
	}
}
