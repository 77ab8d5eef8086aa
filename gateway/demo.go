package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"sluice/firmware-sim/sim"
	"sluice/gateway/config"
)

// demoConfig is the demo's sluice.yaml; %s in order: data directory, MQTT address, webhook URL, cloud URL, HTTP address.
const demoConfig = `
gateway: { id: demo, data_dir: %q, labels: { site: plant-1 } }
mqtt: { listeners: [ { address: %q } ] }
sources:
  - name: telemetry
    topic: "sites/+/devices/{device}/telemetry"
    time: { field: ts, unit: ms }
    sequence: seq
    labels: [line]
    send: both
    window: 5s
    grace: 1s
    expect: { units: { temperature: "°C", humidity: "%%", vibration: "mm/s", power: "W", speed: "1/min", wind: "m/s" } }
rules: { files: ["demo-rules.yaml"] }
webhooks:
  - { name: ops, url: %q, allow: ["127.0.0.0/8"] }
uplink:
  destinations:
    - { name: cloud, type: influxdb, url: %q, org: demo, bucket: edge }
http: { address: %q }
`

// demoRules fire on what the simulated freezers do when the demo breaks one.
const demoRules = `
groups:
  - name: demo
    rules:
      - alert: FreezerWarm
        match: { device: "freezer-*" }
        expr: temperature > -10
        clear: temperature < -14
        for: 3s
        labels: { severity: critical }
        annotations: { summary: "{{ $labels.device }} at {{ $value }} °C" }
      - alert: StrongVibration
        match: { device: "pump-*" }
        expr: vibration > 9
        clear: vibration < 6
        labels: { severity: warning }
        annotations: { summary: "{{ $labels.device }} shakes at {{ $value }} mm/s" }
      - alert: DeviceSilent
        absent: { metric: temperature, after: 5s }
        labels: { severity: warning }
        annotations: { summary: "{{ $labels.device }} has said nothing for more than 5 s" }
`

// runDemo shows the main job in one process: simulated devices publish and misbehave, the link to the cloud goes down and comes back,
// by a script or as the visitor likes. It ends with ctx, or after o.For, and removes what it wrote.
func runDemo(ctx context.Context, o demoOptions) (err error) {
	dir := o.DataDir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "sluice-demo-"); err != nil {
			return fmt.Errorf("demo: %w", err)
		}
		defer os.RemoveAll(dir)
	}
	logFile, err := os.OpenFile(filepath.Join(dir, "demo.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer logFile.Close()
	if o.For > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.For)
		defer cancel()
	}
	cloud, err := newStandInCloud()
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	fleet, err := newDemoFleet(o)
	if err != nil {
		return err
	}
	stage := newDemoStage(cloud, fleet, !o.NoFaults)
	g, err := openDemoGateway(dir, o, stage, newLogger(logFile))
	if err != nil {
		return err
	}
	return demoRun(ctx, o, g, stage)
}

func openDemoGateway(dir string, o demoOptions, stage *demoStage, log *slog.Logger) (*gateway, error) {
	cloudURL := stage.cloud.url()
	if err := os.WriteFile(filepath.Join(dir, "demo-rules.yaml"), []byte(demoRules), 0o600); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	text := fmt.Sprintf(demoConfig, filepath.Join(dir, "data"), o.MQTT, cloudURL+"/hook", cloudURL, o.HTTP)
	path := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return openStaged(cfg, log, stage)
}

// newDemoFleet are the devices; their faults wait to be switched on.
func newDemoFleet(o demoOptions) (*sim.Fleet, error) {
	c := sim.Defaults()
	c.Server = "tcp://" + o.MQTT
	c.ClientIDPrefix = "demo"
	c.Devices, c.Rate = o.Devices, o.Rate
	c.Connections = min(o.Devices, 20)
	c.StopDrain = 2 * time.Second
	if !o.NoFaults {
		c.Faults = []sim.Fault{
			{Kind: "duplicate", Probability: 0.02},
			{Kind: "out_of_order", Probability: 0.05},
			{Kind: "malformed", Probability: 0.01},
		}
	}
	for i := range demoFaults {
		c.Faults = append(c.Faults, demoFaults[i].Fault)
	}
	fleet, err := sim.New(c)
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return fleet, nil
}

