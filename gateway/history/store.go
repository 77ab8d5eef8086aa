package history

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"
	"golang.org/x/sys/unix"

	"sluice/gateway/seglog"
)

// The TSDB's shape. What is chosen here trades memory, flash and compression; docs/history.md has the figures.
const (
	blockRange      = 30 * time.Minute // the head holds one to one and a half of it in memory, and the write-ahead log too
	maxBlockRange   = 9 * blockRange   // two merges, each of three blocks; another would save little and write everything once more
	samplesPerChunk = 240              // twice the default: half the chunks to keep track of at high rates
	walSegment      = 8 << 20          // bytes
	headBuffer      = 64 << 10         // bytes, the least there may be
	stripes         = 1 << 10          // of the series map
)

// store is an open TSDB and its watermark.
type store struct {
	db     *tsdb.DB
	dir    string
	mark   mark
	file   *os.File // of the watermark
	synced int      // number of the first write-ahead segment that may not be synced

	complete *complete
}

// openStore opens the TSDB. What is damaged is set aside, not deleted, as little of it as will do: single blocks, then the head with
// its write-ahead log, then everything. What the journal still holds of it comes back from there.
func (h *History) openStore() (*store, error) {
	s, err := openStore(h.o)
	for _, part := range []func(dir string) ([]string, error){damagedBlocks, headFiles, wholeFolder} {
		if err == nil || diskTrouble(err) {
			return s, err
		}
		files, ferr := part(h.o.Dir)
		if ferr != nil {
			return nil, errors.Join(err, ferr)
		}
		if len(files) == 0 {
			continue
		}
		to := h.o.Dir + ".damaged"
		h.o.Log.Error("history is damaged; what cannot be read is set aside, and the journal is read again", "to", to, "files", files, "err", err)
		if ferr := setAside(h.o.Dir, to, files); ferr != nil {
			return nil, errors.Join(err, ferr)
		}
		h.counts.setAside.Add(1)
		s, err = openStore(h.o)
	}
	return s, err
}

// setAside moves files, and the watermark, to a folder beside. One generation is kept.
func setAside(dir, to string, files []string) error {
	if err := os.RemoveAll(to); err != nil {
		return fmt.Errorf("set history aside: %w", err)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return fmt.Errorf("set history aside: %w", err)
	}
	for _, f := range append(files, markName) {
		if err := os.Rename(filepath.Join(dir, f), filepath.Join(to, f)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set history aside: %w", err)
		}
	}
	return nil
}

// damagedBlocks lists the blocks that cannot be opened.
func damagedBlocks(dir string) (bad []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		b, err := tsdb.OpenBlock(nil, filepath.Join(dir, e.Name()), nil, nil)
		if err != nil {
			bad = append(bad, e.Name())
			continue
		}
		b.Close()
	}
	return bad, nil
}

// unreadableMeta returns the first block without a description, "" when there is none.
func unreadableMeta(dir string) string {
	metas, _ := filepath.Glob(filepath.Join(dir, "*", "meta.json")) // the pattern is well formed
	for _, m := range metas {
		var meta tsdb.BlockMeta
		b, err := os.ReadFile(m)
		if err == nil {
			err = json.Unmarshal(b, &meta)
		}
		block := filepath.Base(filepath.Dir(m))
		if _, notBlock := ulid.ParseStrict(block); err != nil && notBlock == nil {
			return block
		}
	}
	return ""
}

// headFiles lists what the head is restored from.
func headFiles(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil && e.Name() != markName && e.Name() != completeName {
			files = append(files, e.Name())
		}
	}
	return files, nil
}

func wholeFolder(dir string) (files []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		files = append(files, e.Name())
	}
	return files, err
}

