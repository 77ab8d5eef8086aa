package pipeline

import (
	"fmt"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
)

func TestDevices_IntervalIsLearnedKeptAndNotFromDowntime(t *testing.T) {
	f := NewFold()
	spec, err := (&Spec{
		Gateway: "g", Limits: Limits{Series: 10, Future: time.Hour, Past: time.Hour},
		Sources: []SourceSpec{{Name: "s", Topic: "d/{device}", Measurement: "s", Decode: decode.Spec{Format: "json"}, Send: SendAggregates, Window: 10 * time.Second}},
	}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	lsn := seglog.LSN(0)
	apply := func(f *Fold, kind byte, at time.Duration, body []byte) {
		t.Helper()
		lsn++
		if err := f.Apply(&seglog.Record{LSN: lsn, Type: kind, Time: int64(at), Body: body}, nowhere{}); err != nil {
			t.Fatal(err)
		}
	}
	says := func(f *Fold, at time.Duration) {
		m := &Message{ClientID: "c", Topic: "d/a", QoS: 1, PacketID: uint16(lsn) + 1}
		apply(f, RecordMessage, at, append(AppendMessageHead(nil, m), fmt.Sprintf(`{"v":%d}`, lsn)...))
	}
	now := 1000 * time.Hour
	apply(f, RecordConfigure, now, spec)
	for range 3 {
		now += 10 * time.Second
		says(f, now)
	}
	if d := f.Devices()[0]; d.Interval != 0 || d.Allowed != 0 {
		t.Errorf("after three messages: interval %s, allowed %s", d.Interval, d.Allowed)
	}
	now += 10 * time.Second
	says(f, now)
	if d := f.Devices()[0]; d.Interval != 10*time.Second || d.Allowed != 30*time.Second || d.LastSeen != int64(now) {
		t.Errorf("after four messages 10 s apart: %+v", d)
	}
	now += time.Hour
	apply(f, RecordBoot, now, []byte("boot 1"))
	says(f, now+time.Second)
	now += 11 * time.Second
	says(f, now)
	back, err := RestoreFold(f.Snapshot(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Fold{f, back} {
		d := f.Devices()[0]
		if d.Interval != 10*time.Second || d.Allowed != 30*time.Second {
			t.Errorf("an hour's downtime was learned: %+v", d)
		}
		if d.Device.Labels.Get("gateway") != "g" || f.Devices()[0].Device != d.Device {
			t.Errorf("the device others see is not the same from one copy to the next")
		}
	}
}
