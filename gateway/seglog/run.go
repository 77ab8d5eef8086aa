package seglog

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"
)

// Run commits groups until ctx ends, then commits what is queued and returns that commit's error. A failed commit does not
// end it: it tries once a second, and when space is released, whether the log works again. Meanwhile a goroutine of its own
// prepares the next segment.
func (l *Log) Run(ctx context.Context) error {
	l.mu.Lock()
	switch {
	case l.closed:
		l.mu.Unlock()
		return ErrClosed
	case l.readOnly:
		l.mu.Unlock()
		return ErrReadOnly
	case l.running:
		l.mu.Unlock()
		return errors.New("run log: it runs already")
	}
	l.running = true
	l.mu.Unlock()

	prepCtx, stop := context.WithCancel(ctx)
	var prep sync.WaitGroup
	if !l.o.NoPrealloc {
		prep.Go(func() { l.keepSpare(prepCtx) })
	}
	defer func() {
		stop()
		prep.Wait()
		l.mu.Lock()
		l.running = false
		l.room.Broadcast()
		l.mu.Unlock()
	}()

	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	var last time.Time
	for {
		select {
		case <-ctx.Done():
			return l.lastCommit()
		case <-l.done:
			return ErrClosed
		case <-l.kick:
		case <-timer.C: // set only while failing
		}
		if wait := l.o.CommitInterval - time.Since(last); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return l.lastCommit()
			case <-l.done:
				return ErrClosed
			case <-timer.C:
			}
		}
		if l.o.CommitInterval == 0 {
			// The writers that the last commit released are about to append: let them into this group.
			runtime.Gosched()
		}
		last = time.Now()
		l.Commit() // its error is Err, and OnFault has it
		if l.Err() != nil {
			timer.Reset(retryEvery)
		}
	}
}

func (l *Log) lastCommit() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	return l.commitLocked(true)
}

// keepSpare has a spare ready whenever the active segment fills up.
func (l *Log) keepSpare(ctx context.Context) {
	l.prepare() // the first one, at once
	timer := time.NewTimer(retryEvery)
	defer timer.Stop()
	for {
		l.mu.Lock()
		failing := l.nextErr != nil
		l.mu.Unlock()
		var retry <-chan time.Time
		if failing {
			timer.Reset(retryEvery)
			retry = timer.C
		}
		select {
		case <-ctx.Done():
			return
		case <-l.done:
			return
		case <-l.refill:
		case <-retry:
		}
		l.prepare()
	}
}
