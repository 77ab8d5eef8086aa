package rules

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"sluice/gateway/telemetry"
)

// TestWebhook is a webhook with its settings as in the configuration, each by its key; nil: not given.
type TestWebhook struct {
	Name                                                string
	GroupBy                                             []string
	GroupWait, GroupInterval, RepeatInterval, FlapFloor *time.Duration
	Include                                             string
}

// Expectation is what is to hold at an offset: the state of alerts, or what a webhook was told until then.
type Expectation struct {
	Line        int
	At          time.Duration
	Alert       string
	Labels      telemetry.Labels // the alert has at least these
	State       string           // inactive, pending or firing; of alerts
	Value       *float64
	Annotations telemetry.Labels // at least these
	Webhook     string
	Status      string // firing or resolved; of webhooks; empty: both
	Count       *int   // notifications; nil: at least one; of webhooks
	Alerts      *int   // alerts in them; nil: any number
	Reason      string // changed, repeated or escalated; empty: all but repeated
	Body        any    // what the body of the newest of them holds, decoded from JSON; nil: anything
}

func (p *parser) testWebhook(n *yaml.Node, file *TestFile) {
	w := TestWebhook{}
	length := func(to **time.Duration, what string) key {
		return key{name: what, read: func(n *yaml.Node) {
			d := p.duration(n, what)
			*to = &d
		}}
	}
	faults := p.found
	p.mapping(n, "a webhook", []key{
		{name: "name", required: true, read: func(n *yaml.Node) {
			if n, ok := p.name(n, "name"); ok {
				w.Name = n.Value
			}
		}},
		{name: "group_by", read: func(n *yaml.Node) {
			w.GroupBy = []string{}
			p.list(n, "group_by", func(n *yaml.Node) {
				if n, ok := p.text(n, "group_by", maxName); ok {
					w.GroupBy = append(w.GroupBy, n.Value)
				}
			})
		}},
		length(&w.GroupWait, "group_wait"), length(&w.GroupInterval, "group_interval"), length(&w.RepeatInterval, "repeat_interval"),
		length(&w.FlapFloor, "flap_floor"),
		{name: "include", read: p.word(&w.Include, "include", "changes", "group")},
	})
	if p.found == faults && slices.ContainsFunc(file.Webhooks, func(o TestWebhook) bool { return o.Name == w.Name }) {
		p.fail(n, "webhooks: %s is here twice", quote(w.Name))
	}
	file.Webhooks = append(file.Webhooks, w)
}

// word reads a text, one of allowed unless there are none.
func (p *parser) word(to *string, what string, allowed ...string) func(n *yaml.Node) {
	return func(n *yaml.Node) {
		n, ok := p.text(n, what, maxText)
		if !ok {
			return
		}
		if *to = n.Value; len(allowed) > 0 && !slices.Contains(allowed, n.Value) {
			p.fail(n, "%s: want %s, got %s", what, strings.Join(allowed, ", "), quote(n.Value))
		}
	}
}

func (p *parser) expectation(n *yaml.Node, t *Test) {
	x := Expectation{Line: n.Line}
	var summary string
	faults := p.found
	p.mapping(n, "an expectation", []key{
		{name: "at", required: true, read: func(n *yaml.Node) { x.At = p.duration(n, "at") }},
		{name: "alert", read: p.word(&x.Alert, "alert")},
		{name: "labels", read: func(n *yaml.Node) { x.Labels = p.plainLabels(n, "labels") }},
		{name: "state", read: p.word(&x.State, "state", "inactive", "pending", "firing")},
		{name: "value", read: func(n *yaml.Node) {
			if v, ok := p.number(n, "value"); ok {
				x.Value = &v
			}
		}},
		{name: "summary", read: p.word(&summary, "summary")},
		{name: "annotations", read: func(n *yaml.Node) { x.Annotations = p.plainLabels(n, "annotations") }},
		{name: "webhook", read: p.word(&x.Webhook, "webhook")},
		{name: "status", read: p.word(&x.Status, "status", "firing", "resolved")},
		{name: "count", read: p.whole(&x.Count, "count")},
		{name: "alerts", read: p.whole(&x.Alerts, "alerts")},
		{name: "reason", read: p.word(&x.Reason, "reason", "changed", "repeated", "escalated")},
		{name: "body", read: func(n *yaml.Node) { x.Body = p.plainValue(n) }},
	})
	if summary != "" {
		x.Annotations = x.Annotations.With(telemetry.Label{Name: "summary", Value: summary})
	}
	switch {
	case p.found > faults:
	case x.Webhook == "" && x.Alert == "":
		p.fail(n, "an expectation: want alert or webhook")
	case x.Webhook == "" && (x.Status != "" || x.Count != nil || x.Alerts != nil || x.Reason != "" || x.Body != nil):
		p.fail(n, "an expectation: status, count, alerts, reason and body belong to a webhook; an alert has a state")
	case x.Webhook == "" && x.State == "":
		p.fail(n, "an expectation: the key state is missing")
	case x.Webhook == "" && x.State == "inactive" && (x.Value != nil || x.Annotations != nil):
		p.fail(n, "an expectation: an inactive alert has no value and no annotations")
	case x.Webhook != "" && (x.State != "" || x.Value != nil || x.Annotations != nil):
		p.fail(n, "an expectation: a webhook has a status, a count and a body, not a state or a value")
	case x.Count != nil && *x.Count == 0 && (x.Alerts != nil || x.Body != nil):
		p.fail(n, "an expectation: without a notification there are no alerts in it, and no body")
	}
	t.Expect = append(t.Expect, x)
}

// whole reads a number that counts something.
func (p *parser) whole(to **int, what string) func(n *yaml.Node) {
	return func(n *yaml.Node) {
		v, ok := p.number(n, what)
		if count := int(v); ok && (v < 0 || v > 1e9 || float64(count) != v) {
			p.fail(n, "%s: want a whole number, got %s", what, quote(n.Value))
		} else {
			*to = &count
		}
	}
}

// plainValue is a node as encoding/json would decode its like; times stay texts.
func (p *parser) plainValue(n *yaml.Node) any {
	if n = p.resolve(n); n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = p.plainValue(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		list := []any{}
		for _, one := range n.Content {
			list = append(list, p.plainValue(one))
		}
		return list
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		if v, err := strconv.ParseFloat(n.Value, 64); err == nil {
			return v
		}
	case "!!bool":
		return n.Value == "true"
	case "!!null":
		return nil
	}
	return n.Value
}
