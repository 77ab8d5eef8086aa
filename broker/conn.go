package broker

import (
	"errors"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

// conn is a client's connection. One goroutine at a time takes its turn to read and to deal with what was read: step. A plain
// PUBLISH is dealt with here, most else by mochi's packet processor, whose answers come back through Write, which never
// waits for the network. To mochi it is a net.Conn that is only written.
type conn struct {
	b        *Broker
	nc       net.Conn // TCP, TLS or WebSocket
	noWait   noWaiter // nc where writes need not wait for the peer; nil with TLS and WebSocket
	watched  watched  // nc where reads need not wait either: nobody waits for the client then; nil: a goroutine of its own does
	address  netip.Addr
	local    bool // this machine, through a loopback listener
	certUser string
	// certificate is the client's, where there is a revocation list; nil: none. Set before the first read.
	certificate *shown
	closed      chan struct{} // closed with closing
	room        chan struct{} // 1 slot: fewer acknowledgements are held; dropped when full

	turn     atomic.Int32 // see turns.go
	worker   *worker      // whose turn it is; nil with a goroutine of its own
	wantTrim atomic.Bool  // it has been idle for a while

	// Owned by the goroutine whose turn it is.
	in           []byte            // in[r:w] is unread
	shared       *[readBuffer]byte // in, when it is lent for this turn
	r, w         int
	need         int   // size of the frame that starts at r, when known
	received     int64 // Config.Clock at the last read
	lastRead     int64 // broker time at the last read
	armed        int64 // broker time of the read deadline; 0: none
	connectBy    int64 // broker time
	sawConnect   bool
	topics       topicCache
	msg          Message
	staged       []mark // acknowledgements not yet in held
	stagedFrames []byte
	tally        tally
	bucket       bucket
	notBefore    int64 // broker time at which the next message may be dealt with; 0: it has not been asked
	routed       int   // messages queued to subscribers
	session      *session
	granted      []granted // subscriptions whose retained messages are due
	existed      []bool    // of the SUBSCRIBE under way: the client had the filter
	will         *message
	aliased      map[uint16]string // topics by the client's aliases
	goodbye      bool              // the client has said so: no will
	parked       bool              // counted in Broker.parked
	lastLook     bool              // the broker drains, and this one has read for the last time
	willDelay    time.Duration
	willExpiry   uint32 // seconds; 0: never
	overQuota    []int  // of the SUBSCRIBE under way: the filters that are too many

	// Set by establish.
	clientID, username string
	keepalive          time.Duration // of silence, half a period of grace included; 0: any
	v5                 bool
	established        bool
	receiveMaximum     int // the client's; 0: none

	mu          sync.Mutex
	cl          *mqtt.Client // once it has a session
	proved      string       // the user name that was proved, "" before and for an anonymous client
	takeovers   allowance    // of the session
	idLock      *sync.Mutex  // held from takeSession to CONNACK
	previous    *conn        // the session's last connection, until CONNACK
	version     byte         // 0 before CONNECT
	connacked   bool
	pos         uint64 // the last message journalled through mochi
	epoch       uint32 // of pos
	posTime     int64  // when it was received, broker time
	stored      uint64 // the last change of the session, or message kept, that an acknowledgement has to wait for
	unwritten   int    // messages journalled through mochi whose acknowledgement it has not written yet
	held        held
	listed      bool // for release
	out         outbound
	closing     bool              // nothing more is read or queued
	aliases     map[string]uint16 // of topics, given to the client
	aliasesMost int               // the client takes
	packetMost  int               // bytes of a packet the client takes; 0: any
	lost        []uint16          // QoS 2 messages the journal lost
	ended       bool              // by us: what is queued should still reach the client

	// To be read without mu.
	heldCount atomic.Int32 // held.len()
	over      atomic.Bool  // closing
}

// tally gathers counts between two visits to the shared counters.
type tally struct {
	journalled, qos0, uncovered, refused, dropped int64
	messages, packets, bytes                      int64 // dealt with without mochi; packets: those that are no messages
}

const (
	firstBuffer = 2 << 10
	readBuffer  = 32 << 10
)

func newConn(b *Broker, nc net.Conn, address netip.Addr, local bool) *conn {
	c := &conn{b: b, nc: nc, address: address, local: local, closed: make(chan struct{}), room: make(chan struct{}, 1)}
	c.bucket.rate = b.limits.PublishRate
	c.connectBy = b.now() + int64(b.limits.ConnectTimeout)
	return c
}

// step deals with the frames that are there, then reads once more. errIdle: there is nothing to read at the moment, and the
// connection will say when there is; any other error ends it.
func (c *conn) step() error {
	err := c.take()
	c.settle()
	if err != nil {
		return err
	}
	return c.fill()
}

var errIdle = errors.New("nothing to read")

// take deals with the whole frames in the buffer.
func (c *conn) take() error {
	c.need = 0
	for c.r < c.w {
		if c.over.Load() {
			return net.ErrClosed // what follows a message that was refused must not overtake it
		}
		b := c.in[c.r:c.w]
		header, size, err := frameSize(b)
		if err != nil {
			return c.malformed()
		}
		kind := b[0] >> 4
		if !c.sawConnect && kind != typeConnect {
			c.b.count.notConnect.Add(1)
			return c.disconnect(0)
		}
		if header == 0 {
			return nil
		}
		if size > c.b.limits.PacketBytes {
			c.b.count.malformed.Add(1)
			return c.disconnect(reasonTooLarge)
		}
		if size > len(b) {
			c.need = size
			return nil
		}
		b = b[:size]
		switch kind {
		case typePublish:
			if err := c.mayPublish(); err != nil {
				return err
			}
			if !c.topicFits(b[header:]) {
				c.b.count.overLimits.Add(1)
				return c.disconnect(reasonTopicName)
			}
			if done, err := c.publish(b, header); err != nil {
				return err
			} else if done {
				c.r += size
				continue
			}
		case typeConnect:
			if !c.sawConnect {
				c.sawConnect = true
				c.r += size
				if err := c.connect(b, header); err != nil {
					return err
				}
				continue
			}
		}
		if reason := validate(b, header, c.v5); reason != 0 {
			c.b.count.malformed.Add(1)
			return c.disconnect(reason)
		}
		if c.answer(b, header) {
			c.r += size
			continue
		}
		c.settle() // what mochi answers comes after what was answered here
		c.r += size
		if err := c.dispatch(b, header); err != nil {
			return err
		}
		if subs := c.granted; len(subs) > 0 {
			c.granted = nil
			c.b.sessions.sendRetained(c, subs)
		}
	}
	return nil
}

// fill reads once from the network.
func (c *conn) fill() error {
	switch {
	case c.over.Load():
		return net.ErrClosed
	case c.established && c.b.draining.Load():
		if c.watched == nil || c.lastLook {
			return c.park()
		}
		c.lastLook = true // what has come in by now is still taken
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	switch free := len(c.in) - c.w; {
	case c.in == nil:
		c.in = make([]byte, firstBuffer)
	case free == 0 && c.r > 0 && c.need <= len(c.in), c.r > 0 && c.need > len(c.in)-c.r && c.need <= len(c.in):
		c.w = copy(c.in, c.in[c.r:c.w])
		c.r = 0
	case free == 0:
		// Doubled as the bytes come: what a header declares costs nothing until it is there.
		in := make([]byte, 2*len(c.in))
		c.w = copy(in, c.in[c.r:c.w])
		c.in, c.r = in, 0
	}
	for {
		if err := c.arm(); err != nil {
			return err
		}
		n, err := c.read(c.in[c.w:])
		if n > 0 {
			c.w += n
			c.lastRead, c.received = c.b.now(), c.b.clock()
			if c.r == 0 && c.w == len(c.in) && len(c.in) < readBuffer && c.established && c.bucket.rate == 0 {
				in := make([]byte, 2*len(c.in))
				copy(in, c.in)
				c.in = in
			}
			return nil
		}
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err = c.overdue(); err == nil {
				continue
			}
		}
		return err
	}
}

func (c *conn) read(p []byte) (int, error) {
	if c.watched != nil {
		return c.watched.readNoWait(p)
	}
	return c.nc.Read(p)
}

// arm sets the read deadline, unless the present one is less than a second off.
func (c *conn) arm() error {
	want := c.connectBy
	if c.established {
		want = 0
		if c.keepalive > 0 {
			want = c.lastRead + int64(c.keepalive)
		}
		if d := want - c.armed; want != 0 && c.armed != 0 && d >= 0 && d < int64(time.Second) {
			return nil
		}
	}
	if want == c.armed && want == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return net.ErrClosed
	}
	if c.b.draining.Load() {
		return nil // the deadline is what ended the last read
	}
	if want == 0 {
		_ = c.nc.SetReadDeadline(time.Time{})
	} else {
		_ = c.nc.SetReadDeadline(c.b.started.Add(time.Duration(want)))
	}
	c.armed = want
	return nil
}

