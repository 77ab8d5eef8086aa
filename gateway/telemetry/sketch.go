package telemetry

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/DataDog/sketches-go/ddsketch/mapping"
)

// SketchAccuracy is the relative error of a quantile: at most 1 % of the value that stands at that rank.
const SketchAccuracy = 0.01

// maxBins bounds a Sketch to some 20 kB. At 1 % the positive and negative values of a window may span nine decades before the ones
// nearest to zero share a bin.
const maxBins = 2048

// Sketch holds the distribution of a series in a window as a DDSketch (Masson, Rim and Lee, 2019): values are counted in bins whose
// bounds grow by a constant ratio, so sketches of parts merge into the sketch of the whole. A window holds few different values, so the bins are a
// sorted list of those that are not empty; the mapping from values to bins is that of the DDSketch library. The zero value is empty.
//
// The list depends on the values alone, not on their order, until it is full: then the bins nearest to zero become one.
type Sketch struct {
	bins []bin // ascending, each with a count
}

// bin is a signed bin: key is positive for positive values, 0 for zero, negative for negative ones; ascending keys are ascending values.
type bin struct {
	key   int32
	count uint64
}

var binOf = func() *mapping.LogarithmicMapping {
	m, err := mapping.NewLogarithmicMapping(SketchAccuracy)
	if err != nil {
		panic("telemetry: " + err.Error()) // the accuracy is a constant
	}
	return m
}()

// keyOffset makes keys positive: the indexes of float64 lie between -35,410 and 35,488.
const keyOffset = 40_000

func keyOf(v float64) int32 {
	switch a := math.Abs(v); {
	case !(a >= binOf.MinIndexableValue()):
		return 0
	case v > 0:
		return int32(binOf.Index(min(a, binOf.MaxIndexableValue()))) + keyOffset
	default:
		return -int32(binOf.Index(min(a, binOf.MaxIndexableValue()))) - keyOffset
	}
}

func (b bin) value() float64 {
	switch {
	case b.key > 0:
		return binOf.Value(int(b.key) - keyOffset)
	case b.key < 0:
		return -binOf.Value(int(-b.key) - keyOffset)
	}
	return 0
}

// Add counts one finite value.
func (s *Sketch) Add(v float64) { s.add(keyOf(v), 1) }

func (s *Sketch) add(key int32, n uint64) {
	i, ok := slices.BinarySearchFunc(s.bins, key, func(b bin, key int32) int { return int(b.key) - int(key) })
	if ok {
		s.bins[i].count += n
		return
	}
	s.bins = slices.Insert(s.bins, i, bin{key, n})
	if len(s.bins) > maxBins {
		s.collapse()
	}
}

// collapse makes one of the two bins of one sign that are nearest to zero, so that the outer quantiles stay exact.
func (s *Sketch) collapse() {
	i, _ := slices.BinarySearchFunc(s.bins, 0, func(b bin, key int32) int { return int(b.key) - int(key) })
	up := i // the first positive bin
	if up < len(s.bins) && s.bins[up].key == 0 {
		up++
	}
	down := i - 1 // the last negative one
	if up+1 < len(s.bins) && (down < 1 || s.bins[up].key <= -s.bins[down].key) {
		s.bins[up+1].count += s.bins[up].count
		s.bins = slices.Delete(s.bins, up, up+1)
		return
	}
	s.bins[down-1].count += s.bins[down].count
	s.bins = slices.Delete(s.bins, down, down+1)
}

// Merge adds what b counts.
func (s *Sketch) Merge(b *Sketch) {
	for _, x := range b.bins {
		s.add(x.key, x.count)
	}
}

// Count is how many values were added.
func (s *Sketch) Count() (n uint64) {
	for _, b := range s.bins {
		n += b.count
	}
	return n
}

// Quantile returns the value at rank q * (count - 1), for q from 0 to 1, within SketchAccuracy; 0 for an empty sketch.
func (s *Sketch) Quantile(q float64) float64 {
	count := s.Count()
	if count == 0 {
		return 0
	}
	rank := uint64(q * float64(count-1))
	for _, b := range s.bins {
		if rank < b.count {
			return b.value()
		}
		rank -= b.count
	}
	return s.bins[len(s.bins)-1].value()
}

// append appends n bins { key - key before (zigzag) | count }; n is 0 for nil.
func (s *Sketch) append(b []byte) []byte {
	if s == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(s.bins)))
	before := int32(0)
	for _, x := range s.bins {
		b = binary.AppendVarint(b, int64(x.key)-int64(before))
		b = binary.AppendUvarint(b, x.count)
		before = x.key
	}
	return b
}

// readSketch reads what append wrote, nil where there was none. It refuses what no sketch of so many values can be.
func (d *Decoder) readSketch(values uint64) *Sketch {
	n := d.Count(2)
	if n == 0 {
		return nil
	}
	if n > maxBins {
		d.fail()
		return nil
	}
	s := &Sketch{bins: make([]bin, n)}
	before, total := int64(math.MinInt32), uint64(0)
	key := int64(0)
	for i := range s.bins {
		key += d.Varint()
		count := d.Uvarint()
		total += count
		if d.bad || key <= before || key < -2*keyOffset || key > 2*keyOffset || count == 0 || count > values || total > values {
			d.fail()
			return nil
		}
		before = key
		s.bins[i] = bin{int32(key), count}
	}
	if total != values {
		d.fail()
		return nil
	}
	return s
}
