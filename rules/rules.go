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
	File          string
	Line          int

	cond      *expr.Program
	clear     *expr.Program // nil without Clear
	templates []template    // one per annotation, same order
	hooks     []position    // where each webhook is named
	key       string        // canonical definition: equal keys mean the same rule
}

type position struct{ line, column int }

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
		for i, w := range r.Webhooks {
			if slices.Contains(known, w) {
				continue
			}
			msg := "unknown webhook " + quote(w)
			if len(known) == 0 {
				msg += ": none is configured"
			} else {
				msg += ": configured are " + strings.Join(known, ", ")
			}
			errs = append(errs, Error{File: r.File, Line: r.hooks[i].line, Column: r.hooks[i].column, Msg: msg,
				Source: s.line(r.File, r.hooks[i].line)})
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
	for _, l := range []telemetry.Labels{r.Match.patterns(), r.Labels, r.Annotations} {
		b = appendLabels(b, l)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Webhooks)))
	for _, w := range r.Webhooks {
		b = telemetry.AppendString(b, w)
	}
	r.key = string(b)
}

func oneSpaced(s string) string { return strings.Join(strings.Fields(s), " ") }
