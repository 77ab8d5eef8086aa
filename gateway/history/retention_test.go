package history

import (
	"testing"
	"time"
)

// reload makes the TSDB look at its retention, which it does once a minute by itself.
func (r *rig) reload() {
	r.Helper()
	r.h.storeMu.RLock()
	defer r.h.storeMu.RUnlock()
	if err := r.h.store.db.Compact(r.Context()); err != nil {
		r.Fatal(err)
	}
}

func TestHistory_BlocksOlderThanKeepGo(t *testing.T) {
	r := newRig(t)
	r.o.Keep = 2 * time.Hour
	r.fill(8)
	r.reload()
	r.reload()
	oldest, newest := t0/second, t0/second+8*3600
	s := r.h.Status()
	if got := s.OldestTime / second; got < newest-2*3600-3600 || got <= oldest {
		t.Errorf("the oldest reading is %d s old, want about 2 h", newest-got)
	}
	if len(r.all()) != 1 {
		t.Error("nothing is left")
	}
}

func TestHistory_TheOldestBlocksGoBeyondMaxBytes(t *testing.T) {
	r := newRig(t)
	a := device("a")
	for i := range int64(12 * 3600) {
		r.journal(a, t0+i*second, temperature(float64(i*7919%100_003)/1000))
	}
	r.start()
	r.awaitLive()
	r.await("compacted", func(s Status) bool { return s.Blocks > 0 })
	r.reload()
	r.stop()
	r.start() // a start begins a new segment of the write-ahead log, which counts
	r.awaitLive()
	before := r.h.Status()
	r.stop()
	r.o.MaxBytes = before.Bytes - 20_000
	r.start()
	r.awaitLive()
	r.reload()
	r.reload()
	after := r.h.Status()
	if after.Bytes > r.o.MaxBytes || after.Blocks == 0 || after.OldestTime <= before.OldestTime {
		t.Errorf("bound %d: before %+v, after %+v", r.o.MaxBytes, before, after)
	}
}
