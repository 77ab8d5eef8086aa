package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
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
	cmd.Flags().StringArrayVar(&f.changes, "for-change", nil, "alert=duration, or a duration for every rule: also with another for, repeatable")
	cmd.Flags().BoolVar(&f.json, "json", false, "print JSON")
	return cmd
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
	o, err := backtestInput(f)
	if err != nil {
		return err
	}
	o.Since, o.Changes = since, changes
	show, stop := progressBar(progress)
	report, err := backtest(ctx, o, show)
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
		if !ok {
			alert, text = "", c
		}
		d, err := expr.ParseDuration(text)
		if err != nil || ok && alert == "" {
			return nil, fmt.Errorf("--for-change: want alert=duration such as FreezerWarm=2m, or a duration, got %q: %w", c, errUsage)
		}
		changes[alert] = d
	}
	return changes, nil
}

// backtestInput is what to replay through which rules. Of the configuration it needs no secret.
func backtestInput(f *backtestFlags) (backtestOptions, error) {
	var o backtestOptions
	cfg, err := config.Load(f.config)
	if err != nil {
		return o, &configError{err}
	}
	var files []rules.File
	if len(f.rules) > 0 {
		if files, err = readFiles(f.rules); err != nil {
			return o, err
		}
	}
	if o.Spec, err = backtestSpec(cfg, files); err != nil {
		return o, withDetail(err)
	}
	o.Journal = journalDir(cfg)
	return o, nil
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
