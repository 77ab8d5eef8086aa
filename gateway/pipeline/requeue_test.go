package pipeline

import (
	"bytes"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
)

// keeper is a recorder with a quarantine.
type keeper struct {
	recorder
	items []Refused
	taken []string
}

func (k *keeper) Refuse(c Cause, q *Refused) {
	one := *q
	one.Payload = bytes.Clone(q.Payload)
	one.Retry, _ = ParseRetry(q.Retry.Append(nil))
	k.items = append(k.items, one)
	k.recorder.Refuse(c, q)
}

func (k *keeper) Requeued(c Cause, q *Requeue) {
	k.taken = append(k.taken, fmt.Sprintf("%d.%d item %d", c.LSN, c.Ordinal, q.ID))
}

// bench is a driver with a keeper.
type bench struct {
	*driver
	k keeper
}

func newBench(t testing.TB, spec *Spec) *bench {
	b := &bench{driver: &driver{TB: t, f: NewFold()}}
	b.configure(t0, spec)
	return b
}

func (b *bench) apply(typ byte, at int64, body []byte) {
	b.Helper()
	b.lsn++
	if err := b.f.Apply(&seglog.Record{LSN: b.lsn, Type: typ, Time: at, Body: body}, &b.k); err != nil {
		b.Fatalf("record %d: %v", b.lsn, err)
	}
	if im := b.f.View().Total.Imbalance(); im != 0 {
		b.Fatalf("ledger is out of balance by %d after record %d", im, b.lsn)
	}
}

func (b *bench) configure(at int64, spec *Spec) {
	b.Helper()
	raw, err := spec.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.apply(RecordConfigure, at, raw)
}

func (b *bench) publish(at int64, topic, payload string) {
	b.Helper()
	b.apply(RecordMessage, at, messageBody(Message{ClientID: "c", Topic: topic, Payload: []byte(payload), QoS: 1, PacketID: 1}))
}

// requeue puts the i-th refused item back.
func (b *bench) requeue(at int64, i int) {
	b.Helper()
	it := b.k.items[i]
	q := &Requeue{ID: uint64(i + 1), Count: uint64(it.Count), Source: it.Source, Late: it.Reason == ReasonLate, Topic: it.Topic, Payload: it.Payload, Retry: it.Retry}
	b.apply(RecordRequeue, at, q.Append(nil))
}

// ledger wants where every reading is now.
func (b *bench) ledger(received, aggregated, duplicate, quarantined, late uint64) {
	b.Helper()
	l := b.f.View().Total.Net()
	got := [...]uint64{l.Received, l.Aggregated, l.Duplicate, l.Quarantined, l.Late}
	if want := [...]uint64{received, aggregated, duplicate, quarantined, late}; got != want {
		b.Errorf("received, aggregated, duplicate, quarantined, late = %v, want %v", got, want)
	}
}

func TestRequeue_PayloadThatCanBeReadNowCountsOnceWithItsArrival(t *testing.T) {
	b := newBench(t, testSpec())
	b.publish(t0+sec, "d/a/t", `{"seq":1,"ts":"soon","temperature":5,"humidity":40}`)
	b.ledger(1, 0, 0, 1, 0)
	spec := testSpec()
	spec.Sources[0].Decode.TimeField, spec.Sources[0].Decode.TimeUnit = "", ""
	b.configure(t0+3*sec, spec)
	b.requeue(t0+8*sec, 0)
	b.ledger(2, 2, 0, 0, 0) // temperature and humidity: ts is a string now, and seq the sequence
	b.k.recorder.take()
	b.apply(RecordTick, t0+13*sec, nil)
	if got := b.k.take(); !strings.Contains(got, " @0 w=10s ") {
		t.Errorf("got %s, want the window of its arrival", got)
	}
}

