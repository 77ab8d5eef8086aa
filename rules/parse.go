package rules

import (
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v4"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// Bounds on rule files: what reads them may be an API, and a mistake must not cost the gateway its memory.
const (
	MaxFile   = 256 << 10 // bytes
	maxNodes  = 100_000   // YAML values read from one file, those behind aliases counted each time
	maxErrors = 100       // reported per file
	maxName   = 128       // bytes of an alert's, a group's, a label's or a webhook's name
	maxText   = 2048      // bytes of a label's value or an annotation
)

// AlertNameLabel is the label that carries the alert's name.
const AlertNameLabel = "alertname"

// Parse reads and checks rule files, in the order of their names. It returns a Set, or Errors with every fault of every file.
func Parse(files []File) (*Set, error) {
	files = slices.Clone(files)
	slices.SortStableFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	set := &Set{byName: map[string]*Rule{}, files: files}
	var errs Errors
	for _, f := range files {
		p := parser{file: f.Name, src: newSource(f.Data), set: set}
		p.parse()
		errs = append(errs, p.errs...)
	}
	if err := errs.orNil(); err != nil {
		return nil, err
	}
	return set, nil
}

// parser walks one file. A method that meets a fault reports it and goes on with the next value.
type parser struct {
	file  string
	src   *source
	set   *Set
	errs  Errors
	found int // faults so far, reported or not
	nodes int
}

func (p *parser) parse() {
	if len(p.src.text) > MaxFile {
		p.failFile("the file is larger than %d KB", MaxFile>>10)
		return
	}
	if i := invalidUTF8(p.src.text); i >= 0 {
		line, column := p.src.position(i)
		p.failAt(line, column, "the file is not valid UTF-8")
		return
	}
	var doc yaml.Node
	if err := yaml.Load(p.src.text, &doc); err != nil {
		p.syntax(err)
		return
	}
	if len(doc.Content) == 0 {
		return
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" && root.Value == "" {
		return
	}
	p.mapping(root, "a rule file", []key{{name: "groups", required: true, read: p.groups}})
}

func (p *parser) groups(n *yaml.Node) {
	names := map[string]bool{}
	p.list(n, "groups", func(n *yaml.Node) {
		group, first := "", len(p.set.rules)
		p.mapping(n, "a group", []key{
			{name: "name", required: true, read: func(n *yaml.Node) {
				if n, ok := p.name(n, "name"); ok {
					if names[n.Value] {
						p.fail(n, "name: this file already has a group %s", quote(n.Value))
					}
					names[n.Value] = true
					group = n.Value
				}
			}},
			{name: "rules", required: true, read: func(n *yaml.Node) { p.list(n, "rules", p.rule) }},
			{name: "interval", later: "rules run with every message, not at an interval: remove the key"},
		})
		for _, r := range p.set.rules[first:] { // name may come after rules
			r.Group = group
		}
	})
}

// name reads a name that has to fit a topic level, a file and a line of a terminal.
func (p *parser) name(n *yaml.Node, what string) (*yaml.Node, bool) {
	n, ok := p.text(n, what, maxName)
	if !ok {
		return nil, false
	}
	for i, r := range n.Value {
		if strings.ContainsRune("/+#", r) || !unicode.IsPrint(r) {
			p.failIn(n, i, "%s: %q does not fit a name", what, r)
			return nil, false
		}
	}
	return n, true
}

const notYet = "not available in this version"

func (p *parser) rule(n *yaml.Node) {
	faults := p.found
	r := &Rule{File: p.file, Line: n.Line}
	var exprAt, clearAt, alertAt *yaml.Node
	ok := p.mapping(n, "a rule", []key{
		{name: "alert", required: true, read: func(n *yaml.Node) {
			if n, ok := p.name(n, "alert"); ok {
				alertAt, r.Alert = n, n.Value
			}
		}},
		{name: "match", read: func(n *yaml.Node) { r.Match = p.match(n) }},
		{name: "expr", read: func(n *yaml.Node) { exprAt, r.cond = p.expr(n, "expr") }},
		{name: "clear", read: func(n *yaml.Node) { clearAt, r.clear = p.expr(n, "clear") }},
		{name: "for", read: func(n *yaml.Node) { r.For = p.duration(n, "for") }},
		{name: "keep_firing_for", read: func(n *yaml.Node) { r.KeepFiringFor = p.duration(n, "keep_firing_for") }},
		{name: "labels", read: func(n *yaml.Node) { r.Labels = p.labels(n) }},
		{name: "annotations", read: func(n *yaml.Node) { p.annotations(n, r) }},
		{name: "webhooks", read: func(n *yaml.Node) { p.webhooks(n, r) }},
		{name: "anomaly", later: notYet},
		{name: "absent", later: notYet},
		{name: "active", later: notYet},
		{name: "inhibit", later: notYet},
		{name: "escalate", later: notYet},
		{name: "record", later: "there are no recording rules: aggregates come from the sources in sluice.yaml"},
	})
	if !ok {
		return
	}
	if alertAt != nil {
		if first := p.set.byName[r.Alert]; first != nil {
			p.fail(alertAt, "alert: %s is already defined at %s:%d", quote(r.Alert), first.File, first.Line)
			return
		}
		p.set.byName[r.Alert] = r
	}
	if exprAt == nil && p.found == faults {
		p.fail(n, "a rule: the key expr is missing")
	}
	if p.found > faults {
		return
	}
	r.Expr = exprAt.Value
	if clearAt != nil {
		r.Clear = clearAt.Value
	}
	r.define()
	p.set.rules = append(p.set.rules, r)
}

func (p *parser) expr(n *yaml.Node, what string) (*yaml.Node, *expr.Program) {
	n, ok := p.text(n, what, expr.MaxSource)
	if !ok {
		return nil, nil
	}
	prog, errs := expr.Compile(n.Value)
	for _, e := range errs {
		p.failIn(n, e.Offset, "%s: %s", what, e.Msg)
	}
	return n, prog
}

func (p *parser) duration(n *yaml.Node, what string) time.Duration {
	n, ok := p.text(n, what, maxName)
	if !ok {
		return 0
	}
	d, err := expr.ParseDuration(n.Value)
	if err != nil {
		p.fail(n, "%s: %v, got %s", what, err, quote(n.Value))
	}
	return d
}

// pairs reads a mapping from label names to texts.
func (p *parser) pairs(n *yaml.Node, what string, take func(name, value *yaml.Node)) {
	if n = p.resolve(n); n == nil {
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n, "%s: want names and values, got %s", what, kind(n))
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, ok := p.keyName(n.Content[i], seen)
		if !ok {
			continue
		}
		at := p.resolve(n.Content[i])
		if at == nil {
			return
		}
		if !labelName(name) || len(name) > maxName {
			p.fail(at, "%s: %s is no label name: want letters, digits and underscores", what, quote(name))
			continue
		}
		if value, ok := p.text(n.Content[i+1], what+": "+name, maxText); ok {
			take(at, value)
		}
	}
}

