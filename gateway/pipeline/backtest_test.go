package pipeline

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

// backtestSpec reads d/{device}/t and warns above 5.
func backtestSpec(rule string) *Spec {
	spec := testSpec()
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - " + rule + "\n"}}
	return spec
}

// journalOf has one message every ten seconds with the temperatures given, under a spec without rules.
func journalOf(temperatures ...float64) []seglog.Record {
	var recs []seglog.Record
	add := func(typ byte, at int64, body []byte) {
		recs = append(recs, seglog.Record{LSN: seglog.LSN(len(recs) + 1), Type: typ, Time: at, Body: body})
	}
	raw, _ := testSpec().Encode()
	add(RecordBoot, t0, []byte("b v"))
	add(RecordConfigure, t0, raw)
	for i, v := range temperatures {
		at := t0 + int64(i)*10*sec
		add(RecordMessage, at, messageBody(Message{ClientID: "a", Topic: "d/a/t", QoS: 1, PacketID: uint16(i), Payload: []byte(msg(i+1, at, v))}))
	}
	return recs
}

func backtest(t *testing.T, spec *Spec, recs []seglog.Record, changes map[string]time.Duration) []RuleStats {
	t.Helper()
	b, err := NewBacktest(spec, changes)
	if err != nil {
		t.Fatal(err)
	}
	for i := range recs {
		b.Apply(&recs[i])
	}
	return b.Report()
}

func TestBacktest_CountsFiringsDurationsAndFlaps(t *testing.T) {
	recs := journalOf(1, 9, 9, 9, 1, 9, 9, 1, 1, 9)
	for _, c := range []struct {
		rule string
		by   map[string]time.Duration
		want RuleStats
	}{
		{`{ alert: Hot, expr: temperature > 5 }`, nil,
			RuleStats{Alert: "Hot", Fired: 3, Series: 1, Total: 50 * time.Second, Longest: 30 * time.Second, Flaps: 2, First: at(10), Last: at(90), FiringAtEnd: 1}},
		{`{ alert: Hot, expr: temperature > 5, for: 15s }`, nil, // the timer runs out between two messages, and the journal has no tick there
			RuleStats{Alert: "Hot", For: 15 * time.Second, Fired: 2, Series: 1, Total: 20 * time.Second, Longest: 15 * time.Second, Flaps: 1, First: at(25), Last: at(65)}},
		{`{ alert: Hot, expr: temperature > 5, for: 15s }`, map[string]time.Duration{"Hot": 25 * time.Second},
			RuleStats{Alert: "Hot", For: 25 * time.Second, Fired: 1, Series: 1, Total: 5 * time.Second, Longest: 5 * time.Second, First: at(35), Last: at(35)}},
		{`{ alert: Hot, expr: temperature > 50 }`, nil, RuleStats{Alert: "Hot"}},
	} {
		got := backtest(t, backtestSpec(c.rule), recs, c.by)
		if len(got) != 1 || !reflect.DeepEqual(got[0], c.want) {
			t.Errorf("%s\n got %+v\nwant %+v", c.rule, got[0], c.want)
		}
	}
}

func at(seconds int64) time.Time { return time.Unix(0, t0+seconds*sec).UTC() }

func TestBacktest_InhibitedFiringsAreCountedApart(t *testing.T) {
	spec := backtestSpec(`{ alert: Hot, expr: temperature > 5 }
      - { alert: Warm, expr: temperature > 2, inhibit: { when: Hot, equal: [device] } }`)
	got := backtest(t, spec, journalOf(9, 9, 1, 3, 3, 9, 3), nil)
	if w := got[1]; w.Fired != 2 || w.Inhibited != 1 || w.Flaps != 1 {
		t.Errorf("Warm: %+v, want 2 firings, 1 of them inhibited", w)
	}
}

