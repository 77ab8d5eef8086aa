package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// restoring is the folder in a data directory that an archive is read into. While it is there the directory is not whole.
const restoring = "restore.tmp"

var errNotEmpty = errors.New("it is not empty: --force sets aside what is there")

// restore makes dir the data directory that archive holds. What was there is set aside in a folder of dir, with force only. Nothing is
// changed before the whole archive was read and checked.
func restore(archive io.Reader, dir string, force bool) (m *manifest, aside string, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", err
	}
	lock, err := seglog.LockDir(dir)
	if err != nil {
		return nil, "", fmt.Errorf("data directory %s: %w", dir, err)
	}
	defer lock.Close()
	there, err := contents(dir)
	if err != nil {
		return nil, "", err
	}
	if len(there) > 0 && !force {
		return nil, "", fmt.Errorf("data directory %s: %w", dir, errNotEmpty)
	}
	temp := filepath.Join(dir, restoring)
	if err := os.RemoveAll(temp); err != nil {
		return nil, "", err
	}
	owner := ownerOf(dir)
	m, err = readArchive(archive, func(name string, r io.Reader) error { return extract(temp, name, r, owner) })
	if err == nil {
		err = renew(temp)
	}
	for _, name := range []string{filepath.Join(temp, "META"), filepath.Join(temp, "journal"), filepath.Join(dir, "LOCK")} {
		if err == nil {
			err = owner.give(name)
		}
	}
	if err != nil {
		return nil, "", errors.Join(err, os.RemoveAll(temp))
	}
	if len(there) > 0 {
		aside = filepath.Join(dir, "restored-over-"+time.Now().UTC().Format("20060102T150405.000Z"))
		if err := os.Mkdir(aside, 0o700); err != nil {
			return nil, "", err
		}
		owner.give(aside)
	}
	for _, name := range there {
		if name == restoring {
			continue
		}
		if err := os.Rename(filepath.Join(dir, name), filepath.Join(aside, name)); err != nil {
			return nil, "", err
		}
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return nil, "", err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(temp, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return nil, "", err
		}
	}
	var disk fsys.OS
	if err := disk.SyncDir(dir); err != nil {
		return nil, "", err
	}
	if err := os.Remove(temp); err != nil {
		return nil, "", err
	}
	return m, aside, disk.SyncDir(dir)
}

// contents lists what is in a data directory beside its lock and what an earlier restore set aside.
func contents(dir string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Name() != "LOCK" && !(e.IsDir() && len(e.Name()) > 9 && e.Name()[:9] == "restored-") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// owner is who the data directory belongs to: a restore is often done by root.
type owner struct {
	uid, gid int
	change   bool
}

func ownerOf(dir string) owner {
	st, err := os.Stat(dir)
	if err != nil {
		return owner{}
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return owner{int(sys.Uid), int(sys.Gid), ok && os.Geteuid() == 0 && sys.Uid != 0}
}

func (o owner) give(name string) error {
	if !o.change {
		return nil
	}
	return os.Lchown(name, o.uid, o.gid)
}

// extract writes one file and syncs it with the folders above it.
func extract(temp, name string, r io.Reader, o owner) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%w: it holds %q", errArchive, name)
	}
	at := filepath.Join(temp, filepath.FromSlash(name))
	for folder := temp; ; {
		err := os.Mkdir(folder, 0o700)
		if err == nil {
			err = o.give(folder)
		} else if errors.Is(err, fs.ErrExist) {
			err = nil
		}
		if err != nil {
			return fmt.Errorf("restore %s: %w", name, err)
		}
		if folder == filepath.Dir(at) {
			break
		}
		rest, _ := filepath.Rel(folder, filepath.Dir(at))
		folder = filepath.Join(folder, firstOf(rest))
	}
	f, err := os.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = o.give(at)
	}
	if err == nil {
		var disk fsys.OS
		err = disk.SyncDir(filepath.Dir(at))
	}
	if err != nil {
		return fmt.Errorf("restore %s: %w", name, err)
	}
	return nil
}

func firstOf(rel string) string {
	for {
		parent, _ := filepath.Split(rel)
		if parent == "" {
			return rel
		}
		rel = filepath.Clean(parent)
	}
}

// renew gives the copy an instance of its own for what its journal holds from here on: the original may live on and give the same numbers to
// other messages. What the journal holds already keeps the ids that it has.
func renew(dir string) error {
	name := filepath.Join(dir, "META")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var m meta
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("META in the archive is damaged: %w", err)
	}
	if m.Format > dataFormat {
		return fmt.Errorf("META in the archive: format %d is newer than this program's %d: use a newer sluice", m.Format, dataFormat)
	}
	if err := os.MkdirAll(filepath.Join(dir, "journal"), 0o700); err != nil {
		return err
	}
	journal, rec, err := seglog.OpenReadOnly(filepath.Join(dir, "journal"), seglog.Options{})
	if err != nil {
		return fmt.Errorf("journal in the archive: %w", err)
	}
	last := journal.Durable()
	journal.Close()
	if len(rec.Damaged) > 0 {
		return fmt.Errorf("%w: its journal is damaged", errArchive)
	}
	m.Earlier = append(m.Earlier, earlier{m.Instance, uint64(last)})
	m.Instance = newInstance()
	if text, err = json.MarshalIndent(m, "", "  "); err != nil {
		return err
	}
	return writeFileDurably(fsys.OS{}, dir, "META", append(text, '\n'))
}

func newInstance() string {
	var id [16]byte
	rand.Read(id[:])
	return hex.EncodeToString(id[:])
}
