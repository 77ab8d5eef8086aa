package notify

import (
	"slices"

	"sluice/gateway/telemetry"
)

// View is a copy of what people are shown. It is immutable; equal states share one.
type View struct {
	Alerts   map[uint64]*Status // by fingerprint: what fires, and what ended and is still to be told
	Recent   []Past             // ended, newest first
	Silences []Silence          // by creation
	Ignored  uint64             // commands that had nothing to act on
}

// Status is what the policy knows of an alert besides its state.
type Status struct {
	Firing    bool
	StartsAt  int64  // wall, ns
	Silence   string // id of the silence that mutes it
	Inhibited bool
	Ack       *Ack
	Flaps     int // firings within FlapWindow; FlapCount of them and more count as flapping
	Escalated int // steps taken
	Log       []Sent
}

// Past is an alert that ended.
type Past struct {
	Alert       string
	Labels      telemetry.Labels
	Annotations telemetry.Labels
	Value       float64
	StartsAt    int64 // wall, ns
	EndsAt      int64 // wall, ns
	Fingerprint uint64
	Silence     string // that muted it when it ended
	Inhibited   bool
	Ack         *Ack
	Log         []Sent
}

// Flapping tells whether that many firings count as flapping.
func Flapping(firings int) bool { return firings >= FlapCount }

func (e *entry) silenceID() string {
	if e.silence == nil {
		return ""
	}
	return e.silence.ID
}

func (e *entry) past() Past {
	return Past{Alert: e.alert, Labels: e.labels, Annotations: e.annotations, Value: e.value, StartsAt: e.startsAt, EndsAt: e.endsAt,
		Fingerprint: e.fingerprint, Silence: e.silenceID(), Inhibited: e.inhibited, Ack: e.ack, Log: e.log}
}

// View returns the state as it is now; calls without a change in between return the same.
func (p *Policy) View() *View {
	if p.view != nil && !p.changed {
		return p.view
	}
	v := &View{Alerts: make(map[uint64]*Status, len(p.entries)), Recent: slices.Clone(p.recent), Ignored: p.ignored}
	slices.Reverse(v.Recent)
	for fp, e := range p.entries {
		s := &Status{Firing: e.firing, StartsAt: e.startsAt, Silence: e.silenceID(), Inhibited: e.inhibited, Ack: e.ack, Escalated: e.steps, Log: slices.Clone(e.log)}
		if f := p.flaps[fp]; f != nil {
			s.Flaps = f.count
		}
		v.Alerts[fp] = s
	}
	for _, s := range p.silences {
		v.Silences = append(v.Silences, *s)
	}
	p.view, p.changed = v, false
	return v
}
