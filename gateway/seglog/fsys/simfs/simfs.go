// Package simfs is a file system in memory for simulations: it can be told to fail any one operation, to run out of space,
// and to lose power before any operation, whereupon it keeps, drops, zeroes or tears what was not synced. It is
// deterministic: the same calls and seeds give the same contents. It starts no goroutines and is safe for concurrent use.
//
// What it takes a disk to do: a Sync that returned nil is kept; a SyncDir that returned nil keeps the names; sectors of 512
// bytes that were not written do not change; a sector overwritten in place holds, after a crash, old bytes, new bytes, or the
// beginning of the one and the end of the other. Zeros appear only in sectors that were never synced.
package simfs

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"

	"sluice/gateway/seglog/fsys"
)

const sector = 512

// ErrCrashed is returned by every operation between the crash and Restart, and by files opened before it ever after.
var ErrCrashed = errors.New("simulated power loss")

// Fault is how one operation fails.
type Fault int

// Faults. A fault that does not suit an operation makes it fail with EIO and without effect.
const (
	None       Fault = iota
	EIO              // nothing is done
	ENOSPC           // nothing is done
	ShortWrite       // WriteAt writes the first half, then fails with ENOSPC; Truncate and others: as EIO
	FailedSync       // Sync fails, some sectors reached the disk, and the file counts as clean: a second Sync does nothing
	DoneAnyway       // the operation takes full effect and yet returns EIO
)

func (f Fault) String() string {
	return [...]string{"none", "EIO", "ENOSPC", "short write", "failed sync", "EIO after the effect"}[f]
}

// Policy is what a crash does with what was not synced.
type Policy int

// Policies.
const (
	DropAll   Policy = iota // only what was synced remains
	KeepAll                 // all reached the disk just in time
	Random                  // each sector, size and directory operation by the seed: kept, dropped, zeroed or torn
	DataOnly                // contents and sizes are kept, directory operations dropped
	NamesOnly               // directory operations are kept, contents dropped
	Zeros                   // sizes and names are kept, contents not synced are zeros or what was there
	Kill                    // the process died and the machine lives: the page cache stays, and a later crash may still lose it
)

// Policies lists all that lose power.
var Policies = []Policy{DropAll, KeepAll, Random, DataOnly, NamesOnly, Zeros}

func (p Policy) String() string {
	return [...]string{"drop all", "keep all", "random", "data only", "names only", "zeros", "kill"}[p]
}

// FS implements fsys.FS.
type FS struct {
	mu       sync.Mutex
	dirs     map[string]*dir
	nodes    int
	epoch    int // counts restarts; older files are dead
	ops      int
	crashAt  int
	failAt   int
	fault    Fault
	failed   string // the operation that was made to fail
	crashed  bool
	capacity int64
	rng      *rand.Rand
	trace    func(op string)
}

// dir has its current names, and the operations since its last sync.
type dir struct {
	names   map[string]*node
	synced  map[string]*node
	pending []dirOp
}

// dirOp removes one name, or gives a node a name, or both at once.
type dirOp struct {
	remove string
	add    string
	node   *node
}

// node is a file. dirty has a bit for each sector that differs, or may, between data and disk.
type node struct {
	order int
	data  []byte
	disk  []byte
	dirty []uint64
	any   bool
}

// New returns an empty file system. seed decides on what a failed sync leaves.
func New(seed uint64) *FS {
	return &FS{dirs: map[string]*dir{}, rng: rand.New(rand.NewPCG(seed, 1))}
}

// CrashBefore lets power fail before operation n, counted from 1 since New; 0: never.
func (s *FS) CrashBefore(n int) { s.mu.Lock(); s.crashAt = n; s.mu.Unlock() }

// FailAt makes operation n, counted from 1 since New, fail once.
func (s *FS) FailAt(n int, f Fault) { s.mu.Lock(); s.failAt, s.fault = n, f; s.mu.Unlock() }

