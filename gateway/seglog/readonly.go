package seglog

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"sluice/gateway/seglog/fsys"
)

// ErrReadOnly is what writing to a log returns that was opened with OpenReadOnly.
var ErrReadOnly = errors.New("log is open for reading only")

// OpenReadOnly opens the log in dir to read what it holds now, also while another process writes to it: it takes no lock, creates,
// changes and deletes nothing, and sets no damage aside, but reports it. Cursors end at the last record that was there at the time
// of the call, which need not survive power loss yet; records trimmed since are skipped and counted as trimmed. Of o it
// needs FS, Log and OnDamage. The directory must exist.
func OpenReadOnly(dir string, o Options) (*Log, Recovery, error) {
	o.setDefaults()
	l := &Log{
		dir: dir, fs: o.FS, o: o, readOnly: true,
		kick: make(chan struct{}, 1), refill: make(chan struct{}, 1), done: make(chan struct{}),
		damaged: map[string]bool{},
	}
	l.room.L = &l.mu
	var rec Recovery
	if err := l.readSegments(&rec); err != nil {
		return nil, rec, fmt.Errorf("read log %s: %w", dir, err)
	}
	l.next = l.durable + 1
	l.visible = l.durable
	l.err = ErrReadOnly
	rec.Segments = len(l.segments)
	return l, rec, nil
}

// readSegments lists the segments and finds the end of the newest.
func (l *Log) readSegments(rec *Recovery) error {
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		first, ok := segmentFirst(name)
		if !ok {
			continue
		}
		s, err := l.readHeader(filepath.Join(l.dir, name), first)
		switch {
		case errors.Is(err, fsys.ErrNotExist): // trimmed since the directory was read
		case err != nil:
			return err
		case s != nil:
			l.segments = append(l.segments, s)
		}
	}
	for i := 0; i+1 < len(l.segments); i++ {
		next := l.segments[i+1]
		l.segments[i].last = min(next.previous, next.first-1)
	}
	if len(l.segments) == 0 {
		return nil
	}
	newest := l.segments[len(l.segments)-1]
	f, err := l.fs.Open(newest.path)
	if err != nil { // the newest is never trimmed
		return err
	}
	defer f.Close()
	t, err := l.scan(f, newest, newest.first+LSN(newest.size/recordHeader), rec)
	if err != nil {
		return fmt.Errorf("segment %s: %w", newest.path, err)
	}
	newest.end, newest.last = t.end, t.last
	l.durable = max(t.last, newest.previous)
	if first := l.segments[0].first; first <= t.last {
		rec.First, rec.Last = first, t.last
	}
	return nil
}

// forget drops a segment that the writing process has trimmed, and those before it: it trims the oldest first.
func (l *Log) forget(s *segment) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.gone = true
	l.segments = slices.DeleteFunc(l.segments, func(x *segment) bool {
		x.gone = x.gone || x.first < s.first
		return x.gone
	})
}

// forgetRecycled is forget where the segment's name is gone or stands for another file: then bytes that are no records are not damage,
// but the file's next life.
func (l *Log) forgetRecycled(s *segment) error {
	if !l.readOnly {
		return nil
	}
	now, err := l.readHeader(s.path, s.first)
	switch {
	case errors.Is(err, fsys.ErrNotExist), err == nil && (now == nil || now.id != s.id):
		l.forget(s)
		return nil
	}
	return err
}
