package uplink

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"
)

// step tries the piece on top of the work and does what the answer asks for. It returns errors of our own disk and
// of ctx, never the destination's.
func (f *Forwarder) step(ctx context.Context) error {
	if f.o.Whole && f.failures > 0 && len(f.work) == 1 {
		if err := f.topUp(); err != nil {
			return err
		}
	}
	p := f.top()
	if f.o.RetryFor > 0 {
		if err := f.expire(ctx, p); err != nil || len(p.recs) == 0 {
			return err
		}
	}
	if len(p.recs) > f.limit {
		f.split(f.limit)
		p = f.top()
	}
	return f.judge(ctx, p, f.attempt(ctx, p.recs))
}

// judge does what the answer to the piece on top of the work asks for.
func (f *Forwarder) judge(ctx context.Context, p *piece, e *Error) error {
	if err := ctx.Err(); err != nil && e != nil {
		return err
	}
	if e == nil {
		return f.accepted(ctx, p)
	}
	if errors.Is(e, errWedged) {
		f.failures++
		f.rebuild()
		return f.wait(ctx, BackingOff, e, f.backoff(e))
	}
	if e.Kind == KindPartial && e.Taken > 0 {
		if e.Taken < len(p.recs) {
			f.split(e.Taken)
		}
		return f.accepted(ctx, f.top())
	}
	switch e.Kind {
	case KindRejected:
		f.failures = 0
		return f.refused(ctx, p, e)
	case KindTooLarge:
		f.failures = 0
		if len(p.recs) == 1 {
			return f.quarantine(ctx, p.recs, "too_large", e.Detail)
		}
		f.shrink(len(p.recs)/2, 16)
		return nil
	case KindConfig:
		return f.wait(ctx, ConfigError, e, 30*time.Second+f.jitter(30*time.Second))
	case KindGone:
		return f.wait(ctx, Disabled, e, 0)
	}
	if e.Status == 500 && f.o.ParkAfter > 0 {
		if acted, err := f.suspect(ctx, p, e); acted || err != nil {
			return err
		}
	}
	f.failures++
	if e.Status == 0 && f.o.Rebuild != nil && f.failures%rebuildAfter == 0 {
		f.rebuild()
		return f.wait(ctx, BackingOff, e, f.backoff(e))
	}
	if e.Status == 0 && len(p.recs) > 1 && !f.o.Whole && (timedOut(e) || f.failures%2 == 0) {
		// A link too slow for the batch would fail for ever; one that was down starts again gently.
		f.shrink(min(f.limit, len(p.recs))/2, 1)
	}
	return f.wait(ctx, BackingOff, e, f.backoff(e))
}

// topUp adds to the only piece of work what was put since it was read.
func (f *Forwarder) topUp() error {
	n := len(f.hand)
	if n >= f.o.BatchRecords || len(f.lanes) > 1 { // with a ladder a hand stays small while the destination is away
		return nil
	}
	hand, err := f.read.read(f.hand, f.o.BatchRecords, f.o.BatchBytes)
	if err != nil || len(hand) == n {
		return err
	}
	f.hand, f.fate = hand, append(f.fate, make([]fate, len(hand)-n)...)
	p := f.top()
	p.recs = append(p.recs[:len(p.recs):len(p.recs)], hand[n:]...)
	return nil
}

func (f *Forwarder) top() *piece { return &f.work[len(f.work)-1] }

func (f *Forwarder) pop() { f.work = f.work[:len(f.work)-1] }

// split leaves the first n records of the top piece on top and the rest below.
func (f *Forwarder) split(n int) {
	p := *f.top()
	f.pop()
	rest, head := p, p
	rest.recs, head.recs = p.recs[n:], p.recs[:n]
	f.work = append(f.work, rest, head)
}

