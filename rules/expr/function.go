package expr

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// function is one row of the language's functions. Its arguments are one of forms, a letter each: n a number, q a constant from 0
// to 1, m a metric, d a duration, s a selector of devices.
type function struct {
	name    string
	forms   []string
	example string
	clock   bool                                          // changes with time alone
	window  func(w *Window, now int64) float64            // of m, d
	ranks   func(w *Window, q float64, now int64) float64 // of q, m, d
	wall    func(t time.Time) int                         // of no argument
	number  func(v float64) float64                       // of n
}

var functions = []function{
	{name: "abs", forms: []string{"n"}, example: "abs(current)", number: math.Abs},
	{name: "rate", forms: []string{"md"}, example: "rate(temperature, 1m)", window: (*Window).rate},
	{name: "delta", forms: []string{"md"}, example: "delta(level, 1h)", window: (*Window).delta},
	{name: "avg", forms: []string{"md"}, example: "avg(temperature, 5m)", window: (*Window).avg},
	{name: "min", forms: []string{"md"}, example: "min(temperature, 5m)", window: (*Window).min},
	{name: "max", forms: []string{"md"}, example: "max(temperature, 5m)", window: (*Window).max},
	{name: "sum", forms: []string{"md"}, example: "sum(pulses, 1h)", window: (*Window).sum},
	{name: "count", forms: []string{"md"}, example: "count(temperature, 5m)", window: (*Window).count},
	{name: "stddev", forms: []string{"md"}, example: "stddev(pressure, 10m)", window: (*Window).stddev},
	{name: "quantile", forms: []string{"qmd"}, example: "quantile(0.95, latency, 5m)", ranks: func(w *Window, q float64, now int64) float64 { return w.quantile(q, now) }},
	{name: "last", forms: []string{"m", "md", "sm", "smd"}, example: `last("device=outdoor", temperature)`},
	{name: "age", forms: []string{"m"}, example: "age(temperature)", clock: true},
	{name: "hour", forms: []string{""}, example: "hour()", clock: true, wall: time.Time.Hour},
	{name: "weekday", forms: []string{""}, example: "weekday()", clock: true, wall: func(t time.Time) int { return int(t.Weekday()) }},
}

func functionNamed(name string) *function {
	i := slices.IndexFunc(functions, func(f function) bool { return f.name == name })
	if i < 0 {
		return nil
	}
	return &functions[i]
}

// Functions lists the names of the language's functions with an example each, for documentation and completion.
func Functions() (names, examples []string) {
	for i := range functions {
		names, examples = append(names, functions[i].name), append(examples, functions[i].example)
	}
	return names, examples
}

// unknownFunction suggests the closest name where a typo is likely.
func unknownFunction(name string) string {
	names, _ := Functions()
	for _, n := range names {
		if len(name) < 32 && oneTypo(strings.ToLower(name), n) {
			return fmt.Sprintf("unknown function %s: did you mean %s?", name, n)
		}
	}
	return fmt.Sprintf("unknown function %s: there are %s", clip(name, 32), strings.Join(names, ", "))
}

// oneTypo tells whether one letter changed, missing, added or swapped with its neighbour makes a of b.
func oneTypo(a, b string) bool {
	if len(a) > len(b) {
		a, b = b, a
	}
	i := 0
	for i < len(a) && a[i] == b[i] {
		i++
	}
	switch {
	case len(b) > len(a)+1:
		return false
	case len(b) == len(a)+1:
		return a[i:] == b[i+1:]
	case i == len(a):
		return true
	}
	return a[i+1:] == b[i+1:] || i+1 < len(a) && a[i] == b[i+1] && a[i+1] == b[i] && a[i+2:] == b[i+2:]
}

// periods at which what depends on time is evaluated while no message comes.
const (
	minEvery   = time.Second
	maxEvery   = time.Minute
	ageEvery   = 10 * time.Second // where age is not compared with a constant
	clockEvery = 15 * time.Minute // time zones are whole quarters of an hour off
)

func every(d time.Duration) time.Duration { return min(max(d/cells, minEvery), maxEvery) }
