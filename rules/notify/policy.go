package notify

import (
	"container/heap"
	"slices"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

// Policy is the state of everything that was told and will be told. One goroutine owns it.
type Policy struct {
	receivers []*receiver
	set       *rules.Set
	entries   map[uint64]*entry // by fingerprint: what fires, and what ended and is still to be told
	next      uint64            // sequence number of the next entry or group
	timers    timers
	silences  []*Silence // by creation
	firings   []firing   // oldest first
	flaps     map[uint64]*flaps
	recent    []Past // newest last
	ignored   uint64 // commands that had nothing to act on
	last      Time
	changed   bool // since the last View
	view      *View
	emit      Emit // of the call at hand
}

type receiver struct {
	Receiver
	groups map[string]*group // by key
}

// entry is one alert.
type entry struct {
	timer
	fingerprint uint64
	alert       string
	labels      telemetry.Labels
	annotations telemetry.Labels
	value       float64
	startsAt    int64 // wall
	endsAt      int64 // wall
	firedAt     int64 // Time.Now
	firing      bool
	inhibited   bool
	silent      bool // its rule is about silence
	all         bool // every receiver but those it only escalates to
	webhooks    []string
	escalate    []rules.Escalation
	steps       int // of escalate that were taken
	ack         *Ack
	silence     *Silence  // in force, the first that matches; derived from the silences
	members     []*member // in the order of receivers
	log         []Sent    // newest last
}

// Ack is somebody's word that they look after an alert. It holds until the alert resolves.
type Ack struct {
	By      string
	Comment string
	At      int64 // wall, ns
}

// Sent is one notification as an alert's log shows it.
type Sent struct {
	Time     int64 // wall, ns
	Receiver string
	Reason   Reason
	Firing   bool
}

// firing is one moment at which an alert fired.
type firing struct {
	fingerprint uint64
	at          int64 // Time.Now
}

// flaps is what outlives an occurrence: how often the alert fired of late, and when each receiver was told.
type flaps struct {
	count int
	told  []toldAt
}

type toldAt struct {
	receiver string
	at       int64 // Time.Now
}

// New returns a policy without receivers: alerts are known and nobody is told.
func New() *Policy {
	return &Policy{entries: map[uint64]*entry{}, flaps: map[uint64]*flaps{}, last: Time{Now: -never, Wall: -never}, set: &rules.Set{}}
}

// begin starts a call's work: time moves on.
func (p *Policy) begin(t Time, emit Emit) {
	t.Now = max(t.Now, p.last.Now)
	p.last, p.emit = t, emit
	p.forgetFirings()
	p.turnSilences()
}

// Configure puts receivers and rules in force. A receiver keeps what it was told; one that is new is told what fires and concerns it.
func (p *Policy) Configure(t Time, receivers []Receiver, set *rules.Set, emit Emit) {
	p.begin(t, emit)
	p.changed = true
	p.set = set
	p.use(receivers)
	for _, e := range p.ordered() {
		told := e.members
		e.members = nil
		for _, r := range p.receivers {
			old := memberOf(told, r.Name)
			if old != nil || e.firing && e.concerns(r.Name) {
				m := p.enlist(e, r)
				if old != nil {
					m.told, m.sentAt, m.escalated = old.told, old.sentAt, old.escalated
					m.group.repeatBy(m)
					p.arm(m.group)
				}
			}
		}
		p.review(e)
		p.retire(e)
	}
	p.runOut()
}

func (p *Policy) use(receivers []Receiver) {
	for _, r := range p.receivers {
		for _, g := range r.groups {
			p.stop(&g.timer)
		}
	}
	p.receivers = p.receivers[:0]
	for _, r := range receivers {
		p.receivers = append(p.receivers, &receiver{Receiver: r, groups: map[string]*group{}})
	}
}

// Take folds in the transitions of one record and lets timers run out.
func (p *Policy) Take(t Time, events []rules.Event, emit Emit) {
	p.begin(t, emit)
	for i := range events {
		p.changed = true
		if ev := &events[i]; ev.State == rules.Firing {
			p.fire(ev)
		} else {
			p.resolve(ev)
		}
	}
	p.runOut()
}

// Tick lets timers run out.
func (p *Policy) Tick(t Time, emit Emit) { p.Take(t, nil, emit) }

func (p *Policy) fire(ev *rules.Event) {
	e := p.entries[ev.Fingerprint]
	if e != nil {
		p.settle(e)
		e = p.entries[ev.Fingerprint] // gone where everybody was told of its end
	}
	if e != nil && e.firing { // not inhibited any more
		if e.inhibited != ev.Inhibited {
			e.inhibited = ev.Inhibited
			p.review(e)
		}
		return
	}
	if e == nil {
		e = &entry{timer: timer{heap: idle, seq: p.number()}, fingerprint: ev.Fingerprint, alert: ev.Alert, labels: ev.Labels}
		e.timer.entry = e
		p.entries[ev.Fingerprint] = e
	}
	e.annotations, e.value, e.startsAt, e.endsAt = ev.Annotations, ev.Value, ev.StartsAt, 0
	e.firedAt, e.firing, e.inhibited = p.last.Now, true, ev.Inhibited
	e.all, e.webhooks = ev.Webhooks == nil, ev.Webhooks
	e.ack, e.steps = nil, 0
	p.ruled(e)
	e.silence = p.silenceOf(e)
	for _, m := range e.members {
		m.escalated = false
	}
	p.countFiring(e)
	p.armEscalation(e)
	for _, r := range p.receivers {
		if e.concerns(r.Name) && memberOf(e.members, r.Name) == nil {
			p.enlist(e, r)
		}
	}
	if e.silent {
		p.gatherSilent(e)
	}
	p.review(e)
}

// ruled takes over what the alert's rule says.
func (p *Policy) ruled(e *entry) {
	e.escalate, e.silent = nil, false
	if r := p.set.Rule(e.alert); r != nil {
		e.escalate, e.silent = r.Escalate, r.Absent != nil
	}
}

func (p *Policy) resolve(ev *rules.Event) {
	e := p.entries[ev.Fingerprint]
	if e == nil || !e.firing {
		return
	}
	p.settle(e)
	e.firing, e.value, e.annotations = false, ev.Value, ev.Annotations
	e.endsAt = max(ev.EndsAt, e.startsAt) // the wall clock may have been set back meanwhile
	p.stop(&e.timer)
	p.review(e)
	p.retire(e)
}

// concerns tells whether the rule tells this receiver at once.
func (e *entry) concerns(name string) bool {
	if !e.all {
		return slices.Contains(e.webhooks, name)
	}
	return !slices.ContainsFunc(e.escalate, func(s rules.Escalation) bool { return slices.Contains(s.To, name) })
}

func (e *entry) muted() bool { return e.silence != nil || e.inhibited }

// review notes for each receiver whether there is something to tell.
func (p *Policy) review(e *entry) {
	for _, m := range e.members {
		if m.wants() && !m.changed {
			m.changed = true
			m.group.changed = append(m.group.changed, m)
			if at := max(m.group.ready(p.last.Now), p.heldUntil(m)); at < m.group.wake { // what is held back holds back nothing else
				m.group.wake = at
				p.arm(m.group)
			}
		}
	}
}

// settle tells what could be told before an alert changes again, so that each transition is told where no wait is configured.
func (p *Policy) settle(e *entry) {
	for _, m := range e.members {
		if m.changed && m.wants() && m.group.wake <= p.last.Now && p.heldUntil(m) <= p.last.Now {
			p.flush(m.group)
		}
	}
}

// retire forgets an alert that ended and that nobody is to be told of any more.
func (p *Policy) retire(e *entry) {
	if e.firing || slices.ContainsFunc(e.members, func(m *member) bool { return m.wants() }) {
		return
	}
	for _, m := range e.members {
		p.leave(m)
	}
	e.members = nil
	p.stop(&e.timer)
	delete(p.entries, e.fingerprint)
	if len(p.recent) >= maxRecent {
		p.recent = slices.Delete(p.recent, 0, len(p.recent)-maxRecent+1)
	}
	p.recent = append(p.recent, e.past())
}

// armEscalation starts the timer of the next step.
func (p *Policy) armEscalation(e *entry) {
	p.stop(&e.timer)
	if e.firing && e.ack == nil && e.steps < len(e.escalate) {
		p.start(&e.timer, later(e.firedAt, e.escalate[e.steps].After))
	}
}

// escalateNow takes the step that is due. Of a silenced or inhibited alert its receivers are told once it is not muted.
func (p *Policy) escalateNow(e *entry) {
	step := e.escalate[e.steps]
	e.steps++
	p.changed = true
	for _, r := range p.receivers {
		if !slices.Contains(step.To, r.Name) {
			continue
		}
		m := memberOf(e.members, r.Name)
		if m == nil {
			m = p.enlist(e, r)
		}
		m.escalated = true
	}
	if e.silent {
		p.gatherSilent(e)
	}
	p.review(e)
	p.armEscalation(e)
}

// runOut serves every timer that is due, entries before groups at one time, each in order of creation.
func (p *Policy) runOut() {
	for len(p.timers) > 0 && p.timers[0].due <= p.last.Now {
		t := p.timers[0]
		heap.Pop(&p.timers)
		if t.entry != nil {
			p.escalateNow(t.entry)
			continue
		}
		p.serve(t.group)
	}
}

func (p *Policy) number() uint64 {
	p.next++
	return p.next
}

// ordered lists the entries by their first firing.
func (p *Policy) ordered() []*entry {
	list := make([]*entry, 0, len(p.entries))
	for _, e := range p.entries {
		list = append(list, e)
	}
	slices.SortFunc(list, func(a, b *entry) int { return int(int64(a.seq) - int64(b.seq)) })
	return list
}

// Due is the earliest Time.Now at which Tick would do something, or math.MaxInt64.
func (p *Policy) Due() int64 {
	due := p.silencesDue()
	if len(p.timers) > 0 {
		due = min(due, p.timers[0].due)
	}
	return due
}
