package e2e

import (
	"fmt"
	"testing"
	"time"

	"sluice/gateway/e2e/oracle"
	"sluice/gateway/e2e/store"
)

// wantStored polls until the store holds exactly what the oracle computes from the readings.
func wantStored(t *testing.T, s *store.StandIn, readings []oracle.Reading, window, timeout time.Duration) {
	t.Helper()
	want := oracle.Windows(readings, window)
	schema := oracle.Schema{Window: window, Stats: stats, Device: "device", Metrics: metrics,
		Tags: map[string]string{"gateway": "e2e", "site": "lab", "window": window.String()}}
	eventually(t, timeout, "the store holds what the oracle computed", func() error {
		points := s.Points("telemetry")
		diffs := oracle.Compare(want, points, schema)
		if len(diffs) == 0 {
			return nil
		}
		stored, expected := oracle.Counts(want, points)
		return fmt.Errorf("%d differences, %.0f readings counted, want %.0f; refused requests: %v; first differences:\n%s",
			len(diffs), stored, expected, s.Refused(), join(diffs, 30))
	})
}

func join(diffs []oracle.Difference, most int) (s string) {
	for _, d := range diffs[:min(len(diffs), most)] {
		s += "  " + d.String() + "\n"
	}
	return s
}

// Each failure is met by at least one request, and each is over before the next begins: a sink that waits out one of them
// would not notice the others. It waits longest, half a minute, for what only a person can set right, so those failures run
// beside the others, each on a gateway of its own.
func TestGateway_StoreOutageLosesNothing(t *testing.T) {
	for _, modes := range [][]store.Mode{
		{store.Down, store.Broken, store.Reset, store.StoredError, store.HalfReset, store.Unavailable, store.Slow},
		{store.Portal},
		{store.Redirect},
		{store.Denied},
	} {
		t.Run(string(modes[0]), func(t *testing.T) {
			if testing.Short() && len(modes) == 1 {
				t.Skip("takes half a minute")
			}
			t.Parallel()
			outages(t, modes)
		})
	}
}

func outages(t *testing.T, modes []store.Mode) {
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL(), Token: true})
	g.start()
	f := newFleet(g, 1)
	f.add(3, sequencedSameSession)
	f.run(t)
	for _, mode := range modes {
		if err := s.Set(mode); err != nil {
			t.Fatal(err)
		}
		before := first(s.Totals())
		f.publish(t, 1200*time.Millisecond)
		if mode != store.Down {
			eventually(t, 30*time.Second, "a request while the store is "+string(mode), func() error {
				if first(s.Totals()) == before {
					return fmt.Errorf("still %d requests", before)
				}
				return nil
			})
		}
		if err := s.Set(store.Up); err != nil {
			t.Fatal(err)
		}
		stored, began := lines(s), time.Now()
		f.publish(t, 200*time.Millisecond)
		eventually(t, 90*time.Second, "points again after the store was "+string(mode), func() error {
			if lines(s) == stored {
				return fmt.Errorf("still %d lines", stored)
			}
			return nil
		})
		t.Logf("%s: points flow again after %v", mode, time.Since(began).Round(10*time.Millisecond))
	}
	readings := f.finish(t, 10*time.Second)
	wantStored(t, s, readings, time.Second, 90*time.Second)
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.wantMetric(float64(len(readings)), "sluice_readings_total", `outcome="accepted"`)
	g.stop()
	wantStored(t, s, readings, time.Second, time.Second)
}

func lines(s *store.StandIn) int {
	_, n, _ := s.Totals()
	return n
}

// A gateway that is killed in mid-outage holds the backlog on disk, not in memory.
func TestGateway_BacklogSurvivesKillDuringOutage(t *testing.T) {
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL()})
	if err := s.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := newFleet(g, 2)
	f.add(2, sequencedSameSession)
	f.run(t)
	f.publish(t, 3*time.Second)
	g.proc.Kill()
	g.start()
	f.publish(t, time.Second)
	g.proc.Kill()
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	g.start()
	wantStored(t, s, f.finish(t, 10*time.Second), time.Second, 60*time.Second)
	g.stop()
}
