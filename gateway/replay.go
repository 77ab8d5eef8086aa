package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// replayResult is what came of sending a range again.
type replayResult struct {
	Points  uint64 `json:"points"`  // put into the outbox
	Records uint64 `json:"records"` // of the journal that were read
	// From and To are the part of the range that was covered: points by their time, windows by their start. What lies before From came
	// before the oldest record of the journal; what lies behind To can still change, and the gateway sends it by itself.
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
	// AlertsLeftOut counts points of alerts that were not sent: what the rules knew before the oldest record is not known, so that they
	// might be others than those of then.
	AlertsLeftOut uint64 `json:"alerts_left_out"`
	Damaged       uint64 `json:"damaged"` // records that could not be read
	Trimmed       uint64 `json:"trimmed"` // records that were released meanwhile
}

// errNoDestination is returned by replayRange for a sink that is no destination of the configuration.
var errNoDestination = errors.New("no such destination")

// replayRange derives the points with from <= time < to once more from the journal and puts those that belong to the destination
// sink into its outbox, behind what waits there: for a store that lost them. They have the identities they had, so a store that still
// holds them overwrites them with themselves. It waits while half of the outbox's bound is used. progress, which may be nil, is told
// of journal records read and to be read. Safe for concurrent use; when ctx ends, what was put stays put, and the error is ctx's.
func (g *gateway) replayRange(ctx context.Context, from, to time.Time, sink string, progress func(done, total int64)) (replayResult, error) {
	if !from.Before(to) {
		return replayResult{}, fmt.Errorf("replay: from %s is not before to %s", from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	i := slices.IndexFunc(g.outlet.destinations, func(d *destination) bool { return d.name == sink })
	if i < 0 {
		return replayResult{}, fmt.Errorf("replay: %w: %s (there are: %s)", errNoDestination, sink, strings.Join(g.destinationNames(), ", "))
	}
	r := &rangeReplay{ctx: ctx, destination: g.outlet.destinations[i]}
	err := r.run(&rereader{journal: g.journal, slots: g.slots, spec: g.spec, log: g.log}, from, to, progress)
	if err != nil {
		return r.result, fmt.Errorf("replay: %w", err)
	}
	return r.result, nil
}

func (g *gateway) destinationNames() (names []string) {
	for _, d := range g.outlet.destinations {
		names = append(names, d.name)
	}
	return names
}

// rangeReplay is one call of replayRange.
type rangeReplay struct {
	ctx         context.Context
	destination *destination
	result      replayResult
	body        []byte
	err         error // why a point could not be put
}

func (r *rangeReplay) run(journal *rereader, from, to time.Time, progress func(done, total int64)) error {
	fold, cursor, fromStart, err := journal.before(from)
	if err != nil {
		return err
	}
	defer cursor.Close()
	derive := pipeline.NewRederive(fold, fromStart, from, to, r.put)
	first, last := cursor.Position(), journal.Durable()
	for n := 0; ; n++ {
		rec, ok, err := cursor.TryNext()
		if err != nil {
			return err
		}
		if !ok || rec.LSN > last {
			break
		}
		derive.Apply(&rec)
		r.result.Records++
		if r.err != nil {
			return r.err
		}
		if n%1024 == 0 {
			if err := r.ctx.Err(); err != nil {
				return err
			}
			if progress != nil {
				progress(int64(rec.LSN-first), int64(last-first)+1)
			}
		}
	}
	if derive.Finish(); r.err != nil {
		return r.err
	}
	trimmed, lost := cursor.Skipped()
	res := &r.result
	res.From, res.To, res.Damaged, res.AlertsLeftOut = derive.Covered()
	res.Damaged, res.Trimmed = res.Damaged+lost, trimmed
	if progress != nil {
		progress(int64(last-first)+1, int64(last-first)+1)
	}
	return r.destination.outbox.Sync()
}

// put queues one point, and waits while there is no room for it.
func (r *rangeReplay) put(p *telemetry.Point) {
	if r.err != nil || !r.destination.match.Match(p.Labels) {
		return
	}
	r.body = telemetry.MarshalPoint(r.body[:0], p)
	out := r.destination.outbox
	for {
		r.err = out.Resend(uplink.TypePoint, r.body)
		if r.err == nil {
			r.result.Points++
			return
		}
		if !errors.Is(r.err, uplink.ErrFull) {
			return
		}
		if err := out.Flush(); err != nil && !errors.Is(err, uplink.ErrFull) {
			r.err = err
			return
		}
		select {
		case <-r.ctx.Done():
			r.err = r.ctx.Err()
			return
		case <-time.After(resendWait):
		}
	}
}

// resendWait is how often a replay looks whether its outbox has room again.
const resendWait = 100 * time.Millisecond

// before returns a fold and a cursor behind its last record, from which on everything with event times from from on is in the
// journal; the newest checkpoint that is old enough, else the journal's oldest record. fromStart tells that the fold has seen
// all records there ever were.
func (r *rereader) before(from time.Time) (f *pipeline.Fold, c *seglog.Cursor, fromStart bool, err error) {
	values, err := r.slots.Both()
	if err != nil {
		return nil, nil, false, fmt.Errorf("read checkpoints: %w", err)
	}
	spec := r.spec
	for _, v := range values {
		f, err := pipeline.RestoreFold(v)
		if err != nil {
			continue // Recover tells of it
		}
		if f.Holds(from) {
			f.SetJournal(r.cursor)
			return f, r.journal.Cursor(f.LSN() + 1), true, nil
		}
		spec = f.SpecInForce()
	}
	f = pipeline.NewFold()
	f.SetJournal(r.cursor)
	first := r.journal.First()
	if first > 1 {
		if err := f.Apply(&seglog.Record{LSN: first - 1, Type: pipeline.RecordConfigure, Body: spec}, nowhere{}); err != nil {
			return nil, nil, false, err
		}
	}
	return f, r.journal.Cursor(first), first <= 1, nil
}
