package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/console"
	"sluice/rules"
	"sluice/rules/expr"
)

// Bounds of the jobs: how many run at a time, and how many are listed.
const (
	jobsRunning = 2
	jobsListed  = 20
)

// jobs runs long work that an operator asked for, each in a goroutine of its own, and remembers how the last ones ended. Nothing of it
// survives a restart.
type jobs struct {
	log *slog.Logger

	mu      sync.Mutex
	list    []*job // oldest first
	stopped bool
	running sync.WaitGroup
}

// job is one of them.
type job struct {
	progress
	cancel context.CancelCauseFunc
	ended  chan struct{}

	mu   sync.Mutex
	info console.Job // but for what progress counts
}

// progress is how far a job is. Its methods may be called from any goroutine.
type progress struct{ done, total atomic.Uint64 }

// set says how much is done of how much there is; total 0: not known.
func (p *progress) set(done, total uint64) {
	p.total.Store(total)
	p.done.Store(done)
}

func newJobs(log *slog.Logger) *jobs { return &jobs{log: log} }

// start runs work in a goroutine of its own and returns the job's id. kind and unit are words of the API (backtest, records), by is
// who asked. work must return soon after its ctx ends; what it returns is shown as JSON. A panic in it ends the job alone.
// console.ErrBusy: as many run as may.
func (j *jobs) start(kind, unit, by string, work func(ctx context.Context, p *progress) (result any, err error)) (id string, err error) {
	var raw [8]byte
	rand.Read(raw[:])
	id = hex.EncodeToString(raw[:])
	ctx, cancel := context.WithCancelCause(context.Background())
	one := &job{cancel: cancel, ended: make(chan struct{}), info: console.Job{
		ID: id, Kind: kind, State: "running", Author: by, Unit: unit, Started: time.Now().UTC(),
	}}
	if err := j.admit(one); err != nil {
		cancel(nil)
		return "", err
	}
	j.log.Info("job started", "kind", kind, "id", id, "by", by)
	go func() {
		defer j.running.Done()
		defer close(one.ended)
		defer cancel(nil)
		result, err := j.fenced(ctx, one, work)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		one.finish(result, err)
		j.log.Info("job ended", "kind", kind, "id", id, "took", time.Since(one.info.Started).Round(time.Millisecond), "err", err)
	}()
	return id, nil
}

func (j *jobs) admit(one *job) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.stopped {
		return errors.New("the gateway stops")
	}
	running := 0
	for _, other := range j.list {
		if other.running() {
			running++
		}
	}
	if running >= jobsRunning {
		return fmt.Errorf("%w: %d jobs run already: wait for one, or cancel it", console.ErrBusy, running)
	}
	j.list = append(j.list, one)
	if n := len(j.list) - jobsListed; n > 0 {
		for i := 0; n > 0 && i < len(j.list); {
			if j.list[i].running() {
				i++
				continue
			}
			j.list = slices.Delete(j.list, i, i+1)
			n--
		}
	}
	j.running.Add(1)
	return nil
}

// fenced turns a panic into the job's error.
func (j *jobs) fenced(ctx context.Context, one *job, work func(context.Context, *progress) (any, error)) (result any, err error) {
	defer func() {
		if p := recover(); p != nil {
			j.log.Error("job panicked", "kind", one.info.Kind, "id", one.info.ID, "panic", p, "stack", string(debug.Stack()))
			result, err = nil, fmt.Errorf("a defect ended it: %v", p)
		}
	}()
	return work(ctx, &one.progress)
}

func (o *job) running() bool {
	select {
	case <-o.ended:
		return false
	default:
		return true
	}
}

func (o *job) finish(result any, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.info.Ended = time.Now().UTC()
	if err != nil {
		o.info.State, o.info.Error = "failed", err.Error()
		return
	}
	o.info.State, o.info.Result = "done", result
}

func (o *job) show() console.Job {
	o.mu.Lock()
	defer o.mu.Unlock()
	v := o.info
	v.Done, v.Total = o.progress.done.Load(), o.progress.total.Load()
	return v
}

// all lists the jobs, newest first.
func (j *jobs) all() []console.Job {
	j.mu.Lock()
	defer j.mu.Unlock()
	var list []console.Job
	for _, one := range slices.Backward(j.list) {
		list = append(list, one.show())
	}
	return list
}

// find returns the job with an id, or console.ErrNotFound.
func (j *jobs) find(id string) (*job, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, one := range j.list {
		if one.info.ID == id {
			return one, nil
		}
	}
	return nil, fmt.Errorf("%w: no job has the id %q", console.ErrNotFound, id)
}

// stop cancels what runs, waits for it and takes nothing more.
func (j *jobs) stop() {
	j.mu.Lock()
	j.stopped = true
	for _, one := range j.list {
		one.cancel(errors.New("the gateway stopped"))
	}
	j.mu.Unlock()
	j.running.Wait()
}

// JobList implements console.Jobs.
func (g *gateway) JobList() []console.Job { return g.jobs.all() }

// Job implements console.Jobs.
func (g *gateway) Job(id string) (console.Job, error) {
	one, err := g.jobs.find(id)
	if err != nil {
		return console.Job{}, err
	}
	return one.show(), nil
}

// CancelJob implements console.Jobs.
func (g *gateway) CancelJob(ctx context.Context, id, by string) error {
	one, err := g.jobs.find(id)
	if err != nil {
		return err
	}
	if !one.running() {
		return fmt.Errorf("%w: the job with the id %q has ended", console.ErrNotFound, id)
	}
	one.cancel(fmt.Errorf("cancelled by %s", by))
	select {
	case <-one.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("job %s takes its time to end: %w", id, ctx.Err())
	}
}

// Backtest implements console.Jobs: the journal is read beside the pipeline, from its files.
func (g *gateway) Backtest(ctx context.Context, b console.Backtest) (string, error) {
	var since time.Duration
	var err error
	if b.Since != "" {
		if since, err = expr.ParseDuration(b.Since); err != nil {
			return "", fmt.Errorf("%w: since: %w", console.ErrInvalid, err)
		}
	}
	var changes map[string]time.Duration
	if b.For != "" {
		d, err := expr.ParseDuration(b.For)
		if err != nil {
			return "", fmt.Errorf("%w: for: %w", console.ErrInvalid, err)
		}
		changes = map[string]time.Duration{"": d}
	}
	o, err := g.backtestInForce(ctx, b.Rules)
	if err != nil {
		var list rules.Errors
		if errors.As(err, &list) {
			return "", fmt.Errorf("%w: %w", console.ErrInvalid, err)
		}
		return "", err
	}
	o.Since, o.Changes = since, changes
	return g.jobs.start("backtest", "records", b.By, func(ctx context.Context, p *progress) (any, error) {
		return backtest(ctx, o, p.set)
	})
}

var _ console.Jobs = (*gateway)(nil)
