// Package ruletest runs rule tests: an input timeline against the engine and the notification policy that the gateway runs, on a
// virtual clock, and what alerts and webhooks are to show at given times. It drives these two themselves, not the whole pipeline:
// decoding, duplicates and windows have no part in whether a rule is right. The package reads no file and starts no goroutine;
// a test costs time by its messages, not by its durations.
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
	"sluice/rules/notify"
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

// Options are what test files do not hold.
type Options struct {
	// Receivers are how webhooks want to be told, where the test file does not say. Those that neither names are as Default.
	Receivers []notify.Receiver
	Default   notify.Receiver
	// Body renders what a webhook is sent. n is the number of the notification in its test, from 1. nil: expectations of bodies fail.
	Body func(n int, told *notify.Notification) ([]byte, error)
}

// Run runs every test of a file against set, in order.
func Run(file *rules.TestFile, set *rules.Set, o Options) []Result {
	results := make([]Result, len(file.Tests))
	for i := range file.Tests {
		t := &file.Tests[i]
		results[i] = Result{File: file.Name, Name: t.Name, Line: t.Line, Failures: run(t, set, o.receivers(file, t, set), &o)}
	}
	return results
}

// receivers lists the webhooks that the options, the file, its rules or a test's expectations name.
func (o *Options) receivers(file *rules.TestFile, t *rules.Test, set *rules.Set) []notify.Receiver {
	list := slices.Clone(o.Receivers)
	find := func(name string) *notify.Receiver {
		at := slices.IndexFunc(list, func(r notify.Receiver) bool { return r.Name == name })
		if at < 0 {
			at = len(list)
			list = append(list, o.Default)
			list[at].Name = name
		}
		return &list[at]
	}
	for i := range file.Webhooks {
		w := &file.Webhooks[i]
		r := find(w.Name)
		if w.GroupBy != nil {
			r.GroupBy = w.GroupBy
		}
		if w.Include != "" {
			r.WholeGroup = w.Include == "group"
		}
		for _, d := range [...]struct {
			to    *time.Duration
			given *time.Duration
		}{{&r.GroupWait, w.GroupWait}, {&r.GroupInterval, w.GroupInterval}, {&r.RepeatInterval, w.RepeatInterval}, {&r.FlapFloor, w.FlapFloor}} {
			if d.given != nil {
				*d.to = *d.given
			}
		}
	}
	for _, r := range set.Rules() {
		for _, name := range r.Webhooks {
			find(name)
		}
		for _, step := range r.Escalate {
			for _, name := range step.To {
				find(name)
			}
		}
	}
	for i := range t.Expect {
		if name := t.Expect[i].Webhook; name != "" {
			find(name)
		}
	}
	return list
}

// changed is a transition of an alert.
type changed struct {
	at time.Duration
	rules.Event
}

// told is a notification.
type told struct {
	at time.Duration
	n  int // its number in the test, from 1
	*notify.Notification
}

// play is one test as it goes on.
type play struct {
	test    *rules.Test
	options *Options
	engine  *rules.Engine
	policy  *notify.Policy
	start   int64
	now     int64
	fresh   []rules.Event // of the step at hand
	events  []changed
	sent    []told
	failed  []Failure
}

func run(t *rules.Test, set *rules.Set, receivers []notify.Receiver, o *Options) []Failure {
	p := &play{test: t, options: o, engine: rules.NewEngine(set, rules.Options{Zone: t.Zone}), policy: notify.New(), start: t.Start.UnixNano(), now: t.Start.UnixNano()}
	p.engine.Resume(p.start) // expected devices are waited for from the start
	p.policy.Configure(p.time(), receivers, set, p.tell)
	steps := timeline(t)
	for _, x := range t.Expect {
		for len(steps) > 0 && steps[0].at <= x.At {
			p.step(&steps[0])
			steps = steps[1:]
		}
		p.advance(x.At)
		if text := p.check(&x); text != "" {
			p.failed = append(p.failed, Failure{Line: x.Line, Text: text})
		}
	}
	return p.failed
}

