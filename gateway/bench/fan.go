package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"sluice/gateway/e2e/wire"
)

// fanMain publishes a number of messages a second from several connections and receives them all on one, with QoS 1. Each
// carries its connection and number, so that one that is missing or comes twice shows.
func fanMain(args []string) error {
	var address string
	var rate int
	var duration time.Duration
	fs := flag.NewFlagSet("fan", flag.ContinueOnError)
	fs.StringVar(&address, "address", "", "broker")
	fs.IntVar(&rate, "rate", 50_000, "messages a second")
	fs.DurationVar(&duration, "for", 8*time.Second, "")
	if err := fs.Parse(args); err != nil {
		return err
	}
	const publishers = 10
	ctx := context.Background()
	sub, err := wire.Dial(ctx, address, wire.Connect{ClientID: "fan-subscriber", Clean: true, KeepAlive: 600})
	if err != nil {
		return err
	}
	defer sub.Close()
	if _, err := sub.Net.Write(wire.AppendSubscribe(nil, wire.V311, 1, "bench/#", 1)); err != nil {
		return err
	}
	if p, err := sub.Read(5 * time.Second); err != nil || p.Type != wire.SUBACK {
		return fmt.Errorf("subscribe: %v", err)
	}
	s := &fanSubscriber{next: make([]uint64, publishers)}
	received := make(chan error, 1) // capacity: its only sender never waits
	go func() { received <- s.run(sub) }()

	began := time.Now()
	var wg sync.WaitGroup
	var published atomic.Uint64
	errs := make([]error, publishers)
	for i := range publishers {
		wg.Go(func() {
			n, err := fanPublish(ctx, address, i, rate/publishers, duration)
			published.Add(n)
			errs[i] = err
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r := fanResult{Published: published.Load()}
	for by := time.Now().Add(10 * time.Second); s.delivered.Load() < r.Published && time.Now().Before(by); {
		time.Sleep(5 * time.Millisecond)
	}
	r.Seconds = time.Since(began).Seconds()
	_ = sub.Close()
	<-received
	r.Delivered, r.Latency = s.delivered.Load(), s.hist.latency()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// fanPublish sends rate messages a second in bursts of a few milliseconds, and waits for all acknowledgements.
func fanPublish(ctx context.Context, address string, publisher, rate int, duration time.Duration) (acked uint64, err error) {
	c, err := wire.Dial(ctx, address, wire.Connect{ClientID: fmt.Sprintf("fan-%d", publisher), Clean: true, KeepAlive: 600})
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var sent atomic.Uint64
	finished := make(chan struct{})
	failed := make(chan error, 1) // capacity: its only sender never waits
	var got atomic.Uint64
	go func() {
		for {
			p, err := c.Read(30 * time.Second)
			if err == nil && p.Type != wire.PUBACK {
				err = fmt.Errorf("want a PUBACK, got a packet of type %d", p.Type)
			}
			if err != nil {
				failed <- err
				return
			}
			n := got.Add(1)
			select {
			case <-finished:
				if n == sent.Load() {
					failed <- nil
					return
				}
			default:
			}
		}
	}()
	payload := make([]byte, 120)
	topic := fmt.Sprintf("bench/d%04d/telemetry", publisher)
	const burst = 4 * time.Millisecond
	var out []byte
	for began := time.Now(); ; {
		elapsed := time.Since(began)
		due := uint64(min(elapsed, duration).Seconds() * float64(rate))
		out = out[:0]
		now := time.Now().UnixNano()
		for n := sent.Load(); n < due; n++ {
			payload[0] = byte(publisher)
			binary.BigEndian.PutUint64(payload[1:], n)
			binary.BigEndian.PutUint64(payload[9:], uint64(now))
			out = wire.AppendPublish(out, wire.V311, wire.Publish{Topic: topic, Payload: payload, QoS: 1, ID: uint16(n%65_535) + 1})
		}
		sent.Store(due)
		if _, err := c.Net.Write(out); err != nil {
			return 0, err
		}
		if elapsed >= duration {
			break
		}
		time.Sleep(burst)
	}
	close(finished)
	// One more message makes sure that the reader looks at finished after it was closed.
	extra := wire.AppendPublish(nil, wire.V311, wire.Publish{Topic: topic, Payload: append([]byte{255}, payload[1:]...), QoS: 1, ID: uint16(sent.Add(1)%65_535) + 1})
	if _, err := c.Net.Write(extra); err != nil {
		return 0, err
	}
	err = <-failed
	return sent.Load() - 1, err
}

// fanSubscriber counts what arrives.
type fanSubscriber struct {
	next      []uint64 // by publisher: the number due next
	delivered atomic.Uint64
	hist      histogram
}

// run acknowledges and counts until the connection is closed.
func (s *fanSubscriber) run(c *wire.Conn) error {
	_ = c.Net.SetReadDeadline(time.Time{})
	in := bufio.NewReaderSize(c.Net, 64<<10)
	var acks []byte
	for {
		p, err := wire.ReadPacket(in, wire.V311)
		if err != nil {
			return err
		}
		if p.Type != wire.PUBLISH || len(p.Payload) < 17 {
			continue
		}
		acks = wire.AppendAck(acks, wire.PUBACK, p.ID)
		if from := int(p.Payload[0]); from < len(s.next) {
			if n := binary.BigEndian.Uint64(p.Payload[1:]); n >= s.next[from] {
				s.next[from] = n + 1
				s.delivered.Add(1)
				s.hist.add(time.Duration(time.Now().UnixNano() - int64(binary.BigEndian.Uint64(p.Payload[9:]))))
			}
		}
		if in.Buffered() == 0 || len(acks) > 1024 {
			if _, err := c.Net.Write(acks); err != nil {
				return err
			}
			acks = acks[:0]
		}
	}
}
