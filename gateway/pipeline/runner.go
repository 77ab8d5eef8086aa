package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"sluice/gateway/seglog"
	"sluice/rules"
	"sluice/rules/notify"
)

// Outlet is where a Runner's outputs go. Its Outputs methods block while there is no room; when they cannot store an output at
// all, Flush and Sync return why, and the Runner ends without a checkpoint, so that a replay puts the output out again.
type Outlet interface {
	Outputs
	// Flush makes what was put out visible to those who deliver it.
	Flush() error
	// Sync makes it survive power loss; a checkpoint follows.
	Sync() error
}

// Options of a Runner; zero values are the defaults.
type Options struct {
	CheckpointBytes int64         // journal bytes between checkpoints: 32 MiB
	CheckpointEvery time.Duration // and time: 5 min
	KeepBytes       int64         // journal kept below the checkpoints, for replays: 1 GiB
	Log             *slog.Logger
}

// Runner drives a Fold from the journal, hands its outputs to an Outlet and keeps checkpoints in two slots.
type Runner struct {
	fold    *Fold
	journal *seglog.Log
	slots   *seglog.Slots
	out     Outlet
	o       Options

	cursor     *seglog.Cursor
	since      int64      // journal bytes since the last checkpoint
	last       time.Time  // of the last checkpoint
	newest     seglog.LSN // the newest checkpoint needs the journal behind this record
	older      seglog.LSN // and the one before behind this one
	damaged    uint64
	due        atomic.Int64
	applied    atomic.Uint64
	moved      atomic.Int64 // when the fold last took a record in, ns
	backfills  atomic.Int64 // windows to be recomputed
	view       atomic.Pointer[View]
	viewed     time.Time
	stale      bool         // records were applied since
	checkpoint atomic.Int64 // size of the last one
	asks       asks
}

// View is a copy of what status pages show of the fold.
type View struct {
	LSN         seglog.LSN
	Now         int64
	Devices     int
	Series      int
	Windows     int
	Waiting     int    // windows to be recomputed from the local history
	HistoryFrom int64  // the local history is complete from here on, see HistoryBegins
	Unset       bool   // the clock is not set
	Held        uint64 // messages that wait for it
	Sources     []SourceLedger
	Total       Ledger
	ByReason    map[string]uint64
	Alerts      []rules.AlertView
	Notify      *notify.View // what is told of them, and silences
	Rules       *rules.Set   // in force
	Damaged     uint64       // journal records that could not be applied
	Rejected    uint64       // specs in the journal that could not be put in force
}

// SourceLedger is one source's ledger; the name is empty for messages whose source is gone.
type SourceLedger struct {
	Source string
	Ledger
}

// Recover restores the newest usable checkpoint. without one it returns an empty fold, and the whole journal is replayed.
// The journal must be opened with MinNext above the returned fold's LSN.
func Recover(slots *seglog.Slots, log *slog.Logger) (*Fold, error) {
	values, err := slots.Both()
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	for i, v := range values {
		f, err := RestoreFold(v)
		if err == nil {
			return f, nil
		}
		if log != nil {
			log.Warn("checkpoint not usable", "slot", i, "err", err)
		}
	}
	return NewFold(), nil
}

// LSN is the last record the fold has taken in.
func (f *Fold) LSN() seglog.LSN { return f.lsn }

// SpecInForce is the encoded Spec the fold works with.
func (f *Fold) SpecInForce() []byte { return f.c.raw }

// NewRunner starts nothing; call Replay, then Run.
func NewRunner(f *Fold, journal *seglog.Log, slots *seglog.Slots, out Outlet, o Options) *Runner {
	if o.CheckpointBytes <= 0 {
		o.CheckpointBytes = 32 << 20
	}
	if o.CheckpointEvery <= 0 {
		o.CheckpointEvery = 5 * time.Minute
	}
	if o.KeepBytes <= 0 {
		o.KeepBytes = 1 << 30
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &Runner{fold: f, journal: journal, slots: slots, out: out, o: o, newest: f.Needs() - 1, last: time.Now()}
	f.SetJournal(func(from seglog.LSN) Cursor { return journal.Cursor(from) })
	r.cursor = journal.Cursor(f.lsn + 1)
	r.due.Store(math.MaxInt64)
	r.applied.Store(uint64(f.lsn))
	r.moved.Store(r.last.UnixNano())
	r.Refresh()
	return r
}

// Replay takes in everything the journal holds and returns how many records that were.
func (r *Runner) Replay() (int, error) {
	n := 0
	for {
		rec, ok, err := r.cursor.TryNext()
		if err != nil {
			return n, fmt.Errorf("replay journal: %w", err)
		}
		if !ok {
			return n, r.settle()
		}
		if err := r.apply(&rec); err != nil {
			return n, err
		}
		n++
	}
}

// Run takes in records as they are committed until ctx ends or the journal is closed.
func (r *Runner) Run(ctx context.Context) error {
	for {
		if _, err := r.Replay(); err != nil {
			if errors.Is(err, seglog.ErrClosed) {
				return r.settle()
			}
			return err
		}
		rec, err := r.next(ctx)
		switch {
		case errors.Is(err, seglog.ErrClosed), ctx.Err() != nil:
			r.Refresh()
			return nil
		case err != nil:
			return fmt.Errorf("read journal: %w", err)
		}
		if err := r.apply(&rec); err != nil {
			return err
		}
	}
}

// next waits for a record; when none comes for a moment, the view is brought up to date once.
func (r *Runner) next(ctx context.Context) (seglog.Record, error) {
	if !r.stale {
		return r.await(ctx)
	}
	soon, cancel := context.WithTimeout(ctx, viewEvery)
	rec, err := r.await(soon)
	cancel()
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		r.Refresh()
		return r.await(ctx)
	}
	return rec, err
}

