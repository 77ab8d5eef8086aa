package ruletest

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"sluice/rules"
	"sluice/rules/notify"
)

const someRules = `
groups:
  - name: g
    rules:
      - { alert: Warm, expr: temperature > 8, for: 5m, annotations: { summary: "{{ $labels.device }} at {{ $value }}" }, webhooks: [ops] }
      - { alert: Silent, absent: { metric: temperature, after: 2m } }
      - { alert: Evening, expr: "temperature > 0 and hour() >= 18" }
`

func parse(t *testing.T, tests string) (*rules.TestFile, *rules.Set) {
	t.Helper()
	set, err := rules.Parse([]rules.File{{Name: "r.yaml", Data: []byte(someRules)}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := rules.ParseTests(rules.File{Name: "r_test.yaml", Data: []byte(tests)})
	if err != nil {
		t.Fatal(err)
	}
	return file, set
}

// every is a timeline of fifteen minutes.
const every = `
rules: [r.yaml]
tests:
  - name: it
    input:
      - { at: 0s, every: 30s, until: 15m, labels: { device: a }, values: { temperature: 9 } }
      - { at: 0s, labels: { device: b }, values: { temperature: 1 } }
    expect:
`

func TestRun_ExpectationsHoldOrSayWhatTheyFound(t *testing.T) {
	for _, c := range []struct{ expect, failure string }{
		{`{ at: 4m, alert: Warm, state: pending }`, ""},
		{`{ at: 4m59s, alert: Warm, labels: { device: a }, state: pending, value: 9 }`, ""},
		{`{ at: 5m, alert: Warm, state: firing, value: 9, summary: "a at 9" }`, ""},
		{`{ at: 5m, alert: Warm, labels: { device: b }, state: inactive }`, ""},
		{`{ at: 5m, alert: Silent, labels: { device: b }, state: firing, value: 300 }`, ""},
		{`{ at: 5m, webhook: ops, status: firing, count: 2 }`, ""},
		{`{ at: 5m, webhook: other, status: firing, count: 1 }`, ""},
		{`{ at: 5m, webhook: ops, alert: Warm, count: 1 }`, ""},
		{`{ at: 4m, webhook: ops, alert: Warm, count: 0 }`, ""},
		{`{ at: 5m, webhook: ops, labels: { device: a } }`, ""},
		{`{ at: 5m, alert: Evening, state: inactive }`, ""},

		{`{ at: 4m, alert: Warm, state: firing, value: 9 }`, "at 4m0s: Warm\n  - want  firing, value 9\n  + got   pending, value 9 {alertname=\"Warm\", device=\"a\"}\n    until then:\n      2m0s     firing   {alertname=\"Silent\", device=\"b\"} value 120\n"},
		{`{ at: 1m, alert: Warm, state: inactive }`, "- want  no alert is pending or firing\n  + got   pending"},
		{`{ at: 1m, alert: Silent, labels: { device: a }, state: firing }`, "Silent{device=\"a\"}\n  - want  firing\n  + got   no alert is pending or firing\n    until then nothing fired"},
		{`{ at: 5m, alert: Warm, state: firing, value: 8 }`, "- want  firing, value 8\n  + got   firing, value 9"},
		{`{ at: 5m, alert: Warm, state: firing, summary: "b at 9" }`, "summary \"b at 9\"\n  + got   firing, value 9, summary \"a at 9\""},
		{`{ at: 5m, webhook: ops, status: firing, count: 1 }`, "webhook ops\n  - want  1 firing notification\n  + got   2 firing notifications"},
		{`{ at: 15m, webhook: ops, status: resolved }`, "- want  at least 1 resolved notification\n  + got   none\n    until then:\n      2m10s    changed   firing {alertname"},
	} {
		file, set := parse(t, every+"      - "+c.expect+"\n")
		r := Run(file, set, Options{})[0]
		got := ""
		for _, f := range r.Failures {
			got += f.Text
		}
		if (got == "") != (c.failure == "") || !strings.Contains(got, c.failure) {
			t.Errorf("%s\n got %s\nwant %s", c.expect, got, c.failure)
		}
		if c.failure != "" && (len(r.Failures) != 1 || r.Failures[0].Line != 9) {
			t.Errorf("%s: failures %+v, want one of line 9", c.expect, r.Failures)
		}
	}
}

func TestRun_InputsOfEveryKind(t *testing.T) {
	file, set := parse(t, `
rules: r.yaml
tests:
  - name: steps of values, event times, retained messages, availability, the time of day
    start: 2026-01-05T16:00:00Z
    zone: Europe/Berlin
    input:
      - { at: 0s, every: 1m, until: 3m, labels: { device: steps }, values: { temperature: [1, 9] } }
      - { at: 10m, time: 1m, labels: { device: steps }, values: { temperature: 1 } }
      - { at: 0s, labels: { device: bridge }, retained: true, values: { temperature: 1 } }
      - { at: 1m, labels: { device: bridge }, retained: true, time: 0s, values: { temperature: 1 } }
      - { at: 0s, labels: { device: gone }, values: { temperature: 1 } }
      - { at: 30s, labels: { device: gone }, online: false }
      - { at: 40s, labels: { device: gone }, online: true }
    expect:
      - { at: 5m, alert: Warm, labels: { device: steps }, state: pending, value: 9 }
      - { at: 10m, alert: Warm, labels: { device: steps }, state: firing }
      - { at: 2m, alert: Silent, labels: { device: bridge }, state: firing }
      - { at: 30s, alert: Silent, labels: { device: gone }, state: firing }
      - { at: 45s, alert: Silent, labels: { device: gone }, state: inactive }
      - { at: 59m, alert: Evening, state: inactive }
      - { at: 1h, alert: Evening, labels: { device: steps }, state: firing }
  - name: a second test begins anew
    expect:
      - { at: 1h, alert: Warm, state: inactive }
      - { at: 1h, webhook: ops, count: 0 }
`)
	for _, r := range Run(file, set, Options{}) {
		for _, f := range r.Failures {
			t.Errorf("%s, line %d: %s", r.Name, f.Line, f.Text)
		}
	}
}

func TestRun_IsDeterministic(t *testing.T) {
	file, set := parse(t, every+"      - { at: 15m, alert: Warm, state: inactive }\n      - { at: 15m, alert: Silent, state: inactive }\n")
	first := Run(file, set, Options{})[0].Failures
	for range 20 {
		for i, f := range Run(file, set, Options{})[0].Failures {
			if f != first[i] {
				t.Fatalf("got %+v, then %+v", first[i], f)
			}
		}
	}
}

// The policy of the gateway has its part: grouping, repeats, silences, acknowledgements, escalation, inhibition.
func TestRun_WebhooksAreToldAsTheGatewayWouldTellThem(t *testing.T) {
	set, err := rules.Parse([]rules.File{{Name: "r.yaml", Data: []byte(`
groups:
  - name: g
    rules:
      - { alert: Silent, absent: { metric: temperature, after: 2m }, webhooks: [ops], escalate: [{ after: 15m, to: boss }], inhibit: { when: Down, equal: [site] } }
      - { alert: Warm, expr: temperature > 8, for: 1m, webhooks: [ops, slow] }
      - { alert: Down, expr: down == 1, webhooks: [ops] }
`)}})
	if err != nil {
		t.Fatal(err)
	}
	file, err := rules.ParseTests(rules.File{Name: "r_test.yaml", Data: []byte(`
rules: [r.yaml]
webhooks:
  - { name: ops, group_by: [alertname, site], repeat_interval: 1h }
  - { name: slow, group_wait: 5m, repeat_interval: 0s }
tests:
  - name: three devices that fall silent together are one notification, repeated, and escalated
    input:
      - { at: 0s, labels: { site: p, device: a }, values: { temperature: 1 } }
      - { at: 0s, labels: { site: p, device: b }, values: { temperature: 1 } }
      - { at: 6s, labels: { site: p, device: c }, values: { temperature: 1 } }
    expect:
      - { at: 1m59s, webhook: ops, count: 0 }
      - { at: 2m, alert: Silent, state: firing }
      - { at: 2m9s, webhook: ops, count: 0 }     # others may follow
      - { at: 2m10s, webhook: ops, status: firing, count: 1, alerts: 3 }
      - { at: 16m59s, webhook: boss, count: 0 }
      - { at: 17m10s, webhook: boss, status: firing, count: 1, alerts: 3, reason: escalated }
      - { at: 1h3m, webhook: ops, status: firing, count: 1, alerts: 3 }
      - { at: 1h3m, webhook: ops, reason: repeated, count: 1, alerts: 3 }
      - { at: 2h3m, webhook: ops, reason: repeated, count: 2, alerts: 6 }
  - name: who acknowledges is not told again, and nobody else is
    input:
      - { at: 0s, labels: { site: p, device: a }, values: { temperature: 1 } }
      - { at: 3m, acknowledge: Silent, labels: { device: a } }
    expect:
      - { at: 3h, webhook: ops, count: 1 }
      - { at: 3h, webhook: boss, count: 0 }
  - name: a silence mutes, and what still fires afterwards is told then
    input:
      - { at: 1s, silence: { device: "a*" }, for: 10m }
      - { at: 2s, every: 30s, until: 12m, labels: { site: p, device: a }, values: { temperature: 9 } }
    expect:
      - { at: 10m, alert: Warm, state: firing }
      - { at: 10m, webhook: ops, count: 0 }
      - { at: 10m2s, webhook: ops, alert: Warm, count: 1 }
  - name: what starts within the wait is one notification; what ends within it is none
    input:
      - { at: 0s, every: 30s, until: 10m, labels: { site: p, device: a }, values: { temperature: 9 } }
      - { at: 1m, every: 30s, until: 10m, labels: { site: p, device: b }, values: { temperature: [9, 9, 9, 9, 1] } }
      - { at: 1m, every: 30s, until: 10m, labels: { site: p, device: c }, values: { temperature: 9 } }
    expect:
      - { at: 5m59s, webhook: slow, count: 0 }
      - { at: 6m, webhook: slow, count: 1, alerts: 2 }
      - { at: 6m, webhook: ops, alert: Warm, count: 3 }
  - name: a site that is down explains its silent sensors
    input:
      - { at: 0s, labels: { site: p, device: a }, values: { temperature: 1 } }
      - { at: 1m, labels: { site: p, device: router }, values: { down: 1 } }
    expect:
      - { at: 5m, alert: Silent, labels: { device: a }, state: firing }
      - { at: 5m, webhook: ops, status: firing, count: 1 }
      - { at: 5m, webhook: ops, alert: Silent, count: 0 }
      - at: 5m
        webhook: ops
        body: { status: firing, commonLabels: { device: router }, alerts: [ { labels: { alertname: Down }, startsAt: "2026-01-05T00:01:00Z" } ], truncatedAlerts: 0 }
`)})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{Default: notify.Receiver{GroupBy: []string{"alertname"}, RepeatInterval: 4 * time.Hour}}
	o.Body = func(_ int, n *notify.Notification) ([]byte, error) {
		return json.Marshal(map[string]any{"status": "firing", "commonLabels": n.Alerts[0].Labels.Map(), "truncatedAlerts": 0, "more": true,
			"alerts": []any{map[string]any{"labels": n.Alerts[0].Labels.Map(), "startsAt": time.Unix(0, n.Alerts[0].StartsAt).UTC()}}})
	}
	for _, r := range Run(file, set, o) {
		for _, f := range r.Failures {
			t.Errorf("%s, line %d: %s", r.Name, f.Line, f.Text)
		}
	}
}

func TestRun_ABodyThatDiffersIsShownPlaceByPlace(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{ a: 1, b: { c: [x, true] } }`, ""},
		{`{ a: 1.0 }`, ""},
		{`{ b: { c: [x] } }`, `- want  body.b.c ["x"]` + "\n  + got   body.b.c [\"x\",true]"},
		{`{ b: { c: [y, false] } }`, `- want  body.b.c[0] "y"` + "\n  - want  body.b.c[1] false\n  + got   body.b.c[0] \"x\"\n  + got   body.b.c[1] true"},
		{`{ d: 1 }`, "+ got   body.d is not there"},
		{`{ a: "1" }`, `- want  body.a "1"` + "\n  + got   body.a 1"},
		{`{ a: { b: 1 } }`, `- want  body.a {"b":1}`},
		{`plain`, `- want  body "plain"`},
	} {
		file, set := parse(t, every+"      - { at: 5m, webhook: ops, alert: Warm, body: "+c.body+" }\n")
		o := Options{Body: func(int, *notify.Notification) ([]byte, error) { return []byte(`{"a":1,"b":{"c":["x",true]}}`), nil }}
		got := ""
		for _, f := range Run(file, set, o)[0].Failures {
			got += f.Text
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s\nwant %s", c.body, got, c.want)
		}
	}
}
