package pipeline

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

// fingerprintOf is that of the alert of freezerRule for a device.
func fingerprintOf(device string) uint64 {
	return rules.Fingerprint(telemetry.LabelsFromMap(map[string]string{"alertname": "Warm", "device": device, "site": "plant-7"}))
}

// script draws a journal: several devices, late, early, repeated, restarted and malformed messages, ticks, rule changes and
// clock steps. Equal seeds give equal journals.
func script(seed uint64, n int) []seglog.Record {
	r := rand.New(rand.NewPCG(seed, 7))
	var out []seglog.Record
	add := func(typ byte, at int64, body []byte) {
		out = append(out, seglog.Record{LSN: seglog.LSN(len(out) + 1), Type: typ, Time: at, Body: body})
	}
	spec := testSpec()
	spec.Sources[0].Lateness = 30 * time.Second
	spec.Sources = append(spec.Sources, SourceSpec{
		Name: "raw", Topic: "r/{device}", Measurement: "raw", Decode: testSpec().Sources[0].Decode, Send: SendBoth,
		Window: 5 * time.Second, Grace: time.Second, Lateness: time.Minute, Stats: testSpec().Sources[0].Stats,
	})
	spec.Sources[1].Decode.Sequence = ""
	spec.Receivers = []notify.Receiver{
		{Name: "ops", GroupBy: []string{"alertname"}, RepeatInterval: time.Minute},
		{Name: "chat", GroupBy: []string{"site"}, GroupWait: 7 * time.Second, GroupInterval: 20 * time.Second, FlapFloor: 30 * time.Second},
	}
	operate := func(at int64, c notify.Command) {
		c.By = "ann"
		body, err := c.Encode()
		if err != nil {
			panic(err)
		}
		add(RecordOperator, at, body)
	}
	configure := func(at int64) {
		raw, err := spec.Encode()
		if err != nil {
			panic(err)
		}
		add(RecordConfigure, at, raw)
	}
	now := t0
	configure(now)
	seq := map[string]int{}
	for len(out) < n {
		now += r.Int64N(sec)
		dev := string(rune('a' + r.IntN(4)))
		at := now - r.Int64N(2)*r.Int64N(60*sec)
		switch k := r.IntN(100); {
		case k < 20:
			add(RecordTick, now, nil)
		case k < 22:
			spec.Rules = []RuleFile{freezerRule(), everyKind}
			if r.IntN(2) == 0 {
				spec.Rules[0].Text = strings.ReplaceAll(spec.Rules[0].Text, "> 0", fmt.Sprintf("> %d", r.IntN(20)))
			}
			configure(now)
		case k < 23:
			step := r.Int64N(20*sec) - 10*sec
			now += step
			add(RecordClockStep, now, appendVarint(step))
		case k < 24:
			now += r.Int64N(60 * sec)
			add(RecordBoot, now, []byte("b v"))
		case k < 24:
			operate(now, notify.Command{Op: notify.AddSilence, ID: dev, Match: map[string]string{"device": dev}, EndsAt: now + 1 + r.Int64N(60*sec)})
		case k < 25:
			operate(now, notify.Command{Op: []notify.Operation{notify.Acknowledge, notify.Unacknowledge}[r.IntN(2)],
				Fingerprint: notify.FormatFingerprint(fingerprintOf(dev))})
		case k < 26:
			add(RecordRequeue, now, (&Requeue{ID: uint64(len(out)), Count: 1, Source: "line", Topic: "d/" + dev + "/t", Payload: []byte(msg(seq[dev]+1000, at, 3)),
				Retry: Retry{Arrived: at, ClientID: dev, Flags: 1, Passed: byte(r.IntN(4)), Metrics: [][]string{nil, {"temperature"}, {"gone"}}[r.IntN(3)]}}).Append(nil))
		case k < 27:
			add(RecordMessage, now, messageBody(Message{ClientID: dev, Topic: "d/" + dev + "/t", Payload: []byte(`{"temperature":"x"`), QoS: 1}))
		case k < 28:
			seq[dev] = 0
		case k < 60:
			s := seq[dev]
			if r.IntN(5) > 0 {
				seq[dev]++
			}
			add(RecordMessage, now, messageBody(Message{ClientID: dev, Topic: "d/" + dev + "/t", QoS: 1, PacketID: uint16(s),
				Payload: []byte(msg(s, at, float64(r.IntN(40)-20)))}))
		default:
			add(RecordMessage, now, messageBody(Message{ClientID: dev, Topic: "r/" + dev, QoS: 1, PacketID: uint16(r.IntN(4)), Dup: r.IntN(4) == 0,
				Payload: []byte(msg(0, at, float64(r.IntN(3))))}))
		}
	}
	return out
}

// everyKind has a rule of each kind that keeps state of its own.
var everyKind = RuleFile{Name: "kinds.yaml", Text: `
groups:
  - name: kinds
    rules:
      - { alert: Mean, expr: "avg(temperature, 20s) > 5 or quantile(0.9, temperature, 30s) > 10", for: 5s, zone: Europe/Berlin }
      - { alert: Apart, expr: "temperature > last(\"device=a\", temperature) + 5", inhibit: { when: Mean, equal: [device] } }
      - { alert: Few, expr: "count(temperature, 10s) < 2 and hour() >= 0", active: { hours: "00:00-24:00" } }
      - { alert: Silent, absent: { metric: temperature, after: 20s, expect: [a, z] } }
      - { alert: Late, absent: { metric: temperature, after: 2x }, for: 3s }
      - { alert: Odd, anomaly: { metric: temperature, method: jump, sensitivity: 3 } }
`}

func appendVarint(v int64) []byte {
	b := make([]byte, 10)
	return b[:putVarint(b, v)]
}

