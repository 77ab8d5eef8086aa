package decode

import (
	"testing"

	"github.com/valyala/fastjson"
)

// telemetryPayload is what a plain device sends: 110 bytes, three numbers, time and sequence.
const telemetryPayload = `{"ts":1795365862620,"seq":123456,"temperature":21.534,"humidity":48.25,"vibration":0.00317,"state":"running  "}`

func BenchmarkJSON(b *testing.B) {
	all := Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"}
	named := all
	named.Fields = []string{"temperature", "humidity", "vibration"}
	named.Labels = []string{"state"}
	for _, c := range []struct {
		name string
		spec Spec
	}{{"all", all}, {"named", named}} {
		b.Run(c.name, func(b *testing.B) {
			d, err := New(c.spec)
			if err != nil {
				b.Fatal(err)
			}
			m := Message{Payload: []byte(telemetryPayload)}
			var out Batch
			b.SetBytes(int64(len(m.Payload)))
			b.ReportAllocs()
			for b.Loop() {
				if err := d.Decode(&m, &out); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkJSONMixed alternates between three layouts, so that no key follows the one it followed last time.
func BenchmarkJSONMixed(b *testing.B) {
	d, err := New(Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"})
	if err != nil {
		b.Fatal(err)
	}
	m := [...]Message{
		{Payload: []byte(telemetryPayload)},
		{Payload: []byte(`{"vibration":0.00317,"humidity":48.25,"temperature":21.534,"state":"running  ","seq":123456,"ts":1795365862620}`)},
		{Payload: []byte(`{"humidity":48.25,"ts":1795365862620,"state":"running  ","temperature":21.534,"seq":123456,"vibration":0.00317}`)},
	}
	var out Batch
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if err := d.Decode(&m[i%len(m)], &out); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFastjson is what the library costs for less: it takes duplicate keys, invalid UTF-8, 1e999 and depth 300, its
// numbers are not always the nearest float64, and the names it returns are not interned.
func BenchmarkFastjson(b *testing.B) {
	payload := []byte(telemetryPayload)
	var p fastjson.Parser
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	for b.Loop() {
		if err := fastjson.ValidateBytes(payload); err != nil {
			b.Fatal(err)
		}
		v, err := p.ParseBytes(payload)
		if err != nil {
			b.Fatal(err)
		}
		o, _ := v.Object()
		sum := 0.0
		o.Visit(func(_ []byte, v *fastjson.Value) {
			if f, err := v.Float64(); err == nil {
				sum += f
			}
		})
		if sum == 0 {
			b.Fatal("no numbers")
		}
	}
}

func BenchmarkValue(b *testing.B) {
	d, err := New(Spec{Format: "value"})
	if err != nil {
		b.Fatal(err)
	}
	m := Message{Payload: []byte("21.534\n")}
	var out Batch
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&m, &out); err != nil {
			b.Fatal(err)
		}
	}
}
