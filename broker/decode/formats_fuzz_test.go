package decode

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/gateway/telemetry"
)

// holdsContract checks what every decoder promises of a result.
func holdsContract(t *testing.T, payload []byte, out *Batch, err error) {
	t.Helper()
	if err != nil {
		e := (*Error)(nil)
		if !errors.As(err, &e) || !slices.Contains(Reasons, e.Reason) || !utf8.ValidString(e.Detail) || len(e.Detail) > 600 {
			t.Fatalf("Decode(%q) = %q", payload, err)
		}
		if len(out.Samples)+len(out.States) != 0 {
			t.Fatalf("Decode(%q) = %v with %d samples and %d states", payload, err, len(out.Samples), len(out.States))
		}
		return
	}
	total := 0
	for i := range out.Samples {
		s := &out.Samples[i]
		total += len(s.Readings)
		if len(s.Readings) > MaxReadings || len(s.Readings)+len(s.Refused)+len(s.Units) == 0 {
			t.Fatalf("Decode(%q): sample %d has %d readings, %d refusals, %d units", payload, i, len(s.Readings), len(s.Refused), len(s.Units))
		}
		names := map[string]bool{}
		for _, r := range s.Readings {
			if math.IsNaN(r.Value) || math.IsInf(r.Value, 0) || nameFault(r.Metric) != "" || !utf8.ValidString(r.Metric) || names[r.Metric] || len(r.Metric) > MaxNameBytes {
				t.Fatalf("Decode(%q) gives the reading %+v", payload, r)
			}
			names[r.Metric] = true
		}
		goodLabels(t, payload, s.Labels)
		for _, r := range s.Refused {
			if !slices.Contains(Reasons, r.Reason) {
				t.Fatalf("Decode(%q) refuses %+v", payload, r)
			}
		}
		for _, u := range s.Units {
			if u.Unit == "" || len(u.Unit) > maxUnitBytes || hasControl(u.Unit) || !utf8.ValidString(u.Unit) || u.Metric == "" {
				t.Fatalf("Decode(%q) gives the unit %+v", payload, u)
			}
		}
	}
	if total > MaxBatch {
		t.Fatalf("Decode(%q) gives %d readings", payload, total)
	}
	for _, s := range out.States {
		goodLabels(t, payload, s.Labels)
	}
}

func goodLabels(t *testing.T, payload []byte, labels []telemetry.Label) {
	t.Helper()
	names := map[string]bool{}
	for _, l := range labels {
		if l.Name == "" || l.Value == "" || len(l.Value) > MaxLabelBytes || hasControl(l.Value) || !utf8.ValidString(l.Value) || names[l.Name] {
			t.Fatalf("Decode(%q) gives the label %+v", payload, l)
		}
		names[l.Name] = true
	}
}

// goldenPayloads are the payloads of a format's golden files with the messages they come in.
func goldenPayloads(t testing.TB, format string, each func(m Message)) {
	files, _ := filepath.Glob("testdata/" + format + "*.txtar")
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, parts := archive(string(text))
		var m Message
		for _, p := range parts {
			switch {
			case p.name == "message":
				m = parseMessage(nil, p.text)
			case strings.HasPrefix(p.name, "in: "):
				m.Payload = unescapeBytes(strings.TrimSuffix(p.text, "\n"))
				each(m)
			}
		}
	}
}

func fuzzFormat(f *testing.F, spec Spec) {
	goldenPayloads(f, spec.Format, func(m Message) { f.Add(m.Payload, m.Topic, m.Rest, m.capture("device")) })
	used := decoder(f, spec)
	f.Fuzz(func(t *testing.T, payload []byte, topic, rest, device string) {
		if !utf8.ValidString(topic) || !utf8.ValidString(rest) {
			return // the broker takes no such topic
		}
		m := Message{Topic: topic, Rest: rest, Payload: payload, Received: 1_795_348_800 * nsPerSecond}
		if device != "" {
			m.Labels = []telemetry.Label{{Name: "device", Value: device}}
		}
		var out, again Batch
		err := decoder(t, spec).Decode(&m, &out)
		holdsContract(t, payload, &out, err)
		errAgain := used.Decode(&m, &again)
		if _, stateful := used.(Stateful); stateful {
			return
		}
		if got, want := render(&again, errAgain), render(&out, err); got != want {
			t.Fatalf("Decode(%q) by a used decoder = %s, by a new one %s", payload, got, want)
		}
	})
}

func FuzzSenML(f *testing.F)  { fuzzFormat(f, Spec{Format: "senml"}) }
func FuzzInflux(f *testing.F) { fuzzFormat(f, Spec{Format: "influx"}) }
func FuzzTasmota(f *testing.F) {
	z, _ := zoneOf(f, "Europe/Berlin")
	fuzzFormat(f, Spec{Format: "tasmota", Zone: z})
}
func FuzzShelly(f *testing.F)      { fuzzFormat(f, Spec{Format: "shelly"}) }
func FuzzZigbee2MQTT(f *testing.F) { fuzzFormat(f, Spec{Format: "zigbee2mqtt"}) }
func FuzzESPHome(f *testing.F)     { fuzzFormat(f, Spec{Format: "esphome"}) }
func FuzzTTN(f *testing.F) {
	fuzzFormat(f, Spec{Format: "ttn", Labels: []string{"end_device_ids.dev_eui"}})
}
func FuzzChirpStack(f *testing.F) {
	fuzzFormat(f, Spec{Format: "chirpstack", Labels: []string{"deviceInfo.deviceName"}})
}
func FuzzHomie(f *testing.F)        { fuzzFormat(f, Spec{Format: "homie"}) }
func FuzzAvailability(f *testing.F) { fuzzFormat(f, Spec{Format: "availability"}) }

