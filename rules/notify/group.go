package notify

import (
	"slices"
	"strings"
	"time"

	"sluice/gateway/telemetry"
)

// group is the alerts that one receiver is told of together.
type group struct {
	timer
	receiver *receiver
	key      string
	labels   telemetry.Labels
	members  []*member // by the entries' sequence numbers
	changed  []*member // with something to tell, in the order it came up
	wake     int64     // Time.Now at which changed may be told; never while it is empty
	repeat   int64     // Time.Now of the next look for repeats; never while nothing was told
	flushed  int64     // Time.Now of the last notification of changes
	told     bool      // flushed means something
	gather   int64     // Time.Now until which devices that fell silent wait for others; past: nobody waits
}

// member is one alert as one receiver knows it.
type member struct {
	entry     *entry
	group     *group
	told      bool  // the receiver knows it as firing
	escalated bool  // to be told, again where it knows, because nobody acknowledged in time
	changed   bool  // it is in group.changed
	sentAt    int64 // Time.Now of the last notification
}

// wants tells whether the receiver is to be told of a change. An end is told to whoever knows of the beginning, whatever is muted;
// what ended before it was told is not mentioned.
func (m *member) wants() bool {
	if m.entry.firing {
		return (!m.told || m.escalated) && !m.entry.muted()
	}
	return m.told
}

func memberOf(list []*member, receiver string) *member {
	for _, m := range list {
		if m.group.receiver.Name == receiver {
			return m
		}
	}
	return nil
}

// enlist puts an alert into its group at a receiver.
func (p *Policy) enlist(e *entry, r *receiver) *member {
	labels := groupLabels(e.labels, r.GroupBy)
	key := string(labels.AppendKey(nil))
	g := r.groups[key]
	if g == nil {
		g = &group{timer: timer{heap: idle, seq: p.number()}, receiver: r, key: key, labels: labels, wake: never, repeat: never}
		g.timer.group = g
		r.groups[key] = g
	}
	m := &member{entry: e, group: g}
	at, _ := slices.BinarySearchFunc(g.members, e.seq, bySequence)
	g.members = slices.Insert(g.members, at, m)
	place := slices.IndexFunc(p.receivers, func(x *receiver) bool { return x == r })
	at = len(e.members)
	for i, other := range e.members {
		if slices.Index(p.receivers, other.group.receiver) > place {
			at = i
			break
		}
	}
	e.members = slices.Insert(e.members, at, m)
	return m
}

func bySequence(m *member, seq uint64) int {
	switch {
	case m.entry.seq < seq:
		return -1
	case m.entry.seq > seq:
		return 1
	}
	return 0
}

// leave takes an alert out of its group; an empty group is forgotten.
func (p *Policy) leave(m *member) {
	g := m.group
	if at, ok := slices.BinarySearchFunc(g.members, m.entry.seq, bySequence); ok {
		g.members = slices.Delete(g.members, at, at+1)
	}
	if m.changed {
		g.changed = slices.DeleteFunc(g.changed, func(x *member) bool { return x == m })
		m.changed = false
	}
	if len(g.members) == 0 {
		p.stop(&g.timer)
		delete(g.receiver.groups, g.key)
	}
}

func groupLabels(labels telemetry.Labels, by []string) telemetry.Labels {
	if slices.Contains(by, AllLabels) {
		return labels
	}
	pairs := make([]telemetry.Label, 0, len(by))
	for _, name := range by {
		pairs = append(pairs, telemetry.Label{Name: name, Value: strings.Clone(labels.Get(name))})
	}
	return telemetry.NewLabels(pairs...)
}

// ready is when a change that comes up now may be told.
func (g *group) ready(now int64) int64 {
	if !g.told {
		return later(now, g.receiver.GroupWait)
	}
	return max(now, later(g.flushed, g.receiver.GroupInterval))
}

// repeatBy makes sure that what m was told is told again in time; the caller arms the group.
func (g *group) repeatBy(m *member) {
	if d := g.receiver.RepeatInterval; d > 0 && m.told && m.entry.firing {
		g.repeat = min(g.repeat, later(m.sentAt, d))
	}
}

func (p *Policy) arm(g *group) {
	p.stop(&g.timer)
	if due := min(g.wake, g.repeat); due != never {
		p.start(&g.timer, due)
	}
}

// serve does what a group's timer ran out for.
func (p *Policy) serve(g *group) {
	if g.wake <= p.last.Now {
		p.flush(g)
	}
	if g.repeat <= p.last.Now && len(g.members) > 0 {
		p.repeatNow(g)
	}
	if len(g.members) > 0 {
		p.arm(g)
	}
}

// flush tells what changed, as far as nothing holds it back.
func (p *Policy) flush(g *group) {
	held, wake := []*member(nil), int64(never)
	byReason := map[Reason][]*member{}
	for _, m := range g.changed {
		if !m.wants() {
			m.changed = false
			continue
		}
		if until := p.heldUntil(m); until > p.last.Now {
			held, wake = append(held, m), min(wake, until)
			continue
		}
		m.changed = false
		reason := Changed
		if m.escalated && m.entry.firing {
			reason = Escalated
		}
		byReason[reason] = append(byReason[reason], m)
	}
	g.changed, g.wake = held, wake
	for _, reason := range [...]Reason{Changed, Escalated} {
		if list := byReason[reason]; len(list) > 0 {
			g.told, g.flushed = true, p.last.Now
			p.tell(g, list, reason)
		}
	}
	if len(g.members) > 0 {
		p.arm(g)
	}
}

