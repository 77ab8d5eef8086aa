package uplink

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// scriptSink answers each delivery from a function and remembers what it accepted, in order.
type scriptSink struct {
	mu     sync.Mutex
	answer func(call int, recs []Record) error
	calls  []call
	stored []string // bodies, in the order of acceptance
}

type call struct {
	at  time.Time
	n   int
	err error
}

func (s *scriptSink) Deliver(ctx context.Context, recs []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if s.answer != nil {
		err = s.answer(len(s.calls), recs)
	}
	s.calls = append(s.calls, call{time.Now(), len(recs), err})
	if err == nil {
		for _, r := range recs {
			s.stored = append(s.stored, string(r.Body))
		}
	}
	return err
}

func (s *scriptSink) snapshot() (calls []call, stored []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]call(nil), s.calls...), append([]string(nil), s.stored...)
}

// bench is a forwarder between an outbox and a scripted sink. It must be made inside the bubble.
type testBench struct {
	out  *Outbox
	q    *Quarantine
	sink *scriptSink
	f    *Forwarder
	stop func() error
}

func newBench(t *testing.T, o ForwarderOptions, answer func(call int, recs []Record) error) *testBench {
	t.Helper()
	w := &testBench{sink: &scriptSink{answer: answer}}
	w.out = openTest(t, t.TempDir(), OutboxOptions{})
	q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	w.q = q
	o.Name, o.Quarantine = "cloud", q
	if o.Rand == nil {
		o.Rand = func() float64 { return 0 } // the shortest waits
	}
	if w.f, err = NewForwarder(w.out, w.sink, o); err != nil {
		t.Fatal(err)
	}
	return w
}

// start runs the forwarder until the test ends.
func (w *testBench) start(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.f.Run(ctx) }()
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

// put queues records with the present as their time.
func (w *testBench) put(t *testing.T, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := w.out.Put(Cause{LSN: uint64(n + 1), Time: time.Now().UnixNano()}, TypePoint, fmt.Appendf(nil, "r%d", n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.out.Flush(); err != nil {
		t.Fatal(err)
	}
}

func (w *testBench) quarantined(t *testing.T) (bodies []string, items []Item) {
	t.Helper()
	err := w.q.Each(1, func(it Item) bool {
		bodies, items = append(bodies, string(it.Payload)), append(items, it)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return bodies, items
}

// names are the bodies of records from..to-1 but for those left out.
func names(from, to int, without ...int) (out []string) {
next:
	for n := from; n < to; n++ {
		for _, w := range without {
			if w == n {
				continue next
			}
		}
		out = append(out, fmt.Sprintf("r%d", n))
	}
	return out
}

func same(a, b []string) bool { return strings.Join(a, " ") == strings.Join(b, " ") }

// holds tells whether one of bodies is among recs.
func holds(recs []Record, bodies ...string) bool {
	for _, r := range recs {
		for _, b := range bodies {
			if string(r.Body) == b {
				return true
			}
		}
	}
	return false
}

func TestForwarder_DeliversInOrderAndWakesUpOnFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{BatchRecords: 4}, nil)
		w.put(t, 0, 10)
		w.start(t)
		synctest.Wait()
		before := time.Now()
		w.put(t, 10, 12)
		synctest.Wait()
		if !time.Now().Equal(before) {
			t.Error("the second batch waited for a timer")
		}
		calls, stored := w.sink.snapshot()
		if !same(stored, names(0, 12)) || len(calls) != 4 {
			t.Errorf("stored %v in %d requests", stored, len(calls))
		}
		s := w.f.Status()
		if s.State != Idle || s.Delivered != 12 || s.Pending != 0 || s.Attempts["ok"] != 4 || s.OldestTime != 0 || s.EndToEnd.Count != 12 || s.LastError != "" {
			t.Errorf("Status() = %+v", s)
		}
	})
}