// SetCapacity bounds the bytes of all files; beyond, growing fails with ENOSPC. 0: no bound.
func (s *FS) SetCapacity(bytes int64) { s.mu.Lock(); s.capacity = bytes; s.mu.Unlock() }

// Trace calls f with each operation's name before it is done; nil ends it.
func (s *FS) Trace(f func(op string)) { s.mu.Lock(); s.trace = f; s.mu.Unlock() }

// Ops counts operations since New.
func (s *FS) Ops() int { s.mu.Lock(); defer s.mu.Unlock(); return s.ops }

// Crashed tells whether power has failed, and Failed which operation was made to fail ("" when none was yet).
func (s *FS) Crashed() bool  { s.mu.Lock(); defer s.mu.Unlock(); return s.crashed }
func (s *FS) Failed() string { s.mu.Lock(); defer s.mu.Unlock(); return s.failed }

// Used is the size of all files.
func (s *FS) Used() int64 { s.mu.Lock(); defer s.mu.Unlock(); return s.used() }

func (s *FS) used() (n int64) {
	for _, d := range s.dirs {
		for _, f := range d.names {
			n += int64(len(f.data))
		}
	}
	return n
}

// Crash lets power fail now.
func (s *FS) Crash() { s.mu.Lock(); s.crashed = true; s.mu.Unlock() }

// Restart brings the file system back after a crash (one happens now if none did): what was not synced meets its fate, files
// opened before are dead, planned crashes and faults are forgotten.
func (s *FS) Restart(p Policy, seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rng := rand.New(rand.NewPCG(seed, 2))
	names := make([]string, 0, len(s.dirs))
	for name := range s.dirs {
		names = append(names, name)
	}
	sort.Strings(names)
	if p == Kill {
		names = nil
	}
	for _, name := range names {
		d := s.dirs[name]
		d.settle(p, rng)
		var nodes []*node
		for _, n := range d.names {
			nodes = append(nodes, n)
		}
		sort.Slice(nodes, func(i, k int) bool { return nodes[i].order < nodes[k].order })
		for _, n := range nodes {
			n.settle(p, rng)
		}
	}
	s.epoch++
	s.crashed, s.crashAt, s.failAt, s.failed = false, 0, 0, ""
}

func (d *dir) settle(p Policy, rng *rand.Rand) {
	apply := d.synced
	prefix := rng.IntN(2) == 0 // journalling file systems keep a prefix; others may keep any
	lost := false
	for _, op := range d.pending {
		var keep bool
		switch p {
		case KeepAll, NamesOnly, Zeros:
			keep = true
		case Random:
			keep = rng.IntN(2) == 0
			if prefix {
				lost = lost || !keep
				keep = !lost
			}
		}
		if keep {
			op.apply(apply)
		}
	}
	d.pending = nil
	d.names = map[string]*node{}
	for k, v := range d.synced {
		d.names[k] = v
	}
}

func (o dirOp) apply(names map[string]*node) {
	if o.remove != "" {
		delete(names, o.remove)
	}
	if o.add != "" {
		names[o.add] = o.node
	}
}

func (n *node) settle(p Policy, rng *rand.Rand) {
	defer n.clean()
	if p == KeepAll || p == DataOnly {
		n.sync() // not what a failed sync has lost
		n.data = append(n.data[:0], n.disk...)
		return
	}
	if p == DropAll || p == NamesOnly {
		n.data = append(n.data[:0], n.disk...)
		return
	}
	old := len(n.disk)
	if len(n.data) != old {
		size := len(n.data)
		if p == Random {
			switch rng.IntN(3) {
			case 0:
				size = old
			case 1:
				lo, hi := min(old, size), max(old, size)
				size = lo + rng.IntN(hi-lo+1)
			}
		}
		n.disk = resize(n.disk, size)
	}
	for i := 0; i*sector < len(n.disk); i++ {
		if !n.isDirty(i) {
			continue
		}
		to := n.disk[i*sector : min((i+1)*sector, len(n.disk))]
		var from []byte
		if i*sector < len(n.data) {
			from = n.data[i*sector : min((i+1)*sector, len(n.data), len(n.disk))]
		}
		if p == Zeros {
			continue // old contents, or the zeros that resize made
		}
		switch rng.IntN(4) {
		case 0:
			copy(to, from)
		case 1: // dropped
		case 2:
			if i*sector >= old {
				clear(to)
			}
		case 3:
			cut := rng.IntN(len(from) + 1)
			if rng.IntN(2) == 0 {
				copy(to[:cut], from[:cut])
			} else {
				copy(to[cut:], from[cut:])
			}
		}
	}
	n.data = append(n.data[:0], n.disk...)
}

