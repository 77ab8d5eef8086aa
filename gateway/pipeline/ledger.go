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
	States      uint64 `json:"states"`     // messages that only said that a device came or went
	Ignored     uint64 `json:"ignored"`    // messages of a kind that carries no readings, by the source's format
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

func (l *Ledger) counters() [8]*uint64 {
	return [...]*uint64{&l.Messages, &l.Received, &l.Duplicate, &l.Quarantined, &l.Late, &l.Aggregated, &l.States, &l.Ignored}
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