// A payload with a million of anything costs no more than it must: it is read or refused in one pass.
func TestFormats_AreBounded(t *testing.T) {
	for format, payloads := range map[string][]string{
		"senml": {"[" + strings.Repeat(`{"n":"a","v":1},`, 100_000) + `{"n":"a","v":1}]`, "\x9f" + strings.Repeat("\xbf\xff", 100_000) + "\xff",
			"[" + strings.Repeat(`{"x":[`, 100_000)},
		"influx": {strings.Repeat("m a=1\n", 100_000), "m " + strings.Repeat("a=1,", 100_000) + "a=1", strings.Repeat("m a=nan\n", 100_000), strings.Repeat("\n", 1_000_000)},
		"ttn":    {`{"uplink_message":{"decoded_payload":{"a":[` + strings.Repeat("1,", 100_000) + "1]}}}"},
	} {
		for i, p := range payloads {
			var out Batch
			err := decoder(t, Spec{Format: format}).Decode(&Message{Topic: "a/up", Payload: []byte(p)}, &out)
			holdsContract(t, nil, &out, err)
			if err == nil && len(out.Samples) > MaxBatch {
				t.Errorf("%s, payload %d: %d samples", format, i, len(out.Samples))
			}
		}
	}
}

// A device that invents names and texts, each as long as it may, makes no decoder grow.
func TestFormats_WhatIsRememberedIsBounded(t *testing.T) {
	long := strings.Repeat("x", 100_000)
	var before, after runtime.MemStats
	for format, payload := range map[string]func(i int) (topic, payload string){
		"influx": func(i int) (string, string) { return "t", fmt.Sprintf("m,%s%d=a x=1", long, i) },
		"senml":  func(i int) (string, string) { return "t", fmt.Sprintf(`[{"n":"%s%d","v":1}]`, long, i) },
		"ttn": func(i int) (string, string) {
			return "v3/a/devices/d/up", fmt.Sprintf(`{"uplink_message":{"frm_payload":"%s%d"}}`, long, i)
		},
		"esphome":     func(i int) (string, string) { return fmt.Sprintf("d/sensor/%s%d/state", long[:60_000], i), "1" },
		"zigbee2mqtt": func(i int) (string, string) { return fmt.Sprintf("zigbee2mqtt/%s%d", long[:60_000], i), `{"a":1}` },
		"homie":       func(i int) (string, string) { return fmt.Sprintf("homie/d/n/%s%d/$unit", long[:60_000], i), "V" },
		"sparkplug":   func(i int) (string, string) { return fmt.Sprintf("spBv1.0/g/NDATA/%s%d", long[:60_000], i), "" },
	} {
		d := decoder(t, Spec{Format: format})
		var out Batch
		runtime.GC()
		runtime.ReadMemStats(&before)
		for i := range 300 {
			topic, p := payload(i)
			_ = d.Decode(&Message{Topic: topic, Rest: strings.TrimPrefix(strings.TrimPrefix(topic, "zigbee2mqtt/"), "homie/d/"), Payload: []byte(p)}, &out)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 4<<20 {
			t.Errorf("%s: %d payloads of %d bytes left %d bytes behind", format, 300, len(long), grown)
		}
		runtime.KeepAlive(d)
	}
}

// The formats of steady traffic read their golden payloads without allocating, once their names are known.
func TestFormats_SteadyStateAllocatesLittle(t *testing.T) {
	z, _ := zoneOf(t, "Europe/Berlin")
	for _, format := range []string{"senml", "influx", "cbor", "tasmota", "shelly", "zigbee2mqtt", "esphome", "ttn", "chirpstack", "homie"} {
		spec := Spec{Format: format}
		if Local(format) {
			spec.Zone = z
		}
		d := decoder(t, spec)
		var out Batch
		var steady []Message
		goldenPayloads(t, format, func(m Message) {
			if d.Decode(&m, &out) == nil && len(out.Samples) > 0 && len(out.Samples[0].Readings) > 0 && len(out.Samples[0].Refused) == 0 {
				steady = append(steady, m)
			}
		})
		if format == "cbor" {
			steady = []Message{{Payload: []byte("\xa3\x61t\xfb\x41\xda\xc0\x00\x00\x00\x00\x00\x61v\xf9\x3c\x00\x61b\xf5")}}
		}
		if len(steady) == 0 {
			t.Errorf("%s: no golden payload with readings", format)
			continue
		}
		allocs := testing.AllocsPerRun(50, func() {
			for i := range steady {
				if err := d.Decode(&steady[i], &out); err != nil {
					t.Fatal(err)
				}
			}
		})
		if allocs > 0 {
			t.Errorf("%s: %v allocations for %d payloads", format, allocs, len(steady))
		}
	}
}

func TestTopics_OfPresetsAndNoOthers(t *testing.T) {
	for _, format := range Formats() {
		preset := !slices.Contains([]string{"json", "value", "senml", "cbor", "influx", "availability"}, format)
		if got := len(Topics(format)) > 0; got != preset {
			t.Errorf("Topics(%s) = %v", format, Topics(format))
		}
		if _, err := New(Spec{Format: format}); err != nil {
			t.Errorf("New(%s) = %v", format, err)
		}
		for _, bad := range []Spec{{Format: format, TimeField: "t"}, {Format: format, Sequence: "n"}} {
			takes := format == "json" || format == "cbor"
			if _, err := New(bad); (err == nil) != takes {
				t.Errorf("New(%+v) = %v", bad, err)
			}
		}
	}
	if b, err := json.Marshal(Spec{Format: "json", Measurement: "m"}); err != nil || strings.Contains(string(b), `"m"`) {
		t.Errorf("a spec on record holds the measurement: %s, %v", b, err)
	}
}
