package broker

import (
	"bufio"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"
)

// BenchmarkFanOut takes messages of 120 bytes from four publishers with a window of 100 each to one QoS 1 subscriber. One
// operation is one message, published, delivered and acknowledged on both sides; clients and broker share the processors.
func BenchmarkFanOut(b *testing.B) {
	for _, kind := range []string{"clean", "kept", "away"} {
		b.Run(kind, func(b *testing.B) {
			b.ReportAllocs()
			br, _ := runKept(b, b.TempDir(), func(c *Config, o *StoreOptions) {
				o.CommitInterval = 5 * time.Millisecond
				c.Sessions = SessionLimits{QueuedMessages: 60_000}
			})
			var s *rawClient
			if kind == "clean" {
				s = dialV3(b, br, "s")
			} else {
				s = dialKept(b, br, false, "s", false)
			}
			s.filter(false, "cmd/#", 1)
			received := make(chan error, 1) // capacity 1: the result waits for us
			if kind == "away" {
				s.Close()
				eventually(b, "the subscriber is away", func() bool { return br.Stats().Sessions.Away == 1 })
				received <- nil
			} else {
				go func() { received <- s.take(b.N) }()
			}
			const publishers, window = 4, 100
			b.ResetTimer()
			sent := make(chan error, publishers)
			for i := range publishers {
				n := b.N / publishers
				if i == 0 {
					n += b.N % publishers
				}
				p := dialV3(b, br, fmt.Sprint("p", i))
				go func() { sent <- p.flood("cmd/x", n, window) }()
			}
			for range publishers {
				if err := <-sent; err != nil {
					b.Fatal(err)
				}
			}
			if err := <-received; err != nil {
				b.Fatal(err, br.Stats().SlowClosed)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			if st := br.Stats().Sessions; kind != "clean" {
				b.ReportMetric(float64(st.StoreWritten)/float64(b.N), "disk-B/op")
			}
		})
	}
}

// flood publishes n messages with QoS 1, with so many unacknowledged.
func (c *rawClient) flood(topic string, n, window int) error {
	sent, acked := 0, 0
	var batch []byte
	ack := make([]byte, 4)
	for acked < n {
		batch = batch[:0]
		for ; sent < n && sent-acked < window; sent++ {
			batch = append(batch, publishFrame(false, 1, uint16(sent%65000+1), topic, payload120)...)
		}
		if _, err := c.Write(batch); err != nil {
			return err
		}
		for first := true; first || c.in.Buffered() >= 4; first = false {
			if _, err := io.ReadFull(c.in, ack); err != nil {
				return err
			}
			acked++
		}
	}
	return nil
}

// take receives n messages and acknowledges them.
func (c *rawClient) take(n int) error {
	c.in = bufio.NewReaderSize(c.Conn, 64<<10)
	var acks []byte
	for range n {
		p, err := c.packet(10 * time.Second)
		if err != nil {
			return err
		}
		at := 2
		if p[1] >= 0x80 {
			at = 3
		}
		at += 2 + int(p[at])<<8 + int(p[at+1])
		acks = append(acks, 0x40, 2, p[at], p[at+1])
		if c.in.Buffered() == 0 || len(acks) > 400 {
			if _, err := c.Write(acks); err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
	_, err := c.Write(acks)
	return err
}

// BenchmarkOpenStore reads a store of 1,000 sessions with 50 messages each.
func BenchmarkOpenStore(b *testing.B) {
	dir := b.TempDir()
	br, stop := runKept(b, dir, nil)
	for i := range 1000 {
		c := dialKept(b, br, false, fmt.Sprint("d", i), false)
		c.filter(false, fmt.Sprintf("cmd/%d", i%10), 1)
		c.Close()
	}
	for i := range 10 {
		queueFor(b, br, fmt.Sprintf("cmd/%d", i), 0, 50)
	}
	stop()
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		st, err := OpenStore(dir+"/broker", StoreOptions{})
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if len(st.book.byID) != 1000 || st.book.queued == 0 {
			b.Fatalf("%d sessions", len(st.book.byID))
		}
		st.Close()
		b.StartTimer()
	}
}

// TestQueue_MemoryIsWhatItsBoundSays queues until the bound of all queues and looks at what that costs.
func TestQueue_MemoryIsWhatItsBoundSays(t *testing.T) {
	const bound = 8 << 20
	b, _ := runKept(t, t.TempDir(), func(c *Config, _ *StoreOptions) { c.Sessions.TotalBytes = bound })
	for i := range 4 {
		c := dialKept(t, b, false, fmt.Sprint("d", i), false)
		c.filter(false, fmt.Sprint("cmd/", i), 1)
		c.Close()
	}
	eventually(t, "the clients are away", func() bool { return b.Stats().Sessions.Away == 4 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range 4 {
		p := dialV3(t, b, "p")
		if err := p.flood(fmt.Sprint("cmd/", i), 12_000, 100); err != nil { // each queue takes 10,000 of about 220 bytes
			t.Fatal(err)
		}
		p.Close()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	s := b.Stats().Sessions
	if s.QueuedBytes > bound || s.QueuedBytes < bound-1000 || s.QueueRefused == 0 || s.QueueDropped == 0 {
		t.Fatalf("%+v", s)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 5*bound/2 {
		t.Errorf("%d bytes queued take %d of memory", s.QueuedBytes, grown)
	} else {
		t.Logf("%d bytes queued take %d of memory; the store has %d on disk", s.QueuedBytes, grown, s.StoreBytes)
	}
}
