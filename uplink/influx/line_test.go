package influx

import (
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

func labels(pairs ...string) telemetry.Labels {
	var l []telemetry.Label
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, telemetry.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return telemetry.NewLabels(l...)
}

func one(name string, v float64) []telemetry.Field {
	return []telemetry.Field{{Name: name, Value: v}}
}

// aggregatePoint is the benchmark's and the examples' point: three metrics with five stats each.
func aggregatePoint() *telemetry.Point {
	p := &telemetry.Point{
		Measurement: "telemetry", Labels: labels("device", "press-17", "gateway", "plant-7", "line", "a2", "site", "plant-7"),
		Time: 1764000000e9, Window: 10 * time.Second,
		Stats: []telemetry.Stat{telemetry.StatCount, telemetry.StatMean, telemetry.StatMin, telemetry.StatMax, telemetry.StatLast},
	}
	for i, m := range []string{"humidity", "temperature", "vibration"} {
		a := telemetry.MetricAggregate{Metric: m}
		for j := range 10 {
			a.Add(p.Time+int64(j)*1e9, float64(20*(i+1))+float64(j*j)/8.0+0.01)
		}
		p.Aggregates = append(p.Aggregates, a)
	}
	return p
}

func TestEncoder_WritesTheLineAsDocumented(t *testing.T) {
	ten := telemetry.MetricAggregate{Metric: "temp"}
	ten.Add(1e9, 21.5)
	ten.Add(2e9, 22)
	for _, tt := range []struct {
		name string
		p    telemetry.Point
		want string
	}{
		{"readings", telemetry.Point{Measurement: "m", Labels: labels("b", "2", "a", "1"), Time: 5, Fields: []telemetry.Field{{Name: "x", Value: 1}, {Name: "y", Value: -0.25}}},
			"m,a=1,b=2 x=1,y=-0.25 5\n"},
		{"no labels", telemetry.Point{Measurement: "m", Time: -5, Fields: one("x", 1e300)}, "m x=1e+300 -5\n"},
		{"aggregate, window last", telemetry.Point{Measurement: "m", Labels: labels("d", "1"), Time: 0, Window: 10 * time.Second,
			Stats: []telemetry.Stat{"count", "mean", "last"}, Aggregates: []telemetry.MetricAggregate{ten}},
			"m,d=1,window=10s temp_count=2,temp_mean=21.75,temp_last=22 0\n"},
		{"window among labels", telemetry.Point{Measurement: "m", Labels: labels("a", "1", "z", "2"), Window: time.Minute, Fields: one("x", 1)},
			"m,a=1,window=1m,z=2 x=1 0\n"},
		{"window alone", telemetry.Point{Measurement: "m", Window: time.Hour, Fields: one("x", 1)}, "m,window=1h x=1 0\n"},
		{"window first", telemetry.Point{Measurement: "m", Labels: labels("z", "1"), Window: time.Hour, Fields: one("x", 1)}, "m,window=1h,z=1 x=1 0\n"},
		{"escapes", telemetry.Point{Measurement: "a b,c=d", Labels: labels("k, =", "v, =\""), Fields: one("f, =", 1)},
			`a\ b\,c=d,k\,\ \==v\,\ \=" f\,\ \==1 0` + "\n"},
		{"backslash in the middle", telemetry.Point{Measurement: `C:\x`, Labels: labels("p", `\\srv\share`), Fields: one(`a\b`, 1)},
			`C:\x,p=\\srv\share a\b=1 0` + "\n"},
		{"utf-8", telemetry.Point{Measurement: "Kühl", Labels: labels("ort", "Köln"), Fields: one("°C", 1)}, "Kühl,ort=Köln °C=1 0\n"},
		{"empty tag value", telemetry.Point{Measurement: "m", Labels: telemetry.Labels{{Name: "a"}, {Name: "b", Value: "1"}}, Fields: one("x", 1)}, "m,b=1 x=1 0\n"},
		{"stat not held", telemetry.Point{Measurement: "m", Window: time.Second, Stats: []telemetry.Stat{"p99", "min"},
			Aggregates: []telemetry.MetricAggregate{ten}}, "m,window=1s temp_min=21.5 0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e Encoder
			got, err := e.Append([]byte("before\n"), &tt.p)
			if err != nil || string(got) != "before\n"+tt.want {
				t.Errorf("Append = %q, %v, want %q", got, err, "before\n"+tt.want)
			}
		})
	}
}

