package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/gateway/console"
)

func newStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How a running gateway is, in one screen; exit code 1 when it is not ready",
		Args:  cobra.NoArgs,
	}
	c := clientFlags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "the answer as JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var s console.Status
		if err := c.do(cmd.Context(), http.MethodGet, "/api/v1/status", nil, &s); err != nil {
			return err
		}
		var err error
		if asJSON {
			err = printJSON(cmd.OutOrStdout(), s)
		} else {
			err = printStatus(cmd.OutOrStdout(), &s)
		}
		if err == nil && !s.Ready {
			var parts []string
			for _, p := range s.Parts {
				if !p.OK {
					parts = append(parts, plain(p.Name+" "+p.Detail))
				}
			}
			err = fmt.Errorf("not ready: %s", strings.Join(parts, "; "))
		}
		return err
	}
	return cmd
}

// paint colours words on a terminal.
type paint bool

func paintOn(w io.Writer) paint {
	file, ok := w.(*os.File)
	return paint(ok && term.IsTerminal(int(file.Fd())) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (p paint) in(colour, s string) string {
	if !p {
		return s
	}
	return "\033[" + colour + "m" + s + "\033[0m"
}

func (p paint) good(s string) string { return p.in("32", s) }
func (p paint) warn(s string) string { return p.in("33", s) }
func (p paint) bad(s string) string  { return p.in("31;1", s) }

// if bad, s is bad.
func (p paint) when(bad bool, s string) string {
	if bad {
		return p.bad(s)
	}
	return s
}

// alertLines bounds the alerts listed: the rest is in sluice alerts.
const alertLines = 8

func printStatus(w io.Writer, s *console.Status) error {
	p := paintOn(w)
	ready := p.good("ready")
	if !s.Ready {
		ready = p.bad("NOT READY")
	}
	fmt.Fprintf(w, "%s  %s  up %s, sluice %s\n", plain(s.Gateway), ready, spanText(time.Duration(s.Uptime*float64(time.Second))), s.Version)
	for _, part := range s.Parts {
		if !part.OK {
			fmt.Fprintf(w, "  %s\n", p.bad(plain(part.Name+": "+part.Detail)))
		}
	}
	m := &s.Messages
	fmt.Fprintf(w, "messages      %s/s, %d since start, %s, %d connections, %d devices, %d series\n", rateText(m.Rate), m.Received,
		p.when(m.Refused > 0, fmt.Sprintf("%d refused", m.Refused)), s.Connections, s.Devices, s.Series)
	printStatusAlerts(w, p, s)
	printStatusOutboxes(w, p, s)
	journal := p.good("takes messages")
	if s.Journal.Error != "" {
		journal = p.bad("takes no messages: " + plain(s.Journal.Error))
	}
	fmt.Fprintf(w, "journal       %s, %s, records %d to %d\n", journal, byteText(s.Journal.Bytes), s.Journal.First, s.Journal.Last)
	if s.Disk.Total > 0 {
		fmt.Fprintf(w, "disk          %s free of %s\n", p.when(s.Disk.Free < s.Disk.Total/20, byteText(s.Disk.Free)), byteText(s.Disk.Total))
	}
	var received, quarantined, late uint64
	for i := range s.Ledger.Sources {
		received += s.Ledger.Sources[i].Received
		quarantined += s.Ledger.Sources[i].Quarantined
		late += s.Ledger.Sources[i].Late
	}
	refused := fmt.Sprintf("%d quarantined", quarantined)
	if late > 0 {
		refused += fmt.Sprintf(", %d late", late)
	}
	fmt.Fprintf(w, "ledger        %s, %d readings received, %s, %s\n", p.when(s.Ledger.Lost > 0, fmt.Sprintf("lost: %d", s.Ledger.Lost)), received, refused,
		p.when(s.Ledger.Imbalance != 0, fmt.Sprintf("not accounted for: %d", s.Ledger.Imbalance)))
	return nil
}

func printStatusAlerts(w io.Writer, p paint, s *console.Status) {
	firing := 0
	for i := range s.Alerts {
		if s.Alerts[i].State == "firing" {
			firing++
		}
	}
	fmt.Fprintf(w, "alerts        %s, %d pending\n", p.when(firing > 0, fmt.Sprintf("%d firing", firing)), len(s.Alerts)-firing)
	shown := 0
	for _, state := range [...]string{"firing", "pending"} {
		for i := range s.Alerts {
			a := &s.Alerts[i]
			if a.State != state || shown == alertLines {
				continue
			}
			shown++
			colour := p.bad
			if state == "pending" {
				colour = p.warn
			}
			fmt.Fprintf(w, "  %s %s, since %s: %s\n", colour(plain(a.Name)), brief(labelText(a.Labels, "alertname"), 60), ago(s.Now, a.Since), brief(a.Summary, 80))
		}
	}
	if n := len(s.Alerts) - shown; n > 0 {
		fmt.Fprintf(w, "  and %d more\n", n)
	}
}

func printStatusOutboxes(w io.Writer, p paint, s *console.Status) {
	list := append(s.Destinations[:len(s.Destinations):len(s.Destinations)], s.Webhooks...)
	if len(list) == 0 {
		fmt.Fprintln(w, "destinations  none")
		return
	}
	fmt.Fprintln(w, "destinations")
	var text strings.Builder
	t := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	for i := range list {
		o := &list[i]
		waits := "nothing waits"
		if o.Pending > 0 {
			waits = fmt.Sprintf("%d wait, oldest %s, gone in %s", o.Pending, ago(s.Now, o.Oldest), etaText(o))
		}
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", plain(o.Name), o.State, waits, ofBound(o.Bytes, o.MaxBytes), brief(o.LastError, 70))
	}
	t.Flush()
	for i, line := range strings.Split(strings.TrimRight(text.String(), "\n"), "\n") {
		line = strings.TrimRight(line, " ")
		switch list[i].State {
		case "config_error", "disabled":
			line = p.bad(line)
		case "backing_off":
			line = p.warn(line)
		}
		fmt.Fprintln(w, line)
	}
}
