package seglog

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"time"

	"sluice/gateway/seglog/fsys"
)

// flight holds the records between Append and the sync that makes them durable, so that a failed sync can be answered by
// writing them to another file:
//
//	buf  [ .. synced .. | written, not synced | not written ]
//	     0            head                 written       len(buf)
type flight struct {
	buf     []byte
	head    int
	written int
	records int // between head and written
}

func (f *flight) unsynced() bool { return f.written > f.head }

// synced drops what is durable.
func (f *flight) synced() {
	f.head, f.records = f.written, 0
	if f.head == len(f.buf) {
		f.buf, f.head, f.written = f.buf[:0], 0, 0
	}
}

// Commit writes and syncs everything queued, in the calling goroutine; OnCommit runs before it returns.
// While Err is set and nothing is left to drop, it tries whether the log works again and returns nil when it does.
func (l *Log) Commit() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	return l.commitOpen(true)
}

// Flush writes everything queued without a sync and lets cursors see it. For logs that can be derived again; use Retain.
// It syncs by itself when a segment is full and when more than 1 MiB is unsynced.
func (l *Log) Flush() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	return l.commitOpen(false)
}

func (l *Log) commitOpen(sync bool) error {
	l.mu.Lock()
	closed, failing, retry := l.closed, l.err != nil && !l.o.Retain, l.nextErr != nil && !l.running
	l.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case l.readOnly:
		return ErrReadOnly
	case failing:
		probeErr := l.probe()
		if err := l.commitLocked(sync); err != nil {
			return err
		}
		return probeErr
	case retry:
		l.prepare() // its error is nextErr, which Append returns
	}
	return l.commitLocked(sync)
}

// commitLocked takes what is queued and writes it. A failure in one segment is answered by one more try in a new one.
func (l *Log) commitLocked(sync bool) error {
	l.take()
	if len(l.flight.buf) == l.flight.head || (!sync && len(l.flight.buf) == l.flight.written) {
		return nil
	}
	sync = sync || len(l.flight.buf)-l.flight.head > retainBytes
	err := l.write(sync)
	if err != nil && !errors.Is(err, errBound) {
		l.o.Log.Warn("log write failed, rewriting into a new segment", "dir", l.dir, "err", err)
		err = l.write(sync)
	}
	if err != nil {
		return l.fault(err)
	}
	l.mu.Lock()
	if l.err != nil && l.o.Retain {
		l.err = nil
		l.o.Log.Info("log works again", "dir", l.dir)
	}
	if l.flight.unsynced() {
		l.show(l.active.last)
	}
	want := l.wantSpare()
	l.mu.Unlock()
	if want {
		notify(l.refill)
	}
	return nil
}

// take moves pending to the flight; the two buffers change places when the flight is empty.
func (l *Log) take() {
	f := &l.flight
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(f.buf) == 0 {
		spent := f.buf
		if cap(spent) > retainBytes && len(l.pending) < cap(spent)/8 {
			spent = nil // grown in a burst
		}
		f.buf, l.pending = l.pending, spent
	} else {
		f.buf = append(f.buf, l.pending...)
		l.pending = l.pending[:0]
	}
	l.inflight = len(f.buf) - f.written
}

// write writes the flight's rest, rolling to new segments as needed, and syncs.
func (l *Log) write(sync bool) error {
	f := &l.flight
	start := time.Now()
	for f.written < len(f.buf) {
		if room := l.roomLeft(); int64(recordBytes(f.buf[f.written:])) <= room {
			if err := l.writeActive(room); err != nil {
				return err
			}
			continue
		}
		if err := l.syncActive(&start); err != nil {
			return err
		}
		if err := l.startSegment(&start); err != nil {
			return err
		}
	}
	if sync {
		return l.syncActive(&start)
	}
	return nil
}

// roomLeft is how many bytes of the flight the active segment takes; it sees to a spare in time where Run does not.
func (l *Log) roomLeft() int64 {
	f := &l.flight
	l.mu.Lock()
	a := l.active
	if a == nil {
		l.mu.Unlock()
		return 0
	}
	room := a.capacity - a.end
	rest := int64(len(f.buf) - f.written)
	late := room-rest < a.capacity/reserveShare
	inline := late && !l.running && len(l.spares) == 0 && !l.o.NoPrealloc
	l.mu.Unlock()
	if inline {
		l.prepare() // its error is nextErr
	}
	if rest > room {
		// More than this segment takes. When no other can be had, the reserve stays for urgent records.
		l.mu.Lock()
		if l.nextErr != nil && !l.o.Retain {
			room -= a.capacity / reserveShare
		}
		l.mu.Unlock()
	}
	return room
}

// writeActive writes as many records as room holds in one write. On an error the segment is given up.
func (l *Log) writeActive(room int64) error {
	f := &l.flight
	a := l.active // only changed under commitMu
	size, n, last := seal(f.buf[f.written:], room, seedOf(a.id), !f.unsynced())
	chunk := f.buf[f.written : f.written+size]
	if _, err := l.file.WriteAt(chunk, a.end); err != nil {
		l.abandon()
		return fmt.Errorf("write %s: %w", a.path, err)
	}
	f.written += size
	f.records += n
	l.mu.Lock()
	a.end += int64(size)
	a.size = max(a.size, a.end)
	a.last = last
	l.written += int64(size)
	l.inflight = len(f.buf) - f.written
	l.mu.Unlock()
	return nil
}

