package uplink

import (
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

// What a forwarder has in memory may be deleted from a full outbox: it can still deliver it. When the process ends first it is lost, and
// the log of losses knows of which source it was and how many readings were in it.
func TestLosses_WhatAForwarderHeldAtAKillIsKnownBySourceAndReadings(t *testing.T) {
	const readings = 3
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	put := func(b *Outbox, from, to int) {
		t.Helper()
		for n := from; n < to; n++ {
			p := telemetry.Point{Measurement: "line", Time: base + int64(n)*10e9, Window: 10 * time.Second, Stats: []telemetry.Stat{telemetry.StatCount},
				Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: "a"})}
			var a telemetry.Aggregate
			for i := range readings {
				a.Add(p.Time+int64(i), float64(i))
			}
			p.Aggregates = []telemetry.MetricAggregate{{Metric: "t", Aggregate: a}}
			if err := b.Put(Cause{LSN: uint64(n + 1), Time: base + int64(n)*10e9}, TypePoint, telemetry.MarshalPoint(nil, &p)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		name  string
		acked int // records of the hand that were delivered before the kill
	}{{"nothing of it delivered", 0}, {"a part of it delivered", 20}, {"all of it delivered", 400}} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			b := openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
			put(b, 0, 400)
			r := b.reader()
			held := take(t, r, 400)
			put(b, 400, 12000)
			if tc.acked > 0 {
				ackAll(t, b, held[:tc.acked])
			}
			before := b.Counters()
			if before.Shed[ShedFull] == 0 {
				t.Fatal("nothing was shed")
			}
			r.close()
			b.Close()
			b = openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
			for range 2 { // and a further restart changes nothing
				after := b.Counters()
				checkBalance(t, after)
				if want := before.Shed[ShedFull] + uint64(len(held)-tc.acked); after.Shed[ShedFull] != want {
					t.Errorf("%d shed after the kill, want %d", after.Shed[ShedFull], want)
				}
				list, totals := b.Losses()
				if totals.Points != after.Shed[ShedFull] || totals.Readings != readings*totals.Points {
					t.Errorf("losses of %d points with %d readings, want %d points of %d readings each", totals.Points, totals.Readings, after.Shed[ShedFull], readings)
				}
				for _, e := range list {
					if e.Source != "line" || e.From < base || e.Time < base {
						t.Errorf("loss %+v: not of the source, or before its first reading", e)
					}
				}
				b.Close()
				b = openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
			}
		})
	}
}
