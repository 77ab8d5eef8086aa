package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/term"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/rules"
	"sluice/rules/expr"
)

type backtestFlags struct {
	config  string
	rules   []string
	since   string
	changes []string
	json    bool
}

func newBacktestCommand() *cobra.Command {
	var f backtestFlags
	cmd := &cobra.Command{
		Use:   "backtest",
		Short: "Replay the journal with other rules: what would have fired, for how long, how often it flapped",
		Long: "Replay the journal in the data directory through the rules given, or those of the configuration. The journal is only read, also\n" +
			"while a gateway runs on it. Payloads are read as the sources in the configuration say now.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runBacktest(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), &f)
		},
	}
	configFlag(cmd, &f.config)
	cmd.Flags().StringArrayVar(&f.rules, "rules", nil, "rule file or pattern, repeatable; default: those of the configuration")
	cmd.Flags().StringVar(&f.since, "since", "", "how far to go back, such as 7d; default: all the journal holds")
	cmd.Flags().StringArrayVar(&f.changes, "for-change", nil, "alert=duration: also with another for, repeatable")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
}

// backtestReport is what --json prints.
type backtestReport struct {
	From     time.Time      `json:"from"`
	To       time.Time      `json:"to"`
	Messages uint64         `json:"messages"`
	Damaged  uint64         `json:"damaged"`
	Trimmed  uint64         `json:"trimmed"` // released by the gateway meanwhile
	Rules    []backtestRule `json:"rules"`
}

type backtestRule struct {
	pipeline.RuleStats
	Changed *pipeline.RuleStats `json:"changed,omitempty"` // with the other for
}

func runBacktest(ctx context.Context, w, progress io.Writer, f *backtestFlags) error {
	changes, err := parseChanges(f.changes)
	if err != nil {
		return err
	}
	since := time.Duration(0)
	if f.since != "" {
		if since, err = expr.ParseDuration(f.since); err != nil {
			return fmt.Errorf("--since: %w: %w", err, errUsage)
		}
	}
	spec, journal, err := backtestInput(f)
	if err != nil {
		return err
	}
	log, _, err := seglog.OpenReadOnly(journal, seglog.Options{})
	if err != nil {
		return err
	}
	defer log.Close()
	from := log.First()
	if since > 0 {
		if from, err = log.SeekTime(time.Now().Add(-since).UnixNano()); err != nil {
			return err
		}
	}
	r := &replay{log: log, from: from}
	stop := r.show(progress)
	report, err := r.run(ctx, spec, changes)
	stop()
	if err != nil {
		return err
	}
	if f.json {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(report)
	}
	return printBacktest(w, report)
}

func parseChanges(list []string) (map[string]time.Duration, error) {
	changes := map[string]time.Duration{}
	for _, c := range list {
		alert, text, ok := strings.Cut(c, "=")
		d, err := expr.ParseDuration(text)
		if !ok || err != nil {
			return nil, fmt.Errorf("--for-change: want alert=duration such as FreezerWarm=2m, got %q: %w", c, errUsage)
		}
		changes[alert] = d
	}
	return changes, nil
}

// backtestInput is the spec to replay under and the journal's directory. Of the configuration it needs no secret.
func backtestInput(f *backtestFlags) (*pipeline.Spec, string, error) {
	cfg, err := config.Load(f.config)
	if err != nil {
		return nil, "", &configError{err}
	}
	var files []rules.File
	if len(f.rules) > 0 {
		files, err = readFiles(f.rules)
	} else {
		files, err = readRuleFiles(cfg)
	}
	if err != nil {
		return nil, "", err
	}
	if _, err := rules.Parse(files); err != nil {
		return nil, "", withDetail(err)
	}
	return buildSpec(cfg, files), filepath.Join(cfg.Gateway.DataDir, "journal"), nil
}

// replay folds one journal, once for the rules as they are and once for those changed, beside each other.
type replay struct {
	log  *seglog.Log
	from seglog.LSN
	at   atomic.Uint64
}

