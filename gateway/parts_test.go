package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog"
)

func TestClock_FollowsDriftAndReportsJumps(t *testing.T) {
	wall := time.Unix(1_800_000_000, 0)
	c := newClock(func() time.Time { return wall })
	wall = wall.Add(10*time.Second + 300*time.Millisecond)
	if got := c.now(); got != wall.UnixNano() {
		t.Errorf("now() = %d, want %d", got, wall.UnixNano())
	}
	// A wall clock without a monotonic part is one that was set: offset models what settle would see.
	c.offset.Add(int64(-400 * time.Millisecond))
	if step, _ := c.settle(); step != 0 || c.now() != wall.UnixNano() {
		t.Errorf("drift of 400 ms: step %v, off by %d", step, c.now()-wall.UnixNano())
	}
	c.offset.Add(int64(time.Hour))
	if step, _ := c.settle(); step != -time.Hour {
		t.Errorf("step %v, want -1h", step)
	}
	if c.now() == wall.UnixNano() {
		t.Error("the jump was followed before it was journalled")
	}
	c.take(-time.Hour)
	if c.now() != wall.UnixNano() {
		t.Errorf("after the step off by %d", c.now()-wall.UnixNano())
	}
}

func TestRateMeter_IsTheRateOfTheLastTenSeconds(t *testing.T) {
	var r rateMeter
	sec := int64(time.Second)
	if got := r.per(0, 0); got != 0 {
		t.Errorf("first sample: %g", got)
	}
	var got float64
	for s := int64(1); s <= 60; s++ {
		n := 100 * s
		if s > 30 {
			n = 3000
		}
		got = r.per(s*sec, n)
		if s == 30 && (got < 99 || got > 101) {
			t.Errorf("at 30 s: %g, want 100", got)
		}
	}
	if got != 0 {
		t.Errorf("30 s after the last message: %g, want 0", got)
	}
}

func TestJournaldHandler_PrefixesTheLevelAndLeavesTheTimeOut(t *testing.T) {
	var b strings.Builder
	log := slog.New(&journaldHandler{w: &b}).With("a", 1)
	log.Error("broken", "b", 2)
	log.Warn("odd")
	log.WithGroup("g").Info("fine", "c", 3)
	log.Debug("unseen")
	want := "<3>msg=broken a=1 b=2\n<4>msg=odd a=1\n<6>msg=fine a=1 g.c=3\n"
	if b.String() != want {
		t.Errorf("got %q, want %q", b.String(), want)
	}
}

func TestDataDir_SecondProcessIsRefusedAndMetaOutlivesIt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	d, err := openDataDir(dir, "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDataDir(dir, "a"); !errors.Is(err, seglog.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	instance := d.meta.Instance
	d.Close()
	d, err = openDataDir(dir, "b")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if d.meta.Instance != instance || d.meta.Gateway != "b" {
		t.Errorf("meta %+v, want instance %s and gateway b", d.meta, instance)
	}
}

func TestDataDir_NewerFormatIsRefusedUntouched(t *testing.T) {
	dir := t.TempDir()
	text := `{"format": 99, "instance": "x", "gateway": "a"}`
	if err := os.WriteFile(filepath.Join(dir, "META"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := openDataDir(dir, "a"); err == nil || !strings.Contains(err.Error(), "newer") {
		t.Errorf("openDataDir = %v, %v", d, err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "META")); string(b) != text {
		t.Errorf("META was changed to %s", b)
	}
}

func TestReserve_IsGivenUpOnceAndTakenBack(t *testing.T) {
	dir := t.TempDir()
	r := newReserve(dir, slog.New(slog.DiscardHandler))
	r.keep()
	st, err := os.Stat(r.path)
	if err != nil || st.Size() != r.bytes || r.bytes == 0 {
		t.Fatalf("reserve: %v, %d bytes", err, r.bytes)
	}
	r.release()
	if _, err := os.Stat(r.path); !errors.Is(err, os.ErrNotExist) || r.held {
		t.Errorf("after release: %v", err)
	}
	r.keep()
	if !newReserve(dir, r.log).held {
		t.Error("the reserve of an earlier run is not recognised")
	}
}
