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

func newTokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Bearer tokens of programs that ask a running gateway: scrapers, Grafana, scripts",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newTokenAddCommand(), newTokenListCommand(), newTokenRemoveCommand())
	return cmd
}

func newTokenAddCommand() *cobra.Command {
	var n console.NewToken
	var scope string
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "add NAME",
		Short:   "Make a token and print it, once: the gateway keeps its hash only",
		Example: "  sluice token add grafana --role viewer --scope site=plant-7 --expires-in 365d > grafana.token",
		Args:    cobra.ExactArgs(1),
	}
	c := clientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&n.Role, "role", "viewer", "what it may do: viewer, operator or admin")
	f.StringVar(&scope, "scope", "", "what it may see, as label=value,label=value; default everything")
	f.StringVar(&n.ExpiresIn, "expires-in", "90d", "how long it is good for")
	f.BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n.Name = args[0]
		if scope != "" {
			var err error
			if n.Scope, err = console.ParseScope(scope); err != nil {
				return fmt.Errorf("--%w: %w", err, errUsage)
			}
		}
		var made console.CreatedToken
		if err := c.do(cmd.Context(), http.MethodPost, "/api/v1/tokens", n, &made); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), made)
		}
		_, err := fmt.Fprintln(cmd.OutOrStdout(), made.Text)
		return err
	}
	return cmd
}

func newTokenListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List tokens",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var l console.TokenList
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/tokens", nil, &l); err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), l)
		}
		return printTokens(cmd.OutOrStdout(), l.Tokens)
	}
	return cmd
}

func printTokens(w io.Writer, list []console.Token) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ID\tNAME\tROLE\tSCOPE\tEXPIRES\tLAST USED\tMADE BY")
	for i := range list {
		k := &list[i]
		expires, used := k.Expires.Local().Format(time.DateTime), "-"
		if k.Expired {
			expires += " (expired)"
		}
		if !k.LastUsed.IsZero() {
			used = k.LastUsed.Local().Format(time.DateTime)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, plain(k.Name), k.Role, plain(labelText(k.Scope, "")), expires, used, plain(k.CreatedBy))
	}
	return t.Flush()
}

func newTokenRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rm ID...",
		Short: "Revoke tokens at once",
		Args:  cobra.MinimumNArgs(1),
	}
	c := clientFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, id := range args {
			if err := c.do(cmd.Context(), http.MethodDelete, "/api/v1/tokens/"+url.PathEscape(id), nil, nil); err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}
