package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
	"sluice/gateway/telemetry"
)

// Stage says where something was refused.
type Stage string

const (
	StageDecode Stage = "decode" // the payload is not what its source's format says
	StageTime   Stage = "time"   // too late, or an implausible time
	StageSink   Stage = "sink"   // the destination will not take it
)

// Item is what was refused, with everything needed to understand it and to try it again.
type Item struct {
	ID      uint64 // in its quarantine, from 1, growing; set by Put
	Cause   Cause  // the journal record it came from, without its time; set by Put
	Time    int64  // when it was refused, ns since the Unix epoch
	Stage   Stage
	Reason  string // a word from a small set, as in sluice_quarantined_total
	Detail  string // the server's or the decoder's words
	Source  string // the source, or the destination that refused
	Topic   string // of the message; with StageSink the outbox's tier, "" for the live one
	Type    byte   // the record's type with StageSink, else 0
	Payload []byte // the message's payload, or the record's body
	Points  string // the record as the destination would have seen it, for people
	Count   uint64 // readings or records this item stands for
}

// QuarantineOptions configure OpenQuarantine; zero values are defaults.
type QuarantineOptions struct {
	FS       fsys.FS // nil: the operating system
	MaxBytes int64   // 64 MiB, at least 512 KiB; beyond it the oldest items are dropped, counted
	Log      *slog.Logger
}

// Quarantine is a bounded durable store of refused items. Several producers may share it: the pipeline, and the forwarder of each
// destination; the causes of each grow. Everything is safe for concurrent use.
type Quarantine struct {
	o            QuarantineOptions
	dir          string
	segmentBytes int64
	log          *seglog.Log
	slots        *seglog.Slots

	mu        sync.Mutex
	held      map[string]Cause // the latest of each producer
	stored    seglog.LSN       // held in slots covers the log up to here
	skipped   uint64
	unflushed int
	diskBytes int64
	buf       []byte
}

// Types of quarantine records: of an item that has a cause, and of one that has none.
const (
	quarantineCaused byte = 1
	quarantineFree   byte = 2
)

// producer is who put an item: causes grow per producer. The tiers of an outbox number their records each for itself.
func (it *Item) producer() string {
	switch {
	case it.Stage != StageSink:
		return "pipeline"
	case it.Topic != "":
		return "sink/" + it.Source + "/" + it.Topic
	}
	return "sink/" + it.Source
}

// OpenQuarantine opens or creates the quarantine in dir.
func OpenQuarantine(dir string, o QuarantineOptions) (*Quarantine, error) {
	def(&o.MaxBytes, 64<<20)
	o.MaxBytes = max(o.MaxBytes, minOutbox)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.FS == nil {
		o.FS = fsys.OS{}
	}
	q := &Quarantine{o: o, dir: dir, segmentBytes: min(o.MaxBytes/8, 16<<20), held: make(map[string]Cause)}
	if err := q.open(); err != nil {
		if q.slots != nil {
			q.slots.Close()
		}
		if q.log != nil {
			q.log.Close()
		}
		return nil, fmt.Errorf("open quarantine %s: %w", dir, err)
	}
	return q, nil
}

func (q *Quarantine) open() (err error) {
	if err := q.o.FS.MkdirAll(q.dir); err != nil {
		return err
	}
	if q.slots, err = seglog.OpenSlots(q.o.FS, q.dir, "held"); err != nil {
		return err
	}
	value, _, err := q.slots.Load()
	if err != nil {
		return err
	}
	if value != nil {
		if err := q.parseHeld(value); err != nil {
			return err
		}
	}
	q.log, _, err = seglog.Open(q.dir, seglog.Options{CutTorn: true, FS: q.o.FS, SegmentBytes: q.segmentBytes, MinNext: q.stored + 1,
		Retain: true, NoPrealloc: true, Log: q.o.Log})
	if err != nil {
		return err
	}
	q.diskBytes = q.log.DiskBytes()
	return q.Each(uint64(q.stored)+1, func(it Item) bool {
		if p := it.producer(); it.Cause.After(q.held[p]) {
			q.held[p] = it.Cause
		}
		return true
	})
}

