package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// backfiller answers the fold's questions for windows to be recomputed, from the local history; see pipeline.Backfill.
type backfiller struct {
	history *history.History
	ask     func(ctx context.Context, most int) ([]pipeline.Backfill, error)
	journal func(typ byte, body []byte) (seglog.LSN, error)
	applied func() seglog.LSN // last record that the pipeline has taken in

	told int64 // from when on the history is complete, as the fold knows it
}

const (
	backfillEvery = time.Second
	backfillMost  = 4096           // windows looked at in a round
	backfillBatch = 256            // windows in one answer
	backfillSpan  = 24 * time.Hour // read at a time, so that far apart windows do not cost what lies between
)

// runBackfill answers until ctx ends. What cannot be answered now is asked again.
func (g *gateway) runBackfill(ctx context.Context) error {
	if g.history == nil {
		return nil
	}
	b := &backfiller{
		history: g.history, ask: g.runner.Backfills, applied: g.runner.Applied,
		journal: g.intake.appendLast,
	}
	b.told = g.runner.View().HistoryFrom
	tick := time.NewTicker(backfillEvery)
	defer tick.Stop()
	complained := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := b.round(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !complained:
			g.log.Warn("late windows are not recomputed at the moment", "err", err)
		case err == nil && complained:
			g.log.Info("late windows are recomputed again")
		}
		complained = err != nil
	}
}

// round answers what is asked now.
func (b *backfiller) round(ctx context.Context) error {
	if err := b.tell(); err != nil {
		return err
	}
	list, err := b.ask(ctx, backfillMost)
	if err != nil {
		return err
	}
	last := seglog.LSN(0)
	for i := range list {
		q := &list[i]
		if b.history.Applied() < q.Last { // it will come
			continue
		}
		lsn, err := b.answer(ctx, q)
		last = max(last, lsn)
		if err != nil {
			return err
		}
	}
	return b.await(ctx, last)
}

// tell journals from when on the history is complete, so that the fold refuses readings from before with their bytes.
func (b *backfiller) tell() error {
	from, ok := b.history.Complete()
	if !ok || from == b.told {
		return nil
	}
	if _, err := b.journal(pipeline.RecordHistory, pipeline.HistoryBegins(from)); err != nil {
		return fmt.Errorf("journal what the history holds: %w", err)
	}
	b.told = from
	return nil
}

// await waits until the pipeline has seen the answers, so that nothing is asked twice.
func (b *backfiller) await(ctx context.Context, lsn seglog.LSN) error {
	for b.applied() < lsn {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return nil
}

// answer journals what the history holds of the windows asked for.
func (b *backfiller) answer(ctx context.Context, q *pipeline.Backfill) (last seglog.LSN, err error) {
	starts := q.Starts
	for len(starts) > 0 {
		n := 1
		for n < len(starts) && n < backfillBatch && starts[n]-starts[0] < int64(backfillSpan) {
			n++
		}
		answers, err := b.recompute(ctx, q, starts[:n])
		if err != nil {
			return last, fmt.Errorf("recompute windows: %w", err)
		}
		if last, err = b.journal(pipeline.RecordBackfill, q.AppendAnswer(nil, answers)); err != nil {
			return last, fmt.Errorf("journal recomputed windows: %w", err)
		}
		starts = starts[n:]
	}
	return last, nil
}

func (b *backfiller) recompute(ctx context.Context, q *pipeline.Backfill, starts []int64) ([]pipeline.BackfillAnswer, error) {
	window := int64(q.Window)
	aggs := make([][]telemetry.Aggregate, len(starts))
	at := make(map[int64]int, len(starts))
	for i, s := range starts {
		aggs[i] = make([]telemetry.Aggregate, len(q.Metrics))
		at[s] = i
	}
	err := b.history.Each(ctx, q.Device, q.Metrics, starts[0], starts[len(starts)-1]+window, func(metric int, t int64, v float64) {
		i, ok := at[pipeline.WindowStart(t, q.Window)]
		switch {
		case !ok:
		case q.Sketch:
			aggs[i][metric].AddSketched(t, v)
		default:
			aggs[i][metric].Add(t, v)
		}
	})
	shared := errors.Is(err, history.ErrShared)
	if err != nil && !shared {
		return nil, err
	}
	complete, known := b.history.Complete() // after reading: what went meanwhile shows
	if !known {
		return nil, errors.New("the local history was closed")
	}
	answers := make([]pipeline.BackfillAnswer, len(starts))
	for i, s := range starts {
		a := &answers[i]
		a.Start = s
		switch {
		case shared:
			a.Refused = history.ErrShared.Error()
			continue
		case s < complete:
			a.Refused = "the local history is complete only from " + time.Unix(0, complete).UTC().Format(time.RFC3339) + " on"
			continue
		}
		for k := range q.Metrics {
			if aggs[i][k].Count > 0 {
				a.Aggregates = append(a.Aggregates, telemetry.MetricAggregate{Metric: q.Metrics[k], Aggregate: aggs[i][k]})
			}
		}
		if len(a.Aggregates) == 0 {
			a.Refused = "the local history holds none of its readings"
		}
	}
	return answers, nil
}
