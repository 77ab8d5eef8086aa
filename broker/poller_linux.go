package broker

import (
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller watches plain TCP connections, and gives those that have something to read to the workers. The runtime's own poller
// wants a goroutine for each, with its stack, and wakes the process for every packet that comes in; at a few thousand a
// second over many connections that costs more than the packets. This one, while there is traffic and the journal gathers
// messages before a commit, looks after each commit, or at a fixed pace, and then serves all that is there in one go; when
// there is none it waits like any other. What a message loses by it, it would have spent waiting for its commit.
type poller struct {
	epoll   int
	pace    time.Duration // between two looks, at most; 0: nothing is gathered
	workers *workers
	clock   func() int64  // broker time
	stop    chan struct{} // closed by close
	tick    chan struct{} // 1 slot: acknowledgements were just released; dropped when full
	done    chan struct{} // closed when run has ended

	mu    sync.Mutex
	conns map[int]*polledConn // by file descriptor
	list  []*polledConn       // the same
	swept int                 // of list, in the round under way
}

// busyEvents within a pace make gathering worth its delay; below, at most about a thousand a second, each is served at once.
const busyEvents = 8

// All connections are looked at within sweepInterval times sweepSteps, which is how late a deadline may be noticed; a few
// are within sweepInterval.
const (
	sweepInterval = 100 * time.Millisecond
	sweepSteps    = 10
	sweepAtOnce   = 256
)

// trimAfter is how long a connection is idle before it gives back what makes it fast.
const trimAfter = 10 * time.Second

func newPoller(pace time.Duration, w *workers, clock func() int64) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{epoll: fd, pace: pace, workers: w, clock: clock, stop: make(chan struct{}), tick: make(chan struct{}, 1),
		done: make(chan struct{}), conns: map[int]*polledConn{}}, nil
}

// run watches until close is called.
func (p *poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 512)
	ready := make([]*polledConn, len(events))
	due := make([]*conn, 0, len(events))
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	now := time.Now()
	swept, counted := now, now
	busy, waiting, seen := false, false, 0
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		wait := int(sweepInterval / time.Millisecond)
		switch {
		case busy:
			timer.Reset(p.pace)
			select {
			case <-p.tick:
			case <-timer.C:
			}
			wait = 0
		case waiting:
			wait = int(stuckAfter / time.Millisecond)
		}
		n, err := unix.EpollWait(p.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			time.Sleep(sweepInterval) // cannot happen; if it does, not in a tight loop
		}
		n = max(n, 0)
		now := time.Now()
		if seen += n; p.pace > 0 && now.Sub(counted) >= p.pace {
			busy, seen, counted = seen >= busyEvents, 0, now
		}
		p.mu.Lock()
		for i, e := range events[:n] {
			ready[i] = p.conns[int(e.Fd)]
		}
		p.mu.Unlock()
		due = due[:0]
		for i, c := range ready[:n] {
			if c != nil && c.happened(events[i].Events) && c.owner.wants() {
				due = append(due, c.owner)
			}
		}
		p.workers.add(due...)
		clear(ready[:n])
		clear(due)
		waiting = p.workers.look(p.clock())
		if n > 0 && !busy {
			runtime.Gosched() // the next wait is a system call: who was woken here should not stay behind it
		}
		if now.Sub(swept) >= sweepInterval {
			swept = now
			p.sweep(now)
		}
	}
}

// sweep wakes those whose deadline has passed, and those that were idle for a while, once. It looks at some of the connections,
// and goes on with the others the next time.
func (p *poller) sweep(now time.Time) {
	t := now.UnixNano()
	var due []*conn
	p.mu.Lock()
	for range min(len(p.list), max(sweepAtOnce, len(p.list)/sweepSteps+1)) {
		if p.swept >= len(p.list) {
			p.swept = 0
		}
		c := p.list[p.swept]
		p.swept++
		by := c.readBy.Load()
		wake := by != 0 && by <= t
		if c.active.Swap(false) {
			c.idleSince = t
		} else if c.idleSince != 0 && t-c.idleSince > int64(trimAfter) {
			c.idleSince, wake = 0, true
			c.owner.wantTrim.Store(true)
		}
		if wake {
			signal(c.readable)
			if c.owner.wants() {
				due = append(due, c.owner)
			}
		}
		if by := c.writeBy.Load(); by != 0 && by <= t {
			signal(c.writable)
		}
	}
	p.mu.Unlock()
	p.workers.add(due...)
}

// forget takes a connection from the lists. p.mu is held.
func (p *poller) forget(c *polledConn, fd int) {
	delete(p.conns, fd)
	last := len(p.list) - 1
	p.list[c.at] = p.list[last]
	p.list[c.at].at = c.at
	p.list[last] = nil
	p.list = p.list[:last]
}

// look makes run look now, if there is traffic: acknowledgements were just released, so the process is awake.
func (p *poller) look() { signal(p.tick) }

// close ends run and waits for it. The connections are closed already.
func (p *poller) close() {
	close(p.stop)
	<-p.done
	_ = unix.Close(p.epoll)
}

