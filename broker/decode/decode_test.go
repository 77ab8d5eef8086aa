package decode

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func decoder(t testing.TB, spec Spec) Decoder {
	t.Helper()
	d, err := New(spec)
	if err != nil {
		t.Fatalf("New(%+v) = %v", spec, err)
	}
	return d
}

func TestNew_RefusesWhatMakesNoSense(t *testing.T) {
	for _, c := range []struct {
		spec Spec
		want string
	}{
		{Spec{Format: "xml"}, `format: want one of json value senml cbor influx sparkplug availability tasmota shelly zigbee2mqtt esphome ttn chirpstack homie, got "xml"`},
		{Spec{}, `format: want one of json value senml cbor influx sparkplug availability tasmota shelly zigbee2mqtt esphome ttn chirpstack homie, got ""`},
		{Spec{Format: "json", TimeField: "ts", TimeUnit: "min"}, `time: want unit s, ms, us, ns, rfc3339 or auto, got "min"`},
		{Spec{Format: "json", TimeField: "ts", Sequence: "ts"}, `sequence: "ts" already stands under time`},
		{Spec{Format: "json", Fields: []string{"a", "b", "a"}}, `fields: "a" already stands under fields`},
		{Spec{Format: "json", Labels: []string{"a"}, Fields: []string{"a"}}, `fields: "a" already stands under labels`},
		{Spec{Format: "json", Labels: []string{""}}, `labels: a name is empty`},
		{Spec{Format: "value", TimeField: "ts"}, `time: format value carries no time`},
		{Spec{Format: "value", Sequence: "n"}, `sequence: format value carries no sequence`},
		{Spec{Format: "value", Fields: []string{"a"}}, `fields: format value has a single one`},
		{Spec{Format: "value", Labels: []string{"a"}}, `labels: format value carries none; capture a topic level instead`},
		{Spec{Format: "value", Metric: "a\nb"}, `metric: the name holds control characters`},
	} {
		if _, err := New(c.spec); err == nil || err.Error() != c.want {
			t.Errorf("New(%+v) = %v, want %s", c.spec, err, c.want)
		}
	}
}

func TestValue_MetricIsValueByDefault(t *testing.T) {
	var out Batch
	if err := decoder(t, Spec{Format: "value"}).Decode(&Message{Payload: []byte("3")}, &out); err != nil {
		t.Fatal(err)
	}
	if got := render(&out, nil); got != "value = 3\n" {
		t.Errorf("Decode(3) = %q", got)
	}
}

func TestJSON_LimitsRefuseTheWholePayload(t *testing.T) {
	object := func(n int, format string) string {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf(format, i)
		}
		return "{" + strings.Join(keys, ",") + "}"
	}
	for _, c := range []struct{ name, payload, want string }{
		{"256 readings", object(MaxReadings, `"k%d":1`), ""},
		{"257 readings", object(MaxReadings+1, `"k%d":1`), ReasonTooManyFields},
		{"1024 keys", object(MaxKeys-1, `"k%d":""`)[:1] + `"n":1,` + object(MaxKeys-1, `"k%d":""`)[1:], ""},
		{"1025 keys", object(MaxKeys, `"k%d":""`)[:1] + `"n":1,` + object(MaxKeys, `"k%d":""`)[1:], ReasonTooManyFields},
		{"1025 keys in an array that is not read", `{"n":1,"a":[` + strings.Repeat(`{"k":1},`, MaxKeys) + `0]}`, ReasonTooManyFields},
		{"100,000 elements in an array that is not read", `{"n":1,"a":[` + strings.Repeat(`1,`, 100_000) + `0]}`, ""},
		{"depth 100,000", strings.Repeat(`{"a":`, 100_000), ReasonDepth},
		{"depth 100,000 in arrays", `{"a":` + strings.Repeat(`[`, 100_000), ReasonDepth},
		{"a key of 1 MB", `{"` + strings.Repeat("k", 1<<20) + `":1}`, ReasonKeyTooLong},
		{"a number of 1 MB", `{"a":1` + strings.Repeat("0", 1<<20) + `}`, ReasonNotFinite},
		{"a fraction of 1 MB", `{"a":0.` + strings.Repeat("0", 1<<20) + `1}`, ""},
		{"an exponent of 1 MB", `{"a":0e` + strings.Repeat("9", 1<<20) + `}`, ""},
	} {
		var out Batch
		err := decoder(t, Spec{Format: "json"}).Decode(&Message{Payload: []byte(c.payload)}, &out)
		got := ""
		if e := (*Error)(nil); errors.As(err, &e) {
			got = e.Reason
		}
		if got != c.want {
			t.Errorf("%s: Decode = %v, want reason %q", c.name, err, c.want)
		}
		if err != nil && len(out.Samples) != 0 {
			t.Errorf("%s: %d samples beside an error", c.name, len(out.Samples))
		}
	}
}