// syncSome is a failed sync: a random part reaches the disk, and nothing is dirty any more. What the process reads stays.
func (n *node) syncSome(rng *rand.Rand) {
	if len(n.data) > len(n.disk) && rng.IntN(2) == 0 {
		n.disk = resize(n.disk, len(n.data))
	}
	for i := 0; i*sector < len(n.disk); i++ {
		if n.isDirty(i) && rng.IntN(2) == 0 && i*sector < len(n.data) {
			copy(n.disk[i*sector:min((i+1)*sector, len(n.disk))], n.data[i*sector:])
		}
	}
	n.clean()
}

func (n *node) sync() {
	if len(n.disk) != len(n.data) {
		n.disk = resize(n.disk, len(n.data))
	}
	for i := 0; n.any && i*sector < len(n.data); i++ {
		if n.isDirty(i) {
			copy(n.disk[i*sector:min((i+1)*sector, len(n.disk))], n.data[i*sector:])
		}
	}
	n.clean()
}

// resize makes b size bytes long; new bytes are zero.
func resize(b []byte, size int) []byte {
	if size <= len(b) {
		return b[:size]
	}
	if size <= cap(b) {
		k := len(b)
		b = b[:size]
		clear(b[k:])
		return b
	}
	c := make([]byte, size, size+size/4)
	copy(c, b)
	return c
}

func (n *node) isDirty(i int) bool { return i/64 < len(n.dirty) && n.dirty[i/64]&(1<<(i%64)) != 0 }

func (n *node) mark(off, end int) {
	for i := off / sector; i*sector < end; i++ {
		for i/64 >= len(n.dirty) {
			n.dirty = append(n.dirty, 0)
		}
		n.dirty[i/64] |= 1 << (i % 64)
	}
	n.any = true
}

func (n *node) clean() { clear(n.dirty); n.any = false }

// begin counts an operation and decides its fate. The caller holds mu.
func (s *FS) begin(op, name string) (Fault, error) {
	if s.crashed {
		return None, ErrCrashed
	}
	s.ops++
	if s.trace != nil {
		s.trace(op + " " + filepath.Base(name))
	}
	if s.ops == s.crashAt {
		s.crashed = true
		return None, ErrCrashed
	}
	if s.ops == s.failAt && s.fault != None {
		s.failed = op
		return s.fault, nil
	}
	return None, nil
}

// failure is the error of a fault without effect, nil when the operation is to be done.
func failure(f Fault, op, name string) error {
	switch f {
	case None, DoneAnyway:
		return nil
	case ENOSPC:
		return fmt.Errorf("%s %s: %w", op, name, syscall.ENOSPC)
	}
	return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
}

// after is the error of a fault that did take effect.
func after(f Fault, op, name string) error {
	if f == DoneAnyway {
		return fmt.Errorf("%s %s: %w", op, name, syscall.EIO)
	}
	return nil
}

// Open implements fsys.FS.
func (s *FS) Open(name string) (fsys.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("open", name)
	if err != nil {
		return nil, err
	}
	if f != None {
		return nil, failure(EIO, "open", name)
	}
	n := s.lookup(name)
	if n == nil {
		return nil, fmt.Errorf("open %s: %w", name, fsys.ErrNotExist)
	}
	return &file{s: s, n: n, name: name, epoch: s.epoch}, nil
}

