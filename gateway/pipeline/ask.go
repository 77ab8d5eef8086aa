package pipeline

import (
	"context"
	"sync"
)

// asks is how other goroutines look into the fold: they leave a question, and the goroutine that owns the fold answers it between
// two records. It costs nothing when nobody asks.
type asks struct {
	mu      sync.Mutex
	waiting []chan<- []DeviceView // of capacity 1
	looks   []func(*Fold)
	wake    context.CancelFunc // ends the owner's waiting for a record; nil: it is not waiting
}

func (a *asks) put(answer chan<- []DeviceView) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting = append(a.waiting, answer)
	if a.wake != nil {
		a.wake()
	}
}

func (a *asks) look(at func(*Fold)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.looks = append(a.looks, at)
	if a.wake != nil {
		a.wake()
	}
}

func (a *asks) takeLooks() []func(*Fold) {
	a.mu.Lock()
	defer a.mu.Unlock()
	looks := a.looks
	a.looks = nil
	return looks
}

func (a *asks) interrupt(wake context.CancelFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake = wake
}

func (a *asks) take() []chan<- []DeviceView {
	a.mu.Lock()
	defer a.mu.Unlock()
	waiting := a.waiting
	a.waiting = nil
	return waiting
}

// Devices copies the device registry. It waits until the pipeline is between two records, or for ctx; safe for concurrent use
// while Run runs. The list is the caller's; several callers at a time may share the views' Labels and Metrics.
func (r *Runner) Devices(ctx context.Context) ([]DeviceView, error) {
	answer := make(chan []DeviceView, 1)
	r.asks.put(answer)
	select {
	case list := <-answer:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// answer gives all who wait one copy; for the goroutine that owns the fold.
func (r *Runner) answer() {
	for _, look := range r.asks.takeLooks() {
		look(r.fold)
	}
	waiting := r.asks.take()
	if len(waiting) == 0 {
		return
	}
	list := r.fold.Devices()
	for i, answer := range waiting {
		if i > 0 {
			list = append([]DeviceView(nil), list...)
		}
		answer <- list
	}
}

// Backfills lists what is to be recomputed from the local history now, at most that many windows. It waits until the pipeline is between
// two records, or for ctx, unless there is nothing; safe for concurrent use while Run runs.
func (r *Runner) Backfills(ctx context.Context, most int) ([]Backfill, error) {
	if r.backfills.Load() == 0 {
		return nil, nil
	}
	answer := make(chan []Backfill, 1)
	r.asks.look(func(f *Fold) { answer <- f.Backfills(most) })
	select {
	case list := <-answer:
		return list, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
