package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
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
			for name, address := range map[string]*string{"http": &o.HTTP, "mqtt": &o.MQTT} {
				if !cmd.Flags().Changed(name) {
					*address = freeWhenTaken(cmd.ErrOrStderr(), *address)
				}
			}
			return runDemo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Devices, "devices", 12, "simulated devices")
	f.Float64Var(&o.Rate, "rate", 1, "messages a second and device")
	f.DurationVar(&o.For, "for", 0, "how long to run, such as 30s; 0: until Ctrl-C")
	f.StringVar(&o.HTTP, "http", "127.0.0.1:8080", "address of the dashboard")
	f.StringVar(&o.MQTT, "mqtt", "127.0.0.1:1883", "address of the broker; publish to it as well")
	f.StringVar(&o.DataDir, "data-dir", "", "keep the data in this directory (default: a temporary one)")
	f.BoolVar(&o.NoFaults, "no-faults", false, "nothing goes wrong by itself")
	return cmd
}

// freeWhenTaken is address, or where something else listens there (Debian starts mosquitto when it is installed) another port, and says so.
func freeWhenTaken(w io.Writer, address string) string {
	l, err := net.Listen("tcp", address)
	if err == nil {
		l.Close()
		return address
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return address // the demonstration says what is wrong with it
	}
	if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return address
	}
	defer l.Close()
	fmt.Fprintf(w, "sluice demo: something else listens on %s already, taking another port\n", address)
	return l.Addr().String()
}
