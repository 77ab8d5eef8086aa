package rules

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/gateway/telemetry"
)

// everyKind are rules of every kind; sets are drawn from them.
var everyKind = []string{
	`{ alert: A, expr: "avg(a, 10s) > 1" }`,
	`{ alert: A, expr: "avg(a, 10s) > 1", for: 3s }`,
	`{ alert: B, expr: "count(a, 5s) < 2 or quantile(0.5, b, 20s) > 1", for: 2s, keep_firing_for: 3s }`,
	`{ alert: C, expr: "a > 1 and hour() >= 12", clear: "max(a, 7s) < 1", zone: Europe/Berlin }`,
	`{ alert: D, expr: "b > last(\"device=d*\", a)", inhibit: { when: A, equal: [device] } }`,
	`{ alert: E, expr: "age(a) > 4 and b > 0", inhibit: [{ when: D }, { when: B, equal: [device] }], for: 1s }`,
	`{ alert: F, match: { device: "d*" }, absent: { metric: a, after: 3s, expect: [d1, d2, d9] } }`,
	`{ alert: F, match: { device: "d*" }, absent: { metric: a, after: 2x, expect: [d9] }, for: 2s }`,
	`{ alert: G, absent: { metric: b, after: 4s }, keep_firing_for: 3s }`,
	`{ alert: H, expr: "a > 0", active: { hours: "12:01-12:02" }, inhibit: { when: F, equal: [device] } }`,
	`{ alert: I, expr: "last(a, 3s) > 1 and last(\"device=x\", b, 5s) > 0" }`,
	`{ alert: J, anomaly: { metric: a, method: jump, sensitivity: 3 }, for: 1s }`,
	`{ alert: K, expr: "delta(b, 6s) > 1" }`,
}

func randomKinds(t *rapid.T) *Set {
	order := make([]int, len(everyKind))
	for i := range order {
		order[i] = i
	}
	names := map[byte]string{}
	for _, i := range rapid.Permutation(order).Draw(t, "rules")[:rapid.IntRange(1, len(order)).Draw(t, "n")] {
		names[everyKind[i][len("{ alert: ")]] = everyKind[i]
	}
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n")
	for c := byte('A'); c <= 'K'; c++ {
		r, ok := names[c]
		if !ok && c <= 'F' { // the ones that inhibit
			r, ok = everyKind[map[byte]int{'A': 0, 'B': 2, 'C': 3, 'D': 4, 'E': 5, 'F': 6}[c]], true
		}
		if ok {
			b.WriteString("  - " + r + "\n")
		}
	}
	set, err := Parse([]File{{Name: "r.yaml", Data: []byte(b.String())}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestEngine_RestoredAnywhereGoesOnTheSame drives two engines with one random history of every kind of rule: one uninterrupted, one
// restored from its snapshot before every call. Events, due times, views and snapshots must be the same, and every alert that
// receivers were told of resolves once.
func TestEngine_RestoredAnywhereGoesOnTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := randomKinds(t)
		engines := []*Engine{NewEngine(set, Options{}), NewEngine(set, Options{})}
		now := base
		told, started := map[uint64]bool{}, map[uint64]int64{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 0, 1, 1, 1, 2, 5, 20}).Draw(t, "dt") * int64(time.Second)
			var act func(e *Engine, emit func(*Event))
			device := labels("device", rapid.SampledFrom([]string{"d1", "d2", "x", "y"}).Draw(t, "device"))
			switch rapid.SampledFrom([]string{"observe", "observe", "observe", "observe", "observe", "observe", "tick", "tick", "tick", "reload", "resume", "state", "wall", "retained", "forget"}).Draw(t, "act") {
			case "observe":
				at := now - rapid.SampledFrom([]int64{0, 0, 0, 1, 4, -2}).Draw(t, "age")*int64(time.Second)
				readings := randomReadings(t)
				act = func(e *Engine, emit func(*Event)) { e.Observe(e.Subject("m", device), now, at, readings, emit) }
			case "retained":
				readings, stamped := randomReadings(t), rapid.Bool().Draw(t, "stamped")
				act = func(e *Engine, emit func(*Event)) {
					e.ObserveRetained(e.Subject("m", device), now, now-1, stamped, readings, emit)
				}
			case "tick":
				exact := rapid.Bool().Draw(t, "exact")
				act = func(e *Engine, emit func(*Event)) {
					for i := 0; exact && e.Due() < now; i++ {
						if i > 1000 {
							panic(fmt.Sprintf("Due() stays at %d", e.Due()))
						}
						e.Tick(e.Due(), emit)
					}
					e.Tick(now, emit)
				}
			case "reload":
				next := randomKinds(t)
				act = func(e *Engine, emit func(*Event)) { e.Reload(next, now, emit) }
			case "resume":
				act = func(e *Engine, _ func(*Event)) { e.Resume(now) }
			case "state":
				online := rapid.Bool().Draw(t, "online")
				act = func(e *Engine, emit func(*Event)) { e.Availability(device, online, now, emit) }
			case "forget":
				act = func(e *Engine, emit func(*Event)) {
					e.Forget([]*Subject{e.Subject("m", device)}, now, ReasonSource, emit)
				}
			case "wall":
				offset := rapid.Int64Range(-1e11, 1e11).Draw(t, "offset")
				act = func(e *Engine, _ func(*Event)) { e.SetWallOffset(offset) }
			}
			var said [2][]string
			var snapshots [2][]byte
			for i := range engines {
				if i == 1 {
					again := NewEngine(engines[i].Set(), Options{})
					if err := again.Restore(engines[i].Snapshot(nil)); err != nil {
						t.Fatalf("Restore: %v", err)
					}
					engines[i] = again
				}
				act(engines[i], func(ev *Event) {
					said[i] = append(said[i], fmt.Sprintf("%s %v inhibited=%v", describe(ev), ev.Value, ev.Inhibited))
					if i == 1 && !ev.Inhibited {
						if (ev.State == Firing) == told[ev.Fingerprint] {
							t.Fatalf("receivers are told %v of %v twice", ev.State, ev.Labels)
						}
						told[ev.Fingerprint] = ev.State == Firing
						if ev.State == Firing {
							started[ev.Fingerprint] = ev.StartsAt
						} else if ev.StartsAt != started[ev.Fingerprint] {
							t.Fatalf("%v started at %d, and resolves as one that started at %d", ev.Labels, started[ev.Fingerprint], ev.StartsAt)
						}
					}
				})
				snapshots[i] = engines[i].Snapshot(nil)
			}
			if diff := gocmp.Diff(said[0], said[1]); diff != "" {
				t.Fatalf("restored, it says otherwise (-uninterrupted +restored):\n%s", diff)
			}
			if !bytes.Equal(snapshots[0], snapshots[1]) {
				t.Fatalf("snapshots differ:\n%x\n%x", snapshots[0], snapshots[1])
			}
			if a, b := engines[0].Due(), engines[1].Due(); a != b {
				t.Fatalf("Due() = %d and %d", a, b)
			}
			if diff := gocmp.Diff(engines[0].Alerts(), engines[1].Alerts()); diff != "" {
				t.Fatalf("Alerts() differ:\n%s", diff)
			}
			for _, v := range engines[0].Alerts() {
				if v.State == Firing && told[v.Fingerprint] == false && !v.Inhibited {
					t.Fatalf("%v fires, nothing inhibits it, and nobody was told", v.Labels)
				}
			}
		}
		for _, e := range engines {
			e.Reload(&Set{}, now, func(*Event) {})
			if e.Due() != math.MaxInt64 || len(e.Alerts()) > 0 || len(e.shared) > 0 || len(e.guards) > 0 || len(e.expected) > 0 {
				t.Fatalf("without rules there are left: Due() %d, %d alerts, %d occurrences, %d expected", e.Due(), len(e.Alerts()), len(e.shared), len(e.expected))
			}
		}
	})
}

