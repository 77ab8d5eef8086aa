package stream

import (
	"encoding/json"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

var update = flag.Bool("update", false, "write testdata/*.json anew")

func labels(pairs ...string) telemetry.Labels {
	var out []telemetry.Label
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, telemetry.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return telemetry.NewLabels(out...)
}

func record(p *telemetry.Point, lsn uint64, ordinal uint32) uplink.Record {
	return uplink.Record{LSN: lsn, Cause: uplink.Cause{LSN: lsn, Ordinal: ordinal}, Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}
}

const start = 1_795_367_000_000_000_000

func window() *telemetry.Point {
	p := &telemetry.Point{
		Measurement: "telemetry", Labels: labels("device", "freezer-1", "gateway", "plant-7", "site", "plant-7", "zone", "cold"), Time: start, Window: 10 * time.Second,
		Stats: []telemetry.Stat{telemetry.StatCount, telemetry.StatMean, telemetry.StatMin, telemetry.StatMax, telemetry.StatLast},
	}
	for i, metric := range []string{"temperature", "humidity", "vibration"} {
		m := telemetry.MetricAggregate{Metric: metric}
		for j := range 3 {
			m.Add(start+int64(j)*1e9, float64(i*40)-18.5+0.25*float64(j))
		}
		p.Aggregates = append(p.Aggregates, m)
	}
	return p
}

// The data contract, byte for byte. A change here is a change for everyone who reads the records.
func TestEncoder_WritesTheRecordsAsDocumented(t *testing.T) {
	hard := &telemetry.Point{Measurement: "a \"b\"\\c\n\t\x01", Labels: labels("läbel", "v<&>\u2028", "gateway", "g"), Time: -1,
		Fields: []telemetry.Field{{Name: "x", Value: math.Copysign(0, -1)}, {Name: "y", Value: 1e300}, {Name: "z", Value: 5e-324}, {Name: "n", Value: 1 << 53}}}
	empty := window()
	empty.Aggregates = []telemetry.MetricAggregate{{Metric: "none"}}
	empty.Stats = nil
	for name, tc := range map[string]struct {
		p       *telemetry.Point
		lsn     uint64
		ordinal uint32
	}{
		"window": {window(), 4711, 3},
		"reading": {&telemetry.Point{Measurement: "telemetry", Labels: labels("device", "freezer-1", "gateway", "plant-7"), Time: start + 123_456_789,
			Fields: []telemetry.Field{{Name: "temperature", Value: -18.64}, {Name: "door", Value: 0}}}, 1, 0},
		"alert": {&telemetry.Point{Measurement: "alerts", Labels: labels("alertname", "FreezerWarm", "gateway", "plant-7", "severity", "critical"), Time: start,
			Fields: []telemetry.Field{{Name: "state", Value: 1}, {Name: "value", Value: -9.5}}}, math.MaxUint64, math.MaxUint32},
		"escapes":   {hard, 2, 1},
		"no_values": {empty, 5, 0},
	} {
		var e Encoder
		r := record(tc.p, tc.lsn, tc.ordinal)
		got, err := e.Append([]byte("before"), &r)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got = append(got[len("before"):], '\n')
		file := filepath.Join("testdata", name+".json")
		if *update {
			if err := os.WriteFile(file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
		checkAgainst(t, tc.p, got)
	}
}

// decoded is the record as a stranger would read it.
type decoded struct {
	Schema      int                               `json:"schema"`
	ID          string                            `json:"id"`
	Version     string                            `json:"version"`
	Measurement string                            `json:"measurement"`
	Tags        map[string]string                 `json:"tags"`
	Time        int64                             `json:"time"`
	End         *int64                            `json:"end"`
	Fields      map[string]float64                `json:"fields"`
	Aggregates  map[string]map[string]json.Number `json:"aggregates"`
}

// checkAgainst holds a record, as encoding/json reads it, against its point.
func checkAgainst(t *testing.T, p *telemetry.Point, b []byte) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(b)))
	d.DisallowUnknownFields()
	var got decoded
	if err := d.Decode(&got); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	tags := p.Labels.Map()
	if p.Window != 0 {
		tags["window"] = telemetry.WindowLabel(p.Window)
		if got.End == nil || *got.End != p.Time+int64(p.Window) {
			t.Fatalf("end %v in %s", got.End, b)
		}
	} else if got.End != nil || got.Aggregates != nil {
		t.Fatalf("a point without a window has an end: %s", b)
	}
	if got.Schema != Schema || len(got.ID) != 32 || len(got.Version) != 25 || got.Measurement != p.Measurement || got.Time != p.Time || !reflect.DeepEqual(got.Tags, tags) {
		t.Fatalf("got %+v from %s, want %+v", got, b, p)
	}
	fields := 0
	p.EachField(func(name []byte, v float64) {
		fields++
		if g, ok := got.Fields[string(name)]; !ok || math.Float64bits(g) != math.Float64bits(v) {
			t.Fatalf("field %q is %v in %s, want %v", name, g, b, v)
		}
	})
	if fields != len(got.Fields) {
		t.Fatalf("%d fields in %s, want %d", len(got.Fields), b, fields)
	}
	if p.Window == 0 {
		return
	}
	for i := range p.Aggregates {
		m := &p.Aggregates[i]
		a := got.Aggregates[m.Metric]
		count, err := a["count"].Int64()
		if err != nil || uint64(count) != m.Count {
			t.Fatalf("count %v of %q in %s, want %d", a["count"], m.Metric, b, m.Count)
		}
		if m.Count == 0 {
			continue
		}
		for _, s := range []telemetry.Stat{telemetry.StatSum, telemetry.StatMin, telemetry.StatMax, telemetry.StatFirst, telemetry.StatLast, telemetry.StatStddev} {
			want, _ := m.Stat(s)
			if g, err := a[string(s)].Float64(); err != nil || g != want {
				t.Fatalf("%s of %q is %v in %s, want %v", s, m.Metric, a[string(s)], b, want)
			}
		}
		first, _ := a["first_time"].Int64()
		last, _ := a["last_time"].Int64()
		if first != m.FirstTime || last != m.LastTime {
			t.Fatalf("times %d %d of %q, want %d %d", first, last, m.Metric, m.FirstTime, m.LastTime)
		}
	}
}