func TestRequeue_DeviceThatResendsWhatWasPutBackIsADuplicate(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Decode.TimeField, spec.Sources[0].Decode.TimeUnit = "", ""
	spec.Sources[0].Expect = &Expect{Ranges: map[string]Range{"temperature": {Max: ptr(10)}}}
	b := newBench(t, spec)
	b.publish(t0+sec, "d/a/t", `{"seq":1,"temperature":50,"humidity":40}`)
	b.ledger(2, 1, 0, 1, 0)
	spec.Sources[0].Expect = nil
	b.configure(t0+2*sec, spec)
	b.requeue(t0+3*sec, 0)
	b.ledger(2, 2, 0, 0, 0) // the humidity, which was counted, does not count again
	b.publish(t0+4*sec, "d/a/t", `{"seq":1,"temperature":50,"humidity":40}`)
	b.ledger(4, 2, 2, 0, 0)
	b.k.recorder.take()
	b.apply(RecordTick, t0+13*sec, nil)
	if got, want := b.k.take(), `6.0 point telemetry{device="a", gateway="plant-7", site="plant-7"} @0 w=10s humidity_count=1 humidity_mean=40 humidity_min=40 humidity_max=40 humidity_last=40 temperature_count=1 temperature_mean=50 temperature_min=50 temperature_max=50 temperature_last=50`; got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	if len(b.k.taken) != 1 || b.k.taken[0] != "4.0 item 1" {
		t.Errorf("taken out of quarantine: %v", b.k.taken)
	}
}

func ptr(v float64) *float64 { return &v }

// What is refused again comes back with what it stood for, and no more, however often.
func TestRequeue_PartRefusedAgainStaysThatPart(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Decode.TimeField, spec.Sources[0].Decode.TimeUnit = "", ""
	spec.Sources[0].Expect = &Expect{Ranges: map[string]Range{"temperature": {Max: ptr(10)}, "pressure": {Max: ptr(10)}}}
	b := newBench(t, spec)
	b.publish(t0+sec, "d/a/t", `{"seq":1,"temperature":50,"humidity":40,"pressure":70}`)
	b.ledger(3, 1, 0, 2, 0)
	for i := range 3 {
		b.requeue(t0+2*sec, 2*i)
		b.requeue(t0+2*sec, 2*i+1)
		b.ledger(3, 1, 0, 2, 0)
	}
	broken := *spec
	broken.Sources = append([]SourceSpec(nil), spec.Sources...)
	broken.Sources[0].Decode = decode.Spec{Format: "senml"}
	b.configure(t0+3*sec, &broken)
	n := len(b.k.items)
	b.requeue(t0+3*sec, n-1) // the payload as a whole cannot be read now
	b.ledger(3, 1, 0, 2, 0)
	spec.Sources[0].Expect = nil
	b.configure(t0+4*sec, spec)
	b.requeue(t0+4*sec, n-2)
	b.requeue(t0+4*sec, n)
	b.ledger(3, 3, 0, 0, 0)
}

func TestRequeue_PartThatThePayloadDoesNotHoldAnyMoreStillCounts(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Decode.TimeField, spec.Sources[0].Decode.TimeUnit = "", ""
	spec.Sources[0].Decode.Fields = []string{"temperature", "humidity"}
	spec.Sources[0].Expect = &Expect{Require: []string{"pressure"}}
	b := newBench(t, spec)
	b.publish(t0+sec, "d/a/t", `{"seq":1,"temperature":"warm","humidity":40}`)
	b.ledger(2, 0, 0, 2, 0)
	spec.Sources[0].Expect = nil
	spec.Sources[0].Decode.Fields = []string{"humidity"}
	b.configure(t0+2*sec, spec)
	b.requeue(t0+2*sec, 0) // temperature, which is not wanted any more
	b.requeue(t0+2*sec, 1) // humidity
	b.ledger(2, 1, 0, 1, 0)
	if last := b.k.items[len(b.k.items)-1]; last.Reason != ReasonGone || last.Count != 1 || !reflect.DeepEqual(last.Retry.Metrics, []string{"temperature"}) {
		t.Errorf("refused again: %+v", last)
	}
	spec.Sources[0].Decode.Fields = []string{"temperature", "humidity"}
	b.configure(t0+3*sec, spec)
	b.requeue(t0+3*sec, 2)
	b.ledger(2, 1, 0, 1, 0) // a string still
}