func TestJSON_ArraysOfNamedFieldsAreLimitedToo(t *testing.T) {
	d := decoder(t, Spec{Format: "json", Fields: []string{"a"}})
	var out Batch
	err := d.Decode(&Message{Payload: []byte(`{"a":[` + strings.Repeat("1,", MaxReadings) + `1]}`)}, &out)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Reason != ReasonTooManyFields {
		t.Errorf("Decode of %d elements = %v, want %s", MaxReadings+1, err, ReasonTooManyFields)
	}
}

func TestJSON_StringsOutliveThePayload(t *testing.T) {
	spec := Spec{Format: "json", TimeField: "t", Labels: []string{"line", "n"}, Fields: []string{"a", "esc", "b"}}
	d := decoder(t, spec)
	payload := []byte(`{"t":1,"line":"one","n":12,"\u0065sc":"N/A","a":1}`)
	var out Batch
	if err := d.Decode(&Message{Payload: payload}, &out); err != nil {
		t.Fatal(err)
	}
	want := render(&out, nil)
	for i := range payload {
		payload[i] = '#'
	}
	if got := render(&out, nil); got != want {
		t.Errorf("after the payload was overwritten: %s, want %s", got, want)
	}
	kept := out.Samples[0].Labels[0]
	if err := d.Decode(&Message{Payload: []byte(`{"line":"two","b":1}`)}, &out); err != nil {
		t.Fatal(err)
	}
	if kept.Value != "one" {
		t.Errorf("a label kept over the next Decode is %q, want one", kept.Value)
	}
}

func TestJSON_BatchIsOverwrittenWhole(t *testing.T) {
	d := decoder(t, Spec{Format: "json", TimeField: "t", Sequence: "n", Labels: []string{"l"}})
	var out Batch
	for _, payload := range []string{`{"t":1,"n":7,"l":"x","a":1,"b":1e999}`, `{"c":2}`} {
		if err := d.Decode(&Message{Payload: []byte(payload)}, &out); err != nil {
			t.Fatal(err)
		}
	}
	if got := render(&out, nil); got != "c = 2\n" {
		t.Errorf("the second payload gives %q", got)
	}
}

func TestJSON_WhatIsRememberedIsBounded(t *testing.T) {
	d := decoder(t, Spec{Format: "json", Labels: []string{"l"}}).(*jsonDecoder)
	var out Batch
	for i := range 3 * maxPlaces {
		payload := fmt.Sprintf(`{"key%d":1,"l":"value%d","arr":[{"x%d":[[]]}]}`, i, i, i)
		if err := d.Decode(&Message{Payload: []byte(payload)}, &out); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("label l=value%d\nkey%d = 1\n", i, i); render(&out, nil) != want {
			t.Fatalf("payload %s gives %q", payload, render(&out, nil))
		}
		if d.fields.places > maxPlaces+2*MaxKeys || len(d.fields.names) > maxPlaces+2*MaxKeys || len(d.labels) > maxPlaces {
			t.Fatalf("after %d payloads: %d places, %d names, %d label values", i, d.fields.places, len(d.fields.names), len(d.labels))
		}
	}
}

