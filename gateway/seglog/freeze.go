package seglog

import (
	"errors"
	"fmt"
	"path/filepath"

	"sluice/gateway/seglog/fsys"
)

// Frozen is the files of a log as they were at one moment: what Open makes of a copy of them is the log of then. The log goes on meanwhile,
// and what it releases stays readable here until Close; its room comes back then.
type Frozen struct {
	Files []FrozenFile // oldest first
	l     *Log
}

// FrozenFile is one of them: its first Size bytes count.
type FrozenFile struct {
	Name string // without its directory
	Size int64
	File fsys.File
}

// Freeze takes what is visible. Close it after use. Safe for concurrent use.
func (l *Log) Freeze() (*Frozen, error) {
	l.trimMu.Lock() // nothing is released while the files are opened
	defer l.trimMu.Unlock()
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil, ErrClosed
	}
	l.frozen++ // and what is released from now on is not written over
	f := &Frozen{l: l}
	var paths []string
	for _, s := range l.segments {
		size := s.size
		if s == l.active {
			size = s.end
		}
		paths = append(paths, s.path)
		f.Files = append(f.Files, FrozenFile{Name: filepath.Base(s.path), Size: size})
	}
	l.mu.Unlock()
	for i, path := range paths {
		file, err := l.fs.Open(path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("freeze %s: %w", path, err), f.Close())
		}
		f.Files[i].File = file
	}
	return f, nil
}

// Close lets go of the files.
func (f *Frozen) Close() (err error) {
	if f.l == nil {
		return nil
	}
	for i := range f.Files {
		if file := f.Files[i].File; file != nil {
			err = errors.Join(err, file.Close())
		}
	}
	f.l.mu.Lock()
	f.l.frozen--
	f.l.mu.Unlock()
	f.l = nil
	return err
}

// EncodeSlot is a slot's file with that value, for a copy of it: <name>.a alone.
func EncodeSlot(value []byte) []byte { return encodeSlot(value, 1) }
