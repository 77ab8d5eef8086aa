package console

import "time"

// Live is what a Gateway offers that can tell of readings as they come.
type Live interface {
	// WatchReadings says whether somebody wants to know.
	WatchReadings(on bool)
	// TakeReadings appends what came since the last call to into: of each series the newest value. One caller at a time.
	TakeReadings(into []LiveReading) []LiveReading
}

// LiveSeries is one series; the same series is always the same pointer.
type LiveSeries struct {
	Name   string            // in PromQL
	Labels map[string]string // in PromQL
	Device string            // the device's id
	Scope  map[string]string // the device's labels, as scopes name them

	wire []byte // what of its events stays the same; for the goroutine that takes
}

// LiveReading is the newest value of a series.
type LiveReading struct {
	Series *LiveSeries
	Time   int64 // ns
	Value  float64
}

// alertMark is what of an alert makes an event when it changes. Its value does not: it moves with every reading.
type alertMark struct {
	state, silence string
	starts, ends   time.Time
	acknowledged   AckDetail
	inhibited      bool
	flapping       bool
	escalated      int
	told           SentDetail // the last notification
}

func markOf(a *AlertDetail) alertMark {
	m := alertMark{state: a.State, silence: a.SilencedBy, starts: a.StartsAt, ends: a.EndsAt, inhibited: a.Inhibited, flapping: a.Flapping, escalated: a.Escalated}
	if a.Acknowledged != nil {
		m.acknowledged = *a.Acknowledged
	}
	if n := len(a.Notifications); n > 0 {
		m.told = a.Notifications[n-1]
	}
	return m
}

// alertWatch finds what changed between two looks at the alerts.
type alertWatch struct {
	known  map[string]knownAlert // pending and firing, by fingerprint
	recent map[overAlert]bool
}

type knownAlert struct {
	alert AlertDetail
	mark  alertMark
}

// overAlert is an alert that is over.
type overAlert struct {
	fingerprint string
	ends        time.Time
}

// look returns what changed since the last look, those that are over first; nothing at the first.
func (w *alertWatch) look(l AlertList) (changed []AlertDetail) {
	known, recent := make(map[string]knownAlert, len(l.Alerts)), make(map[overAlert]bool, len(l.Recent))
	over := map[string]bool{}
	for i := len(l.Recent) - 1; i >= 0; i-- {
		key := overAlert{l.Recent[i].Fingerprint, l.Recent[i].EndsAt}
		recent[key] = true
		if w.recent != nil && !w.recent[key] {
			over[key.fingerprint] = true
			changed = append(changed, l.Recent[i])
		}
	}
	var now []AlertDetail
	for i := range l.Alerts {
		a := knownAlert{l.Alerts[i], markOf(&l.Alerts[i])}
		if was, ok := w.known[a.alert.Fingerprint]; w.known != nil && (!ok || was.mark != a.mark) {
			now = append(now, a.alert)
		}
		known[a.alert.Fingerprint] = a
	}
	for fingerprint, was := range w.known {
		if _, still := known[fingerprint]; !still && !over[fingerprint] {
			was.alert.State = "inactive" // it was pending, or its rule is gone
			changed = append(changed, was.alert)
		}
	}
	w.known, w.recent = known, recent
	return append(changed, now...)
}

func (w *alertWatch) forget() { w.known, w.recent = nil, nil }