func TestDecode_SteadyStateAllocatesNothing(t *testing.T) {
	spec := Spec{Format: "json", TimeField: "t", Sequence: "n", Labels: []string{"line", "ok"}, Fields: []string{"a", "e.f", "rows.0", "acc"}}
	payloads := []string{
		`{"t":"2026-11-22T16:44:22.62Z","n":7,"line":"a","ok":true,"a":0.1234567890123456789,"e":{"f":-1},"rows":[1,2]}`,
		`{"e":{"f":1e300},"line":"b\u00e9","t":1795365862620,"a":3,"acc":[1,2,3],"x":[{"y":null}]}`,
	}
	d := decoder(t, spec)
	var out Batch
	allocs := testing.AllocsPerRun(100, func() {
		for _, p := range payloads {
			if err := d.Decode(&Message{Payload: []byte(p)}, &out); err != nil {
				t.Fatal(err)
			}
		}
	})
	// The payloads themselves, and the Messages they come in.
	if limit := float64(2 * len(payloads)); allocs > limit {
		t.Errorf("%d payloads: %v allocations, want at most %v", len(payloads), allocs, limit)
	}
}

func TestReasons_AreAllListed(t *testing.T) {
	var out Batch
	for payload, want := range map[string]string{
		"": ReasonEmpty, "{": ReasonSyntax, "[1]": ReasonType, "{}": ReasonNoReadings, `{"a":NaN}`: ReasonNotFinite, "\xff": ReasonUTF8,
		`{"":1}`: ReasonName, `{"t":{}}`: ReasonTime, `{"n":{}}`: ReasonSequence, `{"l":""}`: ReasonLabel,
	} {
		d := decoder(t, Spec{Format: "json", TimeField: "t", Sequence: "n", Labels: []string{"l"}})
		err := d.Decode(&Message{Payload: []byte(payload)}, &out)
		e := (*Error)(nil)
		if !errors.As(err, &e) || e.Reason != want || !slices.Contains(Reasons, e.Reason) {
			t.Errorf("Decode(%q) = %v, want the listed reason %s", payload, err, want)
		}
	}
}

func TestNumber_IntegerKeepsAll64Bits(t *testing.T) {
	for text, want := range map[string]uint64{
		"18446744073709551615": math.MaxUint64, "1844674407370955161.5e1": math.MaxUint64, "18446744073709551615.000": math.MaxUint64,
		"0.0": 0, "-0e5": 0, "100e-2": 1, "1e19": 1e19, "0.00000000000000000000000000": 0, "5.00000000000000000000000000": 5,
	} {
		n, end := scanNumber([]byte(text), false)
		if got, ok := n.integer(); end != len(text) || !ok || got != want {
			t.Errorf("integer(%s) = %d, %v, want %d", text, got, ok, want)
		}
	}
	for _, text := range []string{"18446744073709551616", "-1", "0.5", "1e20", "1e-1", "0.00000000000000000000000001", "5.00000000000000000000000001", "1e-400", "1e400"} {
		n, end := scanNumber([]byte(text), false)
		if got, ok := n.integer(); end != len(text) || ok {
			t.Errorf("integer(%s) = %d, want none", text, got)
		}
	}
}

func TestInflux_TheSourcesOwnMeasurementIsNoLabel(t *testing.T) {
	var out Batch
	if err := decoder(t, Spec{Format: "influx", Measurement: "cpu"}).Decode(&Message{Payload: []byte("cpu,host=a usage=1\nmem usage=2")}, &out); err != nil {
		t.Fatal(err)
	}
	if got, want := render(&out, nil), "label host=a\nusage = 1\n\nlabel measurement=mem\nusage = 2\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// A field that the configuration names is a number also where the device puts it in quotes, however much space is in them.
func TestJSON_NamedFieldsTakeNumbersInQuotes(t *testing.T) {
	d := decoder(t, Spec{Format: "json", Fields: []string{"a", "b", "c", "d", "e"}})
	var out Batch
	if err := d.Decode(&Message{Payload: []byte(`{"a":" 21.5 ","b":"ON","c":"nan","d":"N/A","e":"\u00a0 "}`)}, &out); err != nil {
		t.Fatal(err)
	}
	want := "a = 21.5\nb = 1\nrefused \"c\" not_finite: \"nan\" is not a finite number\nrefused \"d\" type: the string \"N/A\", not a number\n" +
		"refused \"e\" type: the string \"\\u00a0 \", not a number\n"
	if got := render(&out, nil); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
