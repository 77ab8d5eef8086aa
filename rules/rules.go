// Package rules decides what is an alert: it reads rule files strictly, compiles them, and keeps one state machine per rule
// and device while readings go by.
//
// The package is pure. It reads no clock, does no I/O, draws no random number and depends on no map order: an Engine given the
// same calls yields the same events and the same snapshot, byte for byte, which is what lets the pipeline replay its journal
// after a crash. It starts no goroutine; an Engine belongs to the one goroutine that folds the journal.
//
// It never delivers anything: events go to the emit function of the caller, webhooks are only names here.
package rules

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// File is one rule file as read from disk. Name is what errors call it.
type File struct {
	Name string
	Data []byte
}

// Rule is one alert rule, as written and compiled. It is immutable.
type Rule struct {
	Alert         string
	Group         string
	Match         Matchers
	Expr          string // as written
	Clear         string // as written; empty: the alert ends when Expr is false
	For           time.Duration
	KeepFiringFor time.Duration
	Labels        telemetry.Labels // of the rule alone
	Annotations   telemetry.Labels // templates, as written
	Webhooks      []string         // nil: all
	Absent        *Absent          // instead of Expr: a device that fell silent
	Anomaly       *Anomaly         // instead of Expr: an unusual value
	Active        *Active          // nil: always in force
	Inhibit       []Inhibit        // alerts that keep this one from being notified
	Escalate      []Escalation     // who is told later unless somebody acknowledges
	Zone          *time.Location   // of hour and weekday, and of Active where it says none; nil: the gateway's
	File          string
	Line          int

	cond      *expr.Program // nil of a rule with Absent or Anomaly
	clear     *expr.Program // nil without Clear
	selectors []Matchers    // of the programs' feeds, in their order
	mentions  []mention
	whens     []position // where each Inhibit is named
	templates []template // one per annotation, same order
	hooks     []position // where each webhook is named
	steps     []namedAt  // webhooks of Escalate, and where each is named
	key       string     // canonical definition: equal keys mean the same rule
}

type position struct{ line, column int }

// mention is a place where a metric is named.
type mention struct {
	position
	metric string
	other  bool // of devices that a selector picks
}

// Set is a checked set of rules. It is immutable and safe to share.
type Set struct {
	rules  []*Rule // in file order, then document order
	byName map[string]*Rule
	files  []File
}

// Rules lists the rules in the order they are evaluated: by file name, then as written.
func (s *Set) Rules() []*Rule { return slices.Clone(s.rules) }

// Len is the number of rules.
func (s *Set) Len() int { return len(s.rules) }

// Files returns the sources the set was parsed from, sorted by name, so that a set can be stored and parsed again.
func (s *Set) Files() []File { return slices.Clone(s.files) }

// Fingerprint identifies what the set does: sets with the same rules in the same order have the same fingerprint, whatever
// their comments and spacing.
func (s *Set) Fingerprint() uint64 {
	h := fnv.New64a()
	for _, r := range s.rules {
		h.Write(telemetry.AppendString(nil, r.key))
	}
	return h.Sum64()
}

// CheckWebhooks returns Errors when a rule names a webhook that is not in known.
func (s *Set) CheckWebhooks(known []string) error {
	var errs Errors
	for _, r := range s.rules {
		named := slices.Clone(r.steps)
		for i, w := range r.Webhooks {
			named = append(named, namedAt{r.hooks[i], w})
		}
		for _, w := range named {
			if slices.Contains(known, w.name) {
				continue
			}
			msg := "unknown webhook " + quote(w.name)
			if len(known) == 0 {
				msg += ": none is configured"
			} else {
				msg += ": configured are " + strings.Join(known, ", ")
			}
			errs = append(errs, Error{File: r.File, Line: w.line, Column: w.column, Msg: msg, Source: s.line(r.File, w.line)})
		}
	}
	return errs.orNil()
}

func (s *Set) line(file string, line int) string {
	for _, f := range s.files {
		if f.Name == file {
			return newSource(f.Data).line(line)
		}
	}
	return ""
}

