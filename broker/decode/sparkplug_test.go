package decode

import (
	"bytes"
	"fmt"
	"math"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"sluice/gateway/telemetry"
)

// spBuilder writes Sparkplug B payloads.
type spBuilder []byte

func payload(ms int64, seq int) spBuilder {
	b := protowire.AppendVarint(protowire.AppendTag(nil, payloadTimestamp, protowire.VarintType), uint64(ms))
	if seq >= 0 {
		b = protowire.AppendVarint(protowire.AppendTag(b, payloadSeq, protowire.VarintType), uint64(seq))
	}
	return b
}

// metric adds one; opts are appended to it.
func (b spBuilder) metric(opts ...func([]byte) []byte) spBuilder {
	var m []byte
	for _, o := range opts {
		m = o(m)
	}
	return protowire.AppendBytes(protowire.AppendTag(b, payloadMetrics, protowire.BytesType), m)
}

func varint(num protowire.Number, v uint64) func([]byte) []byte {
	return func(m []byte) []byte {
		return protowire.AppendVarint(protowire.AppendTag(m, num, protowire.VarintType), v)
	}
}

func called(name string) func([]byte) []byte {
	return func(m []byte) []byte {
		return protowire.AppendString(protowire.AppendTag(m, metricName, protowire.BytesType), name)
	}
}

func alias(a uint64) func([]byte) []byte { return varint(metricAlias, a) }
func typed(t uint64) func([]byte) []byte { return varint(metricDatatype, t) }
func at(ms int64) func([]byte) []byte    { return varint(metricTimestamp, uint64(ms)) }
func whole(v uint64) func([]byte) []byte { return varint(metricInt, v) }
func long(v uint64) func([]byte) []byte  { return varint(metricLong, v) }
func double(v float64) func([]byte) []byte {
	return func(m []byte) []byte {
		return protowire.AppendFixed64(protowire.AppendTag(m, metricDouble, protowire.Fixed64Type), math.Float64bits(v))
	}
}

func unit(u string) func([]byte) []byte {
	return func(m []byte) []byte {
		value := protowire.AppendString(protowire.AppendTag(nil, propertyString, protowire.BytesType), u)
		p := protowire.AppendString(protowire.AppendTag(nil, propertyKeys, protowire.BytesType), "readOnly")
		p = protowire.AppendString(protowire.AppendTag(p, propertyKeys, protowire.BytesType), "engUnit")
		p = protowire.AppendBytes(protowire.AppendTag(p, propertyValues, protowire.BytesType), nil)
		p = protowire.AppendBytes(protowire.AppendTag(p, propertyValues, protowire.BytesType), value)
		return protowire.AppendBytes(protowire.AppendTag(m, metricProperties, protowire.BytesType), p)
	}
}

const spTime = int64(1_795_348_800_000) // ms

// spTalk decodes message after message and keeps what came out as text.
type spTalk struct {
	testing.TB
	d   Decoder
	now int64
}

func talk(t testing.TB) *spTalk {
	return &spTalk{t, decoder(t, Spec{Format: "sparkplug"}), spTime * 1_000_000}
}

func (s *spTalk) say(kind string, p []byte) string {
	s.Helper()
	group, device, _ := strings.Cut(kind, "/")
	topic := "spBv1.0/plant/" + group + "/edge-1"
	if device != "" {
		topic += "/" + device
	}
	var out Batch
	err := s.d.Decode(&Message{Topic: topic, Payload: p, Received: s.now}, &out)
	got := render(&out, err)
	if strings.Contains(got, "command spBv1.0/plant/NCMD/edge-1") {
		// Before the payload: a rebirth was asked for.
		return "rebirth asked\n" + strings.Join(linesWithout(got, "command "), "")
	}
	return got
}

func linesWithout(s, prefix string) (kept []string) {
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, prefix) {
			kept = append(kept, line)
		}
	}
	return kept
}

func (s *spTalk) expect(kind string, p []byte, want string) {
	s.Helper()
	if got := s.say(kind, p); got != want {
		s.Errorf("%s: got\n%s\nwant\n%s", kind, got, want)
	}
}

