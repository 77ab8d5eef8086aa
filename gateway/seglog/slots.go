package seglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"
	"sync"

	"sluice/gateway/seglog/fsys"
)

// Slots is one value kept durably in two files, <name>.a and <name>.b, written in turn: whatever happens during a Store,
// the older value stays readable. Checkpoints and cursors live in slots. Safe for concurrent use.
//
//	        0        8        12      16           24       28       32
//	slot    | magic  | version| crcA  | generation | length | crcB   | value
//	        |sluiceSL| u32    | 0-12  | u64        | u32    | u32    |
//
// crcB is CRC-32C over generation, length and value; crcA as in a segment. What follows the value is of no meaning.
//
// A store overwrites, in place, the slot that does not hold the newest durable value. A slot whose contents are unknown
// after a failed write or sync is never synced again: its next value goes to a new file that replaces it.
type Slots struct {
	fs   fsys.FS
	dir  string
	mu   sync.Mutex
	slot [2]slot
}

type slot struct {
	path       string
	f          fsys.File // nil: none, or contents of unknown state: write a new file
	generation uint64    // 0: no valid value
	durable    bool      // the value is known to be synced
}

const (
	slotMagic  = "sluiceSL"
	slotHeader = 32
	// MaxSlot bounds a slot's value, bytes.
	MaxSlot = 1 << 30
)

// OpenSlots opens the slots in dir; the files are made by the first stores. A slot of a newer version is ErrVersion.
// What Load and Both return afterwards survives power loss.
func OpenSlots(fs fsys.FS, dir, name string) (*Slots, error) {
	if fs == nil {
		fs = fsys.OS{}
	}
	s := &Slots{fs: fs, dir: dir}
	if err := fs.MkdirAll(dir); err != nil {
		return nil, fmt.Errorf("open slots %s: %w", name, err)
	}
	for i, suffix := range []string{".a", ".b"} {
		s.slot[i].path = filepath.Join(dir, name+suffix)
	}
	for i := range s.slot {
		if err := s.settle(i); err != nil {
			s.Close()
			return nil, fmt.Errorf("open slots: %w", err)
		}
	}
	if s.slot[0].f != nil || s.slot[1].f != nil { // it may have died between rename and this, too
		if err := fs.SyncDir(dir); err != nil {
			s.Close()
			return nil, fmt.Errorf("open slots: %w", err)
		}
	}
	return s, nil
}

// settle makes a slot's value durable. An earlier process may have died before its sync, or after a failed one, which leaves
// pages that the kernel takes for clean: so the same bytes are written once more.
func (s *Slots) settle(i int) error {
	t := &s.slot[i]
	value, generation, err := s.read(i)
	if err != nil || generation == 0 {
		return err
	}
	f, err := s.fs.Open(t.path)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(encodeSlot(value, generation), 0); err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("sync %s: %w", t.path, err)
	}
	t.f, t.generation, t.durable = f, generation, true
	return nil
}

// read returns generation 0 when the slot holds no valid value.
func (s *Slots) read(i int) (value []byte, generation uint64, err error) {
	path := s.slot[i].path
	f, err := s.fs.Open(path)
	if errors.Is(err, fsys.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	if size > slotHeader+MaxSlot {
		return nil, 0, nil
	}
	b := make([]byte, size)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, fmt.Errorf("read %s: %w", path, err)
	}
	value, generation, err = decodeSlot(b[:n])
	if err != nil {
		err = fmt.Errorf("read %s: %w", path, err)
	}
	return value, generation, err
}

func encodeSlot(value []byte, generation uint64) []byte {
	b := make([]byte, slotHeader, slotHeader+len(value))
	copy(b, slotMagic)
	le := binary.LittleEndian
	le.PutUint32(b[8:], version)
	le.PutUint32(b[12:], crc32.Checksum(b[:12], castagnoli))
	le.PutUint64(b[16:], generation)
	le.PutUint32(b[24:], uint32(len(value)))
	le.PutUint32(b[28:], crc32.Update(crc32.Checksum(b[16:28], castagnoli), castagnoli, value))
	return append(b, value...)
}

