package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"sluice/gateway/e2e/oracle"
	"sluice/gateway/e2e/wire"
)

// kind is how a device of the fleet speaks.
type kind struct {
	name    string
	topic   string // last level
	qos     byte
	version byte
	resend  wire.Resend
}

var (
	sequencedSameSession = kind{"seq-dup", "seq", 1, wire.V311, wire.SameSession}
	sequencedFresh       = kind{"seq-fresh", "seq", 1, wire.V5, wire.FreshSession}
	sequencedV5          = kind{"seq5-dup", "seq", 1, wire.V5, wire.SameSession}
	sequencedQoS2        = kind{"seq-qos2", "seq", 2, wire.V311, wire.SameSession}
	plainSameSession     = kind{"plain-dup", "plain", 1, wire.V311, wire.SameSession}
)

// fleet is a set of publishing devices and all they ever offered. Each device's signal stays on one side of hotRule's
// threshold for a while, then on the other, so that its alert fires and resolves a known number of times.
type fleet struct {
	g       *gateway
	rng     *rand.Rand
	devices []*device
	stop    context.CancelFunc
	done    sync.WaitGroup
	failed  chan error // capacity: one for each device
}

type device struct {
	wire.Device
	name     string
	topic    string
	seq      uint64
	lastTS   int64
	hot      bool
	until    time.Time // when the signal changes side
	flips    []bool    // each change of side, in order; true is hot
	readings []oracle.Reading
}

func newFleet(g *gateway, seed uint64) *fleet {
	return &fleet{g: g, rng: rand.New(rand.NewPCG(seed, 0x5eed))}
}

func (f *fleet) add(n int, k kind) {
	for range n {
		name := fmt.Sprintf("%s-%d", k.name, len(f.devices))
		f.devices = append(f.devices, &device{name: name, topic: "lab/" + name + "/" + k.topic, Device: wire.Device{
			Address: f.g.mqtt, QoS: k.qos, Window: 20, Resend: k.resend,
			Connect: wire.Connect{ClientID: name, Version: k.version, KeepAlive: 60}}})
	}
}

// run starts the devices; they reconnect and resend until finish, or the test's end.
func (f *fleet) run(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	f.failed = make(chan error, len(f.devices))
	for _, d := range f.devices {
		f.done.Go(func() {
			if err := d.Run(ctx); err != nil {
				f.failed <- err
			}
		})
	}
	t.Cleanup(f.end)
}

func (f *fleet) end() {
	f.stop()
	f.done.Wait()
}

// publish offers readings for a while, about 200 messages a second and device, at most 400 waiting.
func (f *fleet) publish(t *testing.T, during time.Duration) {
	t.Helper()
	for end := time.Now().Add(during); ; {
		for _, d := range f.devices {
			if d.Pending() < 400 {
				d.offer(f.rng)
			}
		}
		select {
		case err := <-f.failed:
			t.Fatalf("protocol violation: %v", err)
		default:
		}
		left := time.Until(end)
		if left <= 0 {
			return
		}
		time.Sleep(min(left, 5*time.Millisecond)) // the pace of the load, not a wait for something
	}
}

func (d *device) offer(rng *rand.Rand) {
	now := time.Now()
	if now.After(d.until) {
		if d.seq > 0 {
			d.hot = !d.hot
			d.flips = append(d.flips, d.hot)
		}
		d.until = now.Add(time.Duration(1000+rng.IntN(2000)) * time.Millisecond)
	}
	base := 20.0
	if d.hot {
		base = 70
	}
	d.send(now, reading{Temperature: base + 10*rng.Float64(), Humidity: 100 * rng.Float64(), Vibration: rng.NormFloat64()})
}

func (d *device) send(now time.Time, r reading) {
	d.seq++
	d.lastTS = max(d.lastTS+1, now.UnixMicro())
	r.Seq, r.TS = d.seq, d.lastTS
	d.readings = append(d.readings, oracleReadings(d.name, r)...)
	d.Offer(&wire.Message{Topic: d.topic, Payload: r.payload()})
}

// finish cools every device, waits until all they offered is acknowledged, stops them and returns every reading: from here
// on each of them must be counted exactly once.
func (f *fleet) finish(t *testing.T, timeout time.Duration) []oracle.Reading {
	t.Helper()
	for _, d := range f.devices {
		if d.hot {
			d.hot = false
			d.flips = append(d.flips, false)
		}
		d.send(time.Now(), reading{Temperature: 20, Humidity: 50, Vibration: 0})
	}
	eventually(t, timeout, "all messages acknowledged", func() error {
		select {
		case err := <-f.failed:
			t.Fatalf("protocol violation: %v", err)
		default:
		}
		for _, d := range f.devices {
			if n := d.Pending(); n > 0 {
				return fmt.Errorf("%s waits for %d acknowledgements after %d", d.name, n, d.Acked())
			}
		}
		return nil
	})
	f.end()
	var all []oracle.Reading
	for _, d := range f.devices {
		all = append(all, d.readings...)
	}
	return all
}

// acked counts complete messages.
func (f *fleet) acked() (n int) {
	for _, d := range f.devices {
		n += d.Acked()
	}
	return n
}
