package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/spf13/cobra"

	"sluice/gateway/config"
)

func newRunCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the gateway until SIGTERM or SIGINT; SIGHUP reads rules, users, access list and certificates again",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			printWarnings(cmd.ErrOrStderr(), cfg)
			return runGateway(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "configuration file")
}

// configError is a configuration that cannot be read or used; starting again does not help.
type configError struct{ err error }

func (e *configError) Error() string { return e.err.Error() }
func (e *configError) Unwrap() error { return e.err }

// loadConfig reads the configuration and every file that it names; errors end in exit code 78 and hold every fault.
func loadConfig(path string) (*config.Config, error) {
	cfg, err := config.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &configError{fmt.Errorf("%s: does not exist", path)}
	}
	if cfg != nil {
		err = errors.Join(err, checkFiles(cfg))
	}
	if err == nil {
		err = checkSinks(cfg)
	}
	if err != nil {
		return nil, &configError{err}
	}
	return cfg, nil
}