// await waits for a record and answers what others ask of the fold meanwhile.
func (r *Runner) await(ctx context.Context) (seglog.Record, error) {
	for {
		wait, cancel := context.WithCancel(ctx)
		r.asks.interrupt(cancel)
		r.answer()
		rec, err := r.cursor.Next(wait)
		r.asks.interrupt(nil)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.Canceled) {
			return rec, err
		}
	}
}

// viewEvery bounds how often the view is copied.
const viewEvery = 200 * time.Millisecond

// flushEvery bounds how many records' outputs wait for a Flush while the pipeline catches up.
const flushEvery = 4096

func (r *Runner) apply(rec *seglog.Record) error {
	if err := r.fold.Apply(rec, r.out); err != nil {
		r.damaged++
		r.o.Log.Error("journal record not applied", "lsn", rec.LSN, "err", err)
	}
	r.since += int64(len(rec.Body)) + 32
	if rec.LSN%flushEvery == 0 {
		if err := r.settle(); err != nil {
			return err
		}
	}
	if r.since >= r.o.CheckpointBytes || r.since > 0 && rec.LSN%64 == 0 && time.Since(r.last) >= r.o.CheckpointEvery {
		return r.Checkpoint()
	}
	return nil
}

// settle makes outputs visible and publishes what others may see of the fold.
func (r *Runner) settle() error {
	err := r.out.Flush()
	if out, ok := r.out.(ReadingOutputs); ok {
		out.Passed(r.fold.lsn)
	}
	r.due.Store(r.fold.Due())
	r.backfills.Store(int64(len(r.fold.backfills.list)))
	if lsn := uint64(r.fold.lsn); r.applied.Swap(lsn) != lsn {
		r.moved.Store(time.Now().UnixNano())
	}
	r.stale = true
	r.answer()
	if time.Since(r.viewed) > viewEvery {
		r.Refresh()
	}
	return err
}

// Checkpoint makes the outlet durable, then the state, and releases the journal that neither recovery nor the replay budget
// needs. Only the goroutine of Run and Replay may call it.
func (r *Runner) Checkpoint() error {
	if err := r.out.Sync(); err != nil {
		return fmt.Errorf("sync outputs: %w", err)
	}
	b := r.fold.Snapshot(nil)
	r.since, r.last = 0, time.Now()
	if err := r.slots.Store(b, true); err != nil {
		// The older checkpoint stands and the journal behind it stays, so nothing is lost but time at the next start.
		r.o.Log.Error("checkpoint not written", "err", err)
		return nil
	}
	r.checkpoint.Store(int64(len(b)))
	r.older, r.newest = r.newest, r.fold.Needs()-1
	if err := r.journal.TrimTo(r.o.KeepBytes, r.older+1); err != nil {
		r.o.Log.Warn("journal not trimmed", "err", err)
	}
	return nil
}

// Due is the earliest time at which the fold needs a tick, or math.MaxInt64; safe for concurrent use.
func (r *Runner) Due() int64 { return r.due.Load() }

// Applied is the last record taken in; it may trail by a few thousand records. Safe for concurrent use.
func (r *Runner) Applied() seglog.LSN { return seglog.LSN(r.applied.Load()) }

// Moved is when Applied last changed; safe for concurrent use.
func (r *Runner) Moved() time.Time { return time.Unix(0, r.moved.Load()) }

// ClockState is what a start needs to know of the clock; for the goroutine that calls Replay.
func (r *Runner) ClockState() ClockState { return r.fold.ClockState() }

// SpecInForce is the encoded Spec the fold works with; for the goroutine that calls Replay.
func (r *Runner) SpecInForce() []byte { return r.fold.c.raw }

// View returns a recent copy of the fold's figures; safe for concurrent use. It may be a quarter of a second old.
func (r *Runner) View() *View { return r.view.Load() }

// CheckpointBytes is the size of the last checkpoint written; safe for concurrent use.
func (r *Runner) CheckpointBytes() int64 { return r.checkpoint.Load() }

// Refresh brings View up to date at once; for the goroutine that calls Replay.
func (r *Runner) Refresh() {
	v := r.fold.View()
	v.Damaged = r.damaged
	r.view.Store(v)
	r.viewed, r.stale = time.Now(), false
}

// View copies the fold's figures.
func (f *Fold) View() *View {
	v := &View{
		LSN: f.lsn, Now: f.now, Devices: len(f.devices), Series: f.series, Rejected: f.rejected,
		ByReason: make(map[string]uint64, len(f.byReason)), Alerts: f.engine.Alerts(), Notify: f.policy.View(), Rules: f.c.rules,
	}
	for reason, n := range f.byReason {
		v.ByReason[reason] = n
	}
	for _, l := range f.ledgers {
		v.Sources = append(v.Sources, SourceLedger{l.name, l.Ledger})
		v.Total = v.Total.Plus(l.Ledger)
	}
	for _, st := range f.streams {
		v.Windows += st.rollup.Held()
	}
	v.Waiting, v.HistoryFrom = len(f.backfills.list), f.backfills.complete
	v.Unset, v.Held = f.hold.on, f.hold.messages
	return v
}
