package rules

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

func labels(pairs ...string) telemetry.Labels {
	var l []telemetry.Label
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, telemetry.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return telemetry.NewLabels(l...)
}

// reference is the engine written as plainly as possible: one record per rule and device, every rule looked at every time,
// timers found by search. It shares only the compiled conditions and the rendering of text with the engine.
type reference struct {
	set     *Set
	now     int64
	devices []*refDevice
}

type refDevice struct {
	labels telemetry.Labels
	values map[string]float64
	times  map[string]int64
	seen   int // order of the first value that a rule uses; 0: none
	alerts map[string]*refAlert
}

type refAlert struct {
	firing                   bool
	since, starts, endsSince int64
	ending                   bool
}

func eval(p *expr.Program, values map[string]float64) expr.Tri {
	e := expr.Env{Binding: &expr.Binding{}}
	for i, m := range p.Metrics() {
		v, ok := values[m]
		if !ok {
			v = math.NaN()
		}
		e.Values, e.Slots = append(e.Values, v), append(e.Slots, int32(i))
	}
	return p.Eval(&e)
}

func (f *reference) rulesFor(d *refDevice) []*Rule {
	var out []*Rule
	for _, r := range f.set.rules {
		if r.Match.Match(d.labels) {
			out = append(out, r)
		}
	}
	return out
}

func (f *reference) observe(d *refDevice, now, t int64, readings []telemetry.Reading) (out []string) {
	f.now = max(f.now, now)
	now = f.now
	t = min(t, now)
	touched := map[string]bool{}
	for _, r := range readings {
		if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || !f.mentioned(d, r.Metric) {
			continue
		}
		if last, ok := d.times[r.Metric]; ok && t < last {
			continue
		}
		if d.seen == 0 {
			d.seen = f.awake() + 1
		}
		d.values[r.Metric], d.times[r.Metric] = r.Value, t
		touched[r.Metric] = true
	}
	for _, r := range f.rulesFor(d) {
		if !slices.ContainsFunc(metricsOf(r), func(m string) bool { return touched[m] }) {
			continue
		}
		holds := eval(r.cond, d.values)
		a := d.alerts[r.Alert]
		if a == nil {
			if holds != expr.True {
				continue
			}
			a = &refAlert{since: now}
			d.alerts[r.Alert] = a
		}
		if !a.firing {
			if holds == expr.False {
				delete(d.alerts, r.Alert)
			} else if holds == expr.True && now-a.since >= int64(r.For) {
				out = append(out, f.fire(d, r, a))
			}
			continue
		}
		over := holds == expr.False
		still := holds == expr.True
		if !still && r.clear != nil {
			c := eval(r.clear, d.values)
			over, still = c == expr.True, c == expr.False
		}
		if still {
			a.ending = false
		}
		if over && !a.ending {
			a.ending, a.endsSince = true, now
		}
		if over && now-a.endsSince >= int64(r.KeepFiringFor) {
			out = append(out, f.resolve(d, r, a, ""))
		}
	}
	return out
}

func metricsOf(r *Rule) []string {
	m := slices.Clone(r.cond.Metrics())
	if r.clear != nil {
		m = append(m, r.clear.Metrics()...)
	}
	return m
}

func (f *reference) mentioned(d *refDevice, metric string) bool {
	return slices.ContainsFunc(f.rulesFor(d), func(r *Rule) bool { return slices.Contains(metricsOf(r), metric) })
}

func (f *reference) awake() int {
	n := 0
	for _, d := range f.devices {
		n = max(n, d.seen)
	}
	return n
}

func (f *reference) fire(d *refDevice, r *Rule, a *refAlert) string {
	a.firing, a.starts = true, f.now
	return fmt.Sprintf("%d firing %s %v", f.now, r.Alert, d.labels)
}

func (f *reference) resolve(d *refDevice, r *Rule, a *refAlert, reason string) string {
	delete(d.alerts, r.Alert)
	return fmt.Sprintf("%d resolved %s %v since %d %s", f.now, r.Alert, d.labels, a.starts, reason)
}

// due lists when each running timer ends.
func (f *reference) due() int64 {
	due := int64(math.MaxInt64)
	f.eachTimer(func(at int64, _ *refDevice, _ *Rule, _ *refAlert) { due = min(due, at) })
	return due
}