func TestEncoder_RefusesWhatServersMisread(t *testing.T) {
	long := strings.Repeat("x", 65000)
	ok := one("x", 1)
	agg := telemetry.MetricAggregate{Metric: "m"}
	agg.Add(1, 1)
	for _, tt := range []struct {
		name, reason string
		p            telemetry.Point
	}{
		{"comment", reasonMeasurement, telemetry.Point{Measurement: "#m", Fields: ok}},
		{"no measurement", reasonMeasurement, telemetry.Point{Fields: ok}},
		{"line feed in measurement", reasonMeasurement, telemetry.Point{Measurement: "a\nb v=1", Fields: ok}},
		{"carriage return", reasonMeasurement, telemetry.Point{Measurement: "a\r", Fields: ok}},
		{"tab", reasonMeasurement, telemetry.Point{Measurement: "\ta", Fields: ok}},
		{"backslash at the end of measurement", reasonMeasurement, telemetry.Point{Measurement: `a\`, Fields: ok}},
		{"invalid UTF-8", reasonMeasurement, telemetry.Point{Measurement: "a\xff", Fields: ok}},
		{"line feed in tag value", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", "1\nm v=666"), Fields: ok}},
		{"NUL in tag value", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", "\x00"), Fields: ok}},
		{"backslash at the end of tag value", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", `v\`), Fields: ok}},
		{"backslash at the end of tag key", reasonTag, telemetry.Point{Measurement: "m", Labels: labels(`a\`, "v"), Fields: ok}},
		{"backslash before a comma", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", `v\,b`), Fields: ok}},
		{"empty tag key", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("", "v"), Fields: ok}},
		{"tag time", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("time", "v"), Fields: ok}},
		{"tag _field", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("_field", "v"), Fields: ok}},
		{"tag _measurement", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("_measurement", "v"), Fields: ok}},
		{"window twice", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("window", "v"), Window: time.Second, Fields: ok}},
		{"labels double", reasonTag, telemetry.Point{Measurement: "m", Labels: telemetry.Labels{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}}, Fields: ok}},
		{"labels unsorted", reasonTag, telemetry.Point{Measurement: "m", Labels: telemetry.Labels{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}}, Fields: ok}},
		{"tag not UTF-8", reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", "\xc3"), Fields: ok}},
		{"field time", reasonField, telemetry.Point{Measurement: "m", Fields: one("time", 1)}},
		{"field time beside another", reasonField, telemetry.Point{Measurement: "m", Fields: append(one("x", 1), one("time", 1)...)}},
		{"field with line feed", reasonField, telemetry.Point{Measurement: "m", Fields: one("a\nb", 1)}},
		{"field with quote", reasonField, telemetry.Point{Measurement: "m", Fields: one(`a"b`, 1)}},
		{"field without name", reasonField, telemetry.Point{Measurement: "m", Fields: one("", 1)}},
		{"NaN", reasonValue, telemetry.Point{Measurement: "m", Fields: one("a", math.NaN())}},
		{"infinity", reasonValue, telemetry.Point{Measurement: "m", Fields: one("a", math.Inf(-1))}},
		{"no field", reasonNoFields, telemetry.Point{Measurement: "m"}},
		{"no stat", reasonNoFields, telemetry.Point{Measurement: "m", Window: 1, Aggregates: []telemetry.MetricAggregate{agg}}},
		{"70 KB of tags", reasonTooLong, telemetry.Point{Measurement: "m", Labels: labels("a", long, "b", long[:9000]), Fields: ok}},
		{"field name takes it over the limit", reasonTooLong, telemetry.Point{Measurement: "m", Labels: labels("a", long), Fields: one(long[:600], 1)}},
		{"metric name takes it over the limit", reasonTooLong, telemetry.Point{Measurement: "m", Labels: labels("a", long), Window: 1, Stats: telemetry.Stats,
			Aggregates: []telemetry.MetricAggregate{{Metric: long[:600]}}}},
		{"earliest time", reasonTime, telemetry.Point{Measurement: "m", Time: math.MinInt64, Fields: ok}},
		{"latest time", reasonTime, telemetry.Point{Measurement: "m", Time: math.MaxInt64, Fields: ok}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e Encoder
			got, err := e.Append([]byte("kept"), &tt.p)
			u, _ := err.(*unwritable)
			if u == nil || u.reason != tt.reason || string(got) != "kept" {
				t.Errorf("Append = %.100q, %v, want reason %s", got, err, tt.reason)
			}
		})
	}
}

func TestAppendFloat_ReadsBackExactly(t *testing.T) {
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 0.0001, 0.00001, 12345.6789, 12345.67891, 1e15, 1e16, 99999999999.9999, 0.1 + 0.2, 1.0 / 3,
		math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53, 1<<53 - 1, -0.5, -21.05, 5e-324, 1e-4, 9.9995, 0.99995} {
		checkFloat(t, v)
	}
}

