package rollup

import (
	"fmt"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/gateway/telemetry"
)

const sec = int64(time.Second)

func testConfig() Config {
	return Config{Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: 30 * time.Second}
}

// emissions collects "device@start: count sum" in order.
type emissions []string

func (e *emissions) emit(d *Device, start int64, aggs []telemetry.Aggregate) {
	*e = append(*e, fmt.Sprintf("%d@%d: %d %g", d.ID, start/sec, aggs[0].Count, aggs[0].Total()))
}

func (e *emissions) take() string {
	s := fmt.Sprint([]string(*e))
	*e = nil
	return s
}

func TestRollup_WindowLeavesAtTheFirstTickPastEndAndGrace(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, 3*sec, 1)
	r.Add(d, 0, 9*sec, 2)
	r.Add(d, 0, 10*sec, 4)
	if due := r.Due(); due != 12*sec {
		t.Errorf("due at %d s, want 12", due/sec)
	}
	r.Tick(12*sec-1, got.emit)
	if s := got.take(); s != "[]" {
		t.Errorf("before grace ended: %s", s)
	}
	r.Tick(12*sec, got.emit)
	if s := got.take(); s != "[1@0: 2 3]" {
		t.Errorf("at the end of grace: %s", s)
	}
	r.Tick(22*sec, got.emit)
	if s := got.take(); s != "[1@10: 1 4]" {
		t.Errorf("second window: %s", s)
	}
	if r.Due() != math.MaxInt64 {
		t.Errorf("nothing changed, yet due at %d", r.Due())
	}
}

func TestRollup_CorrectionIsSentWholeAndNotTwiceWithinASecond(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, 3*sec, 1)
	r.Tick(12*sec, got.emit)
	got.take()
	r.Add(d, 0, 4*sec, 5)
	r.Tick(12*sec+sec/2, got.emit)
	if s := got.take(); s != "[]" {
		t.Errorf("half a second after the first emission: %s", s)
	}
	r.Tick(13*sec, got.emit)
	if s := got.take(); s != "[1@0: 2 6]" {
		t.Errorf("correction: %s", s)
	}
}

func TestRollup_LateIsOlderThanWindowGraceAndLateness(t *testing.T) {
	r := New(testConfig())
	if r.Late(0, 42*sec) {
		t.Error("exactly at the bound counts as late")
	}
	if !r.Late(0, 42*sec+1) {
		t.Error("past the bound does not count as late")
	}
}

func TestRollup_ForgetsWindowsThatNothingCanCorrect(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, 3*sec, 1)
	r.Tick(51*sec, got.emit)
	if r.Held() != 1 {
		t.Errorf("window of [0,10) forgotten at 51 s, while a reading of 9.9 s is not late")
	}
	r.Tick(53*sec, got.emit)
	if r.Held() != 0 || !d.Idle() {
		t.Errorf("%d windows held at 53 s", r.Held())
	}
}

func TestRollup_WindowsBeforeTheEpochAreAlignedToo(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, -1, 1)
	r.Tick(2*sec, got.emit)
	if s := got.take(); s != "[1@-10: 1 1]" {
		t.Errorf("got %s", s)
	}
}

// Whatever the order of arrival, the last emission of each window is the sum of the readings that were not late, and a
// snapshot taken anywhere changes nothing.
func TestRollup_AgreesWithTheOracleAndSurvivesSnapshots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type key struct {
			dev   uint32
			start int64
		}
		want, got := map[key]float64{}, map[key]float64{}
		emit := func(d *Device, start int64, aggs []telemetry.Aggregate) {
			for i := range aggs {
				if i == 0 {
					got[key{d.ID, start}] = 0
				}
				got[key{d.ID, start}] += aggs[i].Total()
			}
		}
		r, devs, now := New(testConfig()), []*Device{{ID: 0}, {ID: 1}, {ID: 2}}, int64(100*sec)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "what") {
			case 0:
				now += rapid.Int64Range(0, 15*sec).Draw(t, "pass")
				r.Tick(now, emit)
			case 1:
				r, devs = again(t, r, len(devs))
			default:
				id := rapid.IntRange(0, 2).Draw(t, "device")
				at := now - rapid.Int64Range(-5*sec, 50*sec).Draw(t, "age")
				if r.Late(at, now) {
					continue
				}
				v := float64(rapid.IntRange(1, 100).Draw(t, "value"))
				r.Add(devs[id], rapid.IntRange(0, 1).Draw(t, "metric"), at, v)
				want[key{uint32(id), floor(at, 10*sec)}] += v
			}
		}
		r.Tick(now+1000*sec, emit)
		if fmt.Sprint(want) != fmt.Sprint(got) {
			t.Fatalf("stored %v\nwant   %v", got, want)
		}
	})
}

