package pipeline

import (
	"encoding/binary"
	"testing"
	"time"
)

// twoLines are sources that share a measurement.
func twoLines(t *testing.T, rule string) (*driver, *Spec) {
	d := ruleDriver(t, rule)
	spec := testSpec()
	other := spec.Sources[0]
	other.Name, other.Topic = "other", "o/{device}/t"
	spec.Sources = append(spec.Sources, other)
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - " + rule + "\n"}}
	d.configure(t0, spec)
	d.publish(t0, "d/a/t", msg(1, t0, 50))
	d.publish(t0, "o/b/t", msg(1, t0, 50))
	d.alerts()
	return d, spec
}

func TestFold_AlertsOfARemovedSourceResolveWithTheReason(t *testing.T) {
	for _, when := range []string{"at once", "after a restart"} {
		d, spec := twoLines(t, `{ alert: Hot, expr: temperature > 40 }`)
		if when == "after a restart" {
			f, err := RestoreFold(d.f.Snapshot(nil))
			if err != nil {
				t.Fatal(err)
			}
			d.f = f
		}
		spec.Sources = spec.Sources[:1]
		d.configure(t0+1*sec, spec)
		d.wants(when, `Hot resolved {alertname="Hot", device="b"`)
		if v := d.f.View(); len(v.Alerts) != 1 || v.Alerts[0].Labels.Get("device") != "a" {
			t.Errorf("%s: left %+v", when, v.Alerts)
		}
		if p := d.f.View().Notify.Recent; len(p) != 1 || p[0].Annotations.Get("reason") != "source removed" {
			t.Errorf("%s: ended %+v", when, p)
		}
	}
}

func TestFold_ADeviceOfARemovedSourceDoesNotFallSilent(t *testing.T) {
	d, spec := twoLines(t, `{ alert: Silent, absent: { metric: temperature, after: 1m } }`)
	spec.Sources = spec.Sources[:1]
	d.configure(t0+1*sec, spec)
	d.until(t0 + 600*sec)
	d.wants("ten minutes later", `Silent firing {alertname="Silent", device="a"`)
	if v := d.f.View(); len(v.Alerts) != 1 {
		t.Errorf("alerts %+v", v.Alerts)
	}
}

func TestFold_AnotherWindowOrNameIsStillTheSameSource(t *testing.T) {
	d, spec := twoLines(t, `{ alert: Hot, expr: temperature > 40 }`)
	spec.Sources[0].Window, spec.Sources[1].Name = time.Minute, "renamed"
	d.configure(t0+1*sec, spec)
	d.wants("after the change", "")
	d.publish(t0+2*sec, "d/a/t", msg(2, t0+2*sec, 5))
	d.wants("the next reading", `Hot resolved {alertname="Hot", device="a"`)
}

func TestFold_AlertsUnderLabelsThatTheGatewayNoLongerHasResolve(t *testing.T) {
	d, spec := twoLines(t, `{ alert: Hot, expr: temperature > 40 }`)
	spec.Labels = map[string]string{"site": "plant-8"}
	d.configure(t0+1*sec, spec)
	if got := d.alerts(); got != `Hot resolved {alertname="Hot", device="a", site="plant-7"} 50; Hot resolved {alertname="Hot", device="b", site="plant-7"} 50` {
		t.Errorf("%s", got)
	}
}

func TestFold_AClockStepBetweenAnAlertsStartAndEndDoesNotMoveItsStart(t *testing.T) {
	d, _ := twoLines(t, `{ alert: Hot, expr: temperature > 40 }`)
	step := -int64(time.Hour)
	d.apply(RecordClockStep, t0+step, binary.AppendVarint(nil, step))
	if v := d.f.View().Alerts; v[0].StartsAt != t0 || v[1].StartsAt != t0 {
		t.Errorf("shown as started at %d and %d s", (v[0].StartsAt-t0)/sec, (v[1].StartsAt-t0)/sec)
	}
	d.publish(t0+step+1*sec, "d/a/t", msg(2, t0+step+1*sec, 5))
	if p := d.f.View().Notify.Recent; len(p) != 1 || p[0].StartsAt != t0 || p[0].EndsAt < p[0].StartsAt {
		t.Errorf("ended %+v", p)
	}
}
