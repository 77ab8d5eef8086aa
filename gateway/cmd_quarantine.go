package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
	"sluice/uplink"
)

func newQuarantineCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Look at what a running gateway refused, and put it back on its way",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuarantineListCommand(), newQuarantineShowCommand(), newQuarantineReplayCommand(), newQuarantineRemoveCommand())
	return cmd
}

// quarantineFlags add a filter to a command.
func quarantineFlags(cmd *cobra.Command) *console.QuarantineFilter {
	q := &console.QuarantineFilter{}
	f := cmd.Flags()
	f.StringVar(&q.Stage, "stage", "", "decode, time or sink")
	f.StringVar(&q.Reason, "reason", "", "such as syntax or late")
	f.StringVar(&q.Source, "source", "", "name of the source")
	f.StringVar(&q.Destination, "destination", "", "name of the destination that refused")
	f.StringVar(&q.Search, "search", "", "text in topic, detail or payload")
	cmd.RegisterFlagCompletionFunc("stage", cobra.FixedCompletions([]string{"decode", "time", "sink"}, cobra.ShellCompDirectiveNoFileComp))
	return q
}

func quarantineQuery(q *console.QuarantineFilter) url.Values {
	v := url.Values{}
	for name, value := range map[string]string{"stage": q.Stage, "reason": q.Reason, "source": q.Source, "destination": q.Destination, "search": q.Search} {
		if value != "" {
			v.Set(name, value)
		}
	}
	return v
}

func newQuarantineListCommand() *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List what was refused: by reason, then the newest items",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	filter := quarantineFlags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 20, "items to list, up to 1000; 0: reasons only")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if limit < 0 || limit > 1000 {
			return fmt.Errorf("--limit: want 0 to 1000, got %d: %w", limit, errUsage)
		}
		v := quarantineQuery(filter)
		v.Set("limit", strconv.Itoa(max(limit, 1)))
		var l console.QuarantineList
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/quarantine?"+v.Encode(), nil, &l); err != nil {
			return err
		}
		l.Items = l.Items[:min(limit, len(l.Items))]
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		return printQuarantine(cmd.OutOrStdout(), &l, time.Now())
	}
	return cmd
}

func printQuarantine(w io.Writer, l *console.QuarantineList, now time.Time) error {
	if len(l.Groups) == 0 {
		_, err := fmt.Fprintln(w, "nothing is in quarantine")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "STAGE\tREASON\tSOURCE\tITEMS\tCOUNT\tOLDEST\tNEWEST\tEXAMPLE")
	for i := range l.Groups {
		g := &l.Groups[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\n", plain(g.Stage), plain(g.Reason), plain(g.Source), g.Items, g.Count, ago(now, g.Oldest), ago(now, g.Newest),
			brief(g.Example, 60))
	}
	if len(l.Items) > 0 {
		fmt.Fprintln(t)
		fmt.Fprintln(t, "ID\tAGE\tSTAGE\tREASON\tSOURCE\tTOPIC\tCOUNT\tDETAIL")
	}
	for i := range l.Items {
		it := &l.Items[i]
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", it.ID, ago(now, it.Time), plain(it.Stage), plain(it.Reason), plain(it.Source), brief(it.Topic, 40), it.Count,
			brief(it.Detail, 60))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if n := l.Total - uint64(len(l.Items)); len(l.Items) > 0 && n > 0 {
		fmt.Fprintf(w, "and %d older ones\n", n)
	}
	_, err := fmt.Fprintf(w, "%d items, %s of %s\n", l.Held, byteText(l.Bytes), byteText(l.MaxBytes))
	return err
}

// brief is what fits into a table.
func brief(s string, most int) string {
	s = plain(s)
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

func newQuarantineShowCommand() *cobra.Command {
	var asJSON, raw bool
	cmd := &cobra.Command{
		Use:   "show ID...",
		Short: "Show items whole, with their payloads",
		Args:  cobra.MinimumNArgs(1),
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON, one a line")
	cmd.Flags().BoolVar(&raw, "raw", false, "the payload's bytes and nothing else")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for i, id := range args {
			if _, err := strconv.ParseUint(id, 10, 64); err != nil {
				return fmt.Errorf("want an id such as 17, got %q: %w", id, errUsage)
			}
			var it console.QuarantineItem
			if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/quarantine/"+id, nil, &it); err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			switch {
			case raw:
				if _, err := w.Write(it.Payload); err != nil {
					return err
				}
			case asJSON:
				if err := json.NewEncoder(w).Encode(it); err != nil {
					return err
				}
			default:
				if i > 0 {
					fmt.Fprintln(w)
				}
				if err := printItem(w, &it); err != nil {
					return err
				}
			}
		}
		return nil
	}
	return cmd
}

