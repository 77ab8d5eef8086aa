package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sluice/gateway/seglog/fsys"
	"sluice/gateway/seglog/fsys/simfs"
)

func openMeter(t *testing.T, b Bandwidth) *Meter {
	t.Helper()
	m, err := OpenMeter(fsys.OS{}, t.TempDir(), b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// discard is the far end of a metered connection.
func discard(t *testing.T, m *Meter) (net.Conn, func() int) {
	near, far := net.Pipe()
	total := 0
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 64<<10)
		for {
			k, err := far.Read(b)
			total += k
			if err != nil {
				return
			}
		}
	}()
	c := m.Conn(near)
	t.Cleanup(func() { c.Close(); far.Close() })
	return c, func() int { c.Close(); <-done; return total }
}

func TestMeter_HoldsTheRateInAnySecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMeter(t, Bandwidth{BytesPerSecond: 10_000})
		c, end := discard(t, m)
		start := time.Now()
		for range 20 {
			if _, err := c.Write(make([]byte, 5_000)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start).Seconds(); float64(m.Total()) > 10_000*(took+1)+2_000 {
				t.Fatalf("%d bytes after %.1f s", m.Total(), took)
			}
		}
		if took := time.Since(start); took < 8*time.Second || took > 11*time.Second {
			t.Errorf("100,000 bytes took %v, want about 9 s: the first second's worth goes at once", took)
		}
		if n := end(); n != 100_000 || m.Total() != 100_000 {
			t.Errorf("%d arrived, %d counted", n, m.Total())
		}
	})
}

func TestMeter_WhatComesInMakesTheNextWriteWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMeter(t, Bandwidth{BytesPerSecond: 10_000})
		near, far := net.Pipe()
		c := m.Conn(near)
		defer c.Close()
		go far.Write(make([]byte, 40_000))
		b := make([]byte, 40_000)
		for got := 0; got < len(b); {
			n, err := c.Read(b)
			if err != nil {
				t.Fatal(err)
			}
			got += n
		}
		go far.Read(b)
		start := time.Now()
		if _, err := c.Write([]byte("x")); err != nil || time.Since(start) < 2900*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestMeter_ACloseEndsAWriteThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMeter(t, Bandwidth{BytesPerSecond: 512})
		c, _ := discard(t, m)
		done := make(chan error, 1)
		go func() {
			_, err := c.Write(make([]byte, 1<<20))
			done <- err
		}()
		synctest.Wait()
		c.Close()
		if err := <-done; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write = %v", err)
		}
	})
}

func TestMeter_ABudgetIsNeverOverrunAndTurnsAtMidnight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		berlin, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		m := openMeter(t, Bandwidth{BytesPerDay: 100_000, BytesPerMonth: 1_000_000, Zone: berlin})
		c, _ := discard(t, m)
		for {
			if _, err = c.Write(make([]byte, 999)); err != nil {
				break
			}
			if p := m.Pause(time.Now()); m.Total() < 95_000 && p.Reason != "" || m.Total() >= 95_000 && p.Reason != PauseDay {
				t.Fatalf("after %d bytes: %+v", m.Total(), p)
			}
		}
		if !errors.Is(err, errBudget) || m.Total() > 100_000 || m.Total() < 99_000 {
			t.Fatalf("%v after %d bytes", err, m.Total())
		}
		p := m.Pause(time.Now())
		if want := nextMidnight(time.Now().In(berlin)); !p.Until.Equal(want) || !p.Alerts {
			t.Errorf("%+v, want until %v", p, want)
		}
		if _, err := m.Dial((&net.Dialer{}).DialContext)(context.Background(), "tcp", "127.0.0.1:1"); !errors.Is(err, errBudget) {
			t.Errorf("dial: %v", err)
		}
		time.Sleep(time.Until(p.Until))
		if p := m.Pause(time.Now()); p.Reason != "" {
			t.Errorf("after midnight: %+v", p)
		}
		if s := m.Status(time.Now()); s.SentToday != 0 || s.SentThisMonth != m.Total() {
			t.Errorf("%+v", s)
		}
	})
}

func TestMeter_ForgetsNothingInACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := simfs.New(1)
		b := Bandwidth{BytesPerDay: 1_000_000, BytesPerMonth: 20_000_000}
		used := int64(0)
		for round := range 40 {
			m, err := OpenMeter(fs, "/data", b)
			if err != nil {
				t.Fatal(err)
			}
			s := m.Status(time.Now())
			if most := used + int64(round)*m.slack(); s.SentToday < used || s.SentToday > most {
				t.Fatalf("round %d: %d are known of %d", round, s.SentToday, used)
			}
			for range 5 + round {
				m.count(997)
				used += 997
			}
			fs.Restart(simfs.Policies[round%len(simfs.Policies)], uint64(round))
		}
	})
}

