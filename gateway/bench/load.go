package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/e2e/wire"
)

// load is one run of the generator. It runs as a process of its own, so that neither its CPU nor its garbage collector is
// counted on anybody, and prints "begin" and "end" around the measured time, then its result as JSON.
type load struct {
	Address     string
	Connections int
	Window      int // messages in flight a connection, when Rate is 0
	Devices     int
	Rate        int // messages a second over all connections, evenly spaced, one write each; 0: as fast as acknowledged
	Warmup      time.Duration
	Measure     time.Duration
}

// loadResult covers the measured time only, except Total.
type loadResult struct {
	Total   uint64  `json:"total"` // acknowledged over the whole run, warm-up included
	Acked   uint64  `json:"acked"`
	Seconds float64 `json:"seconds"`
	Ack     latency `json:"ack"`
	CPU     float64 `json:"generator_cpu_seconds"`
	Late    millis  `json:"late_ms"` // how far the generator fell behind its pace at worst
}

func (l *load) flags(fs *flag.FlagSet) {
	fs.StringVar(&l.Address, "address", "", "broker")
	fs.IntVar(&l.Connections, "connections", 20, "")
	fs.IntVar(&l.Window, "window", 100, "messages in flight a connection")
	fs.IntVar(&l.Devices, "devices", 20, "")
	fs.IntVar(&l.Rate, "rate", 0, "messages a second, 0: flat out")
	fs.DurationVar(&l.Warmup, "warmup", 2*time.Second, "")
	fs.DurationVar(&l.Measure, "measure", 8*time.Second, "")
}

func (l *load) args() []string {
	return []string{"load", "-address", l.Address, "-connections", strconv.Itoa(l.Connections), "-window", strconv.Itoa(l.Window),
		"-devices", strconv.Itoa(l.Devices), "-rate", strconv.Itoa(l.Rate), "-warmup", l.Warmup.String(), "-measure", l.Measure.String()}
}

// frame is a pre-encoded PUBLISH; the packet id and the digits of its time are overwritten in place for each message.
type frame struct {
	bytes []byte
	id    int // offset of the packet id
	ts    int // offset of 13 digits, ms since the epoch
	vary  int // offset of two digits of the temperature
}

// newFrame encodes a device's message: 120 bytes of JSON with a time and three numbers.
func newFrame(device int) frame {
	const ts = "1700000000000"
	payload := fmt.Sprintf(`{"ts":%s,"temperature":21.%02d,"humidity":%02d.25,"vibration":0.1%02d,"status":"`, ts, device%100, 40+device%50, device%100)
	for len(payload) < 118 {
		payload += "k"
	}
	payload += `"}`
	topic := fmt.Sprintf("bench/d%04d/telemetry", device)
	b := wire.AppendPublish(nil, wire.V311, wire.Publish{Topic: topic, Payload: []byte(payload), ID: 1, QoS: 1})
	start := len(b) - len(payload)
	return frame{bytes: b, id: start - 2, ts: start + len(`{"ts":`), vary: start + len(`{"ts":`+ts+`,"temperature":21.`)}
}

// stamp makes the frame the n-th message of its connection.
func (f *frame) stamp(n uint32, now time.Time) uint16 {
	id := uint16(n%65_535) + 1
	binary.BigEndian.PutUint16(f.bytes[f.id:], id)
	ms := now.UnixMilli()
	for i := 12; i >= 0; i-- {
		f.bytes[f.ts+i] = byte('0' + ms%10)
		ms /= 10
	}
	f.bytes[f.vary], f.bytes[f.vary+1] = byte('0'+n/10%10), byte('0'+n%10)
	return id
}

// connection is one client of the generator.
type connection struct {
	net    net.Conn
	frames []frame
	sent   uint32
	sentAt [65_536]int64 // ns, by packet id
	acked  atomic.Uint64
	in     [16 << 10]byte
	have   int       // bytes of in
	hist   histogram // of the measured time
}

// run generates the load and returns what was acknowledged in the measured time.
func (l *load) run(ctx context.Context, progress io.Writer) (*loadResult, error) {
	conns := make([]*connection, l.Connections)
	for i := range conns {
		c, err := wire.Dial(ctx, l.Address, wire.Connect{ClientID: fmt.Sprintf("bench-%d-%d", os.Getpid(), i), Clean: true, KeepAlive: 600})
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		defer c.Close()
		conns[i] = &connection{net: c.Net}
		for d := i; d < max(l.Devices, l.Connections); d += l.Connections {
			conns[i].frames = append(conns[i].frames, newFrame(d))
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var measuring atomic.Bool
	var wg sync.WaitGroup
	failures := make(chan error, len(conns)+1) // capacity: one for each goroutine below
	stop := context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.net.SetDeadline(time.Now())
		}
	})
	defer stop()
	var late time.Duration
	if l.Rate > 0 {
		wg.Go(func() {
			var err error
			late, err = pace(ctx, conns, l.Rate, &measuring)
			failures <- err
		})
	} else {
		for _, c := range conns {
			wg.Go(func() { failures <- c.flatOut(l.Window, &measuring) })
		}
	}
	wait := func(d time.Duration) error {
		select {
		case err := <-failures:
			return err
		case <-time.After(d):
			return nil
		}
	}
	total := func() (n uint64) {
		for _, c := range conns {
			n += c.acked.Load()
		}
		return n
	}
	if err := wait(l.Warmup); err != nil {
		return nil, err
	}
	measuring.Store(true)
	fmt.Fprintln(progress, "begin")
	began, before := time.Now(), total()
	if err := wait(l.Measure); err != nil {
		return nil, err
	}
	r := &loadResult{Acked: total() - before, Seconds: time.Since(began).Seconds()}
	fmt.Fprintln(progress, "end")
	cancel()
	wg.Wait()
	r.Total = total()
	var h histogram
	for _, c := range conns {
		h.merge(&c.hist)
	}
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return nil, err
	}
	r.Ack, r.Late = h.latency(), millis(late)
	r.CPU = float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
	return r, nil
}

