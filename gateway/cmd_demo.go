package main

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// demoOptions are the flags of sluice demo.
type demoOptions struct {
	Out      io.Writer
	Devices  int           // simulated devices
	Rate     float64       // messages a second and device
	For      time.Duration // how long; 0: until interrupted
	HTTP     string        // address of the status pages
	MQTT     string        // address of the broker
	DataDir  string        // empty: a temporary one, removed at the end
	NoFaults bool          // devices that never misbehave
}

func newDemoCommand() *cobra.Command {
	o := demoOptions{}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show it at work: gateway, simulated devices, a stand-in cloud and a webhook receiver in one process",
		Long: "Runs a gateway on a temporary data directory with simulated devices, a stand-in cloud and a webhook receiver,\n" +
			"all in this process and on loopback. Ctrl-C ends it and removes everything.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Devices < 1 || o.Devices > 10_000 || o.Rate <= 0 || o.Rate > 1000 || o.For < 0 {
				return fmt.Errorf("want 1 to 10000 devices, a rate above 0 and up to 1000, and no negative time: %w", errUsage)
			}
			o.Out = cmd.OutOrStdout()
			return runDemo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Devices, "devices", 20, "simulated devices")
	f.Float64Var(&o.Rate, "rate", 1, "messages a second and device")
	f.DurationVar(&o.For, "for", 0, "how long to run, such as 30s; 0: until Ctrl-C")
	f.StringVar(&o.HTTP, "http", "127.0.0.1:8080", "address of the status pages")
	f.StringVar(&o.MQTT, "mqtt", "127.0.0.1:1883", "address of the broker; publish to it as well")
	f.StringVar(&o.DataDir, "data-dir", "", "keep the data in this directory (default: a temporary one)")
	f.BoolVar(&o.NoFaults, "no-faults", false, "simulated devices never misbehave")
	return cmd
}