func (r *replay) run(ctx context.Context, spec *pipeline.Spec, changes map[string]time.Duration) (*backtestReport, error) {
	variants := []map[string]time.Duration{nil}
	if len(changes) > 0 {
		variants = append(variants, changes)
	}
	report := &backtestReport{}
	stats := make([][]pipeline.RuleStats, len(variants))
	group, ctx := errgroup.WithContext(ctx)
	for i, v := range variants {
		b, err := pipeline.NewBacktest(spec, v)
		if err != nil {
			return nil, err
		}
		group.Go(func() error {
			trimmed, err := r.fold(ctx, b, i == 0)
			if err != nil {
				return err
			}
			stats[i] = b.Report()
			if i == 0 {
				report.From, report.To, report.Messages, report.Damaged = b.Span()
				report.Trimmed = trimmed
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i := range stats[0] {
		rule := backtestRule{RuleStats: stats[0][i]}
		if _, changed := changes[rule.Alert]; changed {
			rule.Changed = &stats[1][i]
		}
		report.Rules = append(report.Rules, rule)
	}
	return report, nil
}

// fold takes in every record; count has it show how far it is.
func (r *replay) fold(ctx context.Context, b *pipeline.Backtest, count bool) (trimmed uint64, err error) {
	c := r.log.Cursor(r.from)
	defer c.Close()
	for n := 0; ; n++ {
		rec, ok, err := c.TryNext()
		if err != nil {
			return 0, err
		}
		if !ok {
			trimmed, _ := c.Skipped()
			return trimmed, nil
		}
		b.Apply(&rec)
		if n%1024 == 0 {
			if ctx.Err() != nil {
				return 0, ctx.Err()
			}
			if count {
				r.at.Store(uint64(rec.LSN))
			}
		}
	}
}

// show draws a bar on a terminal until the function it returns is called.
func (r *replay) show(w io.Writer) (stop func()) {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return func() {}
	}
	done, gone := make(chan struct{}), make(chan struct{})
	first, last := uint64(r.from), uint64(r.log.Visible())
	go func() {
		defer close(gone)
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-done:
				fmt.Fprint(w, "\r\033[K")
				return
			case <-t.C:
			}
			fmt.Fprintf(w, "\r%s", bar(max(r.at.Load(), first)-first, last-first+1))
		}
	}()
	return func() {
		close(done)
		<-gone
	}
}

// bar draws how much of the whole is done.
func bar(done, whole uint64) string {
	const width = 40
	share := min(float64(done)/float64(max(whole, 1)), 1)
	full := int(share * width)
	return fmt.Sprintf("[%s%s] %3.0f %%", strings.Repeat("=", full), strings.Repeat(" ", width-full), share*100)
}

func printBacktest(w io.Writer, r *backtestReport) error {
	if r.Messages == 0 {
		fmt.Fprintln(w, "the journal holds no messages of that time")
	} else {
		fmt.Fprintf(w, "%d messages from %s to %s\n", r.Messages, r.From.Local().Format(time.DateTime), r.To.Local().Format(time.DateTime))
	}
	if r.Damaged > 0 || r.Trimmed > 0 {
		fmt.Fprintf(w, "%d records could not be read, %d were released by the gateway meanwhile\n", r.Damaged, r.Trimmed)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "alert\tfor\tfired\tseries\ttotal\tlongest\tflaps\tinhibited\tfirst\tlast\tstill firing")
	for i := range r.Rules {
		rule := &r.Rules[i]
		row(t, rule.Alert, &rule.RuleStats)
		if rule.Changed != nil {
			row(t, "  changed", rule.Changed)
		}
	}
	return t.Flush()
}

func row(w io.Writer, name string, s *pipeline.RuleStats) {
	moment := func(t time.Time) string {
		if t.IsZero() {
			return "-"
		}
		return t.Local().Format(time.DateTime)
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%d\t%s\t%s\t%d\n", name, s.For, s.Fired, s.Series, s.Total.Round(time.Second), s.Longest.Round(time.Second),
		s.Flaps, s.Inhibited, moment(s.First), moment(s.Last), s.FiringAtEnd)
}