func TestForwarder_BackOffDoublesUpToItsBoundAndStartsAgainAfterSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{BatchRecords: 1, MinBackoff: time.Second, MaxBackoff: 10 * time.Second, Rand: func() float64 { return 1 }},
			func(call int, _ []Record) error {
				if call < 6 || call == 7 {
					return &Error{Kind: KindRetry, Status: 503}
				}
				return nil
			})
		w.put(t, 0, 2)
		w.start(t)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		calls, stored := w.sink.snapshot()
		var waits []time.Duration
		for i := 1; i < len(calls); i++ {
			waits = append(waits, calls[i].at.Sub(calls[i-1].at))
		}
		want := []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9, 0, 1e9}
		if fmt.Sprint(waits) != fmt.Sprint(want) {
			t.Errorf("waits %v, want %v", waits, want)
		}
		if !same(stored, names(0, 2)) {
			t.Errorf("stored %v", stored)
		}
	})
}

func TestForwarder_BackOffIsJitteredFromHalfToTheWhole(t *testing.T) {
	for _, share := range []float64{0, 0.5, 1} {
		f := &Forwarder{o: ForwarderOptions{MinBackoff: time.Second, MaxBackoff: time.Minute, Rand: func() float64 { return share }}, failures: 3}
		if got, want := f.backoff(&Error{}), 2*time.Second+time.Duration(share*2e9); got != want {
			t.Errorf("third wait with share %v: %v, want %v", share, got, want)
		}
	}
}

func TestForwarder_HonoursRetryAfterUpToTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := []time.Duration{90 * time.Second, 3 * time.Hour}
		w := newBench(t, ForwarderOptions{}, func(call int, _ []Record) error {
			if call < len(asked) {
				return &Error{Kind: KindRetry, Status: 429, RetryAfter: asked[call]}
			}
			return nil
		})
		w.put(t, 0, 1)
		w.start(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		calls, _ := w.sink.snapshot()
		if len(calls) != 3 || calls[1].at.Sub(calls[0].at) != 90*time.Second || calls[2].at.Sub(calls[1].at) != 10*time.Minute {
			t.Errorf("calls %+v", calls)
		}
	})
}

func TestForwarder_BisectsARefusedBatchDownToTheBadRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := []string{"r3", "r700", "r701"}
		w := newBench(t, ForwarderOptions{Describe: func(r Record) string { return "line of " + string(r.Body) }}, func(_ int, recs []Record) error {
			if holds(recs, bad...) {
				return &Error{Kind: KindRejected, Status: 422, Detail: "unprocessable entity: field type conflict"}
			}
			return nil
		})
		w.put(t, 0, 1000)
		start := time.Now()
		w.start(t)
		synctest.Wait()
		if took := time.Since(start); took != 0 {
			t.Errorf("waited %v; a refusal is no reason to wait", took)
		}
		calls, stored := w.sink.snapshot()
		if !same(stored, names(0, 1000, 3, 700, 701)) {
			t.Errorf("stored %d records", len(stored))
		}
		if len(calls) > 2*3*10+1 { // 2 k log2 n
			t.Errorf("%d requests", len(calls))
		}
		got, items := w.quarantined(t)
		if !same(got, bad) {
			t.Fatalf("quarantined %v, want %v", got, bad)
		}
		it := items[1]
		if it.Stage != StageSink || it.Reason != "rejected" || it.Detail != "unprocessable entity: field type conflict" || it.Source != "cloud" ||
			it.Points != "line of r700" || it.Cause.LSN != 701 || it.Type != TypePoint || it.Count != 1 {
			t.Errorf("item %+v", it)
		}
		if c := w.out.Counters(); c.Delivered != 997 || c.Rejected != 3 || c.Pending != 0 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_EverythingRefusedEndsWithinTheSearchBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{SearchRequests: 50}, func(int, []Record) error { return &Error{Kind: KindRejected, Status: 400, Detail: "no"} })
		w.put(t, 0, 1000)
		w.start(t)
		synctest.Wait()
		calls, _ := w.sink.snapshot()
		got, _ := w.quarantined(t)
		if len(calls) > 100 || !same(got, names(0, 1000)) {
			t.Errorf("%d requests, %d records quarantined", len(calls), len(got))
		}
		if c := w.out.Counters(); c.Rejected != 1000 || c.Pending != 0 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_RecordsNamedByTheSinkAreQuarantinedWithoutASearch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{}, func(_ int, recs []Record) error {
			var refused []Refused
			for i, r := range recs {
				if bytes.HasSuffix(r.Body, []byte("5")) {
					refused = append(refused, Refused{Index: i, Reason: "tag", Detail: "why " + string(r.Body)})
				}
			}
			if refused != nil {
				return &Error{Kind: KindRejected, Refused: refused}
			}
			return nil
		})
		w.put(t, 0, 30)
		w.start(t)
		synctest.Wait()
		calls, stored := w.sink.snapshot()
		got, items := w.quarantined(t)
		if len(calls) != 2 || !same(got, []string{"r5", "r15", "r25"}) || !same(stored, names(0, 30, 5, 15, 25)) {
			t.Errorf("%d requests, quarantined %v, stored %v", len(calls), got, stored)
		}
		if items[0].Reason != "tag" || items[0].Detail != "why r5" {
			t.Errorf("item %+v", items[0])
		}
	})
}

