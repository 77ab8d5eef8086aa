package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/gateway/e2e/wire"
)

// commander publishes numbered commands one after another, each until it is acknowledged, over as many connections as it takes.
type commander struct {
	address string
	qos     byte
	retain  bool
	topic   string
	mu      sync.Mutex
	acked   int // the last number acknowledged
}

func (c *commander) run(ctx context.Context) error {
	for number, resend := 1, false; ctx.Err() == nil; {
		conn, err := wire.Dial(ctx, c.address, wire.Connect{ClientID: "commander", KeepAlive: 60})
		if err != nil {
			sleep(ctx, 2*time.Millisecond)
			continue
		}
		for ctx.Err() == nil {
			err := c.send(conn, number, resend)
			if errors.Is(err, errBroken) {
				return err
			}
			if resend = err != nil; resend {
				break
			}
			c.mu.Lock()
			c.acked = number
			c.mu.Unlock()
			number++
		}
		conn.Close()
	}
	return nil
}

var errBroken = errors.New("the broker broke the protocol")

func (c *commander) send(conn *wire.Conn, number int, resend bool) error {
	id := uint16(number%60000 + 1)
	frame := wire.AppendPublish(nil, conn.Version, wire.Publish{
		Topic: c.topic, Payload: []byte(strconv.Itoa(number)), QoS: c.qos, ID: id, DUP: resend, Retain: c.retain,
	})
	if _, err := conn.Net.Write(frame); err != nil {
		return err
	}
	await := func(kind byte) error {
		for {
			p, err := conn.Read(5 * time.Second)
			if err != nil {
				return err
			}
			if p.Type == wire.PUBREC && kind == wire.PUBREC || p.Type == kind {
				if p.ID != id {
					if p.Type == wire.PUBREC {
						continue // left over from the connection before
					}
					return fmt.Errorf("%w: acknowledged %d, want %d", errBroken, p.ID, id)
				}
				return nil
			}
		}
	}
	if c.qos == 1 {
		return await(wire.PUBACK)
	}
	if err := await(wire.PUBREC); err != nil {
		return err
	}
	if _, err := conn.Net.Write(wire.AppendAck(nil, wire.PUBREL, id)); err != nil {
		return err
	}
	return await(wire.PUBCOMP)
}

func (c *commander) last() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// fetch connects a device with its session and takes messages until number or the end of the connection; it acknowledges what it was sent.
func fetch(ctx context.Context, address string, qos byte, until int, got *[]int, firstDup *int) error {
	conn, err := wire.Dial(ctx, address, wire.Connect{ClientID: "device", KeepAlive: 60})
	if err != nil {
		return err
	}
	defer conn.Close()
	if !conn.SessionPresent {
		return fmt.Errorf("%w: the session is gone", errBroken)
	}
	for {
		p, err := conn.Read(300 * time.Millisecond)
		if err != nil {
			return err
		}
		switch p.Type {
		case wire.PUBLISH:
			n, err := strconv.Atoi(string(p.Payload))
			if err != nil {
				return fmt.Errorf("%w: payload %q", errBroken, p.Payload)
			}
			if dup := p.Flags&8 != 0; dup && (len(*got) == 0 || n > (*got)[len(*got)-1]) {
				*firstDup++
			}
			*got = append(*got, n)
			answer := byte(wire.PUBACK)
			if qos == 2 {
				answer = wire.PUBREC
			}
			if _, err := conn.Net.Write(wire.AppendAck(nil, answer, p.ID)); err != nil {
				return err
			}
			if qos == 1 && n == until {
				return nil
			}
		case wire.PUBREL:
			if _, err := conn.Net.Write(wire.AppendAck(nil, wire.PUBCOMP, p.ID)); err != nil {
				return err
			}
			if len(*got) > 0 && (*got)[len(*got)-1] == until {
				return nil
			}
		}
	}
}