func TestEncoder_RefusesWhatJSONCannotCarry(t *testing.T) {
	field := []telemetry.Field{{Name: "x", Value: 1}}
	bad := telemetry.Labels{{Name: "b", Value: "1"}, {Name: "a", Value: "2"}}
	nan := telemetry.MetricAggregate{Metric: "m"}
	nan.Add(1, math.NaN())
	for _, tc := range []struct {
		reason string
		p      telemetry.Point
	}{
		{reasonMeasurement, telemetry.Point{Fields: field}},
		{reasonMeasurement, telemetry.Point{Measurement: "a\xff", Fields: field}},
		{reasonTag, telemetry.Point{Measurement: "m", Labels: labels("a", "\xc3("), Fields: field}},
		{reasonTag, telemetry.Point{Measurement: "m", Labels: labels("\xff", "a"), Fields: field}},
		{reasonTag, telemetry.Point{Measurement: "m", Labels: labels("window", "1s"), Window: time.Second, Fields: field}},
		{reasonDamaged, telemetry.Point{Measurement: "m", Labels: bad, Fields: field}},
		{reasonField, telemetry.Point{Measurement: "m", Fields: []telemetry.Field{{Name: "\xff", Value: 1}}}},
		{reasonValue, telemetry.Point{Measurement: "m", Fields: []telemetry.Field{{Name: "x", Value: math.Inf(1)}}}},
		{reasonValue, telemetry.Point{Measurement: "m", Window: 1e9, Aggregates: []telemetry.MetricAggregate{nan}}},
		{reasonNoFields, telemetry.Point{Measurement: "m"}},
	} {
		var e Encoder
		r := record(&tc.p, 1, 0)
		b, err := e.Append([]byte("x"), &r)
		if err == nil || !strings.HasPrefix(err.Error(), tc.reason+": ") || string(b) != "x" {
			t.Errorf("Append(%+v) = %q, %v; want reason %s and nothing appended", tc.p, b, err, tc.reason)
		}
	}
	var e Encoder
	for reason, r := range map[string]uplink.Record{reasonType: {Type: uplink.TypeNotification}, reasonDamaged: {Type: uplink.TypePoint, Body: []byte("?")}} {
		if _, err := e.Append(nil, &r); err == nil || !strings.HasPrefix(err.Error(), reason+": ") {
			t.Errorf("Append(%+v) = %v, want reason %s", r, err, reason)
		}
	}
}

