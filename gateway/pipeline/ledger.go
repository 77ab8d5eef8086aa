package pipeline

import (
	"encoding/binary"

	"sluice/gateway/telemetry"
)

// Ledger counts where the readings of one source went. Received is counted when a message is decoded, the rest where each
// reading ends; a payload that cannot be decoded counts as one reading. The counters live in the fold, so a crash neither
// loses nor repeats a count.
type Ledger struct {
	Messages    uint64 `json:"messages"`
	Received    uint64 `json:"received"`
	Duplicate   uint64 `json:"duplicate"`
	Quarantined uint64 `json:"quarantined"`
	Late        uint64 `json:"late"`
	Aggregated  uint64 `json:"aggregated"` // taken into windows or sent as readings
	Backfilled  uint64 `json:"backfilled"` // of Aggregated: late, and their windows are recomputed from the local history
	States      uint64 `json:"states"`     // messages that only said that a device came or went
	Ignored     uint64 `json:"ignored"`    // messages of a kind that carries no readings, by the source's format

	// Of Quarantined and of Late: put back on their way by an operator, and so received once more, see Requeue.
	Requeued     uint64 `json:"requeued"`
	RequeuedLate uint64 `json:"requeued_late"`
}

// Imbalance is Received minus the readings accounted for; anything but 0 is a bug.
func (l *Ledger) Imbalance() int64 {
	return int64(l.Received - l.Duplicate - l.Quarantined - l.Late - l.Aggregated)
}

// Plus returns the sum of two ledgers.
func (l Ledger) Plus(m Ledger) Ledger {
	a, b := l.counters(), m.counters()
	for i := range a {
		*a[i] += *b[i]
	}
	return l
}

// Net is the ledger in which every reading counts once, where it is now: without what was put back on its way, which was received
// and counted again. Its imbalance is the same.
func (l Ledger) Net() Ledger {
	l.Received -= l.Requeued + l.RequeuedLate
	l.Quarantined -= l.Requeued
	l.Late -= l.RequeuedLate
	return l
}

func (l *Ledger) counters() [11]*uint64 {
	return [...]*uint64{&l.Messages, &l.Received, &l.Duplicate, &l.Quarantined, &l.Late, &l.Aggregated, &l.Backfilled, &l.States, &l.Ignored,
		&l.Requeued, &l.RequeuedLate}
}

func (l *Ledger) snapshot(b []byte) []byte {
	for _, c := range l.counters() {
		b = binary.AppendUvarint(b, *c)
	}
	return b
}

func (l *Ledger) restore(d *telemetry.Decoder) {
	for _, c := range l.counters() {
		*c = d.Uvarint()
	}
}
