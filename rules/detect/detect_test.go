package detect

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unsafe"

	"sluice/gateway/telemetry"
)

func TestConfig_ErrorsNameTheKey(t *testing.T) {
	for _, c := range []struct {
		c    Config
		want string
	}{
		{Config{Method: "magic"}, `method: want one of auto, ewma, seasonal, cusum, flatline, jump, got "magic"`},
		{Config{Sensitivity: -1}, "sensitivity: want standard deviations from 1 to 100, such as 4, got -1"},
		{Config{Sensitivity: 0.5}, "sensitivity:"},
		{Config{Sensitivity: math.NaN()}, "sensitivity:"},
		{Config{Sensitivity: math.Inf(1)}, "sensitivity:"},
		{Config{Warmup: -1}, "warmup:"},
		{Config{Cooldown: -1}, "cooldown:"},
	} {
		d, err := New(c.c)
		if d != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("New(%+v) = %v, %v; want nil and %q", c.c, d, err, c.want)
		}
	}
	for _, m := range append(Methods(), "") {
		if _, err := New(Config{Method: m, Sensitivity: 1, Warmup: time.Hour}); err != nil {
			t.Errorf("New with method %q: %v", m, err)
		}
	}
}

func TestNew_DefaultIsAuto(t *testing.T) {
	a, b := build(Config{}), build(Config{Method: Auto, Sensitivity: DefaultSensitivity})
	if x, y := begins(a, gaussian, 1, 5000, minute), begins(b, gaussian, 1, 5000, minute); len(x) != len(y) {
		t.Errorf("alarms of the zero Config at %v, of auto at %v", x, y)
	}
	if x, y := a.Snapshot(nil), b.Snapshot(nil); !bytes.Equal(x, y) {
		t.Error("the zero Config and auto have different states")
	}
}

func TestDetectors_StateIsAtMost1KB(t *testing.T) {
	sizes := map[string]uintptr{
		Auto: unsafe.Sizeof(auto{}), EWMA: unsafe.Sizeof(ewma{}), Seasonal: unsafe.Sizeof(seasonal{}),
		CUSUM: unsafe.Sizeof(cusum{}), Flatline: unsafe.Sizeof(flatline{}), Jump: unsafe.Sizeof(jump{}),
	}
	for _, method := range Methods() {
		d := build(Config{Method: method})
		begins(d, daily, 1, 5000, minute)
		memory, disk := unsafe.Sizeof(series{})+sizes[method], len(d.Snapshot(nil))
		t.Logf("%-9s %d bytes in memory, %d in a snapshot", method, memory, disk)
		if sizes[method] == 0 || memory > 1024 || disk > 1024 {
			t.Errorf("%s: %d bytes in memory, %d in a snapshot, want at most 1024", method, memory, disk)
		}
	}
}

func TestDetectors_ObserveAllocatesNothing(t *testing.T) {
	for _, method := range Methods() {
		d, r, i := build(Config{Method: method}), noise(1), 0
		if n := testing.AllocsPerRun(3000, func() {
			d.Observe(epoch+int64(i)*minute, gaussian(i, r))
			i++
		}); n != 0 {
			t.Errorf("%s: %v allocations a point", method, n)
		}
	}
}