func TestForwarder_TooLargeHalvesAndQuarantinesTheOneThatNeverFits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{}, func(_ int, recs []Record) error {
			if len(recs) > 8 || holds(recs, "r20") {
				return &Error{Kind: KindTooLarge, Status: 413, Detail: "request too large"}
			}
			return nil
		})
		w.put(t, 0, 64)
		w.start(t)
		synctest.Wait()
		_, stored := w.sink.snapshot()
		got, items := w.quarantined(t)
		if !same(stored, names(0, 64, 20)) || !same(got, []string{"r20"}) || items[0].Reason != "too_large" {
			t.Errorf("stored %v, quarantined %v", stored, got)
		}
		// The limit that was learnt grows back: a single giant must not make every later request small for ever.
		w.put(t, 64, 3000)
		synctest.Wait()
		if w.f.limit < 4 {
			t.Errorf("limit stays at %d", w.f.limit)
		}
	})
}

func TestForwarder_ConfigErrorsKeepEverythingAndAreTriedEveryHalfMinuteOrSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{Rand: func() float64 { return 0.99 }}, func(call int, _ []Record) error {
			if call < 100 {
				return &Error{Kind: KindConfig, Status: 401, Detail: "unauthorized: unauthorized access"}
			}
			return nil
		})
		w.put(t, 0, 10)
		w.start(t)
		time.Sleep(30 * time.Minute)
		synctest.Wait()
		calls, stored := w.sink.snapshot()
		if len(stored) != 0 || len(calls) < 28 || len(calls) > 61 {
			t.Errorf("%d requests in 30 minutes, stored %v", len(calls), stored)
		}
		s := w.f.Status()
		if s.State != ConfigError || s.Pending != 10 || !strings.Contains(s.LastError, "unauthorized") || s.NextAttempt.IsZero() {
			t.Errorf("Status() = %+v", s)
		}
		w.f.sink.(*scriptSink).mu.Lock()
		w.sink.answer = nil
		w.f.sink.(*scriptSink).mu.Unlock()
		w.f.Retry()
		synctest.Wait()
		if _, stored := w.sink.snapshot(); !same(stored, names(0, 10)) {
			t.Errorf("after Retry stored %v", stored)
		}
		if s := w.f.Status(); s.State != Idle || s.LastError != "" {
			t.Errorf("after Retry Status() = %+v", s)
		}
	})
}

func TestForwarder_GoneDisablesUntilRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{BatchRecords: 1}, func(call int, _ []Record) error {
			if call == 0 {
				return &Error{Kind: KindGone, Status: 410}
			}
			return nil
		})
		w.put(t, 0, 2)
		w.start(t)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if calls, _ := w.sink.snapshot(); len(calls) != 1 || w.f.Status().State != Disabled {
			t.Errorf("%d requests, state %v", len(calls), w.f.Status().State)
		}
		w.f.Retry()
		synctest.Wait()
		if _, stored := w.sink.snapshot(); !same(stored, names(0, 2)) {
			t.Errorf("after Retry stored %v", stored)
		}
	})
}