// diskTrouble tells errors that say nothing about what is stored.
func diskTrouble(err error) bool {
	for _, e := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, os.ErrPermission} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func openStore(o Options) (*store, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	file, m, err := openMark(filepath.Join(o.Dir, markName))
	if err != nil {
		return nil, fmt.Errorf("open history's watermark: %w", err)
	}
	c := openComplete(o.Dir)
	settle, again, err := unsettled(o.Dir)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open history: %w", err)
	}
	db, whole, err := openDB(o, c)
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("open history: %w", err)
	}
	if !whole { // the TSDB dropped the rest of its log, which may be older than the watermark
		o.Log.Warn("history's write-ahead log was damaged; reading the journal again from its beginning")
		m = mark{}
	}
	if again { // several starts were cut short, and what the TSDB makes of its log then is not to be relied upon
		o.Log.Warn("history's last start was cut short; reading the journal again from its beginning")
		m = mark{}
	}
	st := &store{db: db, dir: o.Dir, file: file, mark: m, complete: c}
	if settle {
		if err := st.settled(); err != nil {
			return nil, fmt.Errorf("open history: %w", errors.Join(err, st.close()))
		}
	}
	return st, nil
}

// openDB opens the TSDB; whole is false when it had to cut its write-ahead log. Damaged files that make it panic are an error.
func openDB(o Options, c *complete) (db *tsdb.DB, whole bool, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("damaged files: %v", p)
		}
	}()
	if bad := unreadableMeta(o.Dir); bad != "" { // the TSDB would leave the block out, with a line in the log
		return nil, false, fmt.Errorf("meta.json of block %s cannot be read", bad)
	}
	reg := prometheus.NewRegistry()
	t := options(o)
	var opened atomic.Pointer[tsdb.DB]
	t.BlocksToDelete = func(blocks []*tsdb.Block) map[ulid.ULID]struct{} { return c.gone(opened.Load(), o, blocks) }
	db, err = tsdb.Open(o.Dir, quieter(o.Log), reg, t, nil)
	if err != nil {
		return nil, false, err
	}
	opened.Store(db)
	return db, corruptions(reg) == 0, nil
}

func options(o Options) *tsdb.Options {
	t := tsdb.DefaultOptions()
	t.WALSegmentSize = walSegment
	t.WALCompression = compression.Snappy
	t.RetentionDuration = o.Keep.Milliseconds()
	t.MaxBytes = o.MaxBytes
	t.MinBlockDuration = blockRange.Milliseconds()
	t.MaxBlockDuration = min(max(o.Keep/10, blockRange), maxBlockRange).Milliseconds()
	t.NoLockfile = true // the data directory has one
	t.SamplesPerChunk = samplesPerChunk
	t.StripeSize = stripes
	t.HeadChunksWriteBufferSize = headBuffer
	t.HeadChunksWriteQueueSize = 0
	t.OutOfOrderTimeWindow = o.Keep.Milliseconds() // the pipeline has decided what is too late; and damage may be that old
	t.IsolationDisabled = true                     // one writer; a query may see the first half of a commit
	t.EnableMemorySnapshotOnShutdown = true
	t.WALReplayConcurrency = 1
	t.NewCompactorFunc = newCompactor
	return t
}

func corruptions(reg *prometheus.Registry) float64 {
	families, err := reg.Gather()
	if err != nil {
		return 0
	}
	for _, f := range families {
		if f.GetName() == "prometheus_tsdb_wal_corruptions_total" && len(f.Metric) > 0 {
			return f.Metric[0].GetCounter().GetValue()
		}
	}
	return 0
}

// sync makes what was committed survive power loss. The TSDB syncs blocks and full segments by itself.
func (s *store) sync() error {
	newest := s.synced
	for _, dir := range []string{"wal", "wbl"} {
		entries, err := os.ReadDir(filepath.Join(s.dir, dir))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("sync history: %w", err)
		}
		for _, e := range entries {
			n, err := strconv.Atoi(e.Name())
			if err != nil || dir == "wal" && n < s.synced {
				continue
			}
			if err := syncFile(filepath.Join(s.dir, dir, e.Name())); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("sync history: %w", err)
			}
			if dir == "wal" {
				newest = max(newest, n)
			}
		}
		if err := syncFile(filepath.Join(s.dir, dir)); err != nil {
			return fmt.Errorf("sync history: %w", err)
		}
	}
	s.synced = newest
	s.mark.synced = s.mark.applied
	if err := s.putMark(); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync history: %w", err)
	}
	return nil
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// close ends the TSDB, which panics when the disk does not take what it still holds; the journal has that.
func (s *store) close() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.Join(fmt.Errorf("close: %v", p), s.file.Close())
		}
	}()
	return errors.Join(s.db.Close(), s.file.Close())
}

