package uplink

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A sink that takes records one by one says so after each: none is sent twice, none is lost, and each is acknowledged by itself.
func TestForwarder_PartialDeliveryIsAcknowledgedAndTheRestGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var taken []string
		w := newBench(t, ForwarderOptions{BatchRecords: 50, Whole: true, ParkAfter: -1}, func(call int, recs []Record) error {
			if call == 3 {
				return &Error{Kind: KindRetry, Status: 503}
			}
			taken = append(taken, string(recs[0].Body))
			if len(recs) == 1 {
				return nil
			}
			return &Error{Kind: KindPartial, Taken: 1}
		})
		w.put(t, 0, 10)
		w.start(t)
		time.Sleep(time.Minute)
		synctest.Wait()
		if want := names(0, 10); !slices.Equal(taken, want) {
			t.Errorf("taken %v, want %v", taken, want)
		}
		s := w.f.Status()
		if s.Delivered != 10 || s.Pending != 0 || s.Attempts["ok"] != 10 || s.Attempts["retry"] != 1 || s.Attempts["partial"] != 0 {
			t.Errorf("status %+v", s)
		}
	})
}

// What a sink makes of a backlog depends on all of it: a batch that failed grows with what was put meanwhile, and never shrinks.
func TestForwarder_AWholeBatchGrowsWhileTheDestinationIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var sizes []int
		w := newBench(t, ForwarderOptions{BatchRecords: 50, Whole: true, ParkAfter: -1}, func(_ int, recs []Record) error {
			sizes = append(sizes, len(recs))
			if !up.Load() {
				return errors.New("connection refused")
			}
			return nil
		})
		w.put(t, 0, 1)
		w.start(t)
		for n := 1; n < 100; n += 3 {
			time.Sleep(time.Minute)
			w.put(t, n, n+3)
		}
		up.Store(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if !slices.IsSorted(sizes[:len(sizes)-1]) || sizes[0] != 1 || slices.Max(sizes) != 50 {
			t.Errorf("requests of %v records", sizes)
		}
		if _, stored := w.sink.snapshot(); !slices.Equal(stored, names(0, 100)) {
			t.Errorf("stored %d records out of order or incomplete: %v", len(stored), stored)
		}
		if s := w.f.Status(); s.Delivered != 100 || s.Pending != 0 {
			t.Errorf("status %+v", s)
		}
	})
}