// flatOut fills the window, then sends a new message for each PUBACK, until the deadline set at the end.
func (c *connection) flatOut(window int, measuring *atomic.Bool) error {
	out := c.append(nil, window)
	for {
		if _, err := c.net.Write(out); err != nil {
			return ended(err)
		}
		n, err := c.net.Read(c.in[c.have:])
		if err != nil {
			return ended(err)
		}
		acks, err := c.take(n, measuring.Load())
		if err != nil {
			return err
		}
		out = c.append(out[:0], acks)
	}
}

// take counts the PUBACKs among what stands in the buffer after n more bytes came in.
func (c *connection) take(n int, measure bool) (acks int, err error) {
	c.have += n
	now := time.Now().UnixNano()
	used := 0
	for ; c.have-used >= 4; used += 4 {
		if c.in[used] != wire.PUBACK<<4 || c.in[used+1] != 2 {
			return acks, fmt.Errorf("want a PUBACK, got % x", c.in[used:min(c.have, used+8)])
		}
		if measure {
			c.hist.add(time.Duration(now - c.sentAt[binary.BigEndian.Uint16(c.in[used+2:])]))
		}
		acks++
	}
	c.have = copy(c.in[:], c.in[used:c.have])
	c.acked.Add(uint64(acks))
	return acks, nil
}

func (c *connection) append(out []byte, messages int) []byte {
	now := time.Now()
	for range messages {
		f := &c.frames[int(c.sent)%len(c.frames)]
		c.sentAt[f.stamp(c.sent, now)] = now.UnixNano()
		c.sent++
		out = append(out, f.bytes...)
	}
	return out
}

// pace sends one message a slot, each with a write of its own, over the connections in turn, and reads what comes back
// between the slots. It is one loop on one OS thread around ppoll: the timers of the Go runtime round to a millisecond, and
// waking a goroutine for each acknowledgement would cost more than the server under test.
func pace(ctx context.Context, conns []*connection, rate int, measuring *atomic.Bool) (late time.Duration, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) // 1 ns instead of 50 µs; without it the pace is only less even
	fds := make([]unix.PollFd, len(conns))
	for i, c := range conns {
		f, err := c.net.(*net.TCPConn).File()
		if err != nil {
			return 0, err
		}
		defer f.Close()
		if err := unix.SetNonblock(int(f.Fd()), true); err != nil {
			return 0, err
		}
		fds[i] = unix.PollFd{Fd: int32(f.Fd()), Events: unix.POLLIN}
	}
	interval := time.Second / time.Duration(rate)
	next := time.Now()
	var out []byte
	for i := 0; ctx.Err() == nil; {
		ahead := time.Until(next)
		if ahead <= 0 {
			if measuring.Load() {
				late = max(late, -ahead)
			}
			c := conns[i%len(conns)]
			if uint64(c.sent)-c.acked.Load() > 60_000 {
				return late, errors.New("60,000 messages unacknowledged on one connection: the broker does not keep up")
			}
			out = c.append(out[:0], 1)
			if err := writeAll(int(fds[i%len(conns)].Fd), out); err != nil {
				return late, err
			}
			next = next.Add(interval)
			i++
			ahead = max(time.Until(next), 0)
		}
		ts := unix.NsecToTimespec(int64(ahead))
		ready, err := unix.Ppoll(fds, &ts, nil)
		if err != nil && err != unix.EINTR {
			return late, fmt.Errorf("ppoll: %w", err)
		}
		for j := 0; ready > 0 && j < len(fds); j++ {
			if fds[j].Revents == 0 {
				continue
			}
			ready--
			n, err := unix.Read(int(fds[j].Fd), conns[j].in[conns[j].have:])
			if err == unix.EAGAIN || err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				return late, fmt.Errorf("connection %d ended: %v", j, err)
			}
			if _, err := conns[j].take(n, measuring.Load()); err != nil {
				return late, err
			}
		}
	}
	return late, nil
}

// writeAll waits for room in the socket where it must: then the server holds the generator back, which shows in its lateness.
func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EAGAIN:
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 1000); err != nil && err != unix.EINTR {
				return err
			}
		case unix.EINTR:
		default:
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// ended turns the deadline that ends a run into success.
func ended(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}

// loadMain is the generator process.
func loadMain(args []string) error {
	var l load
	fs := flag.NewFlagSet("load", flag.ContinueOnError)
	l.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	r, err := l.run(context.Background(), os.Stdout)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}
