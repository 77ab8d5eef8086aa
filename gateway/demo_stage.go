package main

import (
	"fmt"
	"sync"
	"time"

	"sluice/firmware-sim/sim"
	"sluice/gateway/console"
)

// demoFault is one thing that a visitor can make go wrong; in the script it acts within [from, to) of every minute.
type demoFault struct {
	sim.Fault
	summary  string
	from, to time.Duration
}

// demoFaults come one after the other, so that a minute shows each of them.
var demoFaults = []demoFault{
	{sim.Fault{Name: "freezer warms", Kind: "drift", Devices: "freezer-*1", Metric: "temperature", Magnitude: 60, Off: true},
		"The first freezer warms by a degree a second. FreezerWarm fires above -10 °C and resolves once it is cold again.", 5 * time.Second, 25 * time.Second},
	{sim.Fault{Name: "pump vibrates", Kind: "spike", Devices: "pump-*1", Metric: "vibration", Magnitude: 12, Probability: 1, Off: true},
		"The first pump shakes. StrongVibration fires at once.", 12 * time.Second, 22 * time.Second},
	{sim.Fault{Name: "device goes silent", Kind: "dropout", Devices: "weather-*1", Off: true},
		"The first weather station says nothing. Soon it is shown as silent, and after 5 s DeviceSilent fires.", 30 * time.Second, 42 * time.Second},
	{sim.Fault{Name: "resend storm", Kind: "duplicate", Probability: 1, Delay: 300 * time.Millisecond, Off: true},
		"Every message is sent twice. The ledger counts the second ones as duplicates; nothing is counted twice.", 45 * time.Second, 50 * time.Second},
	{sim.Fault{Name: "garbage payloads", Kind: "malformed", Devices: "line-*", Probability: 0.5, Off: true},
		"Half of what the production lines send cannot be read. It is in the quarantine, with the reason and every byte.", 50 * time.Second, 55 * time.Second},
}

// The script's minute, and when the link to the stand-in cloud is down in it.
const (
	demoCycle = 60 * time.Second
	demoFrom  = 20 * time.Second
	demoTo    = 40 * time.Second
)

// demoStage is what a demonstration's visitor can switch: the link to the stand-in cloud and the faults of the devices. A script
// switches them until somebody does.
type demoStage struct {
	cloud *standInCloud
	fleet *sim.Fleet

	mu        sync.Mutex
	automatic bool
	began     time.Time // the script
	retry     func()    // has what waits try again at once; nil: nothing waits yet
}

func newDemoStage(cloud *standInCloud, fleet *sim.Fleet, automatic bool) *demoStage {
	return &demoStage{cloud: cloud, fleet: fleet, automatic: automatic}
}

// link cuts or restores the link to the cloud. What waits then need not wait for the end of its back-off: a visitor has little time.
func (s *demoStage) link(up bool) {
	if was := s.cloud.cut.Swap(!up); was && up && s.retry != nil {
		s.retry()
	}
}

// begin starts the script's first minute.
func (s *demoStage) begin(retry func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began, s.retry = time.Now(), retry
}

// restore ends the script with the link up, so that what waits can leave.
func (s *demoStage) restore() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.automatic = false
	s.cloud.cut.Store(false)
}

// play does what the script says now.
func (s *demoStage) play(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.automatic {
		return
	}
	at := now.Sub(s.began) % demoCycle
	s.link(at < demoFrom || at >= demoTo)
	for i := range demoFaults {
		f := &demoFaults[i]
		_ = s.fleet.SetFault(f.Name, at >= f.from && at < f.to) // it has each of them
	}
}

// DemoState implements console.Demo.
func (s *demoStage) DemoState() console.DemoState {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := console.DemoState{Link: "up", Automatic: s.automatic}
	if s.cloud.cut.Load() {
		v.Link = "down"
	}
	on := map[string]bool{}
	for _, f := range s.fleet.Faults() {
		on[f.Name] = f.Active
	}
	for i := range demoFaults {
		v.Faults = append(v.Faults, console.DemoFault{Name: demoFaults[i].Name, On: on[demoFaults[i].Name], Summary: demoFaults[i].summary})
	}
	return v
}

// ChangeDemo implements console.Demo.
func (s *demoStage) ChangeDemo(c console.DemoChange) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.Link != "" && c.Link != "up" && c.Link != "down":
		return fmt.Errorf("%w: link: want up or down, got %q", console.ErrInvalid, c.Link)
	case c.Link == "" && c.Fault == nil && c.Automatic == nil:
		return fmt.Errorf("%w: want link, fault or automatic", console.ErrInvalid)
	case c.Fault != nil && !s.knows(c.Fault.Name):
		return fmt.Errorf("%w: no fault is called %q", console.ErrNotFound, c.Fault.Name)
	}
	s.automatic = false
	if c.Automatic != nil && *c.Automatic {
		s.automatic, s.began = true, time.Now()
	}
	if c.Link != "" {
		s.link(c.Link == "up")
	}
	if c.Fault != nil {
		return s.fleet.SetFault(c.Fault.Name, c.Fault.On)
	}
	return nil
}

func (s *demoStage) knows(fault string) bool {
	for i := range demoFaults {
		if demoFaults[i].Name == fault {
			return true
		}
	}
	return false
}

var _ console.Demo = (*demoStage)(nil)