func (s *spTalk) births() {
	s.say("NBIRTH", payload(spTime, 0).metric(called("bdSeq"), typed(spInt64), long(4)).metric(called("Node Control/Rebirth"), typed(spBoolean), varint(metricBoolean, 0)).
		metric(called("Load"), alias(1), typed(spFloat), func(m []byte) []byte {
			return protowire.AppendFixed32(protowire.AppendTag(m, metricFloat, protowire.Fixed32Type), math.Float32bits(0.5))
		}))
	s.say("DBIRTH/pump", payload(spTime, 1).metric(called("Motor/Temp"), alias(10), typed(spDouble), double(60.5), unit("°C")).
		metric(called("Steps"), alias(11), typed(spInt16), whole(65535)).metric(called("Name"), alias(12), typed(12)))
}

const (
	nodeLabels = "label group=plant\nlabel node=edge-1\n"
	pumpLabels = nodeLabels + "label device=pump\n"
	timeLine   = "time 1795348800000000000\n"
)

func TestSparkplug_BirthsNameWhatAliasesStandFor(t *testing.T) {
	s := talk(t)
	s.expect("NBIRTH", payload(spTime, 0).metric(called("bdSeq"), typed(spInt64), long(4)).metric(called("Load"), alias(1), typed(spDouble), double(0.5)),
		timeLine+nodeLabels+"Load = 0.5\nonline true, birth, group=plant, node=edge-1, time 1795348800000000000\n")
	s.expect("DBIRTH/pump", payload(spTime, 1).metric(called("Motor/Temp"), alias(10), typed(spDouble), double(60.5), unit("°C")).
		metric(called("Steps"), alias(11), typed(spInt16), whole(65535)).metric(called("Name"), alias(12), typed(12)),
		timeLine+pumpLabels+"Motor_Temp = 60.5\nSteps = -1\nunit Motor_Temp: °C\nonline true, birth, group=plant, node=edge-1, device=pump, time 1795348800000000000\n")
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(10), double(61)).metric(alias(11), whole(0xfffffffe)).metric(alias(12)), timeLine+pumpLabels+"Motor_Temp = 61\nSteps = -2\n")
	s.expect("NDATA", payload(spTime, 3).metric(alias(1), double(0.75)), timeLine+nodeLabels+"Load = 0.75\n")
	s.expect("DDATA/pump", payload(spTime, 4).metric(called("Steps"), whole(3)), timeLine+pumpLabels+"Steps = 3\n")
}

func TestSparkplug_NullAndTextAreNoReadings(t *testing.T) {
	s := talk(t)
	s.births()
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(10), varint(metricNull, 1)).metric(alias(12), func(m []byte) []byte {
		return protowire.AppendString(protowire.AppendTag(m, 15, protowire.BytesType), "x")
	}), "nothing\n")
	s.expect("DDATA/pump", payload(spTime, 3).metric(alias(10), double(math.NaN())), timeLine+pumpLabels+"refused \"Motor_Temp\" not_finite: not a finite number\n")
}

func TestSparkplug_StoredValuesAreMarkedAndKeepTheirTimes(t *testing.T) {
	s := talk(t)
	s.births()
	old := varint(metricHistorical, 1)
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(10), double(1), at(spTime-2000), old).metric(alias(10), double(2), at(spTime-1000), old).metric(alias(10), double(3)),
		"time 1795348798000000000\nhistorical\n"+pumpLabels+"Motor_Temp = 1\n\ntime 1795348799000000000\nhistorical\n"+pumpLabels+"Motor_Temp = 2\n\n"+timeLine+pumpLabels+"Motor_Temp = 3\n")
}

func TestSparkplug_StoredAndFreshValuesOfOneTimeStayApart(t *testing.T) {
	s := talk(t)
	s.births()
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(10), double(1), varint(metricHistorical, 1)).metric(alias(11), whole(2)),
		timeLine+"historical\n"+pumpLabels+"Motor_Temp = 1\n\n"+timeLine+pumpLabels+"Steps = 2\n")
}

func TestSparkplug_GapAsksForARebirthOnceAMinute(t *testing.T) {
	s := talk(t)
	s.births()
	data := func(seq int) []byte { return payload(spTime, seq).metric(alias(10), double(1)) }
	plain := timeLine + pumpLabels + "Motor_Temp = 1\n"
	s.expect("DDATA/pump", data(2), plain)
	s.expect("DDATA/pump", data(2), plain) // a resend
	s.expect("DDATA/pump", data(4), "rebirth asked\n"+plain)
	s.expect("DDATA/pump", data(5), plain)
	s.expect("DDATA/pump", data(9), plain) // asked a moment ago
	s.now += 61 * nsPerSecond
	s.expect("DDATA/pump", data(12), "rebirth asked\n"+plain)
	s.births()
	for seq := 2; seq < 600; seq++ {
		s.expect("DDATA/pump", data(seq%256), plain)
	}
}

