package influx

import (
	"strings"
	"testing"
	"time"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// A store that holds a field as another type gets that field as that type, and the others as they are.
func TestTyped_WritesTheFieldsThatTheServerNamedAsWhatItHolds(t *testing.T) {
	p := &telemetry.Point{Measurement: "m", Labels: telemetry.Labels{{Name: "device", Value: "a"}}, Time: 7, Fields: []telemetry.Field{{Name: "a", Value: 3}, {Name: "b", Value: 1}}}
	record := uplink.Record{Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}
	for _, tt := range []struct {
		as   string
		said string
		want string
	}{
		{"int", `field type conflict: input field "a" on measurement "m" is type float, already exists as type integer`, "m,device=a a=3i,b=1 7"},
		{"int", "some field conflicts", "m,device=a a=3i,b=1i 7"},
		{"string", `input field "b"`, `m,device=a a=3,b="1" 7`},
		{"bool", `input field 'b'`, "m,device=a a=3,b=true 7"},
		{"float", "", "m,device=a a=3,b=1 7"},
		{"bool", `input field "a"`, "# field_value: a: 3 is neither 0 nor 1"},
	} {
		as, err := uplink.ParseFieldType(tt.as)
		if err != nil {
			t.Fatal(err)
		}
		r, err := uplink.Retype(record, as, tt.said)
		if err != nil {
			t.Fatal(err)
		}
		if got := Describe(r); got != tt.want {
			t.Errorf("as %s, %q: %s, want %s", tt.as, tt.said, got, tt.want)
		}
		// Refused again, it can be given another type.
		if r, err = uplink.Retype(r, uplink.AsFloat, ""); err != nil || Describe(r) != "m,device=a a=3,b=1 7" {
			t.Errorf("back to float: %s, %v", Describe(r), err)
		}
	}
	window := &telemetry.Point{Measurement: "m", Time: 7, Window: 10 * time.Second, Stats: []telemetry.Stat{"count", "mean"}}
	var g telemetry.Aggregate
	g.Add(1, 2.5)
	window.Aggregates = []telemetry.MetricAggregate{{Metric: "t", Aggregate: g}}
	r, err := uplink.Retype(uplink.Record{Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, window)}, uplink.AsInt, `input field "t_count"`)
	if err != nil || Describe(r) != "m,window=10s t_count=1i,t_mean=2.5 7" {
		t.Errorf("of an aggregate: %s, %v", Describe(r), err)
	}
	if _, err := uplink.Retype(uplink.Record{Type: uplink.TypeNotification, Body: []byte("{}")}, uplink.AsInt, ""); err == nil {
		t.Error("a notification was given a type")
	}
	r.Body = r.Body[:2]
	if got := Describe(r); !strings.HasPrefix(got, "# damaged") {
		t.Errorf("damaged: %s", got)
	}
}
