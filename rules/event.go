package rules

import (
	"fmt"

	"sluice/gateway/telemetry"
)

// State is where an alert stands.
type State uint8

// The states. An inactive alert does not exist.
const (
	Pending  State = iota + 1 // the condition holds, but not yet for as long as the rule's for
	Firing                    // notified
	Resolved                  // over; only in events
)

func (s State) String() string {
	switch s {
	case Pending:
		return "pending"
	case Firing:
		return "firing"
	case Resolved:
		return "resolved"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Event is a transition that receivers are told of. It is the receiver's to keep; the slices are shared and must not be changed.
type Event struct {
	Alert       string
	State       State            // Firing or Resolved
	Labels      telemetry.Labels // alertname, the device's labels and the rule's; the rule's win
	Annotations telemetry.Labels // rendered when the alert fired
	Value       float64          // what the condition is about, now; always finite
	StartsAt    int64            // wall clock, ns; when the alert fired: the same in every event of one occurrence, also when the clock is set
	EndsAt      int64            // wall clock, ns; when it resolved; 0 while firing
	Fingerprint uint64           // identifies Labels; see Fingerprint
	Inhibited   bool             // not for receivers of notifications: withheld, or the end of what was withheld
	Webhooks    []string         // nil: all
	Reason      string           // why it resolved where the readings did not say so: one of the following
}

// Reasons an alert resolves without its condition ending. They are also in the annotation "reason".
const (
	ReasonRemoved  = "rule removed"
	ReasonChanged  = "rule changed"
	ReasonInactive = "outside the rule's active hours"
	ReasonSource   = "source removed"               // of Forget, as the next one
	ReasonLabels   = "the gateway's labels changed" // nothing comes under the old ones any more
)

// ReasonAnnotation is the annotation that carries an event's Reason.
const ReasonAnnotation = "reason"

// AlertView is a pending or firing alert as shown to people. Times are wall clock, ns.
type AlertView struct {
	Alert       string
	Group       string
	State       State // Pending or Firing
	Labels      telemetry.Labels
	Annotations telemetry.Labels // of a pending alert: as they would be if it fired now
	Value       float64          // now
	ActiveAt    int64            // since when the condition holds
	StartsAt    int64            // when it fired; 0 while pending
	Fingerprint uint64
	Webhooks    []string
	Score       float64 // of an anomaly rule: how unusual the last value is, in standard deviations
	Inhibited   bool    // notifications are withheld because another alert fires
}

// Fingerprint identifies a set of labels across restarts and versions: FNV-1a (64 bit) over each name, 0xff, its value, 0xff, in
// order of name. It is the fingerprint Prometheus and the Alertmanager give the same labels.
func Fingerprint(labels telemetry.Labels) uint64 {
	h := uint64(14695981039346656037)
	add := func(s string) {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint64(s[i])) * 1099511628211
		}
		h = (h ^ 0xff) * 1099511628211
	}
	for _, l := range labels {
		add(l.Name)
		add(l.Value)
	}
	return h
}