// adopt takes nc's socket away from the runtime's poller. nc is closed, whatever happens. Nothing happens before start.
func (p *poller) adopt(nc net.Conn, owner *conn) (*polledConn, error) {
	defer nc.Close()
	raw, err := nc.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, dupErr := -1, error(nil)
	if err := raw.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	c := &polledConn{p: p, owner: owner, fd: fd, local: nc.LocalAddr(), remote: nc.RemoteAddr(),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
	c.ready.Store(true)
	p.mu.Lock()
	p.conns[fd] = c
	c.at = len(p.list)
	p.list = append(p.list, c)
	p.mu.Unlock()
	return c, nil
}

// start begins to watch.
func (c *polledConn) start() error {
	_, err := c.use(func(fd int) (int, error) {
		e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
		return 0, unix.EpollCtl(c.p.epoll, unix.EPOLL_CTL_ADD, fd, &e)
	})
	return os.NewSyscallError("epoll_ctl", err)
}

// polledConn is a TCP connection watched by a poller. One goroutine at a time may read and one may write.
type polledConn struct {
	p             *poller
	owner         *conn
	local, remote net.Addr
	at            int   // in the poller's list; guarded by its mutex
	idleSince     int64 // ns since the Unix epoch; 0: it was trimmed since; likewise

	mu     sync.RWMutex // held for writing to close fd, for reading around each use of it
	fd     int
	closed bool

	readable, writable chan struct{} // 1 slot: look again; dropped when full
	ready              atomic.Bool   // there may be something to read: an edge came since the last read began
	active             atomic.Bool   // so, since the last sweep
	ended              atomic.Bool   // the peer will send no more, so that a short read does not mean there is nothing left
	full               atomic.Bool   // a writer waits
	readBy, writeBy    atomic.Int64  // deadlines, ns since the Unix epoch; 0: none
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// happened takes the poller's edges, and returns whether there may be something to read.
func (c *polledConn) happened(events uint32) bool {
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.ended.Store(true)
	}
	if events&^uint32(unix.EPOLLIN) != 0 && c.full.Load() {
		signal(c.writable)
	}
	if events&^uint32(unix.EPOLLOUT) == 0 {
		return false
	}
	c.active.Store(true)
	c.ready.Store(true)
	signal(c.readable)
	return true
}

// use calls f with the descriptor, repeating it when a signal interrupted it.
func (c *polledConn) use(f func(fd int) (int, error)) (int, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return 0, net.ErrClosed
	}
	for {
		n, err := f(c.fd)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

func (c *polledConn) readNoWait(p []byte) (int, error) {
	if c.ready.Swap(false) {
		n, err := c.use(func(fd int) (int, error) { return unix.Read(fd, p) })
		switch {
		case n > 0:
			// Less than asked for: there is no more, and when there is an edge will tell.
			if n == len(p) || c.ended.Load() {
				c.ready.Store(true)
			}
			return n, nil
		case err == nil:
			c.ready.Store(true)
			return 0, io.EOF
		case err != unix.EAGAIN:
			c.ready.Store(true)
			return 0, err
		}
	}
	if expired(&c.readBy) {
		return 0, os.ErrDeadlineExceeded
	}
	return 0, errIdle
}

// Read waits. It is for the end of a connection, when nobody takes turns any more.
func (c *polledConn) Read(p []byte) (int, error) {
	for {
		n, err := c.readNoWait(p)
		if err != errIdle {
			return n, err
		}
		c.mu.RLock()
		closed := c.closed
		c.mu.RUnlock()
		if closed {
			return 0, net.ErrClosed
		}
		<-c.readable
	}
}

// writeNoWait writes what the socket's buffer takes.
func (c *polledConn) writeNoWait(p []byte) (int, error) {
	n, err := c.use(func(fd int) (int, error) { return unix.Write(fd, p) })
	if err == unix.EAGAIN {
		err = nil
	}
	return n, err
}

func (c *polledConn) Write(p []byte) (written int, err error) {
	for {
		n, err := c.writeNoWait(p[written:])
		if written += n; err != nil || written == len(p) {
			c.full.Store(false)
			return written, err
		}
		if expired(&c.writeBy) {
			return written, os.ErrDeadlineExceeded
		}
		if n == 0 {
			if !c.full.Swap(true) {
				continue // there may be room since, which nobody was told
			}
			<-c.writable
		}
	}
}

func expired(by *atomic.Int64) bool {
	t := by.Load()
	return t != 0 && time.Now().UnixNano() >= t
}

func (c *polledConn) CloseWrite() error {
	_, err := c.use(func(fd int) (int, error) { return 0, unix.Shutdown(fd, unix.SHUT_WR) })
	return err
}

func (c *polledConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	c.closed = true
	c.p.mu.Lock()
	c.p.forget(c, c.fd)
	c.p.mu.Unlock()
	err := unix.Close(c.fd) // and with it the epoll entry: the descriptor is the only one of its socket
	c.wakeReader()
	signal(c.writable)
	return err
}

// wakeReader makes the owner, or Read, look again.
func (c *polledConn) wakeReader() {
	signal(c.readable)
	if c.owner.wants() {
		c.p.workers.add(c.owner)
	}
}

func (c *polledConn) LocalAddr() net.Addr  { return c.local }
func (c *polledConn) RemoteAddr() net.Addr { return c.remote }

func (c *polledConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *polledConn) SetReadDeadline(t time.Time) error {
	if setDeadline(&c.readBy, t) {
		c.ready.Store(true) // to look once more, without waiting to be told that there is something
		c.wakeReader()
	}
	return nil
}

func (c *polledConn) SetWriteDeadline(t time.Time) error {
	if setDeadline(&c.writeBy, t) {
		signal(c.writable)
	}
	return nil
}

// setDeadline returns whether t has passed.
func setDeadline(by *atomic.Int64, t time.Time) bool {
	if t.IsZero() {
		by.Store(0)
		return false
	}
	by.Store(t.UnixNano())
	return !t.After(time.Now())
}
