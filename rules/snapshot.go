package rules

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/gateway/telemetry"
)

// A snapshot, in the primitives of package telemetry (varints, length-prefixed strings, little-endian float64s):
//
//	version 1 | fingerprint of the set (8 bytes, little-endian) | now (zigzag)
//	| n devices { measurement | n labels {name value} | metric by metric: 0, or 1 time (zigzag) value (f64)
//	              | n alerts { place | 0 pending, 1 firing, 2 ending | active at (zigzag) | value (f64)
//	                           | unless pending: starts at (zigzag) | n annotations {name value}
//	                           | if ending: ending since (zigzag) } }
//
// Devices come in the order of their first values. Which metrics and rules there are follows from the set and the labels.
const snapshotVersion = 1

const (
	pendingCode byte = iota
	firingCode
	endingCode
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
	b = binary.AppendUvarint(b, uint64(len(e.active)))
	for _, s := range e.active {
		b = s.append(b)
	}
	return b
}

func (s *Subject) append(b []byte) []byte {
	b = telemetry.AppendString(b, s.measurement)
	b = appendLabels(b, s.labels)
	alerts := 0
	for _, a := range s.alerts {
		if a != nil {
			alerts++
		}
	}
	for k, v := range s.values {
		if v != v {
			b = append(b, 0)
			continue
		}
		b = binary.AppendVarint(append(b, 1), s.times[k])
		b = telemetry.AppendFloat(b, v)
	}
	b = binary.AppendUvarint(b, uint64(alerts))
	for _, a := range s.alerts {
		if a != nil {
			b = a.append(b)
		}
	}
	return b
}

func (a *alert) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(a.place))
	code := pendingCode
	switch {
	case a.ending:
		code = endingCode
	case a.state == Firing:
		code = firingCode
	}
	b = append(b, code)
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
	n := NewEngine(e.set, Options{})
	n.now = d.Varint()
	for range d.Count(2) {
		if !n.restoreSubject(d) {
			return errSnapshot
		}
	}
	if d.Err() != nil || len(d.Rest()) > 0 {
		return errSnapshot
	}
	*e = *n
	return nil
}

func (e *Engine) restoreSubject(d *telemetry.Decoder) bool {
	measurement := d.String()
	labels := restoreLabels(d)
	s := e.Subject(measurement, labels)
	if d.Err() != nil || s.order >= 0 || len(s.plan.metrics) == 0 {
		return false
	}
	e.wake(s)
	for k := range s.values {
		switch d.Byte() {
		case 0:
		case 1:
			s.times[k], s.values[k] = d.Varint(), d.Float()
			if !finite(s.values[k]) {
				return false
			}
		default:
			return false
		}
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

func (e *Engine) restoreAlert(d *telemetry.Decoder, s *Subject, place int) bool {
	a := &alert{rule: s.plan.rules[place], subject: s, place: place, heap: -1}
	a.name()
	code := d.Byte()
	a.activeAt, a.value = d.Varint(), d.Float()
	if !finite(a.value) || code > endingCode {
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
	e.join(a)
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
