package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/uplink"
)

// requeuing keeps an item from being put back on its way twice, or deleted while it is: from its journal record on until the pipeline has
// taken it out of the quarantine.
type requeuing struct {
	mu   sync.Mutex
	last seglog.LSN // of the newest such record
}

// QuarantineList implements console.Quarantined.
func (g *gateway) QuarantineList(q console.QuarantineQuery) (l console.QuarantineList, err error) {
	items, total, err := g.outlet.quarantine.Find(quarantineFilter(&q.QuarantineFilter), q.Before, q.Limit)
	if err != nil {
		return l, err
	}
	groups, err := g.outlet.quarantine.Groups()
	if err != nil {
		return l, err
	}
	s, err := g.outlet.quarantine.Stats()
	if err != nil {
		return l, err
	}
	l = console.QuarantineList{Total: total, Held: s.Items, Bytes: s.Bytes, MaxBytes: s.MaxBytes}
	for i := range items {
		l.Items = append(l.Items, quarantineItem(&items[i]))
	}
	for i := range groups {
		k := &groups[i]
		l.Groups = append(l.Groups, console.QuarantineGroup{
			Stage: string(k.Stage), Reason: k.Reason, Source: k.Source, Items: k.Items, Count: k.Count,
			Oldest: unixTime(k.Oldest), Newest: unixTime(k.Newest), Example: k.Example,
		})
	}
	return l, nil
}

func quarantineFilter(f *console.QuarantineFilter) uplink.QuarantineFilter {
	return uplink.QuarantineFilter{Stage: uplink.Stage(f.Stage), Reason: f.Reason, Source: f.Source, Destination: f.Destination, Search: f.Search}
}

func quarantineItem(it *uplink.Item) console.QuarantineItem {
	v := console.QuarantineItem{
		ID: console.ItemID(it.ID), Time: unixTime(it.Time), Stage: string(it.Stage), Reason: it.Reason, Detail: it.Detail, Source: it.Source,
		Topic: it.Topic, Payload: it.Payload, PayloadBytes: len(it.Payload), Points: it.Points, Count: it.Count,
	}
	if it.Stage == uplink.StageSink {
		v.Destination = it.Source
	}
	return v
}

// QuarantineItem implements console.Quarantined.
func (g *gateway) QuarantineItem(id uint64) (console.QuarantineItem, error) {
	it, ok, err := g.outlet.quarantine.Get(id)
	if err == nil && !ok {
		err = fmt.Errorf("%w: no item has the id %d", console.ErrNotFound, id)
	}
	return quarantineItem(&it), err
}

