package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/rules"
)

// fleet is the devices as the console shows them. The pipeline is asked for its registry at most once a second, by whoever wants to
// see it; everybody else gets the same copy.
type fleet struct {
	mu    sync.Mutex
	view  *console.FleetView // nil: nobody asked yet
	asked time.Time
	known map[*telemetry.Device]*knownDevice
}

// knownDevice is what of a device does not change.
type knownDevice struct {
	device  console.Device
	labels  map[string]string // in PromQL
	metrics []console.Series  // in the order of the registry
}

const (
	fleetEvery   = time.Second            // between two looks at the registry
	fleetPatient = 5 * time.Second        // how long the first may take
	fleetHasty   = 500 * time.Millisecond // how long a later one may take before the copy from before is shown once more
)

// Fleet implements console.Fleet.
func (g *gateway) Fleet(ctx context.Context) (*console.FleetView, error) {
	f := &g.fleet
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.view != nil && time.Since(f.asked) < fleetEvery {
		return f.view, nil
	}
	patience := fleetPatient
	if f.view != nil {
		patience = fleetHasty
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	list, err := g.runner.Devices(ctx)
	f.asked = time.Now()
	if err != nil {
		if f.view != nil {
			return f.view, nil
		}
		return nil, fmt.Errorf("ask the pipeline for its devices: %w", err)
	}
	known := constants{common: g.cfg.Gateway.Labels, sources: g.cfg.Sources}
	f.view = f.build(list, g.live.copy(list), firing(g.runner.View().Alerts), g.clock.now(), g.started.UnixNano(), &known)
	return f.view, nil
}

// constants are what the configuration says of devices.
type constants struct {
	common  map[string]string // the gateway's own labels, which tell no device from another
	sources []config.Source
}

// unit is what a metric is expected in, "" where nobody says.
func (c *constants) unit(measurement, metric string) string {
	for i := range c.sources {
		if s := &c.sources[i]; s.Measurement == measurement && s.Expect.Units[metric] != "" {
			return s.Expect.Units[metric]
		}
	}
	return ""
}

// build makes the view of a registry.
func (f *fleet) build(list []pipeline.DeviceView, heard []lastValues, alerts *alertIndex, now, started int64, c *constants) *console.FleetView {
	known := make(map[*telemetry.Device]*knownDevice, len(list))
	v := &console.FleetView{At: time.Unix(0, now).UTC(), Devices: make([]console.DeviceDetail, len(list))}
	series := 0
	for i := range list {
		series += len(list[i].Metrics)
	}
	all := make([]console.Series, 0, series)
	for i := range list {
		view := &list[i]
		k := f.known[view.Device]
		if k == nil {
			k = newKnownDevice(view, c.common)
		}
		known[view.Device] = k
		d := &v.Devices[i]
		d.Device = k.device
		d.State = deviceState(view, now, started)
		d.FirstSeen, d.LastSeen = unixTime(view.FirstSeen), unixTime(view.LastSeen)
		d.Interval = view.Interval.Seconds()
		d.Series = len(view.Metrics)
		d.Alerts = alerts.of(k.device.Labels)
		if d.State == "online" || d.State == "unknown" {
			d.Rate = math.Round(heard[i].perMinute(now, view.Interval)*10) / 10
		}
		from := len(all)
		for m := range view.Metrics {
			all = append(all, k.series(m, &view.Metrics[m], heard[i].of(view.Metrics[m].Metric), c))
		}
		d.Metrics = all[from:len(all):len(all)]
		slices.SortFunc(d.Metrics, func(a, b console.Series) int { return strings.Compare(a.Metric, b.Metric) })
	}
	slices.SortFunc(v.Devices, func(a, b console.DeviceDetail) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.ID, b.ID))
	})
	f.known = known
	return v
}

func newKnownDevice(v *pipeline.DeviceView, common map[string]string) *knownDevice {
	k := &knownDevice{labels: history.Labels(v.Device)}
	k.device = console.Device{ID: deviceID(v.Device), Name: deviceName(v, common), Source: v.Measurement, Labels: v.Labels.Map()}
	return k
}

// deviceID identifies a device across restarts: its measurement and labels, hashed.
func deviceID(d *telemetry.Device) string {
	sum := sha256.Sum256(d.Labels.AppendKey(telemetry.AppendString(nil, d.Measurement)))
	return hex.EncodeToString(sum[:10])
}

// deviceName is the label device, or else what of its labels tells it from others.
func deviceName(v *pipeline.DeviceView, common map[string]string) string {
	if name := v.Labels.Get(rules.DeviceLabel); name != "" {
		return name
	}
	var own []string
	for _, l := range v.Labels {
		if common[l.Name] != l.Value {
			own = append(own, l.Value)
		}
	}
	if len(own) == 0 {
		return v.Measurement
	}
	return strings.Join(own, " ")
}

func (k *knownDevice) series(i int, m *pipeline.MetricView, last *console.LastValue, c *constants) console.Series {
	if i >= len(k.metrics) || k.metrics[i].Metric != m.Metric {
		k.metrics = append(k.metrics[:min(i, len(k.metrics))], console.Series{
			Name: history.MetricName(k.device.Source, m.Metric), Measurement: k.device.Source, Metric: m.Metric, Labels: k.labels, Device: k.device.ID,
			Unit: c.unit(k.device.Source, m.Metric),
		})
	}
	s := k.metrics[i]
	s.Unit, s.Last = cmp.Or(m.Unit, s.Unit), last
	return s
}

// How long a device may be silent of which no interval is known yet.
const (
	newcomerOnline = time.Minute    // so long it counts as online
	newcomerSilent = 24 * time.Hour // from then on as silent
)

// deviceState tells how a device is. Silence before the gateway started is none: nobody listened.
func deviceState(v *pipeline.DeviceView, now, started int64) string {
	if v.State == "offline" {
		return "offline"
	}
	if v.LastSeen == 0 {
		if v.State == "online" {
			return "online"
		}
		return "unknown"
	}
	since := time.Duration(now - v.LastSeen)
	listened := min(since, time.Duration(now-started))
	switch {
	case v.Allowed > 0 && since <= v.Allowed:
		return "online"
	case v.Allowed > 0 && listened > v.Allowed:
		return "silent"
	case v.Allowed > 0: // silent since before the start, and it may still come
		return "unknown"
	case v.State == "online" || since <= newcomerOnline:
		return "online"
	case listened > newcomerSilent:
		return "silent"
	}
	return "unknown"
}

// alertIndex finds the alerts of a device: those whose labels include the device's.
type alertIndex struct{ byDevice map[string][]telemetry.Labels }

// firing indexes the alerts that fire by the label device; those without it stand under "".
func firing(list []rules.AlertView) *alertIndex {
	x := &alertIndex{map[string][]telemetry.Labels{}}
	for i := range list {
		if a := &list[i]; a.State == rules.Firing {
			name := a.Labels.Get(rules.DeviceLabel)
			x.byDevice[name] = append(x.byDevice[name], a.Labels)
		}
	}
	return x
}

func (x *alertIndex) of(device map[string]string) (n int) {
	for _, labels := range x.byDevice[device[rules.DeviceLabel]] {
		if includes(labels, device) {
			n++
		}
	}
	return n
}

func includes(labels telemetry.Labels, all map[string]string) bool {
	for name, value := range all {
		if labels.Get(name) != value {
			return false
		}
	}
	return true
}

var _ console.Fleet = (*gateway)(nil)
