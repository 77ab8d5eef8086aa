package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
)

func newAlertsCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "List what is pending and firing on a running gateway, who was told, and who looks after it",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.Flags().BoolVar(&all, "all", false, "alerts that are over as well")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l console.AlertList
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/alerts", nil, &l); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		if all {
			l.Alerts = append(l.Alerts, l.Recent...)
		}
		return printAlerts(cmd.OutOrStdout(), l.Alerts, time.Now())
	}
	return cmd
}

func printAlerts(w io.Writer, list []console.AlertDetail, now time.Time) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no alerts")
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FINGERPRINT\tSTATE\tSINCE\tALERT\tLABELS\tVALUE\tNOTES")
	for i := range list {
		a := &list[i]
		value := "-"
		if a.Value != nil {
			value = strconv.FormatFloat(*a.Value, 'g', 6, 64)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", a.Fingerprint, a.State, ago(now, a.Since), plain(a.Name), plain(labelText(a.Labels, "alertname")),
			value, plain(alertNotes(a)))
	}
	return t.Flush()
}

// alertNotes is what a person on call wants to know besides.
func alertNotes(a *console.AlertDetail) string {
	var notes []string
	if a.Acknowledged != nil {
		note := "acknowledged by " + a.Acknowledged.Author
		if a.Acknowledged.Comment != "" {
			note += ": " + a.Acknowledged.Comment
		}
		notes = append(notes, note)
	}
	if a.SilencedBy != "" {
		notes = append(notes, "silenced by "+a.SilencedBy)
	}
	if a.Inhibited {
		notes = append(notes, "inhibited")
	}
	if a.Flapping {
		notes = append(notes, fmt.Sprintf("flapping, fired %d times", a.Firings))
	}
	if a.Escalated > 0 {
		notes = append(notes, "escalated")
	}
	if s := a.Annotations["summary"]; s != "" {
		notes = append(notes, s)
	}
	return strings.Join(notes, "; ")
}

func labelText(labels map[string]string, without string) string {
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if name != without {
			pairs = append(pairs, name+"="+labels[name])
		}
	}
	return strings.Join(pairs, ",")
}

// plain keeps what devices named from steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := now.Sub(t)
	switch {
	case d < 0:
		return "now"
	case d < time.Hour:
		return d.Truncate(time.Second).String()
	}
	return strings.TrimSuffix(d.Truncate(time.Minute).String(), "0s")
}

func newAckCommand() *cobra.Command {
	var a console.Acknowledgement
	var undo bool
	cmd := &cobra.Command{
		Use:   "ack FINGERPRINT...",
		Short: "Acknowledge alerts: no repeats and no escalation until they resolve",
		Args:  cobra.MinimumNArgs(1),
	}
	c := clientFlags(cmd)
	cmd.Flags().StringVar(&a.Author, "author", whoAmI(), "who looks after them")
	cmd.Flags().StringVar(&a.Comment, "comment", "", "what others should know")
	cmd.Flags().BoolVar(&undo, "undo", false, "take the acknowledgement back")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, fingerprint := range args {
			path := "/api/v1/alerts/" + url.PathEscape(fingerprint) + "/ack"
			var err error
			if undo {
				err = c.do(cmd.Context(), http.MethodDelete, path+"?author="+url.QueryEscape(a.Author), nil, nil)
			} else {
				err = c.do(cmd.Context(), http.MethodPost, path, a, nil)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", fingerprint, err)
			}
		}
		return nil
	}
	return cmd
}

func newSilenceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "silence",
		Short: "Mute alerts for a while on a running gateway: they are shown, and nobody is told that they fire",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSilenceAddCommand(), newSilenceListCommand(), newSilenceRemoveCommand())
	return cmd
}

func newSilenceAddCommand() *cobra.Command {
	var s console.NewSilence
	cmd := &cobra.Command{
		Use:     "add LABEL=PATTERN...",
		Short:   "Silence what matches, and print the silence's id",
		Example: "  sluice silence add alertname=FreezerWarm 'device=freezer-*' --for 2h --comment 'defrosting'",
		Args:    cobra.MinimumNArgs(1),
	}
	c := clientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&s.Duration, "for", "1h", "how long, such as 30m, 2h or 5d")
	f.StringVar(&s.Author, "author", whoAmI(), "who silences")
	f.StringVar(&s.Comment, "comment", "", "why")
	f.StringVar(&s.ID, "id", "", "of a silence to replace")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		s.Match = map[string]string{}
		for _, a := range args {
			name, pattern, ok := strings.Cut(a, "=")
			if !ok || name == "" {
				return fmt.Errorf("want LABEL=PATTERN, got %q: %w", a, errUsage)
			}
			s.Match[name] = pattern
		}
		var created console.Created
		if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/silences", s, &created); err != nil {
			return err
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), created.ID)
		return err
	}
	return cmd
}

func newSilenceListCommand() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List silences",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.Flags().BoolVar(&all, "all", false, "those that ended within the last day as well")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l console.SilenceList
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/silences", nil, &l); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		return printSilences(cmd.OutOrStdout(), l.Silences, all)
	}
	return cmd
}

func printSilences(w io.Writer, list []console.SilenceDetail, all bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tSTATE\tMATCH\tFROM\tTO\tAUTHOR\tCOMMENT")
	for i := range list {
		s := &list[i]
		if s.State == "expired" && !all {
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, s.State, plain(labelText(s.Match, "")), s.StartsAt.Local().Format(time.DateTime),
			s.EndsAt.Local().Format(time.DateTime), plain(s.Author), plain(s.Comment))
	}
	return t.Flush()
}

func newSilenceRemoveCommand() *cobra.Command {
	var author string
	cmd := &cobra.Command{
		Use:   "rm ID...",
		Short: "End silences now",
		Args:  cobra.MinimumNArgs(1),
	}
	c := clientFlags(cmd)
	cmd.Flags().StringVar(&author, "author", whoAmI(), "who ends them")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, id := range args {
			if err := expire(cmd.Context(), c, id, author); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

func expire(ctx context.Context, c *client, id, author string) error {
	return c.do(ctx, http.MethodDelete, "/api/v1/silences/"+url.PathEscape(id)+"?author="+url.QueryEscape(author), nil, nil)
}
