package rules

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

var update = flag.Bool("update", false, "rewrite the want sections of testdata/*.txtar")

// A scenario file has the rule files, an input and what is wanted of them; see testdata/README.
type scenario struct {
	files map[string]string
	order []string
}

func readScenario(text string) scenario {
	s := scenario{files: map[string]string{}}
	name := ""
	for line := range strings.Lines(text) {
		if head, ok := strings.CutPrefix(strings.TrimSpace(line), "-- "); ok && strings.HasSuffix(head, " --") {
			name = strings.TrimSuffix(head, " --")
			s.order = append(s.order, name)
			continue
		}
		s.files[name] += line
	}
	return s
}

// base is when scenarios begin.
var base = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano()

type step struct {
	at   time.Duration
	verb string
	args []string
}

func parseInput(t *testing.T, text string) []step {
	t.Helper()
	var steps []step
	duration := func(s string) time.Duration {
		d, err := expr.ParseDuration(s)
		if err != nil {
			t.Fatalf("input: %q: %v", s, err)
		}
		return d
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(f[0], "#") {
			continue
		}
		when, every, repeated := strings.Cut(f[0], "/")
		from, until, _ := strings.Cut(when, "..")
		first := duration(from)
		last, pace := first, time.Duration(1)
		if repeated {
			last, pace = duration(until), duration(every)
		}
		for at := first; at <= last; at += pace {
			steps = append(steps, step{at, f[1], f[2:]})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return steps
}

// play runs the input; restart replaces the engine by a restored one before every step.
func (s scenario) play(t *testing.T, restart bool) (out string, snapshot []byte) {
	t.Helper()
	var b strings.Builder
	now := base
	e := NewEngine(mustParse(t, s.files["rules.yaml"]), Options{})
	rel := func(at int64) string { return time.Duration(at - base).String() }
	emit := func(ev *Event) {
		fmt.Fprintf(&b, "%s %s %s", rel(now), ev.State, ev.Labels)
		fmt.Fprintf(&b, " value=%v", ev.Value)
		for _, a := range ev.Annotations {
			fmt.Fprintf(&b, " %s=%q", a.Name, a.Value)
		}
		if ev.State == Resolved {
			fmt.Fprintf(&b, " since %s until %s", rel(ev.StartsAt), rel(ev.EndsAt))
		}
		if ev.Inhibited {
			b.WriteString(" (inhibited)")
		}
		if ev.Webhooks != nil {
			fmt.Fprintf(&b, " to %v", ev.Webhooks)
		}
		b.WriteByte('\n')
	}
	reopen := func() {
		fresh := NewEngine(e.Set(), Options{})
		if err := fresh.Restore(e.Snapshot(nil)); err != nil {
			t.Fatalf("Restore at %s: %v", rel(now), err)
		}
		e = fresh
	}
	for _, st := range parseInput(t, s.files["input"]) {
		if restart {
			reopen()
		}
		for e.Due() <= base+int64(st.at) {
			now = e.Due()
			e.Tick(now, emit)
		}
		now = base + int64(st.at)
		switch st.verb {
		case "send", "retained":
			s.send(t, e, now, st.verb, st.args, emit)
		case "online", "offline":
			e.Availability(pairs(st.args[0]), st.verb == "online", now, emit)
		case "resume":
			e.Resume(now)
		case "wall":
			offset, err := time.ParseDuration(st.args[0])
			if err != nil {
				t.Fatal(err)
			}
			e.SetWallOffset(int64(offset))
		case "wait":
			e.Tick(now, emit)
		case "reload":
			e.Reload(mustParse(t, s.files[st.args[0]]), now, emit)
		case "show":
			for _, v := range e.Alerts() {
				fmt.Fprintf(&b, "%s is %s %s value=%v", rel(now), v.State, v.Labels, v.Value)
				if v.Inhibited {
					b.WriteString(" inhibited")
				}
				b.WriteByte('\n')
			}
		default:
			t.Fatalf("input: unknown verb %q", st.verb)
		}
	}
	return b.String(), e.Snapshot(nil)
}

func pairs(text string) telemetry.Labels {
	var labels []telemetry.Label
	for pair := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(pair, "=")
		labels = append(labels, telemetry.Label{Name: name, Value: value})
	}
	return telemetry.NewLabels(labels...)
}

// send plays: send labels [@event time] metric=value ...
func (s scenario) send(t *testing.T, e *Engine, now int64, verb string, args []string, emit func(*Event)) {
	labels, stamped := pairs(args[0]), false
	measurement, at := "telemetry", now
	var readings []telemetry.Reading
	for _, a := range args[1:] {
		if d, ok := strings.CutPrefix(a, "@"); ok {
			offset, err := time.ParseDuration(d)
			if err != nil {
				t.Fatal(err)
			}
			at, stamped = base+int64(offset), true
			continue
		}
		if m, ok := strings.CutPrefix(a, "measurement:"); ok {
			measurement = m
			continue
		}
		name, value, _ := strings.Cut(a, "=")
		v, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatal(err)
		}
		readings = append(readings, telemetry.Reading{Metric: name, Value: v})
	}
	if verb == "retained" {
		e.ObserveRetained(e.Subject(measurement, labels), now, at, stamped, readings, emit)
		return
	}
	e.Observe(e.Subject(measurement, labels), now, at, readings, emit)
}

func TestScenarios(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.txtar")
	if len(paths) == 0 {
		t.Fatal("no scenarios in testdata")
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			s := readScenario(string(text))
			got, snapshot := s.play(t, false)
			if *update {
				head, _, _ := strings.Cut(string(text), "-- want --\n")
				if err := os.WriteFile(path, []byte(head+"-- want --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if diff := gocmp.Diff(strings.TrimSpace(s.files["want"]), strings.TrimSpace(got)); diff != "" {
				t.Errorf("transitions (-want +got):\n%s", diff)
			}
			again, restored := s.play(t, true)
			if again != got {
				t.Errorf("restarted before every step it differs (-uninterrupted +restarted):\n%s", gocmp.Diff(got, again))
			}
			if !bytes.Equal(snapshot, restored) {
				t.Errorf("restarted before every step the last snapshot differs:\n%x\n%x", snapshot, restored)
			}
		})
	}
}

func mustParse(t testing.TB, text string) *Set {
	t.Helper()
	set, err := Parse([]File{{Name: "rules.yaml", Data: []byte(text)}})
	if err != nil {
		t.Fatalf("Parse: %v\n%s", err, text)
	}
	return set
}
