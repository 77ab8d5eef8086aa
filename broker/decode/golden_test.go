package decode

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/gateway/telemetry"
)

var update = flag.Bool("update", false, "write what Decode gives into testdata/*.txtar")

// TestGolden decodes every payload in testdata. A file is one Spec ("spec", as JSON) and pairs of "in: <claim>" and "want".
// A "\xNN" in a payload stands for that byte, so that files stay text. A part "message" sets what the messages after it come with:
// lines "topic T", "rest R", "label NAME=VALUE" and "received RFC3339". A part "zone" before the spec names the zone of local times.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("golden files: %d found, err %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			title, parts := archive(string(text))
			var zone *Zone
			head := ""
			if parts[0].name == "zone" {
				name := strings.TrimSpace(parts[0].text)
				loc, err := time.LoadLocation(name)
				if err != nil {
					t.Fatal(err)
				}
				zone = NewZone(name, loc)
				head = "-- zone --\n" + parts[0].text
				parts = parts[1:]
			}
			if len(parts) < 3 || parts[0].name != "spec" {
				t.Fatalf("%s: want a spec and payloads, got %d parts", file, len(parts))
			}
			var spec Spec
			if err := json.Unmarshal([]byte(parts[0].text), &spec); err != nil {
				t.Fatal(err)
			}
			spec.Zone = zone
			d, err := New(spec)
			if err != nil {
				t.Fatal(err)
			}
			var out Batch
			var m Message
			for i := 1; i < len(parts); i += 2 {
				if parts[i].name == "message" {
					m = parseMessage(t, parts[i].text)
					i--
					continue
				}
				in, want := parts[i], &parts[min(i+1, len(parts)-1)]
				if !strings.HasPrefix(in.name, "in: ") || want.name != "want" {
					t.Fatalf("%s: parts %q and %q are no pair", file, in.name, want.name)
				}
				m.Payload = unescapeBytes(strings.TrimSuffix(in.text, "\n"))
				got := render(&out, d.Decode(&m, &out))
				if *update {
					want.text = got
				} else if diff := cmp.Diff(want.text, got); diff != "" {
					t.Errorf("%s: Decode(%s) (-want +got):\n%s", in.name, in.text, diff)
				}
			}
			if *update {
				title += head
				for _, p := range parts {
					title += "-- " + p.name + " --\n" + p.text
				}
				if err := os.WriteFile(file, []byte(title), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func parseMessage(t *testing.T, text string) (m Message) {
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch key {
		case "topic":
			m.Topic = value
		case "rest":
			m.Rest = value
		case "label":
			name, value, _ := strings.Cut(value, "=")
			m.Labels = append(m.Labels, telemetry.Label{Name: name, Value: value})
		case "received":
			at, err := time.Parse(time.RFC3339, value)
			if err != nil {
				t.Fatal(err)
			}
			m.Received = at.UnixNano()
		default:
			t.Fatalf("a message has no %q", key)
		}
	}
	return m
}

type part struct{ name, text string }

// archive splits a txtar file: a title, then parts, each begun by a line "-- name --".
func archive(text string) (title string, parts []part) {
	for line := range strings.Lines(text) {
		name, opens := strings.CutPrefix(line, "-- ")
		name, closes := strings.CutSuffix(name, " --\n")
		switch {
		case opens && closes:
			parts = append(parts, part{name: name})
		case parts == nil:
			title += line
		default:
			parts[len(parts)-1].text += line
		}
	}
	return title, parts
}

func unescapeBytes(s string) []byte {
	var b []byte
	for {
		before, rest, found := strings.Cut(s, `\x`)
		b = append(b, before...)
		if !found {
			return b
		}
		c, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			panic(err)
		}
		b, s = append(b, byte(c)), rest[2:]
	}
}

// render writes a result as the golden files have it.
func render(b *Batch, err error) string {
	var w strings.Builder
	if err != nil {
		fmt.Fprintf(&w, "error %s\n", err)
	}
	for i := range b.Samples {
		s := &b.Samples[i]
		if i > 0 {
			fmt.Fprintln(&w)
		}
		if s.Time != 0 {
			fmt.Fprintf(&w, "time %d\n", s.Time)
		}
		if s.Historical {
			fmt.Fprintln(&w, "historical")
		}
		if s.HasSequence {
			fmt.Fprintf(&w, "sequence %d\n", s.Sequence)
		}
		for _, l := range s.Labels {
			fmt.Fprintf(&w, "label %s=%s\n", l.Name, l.Value)
		}
		for _, r := range s.Readings {
			fmt.Fprintf(&w, "%s = %s\n", r.Metric, strconv.FormatFloat(r.Value, 'g', -1, 64))
		}
		for _, u := range s.Units {
			fmt.Fprintf(&w, "unit %s: %s\n", u.Metric, u.Unit)
		}
		for _, r := range s.Refused {
			fmt.Fprintf(&w, "refused %q %s: %s\n", r.Field, r.Reason, r.Detail)
		}
	}
	for _, s := range b.States {
		fmt.Fprintf(&w, "online %v, %s", s.Online, s.Reason)
		for _, l := range s.Labels {
			fmt.Fprintf(&w, ", %s=%s", l.Name, l.Value)
		}
		if s.Time != 0 {
			fmt.Fprintf(&w, ", time %d", s.Time)
		}
		fmt.Fprintln(&w)
	}
	for _, c := range b.Commands {
		fmt.Fprintf(&w, "command %s %x\n", c.Topic, c.Payload)
	}
	if err == nil && w.Len() == 0 {
		return "nothing\n"
	}
	return w.String()
}
