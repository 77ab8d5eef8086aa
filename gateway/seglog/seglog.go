// Package seglog is a durable log of records in segment files: group commit with one fdatasync a group, CRC-32C bound to
// segment and LSN, several cursors, reading by LSN and by time, bounded size, damaged records set aside. It knows neither
// MQTT nor telemetry and starts no goroutines: Run is the committer's loop, and the caller says go.
//
// It never retries a failed fsync on the same file, never appends behind data of unknown state, and never deletes what it
// cannot read. It assumes a disk that honours flushes and does not change sectors other than those written.
package seglog

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"log/slog"
	"sync"
	"time"

	"sluice/gateway/seglog/fsys"
)

// LSN numbers records from 1 in the order of Append, without gaps except where Recovery tells of one. 0 means none.
type LSN uint64

// Record is one record as read back. Body is valid until the cursor's next call.
type Record struct {
	LSN  LSN
	Type byte  // the caller's; never 0
	Time int64 // ns since the Unix epoch, as given to Append
	Body []byte
}

// MaxRecord bounds the body of one record.
const MaxRecord = 16 << 20

// Errors of Append and Commit. Wrapped errors carry the cause.
var (
	ErrTooLarge = errors.New("record too large")
	ErrFull     = errors.New("log is full")                     // the bound or the disk; goes away when space returns
	ErrFailed   = errors.New("log cannot make records durable") // a device error; Append works again after a Commit that succeeds
	ErrClosed   = errors.New("log is closed")
)

// Options configure Open; the zero value of each field is its default.
type Options struct {
	FS              fsys.FS       // nil: the operating system
	SegmentBytes    int64         // 16 MiB, at least 16 KiB; a record larger than a segment gets a segment of its own size
	MaxBytes        int64         // bound of all files of the log, spares included, 0: none
	MaxPendingBytes int           // appended and not yet written, 8 MiB; Append waits while it is exceeded and Run is running, else ErrFull
	CommitInterval  time.Duration // Run: least time between commits; 0: as fast as the device syncs
	MinNext         LSN           // the next Append gets at least this LSN
	Log             *slog.Logger  // nil: none

	// NoPrealloc lets segments grow as they are written instead of preparing them with zeros: small logs, and those that
	// are synced rarely, where saving metadata writes is not worth the disk space.
	NoPrealloc bool
	// Verify reads every segment in Open. Without it only the newest is read (start-up time does not grow with the log),
	// and damage in older ones is found, set aside and reported by the cursors that come by.
	Verify bool
	// Retain keeps queued records when Commit or Flush fails, for the next call to try again, instead of dropping them: for
	// logs whose writer holds back-pressure itself (outboxes, used with Flush). Append then works until MaxPendingBytes.
	// Without Retain a failed commit frees the LSNs of flushed records too, which cursors may have seen.
	Retain bool

	// CutTorn drops what follows a torn range in the newest segment, instead of keeping the records behind it: for logs whose
	// writer can produce again everything after the last record that is left, and only that.
	CutTorn bool

	// OnCommit is called after each sync, in order, by the committing goroutine; it must not block nor call Append or Commit.
	OnCommit func(c CommitInfo)
	// OnFault is called, as OnCommit is, when a commit failed. Without Retain every record after durable is gone from the log
	// and its LSN is free again; with Retain it is called once until a commit succeeds, and nothing is gone.
	OnFault func(err error, durable LSN)
	// OnDamage is called by a cursor that skipped damage which Recovery did not tell of, once for each range.
	OnDamage func(d Damage)
}

// CommitInfo tells of one successful sync.
type CommitInfo struct {
	Durable  LSN           // the last LSN that survives power loss now
	Records  int           // made durable by this sync
	Bytes    int64         // their size on disk
	Duration time.Duration // of the write and the sync
}

// Defaults of Options.
const (
	defaultSegmentBytes    = 16 << 20
	minSegmentBytes        = 16 << 10
	defaultMaxPendingBytes = 8 << 20
)

// retainBytes bounds what Flush keeps in memory for the case that a later sync fails; beyond it Flush syncs.
const retainBytes = 1 << 20

