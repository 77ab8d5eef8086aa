package rules

import (
	"strings"
	"testing"

	"sluice/gateway/telemetry"
)

func TestEngine_ExplainSaysWhereEveryRuleStandsAndWhatItSaw(t *testing.T) {
	set := mustParse(t, `groups:
- name: g
  rules:
  - { alert: Hot, expr: t > 50 }
  - { alert: Soon, expr: t > 40 and h < 5, for: 1m }
  - { alert: Elsewhere, match: { device: z }, expr: t > 0 }
`)
	e := NewEngine(set, Options{})
	const sec = int64(1e9)
	send := func(device string, at int64, readings ...telemetry.Reading) {
		e.Observe(e.Subject("m", telemetry.NewLabels(telemetry.Label{Name: "device", Value: device})), at, at, readings, func(*Event) {})
	}
	send("a", sec, telemetry.Reading{Metric: "t", Value: 45}, telemetry.Reading{Metric: "h", Value: 1})
	send("b", 2*sec, telemetry.Reading{Metric: "t", Value: 60})
	send("c", 3*sec, telemetry.Reading{Metric: "t", Value: 1})
	list := e.Explain(2)
	if len(list) != 3 {
		t.Fatalf("%d rules", len(list))
	}
	hot, soon := list[0], list[1]
	if hot.Rule.Alert != "Hot" || hot.Matched != 3 || hot.Firing != 1 || hot.Pending != 0 || len(hot.Series) != 2 {
		t.Errorf("Hot: %+v", hot)
	}
	if s := hot.Series[0]; s.State != Firing || s.Labels.Get("device") != "b" || s.Why != "t = 60" || s.Since != 2*sec || s.Evaluated != 2*sec || s.Fingerprint == 0 {
		t.Errorf("Hot, first series: %+v", s)
	}
	if s := hot.Series[1]; s.State != 0 || s.Labels.Get("device") != "a" || s.Why != "t = 45" {
		t.Errorf("Hot, second series: %+v", s)
	}
	if soon.Pending != 1 || soon.Series[0].State != Pending || soon.Series[0].Why != "t = 45, h = 1" || !strings.Contains(soon.Series[1].Why, "h is not known yet") {
		t.Errorf("Soon: %+v", soon)
	}
	if list[2].Matched != 0 {
		t.Errorf("Elsewhere: %+v", list[2])
	}
}
