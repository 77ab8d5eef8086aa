package hook

import (
	"fmt"
	"slices"
	"time"
)

// Transition is one change of one alert as a receiver that drops repeated webhook-ids sees it.
type Transition struct {
	Status      string // firing or resolved
	Fingerprint string
	Labels      map[string]string
	StartsAt    time.Time
	At          time.Time
	WebhookID   string
}

// Transitions drops repeats by webhook-id and returns the changes of each alert, by fingerprint, in order of first arrival.
// Two different bodies under one id are an error: the id would no longer identify the notification.
func Transitions(requests []Request) (map[string][]Transition, []error) {
	var errs []error
	bodies := map[string]string{}
	out := map[string][]Transition{}
	for _, r := range requests {
		if body, ok := bodies[r.ID]; ok {
			if body != string(r.Body) {
				errs = append(errs, fmt.Errorf("webhook-id %s came with two bodies:\n%s\n%s", r.ID, body, r.Body))
			}
			continue
		}
		bodies[r.ID] = string(r.Body)
		for _, a := range r.Alerts.Alerts {
			out[a.Fingerprint] = append(out[a.Fingerprint], Transition{a.Status, a.Fingerprint, a.Labels, a.StartsAt, r.At, r.ID})
		}
	}
	return out, errs
}

// CheckAlternation says where an alert fired twice without a resolve between, resolved without having fired, or did not
// resolve in the end.
func CheckAlternation(byAlert map[string][]Transition) []error {
	var errs []error
	for fp, ts := range byAlert {
		last := "resolved"
		for i, t := range ts {
			if t.Status == last {
				errs = append(errs, fmt.Errorf("alert %s %v: transition %d of %d is %s again (webhook-id %s at %s)", fp, t.Labels, i+1, len(ts), t.Status, t.WebhookID, t.At.Format("15:04:05.000")))
			}
			last = t.Status
		}
		if last == "firing" {
			errs = append(errs, fmt.Errorf("alert %s %v never resolved after %d transitions", fp, ts[0].Labels, len(ts)))
		}
	}
	slices.SortFunc(errs, func(a, b error) int {
		if a.Error() < b.Error() {
			return -1
		}
		return 1
	})
	return errs
}
