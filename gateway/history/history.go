// Package history keeps every reading the pipeline counts in an embedded Prometheus TSDB and answers PromQL over it, for the
// dashboard and for Grafana.
//
// It is a follower of the journal, not part of the promise: it never holds up the pipeline, and nothing is missing in it without a
// line in the log and a counter. Normally it is fed by the pipeline's own fold through Readings, which only copies into a bounded
// queue. Where that cannot be enough - after a start, a crash, damage, or when its disk was slower than the pipeline for too long -
// it reads the journal again from its own watermark, through a fold of its own that the caller provides, until it has caught up.
// What is stored twice that way is stored once: same series, time and value.
//
// Everything happens in the goroutine of Run, and in those of the TSDB, which Run starts and joins.
package history

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// Options of a History.
type Options struct {
	Dir      string        // one folder, made when missing; its contents belong to the History
	Keep     time.Duration // blocks wholly older than this go
	MaxBytes int64         // beyond it the oldest blocks go; 0: no bound
	Journal  Journal
	Log      *slog.Logger
	Units    Units // nil: none are known
}

// Units calls f for each series whose unit is known, with the labels of its device, by the names they have there, and the series' name
// in PromQL. Safe for concurrent use.
type Units func(ctx context.Context, f func(labels map[string]string, name, unit string)) error

// Journal is where readings are read again.
type Journal interface {
	// Reread reads what was counted after the record after, through a fold that starts there or earlier.
	Reread(after seglog.LSN) (Reader, error)
	// Durable is the last record that a Reader can reach.
	Durable() seglog.LSN
}

// Reader reads journal records in order, for one goroutine.
type Reader interface {
	// Next takes in one record and passes its readings on. ok is false when there is none at the moment.
	Next(put Put) (at seglog.LSN, ok bool, err error)
	// Missing counts records after the one asked for that the journal does not hold any more.
	Missing() uint64
	Close()
}

// Put takes readings of one sample; what is passed is valid only during the call, except d.
type Put func(at seglog.LSN, d *telemetry.Device, t int64, readings []telemetry.Reading)

// State says what a History is doing.
type State int32

// States in the order of a start.
const (
	Closed     State = iota // before Run and after it
	Opening                 // blocks and write-ahead log are being read, or the disk does not let them be
	CatchingUp              // the journal is being read again
	Live
)

func (s State) String() string { return [...]string{"closed", "opening", "catching up", "live"}[s] }

// Status is a copy of a History's figures.
type Status struct {
	State   State
	Applied seglog.LSN // last journal record whose readings are stored
	Counts
	Series     uint64 // in memory
	Blocks     int
	Bytes      int64 // on disk
	OldestTime int64 // ns; 0: empty
	NewestTime int64 // ns; 0: empty
	LastError  string
}

// Counts are since the start of the process.
type Counts struct {
	Stored    uint64 // readings
	Conflicts uint64 // readings not stored: another value stands at the same millisecond
	TooOld    uint64 // readings not stored: further behind the newest than Keep
	Missed    uint64 // journal records that were trimmed before they could be read
	Overflows uint64 // times the queue was full and the journal had to be read again
	SetAside  uint64 // times the folder was damaged and begun anew
}

// Bounds of the queue between the pipeline and Run. At 5,000 messages a second it holds four seconds; it takes 2.5 MB then, and as
// much again while a commit is under way.
const (
	queueSamples  = 20_000
	queueReadings = 80_000
)

// commitEvery bounds how often the TSDB commits, and thus how far a query may trail what arrived.
const commitEvery = 200 * time.Millisecond

// syncEvery is how much a power cut may cost in reading the journal again.
const syncEvery = time.Minute

// History is safe for concurrent use, except Run.
type History struct {
	o     Options
	kick  chan struct{} // capacity 1: there is something in the queue
	half  chan struct{} // capacity 1: the queue is half full
	state atomic.Int32

	applied atomic.Uint64
	counts  struct{ stored, conflicts, tooOld, missed, overflows, setAside atomic.Uint64 }
	lastErr atomic.Pointer[string]

	mu     sync.Mutex
	feed   feedState
	from   seglog.LSN // the record after which everything is in the queue; 0: not known yet
	passed seglog.LSN // the pipeline has passed on everything up to here
	queue  batch

	stall atomic.Pointer[func()] // tests: called before a commit

	storeMu sync.RWMutex // held for reading by queries, for writing by those who close the store
	store   *store

	write write // belongs to Run
	web   web
}

type feedState byte