// overdue tells what an expired read deadline means; nil: nothing, read on.
func (c *conn) overdue() error {
	if c.established && c.b.draining.Load() {
		return c.park()
	}
	c.mu.Lock()
	closing := c.closing
	c.mu.Unlock()
	switch {
	case closing:
		return net.ErrClosed
	case !c.established:
		c.b.count.connectTimeout.Add(1)
		return os.ErrDeadlineExceeded
	case c.keepalive == 0, c.b.now() < c.lastRead+int64(c.keepalive):
		c.armed = -1
		return nil
	}
	return c.disconnect(reasonKeepAlive)
}

// park counts the connection among those that no longer read, while the broker drains.
func (c *conn) park() error {
	if !c.parked {
		c.parked = true
		c.b.parked.Add(1)
	}
	if c.watched == nil {
		<-c.closed
		return net.ErrClosed
	}
	return errIdle
}

// malformed closes the connection for what no client of ours should send.
func (c *conn) malformed() error {
	c.b.count.malformed.Add(1)
	return c.disconnect(reasonMalformed)
}

// disconnect tells an MQTT 5 client why, and closes. It returns net.ErrClosed.
func (c *conn) disconnect(reason byte) error {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return net.ErrClosed
	}
	if c.version == 5 && c.connacked {
		c.out.queue = append(c.out.queue, typeDisconnect<<4, 2, reason, 0)
	}
	c.ended = true
	c.close()
	c.flush(true)
	return net.ErrClosed
}

