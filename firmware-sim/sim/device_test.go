package sim

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var testStart = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// fleetOf builds the devices of a config without running anything.
func fleetOf(t testing.TB, change func(*Config)) (*Fleet, []*device) {
	t.Helper()
	cfg := Defaults()
	change(&cfg)
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var devices []*device
	for i := range cfg.Devices {
		devices = append(devices, f.links[i%len(f.links)].devices[i/len(f.links)])
	}
	return f, devices
}

func takeN(d *device, n int) []outcome {
	var os []outcome
	for range n {
		os = append(os, d.take(testStart))
	}
	return os
}

func payloads(os []outcome) []string {
	var ps []string
	for _, o := range os {
		if o.msg != nil {
			ps = append(ps, string(o.msg.payload))
		}
	}
	return ps
}

func TestDevice_SameSeedSameReadings(t *testing.T) {
	faults := []Fault{{Kind: "spike", Probability: 0.2}, {Kind: "malformed", Probability: 0.2}, {Kind: "out_of_order", Probability: 0.3}}
	build := func(seed uint64, connections int) []string {
		_, ds := fleetOf(t, func(c *Config) { c.Seed, c.Devices, c.Connections, c.Faults = seed, 8, connections, faults })
		var all []string
		for _, d := range ds {
			all = append(all, payloads(takeN(d, 200))...)
		}
		return all
	}
	a := build(7, 8)
	if b := build(7, 2); !slices.Equal(a, b) {
		t.Error("seed 7 gave other readings over 2 connections than over 8")
	}
	if c := build(8, 8); slices.Equal(a, c) {
		t.Error("seeds 7 and 8 gave the same readings")
	}
}

func TestDevice_FaultLeavesOtherReadingsAlone(t *testing.T) {
	one := func(fs ...Fault) []string {
		_, ds := fleetOf(t, func(c *Config) { c.Devices, c.Profiles, c.Faults = 1, []string{"pump"}, fs })
		return payloads(takeN(ds[0], 300))
	}
	plain, spiked := one(), one(Fault{Kind: "spike", Start: 100 * time.Second, Duration: 50 * time.Second, Probability: 1, Metric: "vibration"})
	for i := range plain {
		inside := i >= 100 && i < 150
		if same := plain[i] == spiked[i]; same == inside {
			t.Fatalf("reading %d (fault active: %v): without %s, with %s", i, inside, plain[i], spiked[i])
		}
	}
}

func TestDevice_PayloadIsWhatTheTruthSays(t *testing.T) {
	_, ds := fleetOf(t, func(c *Config) { c.Devices = 8 })
	for _, d := range ds {
		for _, o := range takeN(d, 100) {
			var got map[string]any
			if err := json.Unmarshal(o.msg.payload, &got); err != nil {
				t.Fatalf("payload %s: %v", o.msg.payload, err)
			}
			for _, key := range []string{"temperature", "humidity", "vibration", "ts", "seq", "line"} {
				if _, ok := got[key]; !ok {
					t.Fatalf("payload %s has no %s", o.msg.payload, key)
				}
			}
			if got["ts"] != float64(o.msg.ts) || got["seq"] != float64(o.msg.seq) || got["line"] != d.line {
				t.Fatalf("payload %s, message ts %d seq %d line %s", o.msg.payload, o.msg.ts, o.msg.seq, d.line)
			}
			for _, v := range o.msg.values {
				want := any(v.Value)
				if b, ok := got[v.Name].(bool); ok {
					got[v.Name] = truth(b)
				}
				if got[v.Name] != want {
					t.Fatalf("payload %s: %s is %v, truth %v", o.msg.payload, v.Name, got[v.Name], want)
				}
			}
		}
	}
}

func TestSignals_StayWithinPhysics(t *testing.T) {
	bounds := map[string]map[string][2]float64{
		"freezer": {"temperature": {-30, 6}, "humidity": {20, 100}, "vibration": {0, 3}, "power": {0, 450}, "door": {0, 1}},
		"pump":    {"temperature": {15, 65}, "humidity": {20, 80}, "vibration": {0, 6}, "power": {0, 1700}, "pressure": {0, 5}, "running": {0, 1}},
		"line":    {"temperature": {15, 85}, "humidity": {20, 80}, "vibration": {0, 8}, "power": {0, 9000}, "speed": {0, 200}, "running": {0, 1}},
		"weather": {"temperature": {-10, 35}, "humidity": {5, 100}, "vibration": {0, 4}, "power": {0, 61}, "wind": {0, 20}, "pressure": {960, 1065}},
	}
	for _, interval := range []float64{0.01, 1, 60} { // readings a second apart and a minute apart obey the same physics
		_, ds := fleetOf(t, func(c *Config) { c.Devices, c.Rate = 8, 1/interval })
		for _, d := range ds {
			lo, hi := math.Inf(1), math.Inf(-1)
			for _, o := range takeN(d, 3000) {
				for _, v := range o.msg.values {
					b := bounds[d.profile.name][v.Name]
					if !(v.Value >= b[0] && v.Value <= b[1]) {
						t.Fatalf("%s every %vs, reading %d: %s = %v, want %v", d.name, interval, o.msg.seq, v.Name, v.Value, b)
					}
				}
				lo, hi = min(lo, o.msg.values[0].Value), max(hi, o.msg.values[0].Value)
			}
			if hi == lo {
				t.Errorf("%s every %vs: the temperature never moved from %v", d.name, interval, lo)
			}
		}
	}
}

