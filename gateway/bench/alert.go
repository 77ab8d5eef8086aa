package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/store"
	"sluice/gateway/e2e/wire"
)

// alertRow is the latency of alerts under one background load.
type alertRow struct {
	Background int     `json:"background_per_second"`
	Samples    int     `json:"samples"`
	Latency    latency `json:"latency"`
	Disk       latency `json:"disk"` // of a small write and its fdatasync alone, just before
}

// alert measures from just before a breach is written to the socket until the webhook's request was read, under a
// background of other devices' messages. The rate of probes is low: one alert is out before the next begins.
func (b *bench) alert(w io.Writer) error {
	var rows [][]string
	for _, background := range []int{100, 5_000} {
		row, err := b.alertUnder(background)
		if err != nil {
			return err
		}
		b.report.Alert = append(b.report.Alert, *row)
		rows = append(rows, []string{fmt.Sprint(background), fmt.Sprint(row.Samples), fmt.Sprintf("%.2f", row.Latency.P50.ms()),
			fmt.Sprintf("%.2f", row.Latency.P99.ms()), fmt.Sprintf("%.2f", row.Latency.Max.ms()), fmt.Sprintf("%.2f", row.Disk.P50.ms()),
			fmt.Sprintf("%.2f", row.Disk.P99.ms())})
	}
	table(w, "Alert latency: publish to webhook request read; an alert leaves after its message's fdatasync, which alone takes",
		"background msg/s|samples|p50 ms|p99 ms|max ms|fdatasync p50|p99 ms", rows)
	return nil
}

func (b *bench) alertUnder(background int) (*alertRow, error) {
	disk, err := b.diskAlone()
	if err != nil {
		return nil, err
	}
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		return nil, err
	}
	defer receiver.Close()
	null, err := store.NewStandIn(true)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	s, err := b.startSluice(sluiceOptions{store: null.URL(), hook: receiver.URL(), rules: benchRules})
	if err != nil {
		return nil, err
	}
	defer s.stop()
	l := load{Connections: 4, Devices: 100, Rate: background, Warmup: 4 * time.Second, Measure: b.measure + 4*time.Second}
	loaded := make(chan error, 1) // capacity 1: the generator never waits for us
	go func() {
		_, err := b.apply(s, l)
		loaded <- err
	}()
	warm := time.Now().Add(l.Warmup)
	h, err := probe(s.address, receiver, warm, warm.Add(l.Measure-time.Second))
	if loadErr := <-loaded; err == nil {
		err = loadErr
	}
	if err != nil {
		return nil, fmt.Errorf("background %d: %w", background, err)
	}
	return &alertRow{background, int(h.n), h.latency(), disk}, nil
}

// diskAlone measures what no durable alert can be faster than: a small write into a file of its full size, and fdatasync.
func (b *bench) diskAlone() (latency, error) {
	f, err := os.CreateTemp(b.dir, "sluice-bench-sync-")
	if err != nil {
		return latency{}, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const size, writes = 300, 400
	if _, err := f.Write(make([]byte, size*writes)); err != nil {
		return latency{}, err
	}
	if err := f.Sync(); err != nil {
		return latency{}, err
	}
	h := &histogram{}
	body := make([]byte, size)
	for i := range writes {
		time.Sleep(8 * time.Millisecond) // the disk is as idle as between two alerts
		at := time.Now()
		if _, err := f.WriteAt(body, int64(i*size)); err != nil {
			return latency{}, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return latency{}, err
		}
		h.add(time.Since(at))
	}
	return h.latency(), nil
}

// probe publishes one breach after another until end, each from a new device, and waits for its webhook. What comes before warm - the
// first connection to the receiver, the first of every file - is not counted.
func probe(address string, r *hook.Receiver, warm, end time.Time) (*histogram, error) {
	c, err := wire.Dial(context.Background(), address, wire.Connect{ClientID: "probe", Clean: true, KeepAlive: 60})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	h := &histogram{}
	seen := 0
	for n := 1; time.Now().Before(end) || h.n == 0; n++ {
		device := fmt.Sprintf("probe%05d", n)
		at := time.Now()
		payload := fmt.Sprintf(`{"ts":%d,"temperature":70,"humidity":40,"vibration":0}`, at.UnixMilli())
		if _, err := c.Net.Write(wire.AppendPublish(nil, wire.V311, wire.Publish{Topic: "bench/" + device + "/telemetry", Payload: []byte(payload), ID: uint16(n), QoS: 1})); err != nil {
			return nil, err
		}
		if p, err := c.Read(10 * time.Second); err != nil || p.Type != wire.PUBACK {
			return nil, fmt.Errorf("probe %d: packet type %d, %w", n, p.Type, err)
		}
		arrived, err := waitDevice(r, device, &seen)
		if err != nil {
			return nil, err
		}
		if at.After(warm) {
			h.add(arrived.Sub(at))
		}
		time.Sleep(time.Until(at.Add(40 * time.Millisecond))) // the rate of probes
	}
	return h, nil
}

// waitDevice waits for the notification of a device's alert; seen is how many requests were looked at before.
func waitDevice(r *hook.Receiver, device string, seen *int) (time.Time, error) {
	timeout := time.After(10 * time.Second)
	for {
		taken := r.Taken()
		for _, req := range taken[*seen:] {
			*seen++
			for _, a := range req.Alerts.Alerts {
				if a.Labels["device"] == device {
					return req.At, nil
				}
			}
		}
		select {
		case <-r.Arrived():
		case <-timeout:
			return time.Time{}, fmt.Errorf("no notification for %s within 10 s (%d requests, bad: %v)", device, len(taken), r.Bad())
		}
	}
}
