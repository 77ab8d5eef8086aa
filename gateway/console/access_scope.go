package console

import (
	"context"
	"fmt"
	"net/http"
	"slices"

	"sluice/gateway/history"
)

// sees tells whether who asks may see what has these labels.
func (s *site) sees(r *http.Request, labels map[string]string) bool { return who(r).sees(labels) }

func (w Who) sees(labels map[string]string) bool {
	for name, value := range w.Scope {
		if got, ok := labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// query answers PromQL, within the scope of who asks.
func (s *site) query(w http.ResponseWriter, r *http.Request) {
	if as := who(r); len(as.Scope) > 0 {
		r = r.WithContext(history.WithScope(r.Context(), as.Scope))
	}
	s.promQL.ServeHTTP(w, r)
}

// statusFor is the status as somebody may see it; events tell it too.
func (s *site) statusFor(ctx context.Context, as Who) Status {
	v, ready := s.g.Status(), s.g.Ready()
	v.Ready, v.Parts = ready.Ready, ready.Parts
	if len(as.Scope) > 0 {
		v = s.within(ctx, as, v)
	}
	v.complete()
	return v
}

// within is of a status what lies in somebody's scope: messages, outboxes, journal and ledger are of the whole site.
func (s *site) within(ctx context.Context, as Who, v Status) Status {
	part := Status{Gateway: v.Gateway, Version: v.Version, Started: v.Started, Now: v.Now, Uptime: v.Uptime, Ready: v.Ready}
	for i := range v.Alerts {
		if as.sees(v.Alerts[i].Labels) {
			part.Alerts = append(part.Alerts, v.Alerts[i])
		}
	}
	if s.fleet == nil {
		return part
	}
	fleet, err := s.fleet.Fleet(ctx)
	if err != nil {
		return part
	}
	for i := range fleet.Devices {
		if d := &fleet.Devices[i]; as.sees(d.Labels) {
			part.Devices++
			part.Series += len(d.Metrics)
		}
	}
	return part
}

// alertsFor is the list of alerts as somebody may see it.
func (s *site) alertsFor(as Who) AlertList {
	l := s.desk.AlertList()
	hidden := func(a AlertDetail) bool { return !as.sees(a.Labels) }
	if len(as.Scope) > 0 {
		l.Alerts = slices.DeleteFunc(slices.Clone(l.Alerts), hidden)
		l.Recent = slices.DeleteFunc(slices.Clone(l.Recent), hidden)
	}
	l.Alerts, l.Recent = list(l.Alerts), list(l.Recent)
	for _, part := range [][]AlertDetail{l.Alerts, l.Recent} {
		for i := range part {
			part[i].Notifications = list(part[i].Notifications)
		}
	}
	return l
}

// mayTouch is nil where an alert is one that somebody may see. Another's is not found.
func (s *site) mayTouch(as Who, fingerprint string) error {
	if len(as.Scope) == 0 {
		return nil
	}
	l := s.alertsFor(as)
	if slices.ContainsFunc(l.Alerts, func(a AlertDetail) bool { return a.Fingerprint == fingerprint }) {
		return nil
	}
	return fmt.Errorf("%w: no alert with the fingerprint %s fires", ErrNotFound, fingerprint)
}

// silencesFor is the list of silences that can mute nothing outside of somebody's scope.
func (s *site) silencesFor(as Who) SilenceList {
	l := s.desk.SilenceList()
	if len(as.Scope) > 0 {
		l.Silences = slices.DeleteFunc(slices.Clone(l.Silences), func(d SilenceDetail) bool { return !as.sees(d.Match) })
	}
	l.Silences = list(l.Silences)
	return l
}

func (s *site) mayEnd(as Who, id string) error {
	if len(as.Scope) == 0 {
		return nil
	}
	l := s.silencesFor(as)
	if slices.ContainsFunc(l.Silences, func(d SilenceDetail) bool { return d.ID == id }) {
		return nil
	}
	return fmt.Errorf("%w: no silence in force or to come has the id %q", ErrNotFound, id)
}

// confine adds somebody's scope to what a silence mutes, or says that it reaches beyond.
func (s *site) confine(as Who, n *NewSilence) error {
	if n.ID != "" {
		if err := s.mayEnd(as, n.ID); err != nil {
			return err
		}
	}
	for name, value := range as.Scope {
		if got, ok := n.Match[name]; ok && got != value {
			return fmt.Errorf("%w: match: %s: you may see %s=%s only", ErrInvalid, name, name, value)
		}
		if n.Match == nil {
			n.Match = map[string]string{}
		}
		n.Match[name] = value
	}
	return nil
}
