package uplink

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
)

type countingSink struct{ first atomic.Int64 }

// Deliver implements Sink.
func (s *countingSink) Deliver(_ context.Context, recs []Record) error {
	s.first.CompareAndSwap(0, int64(len(recs)))
	return fmt.Errorf("away")
}

// What was tried cannot be merged any more, and after a start nobody knows whether the destination is there.
func TestForwarder_TheFirstRequestAfterAStartIsSmallWhereRecordsCanBeMerged(t *testing.T) {
	fs := simfs.New(1)
	box, err := OpenOutbox("/d/out", OutboxOptions{FS: fs, MaxBytes: 1 << 20, WhenFull: Degrade, Ladder: []time.Duration{time.Minute}, Horizon: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	defer box.Close()
	q, err := OpenQuarantine("/d/q", QuarantineOptions{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for i := range 500 {
		p := telemetry.Point{Measurement: "m", Time: int64(i) * 1e9, Fields: []telemetry.Field{{Name: "v", Value: 1}}}
		if err := box.Put(Cause{LSN: uint64(i + 1), Time: p.Time}, TypePoint, telemetry.MarshalPoint(nil, &p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := box.Flush(); err != nil {
		t.Fatal(err)
	}
	sink := &countingSink{}
	f, err := NewForwarder(box, sink, ForwarderOptions{Name: "cloud", Quarantine: q, InFlight: 4})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	for end := time.Now().Add(5 * time.Second); sink.first.Load() == 0 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if n := sink.first.Load(); n < 1 || n > 1<<20>>16+1 {
		t.Errorf("first request of %d records, want 1 to %d: one for each 64 KiB of the bound", n, 1<<20>>16+1)
	}
}
