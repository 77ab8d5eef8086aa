package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/console"
)

// Replay implements console.Replayer.
func (g *gateway) Replay(_ context.Context, r console.Replay) (string, error) {
	if !r.From.Before(r.To) {
		return "", fmt.Errorf("%w: from %s is not before to %s", console.ErrInvalid, r.From.Format(time.RFC3339), r.To.Format(time.RFC3339))
	}
	known := false
	for _, d := range g.outlet.destinations {
		known = known || d.name == r.Sink
	}
	if !known {
		return "", fmt.Errorf("%w: there is no destination %q", console.ErrNotFound, r.Sink)
	}
	return g.jobs.start("replay", "records", r.By, func(ctx context.Context, p *progress) (any, error) {
		return g.replayRange(ctx, r.From, r.To, r.Sink, func(done, total int64) { p.set(uint64(done), uint64(total)) })
	})
}

var _ console.Replayer = (*gateway)(nil)

func newReplayCommand() *cobra.Command {
	var asJSON bool
	var from, to, sink string
	cmd := &cobra.Command{
		Use:   "replay --from TIME --sink NAME",
		Short: "Send a time range from a running gateway's journal to a destination again: for a store restored from a backup",
		Long: "Derive the points of a time range once more from the journal and put them into a destination's outbox. They have the identities they\n" +
			"had, so a store that still holds them overwrites them with themselves.",
		Example: "  sluice replay --from 2026-05-01T00:00:00Z --to 2026-05-02T00:00:00Z --sink cloud\n  sluice replay --from 24h --sink cloud",
		Args:    cobra.NoArgs,
	}
	c := clientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "a time, or how long ago, such as 24h or 7d")
	f.StringVar(&to, "to", "now", "a time, or how long ago")
	f.StringVar(&sink, "sink", "", "name of the destination")
	f.BoolVar(&asJSON, "json", false, "the outcome as JSON")
	cmd.MarkFlagRequired("from")
	cmd.MarkFlagRequired("sink")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		now := time.Now()
		body := struct {
			From string `json:"from"`
			To   string `json:"to"`
			Sink string `json:"sink"`
		}{Sink: sink}
		start, err := timeArgument(from, now)
		if err != nil {
			return fmt.Errorf("--from: %w: %w", err, errUsage)
		}
		end, err := timeArgument(to, now)
		if err != nil {
			return fmt.Errorf("--to: %w: %w", err, errUsage)
		}
		if !start.Before(end) {
			return fmt.Errorf("--from %s is not before --to %s: %w", from, to, errUsage)
		}
		body.From, body.To = start.UTC().Format(time.RFC3339Nano), end.UTC().Format(time.RFC3339Nano)
		var res replayResult
		if err := runJob(cmd.Context(), c, cmd.ErrOrStderr(), "/api/v1/replay", body, &res); err != nil {
			return err
		}
		w := cmd.OutOrStdout()
		if asJSON {
			return printJSON(w, res)
		}
		fmt.Fprintf(w, "%d points of %s to %s put into the outbox of %s\n", res.Points, momentText(res.From), momentText(res.To), sink)
		if res.From.After(start) {
			fmt.Fprintf(w, "the journal does not reach back to %s\n", momentText(start))
		}
		if res.To.Before(end) {
			fmt.Fprintf(w, "windows that start after %s can still change and were left out: replay them later\n", momentText(res.To))
		}
		if res.AlertsLeftOut > 0 {
			fmt.Fprintf(w, "%d points of alerts were left out: what the rules knew before is not in the journal any more\n", res.AlertsLeftOut)
		}
		if res.Damaged+res.Trimmed > 0 {
			return errors.New("the range is not whole: records were damaged, or released meanwhile")
		}
		return nil
	}
	return cmd
}
