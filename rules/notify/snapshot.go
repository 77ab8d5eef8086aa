package notify

import (
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

// A snapshot, in the primitives of package telemetry (varints, length-prefixed strings, little-endian float64s); times are zigzag:
//
//	version 2 | now | wall | next | ignored
//	| n silences { id | match | starts at | ends at | created at | by | comment | ended by | state }
//	| n firings { fingerprint (8 bytes) | at }
//	| n alerts that fired of late { fingerprint (8 bytes) | n told { receiver | at } }, by fingerprint
//	| n groups { receiver (index) | labels | number | wake | repeat | flushed | gather | told }, by receiver, then number
//	| n entries { number | alert | labels | annotations | value | starts at | ends at | fired at | flags | n webhooks | steps | ack
//	              | log | n members { receiver (index) | flags | sent at } }, by number
//	| group by group: n changed { entry (index) }
//	| n ended alerts { ... }
//
// What silences an alert, when its next step is due and when a group is looked at follow from these, the receivers and the rules.
const snapshotVersion = 2

var errSnapshot = errors.New("notification snapshot is damaged")

// Snapshot appends the state to b. Policies with the same history append the same bytes.
func (p *Policy) Snapshot(b []byte) []byte {
	b = append(b, snapshotVersion)
	b = binary.AppendVarint(b, p.last.Now)
	b = binary.AppendVarint(b, p.last.Wall)
	b = binary.AppendUvarint(b, p.next)
	b = binary.AppendUvarint(b, p.ignored)
	b = binary.AppendUvarint(b, uint64(len(p.silences)))
	for _, s := range p.silences {
		b = s.append(b)
	}
	b = binary.AppendUvarint(b, uint64(len(p.firings)))
	for _, f := range p.firings {
		b = binary.AppendVarint(binary.LittleEndian.AppendUint64(b, f.fingerprint), f.at)
	}
	b = binary.AppendUvarint(b, uint64(len(p.flaps)))
	for _, fp := range slices.Sorted(maps.Keys(p.flaps)) {
		b = binary.LittleEndian.AppendUint64(b, fp)
		b = binary.AppendUvarint(b, uint64(len(p.flaps[fp].told)))
		for _, t := range p.flaps[fp].told {
			b = binary.AppendVarint(telemetry.AppendString(b, t.receiver), t.at)
		}
	}
	groups := p.groups()
	b = binary.AppendUvarint(b, uint64(len(groups)))
	for _, g := range groups {
		b = binary.AppendUvarint(b, uint64(slices.Index(p.receivers, g.receiver)))
		b = appendLabels(b, g.labels)
		b = binary.AppendUvarint(b, g.seq)
		for _, t := range [...]int64{g.wake, g.repeat, g.flushed, g.gather} {
			b = binary.AppendVarint(b, t)
		}
		b = append(b, flags(g.told))
	}
	entries := p.ordered()
	b = binary.AppendUvarint(b, uint64(len(entries)))
	number := make(map[*entry]uint64, len(entries))
	for i, e := range entries {
		number[e] = uint64(i)
		b = p.appendEntry(b, e)
	}
	for _, g := range groups {
		b = binary.AppendUvarint(b, uint64(len(g.changed)))
		for _, m := range g.changed {
			b = binary.AppendUvarint(b, number[m.entry])
		}
	}
	b = binary.AppendUvarint(b, uint64(len(p.recent)))
	for i := range p.recent {
		b = p.recent[i].append(b)
	}
	return b
}

func (p *Policy) groups() []*group {
	var list []*group
	for _, r := range p.receivers {
		first := len(list)
		for _, g := range r.groups {
			list = append(list, g)
		}
		slices.SortFunc(list[first:], func(a, b *group) int { return int(int64(a.seq) - int64(b.seq)) })
	}
	return list
}

func flags(set ...bool) (f byte) {
	for i, on := range set {
		if on {
			f |= 1 << i
		}
	}
	return f
}

func appendLabels(b []byte, l telemetry.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	return l.AppendKey(b)
}

func restoreLabels(d *telemetry.Decoder) telemetry.Labels {
	var l telemetry.Labels
	for range d.Count(2) {
		l = append(l, telemetry.Label{Name: d.String(), Value: d.String()})
	}
	return l
}

func (s *Silence) append(b []byte) []byte {
	b = telemetry.AppendString(b, s.ID)
	b = binary.AppendUvarint(b, uint64(len(s.Match)))
	for _, name := range slices.Sorted(maps.Keys(s.Match)) {
		b = telemetry.AppendString(telemetry.AppendString(b, name), s.Match[name])
	}
	for _, t := range [...]int64{s.StartsAt, s.EndsAt, s.CreatedAt} {
		b = binary.AppendVarint(b, t)
	}
	for _, text := range [...]string{s.By, s.Comment, s.EndedBy} {
		b = telemetry.AppendString(b, text)
	}
	return append(b, byte(s.State))
}

func restoreSilence(d *telemetry.Decoder) *Silence {
	s := &Silence{ID: d.String(), Match: map[string]string{}}
	for range d.Count(2) {
		name := d.String()
		s.Match[name] = d.String()
	}
	s.StartsAt, s.EndsAt, s.CreatedAt = d.Varint(), d.Varint(), d.Varint()
	s.By, s.Comment, s.EndedBy = d.String(), d.String(), d.String()
	s.State = SilenceState(d.Byte())
	var err error
	if s.matchers, err = rules.ParseMatchers(s.Match); err != nil || s.State > SilenceExpired {
		d.Fail()
	}
	return s
}

func (p *Policy) appendEntry(b []byte, e *entry) []byte {
	b = binary.AppendUvarint(b, e.seq)
	b = telemetry.AppendString(b, e.alert)
	b = appendLabels(b, e.labels)
	b = appendLabels(b, e.annotations)
	b = telemetry.AppendFloat(b, e.value)
	for _, t := range [...]int64{e.startsAt, e.endsAt, e.firedAt} {
		b = binary.AppendVarint(b, t)
	}
	b = append(b, flags(e.firing, e.inhibited, e.all))
	b = binary.AppendUvarint(b, uint64(len(e.webhooks)))
	for _, w := range e.webhooks {
		b = telemetry.AppendString(b, w)
	}
	b = binary.AppendUvarint(b, uint64(e.steps))
	b = e.ack.append(b)
	b = appendLog(b, e.log)
	b = binary.AppendUvarint(b, uint64(len(e.members)))
	for _, m := range e.members {
		b = binary.AppendUvarint(b, uint64(slices.Index(p.receivers, m.group.receiver)))
		b = append(b, flags(m.told, m.escalated))
		b = binary.AppendVarint(b, m.sentAt)
	}
	return b
}

func (a *Ack) append(b []byte) []byte {
	if a == nil {
		return append(b, 0)
	}
	b = telemetry.AppendString(append(b, 1), a.By)
	return binary.AppendVarint(telemetry.AppendString(b, a.Comment), a.At)
}

func restoreAck(d *telemetry.Decoder) *Ack {
	if d.Byte() == 0 {
		return nil
	}
	return &Ack{By: d.String(), Comment: d.String(), At: d.Varint()}
}

func appendLog(b []byte, log []Sent) []byte {
	b = binary.AppendUvarint(b, uint64(len(log)))
	for _, s := range log {
		b = telemetry.AppendString(binary.AppendVarint(b, s.Time), s.Receiver)
		b = append(b, byte(s.Reason), flags(s.Firing))
	}
	return b
}

func restoreLog(d *telemetry.Decoder) []Sent {
	var log []Sent
	for range d.Count(4) {
		log = append(log, Sent{Time: d.Varint(), Receiver: d.String(), Reason: Reason(d.Byte()), Firing: d.Byte() != 0})
	}
	return log
}

func (r *Past) append(b []byte) []byte {
	b = telemetry.AppendString(b, r.Alert)
	b = appendLabels(b, r.Labels)
	b = appendLabels(b, r.Annotations)
	b = telemetry.AppendFloat(b, r.Value)
	b = binary.AppendVarint(binary.AppendVarint(b, r.StartsAt), r.EndsAt)
	b = telemetry.AppendString(b, r.Silence)
	b = append(b, flags(r.Inhibited))
	return appendLog(r.Ack.append(b), r.Log)
}

func restorePast(d *telemetry.Decoder) Past {
	r := Past{Alert: d.String(), Labels: restoreLabels(d), Annotations: restoreLabels(d), Value: d.Float(), StartsAt: d.Varint(), EndsAt: d.Varint(),
		Silence: d.String(), Inhibited: d.Byte() != 0, Ack: restoreAck(d), Log: restoreLog(d)}
	r.Fingerprint = rules.Fingerprint(r.Labels)
	return r
}

// Restore reads what Snapshot wrote, under the receivers and the rules that were in force then.
func Restore(b []byte, receivers []Receiver, set *rules.Set) (*Policy, error) {
	d := telemetry.NewDecoder(b)
	if d.Byte() != snapshotVersion {
		return nil, errSnapshot
	}
	p := New()
	p.set = set
	p.use(receivers)
	p.last = Time{Now: d.Varint(), Wall: d.Varint()}
	p.next, p.ignored = d.Uvarint(), d.Uvarint()
	for range d.Count(10) {
		p.silences = append(p.silences, restoreSilence(d))
	}
	for range d.Count(9) {
		f := firing{d.Uint64(), d.Varint()}
		p.firings = append(p.firings, f)
		if p.flaps[f.fingerprint] == nil {
			p.flaps[f.fingerprint] = &flaps{}
		}
		p.flaps[f.fingerprint].count++
	}
	for range d.Count(9) {
		f := p.flaps[d.Uint64()]
		if f == nil {
			return nil, errSnapshot
		}
		for range d.Count(2) {
			f.told = append(f.told, toldAt{d.String(), d.Varint()})
		}
	}
	groups, ok := p.restoreGroups(d)
	if !ok || !p.restoreEntries(d, groups) {
		return nil, errSnapshot
	}
	for range d.Count(10) {
		p.recent = append(p.recent, restorePast(d))
	}
	if d.Err() != nil || len(d.Rest()) > 0 {
		return nil, errSnapshot
	}
	return p, nil
}

func (p *Policy) restoreGroups(d *telemetry.Decoder) (groups []*group, ok bool) {
	for range d.Count(8) {
		at := d.Uvarint()
		if at >= uint64(len(p.receivers)) {
			return nil, false
		}
		g := &group{receiver: p.receivers[at], labels: restoreLabels(d), timer: timer{heap: idle, seq: d.Uvarint()}, wake: d.Varint(),
			repeat: d.Varint(), flushed: d.Varint(), gather: d.Varint(), told: d.Byte() != 0}
		g.timer.group = g
		g.key = string(g.labels.AppendKey(nil))
		if g.receiver.groups[g.key] != nil {
			return nil, false
		}
		g.receiver.groups[g.key] = g
		groups = append(groups, g)
	}
	return groups, d.Err() == nil
}

func (p *Policy) restoreEntries(d *telemetry.Decoder, groups []*group) bool {
	var entries []*entry
	for range d.Count(16) {
		e := p.restoreEntry(d)
		if e == nil || d.Err() != nil || p.entries[e.fingerprint] != nil {
			return false
		}
		p.entries[e.fingerprint] = e
		entries = append(entries, e)
	}
	if len(p.groups()) != len(groups) { // a member made one
		return false
	}
	for _, g := range groups {
		for range d.Count(1) {
			at := d.Uvarint()
			if at >= uint64(len(entries)) {
				return false
			}
			m := memberOf(entries[at].members, g.receiver.Name)
			if m == nil || m.group != g || m.changed {
				return false
			}
			m.changed = true
			g.changed = append(g.changed, m)
		}
		if len(g.members) == 0 {
			return false
		}
		p.arm(g)
	}
	for _, e := range entries {
		p.armEscalation(e)
	}
	return d.Err() == nil
}

func (p *Policy) restoreEntry(d *telemetry.Decoder) *entry {
	e := &entry{timer: timer{heap: idle, seq: d.Uvarint()}, alert: d.String(), labels: restoreLabels(d), annotations: restoreLabels(d), value: d.Float(),
		startsAt: d.Varint(), endsAt: d.Varint(), firedAt: d.Varint()}
	e.timer.entry = e
	e.fingerprint = rules.Fingerprint(e.labels)
	f := d.Byte()
	e.firing, e.inhibited, e.all = f&1 != 0, f&2 != 0, f&4 != 0
	if n := d.Count(1); n > 0 || !e.all {
		e.webhooks = make([]string, 0, n)
		for range n {
			e.webhooks = append(e.webhooks, d.String())
		}
	}
	e.steps = int(min(d.Uvarint(), 1<<20))
	e.ack, e.log = restoreAck(d), restoreLog(d)
	p.ruled(e)
	e.steps = min(e.steps, len(e.escalate))
	e.silence = p.silenceOf(e)
	for range d.Count(3) {
		at := d.Uvarint()
		if at >= uint64(len(p.receivers)) || memberOf(e.members, p.receivers[at].Name) != nil {
			return nil
		}
		m := p.enlist(e, p.receivers[at])
		f := d.Byte()
		m.told, m.escalated, m.sentAt = f&1 != 0, f&2 != 0, d.Varint()
	}
	return e
}