func TestDetectors_RestoredAnywhereGoOnTheSame(t *testing.T) {
	for _, method := range Methods() {
		c := Config{Method: method, Sensitivity: 2, Cooldown: time.Hour} // often in alarm, so that alarms are cut through
		whole, cut := build(c), build(c)
		r, s, alarms := noise(7), from(3000, daily, func(_ int, v float64, _ *rand.Rand) float64 { return math.Round(v) }), 0
		for i := range 6000 {
			at, v := epoch+int64(i)*minute, s(i, r)
			if i%977 == 0 {
				at += 50 * hour // goes back after it
			}
			score, alarm := whole.Observe(at, v)
			score2, alarm2 := cut.Observe(at, v)
			if score != score2 || alarm != alarm2 {
				t.Fatalf("%s, point %d: %v %v, restored %v %v", method, i, score, alarm, score2, alarm2)
			}
			if alarm {
				alarms++
			}
			if i%7 != 0 {
				continue
			}
			b := cut.Snapshot(nil)
			d := telemetry.NewDecoder(append(b, "rest"...))
			cut = build(c)
			if err := cut.Restore(d); err != nil {
				t.Fatalf("%s, point %d: restore: %v", method, i, err)
			}
			if string(d.Rest()) != "rest" {
				t.Fatalf("%s, point %d: restore left %q", method, i, d.Rest())
			}
			if got := cut.Snapshot(nil); !bytes.Equal(got, b) || !bytes.Equal(got, whole.Snapshot(nil)) {
				t.Fatalf("%s, point %d: snapshots differ", method, i)
			}
			if s2, a2 := cut.State(); s2 != score || a2 != alarm {
				t.Fatalf("%s, point %d: state %v %v, restored %v %v", method, i, score, alarm, s2, a2)
			}
		}
		if alarms == 0 {
			t.Errorf("%s: no alarm, so none was cut through", method)
		}
	}
}

func TestDetectors_DamagedSnapshotChangesNothing(t *testing.T) {
	for _, method := range Methods() {
		d := build(Config{Method: method})
		begins(d, gaussian, 1, 3000, minute)
		good := d.Snapshot(nil)
		for n := range good {
			if err := d.Restore(telemetry.NewDecoder(good[:n])); err == nil {
				t.Errorf("%s: restore of the first %d of %d bytes succeeded", method, n, len(good))
			}
		}
		if !bytes.Equal(d.Snapshot(nil), good) {
			t.Errorf("%s: state changed", method)
		}
	}
}

func TestDetectors_NeverLearnWhatIsNotFinite(t *testing.T) {
	for _, method := range Methods() {
		d := build(Config{Method: method})
		begins(d, gaussian, 1, 3000, minute)
		before := d.Snapshot(nil)
		for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			d.Observe(epoch+5000*minute, v)
		}
		if !bytes.Equal(d.Snapshot(nil), before) {
			t.Errorf("%s: a value that is not finite changed the state", method)
		}
	}
}

func TestDetectors_RecoverFromHugeValues(t *testing.T) {
	for _, method := range Methods() {
		d := build(Config{Method: method})
		begins(d, gaussian, 1, 1000, minute)
		for i, v := range []float64{math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1e200, 0} {
			score, _ := d.Observe(epoch+int64(1000+i)*minute, v)
			if !(score >= 0 && score <= MaxScore) {
				t.Errorf("%s: score %v for %g", method, score, v)
			}
		}
		r := noise(2)
		for i := range 200000 {
			if score, _ := d.Observe(epoch+int64(1100+i)*minute, gaussian(i, r)); !(score >= 0 && score <= MaxScore) {
				t.Fatalf("%s: score %v, %d points after a huge value", method, score, i)
			}
		}
	}
}

func TestSeries_WarmupIsEventTimeAndPoints(t *testing.T) {
	spike := func(n int) signal {
		return func(i int, r *rand.Rand) float64 {
			if i >= n {
				return 1e6
			}
			return gaussian(i, r)
		}
	}
	c := Config{Method: EWMA, Warmup: 24 * time.Hour}
	if at := begins(build(c), spike(1439), 1, 1440, minute); len(at) != 0 {
		t.Errorf("alarm at point %v, in the last minute of a warm-up of a day", at)
	}
	if at := begins(build(c), spike(1440), 1, 1441, minute); len(at) != 1 {
		t.Errorf("alarms %v, want one in the first minute after a warm-up of a day", at)
	}
	if at := begins(build(Config{Method: EWMA, Warmup: time.Second}), spike(30), 1, 31, minute); len(at) != 0 {
		t.Errorf("alarm at point %v, before there was anything to judge by", at)
	}
}

