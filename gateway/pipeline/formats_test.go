package pipeline

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
)

// Command implements CommandOutputs.
func (r *recorder) Command(c Cause, m *decode.Command) {
	r.lines = append(r.lines, fmt.Sprintf("%d.%d command %s", c.LSN, c.Ordinal, m.Topic))
}

// formatSpec has one source of a format as a config of name and format alone gives.
func formatSpec(t testing.TB, format string) *Spec {
	s := testSpec()
	src := &s.Sources[0]
	src.Name, src.Measurement, src.Topic, src.Topics = format, format, "", decode.Topics(format)
	src.Decode = decode.Spec{Format: format}
	if decode.Local(format) {
		loc, err := time.LoadLocation("Europe/Berlin")
		if err != nil {
			t.Fatal(err)
		}
		src.Decode.Zone = decode.NewZone("Europe/Berlin", loc)
	}
	if src.Topics == nil {
		src.Topic = "d/{device}/#"
	}
	return s
}

// registry renders the devices for comparison; times count seconds from t0.
func (d *driver) registry() string {
	var b strings.Builder
	for _, v := range d.f.Devices() {
		fmt.Fprintf(&b, "%s%s %s", v.Measurement, v.Labels, v.State)
		if v.State != "" {
			fmt.Fprintf(&b, " (%s) since %d", v.StateReason, (v.StateSince-t0)/sec)
		}
		if v.LastSeen != 0 {
			fmt.Fprintf(&b, " seen %d", (v.LastSeen-t0)/sec)
		}
		for _, m := range v.Metrics {
			fmt.Fprintf(&b, " %s", m.Metric)
			if m.Unit != "" {
				fmt.Fprintf(&b, "[%s]", m.Unit)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func (d *driver) expectRegistry(want string) {
	d.Helper()
	if got := d.registry(); got != want {
		d.Errorf("registry:\n%swant:\n%s", got, want)
	}
}

// What a day of each family looks like: birth, readings, noise that carries none, and the will. t0 is 2027-01-15T08:00:00Z.
func TestFold_PresetsNeedNothingButTheirName(t *testing.T) {
	type message struct{ topic, payload string }
	for _, c := range []struct {
		format   string
		messages []message
		point    string // what the first window holds
		registry string
		ignored  uint64
	}{
		{"tasmota", []message{
			{"tele/plug/LWT", "Online"},
			{"tele/plug/INFO1", `{"Info1":{"Module":"x"}}`},
			{"tele/plug/SENSOR", `{"Time":"2027-01-15T09:00:01","DS18B20":{"Id":"0113","Temperature":21.5},"TempUnit":"C"}`},
			{"tele/plug/LWT", "Offline"},
		}, "DS18B20_Temperature_count=1 DS18B20_Temperature_mean=21.5",
			`tasmota{device="plug", site="plant-7"} offline (availability) since 4 seen 3 DS18B20_Temperature[°C]` + "\n", 1},
		{"shelly", []message{
			{"shellyplus1pm-a8/online", "true"},
			{"shellyplus1pm-a8/events/rpc", `{"src":"shellyplus1pm-a8","dst":"x","method":"NotifyFullStatus","params":{"ts":1800000001.5,"switch:0":{"id":0,"apower":10.5,"output":true},"wifi":{"rssi":-50}}}`},
			{"shellyplus1pm-a8/events/rpc", `{"src":"shellyplus1pm-a8","dst":"x","method":"NotifyStatus","params":{"ts":1800000002.62,"switch:0":{"id":0,"apower":12.5}}}`},
			{"shellyplus1pm-a8/events/rpc", `{"src":"shellyplus1pm-a8","dst":"x","method":"NotifyEvent","params":{"ts":1800000002.62,"events":[]}}`},
		}, "switch_0_apower_count=2 switch_0_apower_mean=11.5 switch_0_apower_min=10.5 switch_0_apower_max=12.5 switch_0_apower_last=12.5 switch_0_output_count=1",
			`shelly{device="shellyplus1pm-a8", site="plant-7"} online (availability) since 1 seen 3 switch_0_apower[W] switch_0_output wifi_rssi[dBm]` + "\n", 1},
		{"zigbee2mqtt", []message{
			{"zigbee2mqtt/bridge/state", `{"state":"online"}`},
			{"zigbee2mqtt/bridge/logging", `{"level":"info"}`},
			{"zigbee2mqtt/hall/door 1", `{"battery":88,"contact":true,"last_seen":"2027-01-15T09:00:02+01:00"}`},
			{"zigbee2mqtt/hall/door 1/availability", "offline"},
		}, "battery_count=1 battery_mean=88",
			`zigbee2mqtt{device="bridge", site="plant-7"} online (availability) since 1 seen 1` + "\n" +
				`zigbee2mqtt{device="hall/door 1", site="plant-7"} offline (availability) since 4 seen 3 battery[%] contact` + "\n", 1},
		{"esphome", []message{
			{"attic/status", "online"}, {"attic/sensor/air/state", "nan"}, {"attic/sensor/air/state", "20.5"}, {"attic/switch/fan/state", "ON"},
		}, "air_count=1 air_mean=20.5 air_min=20.5 air_max=20.5 air_last=20.5 fan_count=1",
			`esphome{device="attic", site="plant-7"} online (availability) since 1 seen 4 air fan` + "\n", 1},
		{"ttn", []message{
			{"v3/farm@ttn/devices/soil/join", `{}`},
			{"v3/farm@ttn/devices/soil/up", `{"end_device_ids":{"dev_addr":"260B1234"},"uplink_message":{"f_cnt":1,"frm_payload":"AQ==","decoded_payload":{"moisture":31},"received_at":"2027-01-15T08:00:02.5Z"}}`},
			{"v3/farm@ttn/devices/soil/up", `{"end_device_ids":{"dev_addr":"260B1234"},"uplink_message":{"f_cnt":1,"frm_payload":"AQ==","decoded_payload":{"moisture":31},"received_at":"2027-01-15T08:00:02.5Z"}}`},
			{"v3/farm@ttn/devices/soil/location", `{}`},
		}, "moisture_count=1 moisture_mean=31",
			`ttn{application="farm@ttn", device="soil", site="plant-7"} online (birth) since 1 seen 2 moisture` + "\n", 1},
		{"chirpstack", []message{
			{"application/5a/device/0101/event/join", `{}`},
			{"application/5a/device/0101/event/txack", `{}`},
			{"application/5a/device/0101/event/up", `{"time":"2027-01-15T08:00:03Z","devAddr":"00189440","fCnt":4,"data":"qg==","object":{"t":4.5},"rxInfo":[{"rssi":-36,"snr":10.5}]}`},
		}, "t_count=1 t_mean=4.5",
			`chirpstack{application="5a", device="0101", site="plant-7"} online (birth) since 1 seen 3 t rx_rssi[dBm] rx_snr[dB]` + "\n", 1},
		{"homie", []message{
			{"homie/car/$state", "ready"}, {"homie/car/engine/temperature/$unit", "°C"}, {"homie/car/engine/temperature", "88.5"}, {"homie/car/$state", "lost"}, {"homie/car/$name", "Car"},
		}, "engine_temperature_count=1 engine_temperature_mean=88.5",
			`homie{device="car", site="plant-7"} offline (lost) since 4 seen 3 engine_temperature[°C]` + "\n", 1},
		{"senml", []message{
			{"d/gw/x", `[{"bn":"urn:dev:mac:0024:","bt":1800000001,"n":"temp","u":"Cel","v":21.5},{"n":"temp","t":2,"v":22.5}]`},
		}, "temp_count=2 temp_mean=22",
			`senml{device="gw", node="urn:dev:mac:0024", site="plant-7"}  seen 1 temp[Cel]` + "\n", 0},
		{"influx", []message{
			{"d/gw/x", "weather,station=a temperature=21.5 1800000001000000000\nweather,station=b temperature=3 1800000001000000000"},
		}, "temperature_count=1 temperature_mean=21.5",
			`influx{device="gw", measurement="weather", site="plant-7", station="a"}  seen 1 temperature` + "\n" +
				`influx{device="gw", measurement="weather", site="plant-7", station="b"}  seen 1 temperature` + "\n", 0},
		{"json", []message{
			{"d/a/status", "online"}, {"d/a/t", `{"temperature":21.5}`}, {"d/a/status", "Offline"},
		}, "temperature_count=1 temperature_mean=21.5",
			`json{device="a", site="plant-7"} offline (availability) since 3 seen 2 temperature` + "\n", 0},
	} {
		t.Run(c.format, func(t *testing.T) {
			d := newDriver(t, formatSpec(t, c.format))
			for i, m := range c.messages {
				d.publish(t0+int64(i+1)*sec, m.topic, m.payload)
			}
			if out := d.out.take(); out != "" {
				t.Errorf("before the window's end: %s", out)
			}
			d.expectRegistry(c.registry)
			d.tick(t0 + 12*sec)
			if out := d.out.take(); !strings.Contains(out, c.point) || strings.Contains(out, "refused") {
				t.Errorf("got %s, want %s", out, c.point)
			}
			if l := d.f.View().Total; l.Ignored != c.ignored || l.Messages != uint64(len(c.messages)) {
				t.Errorf("ledger %+v, want %d ignored", l, c.ignored)
			}
		})
	}
}

// sp is a Sparkplug B payload with double metrics: name or alias, value.
type spMetric struct {
	name       string
	alias      uint64
	value      float64
	historical bool
}

func sp(at int64, seq int, metrics ...spMetric) string {
	b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), uint64(at/1e6))
	if seq >= 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, 3, protowire.VarintType), uint64(seq%256))
	}
	for _, m := range metrics {
		var p []byte
		if m.name != "" {
			p = protowire.AppendString(protowire.AppendTag(p, 1, protowire.BytesType), m.name)
			p = protowire.AppendVarint(protowire.AppendTag(p, 4, protowire.VarintType), 10)
		}
		if m.alias != 0 {
			p = protowire.AppendVarint(protowire.AppendTag(p, 2, protowire.VarintType), m.alias)
		}
		if m.historical {
			p = protowire.AppendVarint(protowire.AppendTag(p, 5, protowire.VarintType), 1)
		}
		p = protowire.AppendFixed64(protowire.AppendTag(p, 13, protowire.Fixed64Type), math.Float64bits(m.value))
		b = protowire.AppendBytes(protowire.AppendTag(b, 2, protowire.BytesType), p)
	}
	return string(b)
}

