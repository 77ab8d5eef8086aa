package rules

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

func parseErrors(t testing.TB, text string) Errors {
	t.Helper()
	_, err := Parse([]File{{Name: "cold.yaml", Data: []byte(text)}})
	if err == nil {
		return nil
	}
	var errs Errors
	if !errors.As(err, &errs) {
		t.Fatalf("Parse: %T is no Errors: %v", err, err)
	}
	return errs
}

// rule puts one rule, given in flow style from column 9 of line 4, into a file.
func oneRule(rule string) string { return "groups:\n- name: g\n  rules:\n      - " + rule + "\n" }

func TestParse_ErrorsCarryFileLineAndColumn(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{oneRule(`{ alert: A, expr: t > 1, for: 30 }`), `cold.yaml:4:39: for: want a duration such as "30s", "5m", "1h30m" or "5d", got "30"`},
		{oneRule(`{ alert: A, expr: t > 1, keep_firing_for: soon }`), `cold.yaml:4:51: keep_firing_for: want a duration`},
		{oneRule(`{ alert: A, expr: t > 1, for: 4000d }`), `cold.yaml:4:39: for: a duration is at most 3650d, got "4000d"`},
		{oneRule(`{ alert: A, expr: t > 1, for: [5m] }`), `cold.yaml:4:39: for: want text, got a list`},
		{oneRule(`{ alert: A, expr: t > 1, summary: x }`), `cold.yaml:4:34: unknown key "summary": a rule has alert, match, expr, clear`},
		{oneRule(`{ alert: A, exp: t > 1 }`), `cold.yaml:4:21: unknown key "exp": did you mean expr?`},
		{oneRule(`{ alert: A, expr: t }`), `cold.yaml:4:27: expr: want a condition such as t > 0, got a number`},
		{oneRule(`{ alert: A, expr: "t > 1 and u" }`), `cold.yaml:4:38: expr: and wants a condition such as u > 0, got a number`},
		{oneRule(`{ alert: A, expr: 't > "" or ''x''' }`), `cold.yaml:4:38: expr: a metric name`},
		{oneRule(`{ alert: A, expr: t > 1, clear: t < }`), `cold.yaml:4:44: clear: want a number or a metric, got the end of the expression`},
		{oneRule(`{ alert: A }`), `cold.yaml:4:9: a rule: the key expr is missing`},
		{oneRule(`{ expr: t > 1 }`), `cold.yaml:4:9: a rule: the key alert is missing`},
		{oneRule(`{ alert: "", expr: t > 1 }`), `cold.yaml:4:18: alert: want text, got nothing`},
		{oneRule(`{ alert: a/b, expr: t > 1 }`), `cold.yaml:4:19: alert: '/' does not fit a name`},
		{oneRule(`{ alert: A, expr: t > 1, match: { device: "a[12]" } }`), `cold.yaml:4:51: match: device: bad pattern "a[12]": only * and ? are special; write \[ for the character itself`},
		{oneRule(`{ alert: A, expr: t > 1, match: { device: 'a\' } }`), `cold.yaml:4:51: match: device: bad pattern "a\\": nothing follows`},
		{oneRule(`{ alert: A, expr: t > 1, match: { device: } }`), `cold.yaml:4:51: match: device: want text, got nothing`},
		{oneRule(`{ alert: A, expr: t > 1, match: { de vice: x } }`), `cold.yaml:4:43: match: "de vice" is no label name`},
		{oneRule(`{ alert: A, expr: t > 1, match: [a] }`), `cold.yaml:4:41: match: want names and values, got a list`},
		{oneRule(`{ alert: A, expr: t > 1, labels: { alertname: B } }`), `cold.yaml:4:44: labels: alertname is set to the name of the alert`},
		{oneRule(`{ alert: A, expr: t > 1, labels: { v: "is {{ $value }}" } }`), `cold.yaml:4:51: labels: v: a label is plain text`},
		{oneRule(`{ alert: A, expr: t > 1, annotations: { s: "is {{ .Value }}" } }`), `cold.yaml:4:56: annotations: s: unknown reference ".Value": an annotation knows {{ $value }} and {{ $labels.name }}`},
		{oneRule(`{ alert: A, expr: t > 1, annotations: { s: "is {{ $value" } }`), `cold.yaml:4:56: annotations: s: no closing }}`},
		{oneRule(`{ alert: A, expr: t > 1, webhooks: [] }`), `cold.yaml:4:44: webhooks: want at least one name`},
		{oneRule(`{ alert: A, expr: t > 1, webhooks: [a, a] }`), `cold.yaml:4:48: webhooks: "a" is here twice`},
		{oneRule(`{ alert: A, expr: t > 1, webhooks: ops }`), `cold.yaml:4:44: webhooks: want a list, got the text "ops"`},
		{oneRule(`{ alert: A, alert: B, expr: t > 1 }`), `cold.yaml:4:21: the key "alert" is here twice`},
		{oneRule(`{ alert: A, expr: t > 1, anomaly: { metric: t } }`), `cold.yaml:4:43: anomaly: a rule has one condition: expr, absent or anomaly`},
		{oneRule(`{ alert: A, anomaly: { metric: t, method: magic } }`), `cold.yaml:4:30: anomaly: method`},
		{oneRule(`{ alert: A, anomaly: { metric: t, sensitivity: -1 } }`), `cold.yaml:4:56: sensitivity: want a number above 0 such as 4, got "-1"`},
		{oneRule(`{ alert: A, anomaly: { metric: t }, clear: t < 1 }`), `cold.yaml:4:52: clear: only a rule with expr has it`},
		{oneRule(`{ alert: A, expr: avg(t, 5m) > 1 }`), `cold.yaml:4:30: expr: no closing ): between { } an expression with a comma needs quotes`},
		{oneRule(`{ alert: A, absent: { metric: t } }`), `cold.yaml:4:29: absent: the key after is missing`},
		{oneRule(`{ alert: A, absent: { metric: t, after: 1x } }`), `cold.yaml:4:49: after: want a multiple from above 1x to 1000x, such as 3x, got "1x"`},
		{oneRule(`{ alert: A, absent: { metric: t, after: 30 } }`), `cold.yaml:4:49: after: want a duration such as "30s", "5m", "1h30m" or "5d", or a multiple of the device's interval such as 3x, got "30"`},
		{oneRule(`{ alert: A, absent: { metric: t, after: 0s } }`), `cold.yaml:4:49: after: the duration must be longer than 0`},
		{oneRule(`{ alert: A, absent: { metric: t, after: 3x, expect: [a, b, a] } }`), `cold.yaml:4:68: expect: "a" is here twice`},
		{oneRule(`{ alert: A, expr: t > 1, active: x }`), `cold.yaml:4:42: active: want keys and values (days, hours, zone), got the text "x"`},
		{oneRule(`{ alert: A, expr: t > 1, active: { days: [mo-fr] } }`), `cold.yaml:4:51: days: want days such as mon or mon-fri, got "mo-fr"`},
		{oneRule(`{ alert: A, expr: t > 1, active: { days: [] } }`), `cold.yaml:4:50: days: the list is empty`},
		{oneRule(`{ alert: A, expr: t > 1, active: { hours: "6-22" } }`), `cold.yaml:4:51: hours: want hours such as "06:00-22:00", got "6-22"`},
		{oneRule(`{ alert: A, expr: t > 1, active: { hours: "06:00-06:00" } }`), `cold.yaml:4:51: hours: "06:00-06:00" is no time at all`},
		{oneRule(`{ alert: A, expr: t > 1, active: { hours: "06:00-25:00" } }`), `cold.yaml:4:51: hours: want hours`},
		{oneRule(`{ alert: A, expr: t > 1, zone: Mars/Olympus }`), `cold.yaml:4:40: zone: unknown time zone "Mars/Olympus"`},
		{oneRule(`{ alert: A, expr: t > 1, zone: Local }`), `cold.yaml:4:40: zone: unknown time zone "Local"`},
		{oneRule(`{ alert: A, expr: t > 1, inhibit: x }`), `cold.yaml:4:43: inhibit: want keys and values (when, equal), got the text "x"`},
		{oneRule(`{ alert: A, expr: t > 1, inhibit: { when: A } }`), `cold.yaml:4:51: when: an alert cannot inhibit itself`},
		{oneRule(`{ alert: Abc, expr: t > 1, inhibit: { when: Bbc } }`), `cold.yaml:4:53: when: there is no alert "Bbc"`},
		{oneRule("{ alert: Abc, expr: t > 1 }\n      - { alert: B, expr: t > 1, inhibit: { when: Abd, equal: [device, 'a b'] } }"), `cold.yaml:5:72: equal: "a b" is no label name`},
		{oneRule("{ alert: Abc, expr: t > 1 }\n      - { alert: B, expr: t > 1, inhibit: { when: Abd } }"), `cold.yaml:5:51: when: there is no alert "Abd": did you mean Abc?`},
		{oneRule(`{ alert: A, expr: 't > last("device=a*,site", t)' }`), `cold.yaml:4:48: expr: a selector is label=pattern, as in site=plant-7,device=pump-*, got "site"`},
		{oneRule(`{ alert: A, expr: 't > last("device=", t)' }`), `cold.yaml:4:38: expr: device: want a pattern`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: x }`), `cold.yaml:4:44: escalate: want a list, got the text "x"`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: [] }`), `cold.yaml:4:44: escalate: the list is empty`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: [{ after: 5m }] }`), `cold.yaml:4:45: escalate: the key to is missing`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: [{ after: 0s, to: [a] }] }`), `cold.yaml:4:54: after: want more than nothing: who is told at once stands in webhooks`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: [{ after: 5m, to: [a, a] }] }`), `cold.yaml:4:66: to: "a" is here twice`},
		{oneRule(`{ alert: A, expr: t > 1, escalate: [{ after: 5m, to: a }, { after: 5m, to: b }] }`), `cold.yaml:4:67: escalate: want steps in growing order of after`},
		{oneRule(`{ record: a, expr: t > 1 }`), `cold.yaml:4:11: record: there are no recording rules`},
		{oneRule(`{ <<: {}, alert: A, expr: t > 1 }`), `cold.yaml:4:11: merge keys (<<) are not supported`},
		{oneRule(`{ [a]: b, alert: A, expr: t > 1 }`), `cold.yaml:4:11: want a plain word as key, got a list`},
		{oneRule(`nonsense`), `cold.yaml:4:9: a rule: want keys and values (alert, match`},
		{"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: |\n      t > 1 and\n      u\n", `cold.yaml:7:7: expr: and wants a condition`},
		{"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: >-\n      t > 1\n      and\n        u\n", `cold.yaml:8:9: expr: and wants a condition`},
		{"groups:\n- name: g\n  rules:\n  - alert: A\n    expr: t > 1\n      and u\n", `cold.yaml:6:11: expr: and wants a condition`},
		{"groups:\r\n- name: é\r\n  rules:\r\n  - {alert: é, expr: é > 1 and ü}\r\n", `cold.yaml:4:32: expr: and wants a condition`},
		{"\ufeffgroups: 1\n", `cold.yaml:1:9: groups: want a list, got the text "1"`},
		{"groups:\n", `cold.yaml:1:8: groups: want a list, got nothing`},
		{"rules: []\n", `cold.yaml:1:1: unknown key "rules": a rule file has groups`},
		{"[]\n", `cold.yaml:1:1: a rule file: want keys and values (groups), got a list`},
		{"groups:\n- rules: []\n", `cold.yaml:2:3: a group: the key name is missing`},
		{"groups:\n- name: g\n", `cold.yaml:2:3: a group: the key rules is missing`},
		{"groups:\n- { name: g, rules: [] }\n- { name: g, rules: [] }\n", `cold.yaml:3:11: name: this file already has a group "g"`},
		{"groups:\n- { name: g, rules: [], interval: 1m }\n", `cold.yaml:2:25: interval: rules run with every message`},
		{"groups: [1\nb: 2\n", `cold.yaml:2:2: did not find expected ',' or ']'`},
		{"a: @x", `cold.yaml:1:4: found character that cannot start any token`},
		{"a: b\xff\n", `cold.yaml:1:5: the file is not valid UTF-8`},
		{"groups: []\n---\ngroups: []\n", `cold.yaml: the file holds more than one YAML document`},
		{strings.Repeat("#", MaxFile+1), `cold.yaml: the file is larger than 256 KB`},
		{strings.Repeat("[", 20_000), `cold.yaml:1:`},
	} {
		errs := parseErrors(t, c.text)
		if len(errs) == 0 {
			t.Errorf("Parse accepts\n%.200s\nwant %s", c.text, c.want)
			continue
		}
		if !slices.ContainsFunc(errs, func(e Error) bool { return strings.HasPrefix(e.Error(), c.want) }) {
			t.Errorf("Parse of\n%.200s\n got %v\nwant %s", c.text, errs, c.want)
		}
	}
}

func TestParse_ReportsEveryErrorOfEveryFile(t *testing.T) {
	_, err := Parse([]File{
		{"b.yaml", []byte("groups:\n- name: g\n  rules:\n  - { alert: A, expr: t > 1, for: 30 }\n  - { alert: B, expr: t, fro: 5m }\n")},
		{"a.yaml", []byte("groups:\n- name: g\n  rules:\n  - { alert: A, expr: t > 1 }\n")},
	})
	want := "b.yaml:4:14: alert: \"A\" is already defined at a.yaml:4\n" +
		"b.yaml:4:35: for: want a duration such as \"30s\", \"5m\", \"1h30m\" or \"5d\", got \"30\"\n" +
		"b.yaml:5:23: expr: want a condition such as t > 0, got a number\n" +
		"b.yaml:5:26: unknown key \"fro\": did you mean for?"
	if err == nil || err.Error() != want {
		t.Errorf("Parse:\n%v\nwant\n%s", err, want)
	}
	var one Error
	if !errors.As(err, &one) || one.File != "b.yaml" || one.Line != 4 {
		t.Errorf("errors.As finds %+v, want the first Error", one)
	}
}

func TestErrors_DetailShowsTheLineAndACaret(t *testing.T) {
	errs := parseErrors(t, "groups:\n- name: g\n  rules:\n\n  - alert: Über\n    expr: 'ü > 1 and \tü'\n")
	want := "cold.yaml:6:23: expr: and wants a condition such as ü > 0, got a number\n" +
		"        expr: 'ü > 1 and  ü'\n" +
		"                          ^\n"
	if got := errs.Detail(); got != want {
		t.Errorf("Detail:\n%s\nwant\n%s", got, want)
	}
	long := Error{File: "f", Line: 1, Column: 5001, Source: strings.Repeat("x", 5000) + "\x1b[31mY"}
	lines := strings.Split(long.Snippet(), "\n")
	if len(lines[0]) > 4+snippetWidth || strings.Contains(lines[0], "\x1b") || lines[0][len(lines[1])-1] != '?' {
		t.Errorf("Snippet of a long line with an escape:\n%q", lines)
	}
}

func TestParse_AcceptsWhatIsNothing(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "groups: []\n", "---\n", "groups:\n- { name: g, rules: [] }\n"} {
		if errs := parseErrors(t, text); errs != nil {
			t.Errorf("Parse(%q): %v", text, errs)
		}
	}
}

func TestParse_AliasesAreReadAndCannotMultiplyTheWork(t *testing.T) {
	set := mustParse(t, "groups:\n- name: g\n  rules:\n  - { alert: A, expr: t > 1, labels: &l { severity: critical } }\n  - { alert: B, expr: t > 2, labels: *l }\n")
	if got := set.Rules()[1].Labels.Get("severity"); got != "critical" {
		t.Errorf("label behind an alias = %q", got)
	}
	var bomb strings.Builder
	bomb.WriteString("groups:\n- name: g0\n  rules: &r\n")
	for range 5000 {
		bomb.WriteString("  - {}\n")
	}
	for i := range 5000 {
		fmt.Fprintf(&bomb, "- { name: g%d, rules: *r }\n", i+1)
	}
	errs := parseErrors(t, bomb.String()) // of which each taken by itself would take longer than go test waits
	if len(errs) == 0 || len(errs) > maxErrors+1 {
		t.Fatalf("%d errors for a file of 25 million aliased rules", len(errs))
	}
	wide := "groups:\n- name: g\n  rules:\n  - { alert: A, expr: t > 1, annotations: &a { "
	for i := range 1000 {
		wide += fmt.Sprintf("a%d: b, ", i)
	}
	wide += "} }\n"
	for i := range 100 {
		wide += fmt.Sprintf("  - { alert: A%d, expr: t > 1, annotations: *a }\n", i)
	}
	if errs := parseErrors(t, wide); len(errs) != 1 || !strings.Contains(errs[0].Msg, "once its aliases are followed") {
		t.Errorf("a file of 200,000 values behind aliases: %v", errs)
	}
	cycle := parseErrors(t, "groups: &g\n- name: g\n  rules: *g\n")
	if len(cycle) == 0 {
		t.Error("rules that are their own groups are accepted")
	}
}

func TestParse_ReadsARule(t *testing.T) {
	set := mustParse(t, `
groups:
  - name: cold-chain
    rules:
      - alert: Freezer Warm
        match: { site: plant-7, device: "freezer-*" }
        expr: |
          temperature > -15
            and door == 0
        clear: temperature < -17
        for: 1h30m
        keep_firing_for: 2m
        labels: { severity: critical, tier: 1, on: yes }
        annotations: { summary: "{{$labels.device}} at {{ $value }}" }
        webhooks: [ops, boss]
`)
	r := set.Rules()[0]
	if r.Alert != "Freezer Warm" || r.Group != "cold-chain" || r.For != 90*time.Minute || r.KeepFiringFor != 2*time.Minute ||
		r.Match.String() != `{device="freezer-*", site="plant-7"}` || r.Labels.String() != `{on="yes", severity="critical", tier="1"}` ||
		!slices.Equal(r.Webhooks, []string{"ops", "boss"}) || r.File != "rules.yaml" || r.Line != 5 || r.Clear != "temperature < -17" {
		t.Errorf("rule = %+v", r)
	}
	if files := set.Files(); len(files) != 1 || files[0].Name != "rules.yaml" {
		t.Errorf("Files() = %v", files)
	}
}

func TestParse_GroupNameMayFollowItsRules(t *testing.T) {
	set := mustParse(t, "groups:\n- rules: [{ alert: A, expr: t > 1 }]\n  name: g\n- { name: h, rules: [{ alert: B, expr: t > 1 }] }\n")
	if a, b := set.Rules()[0].Group, set.Rules()[1].Group; a != "g" || b != "h" {
		t.Errorf("groups %q and %q, want g and h", a, b)
	}
}

func TestSet_CheckWebhooksPointsAtUnknownNames(t *testing.T) {
	set := mustParse(t, oneRule(`{ alert: A, expr: t > 1, escalate: [{ after: 5m, to: [ops] }, { after: 1h, to: boss }] }`))
	if err := set.CheckWebhooks([]string{"ops", "boss"}); err != nil {
		t.Errorf("CheckWebhooks: %v", err)
	}
	if got := set.Rule("A").Escalate; len(got) != 2 || got[1].After != time.Hour || !slices.Equal(got[1].To, []string{"boss"}) {
		t.Errorf("escalate %+v", got)
	}
	if err := set.CheckWebhooks([]string{"ops"}); err == nil || !strings.Contains(err.Error(), `unknown webhook "boss"`) {
		t.Errorf("CheckWebhooks = %v, want the escalation's boss named", err)
	}
	set = mustParse(t, oneRule(`{ alert: A, expr: t > 1, webhooks: [ops, boss] }`))
	if err := set.CheckWebhooks([]string{"ops", "boss"}); err != nil {
		t.Errorf("CheckWebhooks: %v", err)
	}
	err := set.CheckWebhooks([]string{"ops"})
	if want := `rules.yaml:4:50: unknown webhook "boss": configured are ops`; err == nil || err.Error() != want {
		t.Errorf("CheckWebhooks = %v, want %s", err, want)
	}
}

func TestSet_FingerprintIsStableAndSeesDefinitionsOnly(t *testing.T) {
	a := mustParse(t, oneRule(`{ alert: A, expr: t > 1, for: 60s, labels: { a: b } }`))
	same := mustParse(t, "# moved\ngroups:\n- name: other\n  rules:\n  - alert: A\n    labels: {a: b}\n    for: 1m\n    expr: >\n      t\n      > 1\n")
	if a.Fingerprint() != same.Fingerprint() {
		t.Error("spacing, group or order of keys change the fingerprint")
	}
	// Snapshots in the field hold this number: a change here orphans them.
	if got, want := a.Fingerprint(), uint64(0xfbf1001191c93917); got != want {
		t.Errorf("Fingerprint = %#x, want %#x", got, want)
	}
	for _, other := range []string{
		`{ alert: B, expr: t > 1, for: 60s, labels: { a: b } }`,
		`{ alert: A, expr: t > 2, for: 60s, labels: { a: b } }`,
		`{ alert: A, expr: t > 1, for: 61s, labels: { a: b } }`,
		`{ alert: A, expr: t > 1, for: 60s, labels: { a: c } }`,
		`{ alert: A, expr: t > 1, for: 60s, annotations: { a: b } }`,
		`{ alert: A, expr: t > 1, for: 60s, match: { a: b } }`,
		`{ alert: A, expr: t > 1, for: 60s, labels: { a: b }, clear: t < 0 }`,
		`{ alert: A, expr: t > 1, for: 60s, labels: { a: b }, keep_firing_for: 1s }`,
		`{ alert: A, expr: t > 1, for: 60s, labels: { a: b }, webhooks: [x] }`,
	} {
		if mustParse(t, oneRule(other)).Fingerprint() == a.Fingerprint() {
			t.Errorf("%s has the same fingerprint", other)
		}
	}
}

func TestFingerprint_IsTheAlertmanagers(t *testing.T) {
	// FNV-1a over "alertname" 0xff "A" 0xff "device" 0xff "x" 0xff.
	got := Fingerprint(telemetry.NewLabels(telemetry.Label{Name: "device", Value: "x"}, telemetry.Label{Name: "alertname", Value: "A"}))
	if want := uint64(0x32ca213755a8fc6f); got != want {
		t.Errorf("Fingerprint = %#x, want %#x", got, want)
	}
	if got := Fingerprint(nil); got != 0xcbf29ce484222325 {
		t.Errorf("Fingerprint of no labels = %#x", got)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, value string
		want           bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "aa", false},
		{"freezer-*", "freezer-1", true}, {"freezer-*", "freezer-", true}, {"freezer-*", "freezer", false}, {"freezer-*", "a-freezer-1", false},
		{"*", "x", true}, {"*-1", "freezer-1", true}, {"*-1", "freezer-11", false}, {"*a*b*", "xxaxxbxx", true}, {"*a*b*", "xxbxxaxx", false},
		{"?", "é", true}, {"?", "éé", false}, {"f?o", "fóo", true}, {"*é?", "aéb", true}, {"a?", "a", false}, {"?*", "a", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`a\?b`, "a?b", true}, {`a\?b`, "axb", false}, {`\a`, "a", true}, {`*\*`, "ab*", true}, {`*\*`, "ab", false},
		{"a**b", "ab", true}, {"a**b", "axxb", true}, {"A", "a", false},
	} {
		m, err := ParseMatchers(map[string]string{"l": c.pattern})
		if err != nil {
			t.Errorf("ParseMatchers(%q): %v", c.pattern, err)
			continue
		}
		if got := m.Match(telemetry.NewLabels(telemetry.Label{Name: "l", Value: c.value})); got != c.want {
			t.Errorf("%q matches %q = %v, want %v", c.pattern, c.value, got, c.want)
		}
	}
	m, _ := ParseMatchers(map[string]string{"l": "*"})
	if m.Match(nil) {
		t.Error("* matches a label that is not there")
	}
	if !Matchers(nil).Match(nil) {
		t.Error("no matchers match nothing, want everything")
	}
	if _, err := ParseMatchers(map[string]string{"l": strings.Repeat("*", maxPattern+1)}); err == nil {
		t.Error("a pattern without bound is accepted")
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("*a*b?", "xaybz")
	f.Add(`\**`, "*x")
	f.Fuzz(func(t *testing.T, pattern, value string) {
		m, err := newMatcher("l", pattern)
		if err != nil || value == "" || strings.ToValidUTF8(value, "") != value {
			return
		}
		var re strings.Builder
		re.WriteString(`(?s)^`)
		escaped := false
		for _, r := range pattern {
			switch {
			case escaped:
				re.WriteString(regexp.QuoteMeta(string(r)))
				escaped = false
			case r == '\\':
				escaped = true
			case r == '*':
				re.WriteString(".*")
			case r == '?':
				re.WriteString(".")
			default:
				re.WriteString(regexp.QuoteMeta(string(r)))
			}
		}
		re.WriteString("$")
		if got, want := m.matches(value), regexp.MustCompile(re.String()).MatchString(value); got != want {
			t.Errorf("%q matches %q = %v, want %v", pattern, value, got, want)
		}
	})
}

func TestTemplate_RendersLabelsAndValue(t *testing.T) {
	labels := telemetry.NewLabels(telemetry.Label{Name: "device", Value: "f-1"}, telemetry.Label{Name: "x", Value: "{{ $value }}"})
	for text, want := range map[string]string{
		"":               "",
		"plain } text {": "plain } text {",
		"{{ $labels.device }} at {{ $value }} degC": "f-1 at -10.25 degC",
		"{{$value}}{{$value}}":                      "-10.25-10.25",
		"{{ $labels.nothing }}":                     "[no label nothing]",
		"{{ $labels.x }}":                           "{{ $value }}",
	} {
		tpl, err := parseTemplate(text)
		if err != nil {
			t.Errorf("parseTemplate(%q): %v", text, err.msg)
			continue
		}
		if got := tpl.render(labels, -10.25); got != want {
			t.Errorf("render(%q) = %q, want %q", text, got, want)
		}
	}
	tpl, _ := parseTemplate("{{ $labels.device }}")
	huge := tpl.render(telemetry.Labels{{Name: "device", Value: strings.Repeat("é", maxAnnotation)}}, 0)
	if len(huge) > maxAnnotation || !strings.HasSuffix(huge, "é...") {
		t.Errorf("a huge label renders to %d bytes ending in %q", len(huge), huge[len(huge)-6:])
	}
	for _, text := range []string{"{{ value }}", "{{ $labels }}", "{{ $labels.a b }}", "{{ $value | printf }}", "{{}}", "{{ {{ $value }}", "{{ $labels.1 }}"} {
		if _, err := parseTemplate(text); err == nil {
			t.Errorf("parseTemplate(%q) is accepted", text)
		}
	}
}

func TestFormatValue(t *testing.T) {
	for v, want := range map[float64]string{-10: "-10", 0: "0", 21.5: "21.5", 1e6: "1000000", 0.1: "0.1", 1e300: "1e+300", 1.5e-9: "1.5e-09"} {
		if got := FormatValue(v); got != want {
			t.Errorf("FormatValue(%v) = %q, want %q", v, got, want)
		}
	}
}

func TestShippedRuleFilesLoad(t *testing.T) {
	paths, err := filepath.Glob("../configs/rules.d/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no rule files in configs/rules.d: %v", err)
	}
	var files []File
	for _, p := range paths {
		if strings.HasSuffix(p, "_test.yaml") {
			continue
		}
		data, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, File{Name: p, Data: data})
	}
	set, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if set.Len() == 0 {
		t.Error("the shipped files hold no rule")
	}
}

// TestManual_ExamplesParse holds docs/rules.md to what the parser takes: every yaml block that starts with "groups:" is a rule file.
func TestManual_ExamplesParse(t *testing.T) {
	text, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(groups:.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) < 2 {
		t.Fatalf("docs/rules.md has %d rule files, want some", len(blocks))
	}
	for _, b := range blocks {
		mustParse(t, b[1])
	}
}

func FuzzParse(f *testing.F) {
	f.Add("groups:\n- name: g\n  rules:\n  - { alert: A, expr: t > 1, for: 5m, match: { a: 'b*' }, annotations: { s: '{{ $value }}' }, webhooks: [x] }\n")
	f.Add("groups:\n- name: g\n  rules:\n  - alert: A\n    expr: >\n      t\n      and 1\n")
	f.Add("groups: &a [*a]\n")
	f.Add("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
	f.Add(oneRule(`{ alert: "\x41\n", expr: "t\u003e 1 and", clear: 'a ''b' }`))
	f.Fuzz(func(t *testing.T, text string) {
		set, err := Parse([]File{{Name: "f.yaml", Data: []byte(text)}})
		if (set == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v: want either", set, err)
		}
		if err != nil {
			var errs Errors
			if !errors.As(err, &errs) || len(errs) > maxErrors+1 {
				t.Fatalf("Parse: %T with %d errors", err, len(errs))
			}
			for _, e := range errs {
				lines := strings.Count(text, "\n") + strings.Count(text, "\r") + strings.Count(text, "\u0085") + strings.Count(text, "\u2028") + strings.Count(text, "\u2029") + 2
				if e.Line < 0 || e.Line > lines || (e.Line > 0) != (e.Column > 0) || e.Msg == "" {
					t.Fatalf("bad error %+v", e)
				}
			}
			_ = errs.Detail()
			return
		}
		if again, err := Parse(set.Files()); err != nil || again.Fingerprint() != set.Fingerprint() {
			t.Fatalf("parsing Files() again: %v", err)
		}
		e := NewEngine(set, Options{})
		s := e.Subject("m", nil)
		e.Observe(s, 0, 0, []telemetry.Reading{{Metric: "t", Value: 2}}, func(*Event) {})
	})
}
