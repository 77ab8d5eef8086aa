package telemetry

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
)

// Point on disk (outbox records), all integers unsigned varints unless said otherwise:
//
//	version 1 or 2 | measurement | n labels {name value} | time (zigzag) | window ns
//	| n fields {name f64} | n stats {stat} | n aggregates {metric aggregate; in version 2: sketch}
//	aggregate: count | first time (zigzag) | last time - first time | sum carry min max first last mean m2 (8 x f64),
//	           or, when count is 1: the one value (f64)
//	sketch:    n bins {key - key before (zigzag), from 0; count}, see Sketch; 0 bins: none
//	strings: length bytes; f64: IEEE 754 little-endian
//
// Version 2 is written where an aggregate has a sketch. Destinations get figures; the sketch is stored because windows may be merged
// into longer ones on the way.
const (
	pointVersion       = 1
	pointWithSketches  = 2
	pointVersionNewest = pointWithSketches
)

var errDamaged = errors.New("binary record is damaged")

// MarshalPoint appends the binary form of p to b.
func MarshalPoint(b []byte, p *Point) []byte {
	version := byte(pointVersion)
	for i := range p.Aggregates {
		if p.Aggregates[i].sketch != nil {
			version = pointWithSketches
			break
		}
	}
	b = append(b, version)
	b = AppendString(b, p.Measurement)
	b = binary.AppendUvarint(b, uint64(len(p.Labels)))
	b = p.Labels.AppendKey(b)
	b = binary.AppendVarint(b, p.Time)
	b = binary.AppendUvarint(b, uint64(p.Window))
	b = binary.AppendUvarint(b, uint64(len(p.Fields)))
	for i := range p.Fields {
		b = AppendString(b, p.Fields[i].Name)
		b = AppendFloat(b, p.Fields[i].Value)
	}
	b = binary.AppendUvarint(b, uint64(len(p.Stats)))
	for _, s := range p.Stats {
		b = AppendString(b, string(s))
	}
	b = binary.AppendUvarint(b, uint64(len(p.Aggregates)))
	for i := range p.Aggregates {
		b = AppendString(b, p.Aggregates[i].Metric)
		b = p.Aggregates[i].Append(b)
		if version == pointWithSketches {
			b = p.Aggregates[i].AppendSketch(b)
		}
	}
	return b
}

// AppendSketch appends the sketch of a, or that it has none; see the picture above MarshalPoint.
func (a *Aggregate) AppendSketch(b []byte) []byte { return a.sketch.append(b) }

// Append appends the binary form of a to b; see the picture above MarshalPoint.
func (a *Aggregate) Append(b []byte) []byte {
	b = binary.AppendUvarint(b, a.Count)
	if a.Count == 0 {
		return b
	}
	b = binary.AppendVarint(b, a.FirstTime)
	b = binary.AppendUvarint(b, uint64(a.LastTime-a.FirstTime))
	if a.Count == 1 {
		return AppendFloat(b, a.First)
	}
	for _, v := range [...]float64{a.Sum, a.carry, a.Min, a.Max, a.First, a.Last, a.mean, a.m2} {
		b = AppendFloat(b, v)
	}
	return b
}

// Decoder reads the primitives above. After the first damaged field every method returns a zero value and Err is set.
type Decoder struct {
	b     []byte
	bad   bool
	known map[string]string // see PointReader; nil: none
}

// NewDecoder reads from b.
func NewDecoder(b []byte) *Decoder { return &Decoder{b: b} }

// Err tells whether anything was damaged so far.
func (d *Decoder) Err() error {
	if d.bad {
		return errDamaged
	}
	return nil
}

// Rest returns what is left.
func (d *Decoder) Rest() []byte { return d.b }

func (d *Decoder) fail() { d.bad, d.b = true, nil }

// Fail marks the input as damaged and returns the error.
func (d *Decoder) Fail() error {
	d.fail()
	return errDamaged
}

// Byte reads one byte.
func (d *Decoder) Byte() byte {
	if len(d.b) < 1 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// Uvarint reads an unsigned varint.
func (d *Decoder) Uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Varint reads a zigzag varint.
func (d *Decoder) Varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

// Count reads a list length and refuses one that the rest cannot hold at size bytes an item.
func (d *Decoder) Count(size int) int {
	n := d.Uvarint()
	if n > uint64(len(d.b)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

// Bytes reads a length and so many bytes, which alias the input.
func (d *Decoder) Bytes() []byte {
	n := d.Uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// String reads a length and so many bytes as a copy.
func (d *Decoder) String() string { return string(d.Bytes()) }

// Uint64 reads eight little-endian bytes.
func (d *Decoder) Uint64() uint64 {
	if len(d.b) < 8 {
		d.fail()
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

// Float reads a little-endian float64.
func (d *Decoder) Float() float64 { return math.Float64frombits(d.Uint64()) }

// Aggregate reads what Aggregate.Append wrote.
func (d *Decoder) Aggregate(a *Aggregate) {
	*a = Aggregate{}
	n := d.Uvarint()
	if n == 0 {
		return
	}
	first := d.Varint()
	last := first + int64(d.Uvarint())
	if n == 1 {
		a.Add(first, d.Float())
		return
	}
	a.Count, a.FirstTime, a.LastTime = n, first, last
	for _, f := range [...]*float64{&a.Sum, &a.carry, &a.Min, &a.Max, &a.First, &a.Last, &a.mean, &a.m2} {
		*f = d.Float()
	}
}

// Sketch reads what Aggregate.AppendSketch wrote, after the aggregate it belongs to.
func (d *Decoder) Sketch(a *Aggregate) { a.sketch = d.readSketch(a.Count) }

// PointAggregate reads an aggregate as it stands in a point of that version.
func (d *Decoder) PointAggregate(version byte, a *Aggregate) {
	d.Aggregate(a)
	if version == pointWithSketches {
		d.Sketch(a)
	}
}

// AppendString appends a length and s.
func AppendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

// AppendFloat appends v as a little-endian float64.
func AppendFloat(b []byte, v float64) []byte {
	return binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