func TestFold_SparkplugAliasesGapsAndDeaths(t *testing.T) {
	spec := formatSpec(t, "sparkplug")
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - alert: Hot\n        expr: T > 50\n"}}
	d := newDriver(t, spec)
	d.publish(t0+1*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+1*sec, 7, spMetric{alias: 1, value: 60}))
	if out := d.out.take(); !strings.Contains(out, "2.0 command spBv1.0/p/NCMD/e") || !strings.Contains(out, "refused decode/birth n=1") {
		t.Errorf("data before any birth: %s", out)
	}
	d.publish(t0+2*sec, "spBv1.0/p/NBIRTH/e", sp(t0+2*sec, 0, spMetric{name: "load", value: 0.5}))
	d.publish(t0+2*sec, "spBv1.0/p/DBIRTH/e/pump", sp(t0+2*sec, 1, spMetric{name: "T", alias: 1, value: 20}))
	d.publish(t0+3*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+3*sec, 2, spMetric{alias: 1, value: 30}))
	d.publish(t0+4*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+4*sec, 3, spMetric{alias: 1, value: 99, historical: true})) // no news
	if out := d.out.take(); out != "" {
		t.Errorf("a stored value reached the rules, or something else came out: %s", out)
	}
	d.publish(t0+5*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+5*sec, 9, spMetric{alias: 1, value: 31}))
	d.expect("7.0 command spBv1.0/p/NCMD/e")
	d.publish(t0+6*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+6*sec, 20, spMetric{alias: 1, value: 32}))
	d.expect("")
	d.configure(t0+6*sec, spec) // what births said outlives a reload
	d.publish(t0+7*sec, "spBv1.0/p/DDATA/e/pump", sp(t0+7*sec, 21, spMetric{alias: 1, value: 33}))
	d.expect("")
	d.publish(t0+8*sec, "spBv1.0/p/NDEATH/e", sp(t0+8*sec, -1))
	d.expectRegistry(`sparkplug{group="p", node="e", site="plant-7"} offline (death) since 8 seen 2 load` + "\n" +
		`sparkplug{device="pump", group="p", node="e", site="plant-7"} offline (death) since 8 seen 7 T` + "\n")
	d.tick(t0 + 12*sec)
	if out := d.out.take(); !strings.Contains(out, "T_count=6 ") || !strings.Contains(out, "T_last=33") {
		t.Errorf("got %s", out)
	}
}

