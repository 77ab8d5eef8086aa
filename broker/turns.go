package broker

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// An idle connection costs no goroutine: when the poller finds something to read, the connection waits for its turn with one
// of a few workers, which reads and deals with what there is. A turn that has to wait, for a password to be checked or for a
// client beyond its rate, gives up its place meanwhile; one that stands still without saying so, as in a journal that takes
// nothing, is noticed by the poller, which lets another worker in.

// watched is a connection that tells when there is something to read.
type watched interface {
	net.Conn
	// readNoWait returns errIdle when there is nothing.
	readNoWait(p []byte) (int, error)
}

// States of conn.turn.
const (
	turnNone  int32 = iota // there is nothing to do
	turnDue                // it waits for a worker
	turnTaken              // a worker has it
	turnAgain              // so, and there is more by now
	turnLast               // the connection has come to its end
)

// wants notes that the connection has something to do; true: it has to be given to the workers.
func (c *conn) wants() bool {
	for {
		switch s := c.turn.Load(); s {
		case turnNone:
			if c.turn.CompareAndSwap(s, turnDue) {
				return true
			}
		case turnTaken:
			if c.turn.CompareAndSwap(s, turnAgain) {
				return false
			}
		default:
			return false
		}
	}
}

// workers give connections their turns.
type workers struct {
	most int // at work at a time, those that stand aside not counted

	mu    sync.Mutex
	wake  sync.Cond
	queue []*conn // queue[head:] waits
	head  int
	all   map[*worker]struct{}
	busy  int // at work, or woken for it
	idle  int
	ended bool
	done  sync.WaitGroup
}

type worker struct {
	since atomic.Int64 // broker time at which its turn began; 0: it has none
	aside bool         // it waits or stands still, and is not counted in busy; guarded by workers.mu
}

// stuckAfter is how long a turn may take before another worker is let in.
const stuckAfter = 10 * time.Millisecond

func newWorkers() *workers {
	w := &workers{most: runtime.GOMAXPROCS(0), all: map[*worker]struct{}{}}
	w.wake.L = &w.mu
	return w
}

// add queues connections whose wants was true.
func (w *workers) add(conns ...*conn) {
	if len(conns) == 0 {
		return
	}
	w.mu.Lock()
	w.queue = append(w.queue, conns...)
	w.letIn((w.waiting() + turnsOfOne - 1) / turnsOfOne)
	w.mu.Unlock()
}

// turnsOfOne is how many short turns one worker deals with before it is worth to wake another. While there are no more, things
// happen in the order in which they came in: who subscribes just before another publishes gets the message.
const turnsOfOne = 8

// longTurn is what is no short one: then others are not kept waiting for it.
const longTurn = 200 * time.Microsecond

func (w *workers) waiting() int { return len(w.queue) - w.head }

// letIn starts or wakes workers until so many are at work. w.mu is held.
func (w *workers) letIn(n int) {
	for w.busy < min(n, w.most) {
		w.busy++
		if w.idle > 0 {
			w.idle--
			w.wake.Signal()
			continue
		}
		k := &worker{}
		w.all[k] = struct{}{}
		w.done.Add(1)
		go w.work(k)
	}
}

// work is a worker's life. It ends when there are enough others without work.
func (w *workers) work(k *worker) {
	defer w.done.Done()
	w.mu.Lock()
	defer w.mu.Unlock()
	defer delete(w.all, k)
	for {
		for w.waiting() == 0 || w.busy > w.most {
			w.busy--
			if w.ended || w.idle >= w.most {
				return
			}
			w.idle++
			w.wake.Wait() // whoever wakes it counts it as busy
		}
		c := w.queue[w.head]
		w.queue[w.head] = nil
		if w.head++; w.head == len(w.queue) {
			w.queue, w.head = w.queue[:0], 0
		}
		w.mu.Unlock()
		c.worker = k
		began := c.b.now()
		k.since.Store(began)
		again := c.takeTurn()
		k.since.Store(0)
		long := c.b.now()-began > int64(longTurn)
		w.mu.Lock()
		w.back(k)
		if again {
			w.queue = append(w.queue, c)
		}
		if long {
			w.letIn(w.waiting())
		}
	}
}

// aside tells that k's turn is about to wait.
func (w *workers) aside(k *worker) {
	w.mu.Lock()
	w.asideLocked(k)
	w.mu.Unlock()
}