// A command to a device that is away is acknowledged only when it survives: however often the gateway is killed, the
// device gets every acknowledged command, in order, and its session, its subscription and the retained state are there.
func TestGateway_KilledKeepsCommandsForAwayDevicesInOrder(t *testing.T) {
	kills := envInt(t, "SLUICE_SESSION_KILLS", 25)
	if testing.Short() {
		kills = 5
	}
	for qos := byte(1); qos <= 2; qos++ {
		t.Run(fmt.Sprintf("qos=%d", qos), func(t *testing.T) {
			seed := uint64(time.Now().UnixNano())
			t.Logf("seed %d", seed)
			rng := rand.New(rand.NewPCG(seed, 1))
			g := newGateway(t, options{})
			g.start()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			d, err := wire.Dial(ctx, g.mqtt, wire.Connect{ClientID: "device", KeepAlive: 60})
			if err != nil {
				t.Fatal(err)
			}
			d.Net.Write(wire.AppendSubscribe(nil, wire.V311, 1, "cmd/#", qos))
			if p, err := d.Read(5 * time.Second); err != nil || p.Type != wire.SUBACK {
				t.Fatalf("SUBACK: %+v, %v", p, err)
			}
			d.Close()
			c := &commander{address: g.mqtt, qos: qos, retain: true, topic: "cmd/device"}
			ran := make(chan error, 1) // capacity 1: Run's result waits for us
			go func() { ran <- c.run(ctx) }()
			var got []int
			firstDup := 0
			for i := range kills {
				sleep(ctx, time.Duration(20+rng.IntN(150))*time.Millisecond)
				if rng.IntN(3) == 0 { // the device comes by, and the gateway may die meanwhile
					fetched := make(chan error, 1) // capacity 1: the result waits for us
					go func() { fetched <- fetch(ctx, g.mqtt, qos, -1, &got, &firstDup) }()
					sleep(ctx, time.Duration(rng.IntN(60))*time.Millisecond)
					g.proc.Kill()
					if err := <-fetched; errors.Is(err, errBroken) {
						t.Fatal(err)
					}
				} else {
					g.proc.Kill()
				}
				g.start()
				_ = i
			}
			sleep(ctx, 100*time.Millisecond)
			cancel()
			if err := <-ran; err != nil {
				t.Fatal(err)
			}
			last := c.last()
			for i := 0; i < 50 && (len(got) == 0 || got[len(got)-1] < last); i++ {
				if err := fetch(context.Background(), g.mqtt, qos, last, &got, &firstDup); errors.Is(err, errBroken) {
					t.Fatal(err)
				}
			}
			check(t, got, last)
			t.Logf("%d kills, %d commands acknowledged, %d deliveries, %d with DUP before they were seen", kills, last, len(got), firstDup)
			// The retained state is the last acknowledged one, or the one that was on its way.
			r, err := wire.Dial(context.Background(), g.mqtt, wire.Connect{ClientID: "reader", Clean: true, KeepAlive: 60})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			r.Net.Write(wire.AppendSubscribe(nil, wire.V311, 1, "cmd/+", 0))
			for {
				p, err := r.Read(5 * time.Second)
				if err != nil {
					t.Fatalf("no retained message: %v", err)
				}
				if p.Type == wire.PUBLISH {
					if n, _ := strconv.Atoi(string(p.Payload)); n != last && n != last+1 {
						t.Errorf("retained command %d, want %d", n, last)
					}
					break
				}
			}
		})
	}
}

// check wants every number up to last, the first arrivals in order. A number may come again, and then those after it.
func check(t *testing.T, got []int, last int) {
	t.Helper()
	highest := 0
	for i, n := range got {
		if n > highest+1 {
			t.Fatalf("delivery %d is command %d after %d: what is between was lost", i, n, highest)
		}
		highest = max(highest, n)
	}
	if highest < last {
		t.Fatalf("the last command delivered is %d, acknowledged was %d", highest, last)
	}
}

// The same with programs from elsewhere.
func TestGateway_MosquittoSubFindsItsSessionAfterAKill(t *testing.T) {
	needProgram(t, "mosquitto_sub")
	needProgram(t, "mosquitto_pub")
	g := newGateway(t, options{})
	g.start()
	host, port := splitAddress(g.mqtt)
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, append([]string{"-h", host, "-p", port}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
	for _, version := range []string{"mqttv311", "mqttv5"} {
		expiry := []string{}
		if version == "mqttv5" {
			expiry = []string{"-x", "3600"}
		}
		sub := append([]string{"-V", version, "-c", "-i", "dev-" + version, "-q", "1", "-t", "cmd/" + version}, expiry...)
		run("mosquitto_sub", append(sub, "-E")...) // leaves once it is subscribed
		var want strings.Builder
		for i := range 20 {
			fmt.Fprintln(&want, i)
			run("mosquitto_pub", "-q", "1", "-t", "cmd/"+version, "-m", strconv.Itoa(i))
		}
		run("mosquitto_pub", "-q", "1", "-r", "-t", "state/"+version, "-m", "on")
		g.proc.Kill()
		g.start()
		if got := run("mosquitto_sub", append(sub, "-C", "20", "-W", "10")...); got != want.String() {
			t.Errorf("%s: received\n%s", version, got)
		}
		if got := run("mosquitto_sub", "-t", "state/"+version, "-C", "1", "-W", "10"); got != "on\n" {
			t.Errorf("%s: retained %q", version, got)
		}
	}
}
