package main

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/rules/detect"
)

// sample is 1,000 points with one anomaly at 500 to 599.
func sample() *file {
	f := &file{name: "a/b.csv", times: make([]int64, 1000), values: make([]float64, 1000), windows: [][2]int{{500, 599}}}
	for i := range f.times {
		f.times[i] = int64(i) * 300e9
	}
	return f
}

func at(points ...int) []bool {
	alarms := make([]bool, 1000)
	for _, i := range points {
		alarms[i] = true
	}
	return alarms
}

func TestScore_FollowsThePublishedRule(t *testing.T) {
	far := -0.11 // a false alarm far from a window
	for _, c := range []struct {
		name   string
		alarms []bool
		raw    float64
	}{
		{"silent", at(), -1},
		{"first point of the window", at(500), 1},
		{"again in the window", at(500, 550, 599), 1},
		{"late in the window", at(599), worth(-0.01) / worth(-1)},
		{"half way", at(550), worth(-0.5) / worth(-1)},
		{"before it", at(400), -1 + far},
		{"just past it", at(600), -1 + 0.11*worth(1./99)},
		{"far past it", at(999), -1 + far},
		{"while learning", at(0, 100, 149), -1},
		{"just after learning", at(150), -1 + far},
	} {
		got := score(sample(), c.alarms, profiles[0])
		if math.Abs(got.raw-c.raw) > 1e-12 {
			t.Errorf("%s: raw score %v, want %v", c.name, got.raw, c.raw)
		}
	}
	if n := score(sample(), at(), profiles[2]).normal(); n != 0 {
		t.Errorf("a silent detector scores %v, want 0", n)
	}
	if n := score(sample(), at(500), profiles[2]).normal(); n != 100 {
		t.Errorf("a perfect detector scores %v, want 100", n)
	}
	// Worked by hand: half way, 2/(1+e^-2.5) - 1 = 0.848284 of 0.986614.
	if got := score(sample(), at(550), profiles[0]).raw; math.Abs(got-0.859793) > 1e-6 {
		t.Errorf("half way into the window: %v, want 0.859793", got)
	}
}

func TestLoad_RefusesLabelsThatAreNoPoints(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("data/a/b.csv", "timestamp,value\n2014-04-01 00:00:00,1\n2014-04-01 00:05:00,2\n")
	write("labels/combined_windows.json", `{"a/b.csv": [["2014-04-01 00:00:00.000000", "2014-04-01 00:05:00.000000"]]}`)
	files, err := load(dir)
	if err != nil || len(files) != 1 || files[0].windows[0] != [2]int{0, 1} || files[0].values[1] != 2 {
		t.Fatalf("load = %+v, %v", files, err)
	}
	write("labels/combined_windows.json", `{"a/b.csv": [["2014-04-01 00:00:00.000000", "2014-04-01 00:06:00.000000"]]}`)
	if _, err := load(dir); err == nil || !strings.Contains(err.Error(), "00:06:00") {
		t.Errorf("load of a label between points: %v", err)
	}
	if _, err := load(filepath.Join(dir, "none")); err == nil {
		t.Error("load of no folder succeeded")
	}
}

// The benchmark's data is not kept here. Where it is, in SLUICE_NAB, the scorer must reproduce what is published, and the default
// detector what docs/anomaly.md says.
func TestCorpus_PublishedAndDocumentedFigures(t *testing.T) {
	folder := os.Getenv("SLUICE_NAB")
	if folder == "" {
		t.Skip("SLUICE_NAB names no folder with the benchmark's data")
	}
	corpus, err := load(folder)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	report(&out, corpus)
	t.Log(out.String())
	alarms := run(corpus, detector{"", func(f *file) []bool { return relativeEntropy(f.values) }})
	for i, want := range []float64{54.64274893469828, 47.598351759844824, 58.84229239324713} {
		if got := tallied(corpus, alarms, everything, profiles[i]).normal(); math.Abs(got-want) > 1e-6 {
			t.Errorf("relative entropy, %s: %v, published %v", profiles[i].name, got, want)
		}
	}
	alarms = run(corpus, detector{"", shipped(detect.Config{})})
	for i, least := range []float64{64.9, 54.3, 70.3} {
		if got := tallied(corpus, alarms, everything, profiles[i]).normal(); got < least {
			t.Errorf("default detector, %s: %.1f, want at least %v", profiles[i].name, got, least)
		}
	}
}
