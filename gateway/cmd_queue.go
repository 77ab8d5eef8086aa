package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
	"sluice/rules/expr"
)

func newQueueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "queue",
		Short: "Look after what waits for destinations and webhooks on a running gateway",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		newQueueListCommand("stats", "What waits for each destination, how fast it goes and when it is gone", printQueues),
		newQueueListCommand("forecast", "How long each outbox lasts when nothing is delivered any more, from measured rates", printForecasts),
		newQueuePurgeCommand())
	return cmd
}

func newQueueListCommand(use, short string, show func(io.Writer, []console.Destination, time.Time) error) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: use + " [NAME...]", Short: short}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var l console.OutboxList
		if len(args) == 0 {
			if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/outboxes", nil, &l); err != nil {
				return err
			}
		}
		for _, name := range args {
			var one console.Destination
			if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/outboxes/"+url.PathEscape(name), nil, &one); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			l.Outboxes = append(l.Outboxes, one)
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		if len(l.Outboxes) == 0 {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "no destinations and no webhooks are configured")
			return err
		}
		return show(cmd.OutOrStdout(), l.Outboxes, time.Now())
	}
	return cmd
}

func printQueues(w io.Writer, list []console.Destination, now time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tTYPE\tSTATE\tPENDING\tOLDEST\tRATE\tGONE IN\tON DISK\tDELIVERED\tREFUSED\tMERGED\tLOST\tLAST ERROR")
	for i := range list {
		o := &list[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s/s\t%s\t%s\t%d\t%d\t%d\t%d\t%s\n", plain(o.Name), o.Type, o.State, o.Pending, ago(now, o.Oldest), rateText(o.Rate), etaText(o),
			ofBound(o.Bytes, o.MaxBytes), o.Delivered, o.Quarantined, o.Degraded, o.Shed, brief(orDash(o.LastError), 70))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range list {
		o := &list[i]
		var parts []string
		for _, tier := range o.Tiers {
			if tier.Window != "" && tier.Points > 0 {
				parts = append(parts, fmt.Sprintf("%d in windows of %s (%s)", tier.Points, tier.Window, byteText(tier.Bytes)))
			}
		}
		if len(parts) > 0 {
			fmt.Fprintf(w, "%s: of what waits, merged: %s\n", plain(o.Name), strings.Join(parts, ", "))
		}
		if b := o.Bandwidth; b != nil {
			fmt.Fprintf(w, "%s sent %s today, %s this month", plain(o.Name), ofBound(b.SentToday, b.BytesPerDay), ofBound(b.SentThisMonth, b.BytesPerMonth))
			if b.PausedReason != "" {
				fmt.Fprintf(w, "; nothing but alerts goes out: %s", plain(b.PausedReason))
			}
			fmt.Fprintln(w)
		}
	}
	return nil
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func ofBound(n, bound int64) string {
	if bound <= 0 {
		return byteText(n)
	}
	return byteText(n) + " of " + byteText(bound)
}

func rateText(r float64) string {
	if r >= 100 {
		return strconv.FormatFloat(r, 'f', 0, 64)
	}
	return strconv.FormatFloat(math.Round(r*10)/10, 'f', -1, 64)
}

// etaText is when nothing waits any more.
func etaText(o *console.Destination) string {
	switch {
	case o.Pending == 0:
		return "-"
	case o.ETA <= 0:
		return "?"
	}
	return spanText(time.Duration(o.ETA * float64(time.Second)))
}

func spanText(d time.Duration) string {
	switch {
	case d < time.Minute:
		return strconv.Itoa(int(d.Round(time.Second)/time.Second)) + "s"
	case d < 2*time.Hour:
		return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
	case d < 72*time.Hour:
		return strconv.Itoa(int(d.Hours()+0.5)) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24+0.5)) + "d"
}

func printForecasts(w io.Writer, list []console.Destination, _ time.Time) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tON DISK\tWHEN FULL\tCOMES IN\tMEASURED OVER\tFULL RESOLUTION FOR\tNOTHING LOST FOR\tWHOLE OUTBOX AT COARSEST")
	for i := range list {
		o := &list[i]
		f := &o.Forecast
		in, over := "not measured yet", "-"
		if f.BytesPerDayIn > 0 {
			in, over = byteText(int64(f.BytesPerDayIn))+"/day", spanText(time.Duration(f.MeasuredOver*float64(time.Second)))
		}
		coarsest := "-"
		if f.Coarsest != "" && f.DaysAtCoarsest != nil {
			coarsest = daysText(f.DaysAtCoarsest) + " at " + f.Coarsest
		}
		degrade := daysText(f.DaysUntilDegrade)
		if f.DaysUntilDegrade == nil {
			degrade = daysText(f.DaysUntilFull)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", plain(o.Name), ofBound(o.Bytes, o.MaxBytes), o.WhenFull, in, over, degrade, daysText(f.DaysUntilFull), coarsest)
	}
	return t.Flush()
}

func daysText(d *float64) string {
	switch {
	case d == nil:
		return "no end known"
	case *d < 0.05:
		return "now"
	case *d < 2:
		return strconv.FormatFloat(*d*24, 'f', 1, 64) + " h"
	case *d < 10000:
		return strconv.FormatFloat(*d, 'f', 1, 64) + " days"
	}
	return "years"
}

func newQueuePurgeCommand() *cobra.Command {
	var asJSON, yes, all bool
	var before string
	var p struct {
		Before string `json:"before"`
		Reason string `json:"reason"`
	}
	cmd := &cobra.Command{
		Use:     "purge NAME",
		Short:   "Give up what waits for a destination or webhook; the ledger lists it as lost",
		Example: "  sluice queue purge cloud --before 48h --reason 'test data'\n  sluice queue purge cloud --all --yes",
		Args:    cobra.ExactArgs(1),
	}
	c := clientFlags(cmd)
	cmd.Flags().StringVar(&before, "before", "", "what came before that time: 2026-05-01T00:00:00Z, or how long ago, such as 48h or 7d")
	cmd.Flags().BoolVar(&all, "all", false, "everything that waits")
	cmd.Flags().StringVar(&p.Reason, "reason", "", "why, for the audit")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the outcome as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (before != "") {
			return fmt.Errorf("want --before, or --all: %w", errUsage)
		}
		what := "everything"
		if before != "" {
			t, err := timeArgument(before, time.Now())
			if err != nil {
				return fmt.Errorf("--before: %w: %w", err, errUsage)
			}
			p.Before = t.UTC().Format(time.RFC3339Nano)
			what = "everything from before " + t.Local().Format(time.DateTime)
		}
		if err := confirm(cmd, yes, fmt.Sprintf("Give up %s that waits for %s? It will never be delivered.", what, args[0])); err != nil {
			return err
		}
		var res console.Purged
		if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/outboxes/"+url.PathEscape(args[0])+"/purge", p, &res); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), res)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d given up\n", res.Points)
		return err
	}
	return cmd
}

// timeArgument reads a time, or how long before now.
func timeArgument(s string, now time.Time) (time.Time, error) {
	for _, layout := range [...]string{time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	if s == "now" {
		return now, nil
	}
	d, err := expr.ParseDuration(s)
	if err != nil {
		return time.Time{}, fmt.Errorf("want a time such as 2026-05-01T00:00:00Z, or how long ago such as 48h or 7d, got %q", s)
	}
	return now.Add(-d), nil
}