func TestForwarder_RecordsOlderThanRetryForAreShedAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))) // bubbles begin in 2000
		down := true
		w := newBench(t, ForwarderOptions{BatchRecords: 1, RetryFor: time.Hour, MaxBackoff: time.Minute}, nil)
		w.sink.answer = func(int, []Record) error {
			if down {
				return &Error{Kind: KindRetry, Status: 503}
			}
			return nil
		}
		w.put(t, 0, 2)
		w.start(t)
		time.Sleep(50 * time.Minute)
		w.put(t, 2, 3)
		time.Sleep(15 * time.Minute)
		synctest.Wait()
		w.sink.mu.Lock()
		down = false
		w.sink.mu.Unlock()
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if _, stored := w.sink.snapshot(); !same(stored, names(2, 3)) {
			t.Errorf("stored %v, want r2 alone", stored)
		}
		if c := w.out.Counters(); c.Shed[ShedExpired] != 2 || c.Delivered != 1 || c.Pending != 0 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_RetryForSaysNothingAboutTimesBeforeTheClockWasSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // the bubble's clock says 2000
		calls := 0
		w := newBench(t, ForwarderOptions{BatchRecords: 1, RetryFor: time.Hour}, func(int, []Record) error {
			if calls++; calls == 1 {
				return &Error{Kind: KindRetry}
			}
			return nil
		})
		w.put(t, 0, 1)
		time.Sleep(time.Until(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))) // the step
		w.start(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := w.out.Counters(); c.Delivered != 1 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_AnUnhealing500ParksTheOneRecordThatCausesIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{}, func(_ int, recs []Record) error {
			if holds(recs, "r77") {
				return &Error{Kind: KindRetry, Status: 500, Detail: "internal error: An internal error has occurred"}
			}
			return nil
		})
		w.put(t, 0, 200)
		w.start(t)
		time.Sleep(6 * time.Hour)
		synctest.Wait()
		_, stored := w.sink.snapshot()
		got, items := w.quarantined(t)
		if !same(got, []string{"r77"}) || items[0].Reason != "server_error" {
			t.Fatalf("quarantined %v", got)
		}
		seen := make(map[string]bool)
		for _, s := range stored {
			seen[s] = true
		}
		for _, n := range names(0, 200, 77) {
			if !seen[n] {
				t.Errorf("%s is missing", n)
			}
		}
		// Proofs are sent twice; without the repeats the order is kept.
		last := make(map[string]int)
		for i, s := range stored {
			last[s] = i
		}
		at := -1
		for _, n := range names(0, 200, 77) {
			if last[n] < at {
				t.Errorf("%s was overtaken for good", n)
			}
			at = last[n]
		}
		if c := w.out.Counters(); c.Delivered != 199 || c.Rejected != 1 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_A500ForEverybodyKeepsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := true
		w := newBench(t, ForwarderOptions{}, nil)
		w.sink.answer = func(int, []Record) error {
			if down {
				return &Error{Kind: KindRetry, Status: 500, Detail: "cache-max-memory-size exceeded"}
			}
			return nil
		}
		w.put(t, 0, 100)
		w.start(t)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got, _ := w.quarantined(t); len(got) != 0 {
			t.Fatalf("quarantined %v", got)
		}
		w.sink.mu.Lock()
		down = false
		w.sink.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		if c := w.out.Counters(); c.Delivered != 100 || c.Pending != 0 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func TestForwarder_ASingle500WithNothingBehindItIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{}, func(_ int, recs []Record) error {
			if holds(recs, "r0") {
				return &Error{Kind: KindRetry, Status: 500, Detail: "x"}
			}
			return nil
		})
		w.put(t, 0, 1)
		w.start(t)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if got, _ := w.quarantined(t); len(got) != 0 {
			t.Fatalf("quarantined %v", got)
		}
		w.put(t, 1, 3) // now something waits behind it, and proves that the destination works
		time.Sleep(time.Hour)
		synctest.Wait()
		got, _ := w.quarantined(t)
		if c := w.out.Counters(); !same(got, []string{"r0"}) || c.Delivered != 2 || c.Pending != 0 {
			t.Errorf("quarantined %v, Counters() = %+v", got, c)
		}
	})
}

