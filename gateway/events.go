package main

import (
	"context"
	"slices"
	"sync"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
)

// live keeps the newest value of every series and counts messages by device, for lists and for those who watch. The pipeline's
// goroutine feeds it and is held up for copies only.
type live struct {
	mu       sync.Mutex
	devices  map[*telemetry.Device]*liveDevice // bounded by limits.series; forgotten ones go with the next copy
	watched  bool
	changed  []*liveSeries // since the last take, while it is watched
	received []liveChange  // scratch of take
}

type liveDevice struct {
	device *telemetry.Device
	series []*liveSeries // in the order of first sight
	minute int64         // since the epoch, by arrival
	count  uint32        // messages in it
	before uint32        // in the minute before
	first  int64         // arrival of the first message since the start, ns; 0: none yet
}

type liveSeries struct {
	device  *liveDevice
	metric  string
	time    int64 // of the value, ns
	value   float64
	changed bool
	public  *console.LiveSeries // nil until somebody watches; for the goroutine that takes
}

type liveChange struct {
	series *liveSeries
	time   int64
	value  float64
}

func newLive() *live { return &live{devices: map[*telemetry.Device]*liveDevice{}} }

// readings takes in what a device measured at t; arrived is when it came.
func (l *live) readings(d *telemetry.Device, arrived, t int64, readings []telemetry.Reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dev := l.devices[d]
	if dev == nil {
		dev = &liveDevice{device: d}
		l.devices[d] = dev
	}
	if dev.first == 0 {
		dev.first = arrived
	}
	dev.arrive(arrived)
	for i := range readings {
		s := dev.find(i, readings[i].Metric)
		if t < s.time {
			continue
		}
		s.time, s.value = t, readings[i].Value
		if l.watched && !s.changed {
			s.changed = true
			l.changed = append(l.changed, s)
		}
	}
}

// remember takes in a value from before the start, unless a newer one is known.
func (l *live) remember(d *telemetry.Device, metric string, t int64, value float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	dev := l.devices[d]
	if dev == nil {
		dev = &liveDevice{device: d}
		l.devices[d] = dev
	}
	if s := dev.find(len(dev.series), metric); s.time == 0 {
		s.time, s.value = t, value
	}
}

func (d *liveDevice) arrive(at int64) {
	minute := at / int64(time.Minute)
	switch {
	case minute == d.minute+1:
		d.before, d.count = d.count, 0
	case minute != d.minute:
		d.before, d.count = 0, 0
	}
	d.minute = minute
	d.count++
}

// find returns the series of a metric. Payloads repeat their order, so hint is mostly right.
func (d *liveDevice) find(hint int, metric string) *liveSeries {
	if hint < len(d.series) && d.series[hint].metric == metric {
		return d.series[hint]
	}
	for _, s := range d.series {
		if s.metric == metric {
			return s
		}
	}
	s := &liveSeries{device: d, metric: metric}
	d.series = append(d.series, s)
	return s
}

// lastValues are a copy of what is known of one device.
type lastValues struct {
	minute        int64
	count, before uint32
	first         int64
	metrics       []string
	values        []console.LastValue
}

// copy returns what is known of each device of a registry, and forgets devices that are not in it.
func (l *live) copy(list []pipeline.DeviceView) []lastValues {
	all := make([]lastValues, len(list))
	l.mu.Lock()
	defer l.mu.Unlock()
	found := 0
	for i := range list {
		d := l.devices[list[i].Device]
		if d == nil {
			continue
		}
		found++
		v := &all[i]
		v.minute, v.count, v.before, v.first = d.minute, d.count, d.before, d.first
		v.metrics, v.values = make([]string, len(d.series)), make([]console.LastValue, len(d.series))
		for k, s := range d.series {
			v.metrics[k], v.values[k] = s.metric, console.LastValue{Time: time.Unix(0, s.time).UTC(), Value: s.value}
		}
	}
	if len(l.devices) > found {
		kept := make(map[*telemetry.Device]*liveDevice, found)
		for i := range list {
			if d := l.devices[list[i].Device]; d != nil {
				kept[list[i].Device] = d
			}
		}
		l.devices = kept
	}
	return all
}

// of is the newest value of a metric, nil where none is known.
func (v *lastValues) of(metric string) *console.LastValue {
	if i := slices.Index(v.metrics, metric); i >= 0 {
		return &v.values[i]
	}
	return nil
}

// perMinute is how many messages came in the last minute or so: those of this minute, and the share of the minute before that lies
// within the last sixty seconds. A device that speaks less than three times a minute has the rate of its interval.
func (v *lastValues) perMinute(now int64, interval time.Duration) float64 {
	if interval > 20*time.Second {
		return float64(time.Minute) / float64(interval)
	}
	if v.first == 0 {
		return 0
	}
	into := float64(now%int64(time.Minute)) / float64(time.Minute)
	n := 0.0
	switch now / int64(time.Minute) {
	case v.minute:
		n = float64(v.count) + float64(v.before)*(1-into)
	case v.minute + 1:
		n = float64(v.count) * (1 - into)
	}
	if heard := time.Duration(now - v.first); heard < time.Minute {
		n /= max(heard, time.Second).Minutes()
	}
	return n
}

// rememberAround is how far from when a device was last heard its newest readings are looked for.
const rememberAround = 10 * time.Minute

// recall takes the newest values from before the start out of the history, once it follows: who is silent has them still.
func (g *gateway) recall(ctx context.Context) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	for g.history.Status().State != history.Live {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
	list, err := g.runner.Devices(ctx)
	if err != nil {
		return // the gateway stops
	}
	for i := range list {
		d := &list[i]
		if d.LastSeen == 0 || d.LastSeen >= g.started.UnixNano() {
			continue
		}
		heard := time.Unix(0, d.LastSeen)
		for _, m := range d.Metrics {
			at, value, ok, err := g.history.Newest(ctx, d.Device, m.Metric, heard.Add(-rememberAround), heard.Add(rememberAround))
			if err != nil {
				g.log.Warn("newest values not found in the history", "err", err)
				return
			}
			if ok {
				g.live.remember(d.Device, m.Metric, at.UnixNano(), value)
			}
		}
	}
}

// WatchReadings implements console.Live.
func (g *gateway) WatchReadings(on bool) {
	l := g.live
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watched = on
	if !on {
		for _, s := range l.changed {
			s.changed = false
		}
		l.changed = nil
	}
}

// TakeReadings implements console.Live.
func (g *gateway) TakeReadings(into []console.LiveReading) []console.LiveReading {
	for _, c := range g.live.take() {
		if c.series.public == nil {
			c.series.public = c.series.publish()
		}
		into = append(into, console.LiveReading{Series: c.series.public, Time: c.time, Value: c.value})
	}
	return into
}

// take returns what changed since the last call, valid until the next; for one goroutine at a time.
func (l *live) take() []liveChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received = l.received[:0]
	for _, s := range l.changed {
		l.received = append(l.received, liveChange{s, s.time, s.value})
		s.changed = false
	}
	l.changed = l.changed[:0]
	return l.received
}

func (s *liveSeries) publish() *console.LiveSeries {
	d := s.device.device
	return &console.LiveSeries{Name: history.MetricName(d.Measurement, s.metric), Labels: history.Labels(d), Device: deviceID(d), Scope: d.Labels.Map()}
}

var _ console.Live = (*gateway)(nil)
