package main

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// file is one labelled series.
type file struct {
	name    string // such as realTweets/Twitter_volume_AAPL.csv
	times   []int64
	values  []float64
	windows [][2]int // first and last point of each labelled anomaly

	window []int // see marks
	value  []float64
}

func (f *file) marks() ([]int, []float64) {
	if f.window == nil {
		f.window, f.value = marks(f)
	}
	return f.window, f.value
}

// tuning tells which half of the corpus a file is in, by a hash of its name: parameters were chosen on the tuning half alone.
func (f *file) tuning() bool {
	h := fnv.New32a()
	h.Write([]byte(f.name))
	return h.Sum32()>>16&1 == 0
}

// load reads a copy of the benchmark: data/*/*.csv and labels/combined_windows.json under folder. Files come by name.
func load(folder string) ([]*file, error) {
	b, err := os.ReadFile(filepath.Join(folder, "labels", "combined_windows.json"))
	if err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	var labels map[string][][2]string
	if err := json.Unmarshal(b, &labels); err != nil {
		return nil, fmt.Errorf("read labels: %w", err)
	}
	var files []*file
	for name, windows := range labels {
		f := &file{name: name}
		if err := f.read(filepath.Join(folder, "data", filepath.FromSlash(name)), windows); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		files = append(files, f)
	}
	slices.SortFunc(files, func(a, b *file) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

func (f *file) read(path string, windows [][2]string) error {
	r, err := os.Open(path)
	if err != nil {
		return err
	}
	defer r.Close()
	rows, err := csv.NewReader(r).ReadAll()
	if err != nil {
		return err
	}
	for i, row := range rows {
		if i == 0 { // the header
			continue
		}
		t, err := instant(row[0])
		if err != nil {
			return err
		}
		v, err := strconv.ParseFloat(row[1], 64)
		if err != nil {
			return err
		}
		f.times, f.values = append(f.times, t), append(f.values, v)
	}
	for _, w := range windows {
		var at [2]int
		for i := range w {
			t, err := instant(w[i])
			if err != nil {
				return err
			}
			if at[i] = slices.Index(f.times, t); at[i] < 0 {
				return fmt.Errorf("label %s is not the time of a point", w[i])
			}
		}
		f.windows = append(f.windows, at)
	}
	return nil
}

// instant reads a time of the corpus, which gives no zone.
func instant(s string) (int64, error) {
	t, err := time.Parse(time.DateTime, s) // takes a fraction, too
	return t.UnixNano(), err
}