func demoRun(ctx context.Context, o demoOptions, g *gateway, stage *demoStage) error {
	cloud, fleet := stage.cloud, stage.fleet
	// The devices stop first, the far side last, so that what was acknowledged can still arrive.
	devices, stopDevices := context.WithCancel(ctx)
	defer stopDevices()
	gatewayCtx, stopGateway := context.WithCancel(context.Background())
	defer stopGateway()
	cloudCtx, stopCloud := context.WithCancel(context.Background())
	defer stopCloud()

	var parts, far errgroup.Group
	far.Go(func() error { return cloud.Run(cloudCtx) })
	ended := make(chan struct{})
	parts.Go(func() error { defer close(ended); return g.run(gatewayCtx) })
	if err := demoAwait(ctx, g, ended); err != nil {
		stopGateway()
		stopCloud()
		return errors.Join(parts.Wait(), err)
	}
	fmt.Fprintf(o.Out, "sluice demo: %d simulated devices, a stand-in cloud and a webhook receiver in this process.\n", o.Devices)
	fmt.Fprintf(o.Out, "  dashboard     http://%s/\n", g.console.Addr())
	fmt.Fprintf(o.Out, "  MQTT          %s, try: mosquitto_pub -p %s -q 1 -t sites/plant-1/devices/mine/telemetry -m '{\"temperature\":21.5}'\n",
		o.MQTT, portOf(o.MQTT))
	if o.NoFaults {
		fmt.Fprintf(o.Out, "  link, faults  as they should be, until you switch them on the dashboard\n\n")
	} else {
		fmt.Fprintf(o.Out, "  every minute  the link to the cloud is down from second %.0f to %.0f, and devices misbehave;\n", demoFrom.Seconds(), demoTo.Seconds())
		fmt.Fprintf(o.Out, "                the switches on the dashboard take over\n\n")
	}

	var fleetRun errgroup.Group
	fleetRun.Go(func() error { return fleet.Run(devices) })
	demoShow(ctx, o, g, stage, ended)

	stopDevices()
	ferr := fleetRun.Wait()
	if errors.Is(ferr, context.Canceled) || errors.Is(ferr, context.DeadlineExceeded) {
		ferr = nil
	}
	stage.restore()
	demoDrain(g, ended)
	stopGateway()
	err := errors.Join(parts.Wait(), ferr)
	stopCloud()
	err = errors.Join(err, far.Wait())
	demoSummary(o.Out, g, cloud, fleet)
	return err
}

func portOf(address string) string {
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return "1883"
	}
	return port
}

func demoAwait(ctx context.Context, g *gateway, ended <-chan struct{}) error {
	t := time.NewTicker(2 * time.Millisecond)
	defer t.Stop()
	for !g.ready.Load() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ended:
			return errors.New("demo: the gateway did not start")
		case <-t.C:
		}
	}
	return nil
}

// demoShow prints one line a second, on a terminal in place, and plays the demo's script.
func demoShow(ctx context.Context, o demoOptions, g *gateway, stage *demoStage, ended <-chan struct{}) {
	cloud, fleet := stage.cloud, stage.fleet
	live := false
	if f, ok := o.Out.(*os.File); ok {
		live = term.IsTerminal(int(f.Fd()))
	}
	said := ""
	stage.begin(func() {
		for _, f := range g.forwarders {
			f.Retry()
		}
	})
	t := time.NewTicker(time.Second)
	defer t.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			if live {
				fmt.Fprintln(o.Out)
			}
			return
		case <-ended:
			return
		case <-t.C:
		}
		stage.play(time.Now())
		_, _, _, last := cloud.figures()
		line := demoLine(g, cloud, fleet)
		switch {
		case live:
			if last != said {
				fmt.Fprintf(o.Out, "\r\033[K  webhook: %s\n", last)
			}
			fmt.Fprintf(o.Out, "\r\033[K%s", line)
		case last != said:
			fmt.Fprintf(o.Out, "  webhook: %s\n", last)
			fallthrough
		default:
			if n%5 == 0 {
				fmt.Fprintln(o.Out, line)
			}
		}
		said = last
	}
}

func demoLine(g *gateway, cloud *standInCloud, fleet *sim.Fleet) string {
	s, f := g.Status(), fleet.Stats()
	points, _, _, _ := cloud.figures()
	link := "up"
	if cloud.cut.Load() {
		link = "DOWN"
	}
	var pending uint64
	for _, d := range s.Destinations {
		pending += d.Pending
	}
	firing := 0
	for _, a := range s.Alerts {
		if a.State == "firing" {
			firing++
		}
	}
	var quarantined, duplicate uint64
	for _, l := range s.Ledger.Sources {
		quarantined += l.Quarantined + l.Late
		duplicate += l.Duplicate
	}
	return fmt.Sprintf("%4.0f msg/s | acked %d | windows in the cloud %d, waiting %d | link %s | alerts firing %d | duplicates %d, quarantined %d | lost %d",
		s.Messages.Rate, f.Acked, points, pending, link, firing, duplicate, quarantined, s.Ledger.Imbalance)
}

// demoDrain gives the outboxes a moment once the link is up again.
func demoDrain(g *gateway, ended <-chan struct{}) {
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); {
		var pending uint64
		for _, f := range g.forwarders {
			f.Retry()
			pending += f.Status().Pending
		}
		if pending == 0 {
			return
		}
		select {
		case <-ended:
			return
		case <-t.C:
		}
	}
}

func demoSummary(out io.Writer, g *gateway, cloud *standInCloud, fleet *sim.Fleet) {
	v, f := g.runner.View(), fleet.Stats()
	points, writes, alerts, _ := cloud.figures()
	t := &v.Total
	fmt.Fprintln(out, strings.Repeat("-", 72))
	fmt.Fprintf(out, "devices published %d messages and %d were acknowledged\n", f.Published, f.Acked)
	fmt.Fprintf(out, "readings received %d = %d aggregated + %d duplicates + %d late + %d quarantined (imbalance %d)\n",
		t.Received, t.Aggregated, t.Duplicate, t.Late, t.Quarantined, t.Imbalance())
	fmt.Fprintf(out, "the cloud holds %d points after %d writes; %d notifications reached the webhook\n", points, writes, alerts)
	if n := v.Windows; n > 0 {
		fmt.Fprintf(out, "windows still open at the end stay in the journal and would leave at the next start\n")
	}
}
