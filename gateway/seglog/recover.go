package seglog

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"sluice/gateway/seglog/fsys"
)

// Recovery tells what Open found.
type Recovery struct {
	First, Last LSN      // records on disk; 0, 0 when empty
	TornBytes   int64    // written behind the last record and cut off; in a recycled segment as far as one can tell
	Damaged     []Damage // set aside from elsewhere
	Segments    int
}

// Open opens or creates the log in dir. The last segment's torn tail is cut; whatever is read is synced before Open
// returns, so that every record a cursor sees survives power loss. A full disk does not keep it from opening.
//
// A file of a newer format makes Open return ErrVersion before anything is touched.
func Open(dir string, o Options) (*Log, Recovery, error) {
	return open(dir, o, randomID)
}

func open(dir string, o Options, newID func() uint64) (*Log, Recovery, error) {
	o.setDefaults()
	l := &Log{
		dir: dir, fs: o.FS, o: o, newID: newID,
		kick: make(chan struct{}, 1), refill: make(chan struct{}, 1), done: make(chan struct{}),
		damaged: map[string]bool{},
	}
	l.room.L = &l.mu
	var rec Recovery
	if err := l.recover(&rec); err != nil {
		if l.file != nil {
			l.file.Close()
		}
		return nil, rec, fmt.Errorf("open log %s: %w", dir, err)
	}
	l.next = max(l.durable+1, o.MinNext, 1)
	if l.active != nil && l.next != l.active.last+1 {
		// The segment's LSNs must follow each other: begin another one.
		l.file.Close()
		l.file, l.active = nil, nil
	}
	l.visible = l.durable
	rec.Segments = len(l.segments)
	return l, rec, nil
}

// recover reads the directory. Nothing is written before every header is known to be readable by this version.
func (l *Log) recover(rec *Recovery) error {
	if err := l.fs.MkdirAll(l.dir); err != nil {
		return err
	}
	names, err := l.fs.ReadDir(l.dir)
	if err != nil {
		return err
	}
	var broken []string
	var spares []string
	for _, name := range names {
		path := filepath.Join(l.dir, name)
		if first, ok := segmentFirst(name); ok {
			s, err := l.readHeader(path, first)
			if err != nil {
				return err
			}
			if s == nil {
				broken = append(broken, path)
				continue
			}
			l.segments = append(l.segments, s) // names sort as LSNs do
		} else if strings.HasSuffix(name, spareSuffix) {
			spares = append(spares, path)
		} else if strings.Contains(name, damagedInfix) {
			l.damaged[path] = true
		}
	}
	for _, path := range broken {
		if err := l.removeBroken(path, rec); err != nil {
			return err
		}
	}
	if err := l.adoptSpares(spares); err != nil {
		return err
	}
	for i, s := range l.segments[:max(len(l.segments)-1, 0)] {
		next := l.segments[i+1]
		s.last = min(next.previous, next.first-1)
		if l.o.Verify {
			if err := l.verify(s, next.first, rec); err != nil {
				return err
			}
		}
	}
	if len(l.segments) == 0 {
		return nil
	}
	s := l.segments[len(l.segments)-1]
	if err := l.openNewest(s, rec); err != nil {
		return fmt.Errorf("segment %s: %w", s.path, err)
	}
	if first := l.segments[0].first; first <= s.last {
		rec.First, rec.Last = first, s.last
	}
	return nil
}

// readHeader returns nil when neither copy of the header is valid or when it belongs to another name.
func (l *Log) readHeader(path string, first LSN) (*segment, error) {
	f, err := l.fs.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, headerBytes)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	h, ok, err := decodeHeader(b[:n])
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if !ok || h.first != first {
		return nil, nil
	}
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	return &segment{path: path, header: h, capacity: max(size, l.o.SegmentBytes), last: first - 1, end: size, size: size}, nil
}

