package uplink

import (
	"cmp"
	"encoding/binary"
	"maps"
	"slices"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// quarantineState is what follows from a quarantine's log and must outlive its segments. It is stored in slots together with the LSN that
// it covers:
//
//	version 2 | LSN | n {producer, cause LSN, ordinal} | dropped to | n {sink (byte), name, requeued} | n losses {sink (byte), name,
//	reason, from (zigzag), to (zigzag), noted (zigzag), count}
//
// unsigned varints unless said otherwise, strings with their length before them. Version 1 ends before dropped to.
type quarantineState struct {
	held      map[string]Cause // the latest of each producer
	droppedTo seglog.LSN       // what is below was dropped, or is about to be
	requeued  map[party]uint64 // readings or records put back on their way, ever
	losses    []QuarantineLoss // oldest first
}

// QuarantineLoss is what was refused and is not in the quarantine any more either.
type QuarantineLoss struct {
	Source, Destination string // one of both
	Reason              string // LostFull or LostDeleted
	From, To            int64  // when the first and the last were refused, ns
	Noted               int64  // when they were lost, ns
	Count               uint64 // readings, or records of a destination

	items uint64
}

// Reasons of a QuarantineLoss.
const (
	LostFull    = "quarantine_full"
	LostDeleted = "deleted"
)

func newQuarantineState() quarantineState {
	return quarantineState{held: make(map[string]Cause), requeued: make(map[party]uint64)}
}

// follow takes in a record of the log.
func (s *quarantineState) follow(r seglog.Record) {
	hold := func(producer string) {
		if c := causeOf(r); c.After(s.held[producer]) {
			s.held[producer] = c
		}
	}
	switch r.Type {
	case quarantineCaused:
		if v, ok := viewItem(r); ok {
			it := Item{Stage: Stage(v.stage), Source: string(v.source), Topic: string(v.topic)}
			hold(it.producer())
		}
	case quarantineTaken:
		if x, ok := parseRemoval(r); ok {
			hold(pipelineProducer)
			for p, of := range x.of {
				s.requeued[p] += of.count
			}
		}
	case quarantineDeleted:
		if x, ok := parseRemoval(r); ok {
			for _, p := range x.parties {
				s.lose(lossOf(p, LostDeleted, r.Time, x.of[p].count))
			}
		}
	}
}

func lossOf(p party, reason string, at int64, count uint64) QuarantineLoss {
	l := QuarantineLoss{Source: p.name, Reason: reason, From: at, To: at, Noted: at, Count: count}
	if p.sink {
		l.Source, l.Destination = "", p.name
	}
	return l
}

const (
	lossRange        = 3600e9 // losses noted in the same hour are one range
	quarantineLosses = 500    // entries kept; beyond it ranges are joined
)

func (l *QuarantineLoss) like(m *QuarantineLoss) bool {
	return l.Source == m.Source && l.Destination == m.Destination && l.Reason == m.Reason
}

func (l *QuarantineLoss) join(m QuarantineLoss) {
	l.From, l.To = min(l.From, m.From), max(l.To, m.To)
	l.Noted = max(l.Noted, m.Noted)
	l.Count += m.Count
}

// lose adds a loss to the list. The sum of the list never shrinks.
func (s *quarantineState) lose(l QuarantineLoss) {
	if l.Count == 0 {
		return
	}
	for i := len(s.losses) - 1; i >= 0; i-- {
		if before := &s.losses[i]; before.like(&l) {
			if l.Noted/lossRange == before.Noted/lossRange {
				before.join(l)
				return
			}
			break
		}
	}
	s.losses = append(s.losses, l)
	if len(s.losses) <= quarantineLosses {
		return
	}
	for i := range s.losses {
		for j := i + 1; j < len(s.losses); j++ {
			if s.losses[j].like(&s.losses[i]) {
				s.losses[j].join(s.losses[i])
				s.losses = slices.Delete(s.losses, i, i+1)
				return
			}
		}
	}
}

func (s *quarantineState) append(upTo seglog.LSN) []byte {
	b := binary.AppendUvarint([]byte{2}, uint64(upTo))
	b = binary.AppendUvarint(b, uint64(len(s.held)))
	for _, p := range slices.Sorted(maps.Keys(s.held)) {
		b = telemetry.AppendString(b, p)
		b = binary.AppendUvarint(b, s.held[p].LSN)
		b = binary.AppendUvarint(b, uint64(s.held[p].Ordinal))
	}
	b = binary.AppendUvarint(b, uint64(s.droppedTo))
	b = binary.AppendUvarint(b, uint64(len(s.requeued)))
	for _, p := range slices.SortedFunc(maps.Keys(s.requeued), comparePartys) {
		b = binary.AppendUvarint(appendParty(b, p), s.requeued[p])
	}
	b = binary.AppendUvarint(b, uint64(len(s.losses)))
	for i := range s.losses {
		l := &s.losses[i]
		b = appendParty(b, party{l.Destination != "", l.Source + l.Destination})
		b = telemetry.AppendString(b, l.Reason)
		b = binary.AppendVarint(binary.AppendVarint(binary.AppendVarint(b, l.From), l.To), l.Noted)
		b = binary.AppendUvarint(b, l.Count)
	}
	return b
}

func comparePartys(a, b party) int {
	if a.sink != b.sink {
		if a.sink {
			return 1
		}
		return -1
	}
	return cmp.Compare(a.name, b.name)
}

// parse reads what append wrote, and returns the LSN it covers.
func (s *quarantineState) parse(b []byte) (seglog.LSN, error) {
	d := telemetry.NewDecoder(b)
	version := d.Byte()
	if version == 0 || version > 2 {
		return 0, errItem
	}
	upTo := seglog.LSN(d.Uvarint())
	for range d.Count(3) {
		p := d.String()
		s.held[p] = Cause{LSN: d.Uvarint(), Ordinal: uint32(d.Uvarint())}
	}
	if version > 1 {
		s.droppedTo = seglog.LSN(d.Uvarint())
		for range d.Count(3) {
			p := readParty(d)
			s.requeued[p] = d.Uvarint()
		}
		for range d.Count(7) {
			l := lossOf(readParty(d), d.String(), d.Varint(), 0)
			l.To, l.Noted, l.Count = d.Varint(), d.Varint(), d.Uvarint()
			s.losses = append(s.losses, l)
		}
	}
	if d.Err() != nil || len(d.Rest()) != 0 {
		return 0, errItem
	}
	return upTo, nil
}
