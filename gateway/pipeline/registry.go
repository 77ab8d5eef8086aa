package pipeline

import (
	"encoding/binary"
	"slices"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/telemetry"
)

// deviceState is what was last said about a device being there.
type deviceState struct {
	known  bool
	online bool
	since  int64  // when it became so, ns
	reason string // of package decode's State words
}

func (s *deviceState) snapshot(b []byte) []byte {
	flags := byte(0)
	if s.known {
		flags |= 1
	}
	if s.online {
		flags |= 2
	}
	return telemetry.AppendString(binary.AppendVarint(append(b, flags), s.since), s.reason)
}

func (s *deviceState) restore(d *telemetry.Decoder) {
	flags := d.Byte()
	s.known, s.online = flags&1 != 0, flags&2 != 0
	s.since, s.reason = d.Varint(), d.String()
}

// deviceState takes in that a device came or went. That it came is a sign of life, unless another broker had kept the news.
func (f *Fold) deviceState(te *topicEntry, m *rawMessage, s *decode.DeviceState) {
	dev := f.device(te, s.Labels)
	if dev == nil {
		return // no room for another device; its readings are refused with the reason
	}
	at := f.now
	if s.Time != 0 && s.Time < at && s.Time >= at-int64(f.c.spec.Limits.Past) {
		at = s.Time
	}
	if st := &dev.state; !st.known || st.online != s.Online {
		*st = deviceState{known: true, online: s.Online, since: at}
	}
	dev.state.reason = s.Reason
	if te.src.Retained == RetainedStale && m.retain() {
		return
	}
	if s.Online {
		dev.lastSeen = f.now
	}
	if dev.firstSeen == 0 {
		dev.firstSeen = f.now
	}
	if s.Reason != decode.StateSleeping && f.counting == nil { // it is silent on purpose, and its rules say for how long it may be
		f.engine.Availability(dev.labels, s.Online, f.ruleNow(), f.event)
	}
}

// heard notes a message and learns how often the device speaks.
func (d *device) heard(now, resumed int64) {
	if gap := now - d.lastSeen; gap > 0 && d.lastSeen > resumed {
		d.cadence.Learn(time.Duration(gap))
	}
	d.lastSeen = now
	if d.firstSeen == 0 {
		d.firstSeen = now
	}
}

// maxUnits bounds what is remembered for one device.
const maxUnits = decode.MaxReadings

// setUnit remembers the unit of a metric. hint is where it was last time.
func (d *device) setUnit(hint int, u decode.Unit) {
	i := hint
	if i >= len(d.units) || d.units[i].Metric != u.Metric {
		i = slices.IndexFunc(d.units, func(known decode.Unit) bool { return known.Metric == u.Metric })
	}
	switch {
	case i >= 0:
		d.units[i].Unit = u.Unit
	case len(d.units) < maxUnits:
		d.units = append(d.units, u)
	}
}

// unit returns the unit of a metric, "" where it is not known.
func (d *device) unit(metric string) string {
	for i := range d.units {
		if d.units[i].Metric == metric {
			return d.units[i].Unit
		}
	}
	return ""
}

// commandRate counts the commands put out since a fold time.
type commandRate struct {
	since int64
	count uint64
}

// At most commandsPer commands in any commandEvery: after a restart of the whole site, each edge node wants to be asked for its births.
const (
	commandsPer  = 200
	commandEvery = 10_000_000_000 // ns
)

// command puts out what the decoder wants to tell devices.
func (f *Fold) command() {
	for i := range f.batch.Commands {
		if f.now < f.commands.since || f.now-f.commands.since >= commandEvery {
			f.commands = commandRate{since: f.now}
		}
		if f.commands.count >= commandsPer {
			return // the decoder asks again
		}
		f.commands.count++
		c := f.nextCause()
		if out, ok := f.out.(CommandOutputs); ok {
			out.Command(c, &f.batch.Commands[i])
		}
	}
}

// inherit hands what the decoders of the spec in force remember to those of the next, source by source.
func (c *compiled) inherit(was *compiled) {
	for _, s := range c.sources {
		next, ok := s.decoder.(decode.Stateful)
		if !ok {
			continue
		}
		for _, old := range was.sources {
			if state, ok := old.decoder.(decode.Stateful); ok && old.Name == s.Name && old.Decode.Format == s.Decode.Format {
				_ = next.Restore(state.Snapshot(nil)) // its own words; with an error it would begin anew
			}
		}
	}
}

func (c *compiled) snapshotDecoders(b []byte) []byte {
	for _, s := range c.sources {
		if d, ok := s.decoder.(decode.Stateful); ok {
			b = telemetry.AppendString(b, string(d.Snapshot(nil)))
		}
	}
	return b
}

func (c *compiled) restoreDecoders(d *telemetry.Decoder) bool {
	for _, s := range c.sources {
		if state, ok := s.decoder.(decode.Stateful); ok && state.Restore(d.Bytes()) != nil {
			return false
		}
	}
	return d.Err() == nil
}

// DeviceView is a copy of what the registry knows of a device.
type DeviceView struct {
	Measurement string
	Labels      telemetry.Labels  // with the gateway's
	Device      *telemetry.Device // as Readings has it, with the gateway's id; the same from one copy to the next
	FirstSeen   int64             // ns; 0: not known yet, see hold
	LastSeen    int64             // last reading or sign of life, ns; 0: none yet
	State       string            // online, offline, or "" where nothing was said
	StateReason string
	StateSince  int64
	Interval    time.Duration // between its messages, the median; 0: not known yet
	Allowed     time.Duration // how long it may be silent by that; 0: not known yet
	Metrics     []MetricView
}

// MetricView is one metric of a device; Unit is "" where it is not known.
type MetricView struct{ Metric, Unit string }

// Devices copies the registry, in the order of first sight.
func (f *Fold) Devices() []DeviceView {
	list := make([]DeviceView, len(f.devices))
	for i, d := range f.devices {
		v := &list[i]
		*v = DeviceView{
			Measurement: d.stream.measurement, Labels: d.labels, FirstSeen: d.firstSeen, LastSeen: d.lastSeen,
			Device: d.origin(), Interval: d.cadence.Typical(), Allowed: d.cadence.Allowed(),
			StateReason: d.state.reason, StateSince: d.state.since, Metrics: make([]MetricView, len(d.metrics)),
		}
		switch {
		case d.state.known && d.state.online:
			v.State = "online"
		case d.state.known:
			v.State = "offline"
		}
		for k, m := range d.metrics {
			v.Metrics[k] = MetricView{m, d.unit(m)}
		}
	}
	return list
}