// removeBroken deals with a segment file without a valid header. Segments get their name when they are whole, so an empty one
// was never in use; any other is set aside under a name that ends in .damaged-0.
func (l *Log) removeBroken(path string, rec *Recovery) error {
	f, err := l.fs.Open(path)
	if err != nil {
		return err
	}
	size, err := f.Size()
	empty := true
	buf := make([]byte, readMax)
	for off := int64(0); err == nil && empty && off < size; off += int64(len(buf)) {
		var n int
		if n, err = f.ReadAt(buf, off); errors.Is(err, io.EOF) {
			err = nil
		}
		empty = zero(buf[:n])
	}
	f.Close()
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if empty {
		rec.TornBytes += size
		if err := l.fs.Remove(path); err != nil {
			return err
		}
		return l.fs.SyncDir(l.dir)
	}
	to := path + damagedInfix + "0"
	if err := l.fs.Rename(path, to); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil {
		return err
	}
	d := Damage{Segment: path, Bytes: size, SavedAs: to}
	first, _ := segmentFirst(path)
	for _, s := range l.segments {
		if s.first < first {
			d.After = first - 1
		} else {
			d.Resumed = s.first
			break
		}
	}
	l.damaged[to] = true
	rec.Damaged = append(rec.Damaged, d)
	l.o.Log.Error("segment without a valid header set aside", "segment", path, "saved", to)
	return nil
}

func zero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// adoptSpares keeps the prepared segments of an earlier run and deletes half-made ones.
func (l *Log) adoptSpares(paths []string) error {
	for _, path := range paths {
		keep := false
		if len(l.spares) < maxSpares && !l.o.NoPrealloc && path != plainPath(l.dir) {
			f, err := l.fs.Open(path)
			if err != nil {
				return err
			}
			size, err := f.Size()
			f.Close()
			if err != nil {
				return err
			}
			keep = size == l.o.SegmentBytes
		}
		if !keep {
			if err := l.fs.Remove(path); err != nil {
				return err
			}
			continue
		}
		l.spares = append(l.spares, spare{path: path, recycled: true})
		var seq int
		fmt.Sscanf(filepath.Base(path), "%d", &seq)
		l.spareSeq = max(l.spareSeq, seq)
	}
	return nil
}

// verify reads a segment that is not the newest.
func (l *Log) verify(s *segment, resumed LSN, rec *Recovery) error {
	f, err := l.fs.Open(s.path)
	if err != nil {
		return err
	}
	defer f.Close()
	t, err := l.scan(f, s, s.last, rec)
	if err != nil {
		return fmt.Errorf("segment %s: %w", s.path, err)
	}
	if t.last < s.last {
		d, _ := l.setAside(f, Damage{Segment: s.path, Offset: t.end, Bytes: s.size - t.end, After: t.last, Resumed: resumed})
		rec.Damaged = append(rec.Damaged, d)
	}
	return nil
}

// tail is where a scan ended.
type tail struct {
	end    int64 // behind the last valid record
	last   LSN
	marked int64 // offset of the last marked record: all before it is known to be synced
}

// scan reads all records of a segment and sets aside what lies damaged between them.
func (l *Log) scan(f fsys.File, s *segment, last LSN, rec *Recovery) (tail, error) {
	t := tail{end: headerBytes, last: s.first - 1, marked: headerBytes}
	r := segmentReader{}
	r.reset(f, seedOf(s.id))
	r.end = s.size
	off := t.end
	var open []Damage // not yet followed by a marked record
	for {
		b, err := r.record(off)
		if err != nil {
			return t, err
		}
		if b == nil || recordLSN(b) <= t.last || recordLSN(b) > last {
			at, ok, err := r.resync(off+1, t.last+1, last)
			if err != nil {
				return t, err
			}
			if !ok || planted.noResync {
				break
			}
			if b, err = r.record(at); err != nil {
				return t, err
			}
			if b == nil {
				return t, errors.New("contents change while they are read")
			}
			open = append(open, Damage{Segment: s.path, Offset: off, Bytes: at - off, After: t.last, Resumed: recordLSN(b), Torn: true})
			off = at
		}
		if recordMarked(b) {
			t.marked = off
			for i := range open {
				open[i].Torn = false
			}
			if err := l.report(f, open, rec); err != nil {
				return t, err
			}
			open = open[:0]
		}
		t.last = recordLSN(b)
		off += int64(len(b))
		t.end = off
	}
	return t, l.report(f, open, rec)
}

