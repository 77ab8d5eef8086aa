package pipeline

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/broker/decode"
	"sluice/gateway/telemetry"
	"sluice/uplink/rollup"
)

// topic finds a topic's source, from the cache where it was seen before.
func (f *Fold) topic(name []byte) *topicEntry {
	if te := f.topics[string(name)]; te != nil {
		return te
	}
	if len(f.topics) >= maxTopics {
		clear(f.topics)
	}
	te := &topicEntry{topic: string(name)}
	if i := f.c.topics.find(te.topic); i >= 0 {
		te.src = f.c.sources[f.c.topics.sources[i]]
		te.labels, te.rest = f.c.topics.patterns[i].Labels(te.topic), f.c.topics.patterns[i].Rest(te.topic)
		te.bad = badLabels(te.labels)
	}
	f.topics[te.topic] = te
	return te
}

// badLabels tells why levels of a topic cannot be labels: they would be refused at the destination.
func badLabels(labels []telemetry.Label) string {
	for _, l := range labels {
		switch {
		case len(l.Value) > decode.MaxLabelBytes:
			return fmt.Sprintf("topic level {%s} is longer than %d bytes", l.Name, decode.MaxLabelBytes)
		case !utf8.ValidString(l.Value):
			return fmt.Sprintf("topic level {%s} is not UTF-8", l.Name)
		case strings.ContainsFunc(l.Value, unicode.IsControl):
			return fmt.Sprintf("topic level {%s} holds control characters", l.Name)
		}
	}
	return ""
}

// device finds or makes the device of a topic and a payload's labels; nil when there are too many.
func (f *Fold) device(te *topicEntry, payload []telemetry.Label) *device {
	if len(payload) == 0 && te.dev != nil {
		return te.dev
	}
	f.scratch = f.scratch[:0]
	labels := f.labels(te, payload)
	st := f.stream(te.src)
	f.scratch = st.key(f.scratch, labels)
	dev := f.byKey[string(f.scratch)]
	if dev == nil {
		if len(f.devices) >= f.c.spec.Limits.Series {
			return nil
		}
		dev = f.newDevice(st, labels)
		f.byKey[string(f.scratch)] = dev
	}
	if len(payload) == 0 {
		te.dev = dev
	}
	return dev
}

// labels joins the gateway's labels, the topic's captures and the payload's; the later wins.
func (f *Fold) labels(te *topicEntry, payload []telemetry.Label) telemetry.Labels {
	all := make([]telemetry.Label, 0, len(f.c.labels)+len(te.labels)+len(payload))
	all = append(append(append(all, f.c.labels...), te.labels...), payload...)
	return telemetry.NewLabels(all...)
}

func (f *Fold) newDevice(st *stream, labels telemetry.Labels) *device {
	dev := &device{
		stream: st, labels: labels, rollup: rollup.Device{ID: uint32(len(f.devices))},
		pointLabels: f.withGateway(labels),
		subject:     f.engine.Subject(st.measurement, labels),
		firstSeen:   f.now,
	}
	if f.hold.on {
		dev.firstSeen = 0
	}
	f.devices = append(f.devices, dev)
	return dev
}

func (f *Fold) withGateway(labels telemetry.Labels) telemetry.Labels {
	return labels.With(telemetry.Label{Name: "gateway", Value: f.c.spec.Gateway})
}

func (f *Fold) stream(src *source) *stream {
	for _, st := range f.streams {
		if st.measurement == src.Measurement && st.rollup.Window() == src.Window {
			return st
		}
	}
	st := &stream{measurement: src.Measurement, rollup: rollup.New(src.windows())}
	f.adopt(st)
	f.streams = append(f.streams, st)
	return st
}

// adopt takes over what the first source of a stream says; it returns false when there is none.
func (f *Fold) adopt(st *stream) bool {
	for _, s := range f.c.sources {
		if s.Measurement == st.measurement && s.Window == st.rollup.Window() {
			w := s.windows()
			w.Final = f.final
			st.rollup.Configure(w)
			st.stats = s.Stats
			return true
		}
	}
	return false
}

func (st *stream) key(b []byte, labels telemetry.Labels) []byte {
	return streamKey(b, st.measurement, st.rollup.Window(), labels)
}

func streamKey(b []byte, measurement string, window time.Duration, labels telemetry.Labels) []byte {
	b = telemetry.AppendString(b, measurement)
	b = binary.AppendUvarint(b, uint64(window))
	return labels.AppendKey(b)
}

// metric returns the number of a metric, -1 when it is new. Payloads repeat their order, so hint is mostly right.
func (d *device) metric(hint int, name string) int {
	if hint < len(d.metrics) && d.metrics[hint] == name {
		return hint
	}
	for i, m := range d.metrics {
		if m == name {
			return i
		}
	}
	return -1
}

// origin is the device as others see it.
func (d *device) origin() *telemetry.Device {
	if d.public == nil {
		d.public = &telemetry.Device{Measurement: d.stream.measurement, Labels: d.pointLabels}
	}
	return d.public
}

func (d *device) sequence(source string) *sequence {
	for i := range d.sequences {
		if d.sequences[i].source == source {
			return &d.sequences[i].sequence
		}
	}
	d.sequences = append(d.sequences, sourceSequence{source: source})
	return &d.sequences[len(d.sequences)-1].sequence
}

func (f *Fold) ledger(name string) *Ledger {
	for _, l := range f.ledgers {
		if l.name == name {
			return &l.Ledger
		}
	}
	l := &namedLedger{name: name}
	f.ledgers = append(f.ledgers, l)
	return &l.Ledger
}

// configure puts a spec in force between two records. Devices and windows whose measurement and window length stay keep their
// state; windows that end here are put out as they are. Rules that did not change keep their alerts.
func (f *Fold) configure(raw []byte) error {
	c, err := compile(append([]byte(nil), raw...))
	if err != nil {
		f.rejected++
		return err
	}
	c.inherit(f.c)
	gone := f.departing(c)
	f.use(c)
	kept := f.streams[:0]
	for _, st := range f.streams {
		if f.adopt(st) {
			kept = append(kept, st)
			continue
		}
		st.rollup.Flush(f.emitter(st))
		f.forgetStream(st)
	}
	f.streams = kept
	for _, d := range f.devices {
		if l := f.withGateway(d.labels); !slices.Equal(l, d.pointLabels) {
			d.pointLabels, d.public = l, nil
		}
	}
	f.engine.SetZone(c.zone)
	f.depart(gone)
	f.engine.Reload(c.rules, f.ruleNow(), f.event)
	f.policy.Configure(f.policyTime(), c.spec.Receivers, c.rules, f.notify)
	return nil
}

// use makes c the spec in force.
func (f *Fold) use(c *compiled) {
	f.c = c
	clear(f.topics)
	for _, s := range c.sources {
		s.ledger = f.ledger(s.Name)
	}
}

// forgetStream drops the devices of a stream that ended; the others are numbered anew.
func (f *Fold) forgetStream(st *stream) {
	kept := f.devices[:0]
	for _, d := range f.devices {
		if d.stream == st {
			for _, b := range f.backfills.list {
				if b.dev == d {
					f.abandon(b, "the source's measurement or window was changed")
				}
			}
			f.series -= len(d.metrics)
			delete(f.byKey, string(st.key(nil, d.labels)))
			continue
		}
		d.rollup.ID = uint32(len(kept))
		kept = append(kept, d)
	}
	clear(f.devices[len(kept):])
	f.devices = kept
	f.forgetBackfills()
}
