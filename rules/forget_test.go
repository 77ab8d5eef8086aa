package rules

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

// forgetSet has every kind of thing that is kept for a device.
const forgetSet = `
groups:
  - name: g
    rules:
      - { alert: Warm, expr: temperature > 8 }
      - { alert: Warmer, expr: "avg(temperature, 1m) > 9", for: 1m }
      - { alert: Silent, absent: { metric: temperature, after: 1m, expect: [a] } }
      - { alert: Odd, anomaly: { metric: temperature, method: ewma } }
      - { alert: Held, expr: temperature > 1, inhibit: { when: Warm, equal: [site] } }
`

func TestEngine_ForgottenDevicesResolveWithAReasonAndLeaveNothingBehind(t *testing.T) {
	e := NewEngine(mustParse(t, forgetSet), Options{})
	var said []string
	emit := func(ev *Event) {
		said = append(said, fmt.Sprintf("%s %v %s %s", ev.Alert, ev.State, ev.Labels.Get("device"), ev.Reason))
	}
	now := base
	see := func(device string, v float64) *Subject {
		s := e.Subject("m", labels("device", device, "site", "p"))
		e.Observe(s, now, now, []telemetry.Reading{{Metric: "temperature", Value: v}}, emit)
		return s
	}
	a, b := see("a", 9.5), see("b", 5)
	said = nil
	e.Forget([]*Subject{a}, now+1e9, ReasonSource, emit)
	// What Warm of a held back is told as soon as it is gone.
	if want := []string{"Warm resolved a source removed", "Held resolved a source removed", "Held firing b "}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	if got := len(e.Alerts()); got != 1 {
		t.Errorf("%d alerts are left: %+v", got, e.Alerts())
	}
	said = nil
	now += int64(time.Hour) + 2e9
	e.Tick(now, emit)
	// a is expected, so it is missed; b fell silent.
	if want := []string{"Silent firing b ", "Silent firing a "}; !slices.Equal(said, want) {
		t.Errorf("an hour later: %q, want %q", said, want)
	}
	for i := range 1000 { // devices come and go
		now += 1e9
		s := see(fmt.Sprint("n", i), 20)
		e.Forget([]*Subject{s}, now, ReasonSource, emit)
	}
	e.Forget([]*Subject{b}, now, ReasonLabels, emit)
	if n := len(e.subjects) + len(e.active) + len(e.watched) + len(e.watches) + len(e.timers); n > 2 { // the one that is expected
		t.Errorf("left: %d subjects, %d active, %d watched, %d watches, %d timers", len(e.subjects), len(e.active), len(e.watched), len(e.watches), len(e.timers))
	}
	if see("a", 20); len(e.Alerts()) != 3 { // and comes back: no longer missed, Warm, Held and Warmer pending
		t.Errorf("after its return: %+v", e.Alerts())
	}
	e.Reload(&Set{}, now, emit)
	if e.Due() != math.MaxInt64 || len(e.shared) > 0 {
		t.Errorf("without rules: due at %d, %d occurrences", e.Due(), len(e.shared))
	}
}

func TestEngine_AnAlertKeepsItsStartWhenTheClockIsSet(t *testing.T) {
	e := NewEngine(mustParse(t, forgetSet), Options{})
	var events []Event
	emit := func(ev *Event) { events = append(events, *ev) }
	s := e.Subject("m", labels("device", "a"))
	at := func(now int64, v float64) {
		e.Observe(s, now, now, []telemetry.Reading{{Metric: "temperature", Value: v}}, emit)
	}
	e.SetWallOffset(int64(time.Minute))
	at(base, 9)
	e.SetWallOffset(-int64(time.Hour))
	if v := e.Alerts()[1]; v.Alert != "Warm" || v.StartsAt != base+int64(time.Minute) {
		t.Errorf("shown as %+v", v)
	}
	again := NewEngine(e.Set(), Options{})
	if err := again.Restore(e.Snapshot(nil)); err != nil {
		t.Fatal(err)
	}
	e, s = again, again.Subject("m", labels("device", "a"))
	at(base+1e9, 5)
	for _, ev := range events {
		if ev.StartsAt != base+int64(time.Minute) || ev.State == Resolved && ev.EndsAt != base+1e9-int64(time.Hour) {
			t.Errorf("%s %v: from %d to %d", ev.Alert, ev.State, ev.StartsAt-base, ev.EndsAt-base)
		}
	}
	if len(events) != 4 {
		t.Errorf("%d events, want those of Warm, and Held that was withheld and is told then", len(events))
	}
}