func TestSeries_CooldownHoldsUnlessStronger(t *testing.T) {
	// A spike each 50 points, of equal size but for the one at 650.
	s := func(i int, r *rand.Rand) float64 {
		switch {
		case i == 650:
			return 1000
		case i >= 500 && i%50 == 0:
			return 90
		}
		return gaussian(i, r)
	}
	at := begins(build(Config{Method: EWMA}), s, 1, 700, minute)
	if len(at) != 2 || at[0] != 500 || at[1] != 650 {
		t.Errorf("default cool-down: alarms at %v, want at 500 and, much stronger, at 650", at)
	}
	if at := begins(build(Config{Method: EWMA, Cooldown: time.Minute}), s, 1, 640, minute); len(at) != 3 {
		t.Errorf("cool-down of a minute: alarms at %v, want at 500, 550 and 600", at)
	}
}

func TestSeries_AlarmEndsWhenOrdinaryAgain(t *testing.T) {
	d := build(Config{Method: EWMA})
	begins(d, gaussian, 1, 500, minute)
	r := noise(2)
	if _, alarm := d.Observe(epoch+500*minute, 100); !alarm {
		t.Fatal("no alarm at 25 standard deviations")
	}
	for i := 1; i <= calmPoints; i++ {
		_, alarm := d.Observe(epoch+int64(500+i)*minute, 50+0.1*r.NormFloat64())
		if want := i < calmPoints; alarm != want {
			t.Errorf("%d ordinary points after the anomaly: alarm %v, want %v", i, alarm, want)
		}
	}
}

func TestDetectors_WhatSpansAGapIsNoAnomaly(t *testing.T) {
	for _, c := range []struct {
		method string
		pause  int64
		want   bool
	}{{Jump, minute, true}, {Jump, 24 * hour, false}, {Flatline, minute, true}, {Flatline, 24 * hour, false}} {
		d := build(Config{Method: c.method})
		r, now, alarm := noise(3), epoch, false
		for i := range 2000 {
			now += minute
			d.Observe(now, gaussian(i, r))
		}
		if c.method == Jump {
			_, alarm = d.Observe(now+c.pause, 90)
		} else {
			for i := range 8 { // four equal values, a pause, and four more
				now += minute
				if i == 4 {
					now += c.pause - minute
				}
				_, alarm = d.Observe(now, 51.3)
			}
		}
		if alarm != c.want {
			t.Errorf("%s after a pause of %v: alarm %v, want %v", c.method, time.Duration(c.pause), alarm, c.want)
		}
	}
}

// A value in single precision that takes two paths here comes with different wrong digits.
func TestDetectors_DigitsOfSinglePrecisionAreNoSteps(t *testing.T) {
	for _, method := range Methods() {
		d, alarms := build(Config{Method: method}), 0
		for i := range 5000 {
			v := 21.1
			if i%3 == 1 {
				v = float64(float32(v))
			}
			if i > 4000 && i%500 < 2 {
				v += 0.000004
			}
			if _, alarm := d.Observe(epoch+int64(i)*5*minute, v); alarm {
				alarms++
			}
		}
		if alarms > 0 {
			t.Errorf("%s: %d points in alarm on a value that is constant but for its last digits", method, alarms)
		}
	}
}

func TestTail_KeepsItsPaceHoweverManyPointsItSaw(t *testing.T) {
	var c tail
	r := noise(5)
	for i := range 200000 {
		before := c.higher
		c.score(r.NormFloat64())
		if step := math.Abs(c.higher - before); i > 1000 && step > 0.01 {
			t.Fatalf("point %d moved the quantile by %v", i, step)
		}
	}
	if c.high < normalHigh-0.1 || c.high > normalHigh+0.1 || c.higher < normalHigher-0.1 || c.higher > normalHigher+0.1 {
		t.Errorf("quantiles of normal noise at %v and %v, want %v and %v", c.high, c.higher, normalHigh, normalHigher)
	}
}