// selected is the ids of a selection, ascending.
func (g *gateway) selected(q *console.QuarantineSelection) ([]uint64, error) {
	if q.Filter != nil {
		return g.outlet.quarantine.IDs(quarantineFilter(q.Filter))
	}
	ids := make([]uint64, len(q.IDs))
	for i, id := range q.IDs {
		ids[i] = uint64(id)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// DeleteQuarantine implements console.Quarantined.
func (g *gateway) DeleteQuarantine(ctx context.Context, q console.QuarantineSelection) (int, error) {
	g.requeuing.mu.Lock()
	defer g.requeuing.mu.Unlock()
	if err := g.awaitRequeued(ctx); err != nil {
		return 0, err
	}
	ids, err := g.selected(&q)
	if err != nil {
		return 0, err
	}
	return g.outlet.quarantine.Delete(g.clock.now(), ids)
}

// awaitRequeued waits until what was journalled has left the quarantine, or the journal has dropped it. The caller holds requeuing.
func (g *gateway) awaitRequeued(ctx context.Context) error {
	last := g.requeuing.last
	t := time.NewTicker(time.Millisecond)
	defer t.Stop()
	for g.runner.Applied() < last && g.journal.Next() > last {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the pipeline has not taken in what was put back before: %w", ctx.Err())
		case <-t.C:
		}
	}
	return nil
}

// ReplayQuarantine implements console.Quarantined.
func (g *gateway) ReplayQuarantine(_ context.Context, q console.QuarantineReplay) (string, error) {
	if g.runner.View().Unset {
		return "", errors.New("the clock is not set: what is put back now would be taken for the future")
	}
	var as uplink.FieldType
	if q.Type != "" {
		var err error
		if as, err = uplink.ParseFieldType(q.Type); err != nil {
			return "", fmt.Errorf("%w: type: %w", console.ErrInvalid, err)
		}
	}
	return g.jobs.start("quarantine_replay", "items", q.By, func(ctx context.Context, p *progress) (any, error) {
		ids, err := g.selected(&q.QuarantineSelection)
		if err != nil {
			return nil, err
		}
		return g.requeueAll(ctx, ids, as, p)
	})
}

// requeueAtOnce bounds the items of which the job waits for the end together.
const requeueAtOnce = 500

// requeueAll puts items back on their way, so many at a time. When it ends early, what was journalled is done all the same.
func (g *gateway) requeueAll(ctx context.Context, ids []uint64, as uplink.FieldType, p *progress) (res console.QuarantineReplayed, err error) {
	s, err := g.outlet.quarantine.Stats()
	if err != nil {
		return res, err
	}
	caused := make(map[seglog.LSN]bool) // records of ours
	done := uint64(0)
	for chunk := range slices.Chunk(ids, requeueAtOnce) {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		if err := g.requeueSome(ctx, chunk, as, &res, caused); err != nil {
			return res, err
		}
		done += uint64(len(chunk))
		p.set(done, uint64(len(ids)))
	}
	if res.Failed += uint64(len(ids)) - res.Replayed - res.Failed; res.Failed > 0 && res.Error == "" {
		res.Error = "not there any more"
	}
	err = g.outlet.quarantine.Each(s.Last+1, func(it uplink.Item) bool {
		if it.Stage != uplink.StageSink && caused[seglog.LSN(it.Cause.LSN)] {
			res.Again++
		}
		return true
	})
	g.outlet.quarantine.Compact()
	return res, err
}

// requeueSome journals items and waits until they have left the quarantine.
func (g *gateway) requeueSome(ctx context.Context, ids []uint64, as uplink.FieldType, res *console.QuarantineReplayed, caused map[seglog.LSN]bool) error {
	g.requeuing.mu.Lock()
	defer g.requeuing.mu.Unlock()
	if err := g.awaitRequeued(ctx); err != nil {
		return err
	}
	backfill, journal := g.historyForRequeue()
	err := g.outlet.quarantine.Some(ids, func(it uplink.Item) {
		if journal != nil {
			return
		}
		r, err := g.requeueOf(&it, as)
		if err == nil {
			r.Backfill = backfill
			var lsn seglog.LSN
			if lsn, journal = g.intake.requeue(r); journal == nil {
				g.requeuing.last = lsn
				caused[lsn] = true
				res.Replayed++
			}
			return
		}
		if res.Failed++; res.Error == "" {
			res.Error = fmt.Sprintf("item %d: %s", it.ID, err)
		}
	})
	if err := errors.Join(err, journal); err != nil {
		return fmt.Errorf("put items back: %w", err)
	}
	if err := g.awaitRequeued(ctx); err != nil {
		return err
	}
	if g.runner.Applied() < g.requeuing.last {
		return errors.New("the journal did not take all of it; what it did not take is still in quarantine")
	}
	return nil
}

// historyForRequeue tells the pipeline how far the local history goes back, so that closed windows can be recomputed from it; ok is false
// where there is none.
func (g *gateway) historyForRequeue() (ok bool, err error) {
	if g.history == nil {
		return false, nil
	}
	from, known := g.history.Complete()
	if !known {
		return false, nil
	}
	_, err = g.intake.appendLast(pipeline.RecordHistory, pipeline.HistoryBegins(from))
	return err == nil, err
}

// requeueOf is the journal record that puts an item back on its way.
func (g *gateway) requeueOf(it *uplink.Item, as uplink.FieldType) (*pipeline.Requeue, error) {
	q := &pipeline.Requeue{ID: it.ID, Count: it.Count}
	if it.Stage != uplink.StageSink {
		if as != 0 {
			return nil, errors.New("a type is for what a destination refused")
		}
		if it.Retry == nil {
			return nil, errors.New("its message was not kept with it: it cannot be tried again")
		}
		var err error
		if q.Retry, err = pipeline.ParseRetry(it.Retry); err != nil {
			return nil, err
		}
		q.Source, q.Topic, q.Payload = it.Source, it.Topic, it.Payload
		q.Late = it.Stage == uplink.StageTime && it.Reason == pipeline.ReasonLate
		return q, nil
	}
	if g.outlet.outbox(it.Source) == nil {
		return nil, fmt.Errorf("there is no destination %q any more", it.Source)
	}
	r := uplink.Record{Type: it.Type, Body: it.Payload}
	if as != 0 {
		if kind := g.kindOf(it.Source); kind != "influxdb" {
			return nil, fmt.Errorf("fields have types at destinations of type influxdb only, %s is of type %s", it.Source, kind)
		}
		var err error
		if r, err = uplink.Retype(r, as, it.Detail); err != nil {
			return nil, err
		}
	}
	q.Destination, q.Type, q.Record = it.Source, r.Type, r.Body
	return q, nil
}

// kindOf is the type of a destination, or webhook.
func (g *gateway) kindOf(name string) string {
	for _, f := range g.forwarders {
		if f.name == name {
			return f.kind
		}
	}
	return ""
}

var _ console.Quarantined = (*gateway)(nil)