func checkFloat(t *testing.T, v float64) {
	t.Helper()
	s := string(appendFloat(nil, v))
	got, err := strconv.ParseFloat(s, 64)
	if err != nil || got != v {
		t.Errorf("appendFloat(%v) = %q, reads back as %v, %v", v, s, got, err)
	}
	if want := strconv.FormatFloat(v, 'g', -1, 64); len(s) > len(want) && !strings.Contains(want, "e") {
		t.Errorf("appendFloat(%v) = %q, longer than %q", v, s, want)
	}
}

func FuzzAppendFloat(f *testing.F) {
	f.Add(21.5)
	f.Add(-0.0001)
	f.Add(1e15)
	f.Fuzz(func(t *testing.T, v float64) {
		if v-v == 0 {
			checkFloat(t, v)
			checkFloat(t, math.Round(v*1000)/1000)
		}
	})
}

func FuzzEncoder_RoundTrip(f *testing.F) {
	f.Add("m", "a", "1", "b", "2", "x", 1.5, int64(5), int64(0))
	f.Add("m n", `a\b`, "v,w", "b=c", `\\x`, `f"`, 0.1, int64(-5), int64(10e9))
	f.Add("#m", "time", "", "_field", "v\n", "time", math.Inf(1), int64(math.MaxInt64), int64(1))
	f.Fuzz(func(t *testing.T, measurement, k1, v1, k2, v2, field string, value float64, at, window int64) {
		p := telemetry.Point{Measurement: measurement, Labels: labels(k1, v1, k2, v2), Time: at, Window: time.Duration(max(window, 0))}
		if p.Window > 0 {
			a := telemetry.MetricAggregate{Metric: field}
			a.Add(at, 1)
			a.Add(at, 2)
			p.Aggregates, p.Stats = []telemetry.MetricAggregate{a}, telemetry.Stats
		} else {
			p.Fields = one(field, value)
		}
		var e Encoder
		line, err := e.Append(nil, &p)
		if err != nil {
			return
		}
		body, ok := strings.CutSuffix(string(line), "\n")
		if !ok || strings.ContainsAny(body, "\n\r") {
			t.Fatalf("not one line: %q", line)
		}
		got, err := parseLine(body, false)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		want := p.Labels
		if p.Window > 0 {
			want = want.With(telemetry.Label{Name: "window", Value: telemetry.WindowLabel(p.Window)})
		}
		if got.measurement != measurement || got.time != at || len(got.tags) != len(want) {
			t.Fatalf("%q read as %+v, want %+v", body, got, p)
		}
		for i, l := range want {
			if got.tags[i] != [2]string{l.Name, l.Value} {
				t.Fatalf("%q: tag %d is %q, want %q", body, i, got.tags[i], l)
			}
		}
		n := 0
		p.EachField(func(name []byte, v float64) {
			n++
			if g, ok := got.fields[string(name)]; !ok || g != v {
				t.Fatalf("%q: field %s is %v %v, want %v", body, name, g, ok, v)
			}
		})
		if n != len(got.fields) {
			t.Fatalf("%q: %d fields, want %d", body, len(got.fields), n)
		}
		// Servers that read a double backslash as one must at least find the same parts.
		other, err := parseLine(body, true)
		if err != nil || len(other.tags) != len(got.tags) || len(other.fields) != len(got.fields) || other.time != got.time {
			t.Fatalf("%q read in the other way: %+v, %v", body, other, err)
		}
	})
}

func TestEncoder_DoesNotAllocate(t *testing.T) {
	var e Encoder
	p := aggregatePoint()
	buf := make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { buf, _ = e.Append(buf[:0], p) }); n != 0 {
		t.Errorf("%v allocations a point", n)
	}
}

func BenchmarkEncoder_Aggregates3x5(b *testing.B) {
	var e Encoder
	p := aggregatePoint()
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = e.Append(buf[:0], p)
	}
	b.SetBytes(int64(len(buf)))
}

func BenchmarkEncoder_Readings3(b *testing.B) {
	var e Encoder
	p := &telemetry.Point{Measurement: "telemetry", Labels: labels("device", "press-17", "gateway", "plant-7", "site", "plant-7"), Time: 1764000000e9,
		Fields: []telemetry.Field{{Name: "humidity", Value: 43.2}, {Name: "temperature", Value: 21.56}, {Name: "vibration", Value: 0.0021}}}
	buf := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = e.Append(buf[:0], p)
	}
	b.SetBytes(int64(len(buf)))
}
