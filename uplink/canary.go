package uplink

import (
	"context"
	"sync"
	"time"
)

// Canary sends a point of its own now and then and looks whether it arrived: the end-to-end check that counts requests cannot be. Its
// forwarder runs it between two batches, so that its age also shows when nothing is sent at all.
type Canary struct {
	every time.Duration
	check func(ctx context.Context, at time.Time) (readBack bool, err error)

	mu  sync.Mutex
	due time.Time
	s   CanaryStatus
}

// NewCanary makes one. check writes a point with that time; readBack tells that it was also read back, else its write was confirmed. It
// gives up by itself.
func NewCanary(every time.Duration, check func(ctx context.Context, at time.Time) (readBack bool, err error)) *Canary {
	return &Canary{every: every, check: check}
}

// turn checks when it is time.
func (c *Canary) turn(ctx context.Context) {
	now := time.Now()
	c.mu.Lock()
	due := !now.Before(c.due)
	if due {
		c.due = now.Add(c.every)
	}
	c.mu.Unlock()
	if !due {
		return
	}
	readBack, err := c.check(ctx, now)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.s.ReadBack = readBack
	if err != nil {
		c.s.LastError = err.Error()
		return
	}
	c.s.LastSeen, c.s.LastError = now, ""
}

// next is how long until it is time, at least a little.
func (c *Canary) next() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(time.Until(c.due), 10*time.Millisecond)
}

func (c *Canary) status() *CanaryStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.s
	return &s
}
