package uplink

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
)

// weighedSink is a destination at the end of a meter: 100 bytes a record, 500 a request.
type weighedSink struct {
	pointSink
	m *Meter
}

func (s *weighedSink) Deliver(ctx context.Context, recs []Record) error {
	if _, err := s.m.take(500 + 100*len(recs)); err != nil {
		return err
	}
	return s.pointSink.Deliver(ctx, recs)
}

// Ten devices every ten seconds make 86,400 points a day, 8.6 MB; 1.5 MB are allowed. Merged to a minute they are 1.45 MB, which does not fit
// with what was sent before; ten minutes do.
func TestForwarder_ABudgetCostsResolutionNotData(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates a day")
	}
	synctest.Test(t, func(t *testing.T) {
		const budget = 1_500_000
		fs := simfs.New(1) // nothing is cut here; it costs no sync
		m, err := OpenMeter(fs, "/meter", Bandwidth{BytesPerDay: budget})
		if err != nil {
			t.Fatal(err)
		}
		sink := &weighedSink{m: m}
		sink.stored = make(map[string]simPoint)
		out := openTest(t, "/outbox", OutboxOptions{FS: fs, MaxBytes: 64 << 20, WhenFull: Degrade, Ladder: []time.Duration{time.Minute, 10 * time.Minute},
			Horizon: 30 * time.Second, LiveWindow: 10 * time.Second, CursorEvery: time.Minute})
		q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		f, err := NewForwarder(out, sink, ForwarderOptions{Name: "cloud", Quarantine: q, Meter: m, NewestFirst: true})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		day, used := time.Now().Day(), int64(0)
		var put uint64
		lsn := uint64(0)
		var slowest time.Duration
		for range 9000 {
			time.Sleep(10 * time.Second)
			now := time.Now()
			if now.Day() != day {
				day, used = now.Day(), m.Total()
			}
			if n := m.Total() - used; n > budget {
				t.Fatalf("%d bytes on %v", n, now)
			}
			for d := range 10 {
				lsn++
				var a telemetry.Aggregate
				a.Add(now.UnixNano(), float64(d))
				put++
				p := telemetry.Point{Measurement: "line", Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: fmt.Sprint(d)}),
					Time: now.Add(-10 * time.Second).UnixNano(), Window: 10 * time.Second,
					Aggregates: []telemetry.MetricAggregate{{Metric: "t", Aggregate: a}}, Stats: []telemetry.Stat{telemetry.StatCount}}
				if err := out.Put(Cause{LSN: lsn, Time: now.UnixNano()}, TypePoint, telemetry.MarshalPoint(nil, &p)); err != nil {
					t.Fatal(err)
				}
			}
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, now.Sub(time.Unix(0, out.OldestTime())))
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		s := f.Status()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		var count uint64
		byWindow := make(map[time.Duration]int)
		for _, p := range sink.stored {
			count += p.count
			byWindow[p.window]++
		}
		c := out.Counters()
		if c.Shed != [numShedReasons]uint64{} || c.Enqueued != put || c.Enqueued != c.Delivered+c.Pending+c.Degraded {
			t.Errorf("counters %+v", c)
		}
		if byWindow[time.Minute]+byWindow[10*time.Minute] == 0 || put-count > 10*360 {
			t.Errorf("%d of %d readings arrived; points by window %v", count, put, byWindow)
		}
		t.Logf("%d of %d readings arrived; points by window %v; oldest waited %v; %+v %+v", count, put, byWindow, slowest, s.Bandwidth, s.Tiers)
	})
}
