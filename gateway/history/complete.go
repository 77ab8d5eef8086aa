package history

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// complete is the time from which on the store holds every reading that was counted. It is a file beside the watermark:
//
//	0        8        16      20
//	| "sluiceHC" | ns i64 | crc u32 |
//
// It is everything for a store that began with the first record of a journal. It moves up when the journal was trimmed before
// it could be read, and when old blocks go. Where there is no such file, and the store is not new, the store is complete from now on.
type complete struct {
	path string

	mu    sync.Mutex
	known bool
	from  int64 // ns; math.MinInt64: everything there ever was
}

const (
	completeName  = "COMPLETE"
	completeMagic = "sluiceHC"
	completeBytes = 20
)

func openComplete(dir string) *complete {
	c := &complete{path: filepath.Join(dir, completeName)}
	b, err := os.ReadFile(c.path)
	le := binary.LittleEndian
	if err == nil && len(b) == completeBytes && string(b[:8]) == completeMagic && le.Uint32(b[16:]) == crc32.Checksum(b[:16], castagnoli) {
		c.known, c.from = true, int64(le.Uint64(b[8:]))
	}
	return c
}

// since is the time; ok is false while it is not known.
func (c *complete) since() (from int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.from, c.known
}

// begin sets what is not known yet.
func (c *complete) begin(from int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		return nil
	}
	return c.store(from)
}

// lose says that readings before a time may be missing.
func (c *complete) lose(before int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known && c.from >= before {
		return nil
	}
	return c.store(before)
}

// store writes the file anew and syncs it, because a watermark that moves on afterwards must not survive without it.
func (c *complete) store(from int64) error {
	b := append(make([]byte, 0, completeBytes), completeMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(from))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	next := c.path + ".new"
	err := os.WriteFile(next, b, 0o600)
	if err == nil {
		err = syncFile(next)
	}
	if err == nil {
		err = os.Rename(next, c.path)
	}
	if err == nil {
		err = syncFile(filepath.Dir(c.path))
	}
	if err != nil {
		return fmt.Errorf("write what history holds: %w", err)
	}
	c.known, c.from = true, from
	return nil
}

// gone notes blocks that are about to be deleted for their age or for room, and lists them. db is nil while it is being opened.
func (c *complete) gone(db *tsdb.DB, o Options, blocks []*tsdb.Block) map[ulid.ULID]struct{} {
	bad := map[ulid.ULID]struct{}{}
	if db != nil {
		bad = tsdb.DefaultBlocksToDelete(db)(blocks)
	} else {
		beyond(o, blocks, bad)
	}
	before := int64(math.MinInt64)
	for _, b := range blocks {
		if _, goes := bad[b.Meta().ULID]; goes && !b.Meta().Compaction.Deletable && b.Meta().Stats.NumSamples > 0 {
			before = max(before, b.MaxTime()*int64(time.Millisecond))
		}
	}
	if before != math.MinInt64 && c.lose(before) != nil {
		return nil // next time
	}
	return bad
}

// beyond is what the TSDB deletes by default, for a start, when there is no TSDB to ask yet.
func beyond(o Options, blocks []*tsdb.Block, bad map[ulid.ULID]struct{}) {
	slices.SortFunc(blocks, func(a, b *tsdb.Block) int { return cmp.Compare(b.MaxTime(), a.MaxTime()) })
	size := headBytes(o.Dir)
	for _, b := range blocks {
		size += b.Size()
		if b.Meta().Compaction.Deletable || blocks[0].MaxTime()-b.MaxTime() >= o.Keep.Milliseconds() || o.MaxBytes > 0 && size > o.MaxBytes {
			bad[b.Meta().ULID] = struct{}{}
		}
	}
}

// headBytes is the size of the head's files.
func headBytes(dir string) (n int64) {
	for _, part := range []string{"wal", "wbl", "chunks_head"} {
		n += folderSize(filepath.Join(dir, part))
	}
	return n
}

// folderSize is the size of the files in a folder; what is not there has none.
func folderSize(dir string) (n int64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Complete is the time from which on every reading that was counted up to the record Applied is stored, math.MinInt64 for
// everything there ever was; ok is false while that is not known. Readings older than Keep go in any case. Safe for concurrent use.
func (h *History) Complete() (from int64, ok bool) {
	h.storeMu.RLock()
	defer h.storeMu.RUnlock()
	if h.store == nil {
		return 0, false
	}
	return h.store.complete.since()
}

// Applied is the last journal record whose readings are stored; safe for concurrent use.
func (h *History) Applied() seglog.LSN { return seglog.LSN(h.applied.Load()) }

// ErrShared is returned by Each for a device two of whose metrics are one series here.
var ErrShared = errors.New("two metrics of the device have one name in the local history")

// Each calls f for every reading of a device's metrics with from <= t < to, metric by metric, in the order of their times. Times are ns
// and whole milliseconds; metric is an index of metrics. Safe for concurrent use.
func (h *History) Each(ctx context.Context, d *telemetry.Device, metrics []string, from, to int64, f func(metric int, t int64, v float64)) error {
	ms := int64(time.Millisecond)
	q, err := h.Querier(from/ms, (to-1)/ms)
	if err != nil {
		return err
	}
	defer q.Close()
	var scratch labels.ScratchBuilder
	names := map[string]bool{}
	var it chunkenc.Iterator
	for i, metric := range metrics {
		name := MetricName(d.Measurement, metric)
		if names[name] {
			return ErrShared
		}
		names[name] = true
		want := seriesLabels(&scratch, d, metric)
		set := q.Select(ctx, false, nil, exactly(d, metric)...)
		for set.Next() {
			s := set.At()
			if !labels.Equal(s.Labels(), want) { // it has more labels
				continue
			}
			it = s.Iterator(it)
			for it.Next() == chunkenc.ValFloat {
				if t, v := it.At(); t*int64(time.Millisecond) >= from && t*int64(time.Millisecond) < to {
					f(i, t*int64(time.Millisecond), v)
				}
			}
			if err := it.Err(); err != nil {
				return fmt.Errorf("read history: %w", err)
			}
		}
		if err := set.Err(); err != nil {
			return fmt.Errorf("read history: %w", err)
		}
	}
	return nil
}
