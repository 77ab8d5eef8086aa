package rules

import (
	"math"
	"slices"
	"strconv"
	"time"

	"go.yaml.in/yaml/v4"

	"sluice/gateway/telemetry"
)

// TestFile is a file of rule tests as written; package ruletest runs it.
type TestFile struct {
	Name  string
	Rules []string // rule files, relative to the test file; globs
	// Webhooks say how receivers want to be told; those that are not listed are as a webhook of the configuration without such settings.
	Webhooks []TestWebhook
	Tests    []Test
}

// Test is one timeline and what is to come of it. Offsets count from its start.
type Test struct {
	Name   string
	Line   int
	Start  time.Time      // wall clock at offset 0
	Zone   *time.Location // of rules that name none; nil: UTC
	Input  []TestInput
	Expect []Expectation
}

// TestInput is a message, or several at equal distances, or word of a device's being there, or what an operator does.
type TestInput struct {
	At, Every, Until time.Duration // Every 0: once
	Time             *time.Duration
	Labels           telemetry.Labels
	Measurement      string
	Values           []TestValues
	Retained         bool
	Online           *bool             // instead of values
	Silence          map[string]string // instead of values: an operator silences what matches
	For              time.Duration     // how long
	Acknowledge      string            // instead of values: an operator acknowledges the alerts of this name that have Labels
}

// TestValues are a metric's values, one after the other; the last one stays.
type TestValues struct {
	Metric string
	Values []float64
}

// testStart is a Monday: the wall clock at which tests start that do not say when.
var testStart = time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)

// maxSteps bounds the messages of one input.
const maxSteps = 1_000_000

// ParseTests reads a file of rule tests; the error is Errors with every fault.
func ParseTests(f File) (*TestFile, error) {
	t := &TestFile{Name: f.Name}
	p := parser{file: f.Name, src: newSource(f.Data), set: &Set{byName: map[string]*Rule{}}}
	p.parseRoot("a test file", p.testKeys(t))
	if err := p.errs.orNil(); err != nil {
		return nil, err
	}
	return t, nil
}

func (p *parser) testKeys(t *TestFile) []key {
	return []key{
		{name: "rules", required: true, read: func(n *yaml.Node) {
			p.oneOrMore(n, "rules", func(n *yaml.Node) {
				if n, ok := p.text(n, "rules", maxText); ok {
					t.Rules = append(t.Rules, n.Value)
				}
			})
		}},
		{name: "webhooks", read: func(n *yaml.Node) { p.list(n, "webhooks", func(n *yaml.Node) { p.testWebhook(n, t) }) }},
		{name: "tests", required: true, read: func(n *yaml.Node) { p.list(n, "tests", func(n *yaml.Node) { p.test(n, t) }) }},
	}
}

func (p *parser) test(n *yaml.Node, file *TestFile) {
	t := Test{Line: n.Line, Start: testStart}
	p.mapping(n, "a test", []key{
		{name: "name", required: true, read: func(n *yaml.Node) {
			if n, ok := p.text(n, "name", maxText); ok {
				t.Name = n.Value
			}
		}},
		{name: "start", read: func(n *yaml.Node) {
			n, ok := p.text(n, "start", maxName)
			if !ok {
				return
			}
			var err error
			if t.Start, err = time.Parse(time.RFC3339, n.Value); err != nil {
				p.fail(n, "start: want a time such as 2026-03-02T08:00:00Z, got %s", quote(n.Value))
			}
		}},
		{name: "zone", read: func(n *yaml.Node) { t.Zone = p.zone(n) }},
		{name: "input", read: func(n *yaml.Node) { p.list(n, "input", func(n *yaml.Node) { p.testInput(n, &t) }) }},
		{name: "expect", required: true, read: func(n *yaml.Node) { p.list(n, "expect", func(n *yaml.Node) { p.expectation(n, &t) }) }},
	})
	slices.SortStableFunc(t.Expect, func(a, b Expectation) int { return int(a.At - b.At) })
	file.Tests = append(file.Tests, t)
}