func TestBacktest_RefusesChangesOfUnknownAlerts(t *testing.T) {
	_, err := NewBacktest(backtestSpec(`{ alert: Hot, expr: temperature > 5 }`), map[string]time.Duration{"Hut": time.Minute})
	if err == nil || !strings.Contains(err.Error(), `there is no alert "Hut": did you mean Hot?`) {
		t.Errorf("NewBacktest = %v", err)
	}
}

// What a gateway did under its own rules, with ticks at the times its rules wanted them, the backtest finds again.
func TestBacktest_FindsWhatTheGatewayDid(t *testing.T) {
	for seed := range uint64(5) {
		spec := testSpec()
		spec.Rules = []RuleFile{everyKind}
		raw, err := spec.Encode()
		if err != nil {
			t.Fatal(err)
		}
		live := NewFold()
		did := &recorded{}
		var journal []seglog.Record
		apply := func(typ byte, at int64, body []byte) {
			journal = append(journal, seglog.Record{LSN: seglog.LSN(len(journal) + 1), Type: typ, Time: at, Body: body})
			if err := live.Apply(&journal[len(journal)-1], did); err != nil {
				t.Fatal(err)
			}
		}
		apply(RecordConfigure, t0, raw)
		for _, rec := range script(seed, 400) {
			if rec.Type != RecordMessage || rec.Time < live.now {
				continue
			}
			for live.Due() < rec.Time {
				apply(RecordTick, max(live.Due(), live.now), nil)
			}
			apply(RecordMessage, rec.Time, rec.Body)
		}
		fired := map[string]int{}
		for _, s := range backtest(t, spec, journal, nil) {
			fired[s.Alert] = s.Fired
		}
		total := 0
		for alert, n := range did.fired {
			total += n
			if fired[alert] != n {
				t.Errorf("seed %d: %s fired %d times, the backtest says %d", seed, alert, n, fired[alert])
			}
		}
		if total < 10 {
			t.Errorf("seed %d: only %d firings", seed, total)
		}
	}
}

// recorded counts firings, those that another alert held back once.
type recorded struct {
	fired map[string]int
	on    map[uint64]bool
}

func (r *recorded) Alerts(_ Cause, events []rules.Event) {
	if r.fired == nil {
		r.fired, r.on = map[string]int{}, map[uint64]bool{}
	}
	for _, ev := range events {
		if ev.State == rules.Firing && !r.on[ev.Fingerprint] {
			r.fired[ev.Alert]++
		}
		r.on[ev.Fingerprint] = ev.State == rules.Firing
	}
}
func (r *recorded) Point(Cause, *telemetry.Point)      {}
func (r *recorded) Notify(Cause, *notify.Notification) {}
func (r *recorded) Refuse(Cause, *Refused)             {}

// BenchmarkBacktest is the cost of a message; a million of them are to take less than 15 seconds.
func BenchmarkBacktest(b *testing.B) {
	spec := backtestSpec(`{ alert: Hot, expr: temperature > 50, for: 1m }
      - { alert: Rising, expr: "rate(temperature, 1m) > 5" }
      - { alert: Silent, absent: { metric: temperature, after: 3x } }`)
	bt, err := NewBacktest(spec, nil)
	if err != nil {
		b.Fatal(err)
	}
	bodies := make([][]byte, b.N)
	for i := range bodies {
		dev := fmt.Sprint("dev-", i%100)
		bodies[i] = messageBody(Message{ClientID: dev, Topic: "d/" + dev + "/t", QoS: 1, PacketID: uint16(i), Payload: []byte(msg(i, t0+int64(i)*sec/100, float64(i%40)))})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i, body := range bodies {
		bt.Apply(&seglog.Record{LSN: seglog.LSN(i + 1), Type: RecordMessage, Time: t0 + int64(i)*sec/100, Body: body})
	}
	if bt.damaged > 0 || bt.fold.View().Total.Aggregated < uint64(b.N) {
		b.Fatalf("of %d messages %d were counted", b.N, bt.fold.View().Total.Aggregated)
	}
}
