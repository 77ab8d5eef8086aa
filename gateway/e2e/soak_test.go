package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway/e2e/wire"
)

// soakMost bounds the gateway's memory under hostile clients: what its limits allow (64 MiB of queues, as much of retained
// messages, 1 MiB for each slow subscriber) and room for the rest.
const soakMost = 512 << 20

// An evening of hostile clients: bytes that are no MQTT, packets in every wrong order, clients that read nothing or write a
// byte at a time, and clients that come and go. The process keeps serving: a well-behaved device is never disconnected, and is
// acknowledged in a time that is reported; memory stays bounded, and when the hostile ones have gone nothing of them is left.
// SLUICE_SOAK is how long, such as 8h; 5s by default.
func TestGateway_HostileClientsLeaveItServing(t *testing.T) {
	length := 5 * time.Second
	if text := os.Getenv("SLUICE_SOAK"); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil || length <= 0 {
			t.Fatalf("SLUICE_SOAK=%q: want a duration such as 8h", text)
		}
	}
	seed := uint64(envInt(t, "SLUICE_SOAK_SEED", int(time.Now().UnixNano()%1e9)+1))
	t.Logf("%v, SLUICE_SOAK_SEED=%d", length, seed)
	g := newGateway(t, options{})
	g.start()

	good, err := wire.Dial(context.Background(), g.mqtt, wire.Connect{ClientID: "good", Clean: true, KeepAlive: 30})
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var attempts atomic.Int64
	for i, attack := range []func(context.Context, *rand.Rand, string) error{
		noise, noise, mutants, mutants, mutants, anyOrder, anyOrder, anyOrder, anyOrder, sleeper, sleeper, sleeper, dripper, dripper,
		comeAndGo, deafPublisher, deafPublisher,
	} {
		rng := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = attack(ctx, rng, g.mqtt) // being thrown out is what they are for
				attempts.Add(1)
			}
		})
	}
	stop := sync.OnceFunc(func() { cancel(); wg.Wait() })
	defer stop()

	var acks []time.Duration
	var peak int64
	for n, ends := 1, time.Now().Add(length); time.Now().Before(ends); n++ {
		began := time.Now()
		publishOn(t, good, uint16(n%60_000)+1, "lab/good/seq", reading{Seq: uint64(n), TS: began.UnixMicro()}.payload())
		if acks = append(acks, time.Since(began)); len(acks) > 1_000_000 {
			acks = slices.Delete(acks, 0, 500_000)
		}
		if n%20 == 0 {
			rss, _, err := g.proc.Memory()
			if err != nil {
				t.Fatal(err)
			}
			if peak = max(peak, rss); rss > soakMost {
				t.Fatalf("%d MiB resident, want at most %d", rss>>20, soakMost>>20)
			}
		}
		sleep(ctx, 15*time.Millisecond)
	}
	stop()
	slices.Sort(acks)
	t.Logf("%d connections of hostile clients; %d acknowledgements of a good one: median %v, 99 %% %v, longest %v; at most %d MiB resident",
		attempts.Load(), len(acks), acks[len(acks)/2], acks[len(acks)*99/100], acks[len(acks)-1], peak>>20)

	eventually(t, 20*time.Second, "only the good one is left", func() error {
		n, err := g.metric("sluice_mqtt_connections")
		if err == nil && n != 1 {
			err = fmt.Errorf("%v connections", n)
		}
		return err
	})
	g.wantMetric(0, "sluice_mqtt_panics_total")
	g.wantMetric(0, "sluice_ledger_imbalance")
	if refused, err := g.metric("sluice_mqtt_malformed_total"); err != nil || refused == 0 {
		t.Errorf("%v malformed packets counted (%v): the hostile clients were none", refused, err)
	}
	g.stop()
}

// hostile dials, runs f, and closes, in one of the ways there are.
func hostile(ctx context.Context, rng *rand.Rand, address string, f func(net.Conn) error) error {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		sleep(ctx, 50*time.Millisecond)
		return err
	}
	defer nc.Close()
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	err = f(nc)
	if rng.IntN(2) == 0 {
		_ = nc.(*net.TCPConn).SetLinger(0) // a reset
	}
	return err
}

// readFor throws away what comes, for a while.
func readFor(nc net.Conn, d time.Duration) {
	_ = nc.SetReadDeadline(time.Now().Add(d))
	_, _ = io.Copy(io.Discard, nc)
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// noise sends no MQTT at all, or a header that promises a lot.
func noise(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		b := randomBytes(rng, 1+rng.IntN(2000))
		switch rng.IntN(4) {
		case 0:
			b[0] = 0x10
		case 1:
			b = append([]byte{0x10, 0xff, 0xff, 0xff, 0x7f}, b...)
		case 2:
			b = append(soakConnect(rng), b...)
		}
		_, err := nc.Write(b)
		readFor(nc, 20*time.Millisecond)
		return err
	})
}

// soakConnect is a well-formed CONNECT with an id of a few, so that sessions are taken over.
func soakConnect(rng *rand.Rand) []byte {
	version := byte(wire.V311)
	if rng.IntN(2) == 0 {
		version = wire.V5
	}
	return wire.AppendConnect(nil, wire.Connect{
		Version: version, ClientID: fmt.Sprint("evil", rng.IntN(30)), Clean: rng.IntN(2) == 0, KeepAlive: uint16(rng.IntN(100)),
	})
}