func (f *Forwarder) attempt(ctx context.Context, recs []Record) *Error {
	start := time.Now()
	f.status.flying(1)
	err := f.call(ctx, recs)
	f.status.flying(-1)
	if err == nil {
		f.status.attempt("ok", time.Since(start))
		return nil
	}
	var e *Error
	if !errors.As(err, &e) {
		e = TransportError(err)
	}
	if e.Kind == KindPartial {
		f.status.attempt("ok", time.Since(start))
	} else if ctx.Err() == nil {
		f.status.attempt(e.Kind.String(), time.Since(start))
	}
	return e
}

func (f *Forwarder) accepted(ctx context.Context, p *piece) error {
	recs := p.recs
	f.pop()
	return f.delivered(ctx, recs)
}

func (f *Forwarder) delivered(ctx context.Context, recs []Record) error {
	if f.failures > 0 || f.status.alarmed() {
		f.o.Log.Info("destination takes records again", "destination", f.o.Name)
	}
	f.failures, f.proven = 0, true
	f.adapt(len(recs))
	f.status.delivered(recs, time.Now())
	return f.settle(ctx, recs, delivered)
}

// slow is an answer that took so long that half as much would be better: whatever else waits, waits behind it.
const slow = 10 * time.Second

// adapt sets the number of records per request after a success of n.
func (f *Forwarder) adapt(n int) {
	took := f.status.lastTook()
	switch {
	case took > slow && n > 1 && !f.o.Whole && f.o.Meter == nil: // a meter has its own way to keep requests short
		f.shrink(min(f.limit, n)/2, 4)
	case n >= f.limit && f.limit < f.o.BatchRecords:
		if f.grow--; f.grow <= 0 {
			f.limit, f.grow = min(f.limit*2, f.o.BatchRecords), f.growEach
		}
	}
}

// shrink sets the number of records per request; it doubles again after so many successes.
func (f *Forwarder) shrink(to, after int) {
	f.limit, f.grow, f.growEach = max(to, 1), after, after
}

// refused finds the records that the destination will never take, by halves: a success per half is the only proof.
func (f *Forwarder) refused(ctx context.Context, p *piece, e *Error) error {
	if len(e.Refused) > 0 {
		return f.refusedByName(ctx, p, e)
	}
	f.searched++
	if len(p.recs) == 1 {
		return f.quarantine(ctx, p.recs, "rejected", e.Detail)
	}
	if f.searched > f.o.SearchRequests {
		f.o.Log.Warn("destination refuses many records: the rest of the batch is quarantined unsearched", "destination", f.o.Name,
			"records", len(p.recs), "err", e)
		return f.quarantine(ctx, p.recs, "rejected", fmt.Sprintf("refused together with others, not searched further: %s", e.Detail))
	}
	f.split(len(p.recs) / 2)
	return nil
}

func (f *Forwarder) refusedByName(ctx context.Context, p *piece, e *Error) error {
	named := make(map[int]bool, len(e.Refused))
	for _, r := range e.Refused {
		if r.Index < 0 || r.Index >= len(p.recs) || named[r.Index] {
			continue
		}
		named[r.Index] = true
		if err := f.putQuarantine(ctx, p.recs[r.Index], r.Reason, r.Detail); err != nil {
			return err
		}
	}
	if len(named) == 0 {
		f.failures++
		return f.wait(ctx, BackingOff, e, f.backoff(e))
	}
	bad := make([]Record, 0, len(named))
	good := make([]Record, 0, len(p.recs)-len(named))
	for i, r := range p.recs {
		if named[i] {
			bad = append(bad, r)
		} else {
			good = append(good, r)
		}
	}
	if p.recs = good; len(good) == 0 {
		f.pop()
	}
	return f.settle(ctx, bad, rejected)
}