// time is now as the policy counts it: the clock of a test is never set.
func (p *play) time() notify.Time { return notify.Time{Now: p.now, Wall: p.now} }

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
	for due := p.due(); due <= end; due = p.due() {
		p.now = max(p.now, due)
		p.engine.Tick(p.now, p.note)
		p.take()
	}
	p.now = end
}

func (p *play) due() int64 { return min(p.engine.Due(), p.policy.Due()) }

func (p *play) note(ev *rules.Event) {
	p.fresh = append(p.fresh, *ev)
	if !ev.Inhibited {
		p.events = append(p.events, changed{time.Duration(p.now - p.start), *ev})
	}
}

// take hands what just changed to the policy.
func (p *play) take() {
	p.policy.Take(p.time(), p.fresh, p.tell)
	p.fresh = p.fresh[:0]
}

func (p *play) tell(n *notify.Notification) {
	p.sent = append(p.sent, told{time.Duration(p.now - p.start), len(p.sent) + 1, n})
}

func (p *play) step(s *step) {
	p.advance(s.at)
	in := s.in
	switch {
	case in.Online != nil:
		p.engine.Availability(in.Labels, *in.Online, p.now, p.note)
	case in.Silence != nil:
		p.command(&notify.Command{Op: notify.AddSilence, ID: fmt.Sprint(len(p.policy.View().Silences) + 1), Match: in.Silence, StartsAt: p.now, EndsAt: p.now + int64(in.For)})
	case in.Acknowledge != "":
		for _, v := range p.engine.Alerts() {
			if v.State == rules.Firing && v.Alert == in.Acknowledge && contains(v.Labels, in.Labels) {
				p.command(&notify.Command{Op: notify.Acknowledge, Fingerprint: notify.FormatFingerprint(v.Fingerprint)})
			}
		}
	default:
		p.observe(s)
	}
	p.take()
}

func (p *play) command(c *notify.Command) {
	c.By = "test"
	p.policy.Command(p.time(), c, p.tell)
}

func (p *play) observe(s *step) {
	in := s.in
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
		return p.failure(x, []string{want}, []string{"no alert is pending or firing"})
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
	return p.failure(x, []string{want}, got)
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

// failure renders a difference and what led to it.
func (p *play) failure(x *rules.Expectation, want, got []string) string {
	var b strings.Builder
	what := x.Alert
	if x.Webhook != "" {
		what = "webhook " + x.Webhook
		if x.Alert != "" {
			what += " " + x.Alert
		}
	}
	if len(x.Labels) > 0 {
		what += x.Labels.String()
	}
	fmt.Fprintf(&b, "at %s: %s\n", x.At, what)
	for _, w := range want {
		fmt.Fprintf(&b, "  - want  %s\n", w)
	}
	for _, g := range got {
		fmt.Fprintf(&b, "  + got   %s\n", g)
	}
	lines, nothing := p.happened(), "nothing fired or resolved"
	if x.Webhook != "" {
		lines, nothing = p.toldOf(x.Webhook), "it was told nothing"
	}
	if len(lines) == 0 {
		b.WriteString("    until then " + nothing + "\n")
		return b.String()
	}
	b.WriteString("    until then:\n")
	from := max(len(lines)-maxShown, 0)
	if from > 0 {
		fmt.Fprintf(&b, "      (%d earlier ones are not shown)\n", from)
	}
	for _, line := range lines[from:] {
		b.WriteString("      " + line + "\n")
	}
	return b.String()
}

// maxShown bounds the lines shown with a failure.
const maxShown = 20

// happened is what alerts did so far, a line each.
func (p *play) happened() []string {
	lines := make([]string, len(p.events))
	for i, ev := range p.events {
		lines[i] = fmt.Sprintf("%-8s %-8s %s value %s", ev.at, ev.State, ev.Labels, rules.FormatValue(ev.Value))
	}
	return lines
}
