package passwd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// Save replaces the file at path in one step: whatever happens, either the old or the new one stands there whole. A new file
// gets mode 0600; an existing one keeps owner, group and the group's right to read, so that the broker can still read what
// root edited, and loses the rights of others.
func (f *File) Save(path string) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".passwd-*") // mode 0600
	if err != nil {
		return fmt.Errorf("save password file: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("save password file %s: %w", path, err)
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := keepRights(tmp, path); err != nil {
		return err
	}
	if _, err := tmp.Write(f.Bytes()); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// keepRights gives tmp the owner and the group's rights of the file it replaces.
func keepRights(tmp *os.File, path string) error {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	own, ok := info.Sys().(*syscall.Stat_t)
	if ok && (int(own.Uid) != os.Geteuid() || int(own.Gid) != os.Getegid()) {
		if err := tmp.Chown(int(own.Uid), int(own.Gid)); err != nil {
			return fmt.Errorf("keep the owner: %w", err)
		}
	}
	return tmp.Chmod(0o600 | info.Mode().Perm()&0o040)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