func TestMeter_AClockThatWasAheadDoesNotFreezeTheCounts(t *testing.T) {
	m := openMeter(t, Bandwidth{BytesPerDay: 100_000})
	m.turn(time.Date(2039, 1, 1, 0, 0, 0, 0, time.UTC))
	m.used.DayUsed = 50_000
	m.turn(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	if m.used.Day != "2026-05-01" || m.used.DayUsed != 50_000 {
		t.Errorf("%+v", m.used)
	}
	m.turn(time.Date(2026, 5, 2, 12, 0, 0, 0, time.UTC))
	if m.used.DayUsed != 0 {
		t.Errorf("%+v", m.used)
	}
}

func TestBandwidth_QuietHours(t *testing.T) {
	night := Bandwidth{QuietFrom: 22 * time.Hour, QuietTo: 6 * time.Hour}
	noon := Bandwidth{QuietFrom: 12 * time.Hour, QuietTo: 13*time.Hour + 30*time.Minute}
	for _, tc := range []struct {
		b     *Bandwidth
		at    string
		until string
	}{
		{&night, "01T21:59", ""}, {&night, "01T22:00", "02T06:00"}, {&night, "01T05:59", "01T06:00"}, {&night, "01T06:00", ""},
		{&noon, "01T11:59", ""}, {&noon, "01T12:00", "01T13:30"}, {&noon, "01T13:30", ""},
	} {
		at, _ := time.Parse("2006-01-02T15:04", "2026-05-"+tc.at)
		until, ok := tc.b.quiet(at)
		got := ""
		if ok {
			got = until.Format("02T15:04")
		}
		if got != tc.until {
			t.Errorf("%s: until %q, want %q", tc.at, got, tc.until)
		}
	}
}

func TestForwarder_AlertsGoWhilePointsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UTC() // midnight, in a bubble
		at := time.Duration(now.Hour())*time.Hour + time.Duration(now.Minute())*time.Minute
		m := openMeter(t, Bandwidth{QuietFrom: at, QuietTo: at + 2*time.Hour})
		w := newBench(t, ForwarderOptions{Meter: m}, nil)
		w.out = openTest(t, t.TempDir(), OutboxOptions{Urgent: true})
		f, err := NewForwarder(w.out, w.sink, w.f.o)
		if err != nil {
			t.Fatal(err)
		}
		w.f = f
		w.put(t, 0, 3)
		w.start(t)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if _, stored := w.sink.snapshot(); len(stored) != 0 || f.Status().State != Paused || f.Status().Bandwidth.PausedReason != PauseQuiet {
			t.Fatalf("stored %v, status %+v", stored, f.Status())
		}
		if err := w.out.PutUrgent(Cause{LSN: 1, Time: time.Now().UnixNano()}, TypePoint, []byte("fire")); err != nil {
			t.Fatal(err)
		}
		if err := w.out.Flush(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, stored := w.sink.snapshot(); !same(stored, []string{"fire"}) {
			t.Errorf("stored %v", stored)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if _, stored := w.sink.snapshot(); !same(stored, append([]string{"fire"}, names(0, 3)...)) {
			t.Errorf("stored %v", stored)
		}
		if c := w.out.Counters(); c.Enqueued != 4 || c.Delivered != 4 {
			t.Errorf("%+v", c)
		}
	})
}

func TestPlan_GivesUpResolutionBeforeTheBudget(t *testing.T) {
	in := planInput{left: 1e6, lasts: time.Hour, wire: 10, in: 100, pending: []float64{0, 0, 0}, shrink: []float64{1, 0.1, 0.01}}
	for _, tc := range []struct {
		name string
		edit func(*planInput)
		want int
	}{
		{"ten times too much comes in", func(in *planInput) {}, 1},
		{"it fits", func(in *planInput) { in.in = 10 }, 0},
		{"it fits, but a backlog does not", func(in *planInput) { in.in, in.pending[0] = 10, 5e5 }, 1},
		{"nothing is left", func(in *planInput) { in.left = 0 }, 2},
		{"back only with room to spare", func(in *planInput) { in.in, in.level = 25, 1 }, 1},
		{"back", func(in *planInput) { in.in, in.level = 20, 1 }, 0},
		{"nothing known", func(in *planInput) { in.wire = 0 }, 0},
	} {
		p := in
		p.pending = append([]float64(nil), in.pending...)
		tc.edit(&p)
		if got := plan(p); got != tc.want {
			t.Errorf("%s: level %d, want %d", tc.name, got, tc.want)
		}
	}
}

func TestForecast(t *testing.T) {
	in := ForecastInput{BytesPerDayIn: 100e6, MaxBytes: 1000e6, Used: 200e6, WhenFull: Degrade,
		Steps: []time.Duration{time.Minute, time.Hour}, Shrink: []float64{0.2, 0.01}}
	f := NewForecast(in)
	got := fmt.Sprintf("%.1f %.1f %.1f %s", f.DaysUntilDegrade, f.DaysUntilFull, f.DaysAtCoarsest, f.Coarsest)
	if want := "6.0 798.0 1000.0 1h0m0s"; got != want {
		t.Errorf("degrade: %s, want %s", got, want)
	}
	in.WhenFull = DropOldest
	f = NewForecast(in)
	if got := fmt.Sprintf("%.1f %.1f %.1f", f.DaysUntilDegrade, f.DaysUntilFull, f.DaysAtCoarsest); !strings.HasPrefix(got, "+Inf 8.0 10.0") {
		t.Errorf("drop_oldest: %s", got)
	}
}