// Close is mochi's: the session is over. What is queued goes out before the socket is closed, by finish.
func (c *conn) Close() error {
	c.mu.Lock()
	if !c.closing {
		c.close()
		c.flush(true)
		return nil
	}
	c.mu.Unlock()
	return nil
}

// close marks the connection closing and wakes whoever waits for it. c.mu is held.
func (c *conn) close() {
	if c.closing {
		return
	}
	c.closing = true
	c.over.Store(true)
	close(c.closed)
	_ = c.nc.SetReadDeadline(past)
	_ = c.nc.SetWriteDeadline(time.Now().Add(farewell))
}

// farewell is how long a closing connection may take for what is queued.
const farewell = time.Second

var past = time.Unix(1, 0)

// linger closes the socket once the client has had the chance to read what was sent last: closing with unread input
// would make the kernel throw that away.
func (c *conn) linger() {
	c.mu.Lock()
	ended := c.ended
	c.mu.Unlock()
	if half, ok := c.nc.(interface{ CloseWrite() error }); ok && ended {
		_ = half.CloseWrite()
		patience := 2 * farewell // for what a client had under way before it reads that it is refused
		if c.b.draining.Load() {
			patience = farewell / 2
		}
		_ = c.nc.SetReadDeadline(time.Now().Add(patience))
		_, _ = io.CopyN(io.Discard, c.nc, 256<<10)
	}
	_ = c.nc.Close()
}

// What follows makes it a net.Conn.

func (c *conn) Read([]byte) (int, error)         { return 0, net.ErrClosed }
func (c *conn) LocalAddr() net.Addr              { return c.nc.LocalAddr() }
func (c *conn) RemoteAddr() net.Addr             { return c.nc.RemoteAddr() }
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// bucket is a token bucket of one second's tokens.
type bucket struct {
	rate   float64 // a second; 0: no limit
	tokens float64
	last   int64 // broker time
}

// take returns how long to wait before the next message.
func (t *bucket) take(clock func() int64) time.Duration {
	if t.rate <= 0 {
		return 0
	}
	now := clock()
	if t.last == 0 {
		t.tokens = max(1, t.rate)
	} else {
		t.tokens = math.Min(max(1, t.rate), t.tokens+float64(now-t.last)/1e9*t.rate)
	}
	t.last = now
	t.tokens--
	if t.tokens >= 0 {
		return 0
	}
	return time.Duration(-t.tokens / t.rate * 1e9)
}
