package rules

import (
	"cmp"
	"slices"

	"sluice/gateway/telemetry"
)

// Inhibit keeps an alert from being notified while an alert of another rule fires whose labels named in Equal have the same
// values; a label that both lack is equal. Both alerts go through their states as usual, and both are shown.
type Inhibit struct {
	When  string // name of the other rule's alert
	Equal []string
}

// guard is one Inhibit of one rule as the engine keeps it.
type guard struct {
	alert   string // the one that is inhibited
	inhibit Inhibit
	firing  map[string]int           // by values of the equal labels: alerts of When that fire
	held    map[string][]*occurrence // by the same: firing alerts of the rule
}

func (e *Engine) useGuards(set *Set) {
	e.guards = nil
	for _, r := range set.rules {
		for _, i := range r.Inhibit {
			e.guards = append(e.guards, &guard{alert: r.Alert, inhibit: i, firing: map[string]int{}, held: map[string][]*occurrence{}})
		}
	}
}

func (g *guard) key(labels telemetry.Labels) string {
	var b []byte
	for _, name := range g.inhibit.Equal {
		b = telemetry.AppendString(b, labels.Get(name))
	}
	return string(b)
}

// enter counts an alert that fires. What it inhibits keeps its state.
func (e *Engine) enter(o *occurrence) {
	for _, g := range e.guards {
		name := o.alerts[0].rule.Alert
		if g.alert == name {
			k := g.key(o.alerts[0].labels)
			g.held[k] = append(g.held[k], o)
		}
		if g.inhibit.When == name {
			g.firing[g.key(o.alerts[0].labels)]++
		}
	}
}

// exit is the opposite of enter. labels are the alert's. It returns what may be notified now.
func (e *Engine) exit(o *occurrence, name string, labels telemetry.Labels) (freed []*occurrence) {
	for _, g := range e.guards {
		if g.alert == name {
			k := g.key(labels)
			if g.held[k] = slices.DeleteFunc(g.held[k], func(x *occurrence) bool { return x == o }); len(g.held[k]) == 0 {
				delete(g.held, k)
			}
		}
		if g.inhibit.When == name {
			k := g.key(labels)
			if g.firing[k]--; g.firing[k] == 0 {
				delete(g.firing, k)
				freed = append(freed, g.held[k]...)
			}
		}
	}
	return freed
}

// inhibited tells whether notifications of an alert are withheld now.
func (e *Engine) inhibited(name string, labels telemetry.Labels) bool {
	return slices.ContainsFunc(e.guards, func(g *guard) bool { return g.alert == name && g.firing[g.key(labels)] > 0 })
}

// notifyFreed tells of alerts that still fire at the end of a call, were withheld, and are not inhibited any more.
func (e *Engine) notifyFreed(emit func(*Event)) {
	if len(e.freed) == 0 {
		return
	}
	list := slices.DeleteFunc(e.freed, func(o *occurrence) bool { return len(o.alerts) == 0 || o.notified })
	slices.SortFunc(list, func(a, b *occurrence) int { return a.lead().compare(b.lead()) })
	for _, o := range slices.Compact(list) {
		a := o.lead()
		if e.inhibited(a.rule.Alert, a.labels) {
			continue
		}
		o.notified = true
		emit(a.event(Firing, e.valueOf(a)))
	}
	clear(e.freed)
	e.freed = e.freed[:0]
}

// lead is the alert that stands for an occurrence: the one whose device came first.
func (o *occurrence) lead() *alert {
	return slices.MinFunc(o.alerts, func(a, b *alert) int { return a.compare(b) })
}

// compare orders alerts by their devices' first values, then by rule.
func (a *alert) compare(b *alert) int {
	if c := cmp.Compare(a.subject.order, b.subject.order); c != 0 {
		return c
	}
	return cmp.Compare(a.place, b.place)
}

// regroup builds the guards' state anew from the alerts that fire.
func (e *Engine) regroup(set *Set) {
	e.useGuards(set)
	if len(e.guards) == 0 {
		return
	}
	e.eachFiring(func(o *occurrence) { e.enter(o) })
}

// eachFiring visits every occurrence once, in the order of devices and rules.
func (e *Engine) eachFiring(do func(o *occurrence)) {
	for _, s := range e.active {
		for _, a := range s.alerts {
			if a == nil || a.state != Firing {
				continue
			}
			e.scratch = a.labels.AppendKey(e.scratch[:0])
			if o := e.shared[string(e.scratch)]; o.lead() == a {
				do(o)
			}
		}
	}
}
