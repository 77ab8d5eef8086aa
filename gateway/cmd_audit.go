package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
)

func newAuditCommand() *cobra.Command {
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "List what operators did on a running gateway, newest first",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.Flags().IntVar(&limit, "limit", 50, "at most so many, up to 1000")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l console.AuditList
		q := url.Values{"limit": {strconv.Itoa(limit)}}
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/audit?"+q.Encode(), nil, &l); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		return printAudit(cmd.OutOrStdout(), l.Entries)
	}
	return cmd
}

func printAudit(w io.Writer, list []console.AuditEntry) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "TIME\tAUTHOR\tROLE\tDID\tWHAT")
	for i := range list {
		e := &list[i]
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.Time.Local().Format(time.DateTime), plain(e.Author), plain(e.Role), plain(e.Op), plain(e.Detail))
	}
	return t.Flush()
}
