package sim

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const scenarioDir = "../../configs/scenarios"

// Each shipped scenario, with what its story needs to act on.
func TestScenario_ShippedFilesActOnTheirFleet(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(scenarioDir, "*.yaml"))
	if err != nil || len(files) < 3 {
		t.Fatalf("found %v (%v)", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			s, err := LoadScenario(file)
			if err != nil {
				t.Fatal(err)
			}
			cfg := Defaults()
			s.Apply(&cfg, nil)
			f, err := New(cfg)
			if err != nil {
				t.Fatal(err)
			}
			if s.Description == "" || f.planned == 0 {
				t.Errorf("description %q, %d readings planned", s.Description, f.planned)
			}
			for _, fault := range f.Faults() {
				hit := 0
				for _, name := range f.Devices() {
					if matches(fault.Fault.Devices, name) {
						hit++
					}
				}
				if hit == 0 {
					t.Errorf("fault %s: no device matches %q (there are %v)", fault.Name, fault.Fault.Devices, f.Devices())
				}
				if fault.Start >= cfg.Duration {
					t.Errorf("fault %s starts at %s, after the end", fault.Name, fault.Start)
				}
			}
		})
	}
}

func TestScenario_FlagsWinOverTheFleetSection(t *testing.T) {
	s, err := ParseScenario("s.yaml", []byte("fleet: { devices: 3, total-rate: 50, qos: 2, profiles: [pump] }\n"))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Defaults()
	cfg.Devices = 9
	s.Apply(&cfg, map[string]bool{"devices": true})
	if cfg.Devices != 9 || cfg.TotalRate != 50 || cfg.Rate != 0 || cfg.QoS != 2 || cfg.Profiles[0] != "pump" {
		t.Errorf("got %+v", cfg)
	}
}

func TestScenario_ErrorsNameLineAndColumn(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"not yaml", "faults: [", "s.yaml:"},
		{"empty", "", "s.yaml"},
		{"says nothing", "description: x\n", "s.yaml:1:1: faults: the scenario says nothing"},
		{"a list", "- a\n", "s.yaml:1:1: scenario: want a mapping"},
		{"unknown key", "fault: []\n", `s.yaml:1:1: "fault": unknown key; the keys here are description, faults, fleet`},
		{"unknown fault key", "faults:\n  - kind: spike\n    magnitud: 3\n", `s.yaml:3:5: "magnitud": unknown key`},
		{"key twice", "faults:\n  - kind: spike\n    kind: drift\n", "kind"},
		{"faults no list", "faults: {kind: spike}\n", "s.yaml:1:9: faults: want a list"},
		{"no kind", "faults:\n  - name: x\n", `s.yaml:2:5: kind: want one of spike drift`},
		{"bad kind", "faults:\n  - kind: spyke\n", `s.yaml:2:11: kind: want one of spike drift`},
		{"bad duration", "faults:\n  - kind: spike\n    start: 30\n", `s.yaml:3:12: start: want a duration such as "30s" or "1h30m", got "30"`},
		{"bad probability", "faults:\n  - kind: spike\n    probability: 1.5\n", "s.yaml:3:18: probability: want 0 to 1, got 1.5"},
		{"nan", "faults:\n  - kind: spike\n    magnitude: NaN\n", "s.yaml:3:16: magnitude: want a number"},
		{"bad glob", "faults:\n  - kind: spike\n    devices: \"a[\"\n", "s.yaml:3:14: devices:"},
		{"no meaning", "faults:\n  - kind: stuck\n    offset: 1h\n", "s.yaml:3:13: offset: has no meaning for stuck"},
		{"bad metric", "faults:\n  - kind: stuck\n    metric: temp\n", "s.yaml:3:13: metric: want one of"},
		{"bad payload", "faults:\n  - kind: malformed\n    payload: cut\n", "s.yaml:3:14: payload: want any or one of"},
		{"every within offline", "faults:\n  - kind: reconnect_storm\n    every: 1s\n", "s.yaml:3:12: every: must be longer than offline"},
		{"same name", "faults:\n  - kind: spike\n  - kind: spike\n", `s.yaml:3:5: name: "spike" is taken`},
		{"alias", "faults:\n  - &a { kind: spike }\n  - kind: &k drift\n    devices: *k\n", "s.yaml:4:14: devices: aliases are not supported"},
		{"fleet value", "fleet:\n  devices: many\n", `s.yaml:2:12: devices: want a whole number of 0 or more, got "many"`},
		{"fleet range", "fleet:\n  qos: 3\n", "s.yaml:2:8: qos: want 0, 1 or 2, got 3"},
		{"fleet profile", "fleet:\n  profiles: [toaster]\n", `s.yaml:2:13: profiles: "toaster" is not one of`},
		{"fleet topic", "fleet:\n  topic: a/#\n", `s.yaml:2:10: topic: "a/#": a topic to publish to holds no + or #`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseScenario("s.yaml", []byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("ParseScenario(%q) = %v, want %q", c.in, err, c.want)
			}
		})
	}
}

