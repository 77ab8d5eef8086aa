// Command nab scores the detectors by the rule of the Numenta Anomaly Benchmark on a copy of its data, which is not part of this
// repository: a folder with data/ and labels/ of https://github.com/numenta/NAB.
//
//	go run ./rules/detect/nab FOLDER
//
// Figures are with the parameters that ship, the same for every file. Parameters were chosen on the tuning half of the files alone; the
// columns tell how each half and the whole corpus come out. It is one goroutine and reads nothing but the folder.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
	"time"

	"sluice/rules/detect"
)

func main() {
	files := flag.Bool("files", false, "also list what the default detector finds in each file")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: nab [-files] FOLDER")
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	corpus, err := load(flag.Arg(0))
	if err != nil {
		fmt.Fprintln(os.Stderr, "nab:", err)
		os.Exit(1)
	}
	report(os.Stdout, corpus)
	if *files {
		reportFiles(os.Stdout, corpus)
	}
}

// detector is what gives alarms for a file's points.
type detector struct {
	name   string
	alarms func(f *file) []bool
}

func report(out io.Writer, corpus []*file) {
	points, windows := 0, 0
	for _, f := range corpus {
		points, windows = points+len(f.values), windows+len(f.windows)
	}
	fmt.Fprintf(out, "%d files, %d points, %d labelled windows\n\n", len(corpus), points, windows)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	head := func() {
		fmt.Fprintln(w, "\twhole\t\t\ttuning half\t\t\tother half\t\t\twhole\t\t\t")
		fmt.Fprintln(w, "detector\tstandard\tlow-FP\tlow-FN\tstandard\tlow-FP\tlow-FN\tstandard\tlow-FP\tlow-FN\tfound\tfalse\tns/point\t")
	}
	head()
	row := func(d detector) {
		started := time.Now()
		alarms := run(corpus, d)
		spent := time.Since(started)
		fmt.Fprint(w, d.name)
		for _, half := range []func(*file) bool{everything, (*file).tuning, held} {
			for _, p := range profiles {
				fmt.Fprintf(w, "\t%.1f", tallied(corpus, alarms, half, p).normal())
			}
		}
		t := tallied(corpus, alarms, everything, profiles[0])
		fmt.Fprintf(w, "\t%d/%d\t%d\t%d\t\n", t.found, t.windows, t.falseAlarms, spent.Nanoseconds()/int64(points))
	}
	row(detector{"relative entropy (published 54.6 47.6 58.8)", func(f *file) []bool { return relativeEntropy(f.values) }})
	for _, method := range detect.Methods() {
		row(detector{method, shipped(detect.Config{Method: method})})
	}
	w.Flush()
	fmt.Fprint(out, "\nWith the sensitivity that suits each profile best, chosen on the whole corpus as the benchmark's own results are:\n\n")
	sensitivities := []float64{2, 2.5, 3, 3.3, 3.6, 4, 4.5, 5, 6, 8, 10}
	fmt.Fprint(w, "detector\tstandard\tat\tlow-FP\tat\tlow-FN\tat\ttuning standard\tat\t\n")
	for _, method := range detect.Methods() {
		runs := make([][][]bool, len(sensitivities))
		for i, s := range sensitivities {
			runs[i] = run(corpus, detector{"", shipped(detect.Config{Method: method, Sensitivity: s})})
		}
		best := func(of func(*file) bool, p profile) {
			top, at := math.Inf(-1), 0.0
			for i, alarms := range runs {
				if n := tallied(corpus, alarms, of, p).normal(); n > top {
					top, at = n, sensitivities[i]
				}
			}
			fmt.Fprintf(w, "\t%.1f\t%v", top, at)
		}
		fmt.Fprint(w, method)
		for _, p := range profiles {
			best(everything, p)
		}
		best((*file).tuning, profiles[0])
		fmt.Fprint(w, "\t\n")
	}
	w.Flush()
	fmt.Fprint(out, "\nThe default detector by sensitivity:\n\n")
	head()
	for _, s := range sensitivities {
		row(detector{fmt.Sprintf("auto %v", s), shipped(detect.Config{Sensitivity: s})})
	}
}

func everything(*file) bool { return true }
func held(f *file) bool     { return !f.tuning() }

// shipped runs a detector as the rules do and takes the beginning of each anomaly.
func shipped(c detect.Config) func(f *file) []bool {
	return func(f *file) []bool {
		d, err := detect.New(c)
		if err != nil {
			panic(err) // the configurations are above
		}
		alarms := make([]bool, len(f.values))
		before := false
		for i, v := range f.values {
			_, alarm := d.Observe(f.times[i], v)
			alarms[i] = alarm && !before
			before = alarm
		}
		return alarms
	}
}

func run(corpus []*file, d detector) [][]bool {
	alarms := make([][]bool, len(corpus))
	for i, f := range corpus {
		alarms[i] = d.alarms(f)
	}
	return alarms
}

func tallied(corpus []*file, alarms [][]bool, of func(*file) bool, p profile) tally {
	var t tally
	for i, f := range corpus {
		if of(f) {
			t.add(score(f, alarms[i], p))
		}
	}
	return t
}

func reportFiles(out io.Writer, corpus []*file) {
	fmt.Fprintln(out)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer w.Flush()
	fmt.Fprintln(w, "file\thalf\tpoints\tfound\tfalse")
	for i, alarms := range run(corpus, detector{detect.Auto, shipped(detect.Config{})}) {
		f, half := corpus[i], "other"
		if f.tuning() {
			half = "tuning"
		}
		t := score(f, alarms, profiles[0])
		fmt.Fprintf(w, "%s\t%s\t%d\t%d/%d\t%d\n", f.name, half, len(f.values), t.found, t.windows, t.falseAlarms)
	}
}
