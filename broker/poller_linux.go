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

// poller watches plain TCP connections for a broker whose journal gathers messages for a while before a commit. The
// runtime's own poller wakes the process for every packet that comes in; at a few thousand a second over many connections
// that costs more than the packets. This one, while there is traffic, looks after each commit, or at a fixed pace, and then
// serves all that is there in one go; when there is none it waits like any other. What a message loses by it, it would have spent waiting for
// its commit.
type poller struct {
	epoll int
	pace  time.Duration // between two looks, at most
	stop  chan struct{} // closed by close
	tick  chan struct{} // 1 slot: acknowledgements were just released; dropped when full
	done  chan struct{} // closed when run has ended

	mu    sync.Mutex
	conns map[int]*polledConn // by file descriptor
}

// busyEvents within a pace make gathering worth its delay; below, at most about a thousand a second, each is served at once.
const busyEvents = 8

// sweepInterval is how late a deadline may be noticed.
const sweepInterval = 100 * time.Millisecond

func newPoller(pace time.Duration) (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{epoll: fd, pace: pace, stop: make(chan struct{}), tick: make(chan struct{}, 1), done: make(chan struct{}), conns: map[int]*polledConn{}}, nil
}

// run watches until close is called.
func (p *poller) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 512)
	ready := make([]*polledConn, len(events))
	timer := time.NewTimer(p.pace)
	defer timer.Stop()
	swept, busy := time.Now(), false
	counted, seen := swept, 0
	for {
		select {
		case <-p.stop:
			return
		default:
		}
		wait := int(sweepInterval / time.Millisecond)
		if busy {
			timer.Reset(p.pace)
			select {
			case <-p.tick:
			case <-timer.C:
			}
			wait = 0
		}
		n, err := unix.EpollWait(p.epoll, events, wait)
		if err != nil && err != unix.EINTR {
			time.Sleep(p.pace) // cannot happen; if it does, not in a tight loop
		}
		n = max(n, 0)
		if events, now := seen+n, time.Now(); now.Sub(counted) >= p.pace {
			busy, seen, counted = events >= busyEvents, 0, now
		} else {
			seen = events
		}
		p.mu.Lock()
		for i, e := range events[:n] {
			ready[i] = p.conns[int(e.Fd)]
		}
		p.mu.Unlock()
		// The goroutine woken last is the first to run: so that is the one whose bytes came first.
		for i := 1; i <= n; i++ {
			if c := ready[i%n]; c != nil {
				c.happened(events[i%n].Events)
			}
		}
		clear(ready[:n])
		if n > 0 && !busy {
			runtime.Gosched() // the next wait is a system call: who was woken here should not stay behind it
		}
		if now := time.Now(); now.Sub(swept) >= sweepInterval {
			swept = now
			p.sweep(now)
		}
	}
}

// sweep wakes those whose deadline has passed.
func (p *poller) sweep(now time.Time) {
	t := now.UnixNano()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		if by := c.readBy.Load(); by != 0 && by <= t {
			signal(c.readable)
		}
		if by := c.writeBy.Load(); by != 0 && by <= t {
			signal(c.writable)
		}
	}
}

// look makes run look now, if there is traffic: acknowledgements were just released, so the process is awake.
func (p *poller) look() { signal(p.tick) }

// close ends run and waits for it. The connections are closed already.
func (p *poller) close() {
	close(p.stop)
	<-p.done
	_ = unix.Close(p.epoll)
}

// adopt takes nc's socket away from the runtime's poller. nc is closed, whatever happens.
func (p *poller) adopt(nc net.Conn) (net.Conn, error) {
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
	c := &polledConn{p: p, fd: fd, local: nc.LocalAddr(), remote: nc.RemoteAddr(),
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1)}
	c.ready.Store(true)
	p.mu.Lock()
	p.conns[fd] = c
	p.mu.Unlock()
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET, Fd: int32(fd)}
	if err := unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		_ = c.Close()
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return c, nil
}

// polledConn is a TCP connection watched by a poller. One goroutine may read and one may write.
type polledConn struct {
	p             *poller
	local, remote net.Addr

	mu     sync.RWMutex // held for writing to close fd, for reading around each use of it
	fd     int
	closed bool

	readable, writable chan struct{} // 1 slot: look again; dropped when full
	ready              atomic.Bool   // there may be something to read: an edge came since the last read began
	ended              atomic.Bool   // the peer will send no more, so that a short read does not mean there is nothing left
	readBy, writeBy    atomic.Int64  // deadlines, ns since the Unix epoch; 0: none
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// happened takes the poller's edges.
func (c *polledConn) happened(events uint32) {
	if events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.ended.Store(true)
	}
	if events&^uint32(unix.EPOLLOUT) != 0 {
		c.ready.Store(true)
		signal(c.readable)
	}
	if events&^uint32(unix.EPOLLIN) != 0 {
		signal(c.writable)
	}
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

func (c *polledConn) Read(p []byte) (int, error) {
	for {
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
		c.mu.RLock()
		closed := c.closed
		c.mu.RUnlock()
		if closed {
			return 0, net.ErrClosed
		}
		if expired(&c.readBy) {
			return 0, os.ErrDeadlineExceeded
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
			return written, err
		}
		if expired(&c.writeBy) {
			return written, os.ErrDeadlineExceeded
		}
		if n == 0 {
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
	delete(c.p.conns, c.fd)
	c.p.mu.Unlock()
	err := unix.Close(c.fd) // and with it the epoll entry: the descriptor is the only one of its socket
	signal(c.readable)
	signal(c.writable)
	return err
}

func (c *polledConn) LocalAddr() net.Addr  { return c.local }
func (c *polledConn) RemoteAddr() net.Addr { return c.remote }

func (c *polledConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *polledConn) SetReadDeadline(t time.Time) error {
	setDeadline(&c.readBy, t, c.readable)
	return nil
}

func (c *polledConn) SetWriteDeadline(t time.Time) error {
	setDeadline(&c.writeBy, t, c.writable)
	return nil
}

func setDeadline(by *atomic.Int64, t time.Time, wake chan struct{}) {
	if t.IsZero() {
		by.Store(0)
		return
	}
	by.Store(t.UnixNano())
	if !t.After(time.Now()) {
		signal(wake)
	}
}
