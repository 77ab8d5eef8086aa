// Package detect finds unusual points in one series while they arrive: what the anomaly rules are made of.
//
// A Detector holds at most 1 KB, needs less than a microsecond a point, and allocates nothing while it observes. The package is
// pure: time is the reading's event time, there is no clock and no randomness, and a detector restored from a snapshot goes on
// exactly as the one it was taken from. It starts no goroutine; a Detector belongs to the goroutine that folds the journal.
//
// It never sees more than one series, never learns from a value that is not finite, and never calls anything a failure: that is
// for the rule that asked. Which method is for what, and how good each is, measured: docs/anomaly.md.
package detect

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"sluice/gateway/telemetry"
)

// Detector judges the points of one series, in the order of their times.
type Detector interface {
	// Observe judges v, a reading at event time t in nanoseconds, by what came before, and then learns it. score is how unusual it
	// is in equivalent standard deviations: 0 is ordinary, sensitivity and above an anomaly, never more than MaxScore. alarm is
	// true from the point that begins an anomaly until the series has been ordinary for three points. Until the cool-down, counted from
	// the beginning, is over, no other begins unless it scores half as much again. During the warm-up, score and alarm are 0 and false.
	// A value that is not finite is not learned and repeats the last answer; a time before the latest one is no progress.
	Observe(t int64, v float64) (score float64, alarm bool)

	// State repeats the last answer of Observe.
	State() (score float64, alarm bool)

	// Snapshot appends the state to b. Detectors with the same configuration and history append the same bytes.
	Snapshot(b []byte) []byte

	// Restore reads what Snapshot wrote for the same configuration, and nothing after it. On an error the detector is as before.
	Restore(d *telemetry.Decoder) error
}

// Methods, as rule files name them.
const (
	Auto     = "auto"     // the default: several views of the series at once, one calibrated score
	EWMA     = "ewma"     // far from its recent mean
	Seasonal = "seasonal" // far from what is usual at this hour of the day
	CUSUM    = "cusum"    // a small shift or drift that lasts
	Flatline = "flatline" // the same value for longer than it ever is
	Jump     = "jump"     // a step between two readings larger than its steps are
)

// MaxScore is the highest score there is.
const MaxScore = 100

// DefaultSensitivity suits every method: normal noise goes beyond four standard deviations in one of 16,000 points.
const DefaultSensitivity = 4

// Config tells New what to build. The zero value is the default detector.
type Config struct {
	Method      string        // empty: Auto
	Sensitivity float64       // score at which an anomaly begins, 1 to MaxScore; higher is less sensitive; 0: DefaultSensitivity
	Warmup      time.Duration // event time to learn for; the method's own least number of points holds as well
	Cooldown    time.Duration // event time between the beginnings of two anomalies; 0: CooldownPoints and CooldownTime
}

// The figures in docs/anomaly.md are with these; changing one means measuring again.
const (
	// The default cool-down is over when both are.
	CooldownPoints = 200
	CooldownTime   = time.Hour
	// Only an anomaly so much stronger than the last one interrupts its cool-down.
	strongerFactor = 1.5
	// Scores are those of a series with a point in so many seconds; see fair.
	usualInterval = 300
	// calmPoints in a row below half the sensitivity end an anomaly.
	calmPoints = 3
	// A pause of gapFactor usual intervals is a gap: what spans it is no jump and no flat line.
	gapFactor = 20
)

// method is one row of the table below. warmup is the least number of points to learn from.
type method struct {
	name   string
	warmup uint32
	model  func() model
}

var methods = [...]method{
	{Auto, 100, func() model { return new(auto) }},
	{EWMA, 60, func() model { return new(ewma) }},
	{Seasonal, 100, func() model { return new(seasonal) }},
	{CUSUM, 100, func() model { return new(cusum) }},
	{Flatline, 60, func() model { return new(flatline) }},
	{Jump, 60, func() model { return new(jump) }},
}

// Methods lists the names a Config may hold, the default first.
func Methods() []string {
	names := make([]string, len(methods))
	for i := range methods {
		names[i] = methods[i].name
	}
	return names
}

// find returns the row of a method, or nil.
func find(name string) *method {
	if name == "" {
		return &methods[0]
	}
	for i := range methods {
		if methods[i].name == name {
			return &methods[i]
		}
	}
	return nil
}

// Validate tells what is wrong with c; the message names the key.
func (c Config) Validate() error {
	if find(c.Method) == nil {
		return fmt.Errorf("method: want one of %s, got %q", strings.Join(Methods(), ", "), c.Method)
	}
	if c.Sensitivity != 0 && !(c.Sensitivity >= 1 && c.Sensitivity <= MaxScore) { // NaN is neither
		return fmt.Errorf("sensitivity: want standard deviations from 1 to %d, such as %v, got %v", MaxScore, DefaultSensitivity, c.Sensitivity)
	}
	if c.Warmup < 0 {
		return errors.New("warmup: want a duration of at least 0")
	}
	if c.Cooldown < 0 {
		return errors.New("cooldown: want a duration of at least 0")
	}
	return nil
}

// New makes a detector that has seen nothing. The error is Validate's.
func New(c Config) (Detector, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	m := find(c.Method)
	if c.Sensitivity == 0 {
		c.Sensitivity = DefaultSensitivity
	}
	return &series{method: m, sensitivity: c.Sensitivity, warmup: int64(c.Warmup), cooldown: int64(c.Cooldown), model: m.model()}, nil
}