const (
	deaf     feedState = iota // readings are dropped: they will be read from the journal
	starting                  // the next record is the first that counts
	fed
)

// batch is samples in the order of their records.
type batch struct {
	samples  []sample
	readings []telemetry.Reading
}

type sample struct {
	at     seglog.LSN
	t      int64
	device *telemetry.Device
	n      int32 // of readings
}

func (b *batch) add(at seglog.LSN, d *telemetry.Device, t int64, readings []telemetry.Reading) {
	b.samples = append(b.samples, sample{at, t, d, int32(len(readings))})
	b.readings = append(b.readings, readings...)
}

func (b *batch) reset() {
	clear(b.samples)
	clear(b.readings)
	b.samples, b.readings = b.samples[:0], b.readings[:0]
}

// New opens nothing; Run does, so that a long write-ahead log delays no start.
func New(o Options) *History {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	h := &History{o: o, kick: make(chan struct{}, 1), half: make(chan struct{}, 1)}
	h.web.init()
	return h
}

// Readings queues what a device measured at t; it never waits. Records must come in order. When the queue is full they are dropped
// here, and read from the journal later.
func (h *History) Readings(at seglog.LSN, d *telemetry.Device, t int64, readings []telemetry.Reading) {
	h.mu.Lock()
	switch h.feed {
	case deaf:
		h.mu.Unlock()
		return
	case starting:
		if h.from == 0 {
			h.from = at // perhaps not its first sample, so the whole record is left to the journal
		}
		if at == h.from {
			h.mu.Unlock()
			return
		}
	}
	if len(h.queue.samples) >= queueSamples || len(h.queue.readings) >= queueReadings {
		h.feed = deaf
		h.queue = batch{}
		h.mu.Unlock()
		h.counts.overflows.Add(1)
		wake(h.kick)
		return
	}
	h.queue.add(at, d, t, readings)
	n := len(h.queue.samples)
	h.mu.Unlock()
	switch n {
	case 1:
		wake(h.kick)
	case queueSamples / 2:
		wake(h.half)
	}
}