// decodeSlot returns generation 0 when b holds no valid value.
func decodeSlot(b []byte) (value []byte, generation uint64, err error) {
	le := binary.LittleEndian
	if len(b) < slotHeader || string(b[:8]) != slotMagic || le.Uint32(b[12:]) != crc32.Checksum(b[:12], castagnoli) {
		return nil, 0, nil
	}
	if v := le.Uint32(b[8:]); v != version {
		return nil, 0, fmt.Errorf("%w: %d, this program reads %d", ErrVersion, v, version)
	}
	n := le.Uint32(b[24:])
	if uint64(n) > uint64(len(b)-slotHeader) {
		return nil, 0, nil
	}
	value = b[slotHeader : slotHeader+int(n)]
	if le.Uint32(b[28:]) != crc32.Update(crc32.Checksum(b[16:28], castagnoli), castagnoli, value) {
		return nil, 0, nil
	}
	return value, le.Uint64(b[16:]), nil
}

// Load returns the newest valid value and its generation, or nil and 0 when there is none.
func (s *Slots) Load() (value []byte, generation uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.newest()
	for _, i := range []int{n, 1 - n} {
		value, generation, err = s.load(i)
		if generation > 0 || err != nil {
			return value, generation, err
		}
	}
	return nil, 0, nil
}

// Both returns the two slots' valid values, newest first; fewer when one or both are damaged or empty.
func (s *Slots) Both() ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var values [][]byte
	n := s.newest()
	for _, i := range []int{n, 1 - n} {
		v, generation, err := s.load(i)
		if err != nil {
			return nil, err
		}
		if generation > 0 {
			values = append(values, v)
		}
	}
	return values, nil
}

// load is read, but without a value whose store failed.
func (s *Slots) load(i int) ([]byte, uint64, error) {
	if s.slot[i].generation == 0 {
		return nil, 0, nil
	}
	v, generation, err := s.read(i)
	if generation != s.slot[i].generation {
		return nil, 0, err
	}
	return v, generation, err
}

func (s *Slots) newest() int {
	if s.slot[1].generation > s.slot[0].generation {
		return 1
	}
	return 0
}

// Store writes value into the slot that does not hold the newest synced one; with sync it survives power loss when Store returns
// nil. Without, it survives the process, and power loss falls back to the last synced value: unsynced stores all go to
// the same slot. After an error the older value stands.
func (s *Slots) Store(value []byte, sync bool) error {
	if len(value) > MaxSlot {
		return fmt.Errorf("store: %w: %d bytes", ErrTooLarge, len(value))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keep := s.newest()
	if !s.slot[keep].durable && s.slot[1-keep].durable {
		keep = 1 - keep
	}
	generation := max(s.slot[0].generation, s.slot[1].generation) + 1
	i := 1 - keep
	t := &s.slot[i]
	if t.f == nil {
		t.generation, t.durable = 0, false
		if err := s.replace(i, value, generation); err != nil {
			return fmt.Errorf("store %s: %w", t.path, err)
		}
		return nil
	}
	t.generation, t.durable = 0, false
	_, err := t.f.WriteAt(encodeSlot(value, generation), 0)
	if err == nil && sync {
		err = t.f.Sync()
	}
	if err != nil {
		t.f.Close()
		t.f = nil
		return fmt.Errorf("store %s: %w", t.path, err)
	}
	t.generation, t.durable = generation, sync
	return nil
}

// replace puts a new, synced file in a slot's place.
func (s *Slots) replace(i int, value []byte, generation uint64) error {
	t := &s.slot[i]
	temp := t.path + ".new"
	f, err := createNew(s.fs, temp)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(encodeSlot(value, generation), 0); err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.fs.Rename(temp, t.path)
	}
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		f.Close()
		s.fs.Remove(temp)
		return err
	}
	if t.f != nil {
		t.f.Close()
	}
	t.f, t.generation, t.durable = f, generation, true
	return nil
}

// Close closes both files.
func (s *Slots) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	for i := range s.slot {
		if f := s.slot[i].f; f != nil {
			err = errors.Join(err, f.Close())
			s.slot[i].f = nil
		}
	}
	return err
}
