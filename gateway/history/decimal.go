package history

import "math"

// Sensors send decimals: 20.37, not a number with 52 significant bits. As a float64 20.37 has all of them, and the XOR chunks of
// the TSDB, which store how the bits of neighbours differ, need seven bytes for it. So a value that is a decimal of few digits is
// stored with the bits below its last digit cleared, and the number of its digits in their place:
//
//	sign 1 | exponent 11 | mantissa, down to half a unit of the last decimal | zeros | decimals 4
//
// 20.37 is stored as 20.3671875 + 2 ulp. That is the decimal's value to half a unit of its last digit, so that any program reading
// the blocks sees the right figure, and rounding it to the digits named gives back the very same float64. Everything else is
// stored as it is. The idea is that of Elf (Li et al., VLDB 2023), with the digits kept inside the value.

const (
	maxDecimals = 14
	tagBits     = 4
	tagMask     = 1<<tagBits - 1
	minCleared  = 16 // fewer bits to gain are left alone: real numbers that look packed become rare
)

var pow10 = [maxDecimals + 1]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14}

// cleared is how many low mantissa bits a decimal of this exponent does not need; below minCleared it is not packed.
// A truncated value is short by less than 2^-fraction <= 10^-decimals / 2.
func cleared(exponent, decimals int) int {
	fraction := (decimals*3402)>>10 + 2 // 3402/1024 > log2(10)
	return min(52-exponent-fraction, 52)
}

// pack returns what is stored for v, and the decimals it found. hint is what it found for the value before.
func pack(v float64, hint int) (stored float64, decimals int) {
	if hint == 0 && v == math.Trunc(v) && math.Abs(v) < 1<<48 {
		return v, 0 // few bits already, and none where the decimals would stand
	}
	b := math.Float64bits(v)
	if v == 0 {
		return math.Float64frombits(b | uint64(hint)), hint // so that the decimals are the same bits in all neighbours
	}
	exponent := int(b>>52&0x7ff) - 1023
	if exponent < -40 || exponent > 36 { // no sensor's range, and more digits than are worth it
		return escape(v), hint
	}
	for d := max(hint, 1); d <= maxDecimals; d++ {
		n := cleared(exponent, d)
		if n < minCleared {
			break
		}
		if scaled := math.Round(v * pow10[d]); scaled/pow10[d] != v {
			continue
		}
		p := math.Float64frombits(b>>n<<n | uint64(d))
		if unpack(p) == v {
			return p, d
		}
	}
	if hint > 1 && cleared(exponent, hint) < minCleared { // a larger value than before; fewer digits may still do
		return pack(v, 1)
	}
	return escape(v), hint
}

// escape keeps a value from being taken for a packed one. One real number in some ten thousand looks like one; it is moved by at
// most 15 ulp, which is the sixteenth digit. The few numbers below 1e-322 become zero.
func escape(v float64) float64 {
	if unpack(v) == v {
		return v
	}
	return math.Float64frombits(math.Float64bits(v) &^ tagMask)
}

// unpack is the value that was stored.
func unpack(stored float64) float64 {
	b := math.Float64bits(stored)
	d := int(b & tagMask)
	if d == 0 || d > maxDecimals {
		return stored
	}
	if b&^(1<<63|tagMask) == 0 {
		return math.Float64frombits(b &^ tagMask) // a zero among decimals
	}
	exponent := int(b>>52&0x7ff) - 1023
	if exponent < -40 || exponent > 36 {
		return stored
	}
	n := cleared(exponent, d)
	if n < minCleared || b&(1<<n-1) != uint64(d) {
		return stored
	}
	return math.Round(math.Float64frombits(b&^tagMask)*pow10[d]) / pow10[d]
}
