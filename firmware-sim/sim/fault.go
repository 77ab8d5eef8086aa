package sim

import (
	"fmt"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Fault is one thing that goes wrong. It acts on the devices whose name matches Devices, from Start (since the start
// of the run) for Duration (0: to the end), or whenever Fleet.SetFault says so.
type Fault struct {
	Name        string // unique in a run; default: the kind
	Kind        string // see FaultKinds
	Devices     string // glob over device names, as in path.Match; default *
	Start       time.Duration
	Duration    time.Duration
	Off         bool          // stays off until SetFault switches it on
	Probability float64       // of each reading (reconnect_storm: of each connection); default by kind
	Metric      string        // spike, drift, stuck: which number; default temperature
	Magnitude   float64       // spike: added to the number; drift: added per minute; default by metric
	Delay       time.Duration // delay: exactly; out_of_order, duplicate: at most; default by kind
	Offset      time.Duration // wrong_clock: added to the device's stamp; default -1h
	Offline     time.Duration // reconnect_storm: from the cut to the common reconnect; default 2s
	Every       time.Duration // reconnect_storm: repeated at this period while active; 0: once
	Payload     string        // malformed: one of MalformedKinds, or any; default any
}

// faultKind is a row of the table of kinds: what a field defaults to where it has a meaning.
type faultKind struct {
	name        string
	summary     string
	probability float64
	delay       time.Duration
}

var faultKinds = []faultKind{
	{"spike", "adds magnitude to metric", 0.02, 0},
	{"drift", "adds magnitude per minute to metric, growing", 1, 0},
	{"stuck", "metric repeats the value it had when the fault began", 1, 0},
	{"dropout", "the device takes no reading", 1, 0},
	{"duplicate", "the message is published a second time, same seq, after at most delay", 0.05, 0},
	{"delay", "the message is held back for delay", 1, 5 * time.Second},
	{"out_of_order", "the message is held back for a random time of at most delay, so that later ones overtake it", 0.1, 3 * time.Second},
	{"wrong_clock", "the device's stamp is off by offset", 1, 0},
	{"malformed", "the payload is broken as payload says, in any of these ways by default; " + strings.Join(malformedNames(), ", "), 0.05, 0},
	{"reconnect_storm", "connections are cut without DISCONNECT and come back together after offline; again every period", 1, 0},
}

// FaultKinds lists the kinds of fault, each with one line of explanation.
func FaultKinds() (names, summaries []string) {
	for _, k := range faultKinds {
		names = append(names, k.name)
		summaries = append(summaries, k.summary)
	}
	return names, summaries
}

func kindByName(name string) *faultKind {
	for i := range faultKinds {
		if faultKinds[i].name == name {
			return &faultKinds[i]
		}
	}
	return nil
}

// defaultMagnitude is far outside what each metric does by itself.
var defaultMagnitude = map[string]float64{"temperature": 15, "humidity": 30, "vibration": 8, "power": 800, "pressure": 3, "speed": 60, "wind": 25}

func (f Fault) withDefaults() Fault {
	fill(&f.Name, f.Kind)
	fill(&f.Devices, "*")
	k := kindByName(f.Kind)
	if k == nil {
		return f
	}
	fill(&f.Probability, k.probability)
	fill(&f.Delay, k.delay)
	switch f.Kind {
	case "spike", "drift", "stuck":
		fill(&f.Metric, "temperature")
		if f.Kind != "stuck" {
			fill(&f.Magnitude, defaultMagnitude[f.Metric])
		}
	case "wrong_clock":
		fill(&f.Offset, -time.Hour)
	case "reconnect_storm":
		fill(&f.Offline, 2*time.Second)
	case "malformed":
		fill(&f.Payload, "any")
	}
	return f
}

// problem is one thing wrong with a fault: the key it belongs to, as in a scenario file, and what is wanted.
type problem struct{ key, text string }

// problems checks a fault whose defaults are filled in.
func (f Fault) problems() (ps []problem) {
	bad := func(key, format string, args ...any) { ps = append(ps, problem{key, fmt.Sprintf(format, args...)}) }
	if kindByName(f.Kind) == nil {
		names, _ := FaultKinds()
		bad("kind", "want one of %s, got %q", strings.Join(names, " "), f.Kind)
		return ps
	}
	if _, err := path.Match(f.Devices, "x"); err != nil {
		bad("devices", "%q is not a glob: * and ? match, [ ] hold a set", f.Devices)
	}
	if !(f.Probability >= 0 && f.Probability <= 1) {
		bad("probability", "want 0 to 1, got %v", f.Probability)
	}
	for _, d := range []struct {
		key string
		d   time.Duration
	}{{"start", f.Start}, {"duration", f.Duration}, {"delay", f.Delay}, {"offline", f.Offline}, {"every", f.Every}} {
		if d.d < 0 {
			bad(d.key, "must not be negative, got %s", d.d)
		}
	}
	if f.Metric != "" && !slices.Contains(metricNames(), f.Metric) {
		bad("metric", "want one of %s, got %q", strings.Join(metricNames(), " "), f.Metric)
	}
	if f.Magnitude-f.Magnitude != 0 { // NaN and infinities
		bad("magnitude", "want a finite number, got %v", f.Magnitude)
	}
	if f.Payload != "" && f.Payload != "any" && !slices.Contains(malformedNames(), f.Payload) {
		bad("payload", "want any or one of %s, got %q", strings.Join(malformedNames(), " "), f.Payload)
	}
	if f.Every > 0 && f.Every <= f.Offline {
		bad("every", "must be longer than offline (%s), got %s", f.Offline, f.Every)
	}
	for key, used := range map[string]bool{
		"metric": f.Metric != "", "magnitude": f.Magnitude != 0, "delay": f.Delay != 0, "offset": f.Offset != 0,
		"offline": f.Offline != 0, "every": f.Every != 0, "payload": f.Payload != "",
	} {
		if used && !slices.Contains(keysOf[f.Kind], key) {
			bad(key, "has no meaning for %s", f.Kind)
		}
	}
	slices.SortFunc(ps, func(a, b problem) int { return strings.Compare(a.key, b.key) })
	return ps
}

// keysOf lists, beside those all kinds share, the keys that mean something to a kind.
var keysOf = map[string][]string{
	"spike": {"metric", "magnitude"}, "drift": {"metric", "magnitude"}, "stuck": {"metric"},
	"duplicate": {"delay"}, "delay": {"delay"}, "out_of_order": {"delay"},
	"wrong_clock": {"offset"}, "malformed": {"payload"}, "reconnect_storm": {"offline", "every"},
}

func metricNames() (names []string) {
	for _, p := range profiles {
		for _, f := range p.fields {
			if !f.boolean && !slices.Contains(names, f.name) {
				names = append(names, f.name)
			}
		}
	}
	return names
}

// faultSwitch is a Fault with its switch; one for the fleet, shared by the devices. Safe for concurrent use.
type faultSwitch struct {
	Fault
	manual atomic.Int32 // 0: as scheduled, 1: on, -1: off
}

// active reports whether the fault acts at time at of the run.
func (s *faultSwitch) active(at time.Duration) bool {
	switch s.manual.Load() {
	case 1:
		return true
	case -1:
		return false
	}
	return !s.Off && at >= s.Start && (s.Duration == 0 || at < s.Start+s.Duration)
}

// deviceFault is one fault on one device. Its randomness is its own, so that switching one fault changes nothing
// about the signals or the other faults. Owned by the device's connection.
type deviceFault struct {
	*faultSwitch
	rand  *rand.Rand
	field int // of Metric in the device's profile; -1: the device has none

	on    bool
	since time.Duration
	held  float64
}

// begin notes whether the fault acts on the reading taken at time at and draws whether this reading is hit.
func (f *deviceFault) begin(at time.Duration, values []float64) (hit bool) {
	on := f.active(at)
	if on && !f.on {
		f.since = at
		if f.field >= 0 {
			f.held = values[f.field]
		}
	}
	f.on = on
	// Drawn also while off: what the n-th reading meets does not depend on when the fault began.
	return f.rand.Float64() < f.Probability && on
}