func TestFold_CommandsAreLimitedByFoldTime(t *testing.T) {
	d := newDriver(t, formatSpec(t, "sparkplug"))
	ask := func(at int64, i int) { d.publish(at, fmt.Sprintf("spBv1.0/p/NDATA/e%d", i), sp(at, 1)) }
	for i := range commandsPer + 50 {
		ask(t0+sec, i)
	}
	if n := strings.Count(d.out.take(), " command "); n != commandsPer {
		t.Errorf("%d commands at once, want %d", n, commandsPer)
	}
	ask(t0+12*sec, 10_000)
	if n := strings.Count(d.out.take(), " command "); n != 1 {
		t.Errorf("%d commands later, want 1", n)
	}
}

func TestFold_WhatASourceDoesNotExpectIsQuarantined(t *testing.T) {
	spec := testSpec()
	low, high := -40.0, 85.0
	spec.Sources[0].Expect = &Expect{Require: []string{"temperature"}, Ranges: map[string]Range{"temperature": {&low, &high}, "humidity": {Min: &low}}}
	d := newDriver(t, spec)
	d.publish(t0+1*sec, "d/a/t", `{"seq":1,"humidity":50,"x":1}`)
	d.publish(t0+1*sec, "d/a/t", `{"seq":2,"temperature":85.5,"humidity":50}`)
	d.publish(t0+1*sec, "d/a/t", `{"seq":3,"temperature":85,"humidity":-41,"x":-1000}`)
	d.expect(`2.0 refused decode/missing n=2 d/a/t "{\"seq\":1,\"humidity\":50,\"x\":1}"`,
		`3.0 refused decode/range n=1 d/a/t "{\"seq\":2,\"temperature\":85.5,\"humidity\":50}"`,
		`4.0 refused decode/range n=1 d/a/t "{\"seq\":3,\"temperature\":85,\"humidity\":-41,\"x\":-1000}"`)
	if l := d.f.View().Total; l.Quarantined != 4 || l.Aggregated != 3 || l.Received != 7 {
		t.Errorf("ledger %+v", l)
	}
	if by := d.f.View().ByReason; by[ReasonMissing] != 2 || by[ReasonRange] != 2 {
		t.Errorf("by reason %v", by)
	}
}

