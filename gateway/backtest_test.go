package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/rules"
)

const backtestRules = `
groups:
  - name: g
    rules:
      - { alert: FreezerWarm, match: { device: "dev-*" }, expr: temperature > 36, for: 5m, labels: { severity: critical } }
      - { alert: Rising, expr: "rate(temperature, 1m) > 0.5 and hour() >= 0" }
      - { alert: Silent, absent: { metric: temperature, after: 3x } }
      - { alert: High, expr: "avg(temperature, 5m) > 25", for: 1m }
      - { alert: Never, match: { device: nobody }, expr: temperature > 0 }
`

// writeJournal makes a data directory with messages of 100 devices, one every 10 seconds each, up to now.
func writeJournal(t testing.TB, dir string, messages int) (configFile string) {
	t.Helper()
	files := map[string]string{
		"rules.yaml": backtestRules,
		"sluice.yaml": "gateway: { id: g, data_dir: data }\nsources:\n  - { name: telemetry, topic: 'd/{device}/t', time: { field: ts, unit: ms }, sequence: seq }\n" +
			"rules: { files: [rules.yaml] }\nhttp: { address: '' }\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	journal := filepath.Join(dir, "data", "journal")
	if err := os.MkdirAll(journal, 0o700); err != nil {
		t.Fatal(err)
	}
	l, _, err := seglog.Open(journal, seglog.Options{NoPrealloc: true})
	if err != nil {
		t.Fatal(err)
	}
	const every = 100 * time.Millisecond
	start := time.Now().Add(-time.Duration(messages) * every)
	for i := range messages {
		device, at := i%100, start.Add(time.Duration(i)*every)
		head := pipeline.AppendMessageHead(nil, &pipeline.Message{ClientID: "c", Topic: "d/dev-" + strconv.Itoa(device) + "/t", QoS: 1, PacketID: uint16(i)})
		// Each device climbs to 40 and falls back within two hours, one after the other.
		phase := (i/100 + device*7) % 720
		payload := fmt.Sprintf(`{"ts":%d,"seq":%d,"temperature":%.2f,"humidity":55.5,"battery":87}`, at.UnixMilli(), i/100, 20+20*float64(phase)/720)
		if _, err := l.Append(pipeline.RecordMessage, at.UnixNano(), head, []byte(payload)); err != nil {
			t.Fatal(err)
		}
		if i%10_000 == 0 {
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "sluice.yaml")
}

func TestBacktest_ReportsWhatTheRulesWouldHaveDone(t *testing.T) {
	dir := t.TempDir()
	cfg := writeJournal(t, dir, 100*1500)
	lock, err := seglog.LockDir(filepath.Join(dir, "data")) // a gateway has the directory
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	var out, errs bytes.Buffer
	args := []string{"rules", "backtest", "--config", cfg, "--for-change", "FreezerWarm=15m", "--for-change", "High=1s"}
	if code := execute(context.Background(), append(args, "--json"), nil, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var r struct {
		Messages uint64
		Rules    []struct {
			Alert   string
			Fired   int
			Series  int
			Total   time.Duration `json:"total_ns"`
			Longest time.Duration `json:"longest_ns"`
			Changed *struct{ Fired int }
		}
	}
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	if r.Messages != 150_000 || len(r.Rules) != 5 {
		t.Fatalf("%s", out.String())
	}
	warm, never := r.Rules[0], r.Rules[4]
	// Above 36 for the last fifth of two hours: 24 minutes, of which the first five are pending.
	if warm.Fired < 100 || warm.Series != 100 || warm.Longest < 18*time.Minute || warm.Longest > 20*time.Minute || warm.Changed == nil || warm.Changed.Fired >= warm.Fired {
		t.Errorf("FreezerWarm: %+v", warm)
	}
	if never.Fired != 0 || never.Changed != nil {
		t.Errorf("Never: %+v", never)
	}
	out.Reset()
	if code := execute(context.Background(), append(args, "--since", "1h", "--rules", filepath.Join(dir, "rules.yaml")), nil, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	text := out.String()
	if n, err := strconv.Atoi(strings.Fields(text)[0]); err != nil || n < 35_000 || n > 37_000 || !strings.Contains(text, "messages from") || !strings.Contains(text, "\n  changed ") {
		t.Errorf("since 1h:\n%s", text)
	}
}

// As the API runs it: on the side of a gateway that has the directory, watched, and cut off in the middle.
func TestBacktest_IsALibraryCallThatTellsItsProgressAndCanBeCutOff(t *testing.T) {
	dir := t.TempDir()
	cfg, err := config.Load(writeJournal(t, dir, 20_000))
	if err != nil {
		t.Fatal(err)
	}
	o := backtestOptions{Journal: journalDir(cfg), Changes: map[string]time.Duration{"": time.Hour, "High": time.Second}}
	if o.Spec, err = backtestSpec(cfg, nil); err != nil {
		t.Fatal(err)
	}
	var done, total uint64
	r, err := backtest(t.Context(), o, func(d, all uint64) { done, total = d, all })
	if err != nil || r.Messages != 20_000 || done != total || total != 20_000 {
		t.Fatalf("%+v, %v; progress %d of %d", r, err, done, total)
	}
	for _, rule := range r.Rules {
		want := time.Hour
		if rule.Alert == "High" {
			want = time.Second
		}
		if rule.Changed == nil || rule.Changed.For != want {
			t.Errorf("%s: changed %+v, want for %v", rule.Alert, rule.Changed, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := backtest(ctx, o, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cut off: %v", err)
	}
	o.Spec.Rules[0].Text = "groups: x"
	if _, err := backtest(t.Context(), o, nil); !errors.As(err, new(rules.Errors)) {
		t.Errorf("broken rules: %v", err)
	}
}

func TestBacktest_RefusesWhatItCannotUse(t *testing.T) {
	dir := t.TempDir()
	cfg := writeJournal(t, dir, 10)
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("groups:\n  - name: g\n    rules:\n      - { alert: A, expr: \"agv(t, 5m) > 1\" }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--for-change", "FreezerWarm"}, exitUsage, "--for-change: want alert=duration"},
		{[]string{"--for-change", "=1m"}, exitUsage, "--for-change: want alert=duration"},
		{[]string{"--for-change", "Freezer=1m"}, exitError, `there is no alert "Freezer"`},
		{[]string{"--since", "yesterday"}, exitUsage, "--since: want a duration"},
		{[]string{"--rules", filepath.Join(dir, "no*.yaml")}, exitUsage, "no such file"},
		{[]string{"--rules", bad}, exitError, "bad.yaml:4:28: expr: unknown function agv"},
		{[]string{"--config", filepath.Join(dir, "none.yaml")}, exitConfig, ""},
	} {
		var out, errs bytes.Buffer
		code := execute(context.Background(), append([]string{"rules", "backtest", "--config", cfg}, c.args...), nil, &out, &errs)
		if code != c.code || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%v: exit %d, %s; want %d, %s", c.args, code, errs.String(), c.code, c.want)
		}
	}
}

// BenchmarkBacktestCommand is a million messages, with and without a changed for: each to take less than 15 seconds on two cores.
func BenchmarkBacktestCommand(b *testing.B) {
	cfg := writeJournal(b, b.TempDir(), 1_000_000)
	for _, change := range []string{"", "FreezerWarm=2m"} {
		b.Run("change="+change, func(b *testing.B) {
			for b.Loop() {
				args := []string{"rules", "backtest", "--config", cfg}
				if change != "" {
					args = append(args, "--for-change", change)
				}
				var out, errs bytes.Buffer
				if code := execute(context.Background(), args, nil, &out, &errs); code != 0 {
					b.Fatal(errs.String())
				}
			}
		})
	}
}
