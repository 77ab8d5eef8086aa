package main

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/rules"
)

// backtestOptions say what backtest replays, and through which rules.
type backtestOptions struct {
	// Spec is what messages are read and judged by; its rules must be those of the backtest. See backtestSpec and inForce.
	Spec *pipeline.Spec
	// Journal is the directory of the journal. A gateway may run on it meanwhile: it is only read, and no lock is taken.
	Journal string
	// Since is how far to go back from now; 0: all that the journal holds.
	Since time.Duration
	// Changes are other values of for, by alert: their outcome stands in backtestRule.Changed. The alert "" stands for every rule
	// that has no value of its own here.
	Changes map[string]time.Duration
}

// backtestReport is the outcome of a backtest.
type backtestReport struct {
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Messages uint64         `json:"messages"`
	Damaged  uint64         `json:"damaged"`
	Trimmed  uint64         `json:"trimmed"` // released by the gateway meanwhile
	Rules    []backtestRule `json:"rules"`
}

type backtestRule struct {
	pipeline.RuleStats
	Changed *pipeline.RuleStats `json:"changed,omitempty"` // with the other for
}

// backtest replays a journal and tells what the rules would have done. It starts goroutines of its own and ends them. It returns
// ctx's error when ctx ends, and rules.Errors where the rules are broken. progress is called from one of these goroutines, a few times
// a second and once at the end, with the records read so far and how many there are in all; nil: nobody wants to know.
func backtest(ctx context.Context, o backtestOptions, progress func(done, total uint64)) (*backtestReport, error) {
	set, err := o.Spec.RuleSet()
	if err != nil {
		return nil, err
	}
	changes := changesOf(set, o.Changes)
	variants := []*pipeline.Backtest{nil}
	if len(changes) > 0 {
		variants = append(variants, nil)
	}
	for i := range variants {
		var with map[string]time.Duration
		if i > 0 {
			with = changes
		}
		if variants[i], err = pipeline.NewBacktest(o.Spec, with); err != nil {
			return nil, err
		}
	}
	log, _, err := seglog.OpenReadOnly(o.Journal, seglog.Options{})
	if err != nil {
		return nil, err
	}
	defer log.Close()
	r := &replay{log: log, from: log.First(), progress: progress}
	if o.Since > 0 {
		if r.from, err = log.SeekTime(time.Now().Add(-o.Since).UnixNano()); err != nil {
			return nil, err
		}
	}
	return r.run(ctx, variants, changes)
}

// changesOf spells out what "" stands for.
func changesOf(set *rules.Set, changes map[string]time.Duration) map[string]time.Duration {
	all := map[string]time.Duration{}
	if d, ok := changes[""]; ok {
		for _, r := range set.Rules() {
			all[r.Alert] = d
		}
	}
	for alert, d := range changes {
		if alert != "" {
			all[alert] = d
		}
	}
	return all
}

// backtestSpec is the spec of a configuration with other rules; nil: the rules that its files hold now. Broken rules are rules.Errors.
func backtestSpec(cfg *config.Config, files []rules.File) (*pipeline.Spec, error) {
	if files == nil {
		var err error
		if files, err = readRuleFiles(cfg); err != nil {
			return nil, err
		}
	}
	if _, err := rules.Parse(files); err != nil {
		return nil, err
	}
	return buildSpec(cfg, files), nil
}

// backtestInForce is the options for a backtest of the running gateway: with the rules of text, or, when it is empty, with those in
// force. Since and Changes are the caller's to set.
func (g *gateway) backtestInForce(ctx context.Context, text string) (backtestOptions, error) {
	o := backtestOptions{Journal: g.dir.join("journal")}
	var err error
	if o.Spec, err = g.runner.Spec(ctx); err != nil {
		return o, fmt.Errorf("ask the pipeline: %w", err)
	}
	if text == "" {
		return o, nil
	}
	files := []rules.File{{Name: "rules", Data: []byte(text)}}
	if _, err := rules.Parse(files); err != nil {
		return o, err
	}
	o.Spec.Rules = []pipeline.RuleFile{{Name: "rules", Text: text}}
	return o, nil
}

func journalDir(cfg *config.Config) string { return filepath.Join(cfg.Gateway.DataDir, "journal") }

// replay folds one journal, once for the rules as they are and once for those changed, beside each other.
type replay struct {
	log      *seglog.Log
	from     seglog.LSN
	progress func(done, total uint64)
	slowest  [2]atomic.Uint64 // by variant: records read
}

func (r *replay) run(ctx context.Context, variants []*pipeline.Backtest, changes map[string]time.Duration) (*backtestReport, error) {
	report := &backtestReport{Rules: []backtestRule{}}
	stats := make([][]pipeline.RuleStats, len(variants))
	group, ctx := errgroup.WithContext(ctx)
	for i, b := range variants {
		group.Go(func() error {
			trimmed, err := r.fold(ctx, b, i, len(variants))
			if err != nil {
				return err
			}
			stats[i] = b.Report()
			if i == 0 {
				report.From, report.To, report.Messages, report.Damaged = b.Span()
				report.Trimmed = trimmed
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	r.tell(r.total(), r.total())
	for i := range stats[0] {
		rule := backtestRule{RuleStats: stats[0][i]}
		if _, changed := changes[rule.Alert]; changed {
			rule.Changed = &stats[1][i]
		}
		report.Rules = append(report.Rules, rule)
	}
	return report, nil
}

// tellEvery is the least time between two calls of progress.
const tellEvery = 100 * time.Millisecond

// fold takes in every record; the first variant tells how far the slowest one is.
func (r *replay) fold(ctx context.Context, b *pipeline.Backtest, variant, variants int) (trimmed uint64, err error) {
	c := r.log.Cursor(r.from)
	defer c.Close()
	told := time.Now()
	for n := 0; ; n++ {
		rec, ok, err := c.TryNext()
		if err != nil {
			return 0, err
		}
		if !ok {
			r.slowest[variant].Store(r.total())
			trimmed, _ := c.Skipped()
			return trimmed, nil
		}
		b.Apply(&rec)
		if n%1024 > 0 {
			continue
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		r.slowest[variant].Store(uint64(rec.LSN-r.from) + 1)
		if variant == 0 && time.Since(told) >= tellEvery {
			told = time.Now()
			done := r.slowest[0].Load()
			for v := range variants {
				done = min(done, r.slowest[v].Load())
			}
			r.tell(done, r.total())
		}
	}
}

func (r *replay) tell(done, total uint64) {
	if r.progress != nil {
		r.progress(done, total)
	}
}

// total is how many records there are.
func (r *replay) total() uint64 {
	if last := r.log.Visible(); last >= r.from {
		return uint64(last-r.from) + 1
	}
	return 0
}
