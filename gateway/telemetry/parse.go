package telemetry

import "time"

// ParsePoint decodes what MarshalPoint wrote into p, reusing its slices but for the labels, which may be kept. What p held already is not
// copied again: parsing points of one series one after the other allocates little.
func ParsePoint(b []byte, p *Point) error {
	d := Decoder{b: b}
	return d.point(p, false)
}

// PointReader parses points for somebody who keeps nothing of them: the next Read overwrites the labels of the last, and strings that were seen
// lately are shared. The zero value is ready. Not safe for concurrent use.
type PointReader struct{ known map[string]string }

// maxKnown bounds the strings that a PointReader remembers: a fleet's label values.
const maxKnown = 4096

// Read decodes what MarshalPoint wrote into p, reusing all it holds.
func (r *PointReader) Read(b []byte, p *Point) error {
	if r.known == nil || len(r.known) >= maxKnown {
		r.known = make(map[string]string)
	}
	d := Decoder{b: b, known: r.known}
	return d.point(p, true)
}

func (d *Decoder) point(p *Point, reuse bool) error {
	version := d.Byte()
	if version == 0 || version > pointVersionNewest {
		return errDamaged
	}
	p.Measurement = d.text(p.Measurement)
	d.labels(p, reuse)
	p.Time = d.Varint()
	p.Window = time.Duration(d.Uvarint())
	n := d.Count(9)
	p.Fields = resize(p.Fields, n)
	for i := range p.Fields {
		p.Fields[i] = Field{d.text(p.Fields[i].Name), d.Float()}
	}
	n = d.Count(1)
	p.Stats = resize(p.Stats, n)
	for i := range p.Stats {
		p.Stats[i] = Stat(d.text(string(p.Stats[i])))
	}
	n = d.Count(2)
	p.Aggregates = resize(p.Aggregates, n)
	for i := range p.Aggregates {
		p.Aggregates[i].Metric = d.text(p.Aggregates[i].Metric)
		d.PointAggregate(version, &p.Aggregates[i].Aggregate)
	}
	if d.Err() != nil || len(d.b) != 0 {
		return errDamaged
	}
	return nil
}

// labels leaves p's as they are where they are equal; else, without reuse, it makes new ones.
func (d *Decoder) labels(p *Point, reuse bool) {
	n := d.Count(2)
	old := p.Labels
	mine := reuse && cap(old) >= n
	if mine {
		p.Labels = old[:n]
	} else if len(old) != n {
		p.Labels, mine = make(Labels, n), true
	}
	if n == 0 {
		p.Labels = nil
	}
	for i := range n {
		var was Label
		if i < len(old) {
			was = old[i]
		} else if mine && i < cap(p.Labels) {
			was = p.Labels[i]
		}
		l := Label{d.text(was.Name), d.text(was.Value)}
		if l != was && !mine {
			p.Labels, mine = append(make(Labels, 0, n), old...), true
		}
		if mine {
			p.Labels[i] = l
		}
	}
}

// text reads a string, and returns old or another that is known when it is equal.
func (d *Decoder) text(old string) string {
	b := d.Bytes()
	if string(b) == old {
		return old
	}
	if s, ok := d.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if d.known != nil {
		d.known[s] = s
	}
	return s
}

// resize makes s n long, and keeps what it holds, also behind its end.
func resize[T any](s []T, n int) []T {
	if cap(s) >= n {
		return s[:n]
	}
	return append(s[:cap(s)], make([]T, n-cap(s))...)
}
