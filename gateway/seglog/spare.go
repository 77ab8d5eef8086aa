package seglog

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"sluice/gateway/seglog/fsys"
)

const (
	// maxSpares bounds the files kept ready for use: one to roll into, one that trimming gave back meanwhile.
	maxSpares = 2
	// zeroChunk is what a spare is filled with between two syncs, so that commits on the same device need not wait for long.
	zeroChunk = 1 << 20
	// retryEvery is how long Run waits before it tries a failing log again.
	retryEvery = time.Second
)

// plainPath is the name of a new segment that is not prepared, until it has its own.
func plainPath(dir string) string { return filepath.Join(dir, "new"+spareSuffix) }

// wantSpare tells whether Run should prepare a segment now: a quarter into the active one. The caller holds mu.
func (l *Log) wantSpare() bool {
	return l.running && !l.o.NoPrealloc && len(l.spares) == 0 && l.preparing == 0 &&
		l.active != nil && l.active.end > l.active.capacity/4
}

// newFile returns a file for a segment of at least need bytes: a spare when there is one. Without one, a log under Run takes
// an empty file, because commits must not wait for zeros; else a spare is made at once. The caller holds commitMu.
func (l *Log) newFile(need int64) (f fsys.File, sp spare, capacity int64, err error) {
	if need > l.o.SegmentBytes || l.o.NoPrealloc {
		capacity = max(need, l.o.SegmentBytes)
		f, sp, err = l.plainFile(capacity)
		return f, sp, capacity, err
	}
	capacity = l.o.SegmentBytes
	l.mu.Lock()
	have, running := len(l.spares) > 0, l.running
	preparing := l.preparing > 0
	l.mu.Unlock()
	if !have {
		if running {
			f, sp, err = l.plainFile(capacity)
			if !preparing || !errors.Is(err, errBound) {
				return f, sp, capacity, err
			}
			// The bound has room for the segment being prepared and no other: wait for it.
		}
		if err := l.prepare(); err != nil {
			return nil, spare{}, 0, err
		}
	}
	l.mu.Lock()
	if len(l.spares) == 0 {
		l.mu.Unlock()
		return nil, spare{}, 0, errBound
	}
	sp = l.spares[0]
	l.spares = append(l.spares[:0], l.spares[1:]...)
	l.mu.Unlock()
	f, err = l.fs.Open(sp.path)
	if err != nil {
		l.fs.Remove(sp.path)
		return nil, spare{}, 0, fmt.Errorf("open spare: %w", err)
	}
	return f, sp, capacity, nil
}

func (l *Log) plainFile(capacity int64) (fsys.File, spare, error) {
	l.mu.Lock()
	bound := l.o.MaxBytes > 0 && l.diskBytes()+capacity > l.o.MaxBytes
	l.mu.Unlock()
	if bound {
		return nil, spare{}, errBound
	}
	path := plainPath(l.dir)
	f, err := createNew(l.fs, path)
	if err != nil {
		return nil, spare{}, fmt.Errorf("create segment: %w", err)
	}
	return f, spare{path: path}, nil
}

// createNew creates name, replacing what an earlier try may have left there.
func createNew(fs fsys.FS, name string) (fsys.File, error) {
	f, err := fs.Create(name)
	if !errors.Is(err, fsys.ErrExist) {
		return f, err
	}
	if err := fs.Remove(name); err != nil {
		return nil, err
	}
	return fs.Create(name)
}

// prepare makes a spare segment of real zeros, so that commits write neither metadata nor more than their records.
// Its error becomes nextErr until it succeeds.
func (l *Log) prepare() error {
	l.prepMu.Lock()
	defer l.prepMu.Unlock()
	l.mu.Lock()
	if len(l.spares) > 0 {
		l.nextErr, l.refused = nil, false
		l.mu.Unlock()
		return nil
	}
	if l.o.MaxBytes > 0 && l.diskBytes()+l.o.SegmentBytes > l.o.MaxBytes {
		l.nextErr = errBound
		l.mu.Unlock()
		return errBound
	}
	l.preparing = l.o.SegmentBytes
	l.spareSeq++
	path := filepath.Join(l.dir, fmt.Sprintf("%d%s", l.spareSeq, spareSuffix))
	l.mu.Unlock()

	err := l.fillSpare(path)

	l.mu.Lock()
	defer l.mu.Unlock()
	l.preparing = 0
	if err != nil {
		l.nextErr = classify(fmt.Errorf("prepare segment: %w", err))
		return l.nextErr
	}
	l.spares = append(l.spares, spare{path: path})
	l.nextErr, l.refused = nil, false
	l.room.Broadcast()
	return nil
}

func (l *Log) fillSpare(path string) error {
	f, err := createNew(l.fs, path)
	if err != nil {
		return err
	}
	zeros := make([]byte, min(zeroChunk, l.o.SegmentBytes))
	for off := int64(0); off < l.o.SegmentBytes; off += int64(len(zeros)) {
		zeros = zeros[:min(int64(len(zeros)), l.o.SegmentBytes-off)]
		if _, err = f.WriteAt(zeros, off); err == nil {
			err = f.Sync()
		}
		if err != nil {
			f.Close()
			l.fs.Remove(path)
			return err
		}
		l.mu.Lock()
		l.written += int64(len(zeros))
		l.mu.Unlock()
	}
	if err := f.Close(); err != nil {
		l.fs.Remove(path)
		return err
	}
	return nil
}

// probe finds out whether the log can take records again after a failed commit, by doing on a spare what the next commit
// needs: write, sync, sync the directory. It clears Err when that works. The caller holds commitMu.
func (l *Log) probe() error {
	err := l.probeSpare()
	if err == nil {
		err = l.fs.SyncDir(l.dir)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.err = classify(err)
		return l.err
	}
	l.err, l.nextErr, l.refused = nil, nil, false
	l.room.Broadcast()
	l.o.Log.Info("log takes records again", "dir", l.dir)
	return nil
}

func (l *Log) probeSpare() error {
	if l.o.NoPrealloc {
		f, sp, err := l.plainFile(headerBytes)
		if err != nil {
			return err
		}
		defer l.fs.Remove(sp.path)
		defer f.Close()
		return l.writeSynced(f, make([]byte, headerBytes))
	}
	l.mu.Lock()
	var sp spare
	if len(l.spares) > 0 {
		sp = l.spares[0]
		l.spares = append(l.spares[:0], l.spares[1:]...)
	}
	l.mu.Unlock()
	if sp.path == "" {
		return l.prepare() // writes and syncs
	}
	f, err := l.fs.Open(sp.path)
	if err == nil {
		err = l.writeSynced(f, make([]byte, headerCopy))
		f.Close()
	}
	if err != nil {
		l.fs.Remove(sp.path)
		return fmt.Errorf("probe spare: %w", err)
	}
	l.mu.Lock()
	l.spares = append(l.spares, sp)
	l.mu.Unlock()
	return nil
}

func (l *Log) writeSynced(f fsys.File, b []byte) error {
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	l.mu.Lock()
	l.written += int64(len(b))
	l.mu.Unlock()
	return f.Sync()
}
