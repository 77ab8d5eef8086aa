package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/broker/decode"
	"sluice/gateway/config"
	"sluice/gateway/pipeline"
)

// loadSources loads a configuration of these sources.
func loadSources(t *testing.T, sources string) (*config.Config, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte("gateway: { data_dir: data }\nsources:\n"+sources), 0o600); err != nil {
		t.Fatal(err)
	}
	return config.Load(file)
}

// Every format there is can be configured; a preset needs its name and nothing else.
func TestBuildSpec_TakesEveryFormat(t *testing.T) {
	for _, format := range decode.Formats() {
		topic := ""
		if decode.Topics(format) == nil {
			topic = `, topic: "d/{device}"`
			if _, err := loadSources(t, "  - { name: a, format: "+format+" }\n"); err == nil || !strings.Contains(err.Error(), "topic: is required") {
				t.Errorf("%s without a topic: %v", format, err)
			}
		}
		cfg, err := loadSources(t, "  - { name: a, format: "+format+topic+" }\n")
		if err != nil {
			t.Errorf("%s: %v", format, err)
			continue
		}
		spec := buildSpec(cfg, nil)
		if err := spec.Check(); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		src := &spec.Sources[0]
		if topic == "" && !slices.Equal(src.Topics, decode.Topics(format)) {
			t.Errorf("%s: topics %v", format, src.Topics)
		}
		if (src.Decode.Zone != nil) != decode.Local(format) {
			t.Errorf("%s: zone %v", format, src.Decode.Zone)
		}
	}
	if _, err := loadSources(t, "  - { name: a, topic: t, format: xml }\n"); err == nil || !strings.Contains(err.Error(), "available: "+strings.Join(decode.Formats(), ", ")) {
		t.Errorf("the formats of the configuration are not those of the decoders: %v", err)
	}
}

func TestBuildSpec_CarriesZoneExpectationAndRetained(t *testing.T) {
	cfg, err := loadSources(t, `  - name: a
    format: tasmota
    topic: "home/{room}/tele/{device}/+"
    zone: Asia/Tokyo
    retained: stale
    expect: { require: [x], ranges: { x: [-1, null] }, units: { x: W } }
`)
	if err != nil {
		t.Fatal(err)
	}
	s := buildSpec(cfg, nil).Sources[0]
	if s.Topic == "" || s.Topics != nil || s.Decode.Zone.Name != "Asia/Tokyo" || s.Decode.Zone.Offsets[0].Seconds != 9*3600 || s.Retained != pipeline.RetainedStale {
		t.Errorf("source %+v", s)
	}
	cfg.Gateway.Zone, cfg.Sources[0].Zone = "Asia/Kolkata", ""
	if z := buildSpec(cfg, nil).Sources[0].Decode.Zone; z == nil || z.Name != "Asia/Kolkata" {
		t.Errorf("a tasmota source without a zone has %v, want the gateway's", z)
	}
	if e := s.Expect; e == nil || *e.Ranges["x"].Min != -1 || e.Ranges["x"].Max != nil || e.Units["x"] != "W" || !slices.Equal(e.Require, []string{"x"}) {
		t.Errorf("expect %+v", s.Expect)
	}
}