func applyAll(t testing.TB, f *Fold, recs []seglog.Record, out Outputs) {
	t.Helper()
	for i := range recs {
		if err := f.Apply(&recs[i], out); err != nil {
			t.Fatalf("record %d: %v", recs[i].LSN, err)
		}
	}
}

// A fold restored from a snapshot taken anywhere goes on as if it had never stopped: same outputs, same causes, same state.
func TestFold_RestoredFromAnyCheckpointEqualsFullReplay(t *testing.T) {
	alerts, refused, notified, acknowledged := 0, 0, 0, 0
	for seed := range uint64(20) {
		recs := script(seed, 400)
		var whole recorder
		f := NewFold()
		applyAll(t, f, recs, &whole)
		end := f.Snapshot(nil)
		want := whole.take()
		alerts += strings.Count(want, " alert ")
		refused += strings.Count(want, " refused ")
		notified += strings.Count(want, " notify ")
		for _, past := range f.View().Notify.Recent {
			if past.Ack != nil {
				acknowledged++
			}
		}
		for cut := 1; cut < len(recs); cut += 7 {
			var parts recorder
			a := NewFold()
			applyAll(t, a, recs[:cut], &parts)
			b, err := RestoreFold(a.Snapshot(nil))
			if err != nil {
				t.Fatalf("seed %d, cut %d: %v", seed, cut, err)
			}
			applyAll(t, b, recs[cut:], &parts)
			if got := parts.take(); got != want {
				t.Fatalf("seed %d, cut %d: outputs differ\n%s", seed, cut, firstDifference(got, want))
			}
			if !bytes.Equal(b.Snapshot(nil), end) {
				t.Fatalf("seed %d, cut %d: state differs at the end", seed, cut)
			}
		}
	}
	if alerts < 20 || refused < 100 || notified < 40 || acknowledged < 1 {
		t.Fatalf("the scripts exercise too little: %d alerts, %d refusals, %d notifications, %d acknowledged", alerts, refused, notified, acknowledged)
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return fmt.Sprintf("line %d\n got %s\nwant %s", i, g[i], w[i])
		}
	}
	return fmt.Sprintf("%d lines, want %d", len(g), len(w))
}

// Every reading received ends in exactly one column, and what the windows put out last adds up to what was aggregated.
func TestFold_LedgerAgreesWithWhatTheWindowsPutOut(t *testing.T) {
	for seed := range uint64(20) {
		recs := script(seed, 600)
		last := recs[len(recs)-1]
		recs = append(recs, seglog.Record{LSN: last.LSN + 1, Type: RecordTick, Time: last.Time + 3600*sec})
		f := NewFold()
		counts := &windowCounts{last: map[string]uint64{}}
		applyAll(t, f, recs, counts)
		v := f.View()
		if v.Total.Imbalance() != 0 {
			t.Errorf("seed %d: imbalance %d", seed, v.Total.Imbalance())
		}
		var stored uint64
		for _, n := range counts.last {
			stored += n
		}
		if stored != v.Total.Aggregated {
			t.Errorf("seed %d: %d readings in windows, ledger says %d", seed, stored, v.Total.Aggregated)
		}
	}
}

func FuzzRestoreFold(f *testing.F) {
	fold := NewFold()
	applyAll(f, fold, script(1, 60), &recorder{})
	f.Add(fold.Snapshot(nil))
	f.Add([]byte{snapshotVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		if fold, err := RestoreFold(b); err == nil {
			fold.tickForFuzz()
		}
	})
}

func FuzzMessageRecord(f *testing.F) {
	f.Add(messageBody(Message{ClientID: "c", Topic: "d/a/t", Payload: []byte(`{"seq":1,"x":2}`), QoS: 1}))
	f.Add([]byte{1, 2, 3, 0xff})
	f.Fuzz(func(t *testing.T, body []byte) {
		d := NewFold()
		raw, _ := testSpec().Encode()
		_ = d.Apply(&seglog.Record{LSN: 1, Type: RecordConfigure, Time: t0, Body: raw}, &recorder{})
		_ = d.Apply(&seglog.Record{LSN: 2, Type: RecordMessage, Time: t0, Body: body}, &recorder{})
		_ = d.Apply(&seglog.Record{LSN: 3, Type: RecordTick, Time: t0 + 100*sec}, &recorder{})
		total := d.View().Total
		if total.Imbalance() != 0 {
			t.Fatalf("imbalance %d", total.Imbalance())
		}
	})
}

func BenchmarkFold_Message(b *testing.B) {
	for _, devices := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprintf("devices=%d", devices), func(b *testing.B) {
			spec := testSpec()
			spec.Limits.Series = 100_000
			spec.Rules = []RuleFile{freezerRule(), everyKind}
			d := newDriver(b, spec)
			recs := make([][]byte, devices)
			for i := range recs {
				recs[i] = messageBody(Message{ClientID: "client", Topic: fmt.Sprintf("d/dev-%d/t", i), QoS: 1, PacketID: uint16(i), Payload: []byte(
					fmt.Sprintf(`{"line":"L%d","temperature":-5.25,"humidity":40.5,"vibration":0.125,"state":"running","note":"0123456789"}`, i%3))})
			}
			b.ReportAllocs()
			at, lsn := t0, seglog.LSN(10)
			rec := seglog.Record{Type: RecordMessage}
			for i := 0; b.Loop(); i++ {
				at += 50_000
				lsn++
				rec.LSN, rec.Time, rec.Body = lsn, at, recs[i%devices]
				if err := d.f.Apply(&rec, &d.out); err != nil {
					b.Fatal(err)
				}
				if i%20_000 == 0 {
					d.f.Apply(&seglog.Record{LSN: lsn, Type: RecordTick, Time: at}, &nowhere{})
				}
			}
		})
	}
}
