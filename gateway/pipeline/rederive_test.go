package pipeline

import (
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// A device falls silent, so nothing is due and no tick is journalled any more; whatever else is journalled much later lets time go on.
// The window that closed meanwhile belongs to the range that is reported as covered, so it is put out.
func TestRederive_TheLastWindowBeforeAQuietTimeIsPutOut(t *testing.T) {
	spec := testSpec()
	window, all := int64(10*time.Second), int64(10*time.Second+2*time.Second+10*time.Minute)
	for _, after := range []int64{all + window - 1, all + window} { // of the window's start: open by a nanosecond, and closed
		points := map[int64]float64{}
		f := NewFold()
		r := NewRederive(f, true, time.Unix(0, t0), time.Unix(0, t0+1e15), func(p *telemetry.Point) {
			if _, twice := points[p.Time]; twice {
				t.Errorf("the window at %d is put out twice", (p.Time-t0)/sec)
			}
			points[p.Time] = p.Aggregates[0].Last
		})
		raw, err := spec.Encode()
		if err != nil {
			t.Fatal(err)
		}
		lsn := seglog.LSN(0)
		apply := func(typ byte, at int64, body []byte) {
			lsn++
			r.Apply(&seglog.Record{LSN: lsn, Type: typ, Time: at, Body: body})
		}
		apply(RecordConfigure, t0, raw)
		for i, at := range []int64{1, 11} {
			apply(RecordMessage, t0+at*sec, messageBody(Message{ClientID: "c", Topic: "d/a/t", Payload: []byte(msg(i, t0+at*sec, float64(20+i))), QoS: 1, PacketID: 1}))
		}
		apply(RecordTick, t0+22*sec, nil)
		apply(RecordConfigure, t0+window+after, raw)
		r.Finish()
		_, to, damaged, _ := r.Covered()
		if damaged != 0 {
			t.Fatalf("%d records could not be applied", damaged)
		}
		for start := t0; start <= t0+window; start += window {
			_, got := points[start]
			if covered := start < to.UnixNano(); got != covered {
				t.Errorf("%v after the window at %d: put out %t, reported as covered %t", time.Duration(after), (start-t0)/sec, got, covered)
			}
		}
		if closed := after == all+window; len(points) == 2 != closed {
			t.Errorf("%v after its start the last window is put out: %t", time.Duration(after), !closed)
		}
	}
}
