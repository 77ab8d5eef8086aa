package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

var errUnit = errors.New("no number with a unit")

// durationUnits are those of time.ParseDuration and d, a day of 24 hours.
var durationUnits = []struct {
	name string
	ns   float64
}{
	{"ns", 1}, {"us", 1e3}, {"µs", 1e3}, {"ms", 1e6},
	{"s", 1e9}, {"m", 60e9}, {"h", 3600e9}, {"d", 86400e9},
}

// ParseDuration reads numbers with units, the largest first or in any order: "5ms", "1h30m", "15d". A bare number other
// than 0 is an error: it does not say its unit. The result is never negative.
func ParseDuration(s string) (time.Duration, error) {
	if s == "0" {
		return 0, nil
	}
	if s == "" {
		return 0, errUnit
	}
	total := 0.0
	for rest := s; rest != ""; {
		n := strings.IndexFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
		if n <= 0 {
			return 0, errUnit
		}
		x, err := strconv.ParseFloat(rest[:n], 64)
		if err != nil {
			return 0, errUnit
		}
		rest = rest[n:]
		u := strings.IndexAny(rest, "0123456789.")
		if u < 0 {
			u = len(rest)
		}
		ns := 0.0
		for _, unit := range durationUnits {
			if unit.name == rest[:u] {
				ns = unit.ns
			}
		}
		if ns == 0 {
			return 0, errUnit
		}
		total += x * ns
		rest = rest[u:]
	}
	if total >= math.MaxInt64 {
		return 0, errors.New("more than 292 years")
	}
	return time.Duration(math.Round(total)), nil
}

var byteUnits = []struct {
	name  string
	bytes float64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseBytes reads "262144", "256KiB" or "1.5GB". KiB, MiB, GiB and TiB are powers of 1024; kB, MB, GB and TB of 1000.
func ParseBytes(s string) (Bytes, error) {
	number, factor := s, 1.0
	for _, u := range byteUnits {
		if n, ok := strings.CutSuffix(s, u.name); ok {
			number, factor = strings.TrimRight(n, " "), u.bytes
			break
		}
	}
	if number == "" || strings.Trim(number, "0123456789.") != "" || octalLooking(number) {
		return 0, errUnit
	}
	x, err := strconv.ParseFloat(number, 64)
	if err != nil {
		return 0, errUnit
	}
	x *= factor
	if x >= math.MaxInt64 {
		return 0, errors.New("more than 8 EiB")
	}
	if x != math.Trunc(x) {
		return 0, errors.New("not a whole number of bytes")
	}
	return Bytes(x), nil
}

// octalLooking is true for 010, which YAML 1.1 readers take for 8 and people for 10.
func octalLooking(s string) bool {
	s = strings.TrimPrefix(s, "-")
	return len(s) > 1 && s[0] == '0' && s[1] >= '0' && s[1] <= '9'
}

// String renders b in the largest unit that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:4] {
		if n := int64(u.bytes); b != 0 && int64(b)%n == 0 {
			return strconv.FormatInt(int64(b)/n, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// FormatDuration renders d as a configuration would have it: "10m", "15d", "1h30m".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	if d < time.Second {
		return d.String()
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		d    time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}} {
		if n := d / u.d; n > 0 {
			b.WriteString(strconv.FormatInt(int64(n), 10) + u.name)
			d -= n * u.d
		}
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}