func TestEncoder_IdentityIsMeasurementTagsWindowAndTimeAlone(t *testing.T) {
	var e Encoder
	id := func(p *telemetry.Point, lsn uint64) string {
		r := record(p, lsn, 0)
		if err := e.read(&r); err != nil {
			t.Fatal(err)
		}
		return string(e.id[:])
	}
	base := id(window(), 1)
	corrected := window()
	corrected.Aggregates[0].Add(start, 5)
	corrected.Stats = telemetry.Stats
	if got := id(corrected, 99); got != base {
		t.Errorf("a correction has another id: %s, was %s", got, base)
	}
	seen := map[string]string{base: "the point itself"}
	for name, change := range map[string]func(*telemetry.Point){
		"measurement": func(p *telemetry.Point) { p.Measurement = "telemetr" },
		"label value": func(p *telemetry.Point) {
			p.Labels = p.Labels.With(telemetry.Label{Name: "device", Value: "freezer-2"})
		},
		"label name": func(p *telemetry.Point) {
			p.Labels = labels("devicef", "reezer-1", "gateway", "plant-7", "site", "plant-7", "zone", "cold")
		},
		"window": func(p *telemetry.Point) { p.Window = time.Minute },
		"time":   func(p *telemetry.Point) { p.Time++ },
	} {
		p := window()
		change(p)
		if other, ok := seen[id(p, 1)]; ok {
			t.Errorf("another %s has the id of %s", name, other)
		}
		seen[id(p, 1)] = name
	}
}

func TestEncoder_VersionsGrowAsText(t *testing.T) {
	var e Encoder
	last := ""
	for _, c := range []uplink.Cause{{}, {LSN: 0, Ordinal: 1}, {LSN: 1}, {LSN: 9, Ordinal: 15}, {LSN: 9, Ordinal: 16}, {LSN: 10}, {LSN: 1 << 40}, {LSN: math.MaxUint64, Ordinal: math.MaxUint32}} {
		r := record(window(), 1, 0)
		r.Cause = c
		if err := e.read(&r); err != nil {
			t.Fatal(err)
		}
		if v := string(e.version[:]); v <= last {
			t.Errorf("version %s of %+v is not after %s", v, c, last)
		} else {
			last = v
		}
	}
}

func FuzzEncoder_RoundTrip(f *testing.F) {
	f.Add("m", "device", "d1", "temperature", 21.5, int64(start), int64(10e9), true)
	f.Add("\"\\\x00", "ü", "\u2028\x7f", "a\nb", math.Copysign(0, -1), int64(-1), int64(0), false)
	f.Add("\xff", "window", "", "x", math.Inf(1), int64(math.MaxInt64), int64(1), true)
	f.Fuzz(func(t *testing.T, measurement, name, value, metric string, v float64, at, window int64, aggregate bool) {
		p := &telemetry.Point{Measurement: measurement, Labels: labels(name, value, "gateway", "g"), Time: at, Stats: telemetry.Stats}
		if aggregate {
			p.Window = time.Duration(max(window, 0))
			m := telemetry.MetricAggregate{Metric: metric}
			m.Add(at, v)
			m.Add(at, v/2)
			p.Aggregates = []telemetry.MetricAggregate{m}
		} else {
			p.Fields = []telemetry.Field{{Name: metric, Value: v}}
		}
		r := record(p, uint64(at), 1)
		var e Encoder
		b, err := e.Append(nil, &r)
		text := utf8.ValidString(measurement) && utf8.ValidString(name) && utf8.ValidString(value) && utf8.ValidString(metric)
		if err != nil {
			if text && measurement != "" && name != "window" && v-v == 0 && !(aggregate && p.Window == 0) {
				t.Fatalf("refused: %v", err)
			}
			return
		}
		if aggregate && p.Window == 0 {
			return // such points do not exist: their aggregates are left out
		}
		checkAgainst(t, p, b)
	})
}

func TestEncoder_AllocatesNoMoreThanTheParser(t *testing.T) {
	r := record(window(), 1, 0)
	var p telemetry.Point
	parse := testing.AllocsPerRun(100, func() { telemetry.ParsePoint(r.Body, &p) })
	var e Encoder
	b := make([]byte, 0, 4096)
	all := testing.AllocsPerRun(100, func() { b, _ = e.Append(b[:0], &r) })
	if all > parse {
		t.Errorf("%g allocations a record, %g of them the parser's", all, parse)
	}
}

func BenchmarkEncoder_Aggregates3x5(b *testing.B) {
	r := record(window(), 1, 0)
	var e Encoder
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		buf, _ = e.Append(buf[:0], &r)
	}
	b.SetBytes(int64(len(buf)))
}
