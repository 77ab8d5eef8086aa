package rules

import (
	"strings"
	"testing"
)

func TestCheckMetrics_NamesWhatNoSourceSends(t *testing.T) {
	sources := []Declared{{"line", []string{"temperature", "humidity"}}, {"power", []string{"current", "voltage"}}}
	for _, c := range []struct{ rule, want string }{
		{`{ alert: A, expr: temperature > 1 and current > 1 }`, ""},
		{`{ alert: A, expr: temperatur > 1 }`, `cold.yaml:4:27: no source sends a metric "temperatur": did you mean temperature?`},
		{`{ alert: A, expr: "avg(temperature, 5m) > 1 and rate(amps, 1m) > 1" }`, `cold.yaml:4:62: no source sends a metric "amps": there are current, humidity, temperature, voltage`},
		{`{ alert: A, match: { measurement: line }, expr: current > 1 }`, `cold.yaml:4:57: no source sends a metric "current"`},
		{`{ alert: A, match: { measurement: "p*" }, expr: current > 1, clear: temperature < 1 }`, `cold.yaml:4:77: no source sends`},
		{`{ alert: A, match: { measurement: other }, expr: pressure > 1 }`, ""},
		{`{ alert: A, match: { measurement: line }, expr: 'temperature > last("device=x", current)' }`, ""},
		{`{ alert: A, match: { measurement: line }, expr: 'temperature > last("device=x", curent)' }`, `"curent": did you mean current?`},
		{`{ alert: A, absent: { metric: humidty, after: 3x } }`, `cold.yaml:4:39: no source sends a metric "humidty": did you mean humidity?`},
		{`{ alert: A, anomaly: { metric: volts } }`, `cold.yaml:4:40: no source sends a metric "volts"`},
	} {
		set, err := Parse([]File{{Name: "cold.yaml", Data: []byte(oneRule(c.rule))}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if err := set.CheckMetrics(sources); err != nil {
			got = err.Error()
		}
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("CheckMetrics of %s\n got %s\nwant %s", c.rule, got, c.want)
		}
		if err := set.CheckMetrics(append(sources, Declared{Measurement: "any"})); err != nil && !strings.Contains(c.rule, "measurement") {
			t.Errorf("with a source that may send anything: %v", err)
		}
	}
}