// Log is safe for concurrent use.
type Log struct {
	dir   string
	fs    fsys.FS
	o     Options
	newID func() uint64

	readOnly bool // see OpenReadOnly; constant

	kick   chan struct{} // capacity 1: there is something to commit, or space came back
	refill chan struct{} // capacity 1: a spare segment is wanted
	done   chan struct{} // closed by Close

	// commitMu is held by whoever writes to the active segment; it guards flight, counts and file. Locks are taken in the order
	// trimMu, commitMu, prepMu, mu.
	commitMu sync.Mutex
	flight   flight
	file     fsys.File // of the active segment; nil when there is none

	prepMu    sync.Mutex // held while a spare is written
	trimMu    sync.Mutex // held by TrimBefore
	trimDirty bool       // guarded by trimMu: a release is not known to be durable

	// mu guards what follows; it is never held during I/O.
	mu        sync.Mutex
	room      sync.Cond // pending got shorter, the state changed
	pending   []byte    // records as appendRecord leaves them
	inflight  int       // bytes taken from pending and not yet written
	next      LSN
	durable   LSN
	visible   LSN
	segments  []*segment // oldest first
	active    *segment   // the one commits go to; nil when a new one must be made
	spares    []spare
	spareSeq  int
	preparing int64 // bytes of the spare being written
	running   bool
	closed    bool
	err       error // why commits fail
	nextErr   error // why no further segment can be had
	refused   bool  // Append has returned nextErr
	waiters   []*Cursor
	damaged   map[string]bool // saved ranges by name
	frozen    int             // users of files that may be released: none is written over
	written   int64
}

// segment is one file. The log's mu guards its fields except the constant ones.
type segment struct {
	path     string // constant
	header          // constant
	capacity int64  // constant: bytes the file may have
	last     LSN    // last record that counts; first-1 when there is none
	end      int64  // offset behind the last record, as far as known; else the file's size
	size     int64  // bytes the file has
	gone     bool   // trimmed or replaced: its bytes may change at any time
}

// spare is a segment file without a name in the log: zeros, or what a trimmed segment held.
type spare struct {
	path     string
	recycled bool
}

func (o *Options) setDefaults() {
	if o.FS == nil {
		o.FS = fsys.OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	o.SegmentBytes = max(o.SegmentBytes, minSegmentBytes)
	if o.MaxPendingBytes <= 0 {
		o.MaxPendingBytes = defaultMaxPendingBytes
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func randomID() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// Durable is the last LSN that survives power loss.
func (l *Log) Durable() LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable
}

// Visible is the last LSN that cursors may read: at least Durable, and more after a Flush.
func (l *Log) Visible() LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.visible
}

// First is the oldest LSN still held, or the next one when the log is empty.
func (l *Log) First() LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.segments) == 0 || l.segments[0].first > l.visible {
		return l.next
	}
	return l.segments[0].first
}

// Next is the LSN the next Append gets.
func (l *Log) Next() LSN {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Bytes is the size of all segments that hold records, the newest one counted as far as it is written.
func (l *Log) Bytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var n int64
	for _, s := range l.segments {
		if s == l.active {
			n += s.end
		} else {
			n += s.size
		}
	}
	return n
}

// DiskBytes is the size of all files of the log, spares and the newest segment's unwritten part included. Ranges set aside
// as damaged are not.
func (l *Log) DiskBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.diskBytes()
}

func (l *Log) diskBytes() int64 {
	n := int64(len(l.spares))*l.o.SegmentBytes + l.preparing
	for _, s := range l.segments {
		n += s.size
	}
	return n
}

// DeviceBytes counts bytes written to files since Open, zeros of prepared segments included.
func (l *Log) DeviceBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// Segments is the number of segments that hold records.
func (l *Log) Segments() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.segments)
}

// Err is nil, or why the log takes no records at the moment.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil && l.refused {
		return l.nextErr
	}
	return l.err
}

// Close commits what is queued, and closes the files. Cursors end with ErrClosed, and so does Run.
func (l *Log) Close() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	err := l.commitLocked(true)
	l.mu.Lock()
	l.closed = true
	close(l.done)
	l.room.Broadcast()
	l.mu.Unlock()
	if l.file != nil {
		if cerr := l.file.Close(); err == nil {
			err = cerr
		}
		l.file = nil
	}
	return err
}
