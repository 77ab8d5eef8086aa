package rules

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"sluice/rules/expr"
)

// maxExpected bounds the devices one rule expects.
const maxExpected = 10_000

func (p *parser) absent(n *yaml.Node, r *Rule) {
	r.Absent = &Absent{}
	p.mapping(n, "absent", absentKeys(p, r))
}

func absentKeys(p *parser, r *Rule) []key {
	a := r.Absent
	return []key{
		{name: "metric", required: true, doc: "The metric whose readings are life signs.", shape: textShape(maxName),
			read: func(n *yaml.Node) { a.Metric = p.metric(n, r) }},
		{name: "after", required: true, doc: "How long a silence is allowed: a duration, or a multiple of the device's usual interval such as 3x.", shape: afterShape,
			read: func(n *yaml.Node) { p.after(n, a) }},
		{name: "expect", doc: "Devices, by their label device, that are to be there from the start.", shape: namesShape(1),
			read: func(n *yaml.Node) {
				p.list(n, "expect", func(n *yaml.Node) {
					n, ok := p.text(n, "expect", maxName)
					switch {
					case !ok:
					case slices.Contains(a.Expect, n.Value):
						p.fail(n, "expect: %s is here twice", quote(n.Value))
					case len(a.Expect) == maxExpected:
						p.fail(n, "expect: the limit is %d devices", maxExpected)
					default:
						a.Expect = append(a.Expect, n.Value)
					}
				})
			}},
	}
}

// metric reads the name of a metric of the device.
func (p *parser) metric(n *yaml.Node, r *Rule) string {
	n, ok := p.text(n, "metric", maxName)
	if !ok {
		return ""
	}
	name := strings.Trim(n.Value, "`")
	r.mentions = append(r.mentions, mention{position{n.Line, n.Column}, name, false})
	return name
}

func (p *parser) after(n *yaml.Node, a *Absent) {
	n, ok := p.text(n, "after", maxName)
	if !ok {
		return
	}
	if times, isFactor := strings.CutSuffix(n.Value, "x"); isFactor {
		f, err := strconv.ParseFloat(times, 64)
		if err != nil || !(f > 1 && f <= 1000) || strings.Trim(times, "0123456789.") != "" {
			p.fail(n, "after: want a multiple from above 1x to 1000x, such as 3x, got %s", quote(n.Value))
			return
		}
		a.Factor = f
		return
	}
	d, err := expr.ParseDuration(n.Value)
	switch {
	case err != nil:
		p.fail(n, "after: %v, or a multiple of the device's interval such as 3x, got %s", err, quote(n.Value))
	case d == 0:
		p.fail(n, "after: the duration must be longer than 0")
	}
	a.After = d
}

func (p *parser) anomaly(n *yaml.Node, r *Rule) {
	faults := p.found
	r.Anomaly = &Anomaly{}
	if p.mapping(n, "anomaly", anomalyKeys(p, r)); p.found > faults {
		return
	}
	if err := r.Anomaly.Validate(); err != nil {
		if n = p.resolve(n); n != nil {
			p.fail(n, "anomaly: %v", err)
		}
	}
}

func anomalyKeys(p *parser, r *Rule) []key {
	a := r.Anomaly
	return []key{
		{name: "metric", required: true, doc: "The metric to watch.", shape: textShape(maxName),
			read: func(n *yaml.Node) { a.Metric = p.metric(n, r) }},
		{name: "method", doc: "auto (default), ewma, seasonal, cusum, flatline or jump.", shape: choice("auto", "ewma", "seasonal", "cusum", "flatline", "jump"),
			read: func(n *yaml.Node) {
				if n, ok := p.text(n, "method", maxName); ok {
					a.Method = n.Value
				}
			}},
		{name: "sensitivity", doc: "Score at which an anomaly begins, in standard deviations; larger means fewer alerts.", shape: shape{"type": "number", "exclusiveMinimum": 0},
			read: func(n *yaml.Node) {
				n, ok := p.text(n, "sensitivity", maxName)
				if !ok {
					return
				}
				v, err := strconv.ParseFloat(n.Value, 64)
				if err != nil || !(v > 0) || !finite(v) {
					p.fail(n, "sensitivity: want a number above 0 such as 4, got %s", quote(n.Value))
				}
				a.Sensitivity = v
			}},
		{name: "warmup", doc: "How long to learn before the first alert.", shape: durationShape, read: func(n *yaml.Node) { a.Warmup = p.duration(n, "warmup") }},
		{name: "cooldown", doc: "Least time between the starts of two anomalies.", shape: durationShape, read: func(n *yaml.Node) { a.Cooldown = p.duration(n, "cooldown") }},
	}
}

func (p *parser) active(n *yaml.Node, r *Rule) {
	r.Active = &Active{To: dayMinutes, Days: everyDay}
	p.mapping(n, "active", activeKeys(p, r))
}

