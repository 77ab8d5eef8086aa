package main

import (
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func newRestoreCommand() *cobra.Command {
	var asJSON, force bool
	var from, dir string
	cmd := &cobra.Command{
		Use:   "restore --from FILE.tar --data-dir DIR",
		Short: "Make a data directory of what sluice backup wrote",
		Long: "Make a data directory of what sluice backup wrote. Nothing is changed before the whole archive was read and checked. With --force\n" +
			"what is in the directory is set aside in a folder in it.",
		Args: cobra.NoArgs,
	}
	f := cmd.Flags()
	f.StringVar(&from, "from", "", "file to read, - for standard input")
	f.StringVar(&dir, "data-dir", "", "the directory, as in gateway.data_dir")
	f.BoolVar(&force, "force", false, "also where something is there already: it is set aside")
	f.BoolVar(&asJSON, "json", false, "the archive's manifest as JSON")
	cmd.MarkFlagRequired("from")
	cmd.MarkFlagRequired("data-dir")
	cmd.MarkFlagFilename("from", "tar")
	cmd.MarkFlagDirname("data-dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var in io.Reader = cmd.InOrStdin()
		if from != "-" {
			f, err := os.Open(from)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		m, aside, err := restore(in, dir, force)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), m)
		}
		w := cmd.OutOrStdout()
		if aside != "" {
			fmt.Fprintf(w, "what was there is in %s\n", aside)
		}
		_, err = fmt.Fprintf(w, "%s holds gateway %s as of %s\n", dir, plain(m.Gateway), m.AcknowledgedUntil.Local().Format("2006-01-02 15:04:05.000"))
		return err
	}
	return cmd
}