// storeHeld writes down which causes are held, once they are durable in the log: at open only what follows is read.
//
//	version 1 | LSN | n {producer, cause LSN, ordinal}: unsigned varints, strings with their length before them
func (q *Quarantine) storeHeld() error {
	upTo := q.log.Durable()
	b := binary.AppendUvarint([]byte{1}, uint64(upTo))
	b = binary.AppendUvarint(b, uint64(len(q.held)))
	for _, p := range slices.Sorted(maps.Keys(q.held)) {
		b = binary.AppendUvarint(b, uint64(len(p)))
		b = append(b, p...)
		b = binary.AppendUvarint(b, q.held[p].LSN)
		b = binary.AppendUvarint(b, uint64(q.held[p].Ordinal))
	}
	if err := q.slots.Store(b, true); err != nil {
		return err
	}
	q.stored = upTo
	return nil
}

func (q *Quarantine) parseHeld(b []byte) error {
	d := telemetry.NewDecoder(b)
	if d.Byte() != 1 {
		return errItem
	}
	q.stored = seglog.LSN(d.Uvarint())
	for range min(d.Uvarint(), uint64(len(b))) {
		p := d.String()
		q.held[p] = Cause{LSN: d.Uvarint(), Ordinal: uint32(d.Uvarint())}
	}
	if d.Err() != nil || len(d.Rest()) != 0 {
		return errItem
	}
	return nil
}

func causeOf(r seglog.Record) Cause {
	return Cause{LSN: binary.LittleEndian.Uint64(r.Body), Ordinal: binary.LittleEndian.Uint32(r.Body[8:])}
}

// Put adds an item, durable after Sync. With a cause that is not after the last one of the same producer (the destination Source with
// StageSink, else the pipeline) it is skipped: it was put before a crash. A cause with LSN 0 means that there is none. Past the bound the oldest items are dropped. Errors: ErrFull when the disk is, or what the
// device said.
func (q *Quarantine) Put(cause Cause, it Item) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.put(cause, &it); err != nil {
		return fmt.Errorf("put into quarantine %s: %w", q.dir, err)
	}
	return nil
}

func (q *Quarantine) put(cause Cause, it *Item) error {
	typ, from := quarantineFree, ""
	if cause.LSN != 0 {
		typ, from = quarantineCaused, it.producer()
		if !cause.After(q.held[from]) {
			q.skipped++
			return nil
		}
	}
	q.buf = binary.LittleEndian.AppendUint64(q.buf[:0], cause.LSN)
	q.buf = binary.LittleEndian.AppendUint32(q.buf, cause.Ordinal)
	q.buf = it.append(q.buf)
	size := len(q.buf) + recordOnDisk - recordHead
	for q.diskBytes+int64(q.unflushed+size)+segmentHead > q.o.MaxBytes && q.log.Segments() > 1 {
		if err := q.dropOldest(); err != nil {
			return err
		}
	}
	if _, err := q.log.Append(typ, it.Time, q.buf); err != nil {
		if !errors.Is(err, seglog.ErrFull) {
			return err
		}
		if err := q.flush(); err != nil {
			return err
		}
		if _, err := q.log.Append(typ, it.Time, q.buf); err != nil {
			return asFull(err)
		}
	}
	if typ == quarantineCaused {
		q.held[from] = Cause{LSN: cause.LSN, Ordinal: cause.Ordinal}
	}
	if q.unflushed += size; q.unflushed >= flushBytes {
		q.flush() // kept in memory when it fails; Sync says so
	}
	return nil
}

func (q *Quarantine) flush() error {
	if q.unflushed == 0 {
		return nil
	}
	if err := q.log.Flush(); err != nil {
		return asFull(err)
	}
	q.unflushed = 0
	q.diskBytes = q.log.DiskBytes()
	return nil
}

// dropOldest deletes the oldest segment, once it is written down elsewhere which causes were in it.
func (q *Quarantine) dropOldest() error {
	if err := q.sync(true); err != nil {
		return err
	}
	first := q.log.First()
	if err := q.log.TrimTo(q.log.Bytes()-1, q.log.Next()); err != nil {
		return err
	}
	q.o.Log.Warn("quarantine is full: its oldest items are dropped", "quarantine", q.dir, "items", uint64(q.log.First()-first))
	q.diskBytes = q.log.DiskBytes()
	return nil
}

// Flush lets readers see what was put.
func (q *Quarantine) Flush() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.flush(); err != nil {
		return fmt.Errorf("flush quarantine %s: %w", q.dir, err)
	}
	return nil
}

// Sync makes everything put durable. Call it before a checkpoint behind these causes, or before the cursor of a refused record moves.
func (q *Quarantine) Sync() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.sync(false); err != nil {
		return fmt.Errorf("sync quarantine %s: %w", q.dir, err)
	}
	return nil
}

