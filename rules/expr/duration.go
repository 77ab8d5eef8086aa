package expr

import (
	"errors"
	"math"
	"time"
)

// MaxDuration bounds every duration of a rule: ten years, far beyond use and far below what overflows a time in nanoseconds.
const MaxDuration = 3650 * 24 * time.Hour

const durationHint = `want a duration such as "30s", "5m", "1h30m" or "5d"`

var errDuration = errors.New(durationHint)
var errLongDuration = errors.New("a duration is at most 3650d")

var durationUnits = [...]struct {
	name string
	size time.Duration
}{
	{"w", 7 * 24 * time.Hour},
	{"d", 24 * time.Hour},
	{"h", time.Hour},
	{"m", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
}

// ParseDuration reads whole numbers with the units w d h m s ms, from large to small and each at most once: 30s, 1h30m, 5d.
func ParseDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errDuration
	}
	var total time.Duration
	unit := 0
	for s != "" {
		n, i := int64(0), 0
		for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
			if n > (math.MaxInt64-9)/10 {
				return 0, errLongDuration
			}
			n = n*10 + int64(s[i]-'0')
		}
		if i == 0 {
			return 0, errDuration
		}
		s = s[i:]
		for i = 0; i < len(s) && (s[i] < '0' || s[i] > '9'); i++ {
		}
		for unit < len(durationUnits) && durationUnits[unit].name != s[:i] {
			unit++
		}
		if unit == len(durationUnits) {
			return 0, errDuration
		}
		size := durationUnits[unit].size
		if n > int64(MaxDuration/size) {
			return 0, errLongDuration
		}
		if total += time.Duration(n) * size; total > MaxDuration {
			return 0, errLongDuration
		}
		unit++
		s = s[i:]
	}
	return total, nil
}