func TestSeasonal_HoursAreTheEpochs(t *testing.T) {
	for _, c := range []struct {
		t    int64
		want uint8
	}{
		{0, 0}, {hour - 1, 0}, {hour, 1}, {24*hour - 1, 23}, {24 * hour, 0}, {-1, 23}, {-hour, 23}, {-hour - 1, 22}, {-24 * hour, 0},
		{math.MaxInt64, 23}, {math.MinInt64, 0},
	} {
		if got := hourOfDay(c.t); got != c.want {
			t.Errorf("hourOfDay(%d) = %d, want %d", c.t, got, c.want)
		}
	}
}

func TestSeasonal_SurvivesIrregularSampling(t *testing.T) {
	d, r, alarms, before := build(Config{Method: Seasonal}), noise(4), 0, false
	now := epoch
	for range 20000 {
		now += int64(r.ExpFloat64() * float64(3*minute))
		if r.IntN(2000) == 0 {
			now += int64(r.IntN(72)) * hour
		}
		_, alarm := d.Observe(now, daily(int((now-epoch)/minute), r))
		if alarm && !before {
			alarms++
		}
		before = alarm
	}
	if alarms > 8 {
		t.Errorf("%d alarms in 20,000 ordinary points at irregular times", alarms)
	}
}

func FuzzDetector_ScoresStayInRange(f *testing.F) {
	f.Add(byte(0), []byte("0123456789abcdef0123456789abcdef"))
	f.Add(byte(5), bytes.Repeat([]byte{0xff, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 1}, 80))
	f.Add(byte(2), bytes.Repeat([]byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 60}, 200))
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		d := build(Config{Method: Methods()[int(which)%len(methods)]})
		now := epoch
		for range min(200, 20000/(len(b)/9+1)) { // values that repeat, so that warm-ups end
			in := telemetry.NewDecoder(b)
			for len(in.Rest()) >= 9 {
				v := in.Float()
				now += int64(int8(in.Byte())) * minute
				if score, _ := d.Observe(now, v); !(score >= 0 && score <= MaxScore) {
					t.Fatalf("%s: score %v for %g", d.method.name, score, v)
				}
			}
		}
		again := build(Config{Method: d.method.name})
		if err := again.Restore(telemetry.NewDecoder(d.Snapshot(nil))); err != nil {
			t.Fatalf("%s: restore of its own snapshot: %v", d.method.name, err)
		}
	})
}

func FuzzDetector_Restore(f *testing.F) {
	for i, method := range Methods() {
		d := build(Config{Method: method})
		f.Add(byte(i), d.Snapshot(nil))
		begins(d, gaussian, 1, 500, minute)
		f.Add(byte(i), d.Snapshot(nil))
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		d := build(Config{Method: Methods()[int(which)%len(methods)]})
		if d.Restore(telemetry.NewDecoder(b)) != nil {
			return
		}
		r := noise(1)
		for i := range 300 {
			if score, _ := d.Observe(d.last+minute, gaussian(i, r)); !(score >= 0 && score <= MaxScore) {
				t.Fatalf("%s: score %v after a restore", d.method.name, score)
			}
		}
		if err := build(Config{Method: d.method.name}).Restore(telemetry.NewDecoder(d.Snapshot(nil))); err != nil {
			t.Fatalf("%s: restore of its own snapshot: %v", d.method.name, err)
		}
	})
}

func BenchmarkObserve(b *testing.B) {
	values := make([]float64, 4096)
	r := noise(1)
	for i := range values {
		values[i] = daily(i, r)
	}
	for _, method := range Methods() {
		b.Run(method, func(b *testing.B) {
			d, now := build(Config{Method: method}), epoch
			b.ReportAllocs()
			for i := range b.N {
				now += minute
				d.Observe(now, values[i&4095])
			}
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, method := range Methods() {
		b.Run(method, func(b *testing.B) {
			d := build(Config{Method: method})
			begins(d, daily, 1, 5000, minute)
			buf := d.Snapshot(nil)
			b.ReportAllocs()
			for range b.N {
				buf = d.Snapshot(buf[:0])
			}
		})
	}
}