func TestSparkplug_DataWithoutBirthIsRefusedAndAsksForOne(t *testing.T) {
	s := talk(t)
	s.expect("DDATA/pump", payload(spTime, 7).metric(alias(10), double(1)), "rebirth asked\nerror birth: data of a device whose birth was not seen; a rebirth is asked for\n")
	s.births()
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(99), double(1)).metric(alias(10), double(2)),
		"rebirth asked\n"+timeLine+pumpLabels+"Motor_Temp = 2\nrefused \"alias 99\" birth: no birth says what this is; a rebirth is asked for\n")
	s.expect("DDATA/pump", payload(spTime, 3).metric(alias(1), double(1)), // the node's, not the pump's
		timeLine+pumpLabels+"refused \"alias 1\" birth: no birth says what this is; a rebirth is asked for\n")
}

func TestSparkplug_DeathTakesTheDevicesAlongUnlessItIsAnOldOne(t *testing.T) {
	s := talk(t)
	s.births()
	s.expect("NDEATH", payload(spTime, -1).metric(called("bdSeq"), typed(spInt64), long(3)), "nothing\n")
	s.expect("DDATA/pump", payload(spTime, 2).metric(alias(10), double(1)), timeLine+pumpLabels+"Motor_Temp = 1\n")
	s.expect("NDEATH", payload(spTime, -1).metric(called("bdSeq"), typed(spInt64), long(4)),
		"online false, death, group=plant, node=edge-1\nonline false, death, group=plant, node=edge-1, device=pump\n")
	s.expect("DDATA/pump", payload(spTime, 3).metric(alias(10), double(1)),
		"rebirth asked\n"+timeLine+pumpLabels+"refused \"alias 10\" birth: no birth says what this is; a rebirth is asked for\n")
	s.births()
	s.expect("DDEATH/pump", payload(spTime, 2), "online false, death, group=plant, node=edge-1, device=pump, time 1795348800000000000\n")
}

func TestSparkplug_NodeBirthWaitsForItsDevicesBirths(t *testing.T) {
	s := talk(t)
	s.births()
	s.say("NBIRTH", payload(spTime, 0).metric(called("bdSeq"), typed(spInt64), long(5)))
	if got := s.say("DDATA/pump", payload(spTime, 1).metric(alias(10), double(1))); !strings.Contains(got, "rebirth asked") || strings.Contains(got, "Motor_Temp = ") {
		t.Errorf("data by an alias of the birth before: %s", got)
	}
}

