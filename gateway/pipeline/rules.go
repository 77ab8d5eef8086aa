package pipeline

import (
	"context"

	"sluice/rules"
)

// RuleStates tells where every rule stands, with at most that many series each; times are wall clock. It waits until the pipeline is
// between two records, or for ctx; safe for concurrent use while Run runs.
func (r *Runner) RuleStates(ctx context.Context, series int) ([]rules.RuleState, error) {
	answer := make(chan []rules.RuleState, 1)
	r.asks.look(func(f *Fold) {
		list := f.engine.Explain(series)
		for i := range list {
			for k := range list[i].Series {
				s := &list[i].Series[k]
				for _, t := range [...]*int64{&s.Since, &s.Evaluated} {
					if *t != 0 {
						*t += f.stepped
					}
				}
			}
		}
		answer <- list
	})
	select {
	case list := <-answer:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
