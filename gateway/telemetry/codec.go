package telemetry

import (
	"encoding/binary"
	"errors"
	"math"
	"strconv"
	"time"
)

// Point on disk (outbox records), all integers unsigned varints unless said otherwise:
//
//	version 1 | measurement | n labels {name value} | time (zigzag) | window ns
//	| n fields {name f64} | n stats {stat} | n aggregates {metric aggregate}
//	aggregate: count | first time (zigzag) | last time - first time | sum carry min max first last mean m2 (8 x f64),
//	           or, when count is 1: the one value (f64)
//	strings: length bytes; f64: IEEE 754 little-endian
const pointVersion = 1

var errDamaged = errors.New("binary record is damaged")

// MarshalPoint appends the binary form of p to b.
func MarshalPoint(b []byte, p *Point) []byte {
	b = append(b, pointVersion)
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
	}
	return b
}

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

// ParsePoint decodes what MarshalPoint wrote into p, reusing its slices. Strings are copies.
func ParsePoint(b []byte, p *Point) error {
	d := Decoder{b: b}
	if d.Byte() != pointVersion {
		return errDamaged
	}
	p.Measurement = d.String()
	p.Labels = nil
	for range d.Count(2) {
		p.Labels = append(p.Labels, Label{d.String(), d.String()})
	}
	p.Time = d.Varint()
	p.Window = time.Duration(d.Uvarint())
	p.Fields = p.Fields[:0]
	for range d.Count(9) {
		p.Fields = append(p.Fields, Field{d.String(), d.Float()})
	}
	p.Stats = p.Stats[:0]
	for range d.Count(1) {
		p.Stats = append(p.Stats, Stat(d.String()))
	}
	p.Aggregates = p.Aggregates[:0]
	for range d.Count(2) {
		m := MetricAggregate{Metric: d.String()}
		d.Aggregate(&m.Aggregate)
		p.Aggregates = append(p.Aggregates, m)
	}
	if d.Err() != nil || len(d.b) != 0 {
		return errDamaged
	}
	return nil
}

// Decoder reads the primitives above. After the first damaged field every method returns a zero value and Err is set.
type Decoder struct {
	b   []byte
	bad bool
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