// define fills in key. The group, the file and the line are not part of a rule's definition, nor is the spacing of its
// expressions: moving a rule keeps its alerts. Snapshots hold a hash of keys, so the encoding stays the same across versions.
func (r *Rule) define() {
	b := telemetry.AppendString(nil, r.Alert)
	b = telemetry.AppendString(b, oneSpaced(r.Expr))
	b = telemetry.AppendString(b, oneSpaced(r.Clear))
	b = binary.AppendVarint(b, int64(r.For))
	b = binary.AppendVarint(b, int64(r.KeepFiringFor))
	for _, l := range []telemetry.Labels{r.Match.Patterns(), r.Labels, r.Annotations} {
		b = appendLabels(b, l)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Webhooks)))
	for _, w := range r.Webhooks {
		b = telemetry.AppendString(b, w)
	}
	r.key = string(r.defineMore(b))
}

// defineMore appends what a rule has beyond the first version's keys, each behind its name: rules without have the same key as ever.
func (r *Rule) defineMore(b []byte) []byte {
	if a := r.Absent; a != nil {
		b = telemetry.AppendString(telemetry.AppendString(b, "absent"), a.Metric)
		b = telemetry.AppendFloat(binary.AppendVarint(b, int64(a.After)), a.Factor)
		for _, d := range a.Expect {
			b = telemetry.AppendString(b, d)
		}
	}
	if a := r.Anomaly; a != nil {
		b = telemetry.AppendString(telemetry.AppendString(b, "anomaly"), a.Metric)
		b = telemetry.AppendFloat(telemetry.AppendString(b, a.Method), a.Sensitivity)
		b = binary.AppendVarint(binary.AppendVarint(b, int64(a.Warmup)), int64(a.Cooldown))
	}
	if a := r.Active; a != nil {
		b = telemetry.AppendString(telemetry.AppendString(b, "active"), a.String())
	}
	for _, e := range r.Escalate {
		b = binary.AppendVarint(telemetry.AppendString(b, "escalate"), int64(e.After))
		b = telemetry.AppendString(b, strings.Join(e.To, ","))
	}
	for _, i := range r.Inhibit {
		b = telemetry.AppendString(telemetry.AppendString(b, "inhibit"), i.When)
		b = telemetry.AppendString(b, strings.Join(i.Equal, ","))
	}
	if r.Zone != nil {
		b = telemetry.AppendString(telemetry.AppendString(b, "zone"), r.Zone.String())
	}
	return b
}

// metrics lists the metrics of the device that the rule looks at; some are there twice.
func (r *Rule) metrics() []string {
	switch {
	case r.Absent != nil:
		return []string{r.Absent.Metric}
	case r.Anomaly != nil:
		return []string{r.Anomaly.Metric}
	case r.clear != nil:
		return append(slices.Clone(r.cond.Metrics()), r.clear.Metrics()...)
	}
	return r.cond.Metrics()
}

// programs lists the rule's compiled conditions.
func (r *Rule) programs() []*expr.Program {
	switch {
	case r.cond == nil:
		return nil
	case r.clear == nil:
		return []*expr.Program{r.cond}
	}
	return []*expr.Program{r.cond, r.clear}
}

func oneSpaced(s string) string { return strings.Join(strings.Fields(s), " ") }

// WithFor returns a copy of the set with other values of for, by alert name; an error names an alert that is not in the set.
func (s *Set) WithFor(changes map[string]time.Duration) (*Set, error) {
	for name := range changes {
		if s.byName[name] == nil {
			return nil, fmt.Errorf("there is no alert %s%s", quote(name), s.suggestAlert(name))
		}
	}
	n := &Set{byName: map[string]*Rule{}, files: s.files}
	for _, r := range s.rules {
		if d, changed := changes[r.Alert]; changed {
			other := *r
			other.For = d
			other.define()
			r = &other
		}
		n.rules = append(n.rules, r)
		n.byName[r.Alert] = r
	}
	return n, nil
}