func (s *FS) lookup(name string) *node {
	d := s.dirs[filepath.Dir(name)]
	if d == nil {
		return nil
	}
	return d.names[filepath.Base(name)]
}

// Create implements fsys.FS.
func (s *FS) Create(name string) (fsys.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("create", name)
	if err == nil {
		err = failure(f, "create", name)
	}
	if err != nil {
		return nil, err
	}
	d := s.dirs[filepath.Dir(name)]
	if d == nil {
		return nil, fmt.Errorf("create %s: %w", name, fsys.ErrNotExist)
	}
	base := filepath.Base(name)
	if d.names[base] != nil {
		return nil, fmt.Errorf("create %s: %w", name, fsys.ErrExist)
	}
	if s.capacity > 0 && s.used() >= s.capacity {
		return nil, fmt.Errorf("create %s: %w", name, syscall.ENOSPC)
	}
	s.nodes++
	n := &node{order: s.nodes}
	d.do(dirOp{add: base, node: n})
	if err := after(f, "create", name); err != nil {
		return nil, err
	}
	return &file{s: s, n: n, name: name, epoch: s.epoch}, nil
}

func (d *dir) do(op dirOp) {
	op.apply(d.names)
	d.pending = append(d.pending, op)
}

// Rename implements fsys.FS; both names must be in one directory.
func (s *FS) Rename(oldName, newName string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("rename", newName)
	if err == nil {
		err = failure(f, "rename", newName)
	}
	if err != nil {
		return err
	}
	n := s.lookup(oldName)
	if n == nil {
		return fmt.Errorf("rename %s: %w", oldName, fsys.ErrNotExist)
	}
	if filepath.Dir(oldName) != filepath.Dir(newName) {
		return fmt.Errorf("rename %s to %s: %w", oldName, newName, syscall.EXDEV)
	}
	s.dirs[filepath.Dir(newName)].do(dirOp{remove: filepath.Base(oldName), add: filepath.Base(newName), node: n})
	return after(f, "rename", newName)
}

// Remove implements fsys.FS.
func (s *FS) Remove(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("remove", name)
	if err == nil {
		err = failure(f, "remove", name)
	}
	if err != nil {
		return err
	}
	if s.lookup(name) == nil {
		return fmt.Errorf("remove %s: %w", name, fsys.ErrNotExist)
	}
	s.dirs[filepath.Dir(name)].do(dirOp{remove: filepath.Base(name)})
	return after(f, "remove", name)
}

// MkdirAll implements fsys.FS.
func (s *FS) MkdirAll(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("mkdir", name)
	if err == nil {
		err = failure(f, "mkdir", name)
	}
	if err != nil {
		return err
	}
	for name = filepath.Clean(name); s.dirs[name] == nil; name = filepath.Dir(name) {
		s.dirs[name] = &dir{names: map[string]*node{}, synced: map[string]*node{}}
	}
	return after(f, "mkdir", name)
}

// ReadDir implements fsys.FS. Sub-directories are listed too.
func (s *FS) ReadDir(name string) ([]string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("readdir", name)
	if err != nil {
		return nil, err
	}
	if f != None {
		return nil, failure(EIO, "readdir", name)
	}
	name = filepath.Clean(name)
	d := s.dirs[name]
	if d == nil {
		return nil, fmt.Errorf("readdir %s: %w", name, fsys.ErrNotExist)
	}
	names := make([]string, 0, len(d.names))
	for k := range d.names {
		names = append(names, k)
	}
	for sub := range s.dirs {
		if sub != name && filepath.Dir(sub) == name {
			names = append(names, strings.TrimPrefix(filepath.Base(sub), "/"))
		}
	}
	sort.Strings(names)
	return names, nil
}

// SyncDir implements fsys.FS.
func (s *FS) SyncDir(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, err := s.begin("syncdir", name)
	if err == nil {
		err = failure(f, "syncdir", name)
	}
	if err != nil {
		return err
	}
	d := s.dirs[filepath.Clean(name)]
	if d == nil {
		return fmt.Errorf("syncdir %s: %w", name, fsys.ErrNotExist)
	}
	for _, op := range d.pending {
		op.apply(d.synced)
	}
	d.pending = nil
	return after(f, "syncdir", name)
}

