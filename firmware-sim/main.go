// Command firmware-sim publishes the telemetry of simulated devices to an MQTT server, injects faults, and writes what
// was acknowledged as ground truth.
//
// It knows nothing of the gateway: it stands for the devices of a plant. The simulation itself is package sim; this
// one reads flags, shows progress and turns the outcome into an exit code.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/term"

	"sluice/firmware-sim/sim"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1 // something was never acknowledged, or the ground truth could not be written
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// A second Ctrl-C ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parseFlags(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(stdout, helpText())
		return exitOK
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(stderr, "firmware-sim: %s\n", line)
		}
		fmt.Fprintln(stderr, "firmware-sim --help lists the flags")
		return exitUsage
	}

	truth, closeTruth, err := openTruth(o.truth, stdout)
	if err != nil {
		fmt.Fprintf(stderr, "firmware-sim: %v\n", err)
		return exitUsage
	}
	screen := newProgress(stderr, o.quiet, o.truth == "-" && isTerminal(stdout))
	o.cfg.Truth = truth
	o.cfg.Log = slog.New(slog.NewTextHandler(screen, nil))
	fleet, err := sim.New(o.cfg)
	if err != nil {
		fmt.Fprintf(stderr, "firmware-sim: %v\n", err)
		return exitUsage
	}
	finished := make(chan struct{})
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		screen.watch(fleet, finished)
	}()
	err = fleet.Run(ctx)
	close(finished)
	<-shown
	err = errors.Join(err, closeTruth())
	screen.summary(fleet.Stats(), ctx.Err() != nil)
	if err != nil {
		fmt.Fprintf(stderr, "firmware-sim: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// openTruth opens where the ground truth goes: a file, "-" for stdout, or "none".
func openTruth(to string, stdout io.Writer) (io.Writer, func() error, error) {
	nothing := func() error { return nil }
	switch to {
	case "-":
		return stdout, nothing, nil
	case "none":
		return nil, nothing, nil
	}
	f, err := os.Create(to)
	if err != nil {
		return nil, nil, fmt.Errorf("--truth: %w", err)
	}
	return f, f.Close, nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// loadCA reads PEM certificates to trust instead of the system's.
func loadCA(file string) (*tls.Config, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--ca-file: %s holds no PEM certificate", file)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// readSecret reads a secret from a file, without the line end an editor leaves.
func readSecret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--password-file: %w", err)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}