func randomReadings(t *rapid.T) []telemetry.Reading {
	var readings []telemetry.Reading
	for range rapid.IntRange(1, 3).Draw(t, "readings") {
		readings = append(readings, telemetry.Reading{
			Metric: rapid.SampledFrom([]string{"a", "b", "other"}).Draw(t, "metric"),
			Value:  rapid.SampledFrom([]float64{0, 1, 2, 3, 3, -1, 50, math.NaN()}).Draw(t, "value"),
		})
	}
	return readings
}

// busyKinds is the snapshot of an engine with every kind of rule at work.
func busyKinds(t testing.TB) (*Set, []byte) {
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n")
	names := map[byte]bool{}
	for _, r := range everyKind {
		if name := r[len("{ alert: ")]; !names[name] {
			names[name] = true
			b.WriteString("  - " + r + "\n")
		}
	}
	set := mustParse(t, b.String())
	e := NewEngine(set, Options{})
	emit := func(*Event) {}
	for i := range int64(200) {
		now := base + i*1e9
		e.Observe(e.Subject("m", labels("device", fmt.Sprint("d", i%3))), now, now, []telemetry.Reading{{Metric: "a", Value: float64(i * i % 7)}, {Metric: "b", Value: float64(i % 5)}}, emit)
		e.Tick(now, emit)
	}
	e.Availability(labels("device", "d1"), false, base+200e9, emit)
	return set, e.Snapshot(nil)
}

func TestEngine_RestoreOfEveryKindRefusesEveryTruncation(t *testing.T) {
	set, snapshot := busyKinds(t)
	for n := range snapshot {
		if err := NewEngine(set, Options{}).Restore(snapshot[:n]); err == nil {
			t.Fatalf("Restore of the first %d of %d bytes succeeds", n, len(snapshot))
		}
	}
	if err := NewEngine(set, Options{}).Restore(snapshot); err != nil {
		t.Fatal(err)
	}
}

func FuzzRestoreEveryKind(f *testing.F) {
	set, snapshot := busyKinds(f)
	f.Add(snapshot)
	f.Add(NewEngine(set, Options{}).Snapshot(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		e := NewEngine(set, Options{})
		if e.Restore(b) != nil {
			return
		}
		again := NewEngine(set, Options{})
		if err := again.Restore(e.Snapshot(nil)); err != nil {
			t.Fatalf("a restored engine's snapshot is refused: %v", err)
		}
		emit := func(*Event) {}
		for i := range int64(3) {
			e.Observe(e.Subject("m", labels("device", "d1")), base+i*1e9, base+i*1e9, []telemetry.Reading{{Metric: "a", Value: 3}, {Metric: "b", Value: 9}}, emit)
			e.Tick(e.now, emit)
			e.Resume(e.now)
			e.Availability(labels("device", "d0"), i == 0, e.now, emit)
		}
		e.Alerts()
		e.Reload(&Set{}, 0, emit)
		if e.Due() != math.MaxInt64 || len(e.Alerts()) != 0 {
			t.Fatalf("after everything: Due() = %d, alerts %v", e.Due(), e.Alerts())
		}
	})
}
