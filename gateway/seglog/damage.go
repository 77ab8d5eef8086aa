package seglog

import (
	"fmt"
	"io"
	"path/filepath"

	"sluice/gateway/seglog/fsys"
)

// Damage is a range of a segment that held no valid record. It is kept as <segment>.damaged-<offset> beside the log, also
// when the segment is trimmed.
type Damage struct {
	Segment string // path
	Offset  int64
	Bytes   int64
	After   LSN    // last good record before, 0 when none
	Resumed LSN    // first good record after, 0 when none
	SavedAs string // path; "" when it could not be saved
	// Torn: nothing shows that the records were ever synced. They stood in the newest group, which a power cut can tear.
	Torn bool
	// Known: an earlier Open, or a cursor, has set it aside before.
	Known bool
}

const damagedInfix = ".damaged-"

// setAside copies the range from f. fresh is false when that has been tried since Open.
func (l *Log) setAside(f fsys.File, d Damage) (_ Damage, fresh bool) {
	d.Bytes = max(d.Bytes, 0) // negative where the file is shorter than a header
	path := fmt.Sprintf("%s%s%d", d.Segment, damagedInfix, d.Offset)
	l.mu.Lock()
	saved, tried := l.damaged[path]
	if !tried {
		l.damaged[path] = false
	}
	l.mu.Unlock()
	if saved {
		d.SavedAs, d.Known = path, true
	}
	if tried || l.readOnly {
		return d, !tried
	}
	if err := l.copyRange(f, d.Offset, d.Bytes, path); err != nil {
		l.o.Log.Error("cannot set damaged range aside", "segment", d.Segment, "offset", d.Offset, "err", err)
	} else {
		d.SavedAs = path
		l.mu.Lock()
		l.damaged[path] = true
		l.mu.Unlock()
	}
	l.o.Log.Error("log is damaged", "segment", d.Segment, "offset", d.Offset, "bytes", d.Bytes, "after", uint64(d.After),
		"resumed", uint64(d.Resumed), "torn", d.Torn, "saved", d.SavedAs)
	return d, true
}

// copyRange writes a range without its trailing zeros to a file of its own. The file may be empty: it also tells the next
// Open that this range is known.
func (l *Log) copyRange(f fsys.File, off, n int64, path string) error {
	b := make([]byte, n)
	got, err := f.ReadAt(b, off)
	if err != nil && err != io.EOF {
		return err
	}
	b = b[:got]
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	to, err := createNew(l.fs, path)
	if err != nil {
		return err
	}
	if err := l.writeSynced(to, b); err != nil {
		to.Close()
		l.fs.Remove(path)
		return err
	}
	if err := to.Close(); err != nil {
		return err
	}
	return l.fs.SyncDir(filepath.Dir(path))
}