func TestScenario_ReportsAllErrorsAtOnce(t *testing.T) {
	_, err := ParseScenario("s.yaml", []byte("fleet: {qos: 9, rate: x}\nfaults:\n  - {kind: spike, start: 5, off: maybe}\n  - {kind: stuck, delay: 5s}\n"))
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{"1:23: rate", "3:26: start", "3:34: off", "4:26: delay"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
}

func TestParseFault_ReadsTheFlagForm(t *testing.T) {
	f, err := ParseFault("spike:devices=freezer-*, start=30s,probability=0.5,magnitude=-20")
	if err != nil || f.Kind != "spike" || f.Name != "spike" || f.Devices != "freezer-*" || f.Start != 30*time.Second || f.Probability != 0.5 || f.Magnitude != -20 || f.Metric != "temperature" {
		t.Errorf("got %+v, %v", f, err)
	}
	if f, err := ParseFault("stuck"); err != nil || f.Kind != "stuck" {
		t.Errorf("stuck: got %+v, %v", f, err)
	}
	for in, want := range map[string]string{
		"":                "kind: want a non-empty string",
		"spike:start":     "want key=value",
		"spike:start=30":  "start: want a duration",
		"spike:begin=30s": `"begin": unknown key`,
	} {
		if _, err := ParseFault(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseFault(%q) = %v, want %q", in, err, want)
		}
	}
}

func TestConfig_ValidateReportsEverything(t *testing.T) {
	err := Config{
		Server: "http://x", Devices: -1, Profiles: []string{"toaster"}, QoS: 3, Rate: 1, TotalRate: 1, Inflight: 70000,
		Topic: "a/{b}", Site: "a/b", Duration: -1, GiveUpAfter: time.Second, KeepAlive: time.Millisecond,
		Faults: []Fault{{Kind: "x"}, {Kind: "x"}},
	}.Validate()
	for _, want := range []string{"server:", "devices:", "profiles:", "qos:", "rate:", "inflight:", "topic:", "site:", "duration:", "keep-alive:", "fault x: kind:", "is taken"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if err := (Config{GiveUpAfter: time.Second, QoS: 2}).Validate(); err == nil {
		t.Error("give-up-after was accepted with QoS 2")
	}
	if err := (Config{}).Validate(); err != nil {
		t.Errorf("the zero Config: %v", err)
	}
}

func FuzzParseScenario(f *testing.F) {
	files, _ := filepath.Glob(filepath.Join(scenarioDir, "*.yaml"))
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("fleet: {devices: 3, rate: 1e-7, duration: 1ns, day: 1ns}\nfaults: [{kind: malformed}, {kind: drift, start: -1s}]"))
	f.Add([]byte("a: &a [*a]\nfaults: *a\n"))
	f.Add([]byte("---\n---\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseScenario("s.yaml", data)
		if err != nil {
			return
		}
		cfg := Defaults()
		s.Apply(&cfg, nil)
		cfg.Devices = min(cfg.Devices, 50) // the fuzzer finds memory otherwise
		if cfg.Validate() != nil {
			return // two settings that exclude each other
		}
		fleet, err := New(cfg)
		if err != nil {
			t.Fatalf("Validate accepted what New refuses: %v", err)
		}
		for _, l := range fleet.links {
			for _, d := range l.devices {
				for range 5 {
					if _, ok := d.nextDue(); ok {
						d.take(testStart)
					}
				}
			}
		}
	})
}
