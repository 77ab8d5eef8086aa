package history

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/common/model"
)

// The least and the greatest time there is, in the bounds of both ms and ns arithmetic of the engine.
var (
	minTime = time.Unix(math.MinInt64/1000+62135596801, 0).UTC()
	maxTime = time.Unix(math.MaxInt64/1000-62135596801, 999999999).UTC()
)

// time reads a parameter, or gives its default.
func (r *request) time(name string, otherwise time.Time) (time.Time, error) {
	s := r.FormValue(name)
	if s == "" {
		return otherwise, nil
	}
	return parseTime(s)
}

// duration reads a parameter; ok is false when it is not given.
func (r *request) duration(name string) (d time.Duration, ok bool, err error) {
	s := r.FormValue(name)
	if s == "" {
		return 0, false, nil
	}
	d, err = parseDuration(s)
	return d, true, err
}

// limit reads the greatest number of results, 0 for no limit.
func (r *request) limit() (int, error) { return r.number("limit") }

// number reads how many there may be of something, 0 for any number.
func (r *request) number(name string) (int, error) {
	s := r.FormValue(name)
	if s == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, err
	}
	if n < 0 {
		return 0, errors.New(name + " must be non-negative")
	}
	return min(n, math.MaxInt32), nil
}

// parseTime reads Unix seconds, with a fraction down to milliseconds, or RFC 3339.
func parseTime(s string) (time.Time, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		sec, frac := math.Modf(f)
		if !(sec >= float64(minTime.Unix()) && sec <= float64(maxTime.Unix())) { // NaN included
			return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
		}
		return time.Unix(int64(sec), int64(math.Round(frac*1000))*int64(time.Millisecond)).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
		return t, nil
	}
	// What Prometheus and its client write for the least and the greatest time.
	switch s {
	case minTime.Format(time.RFC3339Nano):
		return minTime, nil
	case maxTime.Format(time.RFC3339Nano):
		return maxTime, nil
	}
	return time.Time{}, fmt.Errorf("cannot parse %q to a valid timestamp", s)
}

// parseDuration reads seconds, or Prometheus' durations such as 5m or 1h30m.
func parseDuration(s string) (time.Duration, error) {
	if f, err := strconv.ParseFloat(s, 64); err == nil {
		ns := f * float64(time.Second)
		if !(ns > math.MinInt64 && ns < math.MaxInt64) { // NaN included
			return 0, fmt.Errorf("cannot parse %q to a valid duration. It overflows int64", s)
		}
		return time.Duration(ns), nil
	}
	d, err := model.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("cannot parse %q to a valid duration", s)
	}
	return time.Duration(d), nil
}