func printItem(w io.Writer, it *console.QuarantineItem) error {
	fmt.Fprintf(w, "id      %d\ntime    %s\nstage   %s\nreason  %s\ndetail  %s\nsource  %s\n", it.ID, it.Time.Local().Format(time.RFC3339Nano), plain(it.Stage),
		plain(it.Reason), plain(it.Detail), plain(it.Source))
	if it.Topic != "" {
		fmt.Fprintf(w, "topic   %s\n", plain(it.Topic))
	}
	fmt.Fprintf(w, "count   %d\n", it.Count)
	if it.Points != "" {
		fmt.Fprintln(w, "points")
		for line := range strings.SplitSeq(strings.TrimRight(it.Points, "\n"), "\n") {
			fmt.Fprintln(w, "  "+plain(line))
		}
	}
	if it.Stage == string(uplink.StageSink) && it.Points != "" {
		return nil // its payload is a record of ours
	}
	fmt.Fprintf(w, "payload (%d bytes)\n", len(it.Payload))
	if readable(it.Payload) {
		for line := range strings.SplitSeq(strings.TrimRight(string(it.Payload), "\n"), "\n") {
			fmt.Fprintln(w, "  "+strings.TrimRight(line, "\r"))
		}
		return nil
	}
	d := hex.Dumper(&indented{w: w})
	d.Write(it.Payload)
	return d.Close()
}

// readable is text that does nothing to a terminal.
func readable(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if !unicode.IsPrint(r) && r != '\n' && r != '\r' && r != '\t' {
			return false
		}
	}
	return true
}

// indented writes each line two columns in.
type indented struct {
	w  io.Writer
	in bool
}

func (i *indented) Write(b []byte) (int, error) {
	for _, line := range strings.SplitAfter(string(b), "\n") {
		if line == "" {
			continue
		}
		if !i.in {
			io.WriteString(i.w, "  ")
		}
		i.in = !strings.HasSuffix(line, "\n")
		if _, err := io.WriteString(i.w, line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// quarantineSelection is what a command was asked to change.
func quarantineSelection(cmd *cobra.Command, args []string, filter *console.QuarantineFilter, all bool) (q console.QuarantineSelection, err error) {
	for _, a := range args {
		n, err := strconv.ParseUint(a, 10, 64)
		if err != nil {
			return q, fmt.Errorf("want an id such as 17, got %q: %w", a, errUsage)
		}
		q.IDs = append(q.IDs, console.ItemID(n))
	}
	filtered := *filter != console.QuarantineFilter{}
	n := 0
	for _, given := range [...]bool{len(args) > 0, filtered, all} {
		if given {
			n++
		}
	}
	if n != 1 {
		return q, fmt.Errorf("want ids, or a filter such as --reason, or --all: %w", errUsage)
	}
	if len(args) == 0 {
		q.Filter = filter
	}
	return q, nil
}

func newQuarantineReplayCommand() *cobra.Command {
	var asJSON, all bool
	var q console.QuarantineReplay
	cmd := &cobra.Command{
		Use:   "replay [ID...]",
		Short: "Put items back on their way, under the configuration that is in force now",
		Long: "Put items back on their way. A message is read again as of its own arrival, under the configuration in force now; what a destination\n" +
			"refused goes into its outbox again. What is refused again comes back with the new reason. Exit code 1 when an item could not be put back.",
		Example: "  sluice quarantine replay --source line --reason type\n  sluice quarantine replay 17 18 --as int",
	}
	c := clientFlags(cmd)
	filter := quarantineFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "everything")
	cmd.Flags().StringVar(&q.Type, "as", "", "of what a destination refused: write its fields as float, int, string or bool")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the outcome as JSON")
	cmd.RegisterFlagCompletionFunc("as", cobra.FixedCompletions([]string{"float", "int", "string", "bool"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if q.Type != "" {
			if _, err := uplink.ParseFieldType(q.Type); err != nil {
				return fmt.Errorf("--as: %w: %w", err, errUsage)
			}
		}
		var err error
		if q.QuarantineSelection, err = quarantineSelection(cmd, args, filter, all); err != nil {
			return err
		}
		var res console.QuarantineReplayed
		if err := runJob(cmd.Context(), c, cmd.ErrOrStderr(), "/api/v1/quarantine/replay", q, &res); err != nil {
			return err
		}
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), res)
		} else {
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d put back, of which %d were refused again\n", res.Replayed, res.Again)
		}
		if err == nil && res.Failed > 0 {
			err = fmt.Errorf("%d items could not be put back, the first because: %s", res.Failed, plain(res.Error))
		}
		return err
	}
	return cmd
}

func newQuarantineRemoveCommand() *cobra.Command {
	var asJSON, all, yes bool
	cmd := &cobra.Command{
		Use:   "rm [ID...]",
		Short: "Delete items for good; the ledger lists them as lost",
	}
	c := clientFlags(cmd)
	filter := quarantineFlags(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "everything")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&asJSON, "json", false, "the outcome as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := quarantineSelection(cmd, args, filter, all)
		if err != nil {
			return err
		}
		if len(args) == 0 {
			if err := confirm(cmd, yes, "Delete all items that match for good?"); err != nil {
				return err
			}
		}
		var res console.Removed
		if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/quarantine/delete", q, &res); err != nil {
			return err
		}
		switch {
		case asJSON:
			return printJSON(cmd.OutOrStdout(), res)
		case res.Removed < len(args):
			return fmt.Errorf("%d deleted, the others were not there", res.Removed)
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d deleted\n", res.Removed)
		return err
	}
	return cmd
}

// byteText is a number of bytes for people.
func byteText(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, i := float64(n)/1024, 0
	for v >= 1024 && i < len(units)-1 {
		v /= 1024
		i++
	}
	digits := 1
	if v >= 100 {
		digits = 0
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + units[i:i+1] + "iB"
}