func (f *reference) eachTimer(do func(at int64, d *refDevice, r *Rule, a *refAlert)) {
	devices := slices.Clone(f.devices)
	slices.SortStableFunc(devices, func(a, b *refDevice) int { return a.seen - b.seen })
	for _, d := range devices {
		for _, r := range f.rulesFor(d) {
			switch a := d.alerts[r.Alert]; {
			case a == nil:
			case !a.firing:
				do(a.since+int64(r.For), d, r, a)
			case a.ending:
				do(a.endsSince+int64(r.KeepFiringFor), d, r, a)
			}
		}
	}
}

func (f *reference) tick(now int64) (out []string) {
	f.now = max(f.now, now)
	for {
		first := f.due()
		if first > f.now {
			return out
		}
		done := false
		f.eachTimer(func(at int64, d *refDevice, r *Rule, a *refAlert) {
			if at != first || done {
				return
			}
			done = true
			if a.firing {
				out = append(out, f.resolve(d, r, a, ""))
			} else {
				out = append(out, f.fire(d, r, a))
			}
		})
	}
}

func (f *reference) reload(set *Set, now int64) (out []string) {
	f.now = max(f.now, now)
	devices := slices.Clone(f.devices)
	slices.SortStableFunc(devices, func(a, b *refDevice) int { return a.seen - b.seen })
	for _, d := range devices {
		for _, r := range f.rulesFor(d) {
			a := d.alerts[r.Alert]
			reason := ReasonChanged
			next := set.byName[r.Alert]
			if next == nil {
				reason = ReasonRemoved
			}
			if a == nil || next != nil && next.key == r.key {
				continue
			}
			if a.firing {
				out = append(out, f.resolve(d, r, a, reason))
			}
			delete(d.alerts, r.Alert)
		}
	}
	f.set = set
	for _, d := range devices {
		for m := range d.values {
			if !f.mentioned(d, m) {
				delete(d.values, m)
				delete(d.times, m)
			}
		}
		if len(f.rulesFor(d)) == 0 {
			d.seen = 0
		}
	}
	return out
}

// candidates are the rules that random sets are made of; those with one name differ in definition.
var candidates = []string{
	`{ alert: A, expr: a > 1 }`,
	`{ alert: A, expr: a > 1, for: 3s }`,
	`{ alert: B, expr: a > 1 and b > 1, for: 2s, keep_firing_for: 3s }`,
	`{ alert: B, expr: a > 1 and b > 1, for: 2s, keep_firing_for: 3s, webhooks: [x] }`,
	`{ alert: C, expr: a > 2, clear: a < 1, keep_firing_for: 2s }`,
	`{ alert: D, match: { device: "d*" }, expr: b > 1, clear: c == 0, for: 1s }`,
	`{ alert: E, match: { device: "d1" }, expr: a / b > 1 or c > 1, annotations: { s: "{{ $value }} {{ $labels.device }}" } }`,
	`{ alert: F, match: { device: "x" }, expr: c > 0, for: 4s, keep_firing_for: 1s }`,
	`{ alert: G, match: { device: "nobody" }, expr: c > 0 }`,
	`{ alert: H, expr: a / b > 1, clear: b / a > 1, for: 2s, keep_firing_for: 2s }`,
	`{ alert: I, expr: b > 0, for: 2s }`,
}

