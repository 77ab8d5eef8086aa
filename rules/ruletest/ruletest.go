// Package ruletest runs rule tests: an input timeline against the engine the gateway runs, on a virtual clock, and what alerts and
// webhooks are to show at given times. It drives the engine itself, not the whole pipeline: what lies before it (decoding,
// duplicates, windows) and behind it (grouping, repeats, silences) has no part in whether a rule is right. The package reads no
// file and starts no goroutine; a test costs time by its messages, not by its durations.
package ruletest

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

// Result is the outcome of one test.
type Result struct {
	File     string
	Name     string
	Line     int
	Failures []Failure
}

// Failure is an expectation that does not hold.
type Failure struct {
	Line int
	Text string // several lines: want, got, and what happened until then
}

// Run runs every test of a file against set, in order.
func Run(file *rules.TestFile, set *rules.Set) []Result {
	results := make([]Result, len(file.Tests))
	for i := range file.Tests {
		t := &file.Tests[i]
		results[i] = Result{File: file.Name, Name: t.Name, Line: t.Line, Failures: run(t, set)}
	}
	return results
}

// told is an event that receivers are told of.
type told struct {
	at time.Duration
	rules.Event
}

// play is one test as it goes on.
type play struct {
	test   *rules.Test
	engine *rules.Engine
	start  int64
	now    int64
	events []told
}

func run(t *rules.Test, set *rules.Set) []Failure {
	p := &play{test: t, engine: rules.NewEngine(set, rules.Options{Zone: t.Zone}), start: t.Start.UnixNano(), now: t.Start.UnixNano()}
	p.engine.Resume(p.start) // expected devices are waited for from the start
	var failures []Failure
	steps := timeline(t)
	for _, x := range t.Expect {
		for len(steps) > 0 && steps[0].at <= x.At {
			p.step(&steps[0])
			steps = steps[1:]
		}
		p.advance(x.At)
		if text := p.check(&x); text != "" {
			failures = append(failures, Failure{Line: x.Line, Text: text})
		}
	}
	return failures
}

// step is one message.
type step struct {
	at time.Duration
	in *rules.TestInput
	n  int // the how manieth of its input
}

