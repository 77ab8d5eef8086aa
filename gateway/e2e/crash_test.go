package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/store"
)

// crashKills is how often the gateway is killed in a usual run; SLUICE_CRASH_KILLS asks for more.
const crashKills = 200

// envInt reads a positive number from the environment.
func envInt(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q: want a positive number", name, text)
	}
	return n
}

// The promise as a whole: devices of every kind publish without a pause, the gateway is killed at random moments, its
// store and its webhook receiver come and go; in the end every acknowledged reading is counted exactly once, no window is
// missing or extra, and each alert fired and resolved as often as the signal crossed the threshold.
func TestGateway_KilledAtAnyMomentCountsEveryAcknowledgedReadingOnce(t *testing.T) {
	kills := envInt(t, "SLUICE_CRASH_KILLS", crashKills)
	if testing.Short() {
		kills = min(kills, 15)
	}
	seed := uint64(envInt(t, "SLUICE_CRASH_SEED", int(time.Now().UnixNano()%1e9)+1))
	t.Logf("%d kills, SLUICE_CRASH_SEED=%d", kills, seed)
	rng := rand.New(rand.NewPCG(seed, 1))

	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	g := newGateway(t, options{Store: s.URL(), Hook: receiver.URL(), Rules: hotRule})
	f := newFleet(g, seed)
	f.add(2, sequencedSameSession)
	f.add(1, sequencedV5)
	f.add(1, sequencedFresh)
	f.add(1, sequencedQoS2)
	f.add(1, plainSameSession)
	f.run(t)

	var starts []time.Duration
	progress, stops, told := 0, 0, 0
	for i := 0; i < kills; {
		g.launch()
		life := time.Duration(2+rng.IntN(399)) * time.Millisecond
		up := rng.IntN(4) != 0
		if !up { // die while starting, whatever it is doing then
			f.publish(t, life)
		} else {
			took, err := g.proc.WaitAccept(g.mqtt, 20*time.Second)
			if err != nil {
				t.Fatalf("start %d: %v", i+stops+1, err)
			}
			starts = append(starts, took)
			f.publish(t, life)
		}
		if !g.proc.Alive() {
			code, _ := g.proc.Wait(0)
			t.Fatalf("life %d ended by itself with code %d:\n%s", i+stops+1, code, tail(g.proc.Log.String(), 60))
		}
		how := rng.IntN(8)
		if how == 0 && !up {
			how = 2 // SIGTERM ends a process that has not come to ask for it
		}
		switch how {
		case 0: // a clean stop writes a checkpoint, from which the next lives recover
			g.stop()
			stops++
		case 1: // killed while it stops
			g.proc.Signal(syscall.SIGTERM)
			f.publish(t, time.Duration(rng.IntN(60))*time.Millisecond)
			g.proc.Kill()
			i++
		default:
			g.proc.Kill()
			i++
		}
		if rng.IntN(3) == 0 {
			modes := []store.Mode{store.Up, store.Up, store.Down, store.Broken, store.Reset, store.Slow, store.StoredError, store.HalfReset}
			if err := s.Set(modes[rng.IntN(len(modes))]); err != nil {
				t.Fatal(err)
			}
		}
		if rng.IntN(3) == 0 {
			modes := []hook.Mode{hook.Up, hook.Up, hook.Down, hook.Broken, hook.Reset}
			if err := receiver.Set(modes[rng.IntN(len(modes))]); err != nil {
				t.Fatal(err)
			}
		}
		if acked := f.acked(); i >= told+25 {
			told = i
			t.Logf("%d kills, %d messages acknowledged, %d requests at the store, %d at the webhook", i, acked, first(s.Totals()), receiver.Attempts())
			if acked == progress {
				t.Fatal("no message was acknowledged during the last 25 lives of the gateway")
			}
			progress = acked
		}
	}
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	if err := receiver.Set(hook.Up); err != nil {
		t.Fatal(err)
	}
	starts = append(starts, g.start())
	readings := f.finish(t, 30*time.Second)
	wantStored(t, s, readings, time.Second, 90*time.Second)
	wantNotified(t, receiver, f, 60*time.Second)
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.wantLedger()
	g.stop()

	// Nothing may change any more: not at the stop, and not at another start.
	notified := len(unique(receiver.Taken()))
	g.start()
	wantStored(t, s, readings, time.Second, 10*time.Second)
	g.stop()
	wantStored(t, s, readings, time.Second, time.Second)
	if n := len(unique(receiver.Taken())); n != notified {
		t.Errorf("%d notifications after another start, want the %d from before", n, notified)
	}
	for _, bad := range receiver.Bad() {
		t.Errorf("notification refused: %s", bad)
	}
	for _, refused := range s.Refused() {
		t.Errorf("points refused: %s", refused)
	}

	reconnects, flips, resent := 0, 0, 0
	for _, d := range f.devices {
		reconnects += d.Connects()
		flips += len(d.flips)
		resent += d.Resent()
	}
	points := s.Points("telemetry")
	writes := 0
	for _, p := range points {
		writes += p.Writes
	}
	slices.Sort(starts)
	t.Logf("%d kills and %d clean stops: %d messages (%d resent), %d readings, %d points written %d times, %d alert changes in %d requests, %d connections; starts: median %v, slowest %v",
		kills, stops, f.acked(), resent, len(readings), len(points), writes, flips, len(receiver.Taken()), reconnects,
		starts[len(starts)/2].Round(time.Millisecond), starts[len(starts)-1].Round(time.Millisecond))
}

// wantNotified wants, for each device, exactly the changes its signal made.
func wantNotified(t *testing.T, r *hook.Receiver, f *fleet, timeout time.Duration) {
	t.Helper()
	eventually(t, timeout, "each alert fires and resolves as its signal did", func() error {
		transitions, errs := hook.Transitions(r.Taken())
		errs = append(errs, hook.CheckAlternation(transitions)...)
		if len(errs) > 0 {
			return fmt.Errorf("%d errors, first: %w", len(errs), errs[0])
		}
		byDevice := map[string]int{}
		for _, ts := range transitions {
			byDevice[ts[0].Labels["device"]] += len(ts)
		}
		for _, d := range f.devices {
			if byDevice[d.name] != len(d.flips) {
				return fmt.Errorf("%s: %d changes notified, want %d", d.name, byDevice[d.name], len(d.flips))
			}
		}
		return nil
	})
}

// unique returns the webhook-ids taken.
func unique(requests []hook.Request) map[string]bool {
	ids := map[string]bool{}
	for _, r := range requests {
		ids[r.ID] = true
	}
	return ids
}

func first(n, _ int, _ int64) int { return n }