func randomSet(t *rapid.T) *Set {
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n")
	names := map[byte]bool{}
	for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}).Draw(t, "rules")[:rapid.IntRange(0, 9).Draw(t, "n")] {
		name := candidates[i][len("{ alert: ")]
		if !names[name] {
			names[name] = true
			b.WriteString("  - " + candidates[i] + "\n")
		}
	}
	if len(names) == 0 {
		b.Reset()
	}
	set, err := Parse([]File{{Name: "r.yaml", Data: []byte(b.String())}})
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// TestEngine_EqualsReference drives three engines and the reference with one random history: one uninterrupted, a second of the
// same, and one restored from its snapshot before every call. All must say the same; the snapshots must be the same bytes.
func TestEngine_EqualsReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set := randomSet(t)
		ref := &reference{set: set, now: math.MinInt64}
		for _, name := range []string{"d1", "d2", "x"} {
			ref.devices = append(ref.devices, &refDevice{labels: labels("device", name), values: map[string]float64{}, times: map[string]int64{}, alerts: map[string]*refAlert{}})
		}
		engines := []*Engine{NewEngine(set, Options{}), NewEngine(set, Options{}), NewEngine(set, Options{})}
		now := int64(1000) * int64(time.Second)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.SampledFrom([]int64{0, 0, 1, 1, 1, 2, 5, -3}).Draw(t, "dt") * int64(time.Second)
			var want []string
			var act func(e *Engine, emit func(*Event))
			switch rapid.SampledFrom([]string{"observe", "observe", "observe", "observe", "observe", "tick", "tick", "reload"}).Draw(t, "act") {
			case "observe":
				d := rapid.SampledFrom(ref.devices).Draw(t, "device")
				at := now - rapid.SampledFrom([]int64{0, 0, 0, 1, 4, -2}).Draw(t, "age")*int64(time.Second)
				var readings []telemetry.Reading
				for range rapid.IntRange(1, 3).Draw(t, "readings") {
					readings = append(readings, telemetry.Reading{
						Metric: rapid.SampledFrom([]string{"a", "b", "c", "other"}).Draw(t, "metric"),
						Value:  rapid.SampledFrom([]float64{0, 1, 2, 3, 3, -1, math.NaN(), math.Inf(1)}).Draw(t, "value"),
					})
				}
				want = ref.observe(d, now, at, readings)
				act = func(e *Engine, emit func(*Event)) { e.Observe(e.Subject("m", d.labels), now, at, readings, emit) }
			case "tick":
				want = ref.tick(now)
				act = func(e *Engine, emit func(*Event)) { e.Tick(now, emit) }
			case "reload":
				next := randomSet(t)
				want = ref.reload(next, now)
				act = func(e *Engine, emit func(*Event)) { e.Reload(next, now, emit) }
			}
			var snapshots [][]byte
			for i := range engines {
				if i == 2 {
					restored := NewEngine(engines[i].Set(), Options{})
					if err := restored.Restore(engines[i].Snapshot(nil)); err != nil {
						t.Fatalf("Restore: %v", err)
					}
					engines[i] = restored
				}
				var got []string
				act(engines[i], func(ev *Event) { got = append(got, describe(ev)) })
				if diff := gocmp.Diff(want, got); diff != "" {
					t.Fatalf("engine %d at %d (-reference +engine):\n%s", i, now, diff)
				}
				if due := engines[i].Due(); due != ref.due() {
					t.Fatalf("engine %d: Due() = %d, reference %d", i, due, ref.due())
				}
				snapshots = append(snapshots, engines[i].Snapshot(nil))
				if !bytes.Equal(snapshots[0], snapshots[i]) {
					t.Fatalf("snapshot of engine %d differs:\n%x\n%x", i, snapshots[0], snapshots[i])
				}
			}
			pending, firing := engines[0].Counts()
			views := engines[2].Alerts()
			if len(views) != pending+firing {
				t.Fatalf("%d alerts shown, %d pending and %d firing", len(views), pending, firing)
			}
			if diff := gocmp.Diff(engines[0].Alerts(), views); diff != "" {
				t.Fatalf("Alerts() after a restore (-uninterrupted +restored):\n%s", diff)
			}
		}
	})
}

// describe renders an event as the reference does.
func describe(ev *Event) string {
	var device []telemetry.Label
	for _, l := range ev.Labels {
		if l.Name != AlertNameLabel {
			device = append(device, l)
		}
	}
	if ev.Value-ev.Value != 0 || ev.Fingerprint != Fingerprint(ev.Labels) {
		return fmt.Sprintf("bad event %+v", ev)
	}
	if ev.State == Firing {
		return fmt.Sprintf("%d firing %s %v", ev.StartsAt, ev.Alert, telemetry.Labels(device))
	}
	return fmt.Sprintf("%d resolved %s %v since %d %s", ev.EndsAt, ev.Alert, telemetry.Labels(device), ev.StartsAt, ev.Reason)
}

