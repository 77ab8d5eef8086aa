package history

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// write turns batches into commits. It belongs to the goroutine of Run.
type write struct {
	h     *History
	store *store
	skip  seglog.LSN // records up to here were stored before

	devices map[*telemetry.Device]*deviceSeries
	scratch labels.ScratchBuilder
	last    *telemetry.Device // and its series: samples of one device often come together
	lastSet *deviceSeries

	synced  time.Time // when
	wroteAt time.Time // last commit
}

// deviceSeries are a device's series, in the order of their first readings.
type deviceSeries struct{ series []series }

type series struct {
	metric   string
	labels   labels.Labels
	ref      storage.SeriesRef
	t        int64 // ms, of the last reading
	v        float64
	some     bool
	decimals int
}

// maxDevices bounds what is remembered of devices; beyond it all are looked up anew.
const maxDevices = 250_000

func (w *write) forget() { w.devices, w.last, w.lastSet = nil, nil, nil }

// restart lets everything count as not stored.
func (w *write) restart() {
	w.store.mark = mark{}
	w.h.applied.Store(0)
}

// idle tells whether nothing was committed for a moment.
func (w *write) idle() bool { return time.Since(w.wroteAt) > 5*commitEvery }

// reached moves the watermark: everything up to at was committed.
func (w *write) reached(at seglog.LSN) {
	if m := &w.store.mark; at > m.applied {
		m.applied = at
		w.h.applied.Store(uint64(at))
	}
}

// syncNow makes the watermark durable when it is time, or when it must.
func (w *write) syncNow(must bool) error {
	m := w.store.mark
	if m.applied == m.synced || !must && time.Since(w.synced) < syncEvery {
		return nil
	}
	w.synced = time.Now()
	return w.store.sync()
}

// finish is the last word before a close.
func (w *write) finish() error { return w.syncNow(true) }

// batch commits b, and notes in the watermark's file what was committed before.
func (w *write) batch(b *batch) error {
	if len(b.samples) == 0 {
		return nil
	}
	if stall := w.h.stall.Load(); stall != nil {
		(*stall)()
	}
	app := w.store.db.Appender(context.Background())
	stored, at := uint64(0), 0
	for i := range b.samples {
		s := &b.samples[i]
		readings := b.readings[at : at+int(s.n)]
		at += int(s.n)
		if s.at <= w.skip {
			continue
		}
		n, err := w.sample(app, s, readings)
		if err != nil {
			return errors.Join(err, app.Rollback())
		}
		stored += n
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("commit to history: %w", err)
	}
	w.wroteAt = time.Now()
	w.h.counts.stored.Add(stored)
	// The last record may not be complete; see Passed.
	w.reached(b.samples[len(b.samples)-1].at - 1)
	return w.store.putMark()
}

func (w *write) sample(app storage.Appender, s *sample, readings []telemetry.Reading) (stored uint64, err error) {
	set := w.series(s.device)
	t := s.t / int64(time.Millisecond)
	for i := range readings {
		r := &readings[i]
		se := set.metric(i, r.Metric)
		if se == nil {
			set.series = append(set.series, series{metric: r.Metric, labels: storedLabels(&w.scratch, s.device, r.Metric)})
			se = &set.series[len(set.series)-1]
		}
		if se.some && se.t == t { // the TSDB would only tell of what was committed before
			if se.v != r.Value {
				w.h.counts.conflicts.Add(1)
			}
			continue
		}
		var v float64
		v, se.decimals = pack(r.Value, se.decimals)
		ref, err := app.Append(se.ref, se.labels, t, v)
		switch {
		case err == nil:
			se.ref = ref
			stored++
			if !se.some || t > se.t {
				se.t, se.v, se.some = t, r.Value, true
			}
		case errors.Is(err, storage.ErrDuplicateSampleForTimestamp):
			w.h.counts.conflicts.Add(1)
		case errors.Is(err, storage.ErrTooOldSample), errors.Is(err, storage.ErrOutOfBounds), errors.Is(err, storage.ErrOutOfOrderSample):
			w.h.counts.tooOld.Add(1)
		default:
			return stored, fmt.Errorf("append to history: %w", err)
		}
	}
	return stored, nil
}

func (w *write) series(d *telemetry.Device) *deviceSeries {
	if d == w.last {
		return w.lastSet
	}
	set := w.devices[d]
	if set == nil {
		if w.devices == nil || len(w.devices) >= maxDevices {
			w.devices = map[*telemetry.Device]*deviceSeries{}
		}
		set = &deviceSeries{}
		w.devices[d] = set
	}
	w.last, w.lastSet = d, set
	return set
}

// metric finds a series; payloads repeat their order, so hint is mostly right. nil when it is new.
func (d *deviceSeries) metric(hint int, name string) *series {
	if hint < len(d.series) && d.series[hint].metric == name {
		return &d.series[hint]
	}
	for i := range d.series {
		if d.series[i].metric == name {
			return &d.series[i]
		}
	}
	return nil
}