func TestFold_AnotherUnitThanExpectedIsQuarantined(t *testing.T) {
	spec := formatSpec(t, "senml")
	spec.Sources[0].Expect = &Expect{Units: map[string]string{"temp": "Cel"}}
	d := newDriver(t, spec)
	d.publish(t0+1*sec, "d/a/x", `[{"n":"temp","u":"Cel","v":21},{"n":"other","u":"K","v":1}]`)
	d.publish(t0+1*sec, "d/a/x", `[{"n":"temp","v":22}]`) // says nothing: as before
	d.expect("")
	d.publish(t0+1*sec, "d/a/x", `[{"n":"temp","u":"K","v":300},{"n":"other","v":1}]`)
	d.expect(`4.0 refused decode/unit n=1 d/a/x "[{\"n\":\"temp\",\"u\":\"K\",\"v\":300},{\"n\":\"other\",\"v\":1}]"`)
}

func (d *driver) retained(at int64, topic, payload string) {
	d.Helper()
	d.apply(RecordMessage, at, messageBody(Message{ClientID: "bridge", Topic: topic, Payload: []byte(payload), QoS: 1, PacketID: 1, Retain: true}))
}

func TestFold_RetainFlagOfADeviceIsFreshAndOfABridgeIsNot(t *testing.T) {
	spec := testSpec()
	spec.Sources[0].Decode.Sequence = ""
	spec.Rules = []RuleFile{freezerRule()}
	d := newDriver(t, spec)
	d.retained(t0+1*sec, "d/a/t", `{"temperature":-3}`)
	d.expectRegistry(`telemetry{device="a", site="plant-7"}  seen 1 temperature` + "\n")

	spec.Sources[0].Retained = RetainedStale
	d.configure(t0+2*sec, spec)
	d.retained(t0+3*sec, "d/a/t", `{"temperature":5}`)
	d.expect(`4.0 refused time/retained n=1 d/a/t "{\"temperature\":5}"`)
	d.retained(t0+3*sec, "d/a/t", msg(0, t0+3*sec, 5)) // has its own time: counted, but no sign of life and nothing for the rules
	d.retained(t0+3*sec, "d/a/t", "online")
	d.tick(t0 + 40*sec)
	if out := d.out.take(); strings.Contains(out, "alert") || !strings.Contains(out, "temperature_count=2") {
		t.Errorf("got %s", out)
	}
	d.expectRegistry(`telemetry{device="a", site="plant-7"} online (availability) since 3 seen 1 temperature seq` + "\n")
	d.publish(t0+41*sec, "d/a/t", "online") // as before: since when stays
	d.publish(t0+41*sec, "d/a/t", `{"temperature":5}`)
	d.expectRegistry(`telemetry{device="a", site="plant-7"} online (availability) since 3 seen 41 temperature seq` + "\n")
}

