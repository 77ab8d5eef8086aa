package main

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/gateway/console"
)

func TestDemoStage_TheScriptShowsEverythingInAMinuteUntilTheVisitorTakesOver(t *testing.T) {
	cloud, err := newStandInCloud()
	if err != nil {
		t.Fatal(err)
	}
	defer cloud.listener.Close()
	fleet, err := newDemoFleet(demoOptions{MQTT: "127.0.0.1:1", Devices: 12, Rate: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, retries := newDemoStage(cloud, fleet, true), 0
	s.begin(func() { retries++ })
	was, changes := console.DemoState{Link: "up"}, 0
	for at := time.Duration(0); at < demoCycle; at += time.Second {
		s.play(s.began.Add(at))
		v := s.DemoState()
		if v.Link != was.Link {
			changes++
		}
		if was = v; !v.Automatic || len(v.Faults) != len(demoFaults) {
			t.Fatalf("at %s: %+v", at, v)
		}
	}
	if changes != 2 || retries != 1 {
		t.Errorf("the link changed %d times, want down and up; %d retries", changes, retries)
	}
	for _, f := range demoFaults {
		if f.from >= f.to || f.to > demoCycle || f.summary == "" {
			t.Errorf("%s acts from %s to %s", f.Name, f.from, f.to)
		}
	}

	s.play(s.began.Add(demoFrom))
	if err := s.ChangeDemo(console.DemoChange{Fault: &console.FaultSwitch{Name: "pump vibrates", On: true}}); err != nil {
		t.Fatal(err)
	}
	s.play(s.began.Add(demoTo))
	if v := s.DemoState(); v.Automatic || v.Link != "down" {
		t.Errorf("the script goes on after the visitor took over: %+v", v)
	}
	if err := s.ChangeDemo(console.DemoChange{Link: "up"}); err != nil || s.DemoState().Link != "up" || retries != 2 {
		t.Errorf("link up: %v, %+v, %d retries", err, s.DemoState(), retries)
	}
	for _, c := range []struct {
		change console.DemoChange
		want   error
	}{
		{console.DemoChange{}, console.ErrInvalid}, {console.DemoChange{Link: "sideways"}, console.ErrInvalid},
		{console.DemoChange{Fault: &console.FaultSwitch{Name: "malformed", On: true}}, console.ErrNotFound},
	} {
		if err := s.ChangeDemo(c.change); !errors.Is(err, c.want) {
			t.Errorf("ChangeDemo(%+v) = %v, want %v", c.change, err, c.want)
		}
	}
	on := true
	if err := s.ChangeDemo(console.DemoChange{Automatic: &on}); err != nil || !s.DemoState().Automatic {
		t.Errorf("back to the script: %v, %+v", err, s.DemoState())
	}
}

func TestDemo_SummariesAndUnitsAreForPeople(t *testing.T) {
	if strings.Contains(demoConfig, "pressure:") {
		t.Error("one unit is claimed for pressure, which pumps send in bar and weather stations in hPa")
	}
	for line := range strings.Lines(demoRules) {
		if strings.Contains(line, "silent") && strings.Contains(line, "$value") || strings.Contains(line, "nothing") && strings.Contains(line, "$value") {
			t.Errorf("the time of a silence has nine decimals: %s", line)
		}
	}
}

func TestDemo_IsNowhereElse(t *testing.T) {
	s, _ := startSite(t, t.TempDir())
	if code, b := s.get("/api/v1/demo"); code != http.StatusNotFound {
		t.Errorf("GET /api/v1/demo = %d %s", code, b)
	}
	if code, b := s.post("/api/v1/demo", `{"link":"down"}`); code != http.StatusNotFound {
		t.Errorf("POST /api/v1/demo = %d %s", code, b)
	}
}
