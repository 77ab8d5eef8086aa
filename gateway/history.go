package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	policy "sluice/rules/notify"
)

// openHistory makes the local history, unless the config keeps none.
func (g *gateway) openHistory() {
	c := &g.cfg.History
	if c.Keep == 0 {
		return
	}
	g.history = history.New(history.Options{
		Dir: g.dir.join("history"), Keep: c.Keep, MaxBytes: int64(c.MaxBytes),
		Journal: &rereader{journal: g.journal, slots: g.slots, spec: g.spec, log: g.log},
		Log:     g.log, Units: g.units,
	})
	g.outlet.history = g.history
}

// units is history.Units: what payloads say, else what the configuration expects.
func (g *gateway) units(ctx context.Context, f func(labels map[string]string, name, unit string)) error {
	v, err := g.Fleet(ctx)
	if err != nil {
		return err
	}
	for i := range v.Devices {
		d := &v.Devices[i]
		for k := range d.Metrics {
			if m := &d.Metrics[k]; m.Unit != "" {
				f(d.Labels, m.Name, m.Unit)
			}
		}
	}
	return nil
}

// runHistory returns a channel that closes when the history has ended.
func (g *gateway) runHistory(ctx context.Context) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if g.history == nil {
			return
		}
		var recall sync.WaitGroup
		recall.Go(func() { g.recall(ctx) })
		g.history.Run(ctx) // what goes wrong in it ends nothing; it is logged and tried again
		recall.Wait()
	}()
	return ended
}

// historyGrace bounds how long a stop waits for the history to close; what it leaves is read from the journal at the next start.
const historyGrace = 5 * time.Second

func (g *gateway) awaitHistory(ended <-chan struct{}) {
	select {
	case <-ended:
	case <-time.After(historyGrace):
		g.log.Warn("history did not close in time; the next start reads the journal again")
	}
}

// Readings implements pipeline.ReadingOutputs.
func (o *outlet) Readings(c pipeline.Cause, d *telemetry.Device, t int64, readings []telemetry.Reading) {
	if o.live != nil {
		o.live.readings(d, c.Time, t, readings)
	}
	if o.history != nil {
		o.history.Readings(c.LSN, d, t, readings)
	}
}

// Passed implements pipeline.ReadingOutputs.
func (o *outlet) Passed(at seglog.LSN) {
	if o.history != nil {
		o.history.Passed(at)
	}
}

// rereader lets the history read the journal again, through a fold of its own.
type rereader struct {
	journal *seglog.Log
	slots   *seglog.Slots
	spec    []byte // in force where nothing else says which
	log     *slog.Logger
}

// Durable implements history.Journal.
func (r *rereader) Durable() seglog.LSN { return r.journal.Durable() }

// Reread implements history.Journal. The fold starts from a checkpoint at or before after, so that it counts what the pipeline's
// counted. Where there is none, it starts empty at the oldest record: then a resend of something older is not recognised, and is
// stored a second time unless it brought its own time.
func (r *rereader) Reread(after seglog.LSN) (history.Reader, error) {
	values, err := r.slots.Both()
	if err != nil {
		return nil, fmt.Errorf("read checkpoints: %w", err)
	}
	spec := r.spec
	for _, v := range values {
		f, err := pipeline.RestoreFold(v)
		if err != nil {
			continue // Recover tells of it
		}
		if f.LSN() <= after {
			f.SetJournal(r.cursor)
			return &refold{fold: f, cursor: r.journal.Cursor(f.LSN() + 1), after: after}, nil
		}
		spec = f.SpecInForce()
	}
	f := pipeline.NewFold()
	f.SetJournal(r.cursor)
	first := r.journal.First()
	if first > 1 {
		if err := f.Apply(&seglog.Record{LSN: first - 1, Type: pipeline.RecordConfigure, Body: spec}, nowhere{}); err != nil {
			return nil, fmt.Errorf("reread journal: %w", err)
		}
		if after+1 < first {
			return &refold{fold: f, cursor: r.journal.Cursor(first), after: after, missing: uint64(first - after - 1)}, nil
		}
	}
	return &refold{fold: f, cursor: r.journal.Cursor(first), after: after}, nil
}

// cursor lets a fold read again what it held back.
func (r *rereader) cursor(from seglog.LSN) pipeline.Cursor { return r.journal.Cursor(from) }

// refold folds the journal for the readings alone.
type refold struct {
	nowhere
	fold    *pipeline.Fold
	cursor  *seglog.Cursor
	after   seglog.LSN
	missing uint64 // before the cursor began
	put     history.Put
}

// Next implements history.Reader.
func (r *refold) Next(put history.Put) (at seglog.LSN, ok bool, err error) {
	rec, ok, err := r.cursor.TryNext()
	if !ok || err != nil {
		return 0, false, err
	}
	r.put = put
	// What the pipeline could not apply it has logged; here it has no readings either.
	_ = r.fold.Apply(&rec, r)
	return rec.LSN, true, nil
}

// Missing implements history.Reader.
func (r *refold) Missing() uint64 {
	trimmed, lost := r.cursor.Skipped()
	return r.missing + trimmed + lost
}

// Close implements history.Reader.
func (r *refold) Close() { r.cursor.Close() }

// Readings implements pipeline.ReadingOutputs.
func (r *refold) Readings(c pipeline.Cause, d *telemetry.Device, t int64, readings []telemetry.Reading) {
	if c.LSN > r.after {
		r.put(c.LSN, d, t, readings)
	}
}

// Passed implements pipeline.ReadingOutputs.
func (r *refold) Passed(seglog.LSN) {}

// nowhere takes what a fold puts out and nobody wants.
type nowhere struct{}

// Point implements pipeline.Outputs.
func (nowhere) Point(pipeline.Cause, *telemetry.Point) {}

// Alerts implements pipeline.Outputs.
func (nowhere) Alerts(pipeline.Cause, []rules.Event) {}

func (nowhere) Notify(pipeline.Cause, *policy.Notification) {}

// Refuse implements pipeline.Outputs.
func (nowhere) Refuse(pipeline.Cause, *pipeline.Refused) {}