// A will is known at once; a rule that waits an hour for a reading does not wait for a device that is known to be gone.
func TestFold_WillEndsThePatienceOfAbsenceRules(t *testing.T) {
	spec := formatSpec(t, "tasmota")
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - alert: Gone\n        absent: { metric: A_Temperature, after: 1h }\n"}}
	d := newDriver(t, spec)
	d.publish(t0+1*sec, "tele/plug/LWT", "Online")
	d.publish(t0+1*sec, "tele/plug/SENSOR", `{"Time":"2027-01-15T09:00:01","A":{"Temperature":21.5}}`)
	d.tick(t0 + 60*sec)
	if out := d.out.take(); strings.Contains(out, "alert") {
		t.Errorf("an alert for a device that is there: %s", out)
	}
	d.publish(t0+61*sec, "tele/plug/LWT", "Offline")
	d.tick(t0 + 62*sec)
	if out := d.out.take(); !strings.Contains(out, "alert Gone firing") {
		t.Errorf("no alert for a device whose will came: %s", out)
	}
	d.publish(t0+70*sec, "tele/plug/LWT", "Online")
	d.tick(t0 + 71*sec)
	if out := d.out.take(); !strings.Contains(out, "alert Gone resolved") {
		t.Errorf("no end when it came back: %s", out)
	}
}

// A LoRaWAN device that joins anew counts from the start again, and the first frames may never arrive: they are no duplicates.
func TestFold_FrameCountersStartAgainAfterAJoin(t *testing.T) {
	d := newDriver(t, formatSpec(t, "ttn"))
	up := func(at int64, address string, frame int) {
		d.publish(at, "v3/f@ttn/devices/s/up", fmt.Sprintf(`{"end_device_ids":{"dev_addr":%q},"received_at":%q,"uplink_message":{"f_cnt":%d,"frm_payload":"AQ==","decoded_payload":{"t":1}}}`,
			address, time.Unix(0, at).UTC().Format(time.RFC3339Nano), frame))
	}
	for i := range 20 {
		up(t0+int64(i)*sec, "260B1234", i)
	}
	d.publish(t0+21*sec, "v3/f@ttn/devices/s/join", `{}`)
	up(t0+25*sec, "260B9999", 5) // 0 to 4 were not heard
	up(t0+26*sec, "260B9999", 6)
	up(t0+27*sec, "260B9999", 6)
	up(t0+28*sec, "260B1234", 19)
	if l := d.f.View().Total; l.Aggregated != 22 || l.Duplicate != 2 {
		t.Errorf("ledger %+v, want 22 aggregated and 2 duplicates", l)
	}
}

func TestFold_ClearingARetainedTopicIsNoFault(t *testing.T) {
	d := newDriver(t, testSpec())
	d.retained(t0, "d/a/t", "")
	d.publish(t0, "d/a/t", "")
	d.expect(`3.0 refused decode/empty n=1 d/a/t ""`)
	if l := d.f.View().Total; l.Ignored != 1 {
		t.Errorf("ledger %+v", l)
	}
}

