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
	errs = append(errs, set.checkInhibits()...)
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

func (p *parser) parse() { p.parseRoot("a rule file", p.fileKeys()) }

// parseRoot reads the file's one document, a mapping with keys; an empty file is fine.
func (p *parser) parseRoot(what string, keys []key) {
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
	p.mapping(root, what, keys)
}

func (p *parser) fileKeys() []key {
	return []key{{name: "groups", required: true, read: p.groups, doc: "The rules, in groups that order the file.",
		shape: listOf(func() shape { return objectOf((&parser{}).groupKeys(&group{})) })}}
}

// group is one group as it is read.
type group struct {
	name  string
	taken map[string]bool // names of the file's groups so far
}

func (p *parser) groups(n *yaml.Node) {
	names := map[string]bool{}
	p.list(n, "groups", func(n *yaml.Node) {
		g, first := group{taken: names}, len(p.set.rules)
		p.mapping(n, "a group", p.groupKeys(&g))
		for _, r := range p.set.rules[first:] { // name may come after rules
			r.Group = g.name
		}
	})
}

func (p *parser) groupKeys(g *group) []key {
	return []key{
		{name: "name", required: true, doc: "Name of the group, unique in the file.", shape: nameShape, read: func(n *yaml.Node) {
			if n, ok := p.name(n, "name"); ok {
				if g.taken[n.Value] {
					p.fail(n, "name: this file already has a group %s", quote(n.Value))
				}
				g.taken[n.Value] = true
				g.name = n.Value
			}
		}},
		{name: "rules", required: true, read: func(n *yaml.Node) { p.list(n, "rules", p.rule) },
			shape: listOf(func() shape { return ruleShape() })},
		{name: "interval", later: "rules run with every message, not at an interval: remove the key"},
	}
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

// ruleNodes are where the keys stand that are checked together.
type ruleNodes struct{ alert, expr, clear, absent, anomaly *yaml.Node }

func (p *parser) ruleKeys(r *Rule, at *ruleNodes) []key {
	return []key{
		{name: "alert", required: true, doc: "Name of the alert, unique over all files.", shape: nameShape, read: func(n *yaml.Node) {
			if n, ok := p.name(n, "alert"); ok {
				at.alert, r.Alert = n, n.Value
			}
		}},
		{name: "match", doc: "Which devices: label names and patterns with * and ?. All must match.", shape: mapOf(textShape(maxPattern)),
			read: func(n *yaml.Node) { r.Match = p.match(n) }},
		{name: "expr", doc: "The condition, such as temperature > 8 or rate(level, 1h) < -2.", shape: textShape(expr.MaxSource),
			read: func(n *yaml.Node) { at.expr, r.cond = p.expr(n, "expr", r) }},
		{name: "clear", doc: "The alert ends only when this condition holds and expr does not.", shape: textShape(expr.MaxSource),
			read: func(n *yaml.Node) { at.clear, r.clear = p.expr(n, "clear", r) }},
		{name: "absent", doc: "Instead of expr: a device that fell silent, or that is expected and never came.", shape: objectShape(absentKeys),
			read: func(n *yaml.Node) { at.absent = n; p.absent(n, r) }},
		{name: "anomaly", doc: "Instead of expr: a metric that behaves unlike itself.", shape: objectShape(anomalyKeys),
			read: func(n *yaml.Node) { at.anomaly = n; p.anomaly(n, r) }},
		{name: "for", doc: "How long the condition must hold before the alert fires.", shape: durationShape,
			read: func(n *yaml.Node) { r.For = p.duration(n, "for") }},
		{name: "keep_firing_for", doc: "How long the end must hold before the alert resolves.", shape: durationShape,
			read: func(n *yaml.Node) { r.KeepFiringFor = p.duration(n, "keep_firing_for") }},
		{name: "active", doc: "When the rule is in force. Outside, it has no alerts.", shape: objectShape(activeKeys),
			read: func(n *yaml.Node) { p.active(n, r) }},
		{name: "zone", doc: "Time zone of hour, weekday and active, such as Europe/Berlin. Default: the gateway's.", shape: textShape(maxName),
			read: func(n *yaml.Node) { r.Zone = p.zone(n) }},
		{name: "inhibit", doc: "Other alerts that keep this one from being notified while they fire.", shape: inhibitShape,
			read: func(n *yaml.Node) { p.inhibits(n, r) }},
		{name: "labels", doc: "Labels added to the alert, plain text.", shape: mapOf(scalarShape(maxText)), read: func(n *yaml.Node) { r.Labels = p.labels(n) }},
		{name: "annotations", doc: "Texts for people; {{ $value }} and {{ $labels.name }} are filled in.", shape: mapOf(textShape(maxText)),
			read: func(n *yaml.Node) { p.annotations(n, r) }},
		{name: "webhooks", doc: "Names of the webhooks to tell. Default: all.", shape: namesShape(1), read: func(n *yaml.Node) { p.webhooks(n, r) }},
		{name: "escalate", doc: "Who else is told when nobody acknowledges in time.", shape: escalateShape, read: func(n *yaml.Node) { p.escalate(n, r) }},
		{name: "record", later: "there are no recording rules: aggregates come from the sources in sluice.yaml"},
	}
}

func (p *parser) rule(n *yaml.Node) {
	faults := p.found
	r := &Rule{File: p.file, Line: n.Line}
	var at ruleNodes
	if !p.mapping(n, "a rule", p.ruleKeys(r, &at)) {
		return
	}
	if at.alert != nil {
		if first := p.set.byName[r.Alert]; first != nil {
			p.fail(at.alert, "alert: %s is already defined at %s:%d", quote(r.Alert), first.File, first.Line)
			return
		}
		p.set.byName[r.Alert] = r
	}
	if p.found == faults {
		p.oneCondition(n, &at)
	}
	if p.found > faults {
		return
	}
	if at.expr != nil {
		r.Expr = at.expr.Value
	}
	if at.clear != nil {
		r.Clear = at.clear.Value
	}
	if r.clear != nil { // clear may come before expr
		r.arrange(at.clear.Line < at.expr.Line || at.clear.Line == at.expr.Line && at.clear.Column < at.expr.Column)
	}
	r.define()
	p.set.rules = append(p.set.rules, r)
}

// oneCondition wants exactly one of expr, absent and anomaly.
func (p *parser) oneCondition(n *yaml.Node, at *ruleNodes) {
	switch {
	case at.expr == nil && at.absent == nil && at.anomaly == nil:
		p.fail(n, "a rule: the key expr is missing (or absent, or anomaly)")
	case at.absent != nil && (at.expr != nil || at.anomaly != nil):
		p.fail(at.absent, "absent: a rule has one condition: expr, absent or anomaly")
	case at.anomaly != nil && at.expr != nil:
		p.fail(at.anomaly, "anomaly: a rule has one condition: expr, absent or anomaly")
	case at.clear != nil && at.expr == nil:
		p.fail(at.clear, "clear: only a rule with expr has it; absent and anomaly end by themselves")
	}
}

// arrange brings the selectors of expr before those of clear.
func (r *Rule) arrange(clearFirst bool) {
	if k := len(r.clear.Feeds()); clearFirst {
		r.selectors = slices.Concat(r.selectors[k:], r.selectors[:k])
	}
}

func (p *parser) expr(n *yaml.Node, what string, r *Rule) (*yaml.Node, *expr.Program) {
	n, ok := p.text(n, what, expr.MaxSource)
	if !ok {
		return nil, nil
	}
	prog, errs := expr.Compile(n.Value)
	for _, e := range errs {
		hint := ""
		if n.Style == 0 && e.Msg == "no closing )" && strings.Contains(p.src.line(n.Line), n.Value+",") { // YAML has cut it at the comma
			hint = ": between { } an expression with a comma needs quotes"
		}
		p.failIn(n, e.Offset, "%s: %s%s", what, e.Msg, hint)
	}
	if prog == nil {
		return n, nil
	}
	for _, f := range prog.Feeds() {
		m, err := parseSelector(f.Selector)
		if err != nil {
			p.failIn(n, f.Offset+err.offset, "%s: %s", what, err.msg)
		}
		r.selectors = append(r.selectors, m)
	}
	for _, m := range prog.Mentions() {
		line, column := p.locate(n, m.Offset)
		r.mentions = append(r.mentions, mention{position{line, column}, m.Metric, m.Other})
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
