package uplink

import (
	"fmt"
	"math"

	"sluice/gateway/seglog"
)

// reader hands an outbox's records to its forwarder, in order. It is the forwarder's alone.
type reader struct {
	out    *Outbox
	cursor *seglog.Cursor
	next   uint64        // the record expected
	ahead  seglog.Record // read and not handed out yet; Body nil when there is none
}

func (b *Outbox) reader() *reader {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leased = b.pos.next
	return &reader{out: b, next: b.pos.next, cursor: b.log.Cursor(seglog.LSN(b.pos.next))}
}

// read appends visible records to batch until it holds maxRecords or maxBytes (at least one record, whatever its size), or
// a record is missing in between: what a batch holds has no gap, so that settle can tell what was shed from what is damaged.
// It does not wait.
func (r *reader) read(batch []Record, maxRecords, maxBytes int) ([]Record, error) {
	b := r.out
	b.mu.Lock()
	before := b.leased
	b.leased = math.MaxUint64 // until it is known how far this read comes
	from := max(r.next, b.pos.next)
	if n := len(b.pos.holes); n > 0 {
		from = max(from, b.pos.holes[n-1].to)
	}
	b.mu.Unlock()

	var arena []byte
	var err error
	got, size, first := 0, 0, int64(0)
	for len(batch) < maxRecords {
		if r.ahead.Body == nil {
			rec, ok, e := r.cursor.TryNext()
			if e != nil {
				err = fmt.Errorf("read outbox %s: %w", b.dir, e)
				break
			}
			if !ok {
				break
			}
			r.ahead = rec
		}
		lsn := uint64(r.ahead.LSN)
		if lsn < from { // shed since it was read
			r.ahead.Body = nil
			continue
		}
		if got > 0 && (lsn != r.next || size+len(r.ahead.Body) > maxBytes) {
			break
		}
		// The cursor's buffer is valid until its next call only.
		if len(arena)+len(r.ahead.Body) > cap(arena) {
			arena = make([]byte, 0, max(len(r.ahead.Body), 64<<10))
		}
		at := len(arena)
		arena = append(arena, r.ahead.Body...)
		raw := r.ahead
		raw.Body = arena[at:len(arena):len(arena)]
		r.ahead.Body = nil
		r.next = lsn + 1
		size += len(raw.Body)
		rec, e := splitRecord(raw)
		if e != nil { // not a record of ours: ack counts it as damaged
			continue
		}
		if got == 0 {
			first = rec.Cause.Time
		}
		got++
		batch = append(batch, rec)
	}

	b.mu.Lock()
	b.leased = before
	if got > 0 {
		b.leased = r.next
	}
	b.try()
	var shedFrom int64
	if r.ahead.Body != nil {
		shedFrom = r.ahead.Time
	}
	b.settle(shedFrom)
	if got > 0 && got == len(batch) {
		b.oldest = first
	}
	b.unlock()
	if got > 0 {
		return batch, nil // what was read counts; an error comes again with the next call
	}
	return batch, err
}

func (r *reader) close() error { return r.cursor.Close() }
