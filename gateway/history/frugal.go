package history

import (
	"context"
	"log/slog"
	"runtime/debug"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

// frugal gives back what a compaction took. The TSDB allocates some 33 MB of buffers for each block, however small, of which it
// touches little as long as they are new memory; used memory it clears, and all of it is resident. And while they are there
// the garbage collector lets the heap grow to twice their size. With what is free returned to the kernel each time, neither happens.
type frugal struct{ tsdb.Compactor }

// Write implements tsdb.Compactor.
func (f frugal) Write(dest string, b tsdb.BlockReader, from, to int64, base *tsdb.BlockMeta) ([]ulid.ULID, error) {
	defer debug.FreeOSMemory()
	return f.Compactor.Write(dest, b, from, to, base)
}

// Compact implements tsdb.Compactor.
func (f frugal) Compact(dest string, dirs []string, open []*tsdb.Block) ([]ulid.ULID, error) {
	defer debug.FreeOSMemory()
	return f.Compactor.Compact(dest, dirs, open)
}

// newCompactor makes the compactor that the TSDB would make, but frugal.
func newCompactor(ctx context.Context, r prometheus.Registerer, l *slog.Logger, ranges []int64, pool chunkenc.Pool, o *tsdb.Options) (tsdb.Compactor, error) {
	c, err := tsdb.NewLeveledCompactorWithOptions(ctx, r, l, ranges, pool, tsdb.LeveledCompactorOptions{
		MaxBlockChunkSegmentSize: o.MaxBlockChunkSegmentSize, EnableOverlappingCompaction: o.EnableOverlappingCompaction,
	})
	if err != nil {
		return nil, err
	}
	return frugal{c}, nil
}