// again is what a restart does: the state through its binary form into fresh devices.
func again(t *rapid.T, r *Rollup, n int) (*Rollup, []*Device) {
	devs := make([]*Device, n)
	for i := range devs {
		devs[i] = &Device{ID: uint32(i)}
	}
	b := r.Snapshot(nil)
	back := New(testConfig())
	d := telemetry.NewDecoder(b)
	if err := back.Restore(d, func(id uint32) *Device { return devs[id] }); err != nil || len(d.Rest()) != 0 {
		t.Fatalf("Restore: %v, %d bytes left", err, len(d.Rest()))
	}
	if string(back.Snapshot(nil)) != string(b) {
		t.Fatalf("snapshot of the restored state differs")
	}
	return back, devs
}

func FuzzRestore(f *testing.F) {
	r, d := New(testConfig()), &Device{ID: 0}
	r.Add(d, 1, 5*sec, 2)
	f.Add(r.Snapshot(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, dev := New(testConfig()), &Device{}
		_ = r.Restore(telemetry.NewDecoder(b), func(uint32) *Device { return dev })
	})
}

func BenchmarkRollup_Add(b *testing.B) {
	r := New(testConfig())
	devs := make([]*Device, 100)
	for i := range devs {
		devs[i] = &Device{ID: uint32(i)}
	}
	drop := func(*Device, int64, []telemetry.Aggregate) {}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		t := int64(i) * sec / 5000
		r.Add(devs[i%100], 0, t, 1)
		r.Add(devs[i%100], 1, t, 2)
		r.Add(devs[i%100], 2, t, 3)
		if i%5000 == 0 {
			r.Tick(t, drop)
		}
	}
}

func TestRollup_AClosedWindowStaysClosedWhenTheClockGoesBack(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, 3*sec, 1)
	r.Tick(12*sec, got.emit)
	r.Tick(100*sec, got.emit)
	if r.Held() != 0 || !r.Late(3*sec, 20*sec) || r.Open(d, 3*sec, 20*sec) {
		t.Errorf("%d windows held; at 20 s again the first is late %v, open %v", r.Held(), r.Late(3*sec, 20*sec), r.Open(d, 3*sec, 20*sec))
	}
	if r.Late(10*sec, 20*sec) {
		t.Error("the next window is closed as well")
	}
	again := New(testConfig())
	if err := again.Restore(telemetry.NewDecoder(r.Snapshot(nil)), func(uint32) *Device { return d }); err != nil || !again.Late(3*sec, 20*sec) {
		t.Errorf("restored: late %v, %v", again.Late(3*sec, 20*sec), err)
	}
}

func TestRollup_AWindowIsOpenUntilAllOfItIsLate(t *testing.T) {
	r, d := New(testConfig()), &Device{ID: 1}
	now := 1*sec + 42*sec + 1 // a reading at 1 s is late, one at 9 s is not
	if !r.Late(1*sec, now) || r.Late(9*sec, now) || !r.Open(d, 1*sec, now) {
		t.Errorf("late %v %v, open %v", r.Late(1*sec, now), r.Late(9*sec, now), r.Open(d, 1*sec, now))
	}
	r.Add(d, 0, 5*sec, 1)
	if !r.Open(d, 1*sec, 1000*sec) || r.Open(d, 11*sec, 1000*sec) {
		t.Error("a window that is held takes readings, others do not")
	}
}

func TestRollup_FinalPutsAWindowOutOnceAndWhole(t *testing.T) {
	r, d, got := New(testConfig()), &Device{ID: 1}, emissions{}
	r.Add(d, 0, 3*sec, 1)
	r.Tick(12*sec, got.emit)
	got.take()
	c := testConfig()
	c.Final = true
	r.Configure(c)
	r.Reemit()
	r.Add(d, 0, 4*sec, 2)
	r.Tick(40*sec, got.emit)
	if s := got.take(); s != "[]" {
		t.Errorf("while it may change: %s", s)
	}
	r.Tick(60*sec, got.emit)
	if s := got.take(); s != "[1@0: 2 3]" {
		t.Errorf("at its end: %s", s)
	}
	r.Tick(70*sec, got.emit)
	if s := got.take(); s != "[]" {
		t.Errorf("again: %s", s)
	}
}