// suspect counts equal answers of 500 for a piece. When there were too many it looks for proof that the destination takes other
// records: with proof it halves the piece, down to the one record that is then parked in the quarantine; without proof the
// destination is down for everybody, and everything is kept. acted is false when there is nothing to do but wait.
//
// A record that is sent as proof is sent again in its place later, so the order of corrections holds in the end.
func (f *Forwarder) suspect(ctx context.Context, p *piece, e *Error) (acted bool, err error) {
	if e.Detail != p.answer {
		p.same, p.answer = 0, e.Detail
	}
	if p.same++; p.same < f.o.ParkAfter {
		return false, nil
	}
	other, ok, err := f.otherRecord(p)
	if err != nil || !ok {
		return false, err
	}
	p = f.top() // otherRecord may have moved it
	if probe := f.attempt(ctx, []Record{other}); probe != nil {
		p.same = 0
		return false, ctx.Err()
	}
	if len(p.recs) > 1 {
		p.same = f.o.ParkAfter - 1
		f.split(len(p.recs) / 2)
		return true, nil
	}
	again := f.attempt(ctx, p.recs)
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if again == nil {
		return true, f.accepted(ctx, p)
	}
	if again.Status != e.Status || again.Detail != e.Detail {
		return false, nil
	}
	f.o.Log.Error("destination answers 500 to one record again and again: parked in the quarantine", "destination", f.o.Name, "err", e)
	return true, f.quarantine(ctx, p.recs, "server_error", e.Detail)
}

// otherRecord picks a record to prove with: a random one of the piece, or, when the piece is a single record, the one after it.
func (f *Forwarder) otherRecord(p *piece) (Record, bool, error) {
	if n := len(p.recs); n > 1 {
		return p.recs[int(f.o.Rand()*float64(n))%n], true, nil
	}
	if len(f.work) > 1 {
		return f.work[len(f.work)-2].recs[0], true, nil
	}
	n := len(f.hand)
	hand, err := f.read.read(f.hand, n+1, 0)
	if err != nil || len(hand) == n {
		return Record{}, false, err
	}
	f.hand, f.fate = hand, append(f.fate, waiting)
	f.work = append([]piece{{recs: hand[n:]}}, f.work...)
	return hand[n], true, nil
}

// expire sheds what is older than RetryFor. A journal time from before the clock was set says nothing about age.
func (f *Forwarder) expire(ctx context.Context, p *piece) error {
	limit := time.Now().Add(-f.o.RetryFor).UnixNano()
	n := sort.Search(len(p.recs), func(i int) bool { return p.recs[i].Cause.Time >= limit })
	if n == 0 || p.recs[0].Cause.Time < clockPlausible.UnixNano() {
		return nil
	}
	f.o.Log.Error("records are shed: the destination did not take them in time", "destination", f.o.Name, "records", n,
		"retry_for", f.o.RetryFor)
	old := p.recs[:n]
	if p.recs = p.recs[n:]; len(p.recs) == 0 {
		f.pop()
	}
	return f.settle(ctx, old, expired)
}

// quarantine puts the top piece's records there and takes the piece off the work.
func (f *Forwarder) quarantine(ctx context.Context, recs []Record, reason, detail string) error {
	for _, r := range recs {
		if err := f.putQuarantine(ctx, r, reason, detail); err != nil {
			return err
		}
	}
	f.pop()
	return f.settle(ctx, recs, rejected)
}

func (f *Forwarder) putQuarantine(ctx context.Context, r Record, reason, detail string) error {
	item := Item{Time: time.Now().UnixNano(), Stage: StageSink, Reason: reason, Detail: Clip(detail, 4<<10), Source: f.o.Name, Type: r.Type,
		Payload: r.Body, Count: 1}
	if f.o.Describe != nil {
		item.Points = f.o.Describe(r)
	}
	if f.out.name != "" {
		item.Topic = f.out.name
	}
	if f.read.lane != nil { // its causes run ahead of those in order
		item.Topic = "newest"
	}
	f.unsynced = true
	return f.untilStored(ctx, func() error { return f.o.Quarantine.Put(r.Cause, item) })
}

