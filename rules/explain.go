package rules

import (
	"slices"
	"strconv"
	"strings"

	"sluice/gateway/telemetry"
)

// RuleState is where one rule stands, for people who ask why it does or does not fire.
type RuleState struct {
	Rule    *Rule
	Matched int // devices it looks at
	Pending int
	Firing  int
	Series  []SeriesState // those pending and firing first, then in the order of their devices; at most as many as asked for
}

// SeriesState is where one rule stands for one device. Times are wall clock, ns.
type SeriesState struct {
	Labels      telemetry.Labels // the device's; the alert's where there is one
	State       State            // 0: inactive
	Since       int64            // of State
	Evaluated   int64            // event time of the newest reading it looks at; 0: none yet
	Why         string           // what it saw last
	Fingerprint uint64           // of the alert; 0 while inactive
	Scored      bool             // the rule has a detector
	Score       float64          // how unusual the last value is, in equivalent standard deviations
}

// Explain tells where every rule stands, with at most that many series each. It changes nothing. It looks at every device once for
// each rule that matches it.
func (e *Engine) Explain(series int) []RuleState {
	list := make([]RuleState, len(e.set.rules))
	at := make(map[*Rule]*RuleState, len(list))
	for i, r := range e.set.rules {
		list[i].Rule = r
		at[r] = &list[i]
	}
	for _, wantActive := range [...]bool{true, false} {
		for _, s := range e.active {
			for place, r := range s.plan.rules {
				st, a := at[r], s.alerts[place]
				if (a != nil) != wantActive {
					continue
				}
				st.Matched++
				if a != nil && a.state == Pending {
					st.Pending++
				} else if a != nil {
					st.Firing++
				}
				if len(st.Series) < series {
					st.Series = append(st.Series, e.explain(s, place, a))
				}
			}
		}
	}
	return list
}

func (e *Engine) explain(s *Subject, place int, a *alert) SeriesState {
	st := SeriesState{Labels: s.labels}
	r := s.plan.rules[place]
	if r.Anomaly != nil {
		st.Scored, st.Score = true, s.parts.detections[s.plan.detectorOf(place)].score
	}
	if a != nil {
		st.Labels, st.State, st.Since, st.Fingerprint = a.labels, a.state, a.activeAt+e.wall, a.fingerprint
		if a.state == Firing {
			st.Since = a.startsAt
		}
	}
	metrics := r.metrics()
	var why []string
	for i, m := range metrics {
		if slices.Contains(metrics[:i], m) {
			continue
		}
		text := m + " is not known yet"
		if k := s.plan.slot(m); k >= 0 && s.values[k] == s.values[k] {
			text = m + " = " + strconv.FormatFloat(s.values[k], 'g', -1, 64)
			st.Evaluated = max(st.Evaluated, s.times[k]+e.wall)
		}
		why = append(why, text)
	}
	st.Why = strings.Join(why, ", ")
	return st
}
