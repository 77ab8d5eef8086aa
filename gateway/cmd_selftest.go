package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

func newSelftestCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "selftest",
		Short: "Tests of what a gateway stands on",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newPowerCutCommand())
	return cmd
}

// peerSilence is how long a peer says nothing before it is taken for cut off.
const peerSilence = 5 * time.Second

func newPowerCutCommand() *cobra.Command {
	var dir, report, listen string
	var verify, asJSON bool
	var acked uint64
	var length time.Duration
	cmd := &cobra.Command{
		Use:   "power-cut --dir DIR",
		Short: "Find out whether a disk keeps what it acknowledges when the power is cut",
		Long: `Find out whether a disk keeps what it acknowledges when the power is cut.

1. On another machine:    sluice selftest power-cut --listen :7777
2. On this one:           sluice selftest power-cut --dir /var/lib/sluice --report OTHER:7777
   Without another machine leave --report out and note the last "acked" line on the screen.
3. Pull the plug. Not the reset button, not a shutdown: those leave the disk its power.
4. After the start:       sluice selftest power-cut --dir /var/lib/sluice --verify --acked NUMBER

Do it ten times, with what the site's box really has: disk, power supply, enclosure. Before the plug is pulled the command says how long
a sync takes, and what looks wrong already.`,
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", "", "a directory on the disk in question; the test has a folder "+powerCut+" in it")
	f.StringVar(&report, "report", "", "host:port of a peer that runs with --listen")
	f.StringVar(&listen, "listen", "", "address on which to wait for the peer's reports")
	f.BoolVar(&verify, "verify", false, "look whether everything acknowledged is there")
	f.Uint64Var(&acked, "acked", 0, "with --verify: the last number that was acknowledged")
	f.DurationVar(&length, "for", 0, "end by itself after that time; default: when it is interrupted, or the power is")
	f.BoolVar(&asJSON, "json", false, "with --verify: the outcome as JSON")
	cmd.MarkFlagDirname("dir")
	cmd.MarkFlagsMutuallyExclusive("listen", "dir")
	cmd.MarkFlagsOneRequired("listen", "dir")
	cmd.MarkFlagsMutuallyExclusive("verify", "report")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case listen != "":
			return powerCutListen(cmd, listen)
		case verify && !cmd.Flags().Changed("acked"):
			return fmt.Errorf("--verify wants --acked NUMBER: the last number that was acknowledged before the power was cut: %w", errUsage)
		case verify:
			return powerCutVerify(cmd, filepath.Join(dir, powerCut), acked, asJSON)
		}
		return powerCutWrite(cmd, dir, report, length)
	}
	return cmd
}

func powerCutListen(cmd *cobra.Command, address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer l.Close()
	w := cmd.OutOrStdout()
	fmt.Fprintf(w, "listening on %s\n", l.Addr())
	last, err := listenForAcks(cmd.Context(), l, peerSilence, w)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "the peer is silent. After its start:\n  sluice selftest power-cut --dir DIR --verify --acked %d\n", last)
	return err
}

func powerCutWrite(cmd *cobra.Command, dir, report string, length time.Duration) error {
	ctx, w := cmd.Context(), cmd.OutOrStdout()
	at := filepath.Join(dir, powerCut)
	if err := os.MkdirAll(at, 0o700); err != nil {
		return err
	}
	times, err := measureSyncs(ctx, at, 2*time.Second)
	if err != nil {
		return fmt.Errorf("measure: %w", err)
	}
	m := mediumOf(at)
	kind := "medium not known"
	if m.known {
		kind = "flash, or a virtual disk"
		if m.rotational {
			kind = "a disk that turns"
		}
	}
	fmt.Fprintf(w, "%s on %s, %s; a sync of 4 KiB takes %s, 99 %% take less than %s, the longest of %d took %s\n", orDash(m.fileSystem), m.device, kind,
		times.quantile(0.5).Round(time.Microsecond), times.quantile(0.99).Round(time.Microsecond), len(times), times.quantile(1).Round(time.Microsecond))
	for _, s := range suspicions(m, times.quantile(0.5)) {
		fmt.Fprintf(w, "SUSPICIOUS: %s\n", s)
	}
	tell := func(n uint64) error {
		_, err := fmt.Fprintf(w, "acked %d\n", n)
		return err
	}
	if report != "" {
		send, closeConn, err := reportTo(ctx, report)
		if err != nil {
			return err
		}
		defer closeConn()
		local := tell
		tell = func(n uint64) error { return errors.Join(send(n), local(n)) }
	}
	fmt.Fprintln(w, "writing; pull the plug whenever you like")
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	var last uint64
	times, err = cutPower(ctx, at, func(n uint64) error { last = n; return tell(n) })
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "stopped at %d; a commit took %s, 99 %% less than %s. Nothing is shown by a stop: pull the plug.\n", last,
		times.quantile(0.5).Round(time.Microsecond), times.quantile(0.99).Round(time.Microsecond))
	return err
}

func powerCutVerify(cmd *cobra.Command, at string, acked uint64, asJSON bool) error {
	v, err := verifyPowerCut(at, acked)
	if err != nil {
		return err
	}
	v.Unverified = acked < v.First
	w := cmd.OutOrStdout()
	if asJSON {
		if err := printJSON(w, v); err != nil {
			return err
		}
	}
	switch {
	case v.Missing > 0:
		return fmt.Errorf("%d of the acknowledged records are missing, the first is %d: this disk does not keep what it acknowledges", v.Missing, v.FirstBad)
	case v.Unverified:
		return fmt.Errorf("the test holds records from %d on: --acked %d says nothing about them", v.First, acked)
	case asJSON:
		return nil
	}
	_, err = fmt.Fprintf(w, "all acknowledged records are there: %d to %d; and %d that were not acknowledged yet\n", v.First, acked, max(v.Last, acked)-acked)
	return err
}