func TestSparkplug_BirthsThatContradictThemselvesAreRefused(t *testing.T) {
	for want, p := range map[string][]byte{
		"duplicate_key": payload(spTime, 0).metric(called("a")).metric(called("a")),
		"two metrics":   payload(spTime, 0).metric(called("a/b"), typed(spDouble)).metric(called("a_b"), typed(spDouble)),
		"the alias 1":   payload(spTime, 0).metric(called("a"), alias(1)).metric(called("b"), alias(1)),
		"error name":    payload(spTime, 0).metric(alias(1)),
	} {
		s := talk(t)
		if got := s.say("NBIRTH", p); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		restored := decoder(t, Spec{Format: "sparkplug"})
		if err := restored.(Stateful).Restore(s.d.(Stateful).Snapshot(nil)); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestSparkplug_OtherTopics(t *testing.T) {
	d := decoder(t, Spec{Format: "sparkplug"})
	for topic, want := range map[string]string{
		"spBv1.0/STATE/host":              "nothing\n",
		"spBv1.0/plant/NCMD/edge":         "nothing\n",
		"spBv1.0/plant/DCMD/edge/d":       "nothing\n",
		"spBv1.0/plant/NDATA":             "error syntax",
		"spBv1.0/plant/DDATA/edge":        "error syntax",
		"spBv1.0/plant/DDATA/e/d/x":       "error syntax",
		"spBv1.0/plant/WHAT/edge":         "error syntax",
		"other/plant/NDATA/edge":          "error syntax",
		"bridge/spBv1.0/plant/NDATA/edge": "command bridge/spBv1.0/plant/NCMD/edge",
	} {
		var out Batch
		err := d.Decode(&Message{Topic: topic, Payload: payload(spTime, 1).metric(alias(1), double(1)), Received: 1}, &out)
		if got := render(&out, err); !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", topic, got, want)
		}
	}
}

func TestSparkplug_RebirthRequestIsWhatAnEdgeNodeReads(t *testing.T) {
	d := decoder(t, Spec{Format: "sparkplug"}).(*sparkplugDecoder)
	d.m = &Message{Payload: rebirthRequest(nil, spTime*1_000_000)}
	if err := d.head(); err != nil || d.p.timestamp != spTime || d.p.metrics != 1 {
		t.Fatalf("head = %v, %+v", err, d.p)
	}
	if m := &d.metric; string(m.name) != "Node Control/Rebirth" || m.datatype != spBoolean || m.field != metricBoolean || m.bits != 1 {
		t.Errorf("metric %+v", m)
	}
}

// A decoder restored from a snapshot taken after any message goes on as the first one did.
func TestSparkplug_SnapshotCarriesOnAnywhere(t *testing.T) {
	type step struct {
		kind string
		p    []byte
	}
	data := func(seq int, a uint64) []byte { return payload(spTime, seq).metric(alias(a), double(1)) }
	script := []step{
		{"DDATA/pump", data(3, 10)},
		{"NBIRTH", payload(spTime, 0).metric(called("bdSeq"), typed(spInt64), long(4)).metric(called("Load"), alias(1), typed(spDouble), double(0.5))},
		{"DBIRTH/pump", payload(spTime, 1).metric(called("T"), alias(10), typed(spDouble), double(60.5))},
		{"DBIRTH/fan", payload(spTime, 2).metric(called("rpm"), alias(11), typed(spInt32), whole(math.MaxUint32))},
		{"DBIRTH/fan", payload(spTime, 3).metric(called("rpm"), alias(10), typed(spInt32))},                                          // taken
		{"DBIRTH/fan", payload(spTime, 3).metric(called("rpm"), alias(20), typed(spInt32), whole(7)).metric(called("x"), alias(10))}, // refused half-way
		{"DDATA/fan", data(3, 20)},
		{"DBIRTH/fan", payload(spTime, 3).metric(called("rpm"), alias(11), typed(spInt32), whole(7))},
		{"DDATA/pump", data(4, 10)}, {"DDATA/fan", data(9, 11)}, {"DDEATH/fan", payload(spTime, 10)}, {"DDATA/fan", data(11, 11)},
		{"NDEATH", payload(spTime, -1).metric(called("bdSeq"), typed(spInt64), long(4))}, {"DDATA/pump", data(12, 10)},
	}
	whole := talk(t)
	var want []string
	for _, st := range script {
		want = append(want, whole.say(st.kind, st.p))
	}
	end := whole.d.(Stateful).Snapshot(nil)
	for cut := range script {
		first, second := talk(t), talk(t)
		for i, st := range script {
			s := first
			if i >= cut {
				s = second
			}
			if i == cut {
				if err := second.d.(Stateful).Restore(first.d.(Stateful).Snapshot(nil)); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.say(st.kind, st.p); got != want[i] {
				t.Fatalf("cut %d, step %d (%s): got\n%s\nwant\n%s", cut, i, st.kind, got, want[i])
			}
		}
		if !bytes.Equal(second.d.(Stateful).Snapshot(nil), end) {
			t.Fatalf("cut %d: the state differs at the end", cut)
		}
	}
}

func TestSparkplug_WhatBirthsMakeItRememberIsBounded(t *testing.T) {
	d := decoder(t, Spec{Format: "sparkplug"}).(*sparkplugDecoder)
	var out Batch
	for i := range maxSpNodes + 10 {
		_ = d.Decode(&Message{Topic: fmt.Sprintf("spBv1.0/g/NDATA/n%d", i), Payload: payload(spTime, 1)}, &out)
	}
	if len(d.nodes) != maxSpNodes {
		t.Errorf("%d nodes", len(d.nodes))
	}
	birth := payload(spTime, 0)
	for i := range 4000 {
		birth = birth.metric(called(fmt.Sprintf("m%d", i)), typed(spDouble))
	}
	for i := range 40 {
		_ = d.Decode(&Message{Topic: fmt.Sprintf("spBv1.0/g/NBIRTH/n%d", i), Payload: birth}, &out)
	}
	if d.known > maxSpMetrics {
		t.Errorf("%d metrics", d.known)
	}
}

func TestSparkplug_DataAllocatesNothing(t *testing.T) {
	s := talk(t)
	s.births()
	m := Message{Topic: "spBv1.0/plant/DDATA/edge-1/pump", Payload: payload(spTime, 1).metric(alias(10), double(1)).metric(alias(11), whole(2)), Received: s.now}
	var out Batch
	if allocs := testing.AllocsPerRun(100, func() {
		if err := s.d.Decode(&m, &out); err != nil {
			t.Fatal(err)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// FuzzSparkplug feeds two payloads to one decoder, carries its state over, and checks that both go on alike.
func FuzzSparkplug(f *testing.F) {
	birth := payload(spTime, 0).metric(called("T"), alias(1), typed(spDouble), double(1), unit("K")).metric(called("bdSeq"), typed(spInt64), long(1))
	f.Add([]byte(birth), []byte(payload(spTime, 1).metric(alias(1), double(2))), byte(0), byte(1))
	f.Add([]byte(birth), []byte(payload(spTime, 9).metric(alias(7), double(2), at(5), varint(metricHistorical, 1))), byte(3), byte(4))
	f.Add([]byte(birth), []byte(payload(spTime, -1).metric(called("bdSeq"), long(1))), byte(0), byte(2))
	kinds := []string{"NBIRTH/e", "NDATA/e", "NDEATH/e", "DBIRTH/e/d", "DDATA/e/d", "DDEATH/e/d"}
	f.Fuzz(func(t *testing.T, first, second []byte, k1, k2 byte) {
		a := decoder(t, Spec{Format: "sparkplug"})
		for i, p := range [][]byte{first, second} {
			kind := kinds[int([]byte{k1, k2}[i])%len(kinds)]
			m := Message{Topic: "spBv1.0/g/" + kind, Payload: p, Received: int64(i+1) * nsPerSecond}
			b := decoder(t, Spec{Format: "sparkplug"})
			if err := b.(Stateful).Restore(a.(Stateful).Snapshot(nil)); err != nil {
				t.Fatal(err)
			}
			var outA, outB Batch
			errA, errB := a.Decode(&m, &outA), b.Decode(&m, &outB)
			holdsContract(t, p, &outA, errA)
			if got, want := render(&outB, errB), render(&outA, errA); got != want {
				t.Fatalf("restored: %s, want %s", got, want)
			}
			if !bytes.Equal(a.(Stateful).Snapshot(nil), b.(Stateful).Snapshot(nil)) {
				t.Fatal("states differ")
			}
		}
	})
}

func FuzzSparkplugState(f *testing.F) {
	s := talk(f)
	s.births()
	f.Add(s.d.(Stateful).Snapshot(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		d := decoder(t, Spec{Format: "sparkplug"})
		if err := d.(Stateful).Restore(b); err != nil {
			return
		}
		var out Batch
		_ = d.Decode(&Message{Topic: "spBv1.0/plant/DDATA/edge-1/pump", Payload: payload(spTime, 1).metric(alias(10), double(1))}, &out)
	})
}

func BenchmarkFormats(b *testing.B) {
	z, _ := zoneOf(b, "Europe/Berlin")
	for _, format := range []string{"senml", "influx", "tasmota", "shelly", "zigbee2mqtt", "esphome", "ttn", "chirpstack", "homie"} {
		b.Run(format, func(b *testing.B) {
			spec := Spec{Format: format}
			if Local(format) {
				spec.Zone = z
			}
			d := decoder(b, spec)
			var out Batch
			var m Message
			goldenPayloads(b, format, func(next Message) {
				if m.Payload == nil && d.Decode(&next, &out) == nil && len(out.Samples) > 0 {
					m = next
				}
			})
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

func BenchmarkCBOR(b *testing.B) {
	d := decoder(b, Spec{Format: "cbor", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"})
	p := []byte("\xa5\x62ts\x1b\x00\x00\x01\xa2\x04\x69\x4c\x3c\x63seq\x1a\x00\x01\xe2\x40\x6btemperature\xfb\x40\x35\x88\xb4\x39\x58\x10\x62\x68humidity\xfb\x40\x48\x20\x00\x00\x00\x00\x00\x69vibration\xfb\x3f\x69\xf8\x28\x24\x0b\x78\x03")
	m := Message{Payload: p}
	var out Batch
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if err := d.Decode(&m, &out); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSparkplug(b *testing.B) {
	s := talk(b)
	s.births()
	m := Message{Topic: "spBv1.0/plant/DDATA/edge-1/pump", Labels: []telemetry.Label{}, Payload: payload(spTime, 1).metric(alias(10), double(1)).metric(alias(11), whole(2)), Received: s.now}
	var out Batch
	b.SetBytes(int64(len(m.Payload)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.d.Decode(&m, &out); err != nil {
			b.Fatal(err)
		}
	}
}
