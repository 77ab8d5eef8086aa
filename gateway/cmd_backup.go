package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sluice/gateway/seglog/fsys"
)

func newBackupCommand() *cobra.Command {
	var asJSON, history bool
	var out, dir string
	cmd := &cobra.Command{
		Use:   "backup --out FILE.tar",
		Short: "Copy a gateway's data directory into one file, while it runs or while it does not",
		Long: "Copy a gateway's data directory into one file. A running gateway is asked over its API; everything acknowledged until shortly before the\n" +
			"end is in the copy. With --data-dir the directory of one that does not run is read instead. Every byte is checked before FILE stands.",
		Example: "  sluice backup --out plant-7.tar\n  sluice backup --data-dir /var/lib/sluice --out plant-7.tar",
		Args:    cobra.NoArgs,
	}
	c := clientFlags(cmd)
	f := cmd.Flags()
	f.StringVar(&out, "out", "", "file to write, - for standard output")
	f.StringVar(&dir, "data-dir", "", "of a gateway that does not run")
	f.BoolVar(&history, "history", false, "the local history as well, as far as it is in finished blocks")
	f.BoolVar(&asJSON, "json", false, "the archive's manifest as JSON")
	cmd.MarkFlagRequired("out")
	cmd.MarkFlagFilename("out", "tar")
	cmd.MarkFlagDirname("data-dir")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if out == "-" && asJSON {
			return fmt.Errorf("--json and --out - both want standard output: %w", errUsage)
		}
		var m *manifest
		take := func(w io.Writer) (err error) {
			w = showBytes(w, cmd.ErrOrStderr())
			if dir != "" {
				m, err = backupOffline(cmd.Context(), w, dir, history)
				return err
			}
			m, err = fetchBackup(cmd.Context(), c, w, history)
			return err
		}
		var err error
		if out == "-" {
			err = take(cmd.OutOrStdout())
		} else {
			err = writeWhole(out, take)
		}
		switch {
		case errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) && dir == "" && m == nil:
			return fmt.Errorf("%w (--data-dir DIR copies the directory of a gateway that does not run)", err)
		case err != nil:
			return err
		case asJSON:
			return printJSON(cmd.OutOrStdout(), m)
		case out == "-":
			return nil
		}
		size := int64(0)
		for _, f := range m.Files {
			size += f.Bytes
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s in %d files of gateway %s; everything acknowledged until %s is in it\n", out, byteText(size), len(m.Files),
			plain(m.Gateway), m.AcknowledgedUntil.Local().Format("2006-01-02 15:04:05.000"))
		return err
	}
	return cmd
}

// fetchBackup copies a running gateway's archive to w and checks it on the way.
func fetchBackup(ctx context.Context, c *client, w io.Writer, history bool) (*manifest, error) {
	path := "/api/v1/backup"
	if history {
		path += "?history=true"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body := io.TeeReader(resp.Body, w)
	m, err := readArchive(body, nil)
	if err == nil {
		_, err = io.Copy(io.Discard, body) // what tar pads with
	}
	return m, err
}

// writeWhole writes a file that stands, durable, once write has returned nil, and not at all otherwise.
func writeWhole(name string, write func(io.Writer) error) error {
	temp := name + ".part"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = write(f)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	var disk fsys.OS
	return disk.SyncDir(filepath.Dir(name))
}

// showBytes counts on a terminal what is written to w.
func showBytes(w, on io.Writer) io.Writer {
	file, ok := on.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return w
	}
	return &byteCounter{w: w, on: on}
}

type byteCounter struct {
	w, on io.Writer
	n     int64
	shown time.Time
}

func (b *byteCounter) Write(p []byte) (int, error) {
	n, err := b.w.Write(p)
	b.n += int64(n)
	if now := time.Now(); now.Sub(b.shown) > 100*time.Millisecond {
		b.shown = now
		fmt.Fprintf(b.on, "\r\033[K%s\r", byteText(b.n))
	}
	return n, err
}
