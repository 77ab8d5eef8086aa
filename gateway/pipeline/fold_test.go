package pipeline

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

const (
	sec = int64(time.Second)
	t0  = int64(1_800_000_000) * sec // a multiple of 10 s
)

func testSpec() *Spec {
	return &Spec{
		Gateway: "plant-7",
		Labels:  map[string]string{"site": "plant-7"},
		Limits:  Limits{Series: 1000, Future: 10 * time.Minute, Past: 168 * time.Hour},
		Sources: []SourceSpec{{
			Name: "line", Topic: "d/{device}/t", Measurement: "telemetry",
			Decode: decode.Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"},
			Send:   SendAggregates, Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: 10 * time.Minute,
			Stats: []telemetry.Stat{"count", "mean", "min", "max", "last"},
		}},
	}
}

// recorder keeps outputs as lines of text, in order.
type recorder struct{ lines []string }

func (r *recorder) Point(c Cause, p *telemetry.Point) {
	var b strings.Builder
	fmt.Fprintf(&b, "%d.%d point %s%s @%d w=%s", c.LSN, c.Ordinal, p.Measurement, p.Labels, (p.Time-t0)/sec, p.Window)
	p.EachField(func(name []byte, v float64) { fmt.Fprintf(&b, " %s=%g", name, v) })
	r.lines = append(r.lines, b.String())
}

func (r *recorder) Alerts(c Cause, evs []rules.Event) {
	for _, e := range evs {
		r.lines = append(r.lines, fmt.Sprintf("%d.%d alert %s %v %s %g", c.LSN, c.Ordinal, e.Alert, e.State, e.Labels, e.Value))
	}
}

func (r *recorder) Notify(c Cause, n *notify.Notification) {
	r.lines = append(r.lines, fmt.Sprintf("%d.%d notify %s %v %s %d alerts, first %v %s", c.LSN, c.Ordinal, n.Receiver, n.Reason, n.Group, len(n.Alerts), n.Alerts[0].Firing, n.Alerts[0].Labels))
}

func (r *recorder) Refuse(c Cause, q *Refused) {
	r.lines = append(r.lines, fmt.Sprintf("%d.%d refused %s/%s n=%d %s %q", c.LSN, c.Ordinal, q.Stage, q.Reason, q.Count, q.Topic, q.Payload))
}

func (r *recorder) take() string {
	s := strings.Join(r.lines, "\n")
	r.lines = nil
	return s
}

// driver feeds a fold records as the journal would.
type driver struct {
	testing.TB
	f   *Fold
	out recorder
	lsn seglog.LSN
}

func newDriver(t testing.TB, spec *Spec) *driver {
	d := &driver{TB: t, f: NewFold()}
	d.configure(t0, spec)
	return d
}

func (d *driver) apply(typ byte, at int64, body []byte) {
	d.Helper()
	d.lsn++
	if err := d.f.Apply(&seglog.Record{LSN: d.lsn, Type: typ, Time: at, Body: body}, &d.out); err != nil {
		d.Fatalf("record %d: %v", d.lsn, err)
	}
	if im := d.f.View().Total.Imbalance(); im != 0 {
		d.Fatalf("ledger is out of balance by %d after record %d", im, d.lsn)
	}
}

func (d *driver) configure(at int64, spec *Spec) {
	d.Helper()
	raw, err := spec.Encode()
	if err != nil {
		d.Fatal(err)
	}
	d.apply(RecordConfigure, at, raw)
}

func messageBody(m Message) []byte { return append(AppendMessageHead(nil, &m), m.Payload...) }

func (d *driver) publish(at int64, topic, payload string) {
	d.Helper()
	d.apply(RecordMessage, at, messageBody(Message{ClientID: "c", Topic: topic, Payload: []byte(payload), QoS: 1, PacketID: 1}))
}

func (d *driver) tick(at int64) { d.Helper(); d.apply(RecordTick, at, nil) }