// formatScript draws a journal of many formats at once; equal seeds give equal journals.
func formatScript(t testing.TB, seed uint64, n int) []seglog.Record {
	r := rand.New(rand.NewPCG(seed, 3))
	spec := testSpec()
	spec.Sources = nil
	for _, format := range []string{"sparkplug", "tasmota", "zigbee2mqtt", "homie"} {
		spec.Sources = append(spec.Sources, formatSpec(t, format).Sources[0])
	}
	low := 0.0
	spec.Sources[2].Expect = &Expect{Require: []string{"battery"}, Ranges: map[string]Range{"battery": {Min: &low}}, Units: map[string]string{"battery": "%"}}
	spec.Sources[3].Retained = RetainedStale
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - alert: Hot\n        expr: T > 50\n"}}
	var out []seglog.Record
	add := func(typ byte, at int64, body []byte) {
		out = append(out, seglog.Record{LSN: seglog.LSN(len(out) + 1), Type: typ, Time: at, Body: body})
	}
	configure := func(at int64) {
		raw, err := spec.Encode()
		if err != nil {
			t.Fatal(err)
		}
		add(RecordConfigure, at, raw)
	}
	configure(t0)
	seq := map[string]int{}
	for now := t0; len(out) < n; {
		now += r.Int64N(5 * sec)
		say := func(topic, payload string) {
			add(RecordMessage, now, messageBody(Message{ClientID: "c", Topic: topic, Payload: []byte(payload), QoS: 1, PacketID: uint16(r.IntN(9)), Dup: r.IntN(9) == 0, Retain: r.IntN(3) == 0}))
		}
		pick := func(words ...string) string { return words[r.IntN(len(words))] }
		node := pick("e1", "e2")
		next := func() int {
			seq[node] += 1 + r.IntN(12)/11 // now and then a gap
			return seq[node]
		}
		switch r.IntN(10) {
		case 0:
			add(RecordTick, now, nil)
		case 1:
			if r.IntN(5) == 0 {
				spec.Limits.Series++
				configure(now)
			}
		case 2:
			seq[node] = 0
			say("spBv1.0/p/NBIRTH/"+node, sp(now, 0, spMetric{name: "load", alias: 9, value: 1}))
		case 3:
			say("spBv1.0/p/DBIRTH/"+node+"/d", sp(now, next(), spMetric{name: "T", alias: uint64(1 + r.IntN(3)), value: float64(r.IntN(100))}))
		case 4, 5:
			say("spBv1.0/p/DDATA/"+node+"/d", sp(now, next(), spMetric{alias: uint64(1 + r.IntN(3)), value: float64(r.IntN(100)), historical: r.IntN(9) == 0}))
		case 6:
			say("spBv1.0/p/"+pick("NDEATH/"+node, "DDEATH/"+node+"/d"), sp(now, -1))
		case 7:
			say("tele/plug/"+pick("SENSOR", "LWT", "STATE"), pick("Online", "Offline", `{"Time":"2027-01-15T09:00:00","A":{"Temperature":5},"TempUnit":"C"}`, `{"Time":"2027-01-15T09:00:10","A":{"Temperature":60},"TempUnit":"F"}`))
		case 8:
			say("zigbee2mqtt/a/b"+pick("", "/availability", "/set"), pick("online", `{"state":"offline"}`, `{"battery":5,"x":1}`, `{"battery":-5,"x":1}`, `{"x":1}`))
		case 9:
			say("homie/car/"+pick("$state", "e/t", "e/t/$unit"), pick("ready", "lost", "5", "°C"))
		}
	}
	return out
}

// With every kind of state the formats bring - births, aliases, units, presence, questions asked - a fold restored anywhere goes on
// as if it had never stopped.
func TestFold_FormatsSurviveAnyCheckpoint(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(8) {
		recs := formatScript(t, seed, 250)
		var all recorder
		f := NewFold()
		applyAll(t, f, recs, &all)
		end, want := f.Snapshot(nil), all.take()
		devices, _ := json.Marshal(f.Devices())
		for _, word := range []string{" command ", "/birth", "/missing", "/range", "/retained", " alert ", " point "} {
			seen[word] += strings.Count(want, word)
		}
		if im := f.View().Total.Imbalance(); im != 0 {
			t.Errorf("seed %d: imbalance %d", seed, im)
		}
		for cut := 1; cut < len(recs); cut += 5 {
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
			if again, _ := json.Marshal(b.Devices()); !bytes.Equal(b.Snapshot(nil), end) || !bytes.Equal(again, devices) {
				t.Fatalf("seed %d, cut %d: state differs at the end", seed, cut)
			}
		}
	}
	for word, n := range seen {
		if n == 0 {
			t.Errorf("the scripts never give %q", word)
		}
	}
}
