package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"
)

// Record is what a gateway sends: docs/destinations.md. Keys that this program does not use are left out; keys that it does
// not know are ignored, as the contract asks.
type Record struct {
	Schema      int                  `json:"schema"`
	ID          string               `json:"id"`      // stands for measurement, tags and time
	Version     string               `json:"version"` // of equal ids the greatest counts
	Measurement string               `json:"measurement"`
	Tags        map[string]string    `json:"tags"`
	Time        int64                `json:"time"` // ns since the Unix epoch
	Aggregates  map[string]Aggregate `json:"aggregates"`
}

// Aggregate is one metric over a window.
type Aggregate struct {
	Count     int64   `json:"count"`
	Sum       float64 `json:"sum"`
	Min       float64 `json:"min"`
	Max       float64 `json:"max"`
	First     float64 `json:"first"`
	Last      float64 `json:"last"`
	FirstTime int64   `json:"first_time"`
	LastTime  int64   `json:"last_time"`
	Stddev    float64 `json:"stddev"` // of the population
}

// Merge adds the readings of b. Variances combine as in Chan, Golub and LeVeque (1979).
func (a *Aggregate) Merge(b Aggregate) {
	if a.Count == 0 || b.Count == 0 {
		if b.Count > 0 {
			*a = b
		}
		return
	}
	n, m := float64(a.Count), float64(b.Count)
	d := b.Sum/m - a.Sum/n
	squares := a.Stddev*a.Stddev*n + b.Stddev*b.Stddev*m + d*d*n*m/(n+m)
	a.Stddev = math.Sqrt(squares / (n + m))
	a.Count += b.Count
	a.Sum += b.Sum
	a.Min, a.Max = min(a.Min, b.Min), max(a.Max, b.Max)
	if b.FirstTime < a.FirstTime {
		a.First, a.FirstTime = b.First, b.FirstTime
	}
	if b.LastTime >= a.LastTime {
		a.Last, a.LastTime = b.Last, b.LastTime
	}
}

// Hours keeps the latest version of every window, by hour. A window is never added to a sum that could not take it out again: a
// correction replaces it, and an hour is summed up when it is asked for.
type Hours struct {
	windows map[hour]map[string]window // by id
	Repeats int                        // records that were there already, or older than what was there
}

type hour struct {
	start  int64 // s since the Unix epoch
	series string
	metric string
}

type window struct {
	version string
	time    int64
	Aggregate
}

// Add takes a record in. Records without aggregates (readings, alerts, gaps) are not what this program is for.
func (h *Hours) Add(b []byte) error {
	var r Record
	if err := json.Unmarshal(b, &r); err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	if r.Schema != 1 || r.ID == "" || r.Version == "" {
		return fmt.Errorf("record %q of schema %d: this program reads schema 1", r.ID, r.Schema)
	}
	if h.windows == nil {
		h.windows = make(map[hour]map[string]window)
	}
	for metric, a := range r.Aggregates {
		start := time.Unix(0, r.Time).Truncate(time.Hour).Unix()
		k := hour{start, series(&r), metric}
		if h.windows[k] == nil {
			h.windows[k] = make(map[string]window)
		}
		if old, ok := h.windows[k][r.ID]; ok && old.version >= r.Version {
			h.Repeats++
			continue
		}
		h.windows[k][r.ID] = window{r.Version, r.Time, a}
	}
	return nil
}

// series names a record's series without its window: windows of several lengths, where a gateway had to save space, are
// parts of the same hour and never overlap.
func series(r *Record) string {
	var b strings.Builder
	b.WriteString(r.Measurement)
	for _, name := range slices.Sorted(maps.Keys(r.Tags)) {
		if name != "window" {
			fmt.Fprintf(&b, " %s=%s", name, r.Tags[name])
		}
	}
	return b.String()
}

// Row is one hour of one metric of one series.
type Row struct {
	Hour    string `json:"hour"`
	Series  string `json:"series"`
	Metric  string `json:"metric"`
	Windows int    `json:"windows"`
	Aggregate
}

// Rows sums up every hour, in order.
func (h *Hours) Rows() []Row {
	keys := slices.SortedFunc(maps.Keys(h.windows), func(a, b hour) int {
		return cmp.Or(cmp.Compare(a.start, b.start), strings.Compare(a.series, b.series), strings.Compare(a.metric, b.metric))
	})
	rows := make([]Row, 0, len(keys))
	for _, k := range keys {
		row := Row{Hour: time.Unix(k.start, 0).UTC().Format(time.RFC3339), Series: k.series, Metric: k.metric, Windows: len(h.windows[k])}
		windows := slices.SortedFunc(maps.Values(h.windows[k]), func(a, b window) int { return cmp.Compare(a.time, b.time) })
		for _, w := range windows {
			row.Merge(w.Aggregate)
		}
		rows = append(rows, row)
	}
	return rows
}
