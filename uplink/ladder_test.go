package uplink

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pointSink keeps points by their identity.
type pointSink struct {
	mu     sync.Mutex
	down   bool
	stored map[string]simPoint
}

func (s *pointSink) Deliver(_ context.Context, recs []Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return &Error{Kind: KindRetry, Detail: "away"}
	}
	for _, r := range recs {
		id, p := simDecode(r.Body)
		s.stored[id] = p
	}
	return nil
}

func (s *pointSink) set(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

func TestForwarder_MergesWhileTheDestinationIsAwayAndDrainsAfterwards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		o := OutboxOptions{MaxBytes: 512 << 10, WhenFull: Degrade, Ladder: []time.Duration{time.Minute, 5 * time.Minute}, Horizon: simHorizon,
			Readings: simPolicy, CursorEvery: time.Second}
		out := openTest(t, dir, o)
		q, err := OpenQuarantine(t.TempDir(), QuarantineOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		sink := &pointSink{stored: make(map[string]simPoint)}
		f, err := NewForwarder(out, sink, ForwarderOptions{Name: "cloud", Quarantine: q, BatchRecords: 50})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		defer func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}()

		want := make(map[string]simPoint)
		outputs := simOutputs(255, 500)
		for n, o := range outputs {
			sink.set(n >= 40)
			if err := out.Put(o.cause, TypePoint, o.body); err != nil {
				t.Fatal(err)
			}
			if err := out.Flush(); err != nil {
				t.Fatal(err)
			}
			id, p := simDecode(o.body)
			want[id] = p
			time.Sleep(3 * time.Second)
			if got := out.Bytes(); got > 512<<10 {
				t.Fatalf("%d bytes on disk, bound %d", got, 512<<10)
			}
		}
		s := f.Status()
		if s.Degraded == 0 || s.State != BackingOff || len(s.Tiers) != 3 || s.Tiers[1].Pending+s.Tiers[2].Pending == 0 {
			t.Errorf("while the destination is away: %+v", s)
		}
		if _, err := os.Stat(filepath.Join(dir, "1m-5m")); err != nil {
			t.Error(err)
		}
		sink.set(false)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		c := out.Counters()
		checkBalance(t, Counters{Enqueued: c.Enqueued - c.Degraded, Pending: c.Pending, Delivered: c.Delivered, Rejected: c.Rejected, Shed: c.Shed})
		if c.Pending != 0 || c.Enqueued != uint64(len(outputs)) || c.Shed != [numShedReasons]uint64{} {
			t.Errorf("Counters() = %+v", c)
		}
		if got, want := totals(sink.stored), totals(want); !maps.Equal(got, want) {
			t.Errorf("the destination holds\n%v, want\n%v", got, want)
		}
	})
}

func TestOutbox_TiersOfAnEarlierLadderAreDrained(t *testing.T) {
	s := newLadderSim(1, func(n, _ int) (bool, bool) { return false, false })
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	s.f.failures = 1
	for n, o := range s.outputs {
		if err := s.out.Put(o.cause, TypePoint, o.body); err != nil {
			t.Fatal(err)
		}
		if n%5 == 0 {
			if err := s.out.Flush(); err != nil {
				t.Fatal(err)
			}
			s.f.merge(context.Background())
		}
	}
	if s.out.Counters().Degraded == 0 {
		t.Fatal("nothing was merged")
	}
	s.close()
	s.o.WhenFull, s.o.Ladder = DropOldest, nil
	s.up = func(int, int) (bool, bool) { return true, true }
	s.checkpoint = len(s.outputs)
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := s.check(false); err != nil {
		t.Fatal(err)
	}
}
