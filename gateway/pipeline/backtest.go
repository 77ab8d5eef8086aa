package pipeline

import (
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

// Backtest folds a journal under one spec, whatever specs were in force when it was written, and counts what its rules would have
// done. Timers run out at their time, not at the journal's ticks, which follow other rules. It belongs to one goroutine.
type Backtest struct {
	fold     *Fold
	begun    bool
	c        *compiled
	stats    map[string]*RuleStats
	firing   map[uint64]*backtestAlert // by fingerprint
	messages uint64
	damaged  uint64
	from, to int64
}

// RuleStats are what one rule would have done.
type RuleStats struct {
	Alert       string        `json:"alert"`
	For         time.Duration `json:"for_ns"`
	Fired       int           `json:"fired"`
	Inhibited   int           `json:"inhibited"` // of these, withheld from notification
	Series      int           `json:"series"`    // different alerts
	Total       time.Duration `json:"total_ns"`  // firing, all series together
	Longest     time.Duration `json:"longest_ns"`
	Flaps       int           `json:"flaps"` // fired again within FlapWithin of the end
	First       time.Time     `json:"first,omitzero"`
	Last        time.Time     `json:"last,omitzero"`
	FiringAtEnd int           `json:"firing_at_end"`
}

// FlapWithin is how soon after its end an alert fires again to count as a flap.
const FlapWithin = 10 * time.Minute

// backtestAlert is one set of labels.
type backtestAlert struct {
	stats  *RuleStats
	firing bool
	since  int64
	ended  int64 // 0: never
}

// NewBacktest makes a backtest of spec. changes are other values of for, by alert.
func NewBacktest(spec *Spec, changes map[string]time.Duration) (*Backtest, error) {
	raw, err := spec.Encode()
	if err != nil {
		return nil, err
	}
	c, err := compile(raw)
	if err != nil {
		return nil, err
	}
	if c.rules, err = c.rules.WithFor(changes); err != nil {
		return nil, err
	}
	b := &Backtest{fold: NewFold(), c: c, stats: map[string]*RuleStats{}, firing: map[uint64]*backtestAlert{}}
	for _, r := range c.rules.Rules() {
		b.stats[r.Alert] = &RuleStats{Alert: r.Alert, For: r.For}
	}
	return b, nil
}

// Apply takes one record in. What cannot be read is counted and passed over.
func (b *Backtest) Apply(r *seglog.Record) {
	f := b.fold
	if !b.begun {
		b.begun, b.from = true, r.Time
		f.now = r.Time
		f.use(b.c)
		f.engine.SetZone(b.c.zone)
		f.engine.Reload(b.c.rules, f.ruleNow(), f.event)
	}
	switch r.Type {
	case RecordConfigure, RecordOperator, RecordAudit, RecordBackfill, RecordHistory, RecordRequeue:
		// What was in force, and what people did, has no part in it; but the gateway was there, and time passed.
		b.advance(r.Time, r.LSN)
		f.advance(r.Time)
		b.to = f.now
		return
	case RecordMessage:
		b.messages++
	case RecordTick, RecordBoot, RecordClockStep:
	default:
		b.damaged++
		return
	}
	if r.Type != RecordBoot && r.Type != RecordClockStep { // the gateway was down meanwhile, or time is about to jump
		b.advance(r.Time, r.LSN)
	}
	if f.Apply(r, b) != nil {
		b.damaged++
	}
	b.to = f.now
}

// advance ticks whenever the rules want it until t.
func (b *Backtest) advance(t int64, lsn seglog.LSN) {
	f := b.fold
	for {
		due := f.engine.Due()
		if due > t-f.stepped {
			return
		}
		tick := seglog.Record{LSN: lsn, Type: RecordTick, Time: max(due+f.stepped, f.now)}
		if f.Apply(&tick, b) != nil {
			return
		}
	}
}

// Report closes the accounts and returns the statistics in the order of the rules.
func (b *Backtest) Report() []RuleStats {
	var list []RuleStats
	for _, a := range b.firing {
		if a.firing {
			a.stats.FiringAtEnd++
			a.end(b.to)
			a.firing = true
		}
	}
	for _, r := range b.c.rules.Rules() {
		list = append(list, *b.stats[r.Alert])
	}
	b.firing = map[uint64]*backtestAlert{}
	return list
}

// Span is the time of the first and the last record, and how many messages came between; damaged counts records that could not be read.
func (b *Backtest) Span() (from, to time.Time, messages, damaged uint64) {
	return time.Unix(0, b.from), time.Unix(0, b.to), b.messages, b.damaged
}

// Alerts implements Outputs.
func (b *Backtest) Alerts(_ Cause, events []rules.Event) {
	for i := range events {
		b.event(&events[i])
	}
}

func (b *Backtest) event(ev *rules.Event) {
	a := b.firing[ev.Fingerprint]
	if a == nil {
		a = &backtestAlert{stats: b.stats[ev.Alert]}
		a.stats.Series++
		b.firing[ev.Fingerprint] = a
	}
	s := a.stats
	switch {
	case ev.State == rules.Resolved:
		a.end(ev.EndsAt)
	case a.firing: // told now, after it was inhibited
	default:
		a.firing, a.since = true, ev.StartsAt
		s.Fired++
		if ev.Inhibited {
			s.Inhibited++
		}
		if a.ended != 0 && ev.StartsAt-a.ended < int64(FlapWithin) {
			s.Flaps++
		}
		at := time.Unix(0, ev.StartsAt).UTC()
		if s.First.IsZero() {
			s.First = at
		}
		s.Last = at
	}
}

func (a *backtestAlert) end(at int64) {
	if !a.firing {
		return
	}
	d := time.Duration(max(at-a.since, 0))
	a.firing, a.ended = false, at
	a.stats.Total += d
	a.stats.Longest = max(a.stats.Longest, d)
}

// Point implements Outputs.
func (b *Backtest) Point(Cause, *telemetry.Point) {}

// Notify implements Outputs.
func (b *Backtest) Notify(Cause, *notify.Notification) {}

// Refuse implements Outputs.
func (b *Backtest) Refuse(Cause, *Refused) {}

var _ Outputs = (*Backtest)(nil)