// Passed tells that the readings of all records up to at were passed to Readings.
func (h *History) Passed(at seglog.LSN) {
	h.mu.Lock()
	h.passed = at
	h.mu.Unlock()
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Run opens the store and follows the journal until ctx ends; then it stores what is queued, and closes. Trouble with the disk ends
// nothing: it is logged, and tried again.
func (h *History) Run(ctx context.Context) error {
	defer h.state.Store(int32(Closed))
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		began := time.Now()
		err := h.follow(ctx)
		h.closeStore()
		if ctx.Err() != nil {
			return nil
		}
		if time.Since(began) > 5*time.Minute {
			wait = time.Second
		}
		h.fail(err)
		h.o.Log.Error("history stands still; its readings wait in the journal", "retry_in", wait, "err", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (h *History) fail(err error) {
	why := err.Error()
	h.lastErr.Store(&why)
}

// follow is one life of the store.
func (h *History) follow(ctx context.Context) error {
	h.deafen()
	h.state.Store(int32(Opening))
	if err := roomFor(h.o.Dir); err != nil {
		return err
	}
	s, err := h.openStore()
	if err != nil {
		return err
	}
	h.storeMu.Lock()
	h.store = s
	h.storeMu.Unlock()
	h.write = write{h: h, store: s, synced: time.Now()}
	h.applied.Store(uint64(s.mark.applied))
	for {
		h.state.Store(int32(CatchingUp))
		if err := h.catchUp(ctx); err != nil || ctx.Err() != nil {
			return errors.Join(err, h.write.finish())
		}
		h.lastErr.Store(nil)
		h.state.Store(int32(Live))
		if err := h.live(ctx); err != nil || ctx.Err() != nil {
			return errors.Join(err, h.write.finish())
		}
		h.o.Log.Warn("history fell behind the pipeline; reading the journal again", "from", h.applied.Load())
	}
}

func (h *History) deafen() {
	h.mu.Lock()
	h.feed, h.from = deaf, 0
	h.queue.reset()
	h.mu.Unlock()
}

func (h *History) closeStore() {
	h.storeMu.Lock()
	s := h.store
	h.store = nil
	h.storeMu.Unlock()
	if s == nil {
		return
	}
	if err := s.close(); err != nil {
		h.o.Log.Error("history not closed in order", "err", err)
	}
}

// live stores what the pipeline queues until ctx ends, or until the queue was full.
func (h *History) live(ctx context.Context) error {
	tick := time.NewTicker(commitEvery)
	defer tick.Stop()
	var taken batch
	for {
		ended := false
		select {
		case <-ctx.Done():
			ended = true
		case <-tick.C:
		case <-h.half:
		}
		h.mu.Lock()
		lost := h.feed == deaf
		taken, h.queue = h.queue, taken
		passed := h.passed
		h.mu.Unlock()
		if err := roomFor(h.o.Dir); err != nil {
			return err
		}
		if err := h.write.batch(&taken); err != nil {
			return err
		}
		taken.reset()
		if !lost {
			h.write.reached(passed)
		}
		if lost || ended {
			return nil
		}
		if err := h.write.syncNow(false); err != nil {
			return err
		}
		if !ended && h.write.idle() { // nothing to do: sleep until there is
			select {
			case <-ctx.Done():
			case <-h.kick:
			case <-time.After(syncEvery / 4):
			}
		}
	}
}

// catchUp reads the journal until the queue goes on where it ends. nil means that, or that ctx ended.
func (h *History) catchUp(ctx context.Context) error {
	h.deafen()
	after := seglog.LSN(h.applied.Load())
	if last := h.o.Journal.Durable(); after > last {
		h.o.Log.Error("history is ahead of the journal, which must be another one; reading all of it", "history", after, "journal", last)
		after = 0
		h.write.restart()
		if err := h.write.store.complete.lose(time.Now().UnixNano()); err != nil {
			return err
		}
	}
	r, err := h.o.Journal.Reread(after)
	if err != nil {
		return err
	}
	defer r.Close()
	defer h.write.forget() // its devices are not those of the pipeline
	h.write.skip = after
	started, records := time.Now(), 0
	var b batch
	at, missing := seglog.LSN(0), uint64(0) // at: the last record read
	for ctx.Err() == nil {
		ended := false
		for n := 0; n < 2048 && len(b.readings) < queueReadings/8; n++ {
			lsn, ok, err := r.Next(b.add)
			if err != nil {
				return errors.Join(err, h.write.batch(&b))
			}
			if !ok {
				ended = true
				break
			}
			at = lsn
			records++
		}
		if m := r.Missing(); m > missing {
			h.counts.missed.Add(m - missing)
			if err := h.write.store.complete.lose(time.Now().UnixNano()); err != nil {
				return err
			}
			h.o.Log.Error("history has a gap: the journal was trimmed before it could be read", "records", m-missing, "after", after)
			missing = m
		}
		if err := h.write.store.complete.begin(h.beginning(after)); err != nil {
			return err
		}
		if err := roomFor(h.o.Dir); err != nil {
			return err
		}
		if err := h.write.batch(&b); err != nil {
			return err
		}
		b.reset()
		h.write.reached(at)
		if err := h.write.syncNow(false); err != nil {
			return err
		}
		if at == 0 {
			at = after
		}
		if h.join(at, ended) {
			h.write.skip = at
			if records > 0 {
				h.o.Log.Info("history caught up", "after", after, "records", records, "took", time.Since(started).Round(time.Millisecond))
			}
			return nil
		}
	}
	return nil
}

// beginning is from when on a store is complete that goes on after a record, where nothing else says so.
func (h *History) beginning(after seglog.LSN) int64 {
	if after > 0 { // it was begun by a version that kept no account
		return time.Now().UnixNano()
	}
	return math.MinInt64
}

// join decides whether the queue holds everything after at, the last record read. It does when the pipeline queued from a record at
// or before it; or when the journal ended while the queue was already open and nothing came.
func (h *History) join(at seglog.LSN, ended bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.feed == deaf:
		if ended || h.o.Journal.Durable() < at+4096 {
			h.feed, h.from = starting, 0
			h.queue.reset()
		}
		return false
	case h.from > at, h.from == 0 && !ended:
		return false
	}
	h.feed = fed
	return true
}

// Status is safe for concurrent use.
func (h *History) Status() Status {
	s := Status{State: State(h.state.Load()), Applied: seglog.LSN(h.applied.Load()), Counts: Counts{
		Stored: h.counts.stored.Load(), Conflicts: h.counts.conflicts.Load(), TooOld: h.counts.tooOld.Load(),
		Missed: h.counts.missed.Load(), Overflows: h.counts.overflows.Load(), SetAside: h.counts.setAside.Load(),
	}}
	if why := h.lastErr.Load(); why != nil {
		s.LastError = *why
	}
	h.storeMu.RLock()
	defer h.storeMu.RUnlock()
	if h.store != nil {
		h.store.describe(&s)
	}
	return s
}
