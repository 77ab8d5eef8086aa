package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
)

// wedgedSink does not come back, whatever its context says.
type wedgedSink struct{ calls atomic.Int64 }

func (s *wedgedSink) Deliver(context.Context, []Record) error {
	s.calls.Add(1)
	select {}
}

func TestForwarder_RebuildsASinkThatDoesNotComeBack(t *testing.T) {
	// Outside of a bubble: the wedged goroutine stays for good.
	out := openTest(t, t.TempDir(), OutboxOptions{})
	q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	bad, good := &wedgedSink{}, &scriptSink{}
	f, err := NewForwarder(out, bad, ForwarderOptions{Name: "cloud", Quarantine: q, Patience: time.Millisecond, MinBackoff: time.Millisecond,
		Rebuild: func() (Sink, error) { return good, nil }})
	if err != nil {
		t.Fatal(err)
	}
	f.wedge = time.Millisecond
	for n := range 3 {
		if err := out.Put(causeN(n), TypePoint, fmt.Appendf(nil, "r%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if _, stored := good.snapshot(); len(stored) == 3 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", f.Status())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if s := f.Status(); s.Rebuilds != 1 || bad.calls.Load() != 1 || s.Delivered != 3 {
		t.Errorf("status %+v, %d calls", s, bad.calls.Load())
	}
}

func TestForwarder_RebuildsASinkThatNeverGetsAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := &scriptSink{}
		w := newBench(t, ForwarderOptions{Rebuild: func() (Sink, error) { return good, nil }}, func(int, []Record) error {
			return &Error{Kind: KindRetry, Detail: "connection refused"}
		})
		w.put(t, 0, 3)
		w.start(t)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		calls, _ := w.sink.snapshot()
		if _, stored := good.snapshot(); !same(stored, names(0, 3)) || len(calls) != rebuildAfter || w.f.Status().Rebuilds != 1 {
			t.Errorf("stored %v after %d calls, %+v", stored, len(calls), w.f.Status())
		}
	})
}

// racingSink takes requests at once, answers them in any order, and keeps by identity what arrived last. It fails the test when two versions
// of one point are under way together.
type racingSink struct {
	t   *testing.T
	rng *rand.Rand

	mu     sync.Mutex
	flying map[string]int // identity > requests that hold it
	most   int
	now    int
	stored map[string]simPoint
	fail   float64
}

func (s *racingSink) Deliver(_ context.Context, recs []Record) error {
	s.mu.Lock()
	mine := make(map[string]simPoint)
	for _, r := range recs {
		id, p := simDecode(r.Body)
		mine[id] = p // the last version in one request wins
	}
	for id := range mine {
		if s.flying[id]++; s.flying[id] > 1 {
			s.t.Errorf("two versions of one point are under way at once")
		}
	}
	s.now++
	s.most = max(s.most, s.now)
	wait, failed, stores := time.Duration(s.rng.IntN(1000))*time.Millisecond, s.rng.Float64() < s.fail, s.rng.IntN(2) == 0
	s.mu.Unlock()
	time.Sleep(wait) // in a bubble
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	for id := range mine {
		s.flying[id]--
	}
	if !failed || stores {
		maps.Copy(s.stored, mine)
	}
	if failed {
		return &Error{Kind: KindRetry, Status: 503}
	}
	return nil
}

func TestForwarder_SeveralRequestsNeverOvertakeACorrection(t *testing.T) {
	for round := range 8 {
		synctest.Test(t, func(t *testing.T) {
			outs := simOutputs(300, 5)
			out := openTest(t, t.TempDir(), OutboxOptions{})
			q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer q.Close()
			s := &racingSink{t: t, rng: rand.New(rand.NewPCG(uint64(round), 1)), flying: make(map[string]int), stored: make(map[string]simPoint), fail: 0.2}
			f, err := NewForwarder(out, s, ForwarderOptions{Name: "cloud", Quarantine: q, BatchRecords: 20, InFlight: 4, NewestFirst: true})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx) }()
			want := make(map[string]simPoint)
			for i, o := range outs {
				if err := out.Put(o.cause, TypePoint, o.body); err != nil {
					t.Fatal(err)
				}
				id, p := simDecode(o.body)
				want[id] = p
				if i%50 == 49 {
					if err := out.Flush(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Duration(i%700) * time.Millisecond)
				}
			}
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			cancel()
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(s.stored, want) {
				t.Errorf("round %d: the destination holds other values than the last ones", round)
			}
			if c := out.Counters(); c.Delivered != uint64(len(outs)) || s.most < 2 {
				t.Errorf("round %d: %+v, at most %d requests at once", round, c, s.most)
			}
		})
	}
}

func gapPoints(points []string) (n int, count, records float64) {
	for _, body := range points {
		var p telemetry.Point
		if telemetry.ParsePoint([]byte(body), &p) == nil && p.Measurement == GapMeasurement {
			n++
			count += p.Fields[0].Value
			records += p.Fields[1].Value
		}
	}
	return n, count, records
}

