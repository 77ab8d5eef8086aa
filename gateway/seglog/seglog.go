// Package seglog is a durable log of records in segment files: group commit with one fdatasync a group, CRC-32C bound to
// segment and LSN, several cursors, reading by LSN and by time, bounded size, damaged records set aside. It knows neither
// MQTT nor telemetry and starts no goroutines: Run is the committer's loop, and the caller says go.
package seglog

import (
	"context"
	"errors"
	"log/slog"
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
	SegmentBytes    int64         // 16 MiB; a record larger than a segment gets a segment of its own size
	MaxBytes        int64         // bound of all segments, 0: none
	MaxPendingBytes int           // appended and not yet committed, 8 MiB; Append waits while it is exceeded and Run is running, else ErrFull
	CommitInterval  time.Duration // Run: least time between commits; 0: as fast as the device syncs
	MinNext         LSN           // the next Append gets at least this LSN
	Log             *slog.Logger  // nil: none
	// OnCommit is called after each commit, in order, by the committing goroutine, with the last durable LSN.
	OnCommit func(durable LSN)
	// OnFault is called when a commit failed: every record after durable is gone from the log and its LSN is free again.
	OnFault func(err error, durable LSN)
}

// Log is safe for concurrent use.
type Log struct{ _ int }

// Recovery tells what Open found.
type Recovery struct {
	First, Last LSN      // records on disk; 0, 0 when empty
	TornBytes   int64    // cut from the last segment's tail
	Damaged     []Damage // set aside from elsewhere
}

// Damage is a range of a segment that held no valid record. It is kept as <segment>.damaged-<offset> beside the log.
type Damage struct {
	Segment string
	Offset  int64
	Bytes   int64
	After   LSN // last good record before
	Resumed LSN // first good record after, 0 when none
	SavedAs string
}

// Open opens or creates the log in dir. The last segment's torn tail is cut; whatever is read is synced before Open
// returns, so that every record a cursor sees survives power loss.
func Open(dir string, o Options) (*Log, Recovery, error) { panic("stub") }

// Append queues a record for the next commit and returns its LSN. parts are joined into the body and copied.
// typ must not be 0; t is ns since the Unix epoch. The record is durable when Durable() has reached its LSN.
func (l *Log) Append(typ byte, t int64, parts ...[]byte) (LSN, error) { panic("stub") }

// AppendUrgent is Append into the part of the log kept free for it when the log is full: ticks and operator commands.
func (l *Log) AppendUrgent(typ byte, t int64, parts ...[]byte) (LSN, error) { panic("stub") }

// Run commits groups until ctx ends, then commits what is queued and returns. A failed commit does not end it: it keeps
// trying at most once a second for as long as there is something to commit.
func (l *Log) Run(ctx context.Context) error { panic("stub") }

// Commit writes and syncs everything queued, in the calling goroutine; OnCommit runs before it returns.
func (l *Log) Commit() error { panic("stub") }

// Flush writes everything queued without a sync and lets cursors see it. For logs that can be derived again.
func (l *Log) Flush() error { panic("stub") }

// Durable is the last LSN that survives power loss; Visible the last that cursors may read (at least Durable).
func (l *Log) Durable() LSN { panic("stub") }
func (l *Log) Visible() LSN { panic("stub") }

// First is the oldest LSN still held, or the next one when the log is empty.
func (l *Log) First() LSN { panic("stub") }

// Next is the LSN the next Append gets.
func (l *Log) Next() LSN { panic("stub") }

// Bytes is the size of all segments that hold records; DeviceBytes counts bytes written to files since Open.
func (l *Log) Bytes() int64       { panic("stub") }
func (l *Log) DeviceBytes() int64 { panic("stub") }

// Err is nil, or why the log takes no records at the moment.
func (l *Log) Err() error { panic("stub") }

// TrimBefore releases whole segments whose records are all below lsn, oldest first; the newest segment stays.
func (l *Log) TrimBefore(lsn LSN) error { panic("stub") }

// SeekTime returns the first LSN whose record time is at or after t, or Next() when there is none.
func (l *Log) SeekTime(t int64) (LSN, error) { panic("stub") }

// Close commits what is queued, and closes the files. Cursors end with ErrClosed.
func (l *Log) Close() error { panic("stub") }

// Cursor reads records in LSN order. Not safe for concurrent use; several cursors may run beside each other and beside Append.
type Cursor struct{ _ int }

// Cursor starts at from, or at First() when from is older.
func (l *Log) Cursor(from LSN) *Cursor { panic("stub") }

// Next returns the next visible record, waiting for one until ctx ends or the log is closed.
func (c *Cursor) Next(ctx context.Context) (Record, error) { panic("stub") }

// TryNext returns ok false when no further record is visible yet.
func (c *Cursor) TryNext() (r Record, ok bool, err error) { panic("stub") }

// Close releases the cursor's file.
func (c *Cursor) Close() error { panic("stub") }
