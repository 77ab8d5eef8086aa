package uplink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
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
	Bytes   int    // on disk, about; set by the quarantine
	Stage   Stage
	Reason  string // a word from a small set, as in sluice_quarantined_total
	Detail  string // the server's or the decoder's words
	Source  string // the source, or the destination that refused
	Topic   string // of the message; with StageSink the outbox's tier, "" for the live one
	Type    byte   // the record's type with StageSink, else 0
	Payload []byte // the message's payload, or the record's body
	Points  string // the record as the destination would have seen it, for people
	Count   uint64 // readings or records this item stands for
	Retry   []byte // what else the pipeline needs to try a message again; nil of items from before that was kept
}

// QuarantineOptions configure OpenQuarantine; zero values are defaults.
type QuarantineOptions struct {
	FS       fsys.FS // nil: the operating system
	MaxBytes int64   // 64 MiB, at least 512 KiB; beyond it the oldest items are dropped, counted
	Log      *slog.Logger
}

// Quarantine is a bounded durable store of refused items. Several producers may share it: the pipeline, and the forwarder of each
// destination; the causes of each grow. Items leave it when they are put back on their way, when an operator deletes them, and, the
// oldest first, when the bound is reached; the latter two are losses, and listed. Everything is safe for concurrent use.
type Quarantine struct {
	o            QuarantineOptions
	dir          string
	segmentBytes int64
	log          *seglog.Log
	slots        *seglog.Slots

	mu        sync.Mutex
	state     quarantineState
	stored    seglog.LSN // the state in slots covers the log up to here
	skipped   uint64
	unflushed int
	diskBytes int64
	buf       []byte

	index quarantineIndex // guards itself; its lock is taken after mu
}

// Types of quarantine records: an item that has a cause, and one that has none; removals with and without.
const (
	quarantineCaused  byte = 1
	quarantineFree    byte = 2
	quarantineTaken   byte = 3
	quarantineDeleted byte = 4
)

const pipelineProducer = "pipeline"

// producer is who put an item: causes grow per producer. The tiers of an outbox number their records each for itself.
func (it *Item) producer() string {
	switch {
	case it.Stage != StageSink:
		return pipelineProducer
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
	q := &Quarantine{o: o, dir: dir, segmentBytes: min(o.MaxBytes/8, 16<<20), state: newQuarantineState()}
	q.index.init()
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
		if q.stored, err = q.state.parse(value); err != nil {
			return err
		}
	}
	q.log, _, err = seglog.Open(q.dir, seglog.Options{CutTorn: true, FS: q.o.FS, SegmentBytes: q.segmentBytes, MinNext: q.stored + 1,
		Retain: true, NoPrealloc: true, Log: q.o.Log})
	if err != nil {
		return err
	}
	if err := q.log.TrimBefore(q.state.droppedTo); err != nil { // counted as dropped before a crash
		return err
	}
	q.diskBytes = q.log.DiskBytes()
	return q.each(uint64(q.stored)+1, func(r seglog.Record) bool {
		q.state.follow(r)
		return true
	})
}

// storeState writes the state down: at open only what follows is read. The caller has committed everything and holds mu.
func (q *Quarantine) storeState() error {
	upTo := q.log.Durable()
	if err := q.slots.Store(q.state.append(upTo), true); err != nil {
		return err
	}
	q.stored = upTo
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
	}
	q.begin(cause)
	q.buf = it.append(q.buf)
	return q.record(typ, from, cause, it.Time)
}

// begin puts the cause at the start of buf.
func (q *Quarantine) begin(cause Cause) {
	q.buf = binary.LittleEndian.AppendUint64(q.buf[:0], cause.LSN)
	q.buf = binary.LittleEndian.AppendUint32(q.buf, cause.Ordinal)
}

// record appends buf to the log, unless the producer from has put it before.
func (q *Quarantine) record(typ byte, from string, cause Cause, t int64) error {
	if from != "" && !cause.After(q.state.held[from]) {
		q.skipped++
		return nil
	}
	size := len(q.buf) + recordOnDisk - recordHead
	for q.diskBytes+int64(q.unflushed+size)+segmentHead > q.o.MaxBytes && q.log.Segments() > 1 {
		if err := q.dropOldest(t); err != nil {
			return err
		}
	}
	lsn, err := q.log.Append(typ, t, q.buf)
	if errors.Is(err, seglog.ErrFull) {
		if err := q.flush(); err != nil {
			return err
		}
		lsn, err = q.log.Append(typ, t, q.buf)
	}
	if err != nil {
		return asFull(err)
	}
	q.state.follow(seglog.Record{LSN: lsn, Type: typ, Time: t, Body: q.buf})
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

// dropOldest deletes the oldest segment, once it is written down elsewhere which causes were in it, and what is lost.
func (q *Quarantine) dropOldest(now int64) error {
	if err := q.commit(); err != nil {
		return err
	}
	to, ok := q.log.Second()
	if !ok {
		return nil
	}
	lost, err := q.index.countKept(q, uint64(to))
	if err != nil {
		return err
	}
	items := uint64(0)
	for i := range lost {
		lost[i].Noted = now
		items += lost[i].items
		q.state.lose(lost[i])
	}
	q.state.droppedTo = to
	if err := q.storeState(); err != nil {
		return err
	}
	if err := q.log.TrimBefore(to); err != nil {
		return err
	}
	if items > 0 {
		q.o.Log.Warn("quarantine is full: its oldest items are dropped", "quarantine", q.dir, "items", items)
	}
	q.index.dropped()
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
	if err := q.sync(); err != nil {
		return fmt.Errorf("sync quarantine %s: %w", q.dir, err)
	}
	return nil
}

func (q *Quarantine) sync() error {
	if err := q.commit(); err != nil {
		return err
	}
	if q.log.Durable()-q.stored > stateEvery {
		return q.storeState()
	}
	return nil
}

func (q *Quarantine) commit() error {
	if err := q.log.Commit(); err != nil {
		return asFull(err)
	}
	q.unflushed = 0
	q.diskBytes = q.log.DiskBytes()
	return nil
}

// stateEvery records the state is written down, so that opening reads no more than that.
const stateEvery = 10000

// Each calls f for every item from id on, the oldest first, until f returns false. A damaged item, and one that was removed, is passed over.
func (q *Quarantine) Each(from uint64, f func(Item) bool) error {
	if err := q.index.follow(q); err != nil {
		return err
	}
	return q.each(from, func(r seglog.Record) bool {
		if r.Type > quarantineFree || q.index.isRemoved(uint64(r.LSN)) {
			return true
		}
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
