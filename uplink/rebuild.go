package uplink

import (
	"context"
	"errors"
	"io"
	"time"
)

const (
	// rebuildAfter is how many attempts without any answer make a new client worth it: a stale resolver, a half-dead connection.
	rebuildAfter = 10
	// wedgedAfter is how long a sink may take to come back after its context has ended.
	wedgedAfter = 10 * time.Second
)

var errWedged = errors.New("the client does not come back from a delivery")

// call hands recs to the sink. A sink that can be made again is not waited for longer than it may take.
func (f *Forwarder) call(ctx context.Context, recs []Record) error {
	if f.o.Rebuild == nil {
		return f.sink.Deliver(ctx, recs)
	}
	ctx, cancel := context.WithTimeout(ctx, f.o.Patience)
	defer cancel()
	done := make(chan error, 1) // 1: it may end when nobody waits any more
	sink := f.sink
	go func() { done <- sink.Deliver(ctx, recs) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	t := time.NewTimer(f.wedge)
	defer t.Stop()
	select {
	case err := <-done:
		return err
	case <-t.C:
		return &Error{Kind: KindRetry, Detail: errWedged.Error(), Err: errWedged}
	}
}

// rebuild replaces the sink, and forgets the hand, which the old one may still look at.
func (f *Forwarder) rebuild() {
	sink, err := f.o.Rebuild()
	if err != nil {
		f.o.Log.Error("client cannot be made again", "destination", f.o.Name, "err", err)
		return
	}
	old := f.sink
	f.sink = sink
	f.status.rebuilt()
	f.o.Log.Warn("client torn down and made again: it made no progress", "destination", f.o.Name)
	if c, ok := old.(io.Closer); ok {
		go c.Close() // a stuck client may hold its own lock for ever
	}
	f.giveBack()
	f.hand, f.base, f.work = nil, nil, nil
	for _, r := range f.readers() {
		r.arena = arena{}
	}
	if f.fresh != nil {
		f.fresh.arena = arena{}
	}
}

// CloseSink ends what the sink in use keeps between deliveries. Call it after Run.
func (f *Forwarder) CloseSink() {
	if c, ok := f.sink.(io.Closer); ok {
		c.Close()
	}
}
