package decode

import (
	"math"
	"strconv"
)

// number is a decimal number as its text says it: (-1)^neg * mant * 10^exp, where mant misses the digits that did not fit.
type number struct {
	mant    uint64
	exp     int
	neg     bool
	dropped bool // digits other than 0 did not fit into mant: the value is a little further from 0
	whole   bool // no digit was left out at all
}

// scanNumber reads the number that text starts with, in JSON's grammar (RFC 8259, section 6), or with loose set as people and
// printf write it: a plus sign, leading zeros, a bare point before or after digits. end is -1 if there is none.
func scanNumber(text []byte, loose bool) (n number, end int) {
	i := 0
	n.whole = true
	if i < len(text) && (text[i] == '-' || loose && text[i] == '+') {
		n.neg = text[i] == '-'
		i++
	}
	first := i
	for i < len(text) && isDigit(text[i]) {
		n.digit(text[i]-'0', false)
		i++
	}
	digits := i - first
	if !loose && (digits == 0 || digits > 1 && text[first] == '0') {
		return n, -1
	}
	if i < len(text) && text[i] == '.' {
		i++
		first = i
		for i < len(text) && isDigit(text[i]) {
			n.digit(text[i]-'0', true)
			i++
		}
		if !loose && i == first {
			return n, -1
		}
		digits += i - first
	}
	if digits == 0 {
		return n, -1
	}
	if i < len(text) && text[i]|0x20 == 'e' {
		i++
		neg := false
		if i < len(text) && (text[i] == '-' || text[i] == '+') {
			neg = text[i] == '-'
			i++
		}
		first = i
		exp := 0
		for i < len(text) && isDigit(text[i]) {
			if exp < 1_000_000_000 { // more cannot be told from it: a payload is shorter than that
				exp = exp*10 + int(text[i]-'0')
			}
			i++
		}
		if i == first {
			return n, -1
		}
		if neg {
			exp = -exp
		}
		n.exp += exp
	}
	return n, i
}

func isDigit(c byte) bool { return c-'0' < 10 }

func (n *number) digit(d byte, fraction bool) {
	const room = (math.MaxUint64 - 9) / 10
	if n.whole && (n.mant <= room || n.mant == math.MaxUint64/10 && d <= math.MaxUint64%10) {
		n.mant = n.mant*10 + uint64(d)
		if fraction {
			n.exp--
		}
		return
	}
	n.whole = false
	n.dropped = n.dropped || d != 0
	if !fraction {
		n.exp++
	}
}

// Powers of ten that float64 and uint64 hold exactly.
var (
	floatPow10 = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
		1e18, 1e19, 1e20, 1e21, 1e22}
	uintPow10 = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
		1e18, 1e19}
)

// float returns the float64 nearest to n, whose text is text; ok is false beyond the finite range. -0 is 0.
// Two exact operands make one correctly rounded operation (Clinger 1990, "How to read floating point numbers accurately").
func (n number) float(text []byte) (f float64, ok bool) {
	if n.whole && n.mant < 1<<53 && n.exp >= -22 && n.exp <= 22 {
		f = float64(n.mant)
		if n.exp < 0 {
			f /= floatPow10[-n.exp]
		} else {
			f *= floatPow10[n.exp]
		}
		if n.neg && f != 0 {
			f = -f
		}
		return f, true
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if f == 0 {
		f = 0 // not -0
	}
	return f, err == nil && !math.IsInf(f, 0)
}

// scaled returns trunc(|n| * 10^shift); exact tells that nothing was cut off, ok is false where the result needs more than 64
// bits.
func (n number) scaled(shift int) (v uint64, exact, ok bool) {
	if n.mant == 0 {
		return 0, !n.dropped, true
	}
	p := n.exp + shift
	switch {
	case p >= len(uintPow10), p > 0 && !n.whole: // a digit that did not fit would be needed
		return 0, false, false
	case p >= 0:
		if n.mant > math.MaxUint64/uintPow10[p] {
			return 0, false, false
		}
		return n.mant * uintPow10[p], !n.dropped, true
	case -p >= len(uintPow10):
		// 10^20 is beyond every uint64.
		return 0, false, true
	}
	return n.mant / uintPow10[-p], !n.dropped && n.mant%uintPow10[-p] == 0, true
}

// integer returns n where it is an integer in 0..2^64-1, however it is written (5, 5.0, 5e0).
func (n number) integer() (v uint64, ok bool) {
	v, exact, ok := n.scaled(0)
	return v, ok && exact && (!n.neg || v == 0)
}