func (p *parser) testInput(n *yaml.Node, t *Test) {
	in := TestInput{Measurement: "telemetry"}
	faults := p.found
	p.mapping(n, "an input", []key{
		{name: "at", required: true, read: func(n *yaml.Node) { in.At = p.duration(n, "at") }},
		{name: "every", read: func(n *yaml.Node) {
			if in.Every = p.duration(n, "every"); in.Every == 0 && p.found == faults {
				p.fail(n, "every: must be longer than 0")
			}
		}},
		{name: "until", read: func(n *yaml.Node) { in.Until = p.duration(n, "until") }},
		{name: "time", read: func(n *yaml.Node) {
			d := p.duration(n, "time")
			in.Time = &d
		}},
		{name: "labels", read: func(n *yaml.Node) { in.Labels = p.plainLabels(n, "labels") }},
		{name: "measurement", read: func(n *yaml.Node) {
			if n, ok := p.text(n, "measurement", maxName); ok {
				in.Measurement = n.Value
			}
		}},
		{name: "values", read: func(n *yaml.Node) { in.Values = p.testValues(n) }},
		{name: "retained", read: func(n *yaml.Node) { in.Retained = p.boolean(n, "retained") }},
		{name: "online", read: func(n *yaml.Node) {
			online := p.boolean(n, "online")
			in.Online = &online
		}},
		{name: "silence", read: func(n *yaml.Node) {
			in.Silence = p.plainLabels(n, "silence").Map()
			if _, err := ParseMatchers(in.Silence); err != nil {
				p.fail(n, "silence: %v", err)
			} else if len(in.Silence) == 0 {
				p.fail(n, "silence: want at least one label and its pattern")
			}
		}},
		{name: "for", read: func(n *yaml.Node) { in.For = p.duration(n, "for") }},
		{name: "acknowledge", read: p.word(&in.Acknowledge, "acknowledge")},
	})
	kinds := 0
	for _, given := range [...]bool{in.Values != nil, in.Online != nil, in.Silence != nil, in.Acknowledge != ""} {
		if given {
			kinds++
		}
	}
	switch {
	case p.found > faults:
	case (in.Every == 0) != (in.Until == 0):
		p.fail(n, "an input: every and until go together")
	case in.Every > 0 && (in.Until < in.At || (in.Until-in.At)/in.Every > maxSteps):
		p.fail(n, "an input: until is before at, or there are more than %d messages", maxSteps)
	case kinds != 1:
		p.fail(n, "an input: want one of values, online, silence and acknowledge")
	case (in.Silence == nil) != (in.For == 0):
		p.fail(n, "an input: silence and for go together")
	}
	t.Input = append(t.Input, in)
}

// plainLabels reads labels as they are, alertname included.
func (p *parser) plainLabels(n *yaml.Node, what string) telemetry.Labels {
	var pairs []telemetry.Label
	p.pairs(n, what, func(name, value *yaml.Node) {
		pairs = append(pairs, telemetry.Label{Name: name.Value, Value: value.Value})
	})
	return telemetry.NewLabels(pairs...)
}

func (p *parser) boolean(n *yaml.Node, what string) bool {
	n, ok := p.text(n, what, maxName)
	if ok && n.Value != "true" && n.Value != "false" {
		p.fail(n, "%s: want true or false, got %s", what, quote(n.Value))
	}
	return ok && n.Value == "true"
}

// testValues reads numbers, booleans or lists of them by metric.
func (p *parser) testValues(n *yaml.Node) []TestValues {
	if n = p.resolve(n); n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		p.fail(n, "values: want metrics and numbers, got %s", kind(n))
		return nil
	}
	seen := map[string]bool{}
	var list []TestValues
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := p.keyName(n.Content[i], seen)
		if !ok {
			continue
		}
		v := TestValues{Metric: name}
		p.oneOrMore(n.Content[i+1], "values: "+name, func(n *yaml.Node) {
			if f, ok := p.number(n, "values: "+name); ok {
				v.Values = append(v.Values, f)
			}
		})
		list = append(list, v)
	}
	return list
}

func (p *parser) number(n *yaml.Node, what string) (float64, bool) {
	n, ok := p.text(n, what, maxName)
	if !ok {
		return 0, false
	}
	switch n.Value {
	case "true":
		return 1, true
	case "false":
		return 0, true
	}
	v, err := strconv.ParseFloat(n.Value, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
		p.fail(n, "%s: want a number, got %s", what, quote(n.Value))
		return 0, false
	}
	return v, true
}