func (q *Quarantine) sync(held bool) error {
	if err := q.log.Commit(); err != nil {
		return asFull(err)
	}
	q.unflushed = 0
	q.diskBytes = q.log.DiskBytes()
	if held || q.log.Durable()-q.stored > heldEvery {
		return q.storeHeld()
	}
	return nil
}

// heldEvery items the held causes are written down, so that opening reads no more than that.
const heldEvery = 10000

// QuarantineStats is what a quarantine amounts to, over its whole life: Put = Kept + Dropped.
type QuarantineStats struct {
	Put, Kept, Dropped uint64
	Skipped            uint64 // puts that were replays, since it was opened
	Bytes              int64
}

// Stats returns the counts.
func (q *Quarantine) Stats() QuarantineStats {
	q.mu.Lock()
	skipped := q.skipped
	q.mu.Unlock()
	next, first := uint64(q.log.Next()), uint64(q.log.First())
	if q.log.Segments() == 0 {
		first = 1
	}
	return QuarantineStats{Put: next - 1, Kept: next - first, Dropped: first - 1, Skipped: skipped, Bytes: q.log.Bytes()}
}

// Get returns an item by its id; ok is false when it is not held (any more).
func (q *Quarantine) Get(id uint64) (it Item, ok bool, err error) {
	err = q.each(id, func(r seglog.Record) bool {
		if uint64(r.LSN) == id {
			it, err = parseItem(r)
			ok = err == nil
		}
		return false
	})
	return it, ok, err
}

// List returns up to limit items with ids below before, the newest first; before 0 starts at the newest.
func (q *Quarantine) List(before uint64, limit int) ([]Item, error) {
	first, end := uint64(q.log.First()), uint64(q.log.Visible())+1
	if before > 0 {
		end = min(end, before)
	}
	if limit <= 0 || end <= first {
		return nil, nil
	}
	from := max(first, end-min(end, uint64(limit)))
	var items []Item
	err := q.Each(from, func(it Item) bool {
		if it.ID >= end {
			return false
		}
		items = append(items, it)
		return true
	})
	for i, j := 0, len(items)-1; i < j; i, j = i+1, j-1 {
		items[i], items[j] = items[j], items[i]
	}
	return items, err
}

// Each calls f for every item from id on, the oldest first, until f returns false. A damaged item is passed over.
func (q *Quarantine) Each(from uint64, f func(Item) bool) error {
	return q.each(from, func(r seglog.Record) bool {
		it, err := parseItem(r)
		return err != nil || f(it)
	})
}

func (q *Quarantine) each(from uint64, f func(seglog.Record) bool) error {
	c := q.log.Cursor(seglog.LSN(from))
	defer c.Close()
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return fmt.Errorf("read quarantine %s: %w", q.dir, err)
		}
		if !ok || !f(r) {
			return nil
		}
	}
}

// Close commits and closes the files.
func (q *Quarantine) Close() error { return errors.Join(q.log.Close(), q.slots.Close()) }

// An item on disk, behind the 12 bytes of its cause, all integers unsigned varints unless said otherwise:
//
//	version 1 | stage | reason | detail | source | topic | type (byte) | payload | points | count
//	strings and bytes: length, then the bytes. Id and time are the log record's.
const itemVersion = 1

func (it *Item) append(b []byte) []byte {
	b = append(b, itemVersion)
	for _, s := range [...]string{string(it.Stage), it.Reason, it.Detail, it.Source, it.Topic} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = append(b, it.Type)
	b = binary.AppendUvarint(b, uint64(len(it.Payload)))
	b = append(b, it.Payload...)
	b = binary.AppendUvarint(b, uint64(len(it.Points)))
	b = append(b, it.Points...)
	return binary.AppendUvarint(b, it.Count)
}

var errItem = errors.New("quarantine item is damaged or from a newer version")

func parseItem(r seglog.Record) (Item, error) {
	if len(r.Body) < recordHead {
		return Item{}, errItem
	}
	it := Item{ID: uint64(r.LSN), Time: r.Time}
	if r.Type == quarantineCaused {
		it.Cause = causeOf(r)
	}
	d := telemetry.NewDecoder(r.Body[recordHead:])
	if d.Byte() != itemVersion {
		return Item{}, errItem
	}
	it.Stage, it.Reason, it.Detail, it.Source, it.Topic = Stage(d.String()), d.String(), d.String(), d.String(), d.String()
	it.Type = d.Byte()
	it.Payload = append([]byte(nil), d.Bytes()...)
	it.Points = d.String()
	it.Count = d.Uvarint()
	if d.Err() != nil || len(d.Rest()) != 0 {
		return Item{}, errItem
	}
	return it, nil
}