func TestSignals_WeatherFollowsTheDay(t *testing.T) {
	_, ds := fleetOf(t, func(c *Config) { c.Devices, c.Profiles, c.Rate = 1, []string{"weather"}, 1.0/60 })
	var sum [24]float64
	const days = 20
	for i, o := range takeN(ds[0], days*24*60) {
		sum[(8+i/60)%24] += o.msg.values[0].Value
	}
	afternoon, night := sum[15]/days/60, sum[4]/days/60
	if afternoon-night < 6 {
		t.Errorf("mean at 15:00 is %.1f degC, at 04:00 %.1f: want a daily curve of more than 6", afternoon, night)
	}
}

func TestNoise_HasItsDeviationAtAnyInterval(t *testing.T) {
	for _, dt := range []float64{1, 50} {
		r := newRand(1, 0, 0)
		n := noise{sigma: 2, tau: 10}
		var sum, sq float64
		const count = 200_000
		for range count {
			x := n.step(dt, r)
			sum += x
			sq += x * x
		}
		mean := sum / count
		if sd := math.Sqrt(sq/count - mean*mean); math.Abs(sd-2) > 0.1 || math.Abs(mean) > 0.1 {
			t.Errorf("every %vs: mean %.3f, deviation %.3f; want 0 and 2", dt, mean, sd)
		}
	}
}

// one takes n readings, a second apart, from a single freezer under a fault.
func one(t testing.TB, f Fault, n int) []outcome {
	_, ds := fleetOf(t, func(c *Config) { c.Devices, c.Profiles, c.Faults = 1, []string{"freezer"}, []Fault{f} })
	return takeN(ds[0], n)
}

func TestFault_Drift(t *testing.T) {
	plain := one(t, Fault{Kind: "wrong_clock", Off: true}, 400)
	for i, o := range one(t, Fault{Kind: "drift", Start: 100 * time.Second, Magnitude: 6}, 400) {
		want := plain[i].msg.values[0].Value
		if i >= 100 {
			want += 6 * float64(i-100) / 60
		}
		if got := o.msg.values[0].Value; math.Abs(got-want) > 0.011 {
			t.Fatalf("second %d: temperature %v, want %v", i, got, want)
		}
	}
}

func TestFault_StuckRepeatsTheFirstValue(t *testing.T) {
	os := one(t, Fault{Kind: "stuck", Start: 50 * time.Second, Duration: 100 * time.Second}, 300)
	changes := 0
	for i := 1; i < len(os); i++ {
		same := os[i].msg.values[0].Value == os[i-1].msg.values[0].Value
		if i > 50 && i < 150 && !same {
			t.Fatalf("second %d: %v after %v while stuck", i, os[i].msg.values[0], os[i-1].msg.values[0])
		}
		if i >= 150 && !same {
			changes++
		}
	}
	if changes < 50 {
		t.Errorf("after the fault the value changed %d times in 150 readings", changes)
	}
}

func TestFault_DropoutSkipsReadingsWithoutASequenceHole(t *testing.T) {
	os := one(t, Fault{Kind: "dropout", Start: 10 * time.Second, Duration: 20 * time.Second}, 50)
	seq := uint64(0)
	for i, o := range os {
		if out := i >= 10 && i < 30; out != (o.msg == nil) {
			t.Fatalf("second %d: dropped %v, want %v", i, o.msg == nil, out)
		}
		if o.msg != nil {
			if seq++; o.msg.seq != seq {
				t.Fatalf("second %d: seq %d, want %d", i, o.msg.seq, seq)
			}
		}
	}
}

func TestFault_WrongClockMovesOnlyTheDevicesStamp(t *testing.T) {
	for i, o := range one(t, Fault{Kind: "wrong_clock", Offset: -2 * time.Hour}, 5) {
		due := testStart.Add(time.Duration(i) * time.Second).UnixMilli()
		if o.msg.trueTS != due || o.msg.ts != due-2*3600*1000 {
			t.Errorf("reading %d: ts %d, true %d, due %d", i, o.msg.ts, o.msg.trueTS, due)
		}
	}
}