func (d *driver) expect(want ...string) {
	d.Helper()
	if got := d.out.take(); got != strings.Join(want, "\n") {
		d.Errorf("got:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func msg(seq int, at int64, temperature float64) string {
	return fmt.Sprintf(`{"seq":%d,"ts":%d,"temperature":%g}`, seq, at/1e6, temperature)
}

func TestFold_ReadingsBecomeOnePointAWindow(t *testing.T) {
	d := newDriver(t, testSpec())
	d.publish(t0+1*sec, "d/a/t", msg(1, t0+1*sec, 20))
	d.publish(t0+2*sec, "d/a/t", msg(2, t0+2*sec, 22))
	d.publish(t0+11*sec, "d/a/t", msg(3, t0+11*sec, 30))
	if got := d.f.Due(); got != t0+12*sec {
		t.Errorf("due at %d, want 12 s", (got-t0)/sec)
	}
	d.tick(t0 + 12*sec)
	d.expect(`5.0 point telemetry{device="a", gateway="plant-7", site="plant-7"} @0 w=10s temperature_count=2 temperature_mean=21 temperature_min=20 temperature_max=22 temperature_last=22`)
}

func TestFold_CorrectionWithinLatenessIsSentWhole(t *testing.T) {
	d := newDriver(t, testSpec())
	d.publish(t0+1*sec, "d/a/t", msg(1, t0+1*sec, 20))
	d.tick(t0 + 12*sec)
	d.out.take()
	d.publish(t0+60*sec, "d/a/t", msg(2, t0+9*sec, 10))
	d.tick(t0 + 61*sec)
	d.expect(`5.0 point telemetry{device="a", gateway="plant-7", site="plant-7"} @0 w=10s temperature_count=2 temperature_mean=15 temperature_min=10 temperature_max=20 temperature_last=10`)
}

func TestFold_LaterThanLatenessIsQuarantinedAndCounted(t *testing.T) {
	d := newDriver(t, testSpec())
	d.tick(t0 + 700*sec)
	m := msg(1, t0+87*sec, 20)
	d.publish(t0+700*sec, "d/a/t", m) // 613 s old; window + grace + lateness = 612 s
	d.expect(fmt.Sprintf(`3.0 refused time/late n=1 d/a/t %q`, m))
	d.publish(t0+700*sec, "d/a/t", msg(2, t0+88*sec, 20))
	d.expect("")
	if l := d.f.View().Total; l.Late != 1 || l.Aggregated != 1 {
		t.Errorf("ledger %+v", l)
	}
}

func TestFold_ImplausibleDeviceTimeIsQuarantinedAndMovesNoWindow(t *testing.T) {
	d := newDriver(t, testSpec())
	d.publish(t0+1*sec, "d/a/t", msg(1, t0+1*sec, 20))
	future, past := msg(2, t0+3600*sec, 99), msg(3, t0-200*3600*sec, 98)
	d.publish(t0+2*sec, "d/a/t", future)
	d.publish(t0+2*sec, "d/a/t", past)
	d.expect(fmt.Sprintf("3.0 refused time/future n=1 d/a/t %q", future), fmt.Sprintf("4.0 refused time/past n=1 d/a/t %q", past))
	d.tick(t0 + 3*sec)
	d.expect("")
}

func TestFold_SequenceSeenBeforeCountsOnce(t *testing.T) {
	d := newDriver(t, testSpec())
	for _, seq := range []int{1, 2, 2, 3, 1, 5, 4, 5} {
		d.publish(t0+1*sec, "d/a/t", msg(seq, t0+1*sec, 20))
	}
	if l := d.f.View().Total; l.Aggregated != 5 || l.Duplicate != 3 || l.Received != 8 {
		t.Errorf("ledger %+v, want 5 aggregated and 3 duplicates", l)
	}
}

func TestFold_RestartedDeviceCountsOnAndItsOldResendDoesNot(t *testing.T) {
	d := newDriver(t, testSpec())
	for seq := 0; seq < 20; seq++ {
		d.publish(t0+1*sec, "d/a/t", msg(seq, t0+int64(seq)*sec/10, 20))
	}
	for seq := 0; seq < 5; seq++ {
		d.publish(t0+5*sec, "d/a/t", msg(seq, t0+5*sec+int64(seq)*sec/10, 20))
	}
	d.publish(t0+6*sec, "d/a/t", msg(19, t0+19*sec/10, 20)) // resend from before the restart
	if l := d.f.View().Total; l.Aggregated != 25 || l.Duplicate != 1 {
		t.Errorf("ledger %+v, want 25 aggregated and 1 duplicate", l)
	}
}

func TestFold_DupResendWithoutSequenceCountsOnce(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Decode.Sequence = ""
	d := newDriver(t, spec)
	send := func(id uint16, dup bool, payload string) {
		d.apply(RecordMessage, t0+sec, messageBody(Message{ClientID: "c", Topic: "d/a/t", Payload: []byte(payload), QoS: 1, PacketID: id, Dup: dup}))
	}
	send(1, false, `{"x":1}`)
	send(1, true, `{"x":1}`)  // the resend of it
	send(2, true, `{"x":1}`)  // resend of a message that never arrived
	send(1, false, `{"x":1}`) // the same reading again, under a number that is free again
	if l := d.f.View().Total; l.Aggregated != 3 || l.Duplicate != 1 {
		t.Errorf("ledger %+v, want 3 aggregated and 1 duplicate", l)
	}
}

func TestFold_WhatDoesNotDecodeIsQuarantinedWithItsBytes(t *testing.T) {
	d := newDriver(t, testSpec())
	d.publish(t0, "d/a/t", `{"temperature":`)
	d.publish(t0, "d/a/t", `{"temperature":"N/A","humidity":5}`)
	out := d.out.take()
	if !strings.Contains(out, `2.0 refused decode/syntax n=1 d/a/t "{\"temperature\":"`) {
		t.Errorf("got %s", out)
	}
	if l := d.f.View().Total; l.Quarantined == 0 || l.Received != l.Quarantined+l.Aggregated {
		t.Errorf("ledger %+v", l)
	}
}

func TestFold_TopicLevelsThatCannotBeLabelsAreQuarantined(t *testing.T) {
	d := newDriver(t, testSpec())
	for _, level := range []string{"a\nb", "\xff", strings.Repeat("x", 300)} {
		d.publish(t0, "d/"+level+"/t", `{"x":1}`)
	}
	if l := d.f.View().Total; l.Quarantined != 3 || d.f.View().Devices != 0 {
		t.Errorf("ledger %+v, %d devices", l, d.f.View().Devices)
	}
}

func TestFold_SeriesBeyondTheLimitAreQuarantined(t *testing.T) {
	spec := testSpec()
	spec.Limits.Series = 3
	d := newDriver(t, spec)
	d.publish(t0, "d/a/t", `{"a":1,"b":2,"c":3,"d":4}`)
	d.publish(t0, "d/b/t", `{"a":1}`)
	if l := d.f.View().Total; l.Aggregated != 3 || l.Quarantined != 2 {
		t.Errorf("ledger %+v, want 3 aggregated and 2 quarantined", l)
	}
	d.publish(t0, "d/a/t", `{"a":1,"b":2,"c":3}`)
	if l := d.f.View().Total; l.Aggregated != 6 {
		t.Errorf("known series are refused: %+v", l)
	}
}

func TestFold_SendReadingsKeepsEqualStampsApart(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Send = SendReadings
	spec.Sources[0].Decode.Sequence = ""
	d := newDriver(t, spec)
	var stamps []int64
	for range 3 {
		d.publish(t0+sec, "d/a/t", msg(0, t0+sec, 20))
		stamps = append(stamps, d.f.point.Time)
	}
	if stamps[1] != stamps[0]+1 || stamps[2] != stamps[0]+2 {
		t.Errorf("stamps %v", stamps)
	}
}

func freezerRule() RuleFile {
	return RuleFile{Name: "cold.yaml", Text: `groups:
  - name: cold
    rules:
      - alert: Warm
        match: { site: plant-7 }
        expr: temperature > 0
        for: 30s
`}
}

func TestFold_AlertFiresOnTheTickAfterForAndLeavesAPoint(t *testing.T) {
	spec := testSpec()
	spec.Rules = []RuleFile{freezerRule()}
	d := newDriver(t, spec)
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	if d.f.Due() > t0+12*sec {
		t.Errorf("due %d", (d.f.Due()-t0)/sec)
	}
	d.tick(t0 + 12*sec)
	d.out.take()
	if got := d.f.Due(); got != t0+30*sec {
		t.Errorf("due at %d s, want 30", (got-t0)/sec)
	}
	d.tick(t0 + 30*sec)
	out := d.out.take()
	for _, want := range []string{`point alerts{alertname="Warm"`, "state=1 value=5", "alert Warm firing"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func TestFold_NewRulesKeepWindowsAndUnchangedAlerts(t *testing.T) {
	spec := testSpec()
	spec.Rules = []RuleFile{freezerRule()}
	d := newDriver(t, spec)
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	d.tick(t0 + 30*sec)
	d.out.take()
	spec.Rules = append(spec.Rules, RuleFile{Name: "more.yaml", Text: strings.ReplaceAll(freezerRule().Text, "Warm", "Warm2")})
	d.configure(t0+31*sec, spec)
	d.expect("")
	d.publish(t0+32*sec, "d/a/t", msg(2, t0+1*sec, 7))
	d.tick(t0 + 40*sec)
	if out := d.out.take(); !strings.Contains(out, "temperature_count=2") {
		t.Errorf("the window lost its first reading: %s", out)
	}
}

func TestFold_ChangedWindowLengthPutsOpenWindowsOut(t *testing.T) {
	spec := testSpec()
	d := newDriver(t, spec)
	d.publish(t0+1*sec, "d/a/t", msg(1, t0+1*sec, 20))
	spec.Sources[0].Window = time.Minute
	d.configure(t0+2*sec, spec)
	d.expect(`3.0 point telemetry{device="a", gateway="plant-7", site="plant-7"} @0 w=10s temperature_count=1 temperature_mean=20 temperature_min=20 temperature_max=20 temperature_last=20`)
	d.publish(t0+3*sec, "d/a/t", msg(2, t0+3*sec, 30))
	d.tick(t0 + 62*sec)
	d.expect(`5.0 point telemetry{device="a", gateway="plant-7", site="plant-7"} @0 w=1m0s temperature_count=1 temperature_mean=30 temperature_min=30 temperature_max=30 temperature_last=30`)
}

func TestFold_BrokenSpecInTheJournalLeavesTheOldOne(t *testing.T) {
	d := newDriver(t, testSpec())
	d.lsn++
	if err := d.f.Apply(&seglog.Record{LSN: d.lsn, Type: RecordConfigure, Time: t0, Body: []byte("{")}, &d.out); err == nil {
		t.Error("a broken spec is taken")
	}
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	if d.f.View().Total.Aggregated != 1 || d.f.View().Rejected != 1 {
		t.Errorf("view %+v", d.f.View())
	}
}

func TestFold_ClockStepBackMovesFoldTimeButNotRuleTimers(t *testing.T) {
	spec := testSpec()
	spec.Rules = []RuleFile{freezerRule()}
	d := newDriver(t, spec)
	d.publish(t0+100*sec, "d/a/t", msg(1, t0+100*sec, 5))
	back := -3600 * sec
	d.apply(RecordClockStep, t0+110*sec+back, binary.AppendVarint(nil, back))
	if d.f.now != t0+110*sec+back {
		t.Errorf("fold time %d s, want %d", (d.f.now-t0)/sec, 110-3600)
	}
	if got, want := d.f.Due(), t0+130*sec+back; got != want {
		t.Errorf("alert due at %d s, want %d", (got-t0)/sec, (want-t0)/sec)
	}
	d.tick(t0 + 130*sec + back)
	if out := d.out.take(); !strings.Contains(out, "alert Warm firing") {
		t.Errorf("30 s of breach did not fire: %q", out)
	}
}

func TestFold_RulesSeeReadingsAfterTheClockWasSetBack(t *testing.T) {
	spec := testSpec()
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - { alert: Warm, expr: temperature > 0 }\n"}}
	d := newDriver(t, spec)
	d.publish(t0+100*sec, "d/a/t", msg(1, t0+100*sec, -5))
	back := -3600 * sec
	d.apply(RecordClockStep, t0+110*sec+back, binary.AppendVarint(nil, back))
	d.out.take()
	d.publish(t0+111*sec+back, "d/a/t", msg(2, t0+111*sec+back, 5))
	if out := d.out.take(); !strings.Contains(out, "alert Warm firing") {
		t.Errorf("the reading after the step is taken for an old one: %q", out)
	}
}

func putVarint(b []byte, v int64) int { return binary.PutVarint(b, v) }

// windowCounts keeps the count of each window as it was put out last.
type windowCounts struct{ last map[string]uint64 }

func (w *windowCounts) Point(_ Cause, p *telemetry.Point) {
	for _, a := range p.Aggregates {
		w.last[fmt.Sprint(p.Measurement, p.Labels, p.Window, p.Time, a.Metric)] = a.Count
	}
}
func (*windowCounts) Alerts(Cause, []rules.Event) {}

func (*windowCounts) Notify(Cause, *notify.Notification) {}
func (*windowCounts) Refuse(Cause, *Refused)             {}

type nowhere struct{}

func (nowhere) Point(Cause, *telemetry.Point) {}
func (nowhere) Alerts(Cause, []rules.Event)   {}

func (nowhere) Notify(Cause, *notify.Notification) {}
func (nowhere) Refuse(Cause, *Refused)             {}

func (f *Fold) tickForFuzz() {
	_ = f.Apply(&seglog.Record{LSN: f.lsn + 1, Type: RecordTick, Time: f.now}, nowhere{})
}

// counted is Outputs that also wants readings.
type counted struct {
	recorder
	readings uint64
	devices  map[*telemetry.Device]string
	passed   seglog.LSN
}

func (c *counted) Readings(cause Cause, d *telemetry.Device, _ int64, readings []telemetry.Reading) {
	c.readings += uint64(len(readings))
	c.devices[d] = d.Measurement + d.Labels.String()
}

func (c *counted) Passed(at seglog.LSN) { c.passed = at }

// Whoever wants the readings gets exactly those that the ledger counts, and the other outputs, causes included, stay the same.
func TestFold_PassesOnEveryReadingItCounts(t *testing.T) {
	for seed := range uint64(10) {
		recs := script(seed, 500)
		var plain recorder
		applyAll(t, NewFold(), recs, &plain)
		c := &counted{devices: map[*telemetry.Device]string{}}
		f := NewFold()
		applyAll(t, f, recs, c)
		if total := f.View().Total.Aggregated; c.readings != total || total == 0 {
			t.Errorf("seed %d: %d readings passed on, %d counted", seed, c.readings, total)
		}
		if got, want := c.take(), plain.take(); got != want {
			t.Errorf("seed %d: outputs depend on who listens\n%s", seed, firstDifference(got, want))
		}
		for _, name := range c.devices {
			if !strings.Contains(name, "gateway=") {
				t.Errorf("device %s lacks the gateway's label", name)
			}
		}
	}
}
