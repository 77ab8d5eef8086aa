package rules

import (
	"slices"
	"time"

	"go.yaml.in/yaml/v4"
)

// Escalation is one step of a rule's escalate: who else is told of an alert that still fires and that nobody has acknowledged.
type Escalation struct {
	After time.Duration // since the alert fired; steps come in growing order
	To    []string      // webhooks
}

// escalateShape is a list of steps.
var escalateShape = shape{"type": "array", "minItems": 1, "items": objectOf(escalateKeys(nil, nil, nil))}

func (p *parser) escalate(n *yaml.Node, r *Rule) {
	p.list(n, "escalate", func(n *yaml.Node) {
		var s Escalation
		faults := p.found
		if !p.mapping(n, "escalate", escalateKeys(p, r, &s)) || p.found > faults {
			return
		}
		if k := len(r.Escalate); k > 0 && s.After <= r.Escalate[k-1].After {
			p.fail(n, "escalate: want steps in growing order of after")
			return
		}
		r.Escalate = append(r.Escalate, s)
	})
	if n = p.resolve(n); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.fail(n, "escalate: the list is empty")
	}
}

func escalateKeys(p *parser, r *Rule, s *Escalation) []key {
	return []key{
		{name: "after", required: true, doc: "Since the alert fired.", shape: durationShape, read: func(n *yaml.Node) {
			if s.After = p.duration(n, "after"); s.After == 0 {
				p.fail(n, "after: want more than nothing: who is told at once stands in webhooks")
			}
		}},
		{name: "to", required: true, doc: "Names of the webhooks to tell then.", shape: oneOrMore(nameShape), read: func(n *yaml.Node) {
			p.oneOrMore(n, "to", func(n *yaml.Node) {
				n, ok := p.name(n, "to")
				switch {
				case !ok:
				case slices.Contains(s.To, n.Value):
					p.fail(n, "to: %s is here twice", quote(n.Value))
				default:
					s.To = append(s.To, n.Value)
					r.steps = append(r.steps, namedAt{position{n.Line, n.Column}, n.Value})
				}
			})
		}},
	}
}

// namedAt is a webhook that an escalation names, and where.
type namedAt struct {
	position
	name string
}

// Rule returns the rule of an alert's name, or nil.
func (s *Set) Rule(alert string) *Rule { return s.byName[alert] }
