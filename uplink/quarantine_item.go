package uplink

import (
	"encoding/binary"
	"errors"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// An item on disk, behind the 12 bytes of its cause, all integers unsigned varints unless said otherwise:
//
//	version 2 | stage | reason | detail | source | topic | type (byte) | payload | points | count | retry
//	strings and bytes: length, then the bytes. Id and time are the log record's. Version 1 has no retry.
const itemVersion = 2

func (it *Item) append(b []byte) []byte {
	b = append(b, itemVersion)
	for _, s := range [...]string{string(it.Stage), it.Reason, it.Detail, it.Source, it.Topic} {
		b = telemetry.AppendString(b, s)
	}
	b = append(b, it.Type)
	b = appendBytes(b, it.Payload)
	b = telemetry.AppendString(b, it.Points)
	b = binary.AppendUvarint(b, it.Count)
	return appendBytes(b, it.Retry)
}

func appendBytes(b, s []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

var errItem = errors.New("quarantine item is damaged or from a newer version")

// itemView is an item in place: its slices alias the record's body.
type itemView struct {
	stage, reason, detail, source, topic, payload, points, retry []byte
	typ                                                          byte
	count                                                        uint64
}

func viewItem(r seglog.Record) (v itemView, ok bool) {
	if len(r.Body) < recordHead || r.Type > quarantineFree {
		return v, false
	}
	d := telemetry.NewDecoder(r.Body[recordHead:])
	version := d.Byte()
	if version == 0 || version > itemVersion {
		return v, false
	}
	v.stage, v.reason, v.detail, v.source, v.topic = d.Bytes(), d.Bytes(), d.Bytes(), d.Bytes(), d.Bytes()
	v.typ = d.Byte()
	v.payload, v.points, v.count = d.Bytes(), d.Bytes(), d.Uvarint()
	if version > 1 {
		v.retry = d.Bytes()
	}
	return v, d.Err() == nil && len(d.Rest()) == 0
}

func parseItem(r seglog.Record) (Item, error) {
	v, ok := viewItem(r)
	if !ok {
		return Item{}, errItem
	}
	it := Item{
		ID: uint64(r.LSN), Time: r.Time, Bytes: len(r.Body) + recordOnDisk - recordHead,
		Stage: Stage(v.stage), Reason: string(v.reason), Detail: string(v.detail), Source: string(v.source), Topic: string(v.topic),
		Type: v.typ, Payload: append([]byte(nil), v.payload...), Points: string(v.points), Count: v.count,
	}
	if len(v.retry) > 0 {
		it.Retry = append([]byte(nil), v.retry...)
	}
	if r.Type == quarantineCaused {
		it.Cause = causeOf(r)
	}
	return it, nil
}

func (v *itemView) party() party {
	return party{string(v.stage) == string(StageSink), string(v.source)}
}

// party is who an item is about: a source, or a destination.
type party struct {
	sink bool
	name string
}

func (it *Item) party() party { return party{it.Stage == StageSink, it.Source} }

// removal is items that leave the quarantine together. On disk, behind a cause:
//
//	version 1 | n {sink (byte), name, count, n ids {difference to the one before}}
type removal struct {
	parties []party // in the order of their first item
	of      map[party]*removed
}

type removed struct {
	count uint64 // readings or records
	ids   []uint64
}

func (r *removal) add(p party, id, count uint64) {
	if r.of == nil {
		r.of = make(map[party]*removed)
	}
	x := r.of[p]
	if x == nil {
		x = &removed{}
		r.of[p] = x
		r.parties = append(r.parties, p)
	}
	x.count += count
	x.ids = append(x.ids, id)
}

func (r *removal) append(b []byte) []byte {
	b = binary.AppendUvarint(append(b, 1), uint64(len(r.parties)))
	for _, p := range r.parties {
		x := r.of[p]
		b = appendParty(b, p)
		b = binary.AppendUvarint(b, x.count)
		b = binary.AppendUvarint(b, uint64(len(x.ids)))
		before := uint64(0)
		for _, id := range x.ids {
			b = binary.AppendVarint(b, int64(id-before))
			before = id
		}
	}
	return b
}

func parseRemoval(r seglog.Record) (x removal, ok bool) {
	if len(r.Body) < recordHead {
		return x, false
	}
	d := telemetry.NewDecoder(r.Body[recordHead:])
	if d.Byte() != 1 {
		return x, false
	}
	for range d.Count(4) {
		p := readParty(d)
		count, before := d.Uvarint(), uint64(0)
		for i := range d.Count(1) {
			before += uint64(d.Varint())
			x.add(p, before, 0)
			if i == 0 {
				x.of[p].count += count
			}
		}
	}
	return x, d.Err() == nil && len(d.Rest()) == 0
}

func appendParty(b []byte, p party) []byte {
	sink := byte(0)
	if p.sink {
		sink = 1
	}
	return telemetry.AppendString(append(b, sink), p.name)
}

func readParty(d *telemetry.Decoder) party { return party{d.Byte() == 1, d.String()} }