func freezerEngine(t testing.TB) (*Engine, *Subject) {
	e := NewEngine(mustParse(t, oneRule(`{ alert: A, expr: t > 1, for: 1m, keep_firing_for: 1m, annotations: { s: "{{ $value }}" } }`)), Options{})
	return e, e.Subject("m", labels("device", "a"))
}

func TestEngine_DueSaysWhenTickMatters(t *testing.T) {
	e, s := freezerEngine(t)
	if got := e.Due(); got != math.MaxInt64 {
		t.Errorf("Due() of an idle engine = %d", got)
	}
	e.Observe(s, 100, 100, []telemetry.Reading{{Metric: "t", Value: 2}}, func(*Event) { t.Error("fires before its time") })
	due := 100 + int64(time.Minute)
	if got := e.Due(); got != due {
		t.Errorf("Due() = %d, want %d", got, due)
	}
	e.Tick(due-1, func(*Event) { t.Error("fires before its time") })
	fired := 0
	e.Tick(due, func(*Event) { fired++ })
	e.Tick(due, func(*Event) { fired++ })
	if fired != 1 || e.Due() != math.MaxInt64 {
		t.Errorf("fired %d times, then Due() = %d", fired, e.Due())
	}
}

func TestObserve_FindsEachOfManyMetrics(t *testing.T) {
	for _, n := range []int{1, linearMetrics, linearMetrics + 1, 100} {
		var text strings.Builder
		text.WriteString("groups:\n- name: g\n  rules:\n")
		for i := range n {
			fmt.Fprintf(&text, "  - { alert: A%d, expr: m%d > 0 }\n", i, i)
		}
		e := NewEngine(mustParse(t, text.String()), Options{})
		s := e.Subject("m", nil)
		for i := range n {
			var got []string
			readings := []telemetry.Reading{{Metric: "other", Value: 1}, {Metric: fmt.Sprint("m", i), Value: 1}}
			e.Observe(s, 0, 0, readings, func(ev *Event) { got = append(got, ev.Alert) })
			if want := []string{fmt.Sprint("A", i)}; !slices.Equal(got, want) {
				t.Errorf("%d metrics: m%d fires %v, want %v", n, i, got, want)
			}
		}
	}
}

// Only a condition known to hold, or a timer, fires: a message that leaves it unknown does neither, even after the timer's end.
func TestObserve_AnUnknownConditionFiresNothingEvenPastTheTimer(t *testing.T) {
	e := NewEngine(mustParse(t, oneRule(`{ alert: A, expr: a / b > 1, for: 10s }`)), Options{})
	s := e.Subject("m", nil)
	fired := 0
	emit := func(*Event) { fired++ }
	e.Observe(s, 0, 0, []telemetry.Reading{{Metric: "a", Value: 4}, {Metric: "b", Value: 2}}, emit)
	late := int64(time.Minute)
	e.Observe(s, late, late, []telemetry.Reading{{Metric: "b", Value: 0}}, emit)
	if fired != 0 {
		t.Error("an unknown condition fired the alert")
	}
	if e.Tick(late, emit); fired != 1 {
		t.Errorf("the timer fired it %d times", fired)
	}
}

func TestEngine_TimeAtTheEndsOfTheRangeDoesNotWrap(t *testing.T) {
	for _, now := range []int64{math.MaxInt64, math.MaxInt64 - 5, 0, math.MinInt64} {
		e, s := freezerEngine(t)
		e.Observe(s, now, now, []telemetry.Reading{{Metric: "t", Value: 2}}, func(*Event) { t.Errorf("fires at once at %d", now) })
		if e.Due() < now {
			t.Errorf("at %d: Due() = %d", now, e.Due())
		}
	}
}

func TestEngine_RestoreRefusesAnotherSet(t *testing.T) {
	e, _ := freezerEngine(t)
	other := NewEngine(mustParse(t, oneRule(`{ alert: A, expr: t > 2 }`)), Options{})
	if err := other.Restore(e.Snapshot(nil)); !errors.Is(err, ErrOtherSet) {
		t.Errorf("Restore under another set = %v, want ErrOtherSet", err)
	}
}

