package pipeline

import (
	"slices"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

// departure is devices that nothing can be heard of under the next spec, and why.
type departure struct {
	reason  string
	devices []*device
}

// departing finds the devices whose source is not in the next spec, and those that had the gateway's labels as they were. What rules
// know of them would stay for ever: a device that cannot speak cannot end its alert.
func (f *Fold) departing(next *compiled) []departure {
	removed := map[string]bool{}
	for _, s := range f.c.sources {
		removed[s.Name] = !slices.ContainsFunc(next.sources, s.continues)
	}
	relabelled := !slices.Equal(f.c.labels, next.labels)
	sources, labels := departure{reason: rules.ReasonSource}, departure{reason: rules.ReasonLabels}
	for _, d := range f.devices {
		switch {
		case removed[d.source]:
			sources.devices = append(sources.devices, d)
		case relabelled && holds(d.labels, f.c.labels) && !holds(d.labels, next.labels):
			labels.devices = append(labels.devices, d)
		}
	}
	return []departure{sources, labels}
}

// continues tells whether another spec's source gives the same devices: by its name, or, where it was renamed, by its topics.
func (s *source) continues(next *source) bool {
	return s.Measurement == next.Measurement && (s.Name == next.Name || slices.Equal(s.topics(), next.topics()))
}

// holds tells whether every label of part is one of l.
func holds(l telemetry.Labels, part []telemetry.Label) bool {
	return !slices.ContainsFunc(part, func(p telemetry.Label) bool { return l.Get(p.Name) != p.Value })
}

// depart has the rules forget devices. Those that the registry keeps begin anew, should they ever speak again.
func (f *Fold) depart(list []departure) {
	for _, gone := range list {
		var subjects []*rules.Subject
		for _, d := range gone.devices {
			subjects = append(subjects, d.subject)
		}
		if len(subjects) == 0 {
			continue
		}
		f.engine.Forget(subjects, f.ruleNow(), gone.reason, f.event)
		for _, d := range gone.devices {
			if id := int(d.rollup.ID); id < len(f.devices) && f.devices[id] == d {
				d.subject = f.engine.Subject(d.stream.measurement, d.labels)
			}
		}
	}
}