// timeline lists all messages in order of time, those of one time in the order of the file.
func timeline(t *rules.Test) []step {
	var steps []step
	for i := range t.Input {
		in := &t.Input[i]
		steps = append(steps, step{in.At, in, 0})
		for n, at := 1, in.At+in.Every; in.Every > 0 && at <= in.Until; n, at = n+1, at+in.Every {
			steps = append(steps, step{at, in, n})
		}
	}
	slices.SortStableFunc(steps, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return steps
}

// advance lets every timer run out that is due until at, at its time.
func (p *play) advance(at time.Duration) {
	end := p.start + int64(at)
	for due := p.engine.Due(); due <= end; due = p.engine.Due() {
		p.now = max(p.now, due)
		p.engine.Tick(p.now, p.note)
	}
	p.now = end
}

func (p *play) note(ev *rules.Event) {
	if !ev.Inhibited {
		p.events = append(p.events, told{time.Duration(p.now - p.start), *ev})
	}
}

func (p *play) step(s *step) {
	p.advance(s.at)
	in := s.in
	if in.Online != nil {
		p.engine.Availability(in.Labels, *in.Online, p.now, p.note)
		return
	}
	var readings []telemetry.Reading
	for _, v := range in.Values {
		readings = append(readings, telemetry.Reading{Metric: v.Metric, Value: v.Values[min(s.n, len(v.Values)-1)]})
	}
	t := p.now
	if in.Time != nil {
		t = p.start + int64(*in.Time) + int64(in.Every)*int64(s.n)
	}
	subject := p.engine.Subject(in.Measurement, in.Labels)
	if in.Retained {
		p.engine.ObserveRetained(subject, p.now, t, in.Time != nil, readings, p.note)
		return
	}
	p.engine.Observe(subject, p.now, t, readings, p.note)
}

// check returns "" when x holds.
func (p *play) check(x *rules.Expectation) string {
	if x.Webhook != "" {
		return p.checkWebhook(x)
	}
	var found []rules.AlertView
	for _, v := range p.engine.Alerts() {
		if v.Alert == x.Alert && contains(v.Labels, x.Labels) {
			found = append(found, v)
		}
	}
	want := "no alert is pending or firing"
	if x.State != "inactive" {
		want = describe(x.State, x.Value, x.Annotations)
	}
	if len(found) == 0 {
		if x.State == "inactive" {
			return ""
		}
		return p.failure(x, want, []string{"no alert is pending or firing"})
	}
	var got []string
	wrong := false
	for _, v := range found {
		if !agrees(x, &v) {
			wrong = true
			got = append(got, describe(v.State.String(), &v.Value, pick(v.Annotations, x.Annotations))+" "+v.Labels.String())
		}
	}
	if !wrong {
		return ""
	}
	return p.failure(x, want, got)
}

func agrees(x *rules.Expectation, v *rules.AlertView) bool {
	return v.State.String() == x.State && (x.Value == nil || near(*x.Value, v.Value)) && contains(v.Annotations, x.Annotations)
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

func contains(l, part telemetry.Labels) bool {
	return !slices.ContainsFunc(part, func(p telemetry.Label) bool { return l.Get(p.Name) != p.Value })
}

// pick leaves those of l that wanted names.
func pick(l, wanted telemetry.Labels) telemetry.Labels {
	var out telemetry.Labels
	for _, w := range wanted {
		out = append(out, telemetry.Label{Name: w.Name, Value: l.Get(w.Name)})
	}
	return out
}

func describe(state string, value *float64, annotations telemetry.Labels) string {
	parts := []string{state}
	if value != nil {
		parts = append(parts, "value "+rules.FormatValue(*value))
	}
	for _, a := range annotations {
		parts = append(parts, fmt.Sprintf("%s %q", a.Name, a.Value))
	}
	return strings.Join(parts, ", ")
}

// checkWebhook counts the alerts a webhook was told of until now.
func (p *play) checkWebhook(x *rules.Expectation) string {
	n := 0
	for i := range p.events {
		if ev := &p.events[i]; (ev.Webhooks == nil || slices.Contains(ev.Webhooks, x.Webhook)) && (x.Status == "" || x.Status == ev.State.String()) &&
			(x.Alert == "" || x.Alert == ev.Alert) && contains(ev.Labels, x.Labels) {
			n++
		}
	}
	status := x.Status
	if status == "" {
		status = "firing or resolved"
	}
	switch {
	case x.Count == nil && n > 0, x.Count != nil && n == *x.Count:
		return ""
	case x.Count == nil:
		return p.failure(x, "at least 1 alert "+status, []string{"none"})
	}
	return p.failure(x, fmt.Sprintf("%d told %s", *x.Count, status), []string{fmt.Sprintf("%d", n)})
}

// failure renders a difference and what led to it.
func (p *play) failure(x *rules.Expectation, want string, got []string) string {
	var b strings.Builder
	what := x.Alert
	if x.Webhook != "" {
		what = "webhook " + x.Webhook
	}
	if len(x.Labels) > 0 {
		what += x.Labels.String()
	}
	fmt.Fprintf(&b, "at %s: %s\n", x.At, what)
	fmt.Fprintf(&b, "  - want  %s\n", want)
	for _, g := range got {
		fmt.Fprintf(&b, "  + got   %s\n", g)
	}
	if len(p.events) == 0 {
		b.WriteString("    until then nothing fired or resolved\n")
		return b.String()
	}
	b.WriteString("    until then:\n")
	from := max(len(p.events)-maxShown, 0)
	if from > 0 {
		fmt.Fprintf(&b, "      (%d earlier ones are not shown)\n", from)
	}
	for _, ev := range p.events[from:] {
		fmt.Fprintf(&b, "      %-8s %-8s %s value %s\n", ev.at, ev.State, ev.Labels, rules.FormatValue(ev.Value))
	}
	return b.String()
}

// maxShown bounds the events shown with a failure.
const maxShown = 20
