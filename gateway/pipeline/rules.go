package pipeline

import (
	"context"

	"sluice/rules"
)

// RuleStates tells where every rule stands, with at most that many series each; times are wall clock. It waits until the pipeline is
// between two records, or for ctx; safe for concurrent use while Run runs.
func (r *Runner) RuleStates(ctx context.Context, series int) ([]rules.RuleState, error) {
	answer := make(chan []rules.RuleState, 1)
	r.asks.look(func(f *Fold) { answer <- f.engine.Explain(series) })
	select {
	case list := <-answer:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Spec is a copy of the spec in force. It waits until the pipeline is between two records, or for ctx; safe for concurrent use
// while Run runs.
func (r *Runner) Spec(ctx context.Context) (*Spec, error) {
	answer := make(chan []byte, 1)
	r.asks.look(func(f *Fold) { answer <- f.c.raw })
	select {
	case raw := <-answer:
		return DecodeSpec(raw)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// RuleSet compiles the spec's rules; the error is rules.Errors with every fault.
func (s *Spec) RuleSet() (*rules.Set, error) {
	files := make([]rules.File, len(s.Rules))
	for i, f := range s.Rules {
		files[i] = rules.File{Name: f.Name, Data: []byte(f.Text)}
	}
	return rules.Parse(files)
}
