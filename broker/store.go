package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// Store keeps sessions, subscriptions, queued and retained messages on disk: a log of changes, and a snapshot in two slots
// that covers the log up to an LSN. It is read once, by OpenStore, and then only written; Broker.Run commits it and replaces
// the snapshot. What a Store holds belongs to one Broker.
type Store struct {
	log   *seglog.Log
	slots *seglog.Slots
	o     StoreOptions
	book  *book // as read; the broker takes it
	alive int64 // the last moment the process before is known to have run, ns since the Unix epoch; 0: none

	durable atomic.Uint64
	kick    chan struct{} // 1 slot: there is something to commit
	// Changes that the log does not hold, and how many of those a snapshot has caught up with. Until it has with all, nothing
	// is promised.
	missed, caughtUp atomic.Uint64
	failed           atomic.Bool // the last commit failed

	// Guarded by sessions.mu, or used by one goroutine.
	body      []byte    // of the record being made
	covered   uint64    // by the newest snapshot
	coveredBy [2]int    // its bytes, and the log's when it was made
	tried     time.Time // when the last snapshot was

	records, bytes, snapshots, faults atomic.Int64
}

// StoreOptions configure OpenStore; the zero value of each field is its default.
type StoreOptions struct {
	FS             fsys.FS       // nil: the operating system
	CommitInterval time.Duration // least time between two syncs; 0: as fast as the disk syncs
	SegmentBytes   int64         // of the log's files, 4 MiB
	SnapshotBytes  int64         // 16 MiB of changes, or twice the last snapshot if that is more, before the next one
	Log            *slog.Logger  // nil: none
}

// OpenStore reads the store in dir, or makes one. It starts nothing; the store commits when a Broker's Run does. seglog.ErrVersion when it
// is newer than this program.
func OpenStore(dir string, o StoreOptions) (*Store, error) {
	if o.FS == nil {
		o.FS = fsys.OS{}
	}
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = 4 << 20
	}
	if o.SnapshotBytes <= 0 {
		o.SnapshotBytes = 16 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if err := o.FS.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open store of sessions: %w", err)
	}
	st := &Store{o: o, kick: make(chan struct{}, 1)}
	if err := st.open(dir); err != nil {
		return nil, fmt.Errorf("open store of sessions: %w", errors.Join(err, st.Close()))
	}
	return st, nil
}

func (st *Store) open(dir string) (err error) {
	if st.slots, err = seglog.OpenSlots(st.o.FS, dir, "snapshot"); err != nil {
		return err
	}
	r := newReplay()
	values, err := st.slots.Both()
	if err != nil {
		return err
	}
	for i, v := range values {
		if err = r.snapshot(v); err == nil {
			st.coveredBy[0] = len(v)
			break
		}
		if errors.Is(err, seglog.ErrVersion) {
			return err
		}
		st.o.Log.Error("a snapshot of sessions cannot be read", "err", err, "older_ones", len(values)-i-1)
		r = newReplay()
	}
	st.covered = r.covered
	st.log, _, err = seglog.Open(filepath.Join(dir, "log"), seglog.Options{
		FS: st.o.FS, SegmentBytes: st.o.SegmentBytes, MaxPendingBytes: 32 << 20, NoPrealloc: true, Retain: true,
		MinNext: seglog.LSN(r.covered + 1), Log: st.o.Log,
	})
	if err != nil {
		return err
	}
	c := st.log.Cursor(seglog.LSN(r.covered + 1))
	defer c.Close()
	for {
		rec, ok, err := c.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		r.apply(rec.Type, rec.Time, rec.Body)
	}
	if _, damaged := c.Skipped(); damaged > 0 || r.unread > 0 {
		st.o.Log.Error("the store of sessions was damaged: sessions, queued or retained messages may be missing",
			"lost", damaged, "unread", r.unread)
	}
	st.book, st.alive = r.finish(), r.alive
	st.durable.Store(uint64(st.log.Durable()))
	return nil
}

// Close closes the files; what is not committed stays away.
func (st *Store) Close() error {
	var err error
	if st.log != nil {
		err = st.log.Close()
	}
	if st.slots != nil {
		err = errors.Join(err, st.slots.Close())
	}
	return err
}

// works tells whether changes can be promised at the moment.
func (st *Store) works() bool { return !st.behind() && !st.failed.Load() }

func (st *Store) behind() bool { return st.missed.Load() != st.caughtUp.Load() }

// append queues a change. It never waits. Its position is durable when Store.durable has reached it.
func (st *Store) append(typ byte, at int64, body []byte) (pos uint64, err error) {
	lsn, err := st.log.Append(typ, at, body)
	if err != nil {
		if st.missed.Add(1) == st.caughtUp.Load()+1 {
			st.o.Log.Error("store of sessions takes no changes: what needs it is not acknowledged", "err", err)
		}
		return 0, err
	}
	st.records.Add(1)
	st.bytes.Add(int64(len(body)))
	select {
	case st.kick <- struct{}{}:
	default:
	}
	return uint64(lsn), nil
}

// commitUntil makes changes durable and tells of it, until stop; then once more.
func (st *Store) commitUntil(stop <-chan struct{}, told func()) {
	retry := time.NewTimer(0)
	<-retry.C
	defer retry.Stop()
	for stopped := false; !stopped; {
		select {
		case <-stop:
			stopped = true
		case <-st.kick:
			if st.o.CommitInterval > 0 {
				retry.Reset(st.o.CommitInterval)
				select {
				case <-stop:
					stopped = true
				case <-retry.C:
				}
			}
		case <-retry.C:
		}
		if st.commit() == nil {
			told()
		} else {
			retry.Reset(retryEvery)
		}
	}
}

func (st *Store) commit() error {
	err := st.log.Commit()
	if failed := err != nil; st.failed.Swap(failed) != failed {
		if failed {
			st.faults.Add(1)
			st.o.Log.Error("store of sessions cannot be written: what needs it is not acknowledged", "err", err)
		} else {
			st.o.Log.Info("store of sessions works again")
		}
	}
	st.durable.Store(uint64(st.log.Durable()))
	return err
}

// retryEvery is how long to wait after a commit or a snapshot that failed.
const retryEvery = time.Second

// due tells whether it is time for a snapshot.
func (st *Store) due() bool {
	if time.Since(st.tried) < retryEvery {
		return false
	}
	return st.behind() || st.log.Bytes()-int64(st.coveredBy[1]) >= max(st.o.SnapshotBytes, 2*int64(st.coveredBy[0]))
}

// save writes a snapshot of everything up to lsn, and lets the log go that not even the snapshot before it needs.
func (st *Store) save(value []byte, lsn uint64) error {
	st.tried = time.Now()
	if err := st.slots.Store(value, true); err != nil {
		return fmt.Errorf("save snapshot of sessions: %w", err)
	}
	before := st.covered
	st.covered = lsn
	st.snapshots.Add(1)
	err := st.log.TrimBefore(seglog.LSN(before + 1))
	st.coveredBy = [2]int{len(value), int(st.log.Bytes())}
	if err != nil {
		return fmt.Errorf("trim log of sessions: %w", err)
	}
	return nil
}
