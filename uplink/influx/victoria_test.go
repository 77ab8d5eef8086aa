package influx

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

// victoria starts the real VictoriaMetrics on a free port with an empty directory.
func victoria(t *testing.T) (base string) {
	t.Helper()
	path, err := exec.LookPath("victoria-metrics")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("victoria-metrics is not installed")
		}
		t.Skip("victoria-metrics is not installed (Debian: victoria-metrics)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	cmd := exec.Command(path, "-httpListenAddr", addr, "-storageDataPath", t.TempDir(), "-retentionPeriod", "100y", "-search.latencyOffset", "0s",
		"-search.disableCache", "-memory.allowedBytes", "64MB", "-dedup.minScrapeInterval", "1ms")
	var log bytes.Buffer
	cmd.Stderr, cmd.Stdout = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
	})
	base = "http://" + addr
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get(base + "/health"); err == nil {
			resp.Body.Close()
			return base
		}
		if time.Now().After(deadline) {
			t.Fatalf("victoria-metrics does not answer: %s", log.String())
		}
	}
}

// export reads every sample of the series whose names begin with prefix: name and labels to timestamp (ms) to value.
func export(t *testing.T, base, prefix string) map[string]map[int64]float64 {
	t.Helper()
	http.Get(base + "/internal/force_flush") // makes what was written visible at once
	resp, err := http.Get(base + "/api/v1/export?match[]=" + url.QueryEscape(`{__name__=~"`+prefix+`.*"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out := make(map[string]map[int64]float64)
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, 16<<20)
	for sc.Scan() {
		var line struct {
			Metric     map[string]string
			Values     []float64
			Timestamps []int64
		}
		if err := json.Unmarshal(sc.Bytes(), &line); err != nil {
			t.Fatalf("%q: %v", sc.Text(), err)
		}
		key := fmt.Sprint(line.Metric) // maps print sorted
		out[key] = make(map[int64]float64)
		for i, ts := range line.Timestamps {
			out[key][ts] = line.Values[i]
		}
	}
	return out
}

func TestVictoriaMetrics_HoldsWhatWasDelivered(t *testing.T) {
	base := victoria(t)
	start := time.Now().Add(-time.Hour).Truncate(10 * time.Second)
	var points []*telemetry.Point
	want := make(map[string]map[int64]float64)
	for w := range 50 {
		for d := range 4 {
			p := &telemetry.Point{Measurement: "telemetry", Labels: labels("device", fmt.Sprintf(`press %d, "left" = C:\x`, d), "gateway", "plant-7"),
				Time: start.Add(time.Duration(w) * 10 * time.Second).UnixNano(), Window: 10 * time.Second, Stats: telemetry.Stats}
			a := telemetry.MetricAggregate{Metric: "temperature"}
			for i := range 10 {
				a.Add(p.Time+int64(i), float64(d)+float64(w*i)/7)
			}
			p.Aggregates = append(p.Aggregates, a)
			points = append(points, p)
			p.EachField(func(name []byte, v float64) {
				m := p.Labels.Map()
				m["window"], m["__name__"] = "10s", "telemetry_"+string(name)
				key := fmt.Sprint(m)
				if want[key] == nil {
					want[key] = make(map[int64]float64)
				}
				want[key][p.Time/1e6] = v
			})
		}
	}
	g := newGateway(t, Config{URL: base, Gzip: true}, points...)
	g.untilDrained()
	got := export(t, base, "telemetry_")
	for key, samples := range want {
		for ts, v := range samples {
			g, ok := got[key][ts]
			// VictoriaMetrics keeps about 15 significant digits.
			if !ok || g-v > 1e-9 || v-g > 1e-9 {
				t.Fatalf("%s at %d: %v %v, want %v", key, ts, g, ok, v)
			}
		}
		if len(got[key]) != len(samples) {
			t.Errorf("%s: %d samples, want %d", key, len(got[key]), len(samples))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d series, want %d", len(got), len(want))
	}
}

// VictoriaMetrics keeps every sample it is sent; only with -dedup.minScrapeInterval=1ms, as here, do equal ones count once. Even then a
// later sample with the same time does not reliably replace an earlier one, so corrections need InfluxDB.
func TestVictoriaMetrics_ADeliveryRepeatedChangesNothing(t *testing.T) {
	base := victoria(t)
	points := readings(100)
	now := time.Now().Add(-time.Minute).UnixNano()
	for i, p := range points {
		p.Measurement, p.Time = "again", now-int64(i)*1e9
	}
	var before map[string]map[int64]float64
	for _, packed := range []bool{true, false} {
		g := newGateway(t, Config{URL: base, Gzip: packed}, points...)
		g.untilDrained()
		got := export(t, base, "again_")
		n := 0
		for _, samples := range got {
			n += len(samples)
		}
		if n != 100 || before != nil && fmt.Sprint(got) != fmt.Sprint(before) {
			t.Fatalf("%d samples, want 100; before %v, now %v", n, before, got)
		}
		before = got
	}
	resp, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(`sum(count_over_time(again_v[1h]))`))
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || !strings.Contains(string(body), `"100"]`) {
		t.Errorf("query answers %s, %v", body, err)
	}
}

// The names and values that the encoder lets through must come out of a server of another make as they went in.
func TestVictoriaMetrics_ReadsOddNamesAsTheyWereWritten(t *testing.T) {
	base := victoria(t)
	now := time.Now().Truncate(time.Second)
	odd := []string{"a b", "a,b", "a=b", `a\b`, `C:\dir\file`, `"quoted"`, "Köln", "it's", "{x}", "a#b", "100%", " x", "x "}
	var points []*telemetry.Point
	for i, name := range odd {
		points = append(points, &telemetry.Point{Measurement: "odd", Labels: labels("v", name, "k"+name, "1"), Time: now.UnixNano(), Fields: one("n", float64(i))})
	}
	g := newGateway(t, Config{URL: base}, points...)
	g.untilDrained()
	got := export(t, base, "odd_")
	for i, name := range odd {
		m := map[string]string{"__name__": "odd_n", "v": name, "k" + name: "1"}
		if v, ok := got[fmt.Sprint(m)][now.UnixMilli()]; !ok || v != float64(i) {
			t.Errorf("%q: %v %v, want %d", name, v, ok, i)
		}
	}
	if len(got) != len(odd) {
		t.Errorf("%d series, want %d: %v", len(got), len(odd), got)
	}
}
