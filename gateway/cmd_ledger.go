package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
)

func newLedgerCommand() *cobra.Command {
	var asJSON bool
	var since string
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Where every reading and every point of a running gateway went, and what is lost",
		Long: "Where every reading and every point of a running gateway went, since its data directory was made. --since picks the losses that are\n" +
			"listed. Exit code 1 when something is not accounted for.",
		Args: cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().StringVar(&since, "since", "", "losses since a time, or how long ago, such as 24h or 7d; default: all that are known")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		path := "/api/v1/ledger"
		if since != "" {
			t, err := timeArgument(since, time.Now())
			if err != nil {
				return fmt.Errorf("--since: %w: %w", err, errUsage)
			}
			path += "?since=" + url.QueryEscape(t.UTC().Format(time.RFC3339Nano))
		}
		var r console.LedgerReport
		if err := c.do(cmd.Context(), http.MethodGet, path, nil, &r); err != nil {
			return err
		}
		var err error
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), r)
		} else {
			err = printLedger(cmd.OutOrStdout(), &r)
		}
		if err == nil && r.Imbalance != 0 {
			err = fmt.Errorf("%d are not accounted for: keep the data directory, and report it", r.Imbalance)
		}
		return err
	}
	return cmd
}

func printLedger(w io.Writer, r *console.LedgerReport) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "SOURCE\tMESSAGES\tRECEIVED\tAGGREGATED\tDUPLICATE\tLATE\tQUARANTINED\tIMBALANCE")
	for i := range r.Sources {
		s := &r.Sources[i]
		name := s.Source
		if name == "" {
			name = "(none)"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", plain(name), s.Messages, s.Received, s.Aggregated, s.Duplicate, s.Late, s.Quarantined, s.Imbalance)
	}
	if len(r.Destinations) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "DESTINATION\tPOINTS\tDELIVERED\tPENDING\tMERGED\tLOST\tREFUSED\tIMBALANCE")
	}
	for i := range r.Destinations {
		d := &r.Destinations[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", plain(d.Name), d.Points, d.Delivered, d.Pending, d.Degraded, d.Shed, d.Rejected, d.Imbalance)
	}
	if len(r.Losses) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "LOST\tREASON\tSOURCE\tDESTINATION\tFROM\tTO\tNOTED")
	}
	for i := range r.Losses {
		l := &r.Losses[i]
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Count, plain(l.Reason), orDash(plain(l.Source)), orDash(plain(l.Destination)), momentText(l.From), momentText(l.To),
			momentText(l.Noted))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	since := ""
	if !r.Since.IsZero() {
		since = " since " + momentText(r.Since)
	}
	_, err := fmt.Fprintf(w, "\nlost%s: %d, not accounted for: %d\n", since, r.Lost, r.Imbalance)
	return err
}

func momentText(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}
