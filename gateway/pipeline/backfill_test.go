package pipeline

import (
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

func backfillSpec() *Spec {
	spec := testSpec()
	spec.Sources[0].Late = LateBackfill
	spec.Sources[0].Lateness = time.Minute
	return spec
}

// answerAll answers what is asked, with n readings a window; n 0 refuses.
func (d *driver) answerAll(at int64, n int) {
	d.Helper()
	for _, q := range d.f.Backfills(100) {
		var answers []BackfillAnswer
		for _, start := range q.Starts {
			a := BackfillAnswer{Start: start, Refused: "the local history was lost"}
			if n > 0 {
				m := telemetry.MetricAggregate{Metric: "temperature"}
				for i := range n {
					m.Add(start+int64(i), float64(i))
				}
				a = BackfillAnswer{Start: start, Aggregates: []telemetry.MetricAggregate{m}}
			}
			answers = append(answers, a)
		}
		d.apply(RecordBackfill, at, q.AppendAnswer(nil, answers))
	}
}

func TestBackfill_ABurstAsksOnceForAWindow(t *testing.T) {
	d := newDriver(t, backfillSpec())
	now := t0 + 3600*sec
	for i := range 15 { // two windows of an hour ago
		d.publish(now, "d/a/t", msg(i, t0+int64(i)*sec, 1))
	}
	if got := d.f.Backfills(100); len(got) != 0 {
		t.Errorf("asked while more may come: %+v", got)
	}
	if due := d.f.Due(); due != now+2*sec {
		t.Errorf("due %d s after the burst, want 2", (due-now)/sec)
	}
	d.tick(now + 2*sec)
	got := d.f.Backfills(100)
	if len(got) != 1 || len(got[0].Starts) != 2 || got[0].Starts[0] != t0 || got[0].Last != 16 {
		t.Fatalf("asked for %+v", got)
	}
	if l := d.f.View().Total; l.Aggregated != 15 || l.Backfilled != 15 || l.Late != 0 {
		t.Errorf("ledger %+v", l)
	}
	d.out.take()
	d.answerAll(now+3*sec, 10)
	if lines := strings.Split(d.out.take(), "\n"); len(lines) != 2 || !strings.Contains(lines[0], "@0 w=10s temperature_count=10") {
		t.Errorf("put out %q", lines)
	}
	if v := d.f.View(); v.Waiting != 0 || d.f.Due() != 1<<63-1 {
		t.Errorf("%d windows wait, due %d", v.Waiting, d.f.Due())
	}
}

func TestBackfill_BeforeTheHistoryBeganItIsQuarantinedWithItsBytes(t *testing.T) {
	d := newDriver(t, backfillSpec())
	d.apply(RecordHistory, t0, HistoryBegins(t0+100*sec))
	payload := msg(1, t0+99*sec, 1)
	d.publish(t0+3600*sec, "d/a/t", payload)
	d.publish(t0+3600*sec, "d/a/t", msg(2, t0+100*sec, 1))
	if got := d.out.take(); strings.Count(got, "refused time/late") != 1 || !strings.Contains(got, strings.ReplaceAll(payload, `"`, `\"`)) {
		t.Errorf("put out %s", got)
	}
	if l := d.f.View().Total; l.Late != 1 || l.Aggregated != 1 || l.Backfilled != 1 {
		t.Errorf("ledger %+v", l)
	}
}

func TestBackfill_WhatTheHistoryDoesNotHoldIsLateAfterAll(t *testing.T) {
	for _, held := range []int{0, 2} { // nothing; less than came late
		d := newDriver(t, backfillSpec())
		for i := range 3 {
			d.publish(t0+3600*sec, "d/a/t", msg(i, t0+int64(i)*sec, 1))
		}
		d.tick(t0 + 3610*sec)
		d.out.take()
		d.answerAll(t0+3611*sec, held)
		if got := d.out.take(); strings.Count(got, "refused time/late n=3") != 1 || strings.Contains(got, "point") {
			t.Errorf("history holds %d: put out %s", held, got)
		}
		if v := d.f.View(); v.Total.Late != 3 || v.Total.Aggregated != 0 || v.Total.Backfilled != 0 || v.ByReason[ReasonLate] != 3 || v.Waiting != 0 {
			t.Errorf("history holds %d: ledger %+v, by reason %v", held, v.Total, v.ByReason)
		}
	}
}

func TestBackfill_AReadingInAWindowThatIsStillOpenIsACorrection(t *testing.T) {
	d := newDriver(t, backfillSpec())
	d.publish(t0+9*sec, "d/a/t", msg(1, t0+9*sec, 1))
	d.tick(t0 + 12*sec)
	d.out.take()
	d.publish(t0+78*sec, "d/a/t", msg(2, t0, 2)) // late by itself; its window is not
	d.tick(t0 + 79*sec)
	if got := d.out.take(); !strings.Contains(got, "temperature_count=2") {
		t.Errorf("put out %q", got)
	}
	if l := d.f.View().Total; l.Backfilled != 0 || l.Aggregated != 2 {
		t.Errorf("ledger %+v", l)
	}
}

func TestBackfill_AChangedWindowLengthLeavesNothingBehind(t *testing.T) {
	d := newDriver(t, backfillSpec())
	d.publish(t0+3600*sec, "d/a/t", msg(1, t0, 1))
	spec := backfillSpec()
	spec.Sources[0].Window = 20 * time.Second
	d.configure(t0+3601*sec, spec)
	if v := d.f.View(); v.Waiting != 0 || v.Total.Late != 1 {
		t.Errorf("%d windows wait, ledger %+v", v.Waiting, v.Total)
	}
}

func FuzzBackfillRecord(f *testing.F) {
	d := newDriver(f, backfillSpec())
	d.publish(t0+3600*sec, "d/a/t", msg(1, t0, 1))
	d.tick(t0 + 3610*sec)
	for _, q := range d.f.Backfills(10) {
		m := telemetry.MetricAggregate{Metric: "temperature"}
		m.AddSketched(t0, 1)
		f.Add(q.AppendAnswer(nil, []BackfillAnswer{{Start: t0, Aggregates: []telemetry.MetricAggregate{m}}, {Start: t0 + 1, Refused: "why"}}))
	}
	saved := d.f.Snapshot(nil)
	f.Fuzz(func(t *testing.T, body []byte) {
		fold, err := RestoreFold(saved)
		if err != nil {
			t.Fatal(err)
		}
		_ = fold.Apply(&seglog.Record{LSN: 100, Type: RecordBackfill, Time: t0, Body: body}, &recorder{})
		if im := fold.View().Total.Imbalance(); im != 0 {
			t.Fatalf("imbalance %d", im)
		}
	})
}
