package rules

import (
	"fmt"
	"runtime"
	"strings"
	"testing"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// oneOf puts a rule of one kind among n that match other devices.
func oneOf(n int, rule string) string {
	var b strings.Builder
	b.WriteString("groups:\n- name: g\n  rules:\n  - { alert: It, match: { device: d-1 }, " + rule + " }\n")
	for i := range n - 1 {
		fmt.Fprintf(&b, "  - { alert: Other%d, match: { device: other-%d }, %s }\n", i, i, rule)
	}
	return b.String()
}

var kindsToMeasure = []struct{ name, rule string }{
	{"threshold", "expr: a > 1e9"},
	{"rate", `expr: "rate(a, 1m) > 1e9"`},
	{"avg", `expr: "avg(a, 5m) > 1e9"`},
	{"max", `expr: "max(a, 5m) > 1e9"`},
	{"stddev", `expr: "stddev(a, 5m) > 1e9"`},
	{"quantile", `expr: "quantile(0.95, a, 5m) > 1e9"`},
	{"hour", `expr: "a > 1e9 and hour() >= 6", zone: Europe/Berlin`},
	{"hour-true", `expr: "a > -1 and hour() >= 24", zone: Europe/Berlin`},
	{"other-device", `expr: 'a > last("device=z", a) + 1e9'`},
	{"active", `expr: a > 1e9, active: { days: [mon-fri], hours: "06:00-22:00" }`},
	{"absent", "absent: { metric: a, after: 3x }"},
	{"anomaly", "anomaly: { metric: a }"},
}

// BenchmarkKinds is one message of one field for one rule of each kind, alone and among 1,000 that match other devices. To hold: a
// threshold under 100 ns, one window function under 1 microsecond, 1,000 rules no more than twice one, no allocation.
func BenchmarkKinds(b *testing.B) {
	for _, k := range kindsToMeasure {
		for _, n := range []int{1, 1000} {
			b.Run(fmt.Sprintf("%s,rules=%d", k.name, n), func(b *testing.B) {
				e := NewEngine(mustParse(b, oneOf(n, k.rule)), Options{})
				s := e.Subject("m", labels("device", "d-1", "site", "plant-7"))
				readings := []telemetry.Reading{{Metric: "a"}}
				emit := func(*Event) {}
				now, seed := base, uint64(1)
				b.ReportAllocs()
				for b.Loop() {
					seed = seed*6364136223846793005 + 1442695040888963407
					now += 1e8 + int64(seed>>60)
					readings[0].Value = float64(seed >> 44)
					e.Observe(s, now, now, readings, emit)
				}
			})
		}
	}
}

func TestObserve_NoKindOfRuleAllocatesOnceItsWindowsHaveGrown(t *testing.T) {
	for _, k := range kindsToMeasure {
		e := NewEngine(mustParse(t, oneOf(20, k.rule)), Options{})
		s := e.Subject("m", labels("device", "d-1"))
		readings := []telemetry.Reading{{Metric: "a"}}
		emit := func(*Event) { t.Errorf("%s: a transition", k.name) }
		now := base
		step := func() {
			now += 1e9
			readings[0].Value = float64(now / 1e9 % 7)
			e.Observe(s, now, now, readings, emit)
			e.Tick(now, emit)
		}
		for range 1000 {
			step()
		}
		if n := testing.AllocsPerRun(500, step); n != 0 {
			t.Errorf("%s: %v allocations a message", k.name, n)
		}
	}
}

// A device's memory is that of its windows, and no more however many points come.
func TestSubject_MemoryOfWindowsIsBounded(t *testing.T) {
	const devices = 200
	for _, c := range []struct {
		rule string
		most float64
	}{
		{`expr: "avg(a, 5m) > 1e9"`, expr.WindowBytes},
		{`expr: "quantile(0.9, a, 5m) > 1e9 and avg(a, 5m) > 0"`, expr.WindowRanksBytes}, // one window for both
		{`expr: "avg(a, 5m) > 1e9 or max(a, 5m) > 1e9 or avg(a, 1m) > 1e9"`, 2 * expr.WindowBytes},
		{`absent: { metric: a, after: 3x }`, 200},
	} {
		e := NewEngine(mustParse(t, oneRule("{ alert: A, "+c.rule+" }")), Options{})
		var subjects []*Subject
		for i := range devices {
			subjects = append(subjects, e.Subject("m", labels("device", fmt.Sprint(i))))
		}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 2000 {
			for _, s := range subjects {
				now := base + int64(i)*1e9
				e.Observe(s, now, now, []telemetry.Reading{{Metric: "a", Value: float64(i % 97)}}, func(*Event) {})
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		per := float64(int64(after.HeapAlloc)-int64(before.HeapAlloc)) / devices
		if most := c.most*1.15 + 300; per > most { // rounding of allocations; values, times and the lists' shares
			t.Errorf("%s: %.0f bytes a device, want at most %.0f", c.rule, per, most)
		}
		runtime.KeepAlive(e)
	}
}

// BenchmarkAvailability is what one of 10,000 devices says about its being there.
func BenchmarkAvailability(b *testing.B) {
	e := NewEngine(mustParse(b, oneRule(`{ alert: A, absent: { metric: a, after: 3x } }`)), Options{})
	names := make([]telemetry.Labels, 10_000)
	for i := range names {
		names[i] = labels("device", fmt.Sprint(i), "site", "p")
		e.Observe(e.Subject("m", names[i]), base, base, []telemetry.Reading{{Metric: "a"}}, func(*Event) {})
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		e.Availability(names[i%len(names)], true, base+int64(i), func(*Event) {})
		i++
	}
}
