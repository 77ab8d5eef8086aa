package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// dataFormat is the version of everything in the data directory. A newer one is refused.
const dataFormat = 1

// dataDir is the locked data directory of one gateway.
type dataDir struct {
	path string
	fs   fsys.FS
	lock io.Closer
	meta meta
}

// meta is the file META. Instance is drawn once: ids derived from LSNs stay apart when a directory is started over. A restored copy draws
// its own for the records that follow; those it was restored with keep the instances in Earlier.
type meta struct {
	Format   int    `json:"format"`
	Instance string `json:"instance"`
	Gateway  string `json:"gateway"`

	Earlier []earlier `json:"earlier,omitempty"` // in ascending order
}

// earlier is the instance of journal records up to Until.
type earlier struct {
	Instance string `json:"instance"`
	Until    uint64 `json:"until"`
}

// instanceOf is the instance that a journal record came about in.
func (m *meta) instanceOf(lsn uint64) string {
	for _, e := range m.Earlier {
		if lsn <= e.Until {
			return e.Instance
		}
	}
	return m.Instance
}

// openDataDir creates, locks and checks the directory; seglog.ErrLocked when another process has it.
func openDataDir(path, gatewayID string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := seglog.LockDir(path)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", path, err)
	}
	if _, err := os.Lstat(filepath.Join(path, restoring)); err == nil {
		lock.Close()
		return nil, fmt.Errorf("data directory %s: a restore into it was not finished: run sluice restore --force again", path)
	}
	d := &dataDir{path: path, fs: fsys.OS{}, lock: lock}
	if err := d.loadMeta(gatewayID); err != nil {
		lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *dataDir) loadMeta(gatewayID string) error {
	name := filepath.Join(d.path, "META")
	b, err := os.ReadFile(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.meta = meta{Format: dataFormat, Instance: newInstance(), Gateway: gatewayID}
		return d.storeMeta()
	case err != nil:
		return fmt.Errorf("read META: %w", err)
	}
	if err := json.Unmarshal(b, &d.meta); err != nil {
		return fmt.Errorf("%s is damaged: %w", name, err)
	}
	if d.meta.Format > dataFormat {
		return fmt.Errorf("%s: format %d is newer than this program's %d: use a newer sluice", name, d.meta.Format, dataFormat)
	}
	if d.meta.Gateway != gatewayID {
		d.meta.Gateway = gatewayID
		return d.storeMeta()
	}
	return nil
}

func (d *dataDir) storeMeta() error {
	b, err := json.MarshalIndent(d.meta, "", "  ")
	if err != nil {
		return err
	}
	return writeFileDurably(d.fs, d.path, "META", append(b, '\n'))
}

// writeFileDurably replaces a file whole: after a crash it holds the old or the new text.
func writeFileDurably(fs fsys.FS, dir, name string, text []byte) error {
	temp, final := filepath.Join(dir, name+".new"), filepath.Join(dir, name)
	if err := fs.Remove(temp); err != nil && !errors.Is(err, fsys.ErrNotExist) {
		return fmt.Errorf("write %s: %w", name, err)
	}
	f, err := fs.Create(temp)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = fs.Rename(temp, final)
	}
	if err == nil {
		err = fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func (d *dataDir) join(parts ...string) string {
	return filepath.Join(append([]string{d.path}, parts...)...)
}

func (d *dataDir) Close() error { return d.lock.Close() }