func (l *Log) report(f fsys.File, open []Damage, rec *Recovery) error {
	for _, d := range open {
		d, _ = l.setAside(f, d)
		rec.Damaged = append(rec.Damaged, d)
	}
	return nil
}

// openNewest scans the newest segment and prepares it for further records. Behind its last valid record there is nothing that
// could become valid later: the whole file has been searched, and what is written from now on carries higher LSNs.
func (l *Log) openNewest(s *segment, rec *Recovery) error {
	f, err := l.fs.Open(s.path)
	if err != nil {
		return err
	}
	l.file = f
	// At 25 bytes a record, the file cannot hold a higher LSN; the bound keeps resync from following chance.
	t, err := l.scan(f, s, s.first+LSN(s.size/recordHeader), rec)
	if err != nil {
		return err
	}
	torn, err := tornBytes(f, s, t)
	if err != nil {
		return err
	}
	rec.TornBytes += torn
	cut := l.cutTorn(rec, s, &t)
	if planted.noSettle {
		t.marked = t.end
	}
	if err := l.settle(f, t); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.dir); err != nil { // it may have died between rename and this
		return err
	}
	s.end, s.last = t.end, t.last
	if t.last < s.first { // no record: its predecessor's last is the log's
		l.durable = s.previous
	} else {
		l.durable = t.last
	}
	l.active = s
	if cut {
		// Valid records may lie behind the cut; a new segment that begins with their LSNs makes them void.
		f.Close()
		l.file, l.active = nil, nil
	}
	return nil
}

// cutTorn moves the end of t to the first torn range of the newest segment, when the log wants that.
func (l *Log) cutTorn(rec *Recovery, s *segment, t *tail) bool {
	if !l.o.CutTorn {
		return false
	}
	for i, d := range rec.Damaged {
		if d.Segment == s.path && d.Torn {
			rec.TornBytes += t.end - d.Offset
			rec.Damaged = rec.Damaged[:i]
			t.end, t.last, t.marked = d.Offset, d.After, min(t.marked, d.Offset)
			return true
		}
	}
	return false
}

// settle makes the last group durable. It may have been read from the page cache of a process that died after its sync
// had failed: then the kernel takes those pages for clean, and a sync alone would do nothing. So the same bytes are written again.
func (l *Log) settle(f fsys.File, t tail) error {
	buf := make([]byte, min(readMax, t.end-t.marked))
	for off := t.marked; off < t.end; off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), t.end-off)]
		if _, err := f.ReadAt(buf, off); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := f.WriteAt(buf, off); err != nil {
			return err
		}
		l.written += int64(len(buf))
	}
	return f.Sync()
}

// tornBytes estimates what a crash left behind the last record.
func tornBytes(f fsys.File, s *segment, t tail) (int64, error) {
	if t.end >= s.size {
		return 0, nil
	}
	if s.recycled {
		// Old contents lie there in any case; a head with the expected LSN tells of a torn record.
		r := segmentReader{f: f, end: s.size}
		b, err := r.bytes(t.end, recordHeader)
		if err != nil || len(b) < recordHeader || recordLSN(b) != t.last+1 {
			return 0, err
		}
		return min(int64(recordBytes(b)), s.size-t.end), nil
	}
	buf := make([]byte, readMax)
	var torn int64
	for off := t.end; off < s.size; off += int64(len(buf)) {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), s.size-off)], off)
		if err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := n - 1; i >= 0; i-- {
			if buf[i] != 0 {
				torn = off + int64(i) + 1 - t.end
				break
			}
		}
	}
	return torn, nil
}