// untilStored repeats a write to the quarantine that the disk does not take: without it nothing may be acknowledged.
func (f *Forwarder) untilStored(ctx context.Context, write func() error) error {
	f.storing = true
	defer func() { f.storing = false }()
	for {
		err := write()
		if err == nil {
			return nil
		}
		e := &Error{Kind: KindConfig, Detail: "the quarantine cannot be written: " + err.Error(), Err: err}
		if err := f.wait(ctx, ConfigError, e, 5*time.Second); err != nil {
			return err
		}
	}
}

// settle marks records of the hand and acknowledges what is done from its beginning on.
func (f *Forwarder) settle(ctx context.Context, recs []Record, to fate) error {
	at := sort.Search(len(f.hand), func(i int) bool { return f.hand[i].LSN >= recs[0].LSN })
	for _, r := range recs {
		for f.hand[at].LSN != r.LSN {
			at++
		}
		f.fate[at] = to
	}
	var n outcome
	done, bytes := 0, 0
	for ; done < len(f.hand) && f.fate[done] != waiting; done++ {
		bytes += len(f.hand[done].Body) + recordHead
		switch f.fate[done] {
		case delivered:
			n.delivered++
		case rejected:
			n.rejected++
		case expired:
			n.expired++
		}
	}
	if done == 0 {
		return nil
	}
	if f.unsynced {
		if err := f.untilStored(ctx, f.o.Quarantine.Sync); err != nil {
			return err
		}
		f.unsynced = false
	}
	last, gone := f.hand[done-1], f.hand[:done]
	f.hand, f.fate = f.hand[done:], f.fate[done:]
	if f.read.lane != nil {
		f.out.ackAhead(gone, n)
		return nil
	}
	var oldest int64
	if len(f.hand) > 0 {
		oldest = f.hand[0].Cause.Time
	}
	return f.out.ack(last.LSN, last.Cause, n, bytes, oldest)
}

// wait holds the forwarder back for d, or, with d 0, until Retry.
func (f *Forwarder) wait(ctx context.Context, s State, e *Error, d time.Duration) error {
	if f.status.failed(s, e, d) {
		f.o.Log.Warn("destination does not take records", "destination", f.o.Name, "state", s.String(), "err", e)
	}
	if f.wanted() {
		f.recall, f.rest = true, time.Time{}
		if d > 0 {
			f.rest = time.Now().Add(d)
		}
		return nil
	}
	var over, look <-chan time.Time
	if len(f.lanes) > 1 {
		t := time.NewTicker(lookEvery)
		defer t.Stop()
		look = t.C
	}
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		over = t.C
	}
	until := time.Now().Add(d)
	asked := f.asked
	if f.storing {
		asked = nil
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-over:
		case <-look:
			if !f.wanted() {
				continue
			}
			f.recall, f.rest = true, time.Time{}
			if d > 0 {
				f.rest = until
			}
		case <-f.root.press:
			if !f.wanted() || !f.root.ripe() && !f.root.ripeBelow() {
				continue
			}
			f.recall, f.rest = true, time.Time{}
			if d > 0 {
				f.rest = until
			}
		case <-f.kick:
			f.failures = 0
		case f.todo = <-asked:
			f.recall, f.rest = true, time.Time{}
			if d > 0 {
				f.rest = until
			}
		}
		return nil
	}
}

// backoff is the wait after the latest failure: what the destination asked for and up to a tenth more, or a random share, from
// half to the whole, of an exponential step.
func (f *Forwarder) backoff(e *Error) time.Duration {
	if e.RetryAfter > 0 {
		d := min(e.RetryAfter, MaxRetryAfter)
		return d + f.jitter(d/10)
	}
	d := f.o.MinBackoff
	for i := 1; i < f.failures && d < f.o.MaxBackoff; i++ {
		d *= 2
	}
	d = min(d, f.o.MaxBackoff)
	return max(d/2+f.jitter(d/2), 1) // 0 would wait for Retry
}

func (f *Forwarder) jitter(d time.Duration) time.Duration {
	return time.Duration(f.o.Rand() * float64(d))
}

func timedOut(e *Error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(e.Err, context.DeadlineExceeded) || errors.As(e.Err, &t) && t.Timeout()
}
