package influx

import (
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys"
	"sluice/gateway/telemetry"
)

func TestTypes_OneConflictIsSentTheOthersAreRefusedHere(t *testing.T) {
	const words = `failure writing points to database: partial write: field type conflict: input field "temperature" on measurement "m" is type float, already exists as type integer dropped=1`
	dir := t.TempDir()
	types, err := OpenTypes(fsys.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	var points []*telemetry.Point
	for n := range 40 {
		field := "humidity"
		if n%4 == 1 {
			field = "temperature"
		}
		points = append(points, &telemetry.Point{Measurement: "m", Time: int64(n + 1), Fields: []telemetry.Field{{Name: field, Value: 1}}})
	}
	s := newServer(t, nil, func(_ int, r request) reply {
		good := pick(r.lines, "temperature=")
		if len(good) == len(r.lines) {
			return reply{raw: answer4, store: r.lines}
		}
		return reply{raw: oss(422, "unprocessable entity", words), store: good}
	})
	g := newGateway(t, Config{URL: s.url(), Gzip: true, Types: types}, points...)
	st := g.untilDrained()
	lines, items := g.quarantined()
	if len(lines) != 10 || st.Delivered != 30 || st.Rejected != 10 {
		t.Fatalf("%d quarantined, %+v", len(lines), st.Counters)
	}
	for _, it := range items {
		if it.Reason != "type_conflict" || !strings.Contains(it.Detail, "is integer in the store") {
			t.Errorf("%s: %s", it.Reason, it.Detail)
		}
	}
	if n := len(s.requests()); n != 3 {
		t.Errorf("%d requests, want one that is refused, and its halves without those points", n)
	}
	types.Close()

	again, err := OpenTypes(fsys.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	now := time.Now()
	if again.check(points[1], now) == nil || again.check(points[0], now) != nil {
		t.Error("what was learned is not known after a restart")
	}
	if again.check(points[1], now.Add(forget+time.Minute)) != nil {
		t.Error("the store is never asked again")
	}
}

func TestTypes_TakeInNoMoreThanTheyMay(t *testing.T) {
	types := &Types{known: make(map[string]map[string]fieldType)}
	for n := range 3 * maxTypes {
		name := strings.Repeat("x", n%50) + string(rune('a'+n%26)) + time.Duration(n).String()
		types.learn(`input field "`+name+`" on measurement "m" is type float, already exists as type string`, time.Now())
	}
	total := 0
	for _, fields := range types.known {
		total += len(fields)
	}
	if total > maxTypes || total != types.n {
		t.Errorf("%d are known, counted %d", total, types.n)
	}
	var none *Types
	none.learn("x", time.Now())
	if none.check(&telemetry.Point{}, time.Now()) != nil || !slices.Equal(conflict.FindStringSubmatch("nothing"), nil) {
		t.Error("without a registry nothing is refused")
	}
}
