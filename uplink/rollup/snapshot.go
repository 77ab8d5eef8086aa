package rollup

import (
	"encoding/binary"

	"sluice/gateway/telemetry"
)

// Snapshot appends the state to b: equal states give equal bytes.
//
//	sealed (zigzag) | n buckets { start (zigzag) | next (zigzag) | n windows { device id | n aggregates {aggregate sketch} }
//	| n dirty { index of window } }
func (r *Rollup) Snapshot(b []byte) []byte {
	b = binary.AppendVarint(b, r.sealed)
	b = binary.AppendUvarint(b, uint64(len(r.buckets)))
	for _, bk := range r.buckets {
		b = binary.AppendVarint(b, bk.start)
		b = binary.AppendVarint(b, bk.next)
		b = binary.AppendUvarint(b, uint64(len(bk.windows)))
		index := make(map[*window]int, len(bk.dirty))
		for i, w := range bk.windows {
			if w.dirty {
				index[w] = i
			}
			b = binary.AppendUvarint(b, uint64(w.dev.ID))
			b = binary.AppendUvarint(b, uint64(len(w.aggs)))
			for j := range w.aggs {
				b = w.aggs[j].AppendSketch(w.aggs[j].Append(b))
			}
		}
		b = binary.AppendUvarint(b, uint64(len(bk.dirty)))
		for _, w := range bk.dirty {
			b = binary.AppendUvarint(b, uint64(index[w]))
		}
	}
	return b
}

// Restore reads what Snapshot wrote into an empty Rollup; device returns the owner's device of an id, nil when unknown.
// It fails on the first damaged field.
func (r *Rollup) Restore(d *telemetry.Decoder, device func(id uint32) *Device) error {
	r.sealed = d.Varint()
	for range d.Count(3) {
		bk := &bucket{start: d.Varint(), next: d.Varint()}
		r.buckets = append(r.buckets, bk)
		for range d.Count(2) {
			w := &window{start: bk.start, dev: device(uint32(d.Uvarint()))}
			if w.dev == nil {
				return d.Fail()
			}
			for range d.Count(1) {
				var a telemetry.Aggregate
				d.Aggregate(&a)
				d.Sketch(&a)
				w.aggs = append(w.aggs, a)
			}
			w.dev.open = append(w.dev.open, w)
			bk.windows = append(bk.windows, w)
		}
		for range d.Count(1) {
			i := d.Uvarint()
			if i >= uint64(len(bk.windows)) {
				return d.Fail()
			}
			bk.windows[i].dirty = true
			bk.dirty = append(bk.dirty, bk.windows[i])
		}
	}
	return d.Err()
}
