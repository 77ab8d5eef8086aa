// Package notify decides who is told of an alert, and when: grouping, repeats, silences, acknowledgements, escalation and the
// floor under what a flapping alert may say.
//
// The package is pure. It reads no clock, does no I/O and depends on no map order: a Policy given the same calls puts out the same
// notifications and the same snapshot, byte for byte. It lives in the pipeline's fold, so that what was told, what waits and what
// is silenced survive a crash. It starts no goroutine and delivers nothing.
package notify

import (
	"fmt"
	"math"
	"time"

	"sluice/gateway/telemetry"
)

// Receiver is one webhook's share of the policy.
type Receiver struct {
	Name string `json:"name"`
	// GroupBy names the labels whose equal values put alerts into one notification. Empty: all alerts together; "...": every
	// label, each alert by itself.
	GroupBy        []string      `json:"group_by,omitempty"`
	GroupWait      time.Duration `json:"group_wait_ns,omitempty"`      // how long a new group gathers before it is first told
	GroupInterval  time.Duration `json:"group_interval_ns,omitempty"`  // least time between two notifications of a group's changes
	RepeatInterval time.Duration `json:"repeat_interval_ns,omitempty"` // what still fires is told again after it; 0: never
	FlapFloor      time.Duration `json:"flap_floor_ns,omitempty"`      // least time between two notifications of a flapping alert; 0: none
	// WholeGroup puts every firing alert of the group into each notification, as Alertmanager does; else only what changed.
	WholeGroup bool `json:"whole_group,omitempty"`
}

// AllLabels in GroupBy puts each alert into a group of its own.
const AllLabels = "..."

// Time is the moment of a journal record on both clocks, in ns.
type Time struct {
	Now  int64 // never goes back; timers live on it
	Wall int64 // what people's clocks said; it may step
}

// Reason says why a notification is put out.
type Reason uint8

// The reasons.
const (
	Changed   Reason = iota + 1 // alerts fired or resolved
	Repeated                    // nothing changed for the repeat interval
	Escalated                   // nobody acknowledged in time
)

func (r Reason) String() string {
	switch r {
	case Changed:
		return "changed"
	case Repeated:
		return "repeated"
	case Escalated:
		return "escalated"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Notification is what one receiver is told at one time. It is the callee's to keep; slices are shared and must not be changed.
type Notification struct {
	Receiver string
	Reason   Reason
	Time     int64 // wall clock, ns
	Group    telemetry.Labels
	Alerts   []Alert
}

// Alert is one alert in a notification, as it was then.
type Alert struct {
	Firing      bool
	Labels      telemetry.Labels
	Annotations telemetry.Labels
	Value       float64
	StartsAt    int64 // wall clock, ns; the same in every notification of one occurrence
	EndsAt      int64 // 0 while firing
	Fingerprint uint64
	Flaps       int // how often it fired within FlapWindow, where that is FlapCount or more; else 0
}

// An alert flaps when it fired FlapCount times within FlapWindow.
const (
	FlapCount  = 4
	FlapWindow = 10 * time.Minute
)

// Bounds. Nothing beyond them is lost that a receiver would be told: what is cut is history for people.
const (
	maxAlerts   = 500       // alerts in one notification; more make several
	maxSize     = 200 << 10 // about as many bytes of labels and annotations
	maxLog      = 10        // notifications remembered for one alert
	maxRecent   = 200       // alerts remembered after they ended
	maxFirings  = 16_384    // firings remembered to count flaps
	MaxSilences = 1000      // silences known at a time, ended ones included
	endedFor    = 24 * time.Hour
)

// Emit takes notifications in the order in which they go out.
type Emit func(*Notification)

const never = math.MaxInt64

// later adds a duration that is not negative, without wrapping.
func later(now int64, d time.Duration) int64 {
	if now > never-int64(d) {
		return never
	}
	return now + int64(d)
}