// gatherSilent has a device that fell silent wait for others: of a site that goes dark each device is found silent in its own moment
// of its interval. A receiver with a wait of its own gathers by that.
func (p *Policy) gatherSilent(e *entry) {
	wait := min(time.Duration(e.value*float64(time.Second))/silentShare, maxGather)
	for _, m := range e.members {
		if m.told && !m.escalated {
			continue
		}
		if g := m.group; g.gather <= p.last.Now && g.receiver.GroupWait == 0 && wait > 0 {
			g.gather = later(p.last.Now, wait)
		}
	}
}

// A device is told of after a third of its silence again, at most 10 s: 3x its interval is what most rules allow, and the others of
// its site fall silent within one interval.
const (
	silentShare = 3
	maxGather   = 10 * time.Second
)

// heldUntil is when a member may be told of: one that gathers, or one that flaps.
func (p *Policy) heldUntil(m *member) int64 {
	if e := m.entry; e.silent && e.firing && (!m.told || m.escalated) && m.group.gather > p.last.Now {
		return m.group.gather
	}
	floor := m.group.receiver.FlapFloor
	f := p.flaps[m.entry.fingerprint]
	if floor == 0 || f == nil || f.count < FlapCount {
		return -never
	}
	for i := range f.told {
		if f.told[i].receiver == m.group.receiver.Name {
			return later(f.told[i].at, floor)
		}
	}
	return -never
}

// repeatNow tells again what was told longer than the repeat interval ago and still fires, unless somebody looks after it.
func (p *Policy) repeatNow(g *group) {
	var list []*member
	g.repeat = never
	for _, m := range g.members {
		if !m.told || !m.entry.firing || m.entry.ack != nil {
			continue
		}
		if due := later(m.sentAt, g.receiver.RepeatInterval); due > p.last.Now {
			g.repeat = min(g.repeat, due)
		} else if m.entry.muted() {
			m.sentAt = p.last.Now // looked at again in an interval
			g.repeatBy(m)
		} else {
			list = append(list, m)
		}
	}
	if len(list) > 0 {
		p.tell(g, list, Repeated)
	}
}

// tell puts out one notification, or several where the bounds ask for it.
func (p *Policy) tell(g *group, list []*member, reason Reason) {
	p.changed = true
	changes := len(list)
	if g.receiver.WholeGroup {
		for _, m := range g.members {
			if m.told && m.entry.firing && !m.entry.muted() && !slices.Contains(list[:changes], m) {
				list = append(list, m)
			}
		}
	}
	for len(list) > 0 {
		n := &Notification{Receiver: g.receiver.Name, Reason: reason, Time: p.last.Wall, Group: g.labels}
		size, k := 0, 0
		for k < len(list) && k < maxAlerts && (k == 0 || size < maxSize) {
			a := p.alert(list[k].entry)
			size += 200 + sizeOf(a.Labels) + sizeOf(a.Annotations)
			n.Alerts = append(n.Alerts, a)
			k++
		}
		p.emit(n)
		for _, m := range list[:k] {
			p.toldOf(m, reason)
		}
		list = list[k:]
	}
}

// toldOf notes that a receiver knows.
func (p *Policy) toldOf(m *member, reason Reason) {
	e := m.entry
	m.told, m.escalated, m.sentAt = e.firing, false, p.last.Now
	if len(e.log) >= maxLog {
		e.log = slices.Delete(e.log, 0, len(e.log)-maxLog+1)
	}
	e.log = append(e.log, Sent{Time: p.last.Wall, Receiver: m.group.receiver.Name, Reason: reason, Firing: e.firing})
	if f := p.flaps[e.fingerprint]; f != nil {
		f.note(m.group.receiver.Name, p.last.Now)
	}
	m.group.repeatBy(m)
	p.retire(e)
}

func sizeOf(l telemetry.Labels) (n int) {
	for i := range l {
		n += len(l[i].Name) + len(l[i].Value) + 6
	}
	return n
}

func (p *Policy) alert(e *entry) Alert {
	a := Alert{Firing: e.firing, Labels: e.labels, Annotations: e.annotations, Value: e.value, StartsAt: e.startsAt, EndsAt: e.endsAt,
		Fingerprint: e.fingerprint}
	if f := p.flaps[e.fingerprint]; f != nil && f.count >= FlapCount {
		a.Flaps = f.count
	}
	return a
}

// countFiring remembers a firing for FlapWindow.
func (p *Policy) countFiring(e *entry) {
	if len(p.firings) >= maxFirings {
		p.dropFiring()
	}
	p.firings = append(p.firings, firing{e.fingerprint, p.last.Now})
	f := p.flaps[e.fingerprint]
	if f == nil {
		f = &flaps{}
		p.flaps[e.fingerprint] = f
	}
	f.count++
}

func (p *Policy) forgetFirings() {
	for len(p.firings) > 0 && later(p.firings[0].at, FlapWindow) <= p.last.Now {
		p.dropFiring()
	}
}

func (p *Policy) dropFiring() {
	f := p.flaps[p.firings[0].fingerprint]
	if f.count--; f.count == 0 {
		delete(p.flaps, p.firings[0].fingerprint)
	}
	p.firings = p.firings[1:]
}

func (f *flaps) note(receiver string, at int64) {
	for i := range f.told {
		if f.told[i].receiver == receiver {
			f.told[i].at = at
			return
		}
	}
	f.told = append(f.told, toldAt{receiver, at})
}
