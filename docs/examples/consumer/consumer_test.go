package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/gateway/telemetry"
	"sluice/uplink"
	sink "sluice/uplink/nats"
	"sluice/uplink/stream/streamtest"
)

// server is a real nats-server with a stream whose duplicate window is too short to help; stored counts its messages.
func server(t *testing.T) (url string, stored func() uint64) {
	t.Helper()
	dir, port := t.TempDir(), streamtest.FreePort(t)
	conf := filepath.Join(dir, "nats.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listen: \"127.0.0.1:%d\"\njetstream: { store_dir: %q }\n", port, dir), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(streamtest.Program(t, "nats-server"), "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	url = fmt.Sprintf("nats://127.0.0.1:%d", port)
	var nc *nats.Conn
	streamtest.Eventually(t, 10*time.Second, "nats-server answers", func() (ok bool) {
		var err error
		nc, err = nats.Connect(url)
		return err == nil
	})
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	c := jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>"}, Duplicates: 100 * time.Millisecond}
	st, err := js.CreateStream(context.Background(), c)
	if err != nil {
		t.Fatal(err)
	}
	return url, func() uint64 {
		info, err := st.Info(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		return info.State.Msgs
	}
}

// truth is what a device measured, summed up by hour.
type truth struct {
	count    int64
	sum      float64
	min, max float64
	last     float64
	lastTime int64
	squares  float64
	readings []float64
}

// Two gateways send windows, correct some of them later, crash and send again; a stray message gets in between. What the consumer prints is what the
// devices measured, to the last reading.
func TestConsumer_RebuildsExactHoursFromRepeatsAndCorrections(t *testing.T) {
	url, stored := server(t)
	rng := rand.New(rand.NewPCG(1, 2))
	want := map[string]*truth{}
	const start = streamtest.Start - streamtest.Start%int64(time.Hour)
	for g := range 2 {
		gateway := fmt.Sprintf("g%d", g)
		var recs []uplink.Record
		var points []*telemetry.Point
		emit := func(p *telemetry.Point) {
			recs = append(recs, streamtest.Record(p, uint64(len(recs)+1)))
		}
		for w := range 720 { // two hours of windows of 10 s
			device := fmt.Sprintf("d%d", w%2)
			p := &telemetry.Point{Measurement: "telemetry", Time: start + int64(w)*10e9, Window: 10 * time.Second, Stats: telemetry.Stats,
				Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: device}, telemetry.Label{Name: "gateway", Value: gateway}, telemetry.Label{Name: "site", Value: "s1"})}
			p.Aggregates = append(p.Aggregates, telemetry.MetricAggregate{Metric: "temperature"})
			add := func(p *telemetry.Point) {
				at, v := p.Time+int64(rng.IntN(10_000))*1e6, float64(rng.IntN(400))/4-30
				p.Aggregates[0].Add(at, v)
				key := fmt.Sprintf("%s telemetry device=%s gateway=%s site=s1", time.Unix(0, p.Time).UTC().Truncate(time.Hour).Format(time.RFC3339), p.Labels.Get("device"), gateway)
				h := want[key]
				if h == nil {
					h = &truth{min: math.Inf(1), max: math.Inf(-1), lastTime: math.MinInt64}
					want[key] = h
				}
				h.count++
				h.sum += v
				h.min, h.max = min(h.min, v), max(h.max, v)
				if at >= h.lastTime {
					h.last, h.lastTime = v, at
				}
				h.readings = append(h.readings, v)
			}
			for range 1 + rng.IntN(4) {
				add(p)
			}
			emit(p)
			points = append(points, p)
			for range rng.IntN(2) { // a late reading: its window is sent again, whole
				late := points[rng.IntN(len(points))]
				add(late)
				emit(late)
			}
		}
		s, err := sink.New(sink.Config{URL: url, Stream: "EDGE", Subject: "edge.{site}.{gateway}"})
		if err != nil {
			t.Fatal(err)
		}
		for from := 0; from < len(recs); from += 100 {
			to := min(from+100, len(recs))
			if err := s.Deliver(t.Context(), recs[from:to]); err != nil {
				t.Fatal(err)
			}
		}
		// A crash: what was delivered is delivered again, after newer versions of it, and so late that the server takes it for new.
		before := stored()
		streamtest.Eventually(t, 10*time.Second, "the server takes repeats for new", func() bool {
			if err := s.Deliver(t.Context(), recs[200:500]); err != nil {
				t.Fatal(err)
			}
			return stored() > before
		})
		s.Close()
	}
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Request("edge.s1.stray", []byte("not a record"), 5*time.Second); err != nil {
		t.Fatal(err)
	}

	var out, log bytes.Buffer
	if err := run(t.Context(), []string{"--url", url}, &out, &log); err != nil {
		t.Fatal(err)
	}
	rows := 0
	for d := json.NewDecoder(&out); d.More(); rows++ {
		var r Row
		if err := d.Decode(&r); err != nil {
			t.Fatal(err)
		}
		h := want[r.Hour+" "+r.Series]
		if h == nil {
			t.Errorf("nobody measured %+v", r)
			continue
		}
		mean := h.sum / float64(h.count)
		for _, v := range h.readings {
			h.squares += (v - mean) * (v - mean)
		}
		stddev := math.Sqrt(h.squares / float64(h.count))
		if r.Count != h.count || r.Sum != h.sum || r.Min != h.min || r.Max != h.max || r.Last != h.last || r.LastTime != h.lastTime || math.Abs(r.Stddev-stddev) > 1e-9 {
			t.Errorf("got %+v, want count %d sum %g min %g max %g last %g stddev %g", r, h.count, h.sum, h.min, h.max, h.last, stddev)
		}
		if r.Windows != 180 {
			t.Errorf("%s %s: %d windows, want 180", r.Hour, r.Series, r.Windows)
		}
	}
	if rows != len(want) || rows != 8 {
		t.Errorf("%d rows, want %d", rows, len(want))
	}
	if text := log.String(); strings.HasPrefix(text, "0 repeats") || !strings.Contains(text, "1 records not understood") {
		t.Errorf("the test met no repeats, or the stray message counts: %s", text)
	}
}

func TestHours_AnOlderVersionNeverReplacesANewerOne(t *testing.T) {
	record := func(version string, count int) []byte {
		return fmt.Appendf(nil, `{"schema":1,"id":"a","version":%q,"measurement":"m","tags":{"window":"10s"},"time":0,"new_key":1,"aggregates":{"t":{"count":%d,"sum":1}}}`, version, count)
	}
	var h Hours
	for _, r := range [][]byte{record("0000000000000002-00000000", 2), record("0000000000000010-00000000", 3), record("0000000000000009-00000000", 9)} {
		if err := h.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if rows := h.Rows(); len(rows) != 1 || rows[0].Count != 3 || h.Repeats != 1 {
		t.Errorf("rows %+v, %d repeats", rows, h.Repeats)
	}
	for _, bad := range []string{"", "{}", `{"schema":2,"id":"a","version":"b"}`} {
		if h.Add([]byte(bad)) == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
