package history

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"sluice/gateway/telemetry"
)

// Newest is the newest value of a series within [from, to]; ok is false where there is none. It reads all that lies between.
func (h *History) Newest(ctx context.Context, d *telemetry.Device, metric string, from, to time.Time) (t time.Time, v float64, ok bool, err error) {
	q, err := h.Querier(from.UnixMilli(), to.UnixMilli())
	if err != nil {
		return time.Time{}, 0, false, err
	}
	defer q.Close()
	var b labels.ScratchBuilder
	want := seriesLabels(&b, d, metric)
	set := q.Select(ctx, false, nil, exactly(d, metric)...)
	for set.Next() {
		s := set.At()
		if !labels.Equal(s.Labels(), want) {
			continue // a device with more labels
		}
		it := s.Iterator(nil)
		for it.Next() == chunkenc.ValFloat {
			at, value := it.At()
			t, v, ok = time.UnixMilli(at), value, true
		}
		if err := it.Err(); err != nil {
			return time.Time{}, 0, false, fmt.Errorf("read %s: %w", s.Labels(), err)
		}
	}
	if err := set.Err(); err != nil {
		return time.Time{}, 0, false, fmt.Errorf("find the newest %s: %w", metric, err)
	}
	return t, v, ok, nil
}