func (p *parser) match(n *yaml.Node) Matchers {
	var m Matchers
	p.pairs(n, "match", func(name, value *yaml.Node) {
		one, err := newMatcher(name.Value, value.Value)
		if err != nil {
			p.fail(value, "match: %s: %v", name.Value, err)
			return
		}
		m = append(m, one)
	})
	slices.SortFunc(m, func(a, b matcher) int { return strings.Compare(a.label, b.label) })
	return m
}

func (p *parser) labels(n *yaml.Node) telemetry.Labels {
	var pairs []telemetry.Label
	p.pairs(n, "labels", func(name, value *yaml.Node) {
		switch at := strings.Index(value.Value, "{{"); {
		case name.Value == AlertNameLabel:
			p.fail(name, "labels: %s is set to the name of the alert and cannot be changed", AlertNameLabel)
		case at >= 0:
			p.failIn(value, at, "labels: %s: a label is plain text; references such as {{ $value }} belong in annotations", name.Value)
		default:
			pairs = append(pairs, telemetry.Label{Name: name.Value, Value: value.Value})
		}
	})
	return telemetry.NewLabels(pairs...)
}

func (p *parser) annotations(n *yaml.Node, r *Rule) {
	var pairs []telemetry.Label
	p.pairs(n, "annotations", func(name, value *yaml.Node) {
		if _, err := parseTemplate(value.Value); err != nil {
			p.failIn(value, err.offset, "annotations: %s: %s", name.Value, err.msg)
			return
		}
		pairs = append(pairs, telemetry.Label{Name: name.Value, Value: value.Value})
	})
	r.Annotations = telemetry.NewLabels(pairs...)
	for _, a := range r.Annotations {
		t, _ := parseTemplate(a.Value)
		r.templates = append(r.templates, t)
	}
}

func (p *parser) webhooks(n *yaml.Node, r *Rule) {
	r.Webhooks = []string{}
	p.list(n, "webhooks", func(n *yaml.Node) {
		n, ok := p.name(n, "webhooks")
		if !ok {
			return
		}
		if slices.Contains(r.Webhooks, n.Value) {
			p.fail(n, "webhooks: %s is here twice", quote(n.Value))
			return
		}
		r.Webhooks = append(r.Webhooks, n.Value)
		r.hooks = append(r.hooks, position{n.Line, n.Column})
	})
	if n = p.resolve(n); n != nil && n.Kind == yaml.SequenceNode && len(n.Content) == 0 {
		p.fail(n, "webhooks: want at least one name; without the key every webhook gets the alert")
	}
}
