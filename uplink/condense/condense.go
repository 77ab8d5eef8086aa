// Package condense merges points into longer windows: what a long outage costs is resolution, not history.
//
// It is pure: equal bodies in equal order give equal results, byte for byte. It never looks at a clock or a disk, and decides nothing
// about which points may be merged but by what they are. One goroutine owns a Merger.
package condense

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"

	"sluice/gateway/telemetry"
)

// Readings says what becomes of points with plain fields: they may be readings, or alerts, which no window can stand for.
type Readings int

const (
	Keep    Readings = iota // they are no readings: unchanged
	Merge                   // they become aggregates
	Covered                 // aggregates of the same readings go the same way: nothing is lost without them
)

// Policy tells for a measurement what its plain points are and, for Merge, which stats to write of them.
type Policy func(measurement string) (Readings, []telemetry.Stat)

// Fate is what became of a point given to Add.
type Fate int

const (
	Merged  Fate = iota // it is part of what Each gives
	Kept                // not taken: it must go on as it is, and may not be merged later either
	Dropped             // not taken, and not needed: see Covered
)

// Head is what stands at the beginning of a point's body.
type Head struct {
	Identity []byte // points with equal identities are the same point: the later one replaces the earlier
	Series   []byte // measurement and labels; Identity begins with it
	Time     int64
	Window   time.Duration
	version  byte
	rest     []byte // what follows Identity
}

// ReadHead splits the body of a point, see telemetry.MarshalPoint; ok is false when it is none. The slices alias body.
func ReadHead(body []byte) (h Head, ok bool) {
	d := telemetry.NewDecoder(body)
	h.version = d.Byte() // no part of the identity; ParsePoint refuses what is not ours
	body = d.Rest()
	d.Bytes()
	for range 2 * d.Count(2) {
		d.Bytes()
	}
	h.Series = body[:len(body)-len(d.Rest())]
	h.Time = d.Varint()
	h.Window = time.Duration(d.Uvarint())
	h.rest = d.Rest()
	h.Identity = body[:len(body)-len(h.rest)]
	return h, d.Err() == nil
}

// Bucket is the start of the window of length step that t lies in.
func Bucket(t int64, step time.Duration) int64 {
	s := int64(step)
	r := t % s
	if r < 0 {
		r += s
	}
	return t - r
}

// Merger merges the points of one batch.
type Merger struct {
	step   time.Duration
	policy Policy
	groups map[string]*group
	order  []*group
	key    []byte
	point  telemetry.Point
	agg    telemetry.Aggregate
}

// group is one point to be. Its time is that of the earliest point in it, not its window's start: a window may come out in parts,
// from several batches, and parts with one identity would replace each other at the destination.
type group struct {
	whole []byte // a point that goes on as it is; the other fields are empty then
	point telemetry.Point
	stats []byte // as they stood in the latest point
}

// New makes a Merger for windows of length step. A nil policy keeps all plain points.
func New(step time.Duration, policy Policy) *Merger {
	return &Merger{step: step, policy: policy, groups: make(map[string]*group)}
}

// Len is the number of points that Each gives.
func (m *Merger) Len() int { return len(m.order) }

// Add merges a point. Points of one identity must be given once only. body is not kept.
func (m *Merger) Add(body []byte) Fate {
	h, ok := ReadHead(body)
	if !ok {
		return Kept
	}
	if h.Window >= m.step {
		// It may be merged at a later step.
		if telemetry.ParsePoint(body, &m.point) != nil {
			return Kept
		}
		m.order = append(m.order, &group{whole: bytes.Clone(body)})
		return Merged
	}
	m.key = append(m.key[:0], h.Series...)
	m.key = binary.LittleEndian.AppendUint64(m.key, uint64(Bucket(h.Time, m.step)))
	g := m.groups[string(m.key)]
	if g != nil && h.Window > 0 && m.mergeFast(g, &h) {
		return Merged
	}
	return m.add(g, body)
}

// mergeFast merges an aggregated point that holds the same metrics and stats as the group, without decoding names. It changes
// nothing when it returns false.
func (m *Merger) mergeFast(g *group, h *Head) bool {
	d := telemetry.NewDecoder(h.rest)
	if d.Count(9) != 0 {
		return false
	}
	at := d.Rest()
	for range d.Count(1) {
		d.Bytes()
	}
	if d.Err() != nil || !bytes.Equal(at[:len(at)-len(d.Rest())], g.stats) {
		return false
	}
	aggregates := *d
	for pass := range 2 { // look first, then merge
		*d = aggregates
		if d.Count(2) != len(g.point.Aggregates) {
			return false
		}
		for i := range g.point.Aggregates {
			to := &g.point.Aggregates[i]
			if string(d.Bytes()) != to.Metric {
				return false
			}
			d.PointAggregate(h.version, &m.agg)
			if pass == 1 {
				to.Merge(m.agg)
			}
		}
		if d.Err() != nil || len(d.Rest()) != 0 {
			return false
		}
	}
	g.point.Time = min(g.point.Time, h.Time)
	return true
}

// add decodes a point and merges it into g, or makes the group when it is nil.
func (m *Merger) add(g *group, body []byte) Fate {
	p := &m.point
	if telemetry.ParsePoint(body, p) != nil {
		return Kept
	}
	var stats []telemetry.Stat
	if p.Window > 0 {
		if len(p.Fields) > 0 { // of no window that we know of
			return Kept
		}
		stats = p.Stats
	} else {
		what := Keep
		if m.policy != nil && len(p.Aggregates) == 0 {
			what, stats = m.policy(p.Measurement)
		}
		switch what {
		case Keep:
			return Kept
		case Covered:
			return Dropped
		}
	}
	if g == nil {
		g = &group{point: telemetry.Point{Measurement: p.Measurement, Labels: p.Labels, Time: p.Time, Window: m.step}}
		m.groups[string(m.key)] = g
		m.order = append(m.order, g)
	}
	g.point.Time = min(g.point.Time, p.Time)
	for _, s := range stats {
		if !slices.Contains(g.point.Stats, s) {
			g.point.Stats = append(g.point.Stats, s)
		}
	}
	for i := range p.Aggregates {
		g.metric(p.Aggregates[i].Metric).Merge(p.Aggregates[i].Aggregate)
	}
	sketched := slices.ContainsFunc(stats, telemetry.Stat.Sketched)
	for i := range p.Fields {
		if a := g.metric(p.Fields[i].Name); sketched {
			a.AddSketched(p.Time, p.Fields[i].Value)
		} else {
			a.Add(p.Time, p.Fields[i].Value)
		}
	}
	g.stats = binary.AppendUvarint(g.stats[:0], uint64(len(g.point.Stats)))
	for _, s := range g.point.Stats {
		g.stats = telemetry.AppendString(g.stats, string(s))
	}
	return Merged
}

func (g *group) metric(name string) *telemetry.Aggregate {
	for i := range g.point.Aggregates {
		if g.point.Aggregates[i].Metric == name {
			return &g.point.Aggregates[i].Aggregate
		}
	}
	g.point.Aggregates = append(g.point.Aggregates, telemetry.MetricAggregate{Metric: name})
	return &g.point.Aggregates[len(g.point.Aggregates)-1].Aggregate
}

// Each calls f with the body of every merged point, in the order of the first point in each, until f fails. A body is valid during
// the call.
func (m *Merger) Each(f func(body []byte) error) error {
	var buf []byte
	for _, g := range m.order {
		body := g.whole
		if body == nil {
			buf = telemetry.MarshalPoint(buf[:0], &g.point)
			body = buf
		}
		if err := f(body); err != nil {
			return err
		}
	}
	return nil
}