func TestLosses_SayTheSameAsTheCountersAfterAnyCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 9))
	for round := range 20 {
		fs := simfs.New(uint64(round))
		o := OutboxOptions{FS: fs, MaxBytes: minOutbox, WhenFull: DropOldest, CursorEvery: time.Hour}
		outs := simOutputs(400, 700)
		at, crashes := 0, 0
		for {
			fs.CrashBefore(fs.Ops() + 1 + rng.IntN(80))
			if crashes > 25 {
				fs.CrashBefore(0)
			}
			out, err := OpenOutbox("/data", o)
			if err == nil {
				for ; at < len(outs); at++ {
					if err = out.Put(outs[at].cause, TypePoint, outs[at].body); err != nil {
						break
					}
				}
				if err == nil {
					err = out.Sync()
				}
			}
			if err == nil && !fs.Crashed() {
				c := out.Counters()
				list, totals := out.Losses()
				var points, readings uint64
				for _, l := range list {
					points, readings = points+l.Points, readings+l.Readings
				}
				if points != c.Shed[ShedFull] || totals.Points != points || totals.Readings != readings || c.Shed[ShedFull] == 0 || readings < points {
					t.Fatalf("round %d, %d crashes: %d points lost, %d readings, totals %+v, counters %+v, %+v", round, crashes, points, readings, totals, c, list)
				}
				out.Close()
				break
			}
			crashes++
			if out != nil {
				out.Close()
			}
			at = 0 // the pipeline puts everything again; what is held is skipped
			fs.Restart(append([]simfs.Policy{simfs.Kill}, simfs.Policies...)[rng.IntN(7)], rng.Uint64())
		}
	}
}

func TestForwarder_TellsTheDestinationWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sink := &scriptSink{answer: func(call int, _ []Record) error {
			if call < 3 {
				return &Error{Kind: KindRetry, Status: 503}
			}
			return nil
		}}
		out := openTest(t, t.TempDir(), OutboxOptions{MaxBytes: minOutbox, WhenFull: DropOldest, Losses: LossOptions{Tell: true,
			Labels: telemetry.NewLabels(telemetry.Label{Name: "gateway", Value: "g"}), Source: func(m string) string { return "source-" + m }}})
		q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		for _, o := range simOutputs(400, 700) {
			if err := out.Put(o.cause, TypePoint, o.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		f, err := NewForwarder(out, sink, ForwarderOptions{Name: "cloud", Quarantine: q})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		_, stored := sink.snapshot()
		c := out.Counters()
		_, totals := out.Losses()
		n, count, records := gapPoints(stored)
		if n != 3 || uint64(records) != c.Shed[ShedFull] || uint64(count) != totals.Readings || c.Shed[ShedFull] == 0 {
			t.Errorf("%d gaps of %.0f readings in %.0f records; totals %+v, counters %+v", n, count, records, totals, c)
		}
		if c.Delivered != uint64(len(stored)-n) || c.Delivered+c.Shed[ShedFull] != c.Enqueued {
			t.Errorf("%d stored, counters %+v", len(stored), c)
		}

		// An operator gives up what is left; the gap of it is told, too.
		sink.mu.Lock()
		sink.answer = func(int, []Record) error { return &Error{Kind: KindRetry, Status: 503} }
		sink.mu.Unlock()
		last := simOutputs(420, 700)
		for _, o := range last[len(last)-60:] {
			if err := out.Put(o.cause, TypePoint, o.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		purged, err := f.Purge(ctx, last[len(last)-10].cause.Time)
		if err != nil || purged == 0 || out.Counters().Shed[ShedPurged] != purged || out.Counters().Pending == 0 {
			t.Errorf("Purge = %d, %v; %+v", purged, err, out.Counters())
		}
		sink.mu.Lock()
		sink.answer = nil
		sink.mu.Unlock()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		_, stored = sink.snapshot()
		if _, _, records := gapPoints(stored); uint64(records) != c.Shed[ShedFull]+purged {
			t.Errorf("%.0f records are told of, want %d", records, c.Shed[ShedFull]+purged)
		}
		if c := out.Counters(); c.Pending != 0 || c.Enqueued != c.Delivered+c.Shed[ShedFull]+c.Shed[ShedPurged] {
			t.Errorf("%+v", c)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestForwarder_TheCanaryIsCheckedWithoutRecordsAndAges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var checks atomic.Int64
		var fail atomic.Bool
		w := newBench(t, ForwarderOptions{Canary: NewCanary(time.Minute, func(context.Context, time.Time) (bool, error) {
			checks.Add(1)
			if fail.Load() {
				return false, errors.New("not there")
			}
			return true, nil
		})}, nil)
		w.start(t)
		time.Sleep(10*time.Minute + time.Second)
		synctest.Wait()
		s := w.f.Status().Canary
		if checks.Load() != 11 || s == nil || !s.ReadBack || time.Since(s.LastSeen) > 2*time.Second {
			t.Errorf("%d checks, %+v", checks.Load(), s)
		}
		fail.Store(true)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if s := w.f.Status().Canary; s.LastError != "not there" || time.Since(s.LastSeen) < 5*time.Minute {
			t.Errorf("%+v", s)
		}
	})
}
