package rules

import (
	"strings"
	"testing"
)

func TestParseTests_ErrorsPointAndTeach(t *testing.T) {
	for _, c := range []struct{ test, want string }{
		{`{ name: x, expect: [{ at: 1m, alert: A, state: fireing }] }`, `t.yaml:4:52: state: want inactive, pending, firing, got "fireing"`},
		{`{ name: x, expect: [{ at: 1m, state: firing }] }`, `t.yaml:4:25: an expectation: want alert or webhook`},
		{`{ name: x, expect: [{ at: 1m, alert: A }] }`, `t.yaml:4:25: an expectation: the key state is missing`},
		{`{ name: x, expect: [{ at: 1m, alert: A, state: firing, count: 1 }] }`, `status, count, alerts, reason and body belong to a webhook`},
		{`{ name: x, expect: [{ at: 1m, alert: A, state: inactive, value: 1 }] }`, `an inactive alert has no value`},
		{`{ name: x, expect: [{ at: 1m, webhook: w, state: firing }] }`, `a webhook has a status, a count and a body`},
		{`{ name: x, expect: [{ at: 1m, webhook: w, count: 1.5 }] }`, `count: want a whole number, got "1.5"`},
		{`{ name: x, expect: [{ at: soon, alert: A, state: firing }] }`, `t.yaml:4:31: at: want a duration`},
		{`{ name: x, expect: [{ at: 1m, webhook: w, count: 0, body: {} }] }`, `without a notification there are no alerts in it, and no body`},
		{`{ name: x, expect: [{ at: 1m, webhook: w, reason: boredom }] }`, `reason: want changed, repeated, escalated, got "boredom"`},
		{`{ name: x, expect: [{ at: 1m, alert: A, state: firing, body: {} }] }`, `body belong to a webhook`},
		{`{ name: x, input: [{ at: 0s, silence: { device: a } }], expect: [] }`, `silence and for go together`},
		{`{ name: x, input: [{ at: 0s, silence: {}, for: 1h }], expect: [] }`, `silence: want at least one label`},
		{`{ name: x, input: [{ at: 0s, silence: { device: a }, for: 1h, online: true }], expect: [] }`, `want one of values, online, silence and acknowledge`},
		{`{ expect: [] }`, `a test: the key name is missing`},
		{`{ name: x, inputs: [], expect: [] }`, `unknown key "inputs": did you mean input?`},
		{`{ name: x, start: today, expect: [] }`, `start: want a time such as 2026-03-02T08:00:00Z, got "today"`},
		{`{ name: x, input: [{ at: 0s, every: 1s, values: { t: 1 } }], expect: [] }`, `every and until go together`},
		{`{ name: x, input: [{ at: 0s, every: 0s, until: 1m, values: { t: 1 } }], expect: [] }`, `every: must be longer than 0`},
		{`{ name: x, input: [{ at: 0s, every: 1ms, until: 1d, values: { t: 1 } }], expect: [] }`, `more than 1000000 messages`},
		{`{ name: x, input: [{ at: 2m, every: 1s, until: 1m, values: { t: 1 } }], expect: [] }`, `until is before at`},
		{`{ name: x, input: [{ at: 0s }], expect: [] }`, `want one of values, online, silence and acknowledge`},
		{`{ name: x, input: [{ at: 0s, values: { t: high } }], expect: [] }`, `t.yaml:4:47: values: t: want a number, got "high"`},
		{`{ name: x, input: [{ at: 0s, values: { t: [] } }], expect: [] }`, `values: t: the list is empty`},
		{`{ name: x, input: [{ at: 0s, online: maybe }], expect: [] }`, `online: want true or false, got "maybe"`},
	} {
		_, err := ParseTests(File{Name: "t.yaml", Data: []byte("rules: [r.yaml]\ntests:\n\n  - " + c.test + "\n")})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("ParseTests of %s\n got %v\nwant %s", c.test, err, c.want)
		}
	}
}

func FuzzParseTests(f *testing.F) {
	f.Add([]byte("rules: [r.yaml]\ntests:\n  - { name: x, input: [{ at: 0s, every: 1s, until: 1m, labels: { a: b }, values: { t: [1, true] } }], expect: [{ at: 1m, alert: A, state: firing }] }\n"))
	f.Add([]byte("rules: &a [*a]\ntests: *a\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := ParseTests(File{Name: "t.yaml", Data: b})
		if (file == nil) == (err == nil) {
			t.Fatalf("ParseTests = %v, %v", file, err)
		}
	})
}
