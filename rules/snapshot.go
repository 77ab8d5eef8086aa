package rules

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"sluice/gateway/telemetry"
)

// A snapshot, in the primitives of package telemetry (varints, length-prefixed strings, little-endian float64s):
//
//	version 3 | fingerprint of the set (8 bytes, little-endian) | now (zigzag) | wall offset (zigzag)
//	| sweep by sweep: next last (zigzag)
//	| feed by feed: 0, or 1 time (zigzag) value (f64)
//	| n devices { 0, or 1 + number of the rule that expects it | measurement | n labels {name value}
//	              | metric by metric: 0, or 1 time (zigzag) value (f64) | windows | watches | detectors
//	              | n alerts { place | 0 pending, 1 firing, 2 ending, +4 notified | active at (zigzag) | value (f64)
//	                           | unless pending: starts at (zigzag, wall clock) | n annotations {name value}
//	                           | if ending: ending since (zigzag) } }
//
// Devices come in the order of their first values. Which metrics and rules there are follows from the set and the labels.
const snapshotVersion = 3

const (
	pendingCode byte = iota
	firingCode
	endingCode

	notifiedBit = 4
)

var (
	errSnapshot = errors.New("rule snapshot is damaged")

	// ErrOtherSet is what Restore returns for a snapshot taken under other rules.
	ErrOtherSet = errors.New("rule snapshot was taken under another set of rules")
)

// Snapshot appends the state of the engine to b. Engines with the same history append the same bytes.
func (e *Engine) Snapshot(b []byte) []byte {
	b = append(b, snapshotVersion)
	b = binary.LittleEndian.AppendUint64(b, e.set.Fingerprint())
	b = binary.AppendVarint(b, e.now)
	b = binary.AppendVarint(b, e.wall)
	for i := range e.sweeps {
		b = binary.AppendVarint(b, e.sweeps[i].next)
		b = binary.AppendVarint(b, e.sweeps[i].last)
	}
	for i := range e.feeds {
		b = appendValue(b, e.feeds[i].Time, e.feeds[i].Value)
	}
	b = binary.AppendUvarint(b, uint64(len(e.active)))
	for _, s := range e.active {
		b = e.appendSubject(b, s)
	}
	return b
}

// appendValue appends 0 for a value that is not known.
func appendValue(b []byte, t int64, v float64) []byte {
	if v != v {
		return append(b, 0)
	}
	return telemetry.AppendFloat(binary.AppendVarint(append(b, 1), t), v)
}

func restoreValue(d *telemetry.Decoder) (t int64, v float64, ok bool) {
	switch d.Byte() {
	case 0:
		return 0, math.NaN(), d.Err() == nil
	case 1:
		t, v = d.Varint(), d.Float()
		return t, v, finite(v)
	}
	return 0, 0, false
}

func (e *Engine) appendSubject(b []byte, s *Subject) []byte {
	expects := 0
	if s.expects != nil {
		expects = 1 + slices.Index(e.set.rules, s.expects)
	}
	b = binary.AppendUvarint(b, uint64(expects))
	b = telemetry.AppendString(b, s.measurement)
	b = appendLabels(b, s.labels)
	alerts := 0
	for _, a := range s.alerts {
		if a != nil {
			alerts++
		}
	}
	for k, v := range s.values {
		b = appendValue(b, s.times[k], v)
	}
	if p := s.parts; p != nil {
		for i := range p.windows {
			b = p.windows[i].Snapshot(b)
		}
		for _, w := range p.watches {
			b = w.snapshot(b)
		}
		for i := range p.detections {
			b = p.detections[i].snapshot(b)
		}
	}
	b = binary.AppendUvarint(b, uint64(alerts))
	for _, a := range s.alerts {
		if a != nil {
			b = e.appendAlert(b, a)
		}
	}
	return b
}

func (e *Engine) appendAlert(b []byte, a *alert) []byte {
	b = binary.AppendUvarint(b, uint64(a.place))
	code := pendingCode
	switch {
	case a.ending:
		code = endingCode
	case a.state == Firing:
		code = firingCode
	}
	flags := code
	if code != pendingCode {
		e.scratch = a.labels.AppendKey(e.scratch[:0])
		if e.shared[string(e.scratch)].notified {
			flags |= notifiedBit
		}
	}
	b = append(b, flags)
	b = binary.AppendVarint(b, a.activeAt)
	b = telemetry.AppendFloat(b, a.value)
	if code == pendingCode {
		return b
	}
	b = binary.AppendVarint(b, a.startsAt)
	b = appendLabels(b, a.annotations)
	if code == endingCode {
		b = binary.AppendVarint(b, a.endingSince)
	}
	return b
}

func appendLabels(b []byte, l telemetry.Labels) []byte {
	b = binary.AppendUvarint(b, uint64(len(l)))
	return l.AppendKey(b)
}