// syncActive makes what was written durable and tells of it.
func (l *Log) syncActive(start *time.Time) error {
	f := &l.flight
	if !f.unsynced() {
		return nil
	}
	if err := l.file.Sync(); err != nil {
		err = fmt.Errorf("sync %s: %w", l.active.path, err)
		if !planted.noSeal {
			l.abandon()
		}
		return err
	}
	l.publish(l.active.last, start)
	return nil
}

// publish ends a successful sync of everything written.
func (l *Log) publish(durable LSN, start *time.Time) {
	f := &l.flight
	now := time.Now()
	info := CommitInfo{Durable: durable, Records: f.records, Bytes: int64(f.written - f.head), Duration: now.Sub(*start)}
	*start = now
	f.synced()
	l.mu.Lock()
	l.durable = durable
	l.inflight = len(f.buf) - f.written
	l.show(durable)
	l.room.Broadcast()
	l.mu.Unlock()
	if l.o.OnCommit != nil {
		l.o.OnCommit(info)
	}
}

// show lets cursors read up to lsn. The caller holds mu.
func (l *Log) show(lsn LSN) {
	l.visible = lsn
	for _, c := range l.waiters {
		notify(c.wake)
	}
	l.waiters = l.waiters[:0]
}

// abandon gives the active segment up at its last durable record: what follows there is of unknown state. The next segment
// starts with the LSN after it, which makes recovery and cursors ignore the rest.
func (l *Log) abandon() {
	l.file.Close()
	l.file = nil
	f := &l.flight
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active.last = l.durable
	l.active = nil
	f.written, f.records = f.head, 0
	l.inflight = len(f.buf) - f.written
	l.show(l.durable)
}

// errBound is MaxBytes reached: trying again at once is of no use.
var errBound = fmt.Errorf("%w: max_bytes reached", ErrFull)

// classify wraps a cause in ErrFull or ErrFailed.
func classify(err error) error {
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrFailed):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// fault ends a commit that failed twice: it drops what is not durable, or keeps it with Retain, and says so.
func (l *Log) fault(err error) error {
	err = classify(err)
	f := &l.flight
	l.mu.Lock()
	first := l.err == nil
	l.err = err
	if !l.o.Retain {
		f.buf, f.head, f.written, f.records = f.buf[:0], 0, 0, 0
		l.pending = l.pending[:0]
		l.inflight = 0
		l.next = max(l.durable+1, l.o.MinNext)
		l.visible = l.durable
	}
	durable := l.durable
	l.room.Broadcast()
	l.mu.Unlock()
	if first {
		l.o.Log.Error("log takes no records", "dir", l.dir, "durable", uint64(durable), "err", err)
	}
	if l.o.OnFault != nil && (first || !l.o.Retain) {
		l.o.OnFault(err, durable)
	}
	return err
}

// startSegment makes the segment that begins with the flight's first record and writes as much of the flight as it takes.
// The file gets its name only when header and records are synced, so a segment in the directory is never half made.
// Everything before is synced: head == written.
func (l *Log) startSegment(start *time.Time) error {
	f := &l.flight
	rest := f.buf[f.written:]
	first := recordLSN(rest)
	file, sp, capacity, err := l.newFile(int64(headerBytes + recordBytes(rest)))
	if err != nil {
		return err
	}
	l.mu.Lock()
	previous := l.durable
	l.mu.Unlock()
	h := header{id: l.newID(), first: first, previous: previous, firstTime: recordTime(rest), recycled: sp.recycled}
	size, n, last := seal(rest, capacity-headerBytes, seedOf(h.id), true)
	path := filepath.Join(l.dir, segmentName(first))
	if err := l.install(file, sp.path, path, h, rest[:size]); err != nil {
		file.Close()
		l.fs.Remove(sp.path) // fails when it has its name already; then the next try replaces it
		return fmt.Errorf("start segment %s: %w", path, err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file = file
	f.written += size
	f.records = n
	s := &segment{path: path, header: h, capacity: capacity, last: last, end: headerBytes + int64(size)}
	s.size = s.end
	if sp.path != plainPath(l.dir) {
		s.size = max(s.size, capacity)
	}
	l.mu.Lock()
	if k := len(l.segments); k > 0 && l.segments[k-1].first == first { // nothing in it became durable
		l.segments[k-1].gone = true
		l.segments = l.segments[:k-1]
	}
	l.segments = append(l.segments, s)
	l.active = s
	l.written += s.end
	l.mu.Unlock()
	l.publish(last, start)
	return nil
}

func (l *Log) install(file fsys.File, from, to string, h header, records []byte) error {
	if planted.renameFirst {
		if err := l.fs.Rename(from, to); err != nil {
			return err
		}
		if err := l.fs.SyncDir(l.dir); err != nil {
			return err
		}
	}
	if _, err := file.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if _, err := file.WriteAt(records, headerBytes); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if planted.renameFirst {
		return nil
	}
	if err := l.fs.Rename(from, to); err != nil {
		return err
	}
	return l.fs.SyncDir(l.dir)
}