func activeKeys(p *parser, r *Rule) []key {
	a := r.Active
	return []key{
		{name: "days", doc: "Days such as mon or ranges such as mon-fri. Default: all.", shape: oneOrMore(shape{"type": "string"}),
			read: func(n *yaml.Node) {
				a.Days = [7]bool{}
				p.oneOrMore(n, "days", func(n *yaml.Node) {
					if n, ok := p.text(n, "days", maxName); ok {
						if err := parseDays(n.Value, &a.Days); err != nil {
							p.fail(n, "days: %v", err)
						}
					}
				})
			}},
		{name: "hours", doc: "Hours such as 06:00-22:00; 22:00-06:00 ends on the next day.", shape: shape{"type": "string", "pattern": `^\s*\d?\d:\d\d\s*-\s*\d?\d:\d\d\s*$`},
			read: func(n *yaml.Node) {
				n, ok := p.text(n, "hours", maxName)
				if !ok {
					return
				}
				var err error
				if a.From, a.To, err = parseHours(n.Value); err != nil {
					p.fail(n, "hours: %v", err)
				}
			}},
		{name: "zone", doc: "Time zone such as Europe/Berlin. Default: the rule's, then the gateway's.", shape: textShape(maxName),
			read: func(n *yaml.Node) { a.Zone = p.zone(n) }},
	}
}

// zone reads the name of a time zone; Local is refused, because rules mean the same everywhere.
func (p *parser) zone(n *yaml.Node) *time.Location {
	n, ok := p.text(n, "zone", maxName)
	if !ok {
		return nil
	}
	zone, err := time.LoadLocation(n.Value)
	if err != nil || n.Value == "Local" {
		p.fail(n, "zone: unknown time zone %s: want a name such as Europe/Berlin or UTC", quote(n.Value))
		return nil
	}
	return zone
}

// oneOrMore reads a list, or one value as a list of one.
func (p *parser) oneOrMore(n *yaml.Node, what string, item func(n *yaml.Node)) {
	r := n
	if n.Kind == yaml.AliasNode {
		r = n.Alias
	}
	switch {
	case r.Kind != yaml.SequenceNode:
		item(n)
	case len(r.Content) == 0:
		p.fail(r, "%s: the list is empty", what)
	default:
		p.list(n, what, item)
	}
}

func (p *parser) inhibits(n *yaml.Node, r *Rule) {
	p.oneOrMore(n, "inhibit", func(n *yaml.Node) {
		var i Inhibit
		if p.mapping(n, "inhibit", inhibitKeys(p, r, &i)); i.When != "" {
			r.Inhibit = append(r.Inhibit, i)
		}
	})
}

func inhibitKeys(p *parser, r *Rule, i *Inhibit) []key {
	return []key{
		{name: "when", required: true, doc: "Name of the other alert.", shape: nameShape, read: func(n *yaml.Node) {
			if n, ok := p.name(n, "when"); ok {
				i.When = n.Value
				r.whens = append(r.whens, position{n.Line, n.Column})
			}
		}},
		{name: "equal", doc: "Labels that must have the same values on both alerts. Default: none.", shape: namesShape(0), read: func(n *yaml.Node) {
			p.oneOrMore(n, "equal", func(n *yaml.Node) {
				n, ok := p.text(n, "equal", maxName)
				switch {
				case !ok:
				case !labelName(n.Value):
					p.fail(n, "equal: %s is no label name: want letters, digits and underscores", quote(n.Value))
				default:
					i.Equal = append(i.Equal, n.Value)
				}
			})
		}},
	}
}

// checkInhibits wants every inhibit to name another alert of the set.
func (s *Set) checkInhibits() (errs Errors) {
	for _, r := range s.rules {
		for i, in := range r.Inhibit {
			msg := ""
			switch {
			case in.When == r.Alert:
				msg = "when: an alert cannot inhibit itself"
			case s.byName[in.When] == nil:
				msg = "when: there is no alert " + quote(in.When) + s.suggestAlert(in.When)
			default:
				continue
			}
			errs = append(errs, Error{File: r.File, Line: r.whens[i].line, Column: r.whens[i].column, Msg: msg, Source: s.line(r.File, r.whens[i].line)})
		}
	}
	return errs
}

func (s *Set) suggestAlert(name string) string {
	var names []string
	for _, r := range s.rules {
		names = append(names, r.Alert)
	}
	if best := closest(name, names); best != "" {
		return fmt.Sprintf(": did you mean %s?", best)
	}
	return ""
}

// closest finds the name with the fewest typing mistakes, at most two and fewer than half the letters; "" when there is none.
func closest(name string, names []string) string {
	best, distance := "", min(3, (len(name)+1)/2)
	for _, n := range names {
		if d := editDistance(strings.ToLower(name), strings.ToLower(n)); d < distance {
			best, distance = n, d
		}
	}
	return best
}
