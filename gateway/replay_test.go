package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// A store was restored from a backup and lacks a range. It gets the same points again, the windows whole and in their last version,
// and nothing of what lies outside.
func TestReplayRange_SendsWhatTheStoreLost(t *testing.T) {
	sent := &captured{}
	store := httptest.NewServer(http.HandlerFunc(sent.store))
	defer store.Close()
	dir := t.TempDir()
	text := `gateway: { id: g, data_dir: data }
mqtt: { allow_anonymous: true, listeners: [ { address: "127.0.0.1:0" } ] }
sources: [ { name: m, topic: "d/{device}", send: both, window: 100ms, grace: 0s, lateness: 300ms, stats: [count, sum, p50] } ]
uplink: { destinations: [ { name: cloud, type: influxdb, url: "` + store.URL + `", bucket: b, match: { device: "p*" } } ] }
history: { keep: 0 }
http: { address: "" }
`
	if err := os.WriteFile(filepath.Join(dir, "sluice.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := loadConfig(filepath.Join(dir, "sluice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g := startOn(t, newMachine("b", time.Now()), cfg)
	defer func() { g.stop() }()
	sum := func() map[string]string { // of the store, as it is
		sent.mu.Lock()
		defer sent.mu.Unlock()
		last := map[string]string{}
		for _, line := range sent.lines {
			words := splitLine(line)
			last[words[0]+" "+words[2]] = words[1]
		}
		return last
	}
	settled := func(readings int) {
		t.Helper()
		g.eventually("everything is delivered and closed", func() string {
			g.device.Publish("d/other", 1, false, `{"v":1}`).Wait() // time goes on; the destination does not want it
			raw, counted := 0, 0
			for id, fields := range sum() {
				var n, v float64
				if _, err := fmt.Sscanf(fields, "v_count=%g,v_sum=%g", &n, &v); err == nil {
					counted += int(n)
				} else if fields != "" {
					raw++
				}
				_ = id
			}
			if raw != readings || counted != readings {
				return fmt.Sprintf("%d readings, %d in windows, want %d", raw, counted, readings)
			}
			return ""
		})
	}
	for i := range 20 {
		g.publish(fmt.Sprintf(`{"v":%d}`, i))
	}
	from := time.Now()
	time.Sleep(150 * time.Millisecond) // windows apart: the range has a beginning
	first := time.Now()
	for i := range 30 {
		g.publish(fmt.Sprintf(`{"v":%d}`, i+100))
	}
	to := time.Now()
	settled(50)
	g.eventually("the windows are closed", func() string {
		g.device.Publish("d/other", 1, false, `{"v":1}`).Wait()
		if v := g.runner.View(); v.Now < to.Add(time.Second).UnixNano() {
			return "not yet"
		}
		return ""
	})
	want := map[string]string{}
	for id, fields := range sum() {
		var ns int64
		fmt.Sscanf(splitLine(id)[1], "%d", &ns)
		if ns >= from.UnixNano() && ns < to.UnixNano() {
			want[id] = fields
		}
	}
	sent.mu.Lock()
	sent.lines = nil
	sent.mu.Unlock()
	calls := 0
	got, err := g.replayRange(context.Background(), from, to, "cloud", func(done, total int64) {
		if done > total {
			t.Errorf("%d of %d done", done, total)
		}
		calls++
	})
	if err != nil || got.Points != uint64(len(want)) || !got.From.Equal(from) || !got.To.Equal(to) || calls == 0 || got.Damaged+got.Trimmed+got.AlertsLeftOut != 0 {
		t.Fatalf("replay: %+v, %v; want %d points from %v to %v", got, err, len(want), from, to)
	}
	g.eventually("the store has them again", func() string {
		if now := sum(); !maps.Equal(now, want) {
			return fmt.Sprintf("%v\nwant %v", slices.Sorted(maps.Keys(now)), slices.Sorted(maps.Keys(want)))
		}
		return ""
	})
	if c := g.outlet.destinations[0].outbox.Counters(); c.Enqueued != c.Delivered {
		t.Errorf("outbox: %+v", c)
	}
	if _, err := g.replayRange(context.Background(), first, to, "ops", nil); !errors.Is(err, errNoDestination) {
		t.Errorf("unknown destination: %v", err)
	}
	if _, err := g.replayRange(context.Background(), to, from, "cloud", nil); err == nil {
		t.Error("a range that ends before it begins is taken")
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := g.replayRange(ended, from, to, "cloud", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// What can still change is not sent: the gateway does that by itself.
	g.publish(`{"v":1}`)
	if got, err := g.replayRange(context.Background(), from, time.Now().Add(time.Hour), "cloud", nil); err != nil || got.To.After(time.Now()) {
		t.Errorf("up to what is open: %+v, %v", got, err)
	}
}

// splitLine splits line protocol that has no blanks but those between its parts.
func splitLine(line string) (words [3]string) {
	i := 0
	for _, c := range line {
		if c == ' ' && i < 2 {
			i++
			continue
		}
		words[i] += string(c)
	}
	return words
}