// Restore replaces the state of the engine by a snapshot's. The engine must run the set the snapshot was taken under, else
// ErrOtherSet; Reload can follow. On an error the engine is as before.
func (e *Engine) Restore(b []byte) error {
	d := telemetry.NewDecoder(b)
	if v := d.Byte(); v != snapshotVersion {
		return fmt.Errorf("rule snapshot has version %d, want %d", v, snapshotVersion)
	}
	if d.Uint64() != e.set.Fingerprint() {
		if d.Err() != nil {
			return errSnapshot
		}
		return ErrOtherSet
	}
	n := NewEngine(e.set, Options{Zone: e.zone})
	n.now, n.wall = d.Varint(), d.Varint()
	for i := range n.sweeps {
		n.sweeps[i].next, n.sweeps[i].last = d.Varint(), d.Varint()
	}
	for i := range n.feeds {
		var ok bool
		if n.feeds[i].Time, n.feeds[i].Value, ok = restoreValue(d); !ok {
			return errSnapshot
		}
	}
	for range d.Count(3) {
		if !n.restoreSubject(d) {
			return errSnapshot
		}
	}
	if d.Err() != nil || len(d.Rest()) > 0 {
		return errSnapshot
	}
	n.regroup(n.set)
	*e = *n
	return nil
}

func (e *Engine) restoreSubject(d *telemetry.Decoder) bool {
	expects := d.Uvarint()
	measurement := d.String()
	labels := restoreLabels(d)
	if d.Err() != nil || expects > uint64(len(e.set.rules)) {
		return false
	}
	s := e.subjectFor(int(expects)-1, measurement, labels)
	if s == nil {
		return false
	}
	for k := range s.values {
		var ok bool
		if s.times[k], s.values[k], ok = restoreValue(d); !ok {
			return false
		}
	}
	if !e.restoreParts(d, s) {
		return false
	}
	next := uint64(0)
	for range d.Count(11) {
		place := d.Uvarint()
		if d.Err() != nil || place < next || place >= uint64(len(s.alerts)) || !e.restoreAlert(d, s, int(place)) {
			return false
		}
		next = place + 1
	}
	return d.Err() == nil
}

// subjectFor makes the subject of a device, or the stand-in that the rule with that number expects; nil when it cannot be.
func (e *Engine) subjectFor(rule int, measurement string, labels telemetry.Labels) *Subject {
	if rule < 0 {
		s := e.Subject(measurement, labels)
		if s.order >= 0 || len(s.plan.metrics) == 0 {
			return nil
		}
		e.wake(s)
		return s
	}
	r := e.set.rules[rule]
	device := labels.Get(DeviceLabel)
	if r.Absent == nil || !slices.Contains(r.Absent.Expect, device) || measurement != "" || e.expected[expectedKey(r, device)] != nil {
		return nil
	}
	s := e.standIn(rule, device)
	if !slices.Equal(s.labels, labels) {
		return nil
	}
	return s
}

func (e *Engine) restoreParts(d *telemetry.Decoder, s *Subject) bool {
	p := s.parts
	if p == nil {
		return true
	}
	for i := range p.windows {
		if !p.windows[i].Restore(d) {
			return false
		}
	}
	for i := range p.watches {
		if !e.restoreWatch(d, s, i) {
			return false
		}
	}
	for i := range p.detections {
		if !p.detections[i].restore(d) {
			return false
		}
	}
	return true
}

func (e *Engine) restoreAlert(d *telemetry.Decoder, s *Subject, place int) bool {
	a := &alert{rule: s.plan.rules[place], subject: s, place: place, heap: -1}
	a.name()
	flags := d.Byte()
	code := flags &^ notifiedBit
	a.activeAt, a.value = d.Varint(), d.Float()
	if !finite(a.value) || code > endingCode || flags == pendingCode|notifiedBit || a.rule.Absent != nil && s.parts.watches[s.plan.watchOf(place)] == nil {
		return false
	}
	s.alerts[place] = a
	if code == pendingCode {
		a.state = Pending
		e.pending++
		e.schedule(a, later(a.activeAt, a.rule.For))
		return true
	}
	a.state = Firing
	e.firing++
	a.startsAt = d.Varint()
	a.annotations = restoreLabels(d)
	o, first := e.join(a)
	if notified := flags&notifiedBit != 0; first {
		o.notified = notified
	} else if o.notified != notified {
		return false
	}
	if code == endingCode {
		a.ending, a.endingSince = true, d.Varint()
		e.schedule(a, later(a.endingSince, a.rule.KeepFiringFor))
	}
	return d.Err() == nil
}

func restoreLabels(d *telemetry.Decoder) telemetry.Labels {
	var l telemetry.Labels
	for range d.Count(2) {
		l = append(l, telemetry.Label{Name: d.String(), Value: d.String()})
	}
	return l
}

func finite(v float64) bool { return v-v == 0 }
