// Command sluice is an IoT edge gateway in one binary: devices publish over MQTT, rules raise alerts on the spot, aggregates
// reach their destination when the link allows. This package holds commands, wiring and shutdown, and no logic; it is the only
// one that starts the other parts' goroutines.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"sluice/gateway/seglog"
	"sluice/rules"
)

// Exit codes are part of the interface: systemd and scripts act on them.
const (
	exitOK     = 0
	exitError  = 1
	exitUsage  = 2
	exitLocked = 3  // another process has the data directory
	exitConfig = 78 // EX_CONFIG of sysexits.h: starting again does not help
)

// defaultConfig is where the packages put sluice.yaml.
const defaultConfig = "/etc/sluice/sluice.yaml"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := execute(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// execute runs one command and returns the exit code. What went wrong is on stderr, once.
func execute(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	started := false
	root := newRoot(&started)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := exitCode(err)
	if !started { // cobra refused the command line itself
		code = exitUsage
		fmt.Fprintf(stderr, "sluice: %s\nSee '%s --help'.\n", err, cmd.CommandPath())
		return code
	}
	printError(stderr, err)
	return code
}

// errUsage marks errors in how a command was called that only the command itself could see.
var errUsage = errors.New("usage")

func exitCode(err error) int {
	var invalid *configError
	switch {
	case errors.As(err, &invalid):
		return exitConfig
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, seglog.ErrLocked):
		return exitLocked
	}
	return exitError
}

// printError writes one block: the lines of a configuration's errors are for editors to jump to and stand alone.
func printError(w io.Writer, err error) {
	var invalid *configError
	var faults rules.Errors
	if errors.As(err, &invalid) || errors.As(err, &faults) {
		fmt.Fprintln(w, err)
		return
	}
	fmt.Fprintf(w, "sluice: %s\n", strings.TrimSuffix(err.Error(), ": "+errUsage.Error()))
}

// newRoot is the command tree. started is set once cobra has accepted the command line.
func newRoot(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:   "sluice",
		Short: "IoT edge gateway: MQTT in, alerts on the spot, aggregates out, nothing acknowledged is lost",
		Long: "sluice is an IoT edge gateway in one binary.\n\n" +
			"Exit codes: 0 ok, 1 failure, 2 usage, 3 data directory in use, 78 invalid configuration.",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(newRunCommand(), newDemoCommand(), newCheckCommand(), newRulesCommand(), newAlertsCommand(), newAckCommand(), newSilenceCommand(), newStatusCommand(), newQueueCommand(), newQuarantineCommand(), newLedgerCommand(), newReplayCommand(), newBackupCommand(), newRestoreCommand(), newSelftestCommand(), newPasswdCommand(), newTokenCommand(), newAuditCommand(), newVersionCommand())
	markStarted(root.Commands(), started)
	return root
}

// markStarted has every command, and those below it, set started when it runs.
func markStarted(commands []*cobra.Command, started *bool) {
	for _, cmd := range commands {
		run := cmd.RunE
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			*started = true
			return run(cmd, args)
		}
		markStarted(cmd.Commands(), started)
	}
}