// ReadFile returns a file's contents outside the simulation: not counted, never failing, nil when there is no such file.
func (s *FS) ReadFile(name string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := s.lookup(name); n != nil {
		return append([]byte{}, n.data...)
	}
	return nil
}

// WriteFile sets a file's contents, durably and outside the simulation, to plant damage; b nil removes it.
func (s *FS) WriteFile(name string, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, base := s.dirs[filepath.Dir(name)], filepath.Base(name)
	if d == nil {
		d = &dir{names: map[string]*node{}, synced: map[string]*node{}}
		s.dirs[filepath.Dir(name)] = d
	}
	if b == nil {
		delete(d.names, base)
		delete(d.synced, base)
		return
	}
	n := d.names[base]
	if n == nil {
		s.nodes++
		n = &node{order: s.nodes}
	}
	n.data = append(n.data[:0], b...)
	n.disk = append(n.disk[:0], b...)
	n.clean()
	d.names[base], d.synced[base] = n, n
}

// file implements fsys.File.
type file struct {
	s      *FS
	n      *node
	name   string
	epoch  int
	closed bool
}

func (f *file) begin(op string) (Fault, error) {
	if f.epoch != f.s.epoch {
		return None, ErrCrashed
	}
	if f.closed {
		return None, fmt.Errorf("%s %s: file already closed", op, f.name)
	}
	return f.s.begin(op, f.name)
}

func (f *file) ReadAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault, err := f.begin("read")
	if err != nil {
		return 0, err
	}
	if fault != None {
		return 0, failure(EIO, "read", f.name)
	}
	if off >= int64(len(f.n.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.n.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault, err := f.begin("write")
	if err != nil {
		return 0, err
	}
	short := fault == ShortWrite
	if !short {
		if err := failure(fault, "write", f.name); err != nil {
			return 0, err
		}
	}
	room := len(p)
	if short {
		room /= 2
	}
	if grow := off + int64(room) - int64(len(f.n.data)); grow > 0 && f.s.capacity > 0 {
		if free := f.s.capacity - f.s.used(); free < grow {
			short = true
			room = int(max(0, int64(room)-(grow-max(free, 0))))
		}
	}
	if room > 0 {
		end := int(off) + room
		if end > len(f.n.data) {
			f.n.mark(len(f.n.data), end)
			f.n.data = resize(f.n.data, end)
		}
		copy(f.n.data[off:], p[:room])
		f.n.mark(int(off), end)
	}
	if short {
		return room, fmt.Errorf("write %s: %w", f.name, syscall.ENOSPC)
	}
	if err := after(fault, "write", f.name); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (f *file) Truncate(size int64) error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault, err := f.begin("truncate")
	if err == nil {
		err = failure(fault, "truncate", f.name)
	}
	if err != nil {
		return err
	}
	if old := len(f.n.data); int(size) != old {
		f.n.data = resize(f.n.data, int(size))
		f.n.mark(min(old, int(size)), max(old, int(size)))
	}
	return after(fault, "truncate", f.name)
}

func (f *file) Size() (int64, error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault, err := f.begin("size")
	if err != nil {
		return 0, err
	}
	if fault != None {
		return 0, failure(EIO, "size", f.name)
	}
	return int64(len(f.n.data)), nil
}

func (f *file) Sync() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	fault, err := f.begin("sync")
	if err != nil {
		return err
	}
	if fault == FailedSync || fault == EIO || fault == ENOSPC { // Linux marks the pages clean whatever the cause
		f.n.syncSome(f.s.rng)
		return failure(fault, "sync", f.name)
	}
	if err := failure(fault, "sync", f.name); err != nil {
		return err
	}
	f.n.sync()
	return after(fault, "sync", f.name)
}

func (f *file) Close() error {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.closed = true
	return nil
}