// versionOf is the protocol level of what soakConnect made.
func versionOf(connect []byte) byte { return connect[8] }

// soakPacket is a well-formed packet of any kind.
func soakPacket(rng *rand.Rand, version byte) []byte {
	topics := []string{"lab/evil/seq", "lab/evil/plain", "a", "a/b", "cmd/evil", "$SYS/x", "$share/g/a", "ü/€", strings.Repeat("a/", 40), strings.Repeat("t", 900)}
	filters := append([]string{"#", "+/+", "lab/#", "$SYS/#", "$share/g/#", "a/#/b", ""}, topics...)
	topic, filter := topics[rng.IntN(len(topics))], filters[rng.IntN(len(filters))]
	id := uint16(rng.IntN(20))
	switch rng.IntN(10) {
	case 0:
		return wire.AppendSubscribe(nil, version, id, filter, byte(rng.IntN(3)))
	case 1:
		return wire.AppendPing(nil)
	case 2:
		if rng.IntN(20) == 0 {
			return wire.AppendDisconnect(nil)
		}
		return wire.AppendAck(nil, []byte{wire.PUBACK, wire.PUBREC, wire.PUBREL, wire.PUBCOMP}[rng.IntN(4)], id)
	case 3:
		if rng.IntN(20) == 0 {
			return soakConnect(rng)
		}
		fallthrough
	default:
		size := rng.IntN(300)
		if rng.IntN(100) == 0 {
			size = rng.IntN(300 << 10) // some beyond the limit
		}
		return wire.AppendPublish(nil, version, wire.Publish{
			Topic: topic, Payload: randomBytes(rng, size), QoS: byte(rng.IntN(3)), ID: id, Retain: rng.IntN(4) == 0, DUP: rng.IntN(8) == 0,
		})
	}
}

// mutants are packets with some bytes changed, cut or doubled.
func mutants(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		b := soakConnect(rng)
		version := versionOf(b)
		whole := len(b) * rng.IntN(2) // as often as not the session begins
		for range 1 + rng.IntN(20) {
			b = append(b, soakPacket(rng, version)...)
		}
		for range 1 + rng.IntN(4) {
			if i := whole + rng.IntN(len(b)-whole); rng.IntN(3) == 0 {
				b = slices.Delete(b, i, min(len(b), i+1+rng.IntN(4)))
			} else {
				b[i] = byte(rng.Uint32())
			}
			if len(b) <= whole {
				break
			}
		}
		_, err := nc.Write(b)
		readFor(nc, 20*time.Millisecond)
		return err
	})
}

// anyOrder sends well-formed packets in an order no client would.
func anyOrder(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		b := soakConnect(rng)
		version := versionOf(b)
		go func() { _, _ = io.Copy(io.Discard, nc) }()
		for range 1 + rng.IntN(200) {
			if _, err := nc.Write(b); err != nil {
				return err
			}
			b = soakPacket(rng, version)
		}
		return nil
	})
}

// sleeper subscribes to everything and reads nothing.
func sleeper(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		b := soakConnect(rng)
		version := versionOf(b)
		if _, err := nc.Write(wire.AppendSubscribe(b, version, 1, "#", byte(rng.IntN(3)))); err != nil {
			return err
		}
		sleep(ctx, time.Duration(rng.IntN(4000))*time.Millisecond)
		_, err := nc.Write(wire.AppendPing(nil))
		return err
	})
}

// dripper takes its time for each byte.
func dripper(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		b := soakConnect(rng)
		b = append(b, soakPacket(rng, versionOf(b))...)
		for _, one := range b[:min(len(b), 100)] {
			if _, err := nc.Write([]byte{one}); err != nil {
				return err
			}
			sleep(ctx, time.Duration(rng.IntN(30))*time.Millisecond)
		}
		return nil
	})
}

// comeAndGo connects and is gone, many times.
func comeAndGo(ctx context.Context, rng *rand.Rand, address string) error {
	var errs error
	for range 20 {
		errs = errors.Join(errs, hostile(ctx, rng, address, func(nc net.Conn) error {
			if rng.IntN(2) == 0 {
				return nil
			}
			_, err := nc.Write(soakConnect(rng))
			return err
		}))
	}
	return errs
}

// deafPublisher publishes as fast as it is let, and takes no acknowledgement.
func deafPublisher(ctx context.Context, rng *rand.Rand, address string) error {
	return hostile(ctx, rng, address, func(nc net.Conn) error {
		_ = nc.(*net.TCPConn).SetReadBuffer(4 << 10)
		b := soakConnect(rng)
		version := versionOf(b)
		for n := 1; n < 100_000; n++ {
			b = wire.AppendPublish(b, version, wire.Publish{Topic: "a/flood", Payload: make([]byte, 100), QoS: 1, ID: uint16(n%60_000) + 1})
			if len(b) > 32<<10 {
				if _, err := nc.Write(b); err != nil {
					return err
				}
				b = b[:0]
			}
		}
		return nil
	})
}
