package stream

import (
	"strings"
	"testing"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

func clean(b []byte, v string) []byte { return append(b, strings.ReplaceAll(v, "/", "_")...) }

func address(t *testing.T, template string, p *telemetry.Point) string {
	t.Helper()
	tmpl, err := ParseTemplate(template, clean)
	if err != nil {
		t.Fatalf("ParseTemplate(%q): %v", template, err)
	}
	return string(tmpl.Append(nil, p))
}

func TestTemplate_PutsLabelsIn(t *testing.T) {
	p := window()
	p.Labels = p.Labels.With(telemetry.Label{Name: "odd", Value: "a/b"}, telemetry.Label{Name: "long", Value: strings.Repeat("ü", 100)})
	for template, want := range map[string]string{
		"edge/points":                       "edge/points",
		"edge/{site}/{device}":              "edge/plant-7/freezer-1",
		"{measurement}/{window}/d-{device}": "telemetry/10s/d-freezer-1",
		"e/{absent}/{odd}":                  "e/_/a_b",
		"{long}":                            strings.Repeat("ü", 64),
	} {
		if got := address(t, template, p); got != want {
			t.Errorf("%s: got %q, want %q", template, got, want)
		}
	}
	p.Window = 0
	if got := address(t, "{window}", p); got != "_" {
		t.Errorf("a point without a window has %q", got)
	}
}

func TestParseTemplate_RefusesWhatIsNotClosed(t *testing.T) {
	for _, bad := range []string{"", "{", "}", "a{", "a}b", "{}", "{a", "{a{b}}", "{a}}"} {
		if _, err := ParseTemplate(bad, clean); err == nil {
			t.Errorf("ParseTemplate(%q) took it", bad)
		}
	}
}

func deviceOf(b []byte, p *telemetry.Point) []byte { return append(b, p.Labels.Get("device")...) }

func records(n int) []uplink.Record {
	var out []uplink.Record
	for i := range n {
		p := window()
		p.Time += int64(i) * 10e9
		out = append(out, record(p, uint64(i+1), 0))
	}
	return out
}

func TestQueue_SkipsWhatABrokenDeliveryDelivered(t *testing.T) {
	var q Queue
	recs := records(10)
	if refused := q.Fill(recs, 1<<20, deviceOf); len(refused) != 0 || len(q.Messages) != 10 {
		t.Fatalf("refused %v, %d messages", refused, len(q.Messages))
	}
	for _, i := range []int{0, 1, 2, 5} {
		q.Delivered(&q.Messages[i])
	}
	q.Release()
	want := func(from []uplink.Record, indexes ...int) {
		t.Helper()
		q.Fill(from, 1<<20, deviceOf)
		if len(q.Messages) != len(indexes) {
			t.Fatalf("%d messages, want %v", len(q.Messages), indexes)
		}
		for i, m := range q.Messages {
			if m.Record != indexes[i] || string(m.Address) != "freezer-1" || !strings.Contains(string(m.Body), `"version":"`+string(m.ID[33:])) {
				t.Errorf("message %d: %d %s %s %s", i, m.Record, m.Address, m.ID, m.Body)
			}
		}
	}
	want(recs, 3, 4, 6, 7, 8, 9)
	want(recs[5:], 1, 2, 3, 4)
	want(recs[:3])
	want(recs[6:], 0, 1, 2, 3)
	q.Fill(recs, 1<<20, deviceOf)
	for i := range 3 {
		q.Delivered(&q.Messages[i])
	}
	other := window()
	other.Window *= 6
	recs[0] = record(other, 1, 0) // merged with others, in the first one's place
	want(recs[:4], 0, 3)
	want(recs[6:], 0, 1, 2, 3)
	want(recs, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9) // it had gone on beyond the memory, which ended there
}

func TestQueue_NamesWhatCannotBeSent(t *testing.T) {
	var q Queue
	recs := records(4)
	recs[1].Body = []byte("damaged")
	big := window()
	big.Labels = big.Labels.With(telemetry.Label{Name: "note", Value: strings.Repeat("x", 5000)})
	recs[2] = record(big, 3, 0)
	refused := q.Fill(recs, 4000, deviceOf)
	if len(refused) != 2 || refused[0].Index != 1 || refused[0].Reason != "damaged" || refused[1].Index != 2 || refused[1].Reason != "too_large" {
		t.Fatalf("refused %+v", refused)
	}
	if len(q.Messages) != 2 || q.Messages[1].Record != 3 || !strings.HasPrefix(string(q.Messages[1].Body), `{"schema":1`) {
		t.Errorf("messages %+v", q.Messages)
	}
}

func BenchmarkQueue_Fill5000(b *testing.B) {
	var q Queue
	recs := records(5000)
	b.ReportAllocs()
	for b.Loop() {
		q.Fill(recs, 1<<20, deviceOf)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/5000, "ns/record")
}
