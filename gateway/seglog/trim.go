package seglog

import (
	"errors"
	"fmt"
	"path/filepath"

	"sluice/gateway/seglog/fsys"
)

// TrimBefore releases whole segments whose records are all below lsn, oldest first; the newest segment stays. Each release
// is durable before the next begins, so that a crash leaves no hole. A released segment becomes a spare where one is missing.
func (l *Log) TrimBefore(lsn LSN) error {
	if l.readOnly {
		return ErrReadOnly
	}
	l.trimMu.Lock()
	defer l.trimMu.Unlock()
	for {
		s, to := l.oldestBelow(lsn)
		if s == nil {
			return nil
		}
		if err := l.release(s, to); err != nil {
			return fmt.Errorf("trim %s: %w", s.path, err)
		}
	}
}

// oldestBelow takes the oldest segment out of the log when it may go; to is the spare it becomes, "" when it is deleted.
func (l *Log) oldestBelow(lsn LSN) (s *segment, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.segments) < 2 || l.segments[0].last >= lsn {
		return nil, ""
	}
	s = l.segments[0]
	s.gone = true
	l.segments = l.segments[1:]
	spares := len(l.spares)
	if l.preparing > 0 {
		spares++
	}
	if !l.o.NoPrealloc && s.size == l.o.SegmentBytes && spares < maxSpares && l.frozen == 0 {
		l.spareSeq++
		to = filepath.Join(l.dir, fmt.Sprintf("%d%s", l.spareSeq, spareSuffix))
	}
	return s, to
}

func (l *Log) release(s *segment, to string) error {
	if l.trimDirty { // an earlier release may not be durable yet
		if err := l.fs.SyncDir(l.dir); err != nil {
			l.putBack(s)
			return err
		}
		l.trimDirty = false
	}
	var err error
	if to != "" {
		err = l.fs.Rename(s.path, to)
	} else {
		err = l.fs.Remove(s.path)
	}
	if err != nil {
		f, openErr := l.fs.Open(s.path)
		if !errors.Is(openErr, fsys.ErrNotExist) { // it stands as before, or so we must assume
			if openErr == nil {
				f.Close()
			}
			l.putBack(s)
			return err
		}
		l.trimDirty = true
		if to != "" {
			l.fs.Remove(to)
		}
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		// After a power cut the file may have its old name again, so nothing else may be written into it.
		l.trimDirty = true
		if to != "" {
			l.fs.Remove(to)
		}
		return err
	}
	l.mu.Lock()
	if to != "" {
		l.spares = append(l.spares, spare{path: to, recycled: true})
		l.nextErr, l.refused = nil, false
	}
	wake := l.err != nil || l.nextErr != nil
	l.mu.Unlock()
	if wake {
		notify(l.kick)
		notify(l.refill)
	}
	return nil
}

func (l *Log) putBack(s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.gone = false
	l.segments = append([]*segment{s}, l.segments...)
}
