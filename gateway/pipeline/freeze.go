package pipeline

import (
	"context"
	"fmt"

	"sluice/gateway/seglog"
)

// Freeze returns the state as a checkpoint of this moment would hold it, and the last record it covers; what was put out before is durable
// then. It waits until the pipeline is between two records, or for ctx; safe for concurrent use while Run runs.
func (r *Runner) Freeze(ctx context.Context) ([]byte, seglog.LSN, error) {
	type frozen struct {
		state []byte
		lsn   seglog.LSN
		err   error
	}
	answer := make(chan frozen, 1)
	r.asks.look(func(f *Fold) {
		if err := r.out.Sync(); err != nil {
			answer <- frozen{err: fmt.Errorf("sync outputs: %w", err)}
			return
		}
		answer <- frozen{state: f.Snapshot(nil), lsn: f.lsn}
	})
	select {
	case a := <-answer:
		return a.state, a.lsn, a.err
	case <-ctx.Done():
		return nil, 0, ctx.Err()
	}
}