func TestFault_HoldingBackKeepsWithinItsDelay(t *testing.T) {
	for _, o := range one(t, Fault{Kind: "delay", Delay: 3 * time.Second}, 100) {
		if o.delay != 3*time.Second || o.twice {
			t.Fatalf("delay: held %v, twice %v", o.delay, o.twice)
		}
	}
	seen := map[time.Duration]bool{}
	for _, o := range one(t, Fault{Kind: "out_of_order", Probability: 1, Delay: 3 * time.Second}, 100) {
		if o.delay <= 0 || o.delay > 3*time.Second {
			t.Fatalf("out_of_order: held %v", o.delay)
		}
		seen[o.delay] = true
	}
	if len(seen) < 90 {
		t.Errorf("out_of_order: %d different times in 100", len(seen))
	}
	twice := 0
	for _, o := range one(t, Fault{Kind: "duplicate", Probability: 0.3, Delay: time.Second}, 1000) {
		if o.twice {
			twice++
			if o.again <= 0 || o.again > time.Second || o.msg == nil {
				t.Fatalf("duplicate: again %v, msg %v", o.again, o.msg)
			}
		}
	}
	if twice < 230 || twice > 370 {
		t.Errorf("duplicate: %d of 1000 at probability 0.3", twice)
	}
}

func TestFault_EachMalformedPayloadIsWrongInItsWay(t *testing.T) {
	for _, kind := range MalformedKinds() {
		for _, o := range one(t, Fault{Kind: "malformed", Payload: kind, Probability: 1}, 50) {
			p := o.msg.payload
			if o.msg.malformed != kind || o.msg.values != nil {
				t.Fatalf("%s: message says %q with values %v", kind, o.msg.malformed, o.msg.values)
			}
			valid := json.Valid(p)
			switch kind {
			case "string":
				var v struct {
					TS, Seq                          int64
					Temperature, Humidity, Vibration string
				}
				if err := json.Unmarshal(p, &v); err != nil || v.Temperature == "" || v.Seq == 0 {
					t.Fatalf("%s: %s: %v", kind, p, err)
				}
			case "huge":
				var v map[string]any
				if err := json.Unmarshal(p, &v); !valid || err == nil {
					t.Fatalf("huge: %s is representable (valid %v)", p, valid)
				}
			case "invalid_utf8":
				if utf8.Valid(p) {
					t.Fatalf("%s: %q is UTF-8", kind, p)
				}
			case "deep":
				if !valid || bytes.Count(p, []byte("{")) < 1000 {
					t.Fatalf("deep: valid %v, %d levels", valid, bytes.Count(p, []byte("{")))
				}
			default:
				if valid {
					t.Fatalf("%s: %s is valid JSON", kind, p)
				}
			}
		}
	}
}

func TestFault_AppliesToMatchingDevicesOnly(t *testing.T) {
	_, ds := fleetOf(t, func(c *Config) {
		c.Devices = 8
		c.Faults = []Fault{{Kind: "dropout", Devices: "pump-*"}, {Kind: "spike", Metric: "door"}}[:1]
	})
	for _, d := range ds {
		o := d.take(testStart)
		if dropped := o.msg == nil; dropped != strings.HasPrefix(d.name, "pump-") {
			t.Errorf("%s dropped out: %v", d.name, dropped)
		}
	}
}

func TestFleet_DeviceNamesAreUnique(t *testing.T) {
	for _, profiles := range [][]string{{"freezer"}, {"freezer", "pump"}, {"line", "line", "pump"}} {
		f, _ := fleetOf(t, func(c *Config) { c.Devices, c.Profiles, c.Connections = 101, profiles, 7 })
		names := f.Devices()
		seen := map[string]bool{}
		for _, n := range names {
			if seen[n] {
				t.Errorf("profiles %v: two devices are called %s", profiles, n)
			}
			seen[n] = true
		}
		if len(names) != 101 {
			t.Errorf("profiles %v: %d names, want 101", profiles, len(names))
		}
	}
}

func TestFleet_PlanCountsReadings(t *testing.T) {
	for _, c := range []struct {
		devices  int
		rate     float64
		duration time.Duration
		count    int64
		want     int64
	}{
		{10, 1, 10 * time.Second, 0, 100}, {3, 2, 1500 * time.Millisecond, 0, 9}, {7, 1, 0, 100, 100},
		{4, 1, time.Nanosecond, 0, 1}, {5, 10, time.Second, 12, 12}, {5, 1, 0, 0, 0},
	} {
		f, ds := fleetOf(t, func(cfg *Config) {
			cfg.Devices, cfg.Rate, cfg.Duration, cfg.Count = c.devices, c.rate, c.duration, c.count
		})
		if f.planned != c.want {
			t.Errorf("%+v: planned %d", c, f.planned)
		}
		for _, d := range ds {
			for at, ok := d.nextDue(); ok && c.duration > 0; at, ok = d.nextDue() {
				if at >= c.duration {
					t.Errorf("%+v: %s has a reading due at %s", c, d.name, at)
				}
				d.take(testStart)
			}
		}
	}
}

func BenchmarkDevice_Take(b *testing.B) {
	_, ds := fleetOf(b, func(c *Config) { c.Devices = 4 })
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ds[i%4].take(testStart)
	}
}