// busySnapshot has a pending, a firing and an ending alert.
func busySnapshot(t testing.TB) (*Set, []byte) {
	e, s := freezerEngine(t)
	ignore := func(*Event) {}
	read := func(s *Subject, now time.Duration, v float64) {
		e.Observe(s, int64(now), int64(now), []telemetry.Reading{{Metric: "t", Value: v}}, ignore)
	}
	read(s, 0, 2)
	read(e.Subject("m", labels("device", "b")), 0, 2)
	e.Tick(int64(time.Minute), ignore)
	read(s, time.Minute, 0)
	read(e.Subject("m", labels("device", "c")), time.Minute, 3)
	if p, f := e.Counts(); p != 1 || f != 2 {
		t.Fatalf("%d pending, %d firing", p, f)
	}
	return e.Set(), e.Snapshot(nil)
}

func TestEngine_RestoreRefusesEveryTruncationAndLeavesTheEngine(t *testing.T) {
	set, snapshot := busySnapshot(t)
	e := NewEngine(set, Options{})
	for n := range snapshot {
		if err := e.Restore(snapshot[:n]); err == nil {
			t.Errorf("Restore of the first %d of %d bytes succeeds", n, len(snapshot))
		}
	}
	if err := e.Restore(append(slices.Clone(snapshot), 0)); err == nil {
		t.Error("Restore with a byte too many succeeds")
	}
	if len(e.Alerts()) != 0 {
		t.Error("a refused snapshot left alerts")
	}
	if err := e.Restore(snapshot); err != nil || len(e.Alerts()) != 3 {
		t.Errorf("Restore: %v, %d alerts", err, len(e.Alerts()))
	}
}

func FuzzRestore(f *testing.F) {
	set, snapshot := busySnapshot(f)
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
		e.Tick(math.MaxInt64, func(*Event) {})
		e.Reload(mustParse(t, ""), 0, func(*Event) {})
		if e.Due() != math.MaxInt64 || len(e.Alerts()) != 0 {
			t.Fatalf("after everything: Due() = %d, alerts %v", e.Due(), e.Alerts())
		}
	})
}