// minFree is the room on disk below which the history stands still. The TSDB allocates files of 128 MiB ahead, and panics in
// goroutines of its own when the disk is full; readings wait in the journal meanwhile.
const minFree = 512 << 20

// ErrNoRoom is why a history with too little room on disk stands still. It goes on by itself when there is more.
var ErrNoRoom = fmt.Errorf("less than %d MiB free on disk", minFree>>20)

// roomFor tells whether the file system of dir has room for the history.
func roomFor(dir string) error {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			break
		}
		if parent := filepath.Dir(dir); errors.Is(err, syscall.ENOENT) && parent != dir {
			dir = parent
			continue
		}
		return fmt.Errorf("ask for room on disk: %w", err)
	}
	if int64(st.Bavail)*st.Bsize < minFree {
		return ErrNoRoom
	}
	return nil
}

func (s *store) describe(st *Status) {
	head := s.db.Head()
	st.Series = head.NumSeries()
	st.Bytes = head.Size()
	oldest, newest := int64(math.MaxInt64), int64(math.MinInt64)
	if st.Series > 0 {
		oldest, newest = head.MinTime(), head.MaxTime()
	}
	for _, b := range s.db.Blocks() {
		st.Blocks++
		st.Bytes += b.Size()
		oldest = min(oldest, b.MinTime())
		if st.Series == 0 {
			newest = max(newest, b.MaxTime()-1)
		}
	}
	if oldest != math.MaxInt64 {
		st.OldestTime = oldest * int64(time.Millisecond)
	}
	if newest != math.MinInt64 {
		st.NewestTime = newest * int64(time.Millisecond)
	}
}

// mark is the watermark: which journal records are stored. It is a file of its own beside the TSDB's:
//
//	0        8                24         32        40      44
//	| "sluiceHW" | boot id 16 | applied u64 | synced u64 | crc u32 |
//
// applied holds after a crash of the process, since the kernel keeps what was written; after a crash of the machine, when the boot
// id is another one, only synced does.
type mark struct{ applied, synced seglog.LSN }

const (
	markName  = "WATERMARK"
	markMagic = "sluiceHW"
	markBytes = 44
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// openMark reads the watermark. One that cannot be read is 0: the journal is read from its beginning.
func openMark(path string) (*os.File, mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, mark{}, err
	}
	b := make([]byte, markBytes)
	n, _ := f.ReadAt(b, 0)
	return f, decodeMark(b[:n]), nil
}

func decodeMark(b []byte) mark {
	le := binary.LittleEndian
	if len(b) != markBytes || string(b[:8]) != markMagic || le.Uint32(b[40:]) != crc32.Checksum(b[:40], castagnoli) {
		return mark{}
	}
	m := mark{seglog.LSN(le.Uint64(b[24:])), seglog.LSN(le.Uint64(b[32:]))}
	if [16]byte(b[8:24]) != bootID() {
		m.applied = m.synced
	}
	return m
}

func (m mark) encode() []byte { return m.encodeAs(bootID()) }

func (m mark) encodeAs(id [16]byte) []byte {
	le := binary.LittleEndian
	b := make([]byte, 8, markBytes)
	copy(b, markMagic)
	b = append(b, id[:]...)
	b = le.AppendUint64(b, uint64(m.applied))
	b = le.AppendUint64(b, uint64(m.synced))
	return le.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func (s *store) putMark() error {
	if _, err := s.file.WriteAt(s.mark.encode(), 0); err != nil {
		return fmt.Errorf("write history's watermark: %w", err)
	}
	return nil
}

// bootID names the run of this machine's kernel; zeros where it has none, so that only what was synced counts.
func bootID() (id [16]byte) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	text := strings.ReplaceAll(strings.TrimSpace(string(b)), "-", "")
	if err != nil || len(text) != 32 {
		return [16]byte{}
	}
	for i := range id {
		n, err := strconv.ParseUint(text[2*i:2*i+2], 16, 8)
		if err != nil {
			return [16]byte{}
		}
		id[i] = byte(n)
	}
	return id
}