func TestForwarder_TimeoutsMakeRequestsSmallerAndSuccessLarger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{BatchRecords: 1024}, func(_ int, recs []Record) error {
			if len(recs) > 100 { // a link too slow for more
				return TransportError(context.DeadlineExceeded)
			}
			return nil
		})
		w.put(t, 0, 1024)
		w.start(t)
		time.Sleep(time.Hour)
		synctest.Wait()
		_, stored := w.sink.snapshot()
		if !same(stored, names(0, 1024)) {
			t.Errorf("stored %d of 1024", len(stored))
		}
	})
}

func TestForwarder_LingerGathersABatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{Linger: time.Second, BatchRecords: 100}, nil)
		w.start(t)
		for n := range 5 {
			w.put(t, n, n+1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if calls, _ := w.sink.snapshot(); len(calls) != 1 || calls[0].n != 5 {
			t.Errorf("calls %+v", calls)
		}
		w.put(t, 5, 305) // full batches do not wait
		synctest.Wait()
		if calls, _ := w.sink.snapshot(); len(calls) != 4 {
			t.Errorf("%d calls", len(calls))
		}
	})
}

func TestForwarder_ADeliveryCutOffIsRepeatedAfterARestart(t *testing.T) {
	dir, qdir := t.TempDir(), t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		q, err := OpenQuarantine(qdir, QuarantineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		out := openTest(t, dir, OutboxOptions{})
		putN(t, out, 0, 3)
		ctx, cancel := context.WithCancel(context.Background())
		hang := hangSink{entered: make(chan struct{})}
		f, err := NewForwarder(out, hang, ForwarderOptions{Name: "cloud", Quarantine: q})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- f.Run(ctx) }()
		<-hang.entered
		cancel()
		if err := <-done; err != nil {
			t.Fatalf("Run: %v", err)
		}
		if c := out.Counters(); c.Delivered != 0 || c.Pending != 3 {
			t.Fatalf("Counters() = %+v", c)
		}
		sink := &scriptSink{}
		if f, err = NewForwarder(out, sink, ForwarderOptions{Name: "cloud", Quarantine: q}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel = context.WithCancel(context.Background())
		go func() { done <- f.Run(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil || out.Counters().Delivered != 3 {
			t.Errorf("Run: %v, %+v", err, out.Counters())
		}
	})
}

type hangSink struct{ entered chan struct{} }

func (s hangSink) Deliver(ctx context.Context, _ []Record) error {
	close(s.entered)
	<-ctx.Done()
	return ctx.Err()
}

func TestForwarder_NeedsAQuarantine(t *testing.T) {
	if _, err := NewForwarder(nil, nil, ForwarderOptions{}); err == nil {
		t.Error("NewForwarder without a quarantine succeeded")
	}
}

func TestForwarder_ErrorsOfOtherTypesAreRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newBench(t, ForwarderOptions{}, func(call int, _ []Record) error {
			if call == 0 {
				return errors.New("odd")
			}
			return nil
		})
		w.put(t, 0, 1)
		w.start(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		if c := w.out.Counters(); c.Delivered != 1 {
			t.Errorf("Counters() = %+v", c)
		}
	})
}

func BenchmarkForwarder_DrainToANullSink(b *testing.B) {
	q, err := OpenQuarantine(b.TempDir(), QuarantineOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	out := openTest(b, b.TempDir(), OutboxOptions{CursorEvery: time.Second})
	body := make([]byte, 300)
	for n := range b.N {
		if err := out.Put(Cause{LSN: uint64(n + 1)}, TypePoint, body); err != nil {
			b.Fatal(err)
		}
	}
	if err := out.Sync(); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	left := b.N
	f, err := NewForwarder(out, countSink(func(n int) {
		if left -= n; left == 0 {
			cancel()
		}
	}), ForwarderOptions{Name: "null", Quarantine: q})
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	b.ResetTimer()
	if err := f.Run(ctx); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

type countSink func(n int)

func (f countSink) Deliver(_ context.Context, recs []Record) error { f(len(recs)); return nil }