// Checkpoints in the field hold this form: a change of it needs a new version and a way to read the old one.
func TestEngine_SnapshotFormIsStable(t *testing.T) {
	_, snapshot := busySnapshot(t)
	golden, err := os.ReadFile("testdata/snapshot.v3.hex")
	if *update {
		golden, err = []byte(hex.EncodeToString(snapshot)+"\n"), nil
		if err := os.WriteFile("testdata/snapshot.v3.hex", golden, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(snapshot); got != strings.TrimSpace(string(golden)) {
		t.Errorf("snapshot\n got %s\nwant %s", got, golden)
	}
}

func TestEngine_EventsAreNotTouchedAfterwards(t *testing.T) {
	e, s := freezerEngine(t)
	var events []*Event
	var copies []Event
	keep := func(ev *Event) { events, copies = append(events, ev), append(copies, *ev) }
	for i := range 20 {
		now := int64(i) * int64(time.Minute)
		e.Observe(s, now, now, []telemetry.Reading{{Metric: "t", Value: float64(i % 5)}}, keep)
		e.Tick(now, keep)
	}
	if len(events) < 4 {
		t.Fatalf("only %d events", len(events))
	}
	for i := range events {
		if diff := gocmp.Diff(copies[i], *events[i]); diff != "" {
			t.Errorf("event %d changed:\n%s", i, diff)
		}
	}
}

func manyRules(n int) string {
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n  - { alert: Hot, match: { device: d-1 }, expr: temperature > 80, clear: temperature < 70, for: 1m }\n")
	for i := range n - 1 {
		fmt.Fprintf(&b, "  - { alert: Other%d, match: { device: other-%d }, expr: temperature > 80 and humidity < 30 }\n", i, i)
	}
	return b.String()
}

func TestObserve_DoesNotAllocateWithoutATransition(t *testing.T) {
	e := NewEngine(mustParse(t, manyRules(50)), Options{})
	s := e.Subject("m", labels("device", "d-1"))
	now := int64(0)
	readings := []telemetry.Reading{{Metric: "humidity", Value: 40}, {Metric: "temperature", Value: 20}, {Metric: "vibration", Value: 1}}
	emit := func(*Event) {}
	if n := testing.AllocsPerRun(1000, func() { now++; e.Observe(s, now, now, readings, emit); e.Tick(now, emit) }); n != 0 {
		t.Errorf("%v allocations a message, want 0", n)
	}
}

// TestSubject_MemoryIsBoundedByTheRules holds the figures in Subject's comment: what a device sends beyond the rules costs nothing.
func TestSubject_MemoryIsBoundedByTheRules(t *testing.T) {
	const devices = 2000
	e := NewEngine(mustParse(t, "groups:\n- name: g\n  rules:\n  - { alert: A, expr: a > 1e9 }\n  - { alert: B, expr: b > 1e9 }\n"), Options{})
	names := make([]telemetry.Labels, devices)
	for i := range names {
		names[i] = labels("device", fmt.Sprint(i))
	}
	var readings []telemetry.Reading
	for i := range 200 {
		readings = append(readings, telemetry.Reading{Metric: fmt.Sprint("x", i)})
	}
	readings = append(readings, telemetry.Reading{Metric: "a"}, telemetry.Reading{Metric: "b"})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i, l := range names {
		e.Observe(e.Subject("m", l), int64(i), int64(i), readings, func(*Event) {})
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := float64(after.HeapAlloc-before.HeapAlloc) / devices
	// 128 + key + 2*(16+8), the map's and the list's own share, and the rounding of small allocations.
	if per > 420 {
		t.Errorf("%.0f bytes a device", per)
	}
	runtime.KeepAlive(e)
	runtime.KeepAlive(names)
}

func BenchmarkObserve(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("rules=%d,matching=1,fields=3", n), func(b *testing.B) {
			e := NewEngine(mustParse(b, manyRules(n)), Options{})
			s := e.Subject("m", labels("device", "d-1", "site", "plant-7"))
			readings := []telemetry.Reading{{Metric: "humidity", Value: 40}, {Metric: "temperature", Value: 20}, {Metric: "vibration", Value: 1}}
			emit := func(*Event) {}
			now := int64(0)
			b.ReportAllocs()
			for b.Loop() {
				now++
				e.Observe(s, now, now, readings, emit)
			}
		})
	}
	b.Run("rules=20,matching=20,fields=3", func(b *testing.B) {
		var text strings.Builder
		text.WriteString("groups:\n- name: g\n  rules:\n")
		for i := range 20 {
			fmt.Fprintf(&text, "  - { alert: A%d, expr: temperature > %d }\n", i, 80+i)
		}
		e := NewEngine(mustParse(b, text.String()), Options{})
		s := e.Subject("m", labels("device", "d-1"))
		readings := []telemetry.Reading{{Metric: "humidity", Value: 40}, {Metric: "temperature", Value: 20}, {Metric: "vibration", Value: 1}}
		emit := func(*Event) {}
		b.ReportAllocs()
		for b.Loop() {
			e.Observe(s, 1, 1, readings, emit)
		}
	})
}

func BenchmarkObserveTransition(b *testing.B) {
	e := NewEngine(mustParse(b, oneRule(`{ alert: A, expr: t > 1, annotations: { s: "{{ $labels.device }} at {{ $value }}" } }`)), Options{})
	s := e.Subject("m", labels("device", "d-1"))
	emit := func(*Event) {}
	high, low := []telemetry.Reading{{Metric: "t", Value: 2}}, []telemetry.Reading{{Metric: "t", Value: 0}}
	b.ReportAllocs()
	for b.Loop() {
		e.Observe(s, 1, 1, high, emit)
		e.Observe(s, 1, 1, low, emit)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	e := NewEngine(mustParse(b, manyRules(10)+"  - { alert: All, expr: temperature > 90 }\n"), Options{})
	for i := range 10_000 {
		e.Observe(e.Subject("m", labels("device", fmt.Sprintf("d-%d", i), "site", "plant-7")), int64(i), int64(i), []telemetry.Reading{{Metric: "temperature", Value: 95}}, func(*Event) {})
	}
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf = e.Snapshot(buf[:0])
	}
	b.ReportMetric(float64(len(buf))/10_000, "B/device")
}
