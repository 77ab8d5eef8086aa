package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/proc"
	"sluice/gateway/e2e/wire"
)

// A journalled topic is still a topic: local programs that subscribe get every message, in order, once.
func TestGateway_MosquittoSubReceivesEveryMessageInOrder(t *testing.T) {
	needProgram(t, "mosquitto_sub")
	g := newGateway(t, options{})
	g.start()
	host, port := splitAddress(g.mqtt)
	const messages = 2000
	var subs []*proc.Proc
	for _, version := range []string{"mqttv311", "mqttv5"} {
		// stdbuf: it buffers what goes into a pipe. -d makes it say when its subscription stands; -C ends it after that many messages.
		p, err := proc.Start("mosquitto_sub "+version, nil, "stdbuf", "-oL", "mosquitto_sub", "-d", "-h", host, "-p", port, "-V", version, "-q", "1",
			"-t", "lab/+/seq", "-C", fmt.Sprint(messages), "-F", "got %p")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.Kill)
		eventually(t, 10*time.Second, p.Name+" is subscribed", func() error {
			if !strings.Contains(p.Log.String(), "Subscribed") {
				return fmt.Errorf("it says: %s", p.Log)
			}
			return nil
		})
		subs = append(subs, p)
	}
	d := &wire.Device{Address: g.mqtt, QoS: 1, Window: 20, Connect: wire.Connect{ClientID: "pub", KeepAlive: 60}}
	var want strings.Builder
	for i := range messages {
		payload := reading{Seq: uint64(i + 1), TS: time.Now().UnixMicro() + int64(i), Temperature: 20}.payload()
		fmt.Fprintf(&want, "got %s\n", payload)
		d.Offer(&wire.Message{Topic: "lab/pub/seq", Payload: payload})
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1) // capacity 1: Run's result waits for us
	go func() { ran <- d.Run(ctx) }()
	for _, p := range subs {
		if code, err := p.Wait(30 * time.Second); err != nil || code != 0 {
			t.Errorf("%s: exit code %d, %v; %d of %d messages", p.Name, code, err, strings.Count(p.Log.String(), "got {"), messages)
			continue
		}
		var got strings.Builder
		for line := range strings.Lines(p.Log.String()) {
			if strings.HasPrefix(line, "got ") {
				got.WriteString(line)
			}
		}
		if got.String() != want.String() {
			t.Errorf("%s: received other messages, or in another order, than were published", p.Name)
		}
	}
	eventually(t, 10*time.Second, "all acknowledged", func() error {
		if n := d.Pending(); n > 0 {
			return fmt.Errorf("%d pending", n)
		}
		return nil
	})
	cancel()
	if err := <-ran; err != nil {
		t.Error(err)
	}
	g.wantMetric(3*messages, "sluice_readings_total", `outcome="accepted"`)
	g.stop()
}
