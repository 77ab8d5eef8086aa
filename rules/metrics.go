package rules

import "strings"

// Declared are the metrics a source is known to send under one measurement; nil Metrics: any.
type Declared struct {
	Measurement string
	Metrics     []string
}

// CheckMetrics returns Errors when a rule names a metric that no source sends, as far as its match leaves sources: such a rule never
// does anything. Where a source may send any metric nothing is known, and nothing is said.
func (s *Set) CheckMetrics(sources []Declared) error {
	var errs Errors
	for _, r := range s.rules {
		own := metricsSent(sources, r.Match)
		for _, m := range r.mentions {
			known := own
			if m.other {
				known = metricsSent(sources, nil) // a selector may pick any source's devices
			}
			if known == nil || known[m.metric] {
				continue
			}
			msg := "no source sends a metric " + quote(m.metric)
			var names []string
			for name := range known {
				names = append(names, name)
			}
			if best := closest(m.metric, sorted(names)); best != "" {
				msg += ": did you mean " + best + "?"
			} else if len(names) > 0 && len(names) <= 20 {
				msg += ": there are " + strings.Join(sorted(names), ", ")
			}
			errs = append(errs, Error{File: r.File, Line: m.line, Column: m.column, Msg: msg, Source: s.line(r.File, m.line)})
		}
	}
	return errs.orNil()
}

// metricsSent collects the metrics of the sources that match leaves; nil when one of them may send any, or none is left.
func metricsSent(sources []Declared, match Matchers) map[string]bool {
	known := map[string]bool{}
	for _, src := range sources {
		if !match.mayMatch(src.Measurement) {
			continue
		}
		if src.Metrics == nil {
			return nil
		}
		for _, m := range src.Metrics {
			known[m] = true
		}
	}
	if len(known) == 0 {
		return nil
	}
	return known
}

// mayMatch tells whether devices of a measurement can match, as far as that alone says.
func (m Matchers) mayMatch(measurement string) bool {
	for i := range m {
		if m[i].label == MeasurementLabel && !m[i].matches(measurement) {
			return false
		}
	}
	return true
}
