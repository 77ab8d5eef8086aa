package ruletest

import (
	"strings"
	"testing"

	"sluice/rules"
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
		{`{ at: 5m, webhook: ops, status: firing, count: 1 }`, "webhook ops\n  - want  1 told firing\n  + got   2"},
		{`{ at: 15m, webhook: ops, status: resolved }`, "- want  at least 1 alert resolved\n  + got   none"},
	} {
		file, set := parse(t, every+"      - "+c.expect+"\n")
		r := Run(file, set)[0]
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
	for _, r := range Run(file, set) {
		for _, f := range r.Failures {
			t.Errorf("%s, line %d: %s", r.Name, f.Line, f.Text)
		}
	}
}

func TestRun_IsDeterministic(t *testing.T) {
	file, set := parse(t, every+"      - { at: 15m, alert: Warm, state: inactive }\n      - { at: 15m, alert: Silent, state: inactive }\n")
	first := Run(file, set)[0].Failures
	for range 20 {
		for i, f := range Run(file, set)[0].Failures {
			if f != first[i] {
				t.Fatalf("got %+v, then %+v", first[i], f)
			}
		}
	}
}