func (w *workers) asideLocked(k *worker) {
	if !k.aside {
		k.aside = true
		w.busy--
		w.letIn(min(1, w.waiting()) + w.busy)
	}
}

// back is the end of aside. w.mu is held.
func (w *workers) back(k *worker) {
	if k.aside {
		k.aside = false
		w.busy++
	}
}

// look notices turns that stand still, and tells whether connections wait.
func (w *workers) look(now int64) (waiting bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting() == 0 {
		return false
	}
	for k := range w.all {
		if s := k.since.Load(); s > 0 && now-s > int64(stuckAfter) {
			w.asideLocked(k)
		}
	}
	return true
}

// end lets the workers end, and waits for them. No connection is left.
func (w *workers) end() {
	w.mu.Lock()
	w.ended = true
	w.busy += w.idle
	w.idle = 0
	w.wake.Broadcast()
	w.mu.Unlock()
	w.done.Wait()
}

// waiting lets another connection have its turn while f waits.
func (c *conn) waiting(f func()) {
	if c.worker == nil {
		f()
		return
	}
	w := c.b.workers
	w.aside(c.worker)
	f()
	w.mu.Lock()
	w.back(c.worker)
	w.mu.Unlock()
}

// stepsInTurn is how often a turn reads before others have theirs.
const stepsInTurn = 8

var errPanicked = errors.New("panic")

// takeTurn returns whether the connection is to be queued again.
func (c *conn) takeTurn() (again bool) {
	c.turn.Store(turnTaken)
	c.borrow()
	err := func() (err error) {
		defer func() {
			if err == errPanicked {
				c.b.panicked("connection", recover())
			}
		}()
		err = errPanicked
		for range stepsInTurn {
			if e := c.step(); e != nil {
				return e
			}
		}
		return nil
	}()
	c.giveBack()
	c.worker = nil
	switch err {
	case nil:
		c.turn.Store(turnDue)
		return true
	case errIdle:
		return c.passTurn()
	}
	c.conclude()
	return false
}

// passTurn ends a turn and returns whether the next one is due.
func (c *conn) passTurn() bool {
	if c.turn.CompareAndSwap(turnTaken, turnNone) {
		return false
	}
	c.turn.Store(turnDue)
	return true
}

// conclude ends the connection, in a goroutine of its own: goodbye may take a while.
func (c *conn) conclude() {
	c.turn.Store(turnLast)
	go func() {
		defer c.b.leave(c)
		defer c.b.recovered("end of a connection")
		c.finish()
	}()
}

var readBuffers = sync.Pool{New: func() any { return new([readBuffer]byte) }}

// borrow lends the connection a buffer to read into. One without a session, or with a rate, makes do with a small one of its
// own: there may be very many that wait for their passwords to be checked, or until they may go on.
func (c *conn) borrow() {
	left := c.w - c.r
	if !c.established || c.bucket.rate > 0 || left > readBuffer/2 || c.need > readBuffer {
		return
	}
	c.shared = readBuffers.Get().(*[readBuffer]byte)
	copy(c.shared[:], c.in[c.r:c.w])
	c.in, c.r, c.w = c.shared[:], 0, left
}

// giveBack keeps no more memory than what is left to be read.
func (c *conn) giveBack() {
	if c.shared != nil && len(c.in) == readBuffer && &c.in[0] == &c.shared[0] {
		if left := c.w - c.r; left > 0 {
			in := make([]byte, max(left, 256))
			copy(in, c.in[c.r:c.w])
			c.in, c.r, c.w = in, 0, left
		} else {
			c.in = nil
		}
	}
	if c.shared != nil {
		readBuffers.Put(c.shared)
		c.shared = nil
	}
	if c.r == c.w {
		c.in, c.r, c.w = nil, 0, 0
	}
	if c.wantTrim.Swap(false) {
		c.trim()
	}
}

// trim gives back what a connection remembers in order to be fast.
func (c *conn) trim() {
	c.topics, c.staged, c.stagedFrames = nil, nil, nil
	c.granted, c.existed, c.overQuota = nil, nil, nil
	c.msg = Message{}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held.len() == 0 {
		c.held = held{}
	}
	if o := &c.out; !o.writing && len(o.queue) == 0 {
		o.queue, o.spare = nil, nil
	}
}
