package decode

import (
	"math"
	"time"
)

// units are the values of Spec.TimeUnit.
var units = []string{"", "auto", "s", "ms", "us", "ns", "rfc3339"}

// timeReader reads a device's time in one unit.
type timeReader struct {
	shift  int  // a number counts 10^shift ns
	auto   bool // a number's unit follows from its size
	number bool // numbers are times
	text   bool // strings are times
	zone   *Zone
}

func newTimeReader(unit string, zone *Zone) timeReader {
	r := unitReader(unit)
	r.zone = zone
	return r
}

func unitReader(unit string) timeReader {
	switch unit {
	case "s":
		return timeReader{number: true, shift: 9}
	case "ms":
		return timeReader{number: true, shift: 6}
	case "us":
		return timeReader{number: true, shift: 3}
	case "ns":
		return timeReader{number: true}
	case "rfc3339":
		return timeReader{text: true}
	}
	return timeReader{number: true, text: true, auto: true}
}

// fromNumber returns ns since the Unix epoch, digits below 1 ns cut off; ok is false where int64 does not hold it.
func (r timeReader) fromNumber(n number) (ns int64, ok bool) {
	shift := r.shift
	if r.auto {
		shift = unitBySize(n)
	}
	v, _, ok := n.scaled(shift)
	switch {
	case !ok:
		return 0, false
	case n.neg && v <= 1<<63:
		return -int64(v), true
	case !n.neg && v <= math.MaxInt64:
		return int64(v), true
	}
	return 0, false
}

// fromText returns ns since the Unix epoch of a time as RFC 3339 writes it, or why it is none. A time without a zone is that of
// r.zone; near, the time of arrival, decides where clocks went back and a local time was twice.
func (r timeReader) fromText(b []byte, near int64) (ns int64, why string) {
	ns, local, why := parseTime(b)
	switch {
	case why != "" || !local:
		return ns, why
	case r.zone == nil:
		return 0, "the time has no zone: want Z or an offset such as +02:00"
	}
	return r.zone.utc(ns, near), ""
}

// unitBySize tells s from ms, us and ns. Each unit covers the years 1973 to 5138: 1e11 s is the latter, 1e11 ms the former;
// seconds reach down to 0.
func unitBySize(n number) int {
	switch whole, _, ok := n.scaled(0); {
	case !ok || whole >= 1e17:
		return 0
	case whole >= 1e14:
		return 3
	case whole >= 1e11:
		return 6
	}
	return 9
}

// parseRFC3339 reads a date-time of RFC 3339, section 5.6, with "T", "t" or a space between date and time. A second 60 is
// taken where a leap second can be, at 23:59:60 UTC on the last day of a month, and is the same instant as the 00:00:00 that
// follows, as in Unix time. Digits below 1 ns are cut off. why says what is wrong; it is "" for a good time.
func parseRFC3339(b []byte) (ns int64, why string) { return timeReader{}.fromText(b, 0) }

// parseTime is parseRFC3339 with an optional zone; local tells that there is none, and ns then counts as if it were UTC.
func parseTime(b []byte) (ns int64, local bool, why string) {
	const form = "want a time such as 2006-01-02T15:04:05Z"
	if len(b) < len("2006-01-02T15:04:05") {
		return 0, false, form
	}
	year, ok1 := digits(b[0:4])
	month, ok2 := digits(b[5:7])
	day, ok3 := digits(b[8:10])
	hour, ok4 := digits(b[11:13])
	minute, ok5 := digits(b[14:16])
	second, ok6 := digits(b[17:19])
	if !ok1 || !ok2 || !ok3 || !ok4 || !ok5 || !ok6 || b[4] != '-' || b[7] != '-' || b[13] != ':' || b[16] != ':' ||
		b[10] != 'T' && b[10] != 't' && b[10] != ' ' {
		return 0, false, form
	}
	if month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour > 23 || minute > 59 || second > 60 {
		return 0, false, "no such date or time of day"
	}
	b = b[19:]
	fraction := 0
	if len(b) > 0 && b[0] == '.' {
		i, weight := 1, 100_000_000
		for ; i < len(b) && isDigit(b[i]); i++ {
			fraction += int(b[i]-'0') * weight
			weight /= 10
		}
		if i == 1 {
			return 0, false, form
		}
		b = b[i:]
	}
	offset := 0
	switch {
	case len(b) == 1 && (b[0] == 'Z' || b[0] == 'z'):
	case len(b) == 6 && (b[0] == '+' || b[0] == '-') && b[3] == ':':
		h, okh := digits(b[1:3])
		m, okm := digits(b[4:6])
		if !okh || !okm || h > 23 || m > 59 {
			return 0, false, "no such time zone offset"
		}
		offset = h*3600 + m*60
		if b[0] == '-' {
			offset = -offset
		}
	case len(b) == 0:
		local = true
	default:
		return 0, false, form
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second-offset, 0, time.UTC)
	if second == 60 && (t.Day() != 1 || t.Hour() != 0 || t.Minute() != 0) {
		return 0, false, "second 60 where no leap second can be"
	}
	const most = math.MaxInt64 / 1_000_000_000
	if s := t.Unix(); s < -most || s >= most {
		return 0, false, "the time is outside the years 1678 to 2262"
	}
	return t.Unix()*1_000_000_000 + int64(fraction), local, ""
}

func digits(b []byte) (v int, ok bool) {
	for _, c := range b {
		if !isDigit(c) {
			return 0, false
		}
		v = v*10 + int(c-'0')
	}
	return v, true
}

func daysIn(year, month int) int {
	switch month {
	case 4, 6, 9, 11:
		return 30
	case 2:
		if year%4 == 0 && (year%100 != 0 || year%400 == 0) {
			return 29
		}
		return 28
	}
	return 31
}