func TestRequeue_LateReadingMovesOutOfTheLateOnes(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Lateness = 0
	b := newBench(t, spec)
	b.apply(RecordTick, t0+60*sec, nil)
	b.publish(t0+61*sec, "d/a/t", msg(1, t0+sec, 5))
	b.ledger(1, 0, 0, 0, 1)
	b.requeue(t0+62*sec, 0)
	b.ledger(1, 0, 0, 0, 1)
	spec.Sources[0].Lateness = 10 * time.Minute
	b.configure(t0+63*sec, spec)
	b.requeue(t0+64*sec, 1)
	b.ledger(1, 1, 0, 0, 0)
	if m := b.f.View().Total.Messages; m != 1 {
		t.Errorf("%d messages, want the one that was received", m)
	}
}

// Rules, a device's last sign of life and a decoder's memory are about now.
func TestRequeue_OldMessageMovesNothingThatIsAboutNow(t *testing.T) {
	spec := testSpec()
	spec.Rules = []RuleFile{freezerRule()}
	spec.Sources[0].Decode.TimeField, spec.Sources[0].Decode.TimeUnit = "", ""
	spec.Sources[0].Expect = &Expect{Ranges: map[string]Range{"temperature": {Max: ptr(-100)}}}
	b := newBench(t, spec)
	b.publish(t0+sec, "d/a/t", `{"seq":1,"temperature":50}`)
	seen := b.f.Devices()[0].LastSeen
	spec.Sources[0].Expect = nil
	b.configure(t0+2*sec, spec)
	b.requeue(t0+30*sec, 0)
	b.ledger(1, 1, 0, 0, 0)
	if got := b.f.Devices()[0].LastSeen; got != seen {
		t.Errorf("last seen moved from %d to %d", seen, got)
	}
	for s := int64(31); s < 700; s++ {
		b.apply(RecordTick, t0+s*sec, nil)
	}
	if alerts := b.f.View().Alerts; len(alerts) > 0 {
		t.Errorf("alerts %+v", alerts)
	}
}

func TestRequeue_RestoredFoldGoesOnAsIfItHadNeverStopped(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Expect = &Expect{Ranges: map[string]Range{"temperature": {Max: ptr(10)}}}
	b := newBench(t, spec)
	for i := range 10 {
		b.publish(t0+int64(i)*sec, "d/a/t", msg(i, t0+int64(i)*sec, float64(5+i)))
	}
	spec.Sources[0].Expect = nil
	b.configure(t0+10*sec, spec)
	b.requeue(t0+11*sec, 0)
	state := b.f.Snapshot(nil)
	f, err := RestoreFold(state)
	if err != nil || !bytes.Equal(f.Snapshot(nil), state) {
		t.Fatalf("restored: %v, same state %v", err, err == nil && bytes.Equal(f.Snapshot(nil), state))
	}
	if got, want := f.View().Total, b.f.View().Total; got != want || got.Requeued != 1 {
		t.Errorf("restored %+v, want %+v", got, want)
	}
}

func TestRequeue_RecordOfADestinationTouchesNoLedger(t *testing.T) {
	b := newBench(t, testSpec())
	before := b.f.View().Total
	b.apply(RecordRequeue, t0+sec, (&Requeue{ID: 9, Count: 2, Destination: "cloud", Type: 1, Record: []byte{1, 2}}).Append(nil))
	if got := b.f.View().Total; got != before || len(b.k.taken) != 1 {
		t.Errorf("ledger %+v, want %+v; taken %v", got, before, b.k.taken)
	}
}

func FuzzParseRequeue(f *testing.F) {
	f.Add((&Requeue{ID: 1, Count: 2, Destination: "cloud", Type: 1, Record: []byte("x")}).Append(nil))
	f.Add((&Requeue{ID: 1, Count: 2, Source: "line", Late: true, Topic: "a/b", Payload: []byte("{}"), Retry: Retry{
		Arrived: -5, ClientID: "c", Flags: 9, PacketID: 7, Passed: 3, Sample: 2, Metrics: []string{"a", ""}}}).Append(nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := ParseRequeue(raw)
		if err != nil {
			return
		}
		again, err := ParseRequeue(q.Append(nil))
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", q) {
			t.Errorf("%+v written and read back: %+v, %v", q, again, err)
		}
		fold := NewFold()
		fold.Apply(&seglog.Record{LSN: 1, Type: RecordRequeue, Time: t0, Body: raw}, &recorder{})
		if im := fold.View().Total.Imbalance(); im != 0 {
			t.Errorf("imbalance %d", im)
		}
	})
}
