package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"sluice/gateway/console"
	"sluice/gateway/seglog"
)

// A backup of a running gateway is what a crash at one moment would leave, taken part by part in an order in which that is no matter:
//
//  1. the pipeline's state at a record n, with all outputs up to n on disk;
//  2. outboxes, quarantine and sessions, each at a moment of its own. What they hold of records behind n is skipped when a restored copy
//     replays them, as after a crash;
//  3. the journal, last: it holds every record that the others have something of, and everything acknowledged until then.
//
// Files that are deleted meanwhile stay readable, see seglog.Freeze.

// backing lets one backup run at a time.
type backing struct{ sync.Mutex }

// BackupName implements console.Copier.
func (g *gateway) BackupName() string {
	return "sluice-" + fileName(g.cfg.Gateway.ID) + "-" + time.Now().UTC().Format("20060102T150405Z") + ".tar"
}

func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' {
			return r
		}
		return '_'
	}, s)
}

// Backup implements console.Copier.
func (g *gateway) Backup(ctx context.Context, w io.Writer, withHistory bool) error {
	if !g.backing.TryLock() {
		return fmt.Errorf("%w: a backup is being taken already", console.ErrBusy)
	}
	defer g.backing.Unlock()
	a := newArchiver(&stopping{ctx, w}, time.Now().UTC())
	a.manifest.Gateway, a.manifest.Instance, a.manifest.Running, a.manifest.History = g.cfg.Gateway.ID, g.dir.meta.Instance, true, withHistory
	checkpoint, lsn, err := g.freezePipeline(ctx)
	if err != nil {
		return err
	}
	a.manifest.Checkpoint = uint64(lsn)
	journal, err := g.journal.Freeze() // what is released while the rest is copied
	if err != nil {
		return err
	}
	defer journal.Close()
	if err := g.archiveState(a, checkpoint); err != nil {
		return err
	}
	if withHistory {
		if err := archiveHistory(a, g.dir.join("history")); err != nil {
			return err
		}
	}
	if err := g.archiveJournal(a, journal); err != nil {
		return err
	}
	g.log.Info("backup taken", "files", len(a.manifest.Files), "journal", a.manifest.Journal, "acknowledged_until", a.manifest.AcknowledgedUntil)
	return a.close()
}

// stopping ends writing with ctx.
type stopping struct {
	ctx context.Context
	w   io.Writer
}

func (s *stopping) Write(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.w.Write(b)
}

// freezePipeline takes the fold's state between two records, once all that was put out before is on disk.
func (g *gateway) freezePipeline(ctx context.Context) ([]byte, seglog.LSN, error) {
	state, lsn, err := g.runner.Freeze(ctx)
	if err != nil {
		return nil, 0, fmt.Errorf("take the pipeline's state: %w", err)
	}
	return state, lsn, nil
}

// archiveState copies everything but journal and history.
func (g *gateway) archiveState(a *archiver, checkpoint []byte) error {
	meta, err := json.MarshalIndent(g.dir.meta, "", "  ")
	if err == nil {
		err = a.addBytes("META", append(meta, '\n'))
	}
	if err == nil {
		err = a.addBytes("state/checkpoint.a", seglog.EncodeSlot(checkpoint))
	}
	if tokens, terr := os.ReadFile(g.dir.join("tokens.json")); terr == nil && err == nil {
		err = a.addBytes("tokens.json", tokens)
	} else if terr != nil && !errors.Is(terr, fs.ErrNotExist) {
		err = errors.Join(err, terr)
	}
	if err != nil {
		return err
	}
	for _, f := range g.forwarders {
		copies, err := f.outbox.Freeze()
		if err != nil {
			return err
		}
		for i := range copies {
			c := &copies[i]
			if err == nil {
				err = archiveLog(a, path.Join("outbox", f.name, c.Folder), c.Slots, c.Log)
			}
			c.Log.Close()
		}
		if err != nil {
			return err
		}
	}
	q, err := g.outlet.quarantine.Freeze()
	if err != nil {
		return err
	}
	err = archiveLog(a, "quarantine", q.Slots, q.Log)
	q.Log.Close()
	if err != nil {
		return err
	}
	snapshot, sessions, err := g.sessions.Freeze()
	if err != nil {
		return err
	}
	defer sessions.Close()
	if snapshot != nil {
		if err := a.addBytes("broker/snapshot.a", seglog.EncodeSlot(snapshot)); err != nil {
			return err
		}
	}
	return archiveLog(a, "broker/log", nil, sessions)
}

func archiveLog(a *archiver, folder string, slots map[string][]byte, log *seglog.Frozen) error {
	for name, value := range slots {
		if err := a.addBytes(path.Join(folder, name+".a"), seglog.EncodeSlot(value)); err != nil {
			return err
		}
	}
	for _, f := range log.Files {
		if err := a.add(path.Join(folder, f.Name), f.Size, io.NewSectionReader(f.File, 0, f.Size)); err != nil {
			return err
		}
	}
	return nil
}

// archiveJournal copies what the journal held when the backup began and what it holds now: first all but its newest segment, then that as
// it is by then.
func (g *gateway) archiveJournal(a *archiver, before *seglog.Frozen) error {
	done := make(map[string]bool)
	for _, f := range before.Files[:max(len(before.Files)-1, 0)] {
		done[f.Name] = true
		if err := a.add(path.Join("journal", f.Name), f.Size, io.NewSectionReader(f.File, 0, f.Size)); err != nil {
			return err
		}
	}
	a.manifest.AcknowledgedUntil = time.Now().UTC()
	a.manifest.Journal = uint64(g.journal.Durable())
	now, err := g.journal.Freeze()
	if err != nil {
		return err
	}
	defer now.Close()
	if n := len(before.Files); n > 0 && !slices.ContainsFunc(now.Files, func(f seglog.FrozenFile) bool { return f.Name == before.Files[n-1].Name }) {
		return errors.New("the journal has released what the backup needs: it takes too long for a journal of this size")
	}
	for _, f := range now.Files {
		if done[f.Name] {
			continue
		}
		if err := a.add(path.Join("journal", f.Name), f.Size, io.NewSectionReader(f.File, 0, f.Size)); err != nil {
			return err
		}
	}
	return nil
}

// archiveHistory copies the finished blocks, which do not change; what is not in one yet comes back from the journal.
func archiveHistory(a *archiver, dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("archive history: %w", err)
	}
	for _, e := range entries {
		if _, err := ulid.ParseStrict(e.Name()); err != nil || !e.IsDir() {
			continue
		}
		if err := archiveBlock(a, dir, e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// archiveBlock opens all files of a block before it copies the first: it may be deleted, or merged into another, meanwhile.
func archiveBlock(a *archiver, dir, block string) error {
	type open struct {
		name string
		size int64
		file *os.File
	}
	var files []open
	defer func() {
		for _, f := range files {
			f.file.Close()
		}
	}()
	err := filepath.WalkDir(filepath.Join(dir, block), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		files = append(files, open{path.Join("history", filepath.ToSlash(rel)), st.Size(), f})
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is gone, and what it held with it or in another block
	}
	if err != nil {
		return fmt.Errorf("archive history: %w", err)
	}
	for _, f := range files {
		if err := a.add(f.name, f.size, f.file); err != nil {
			return err
		}
	}
	return nil
}

// notArchived are files of a data directory that mean nothing to a copy.
var notArchived = regexp.MustCompile(`\.(spare|new|tmp)$|\.seg\.damaged-`)

// backupOffline writes an archive of a data directory that no gateway runs on. seglog.ErrLocked when one does.
func backupOffline(ctx context.Context, w io.Writer, dir string, withHistory bool) (*manifest, error) {
	if _, err := os.Stat(filepath.Join(dir, "META")); err != nil {
		return nil, fmt.Errorf("%s is no data directory: %w", dir, err)
	}
	lock, err := seglog.LockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", dir, err)
	}
	defer lock.Close()
	a := newArchiver(&stopping{ctx, w}, time.Now().UTC())
	a.manifest.History = withHistory
	var m meta
	text, err := os.ReadFile(filepath.Join(dir, "META"))
	if err == nil {
		err = json.Unmarshal(text, &m)
	}
	if err != nil {
		return nil, fmt.Errorf("read META: %w", err)
	}
	a.manifest.Gateway, a.manifest.Instance = m.Gateway, m.Instance
	journal, _, err := seglog.OpenReadOnly(filepath.Join(dir, "journal"), seglog.Options{})
	if err != nil {
		return nil, err
	}
	a.manifest.Journal, a.manifest.AcknowledgedUntil = uint64(journal.Durable()), a.manifest.Created
	journal.Close()
	for _, folder := range append([]string{"META", "tokens.json"}, archiveFolders...) {
		if folder == "history" {
			continue
		}
		if err := archiveTree(a, dir, folder); err != nil {
			return nil, err
		}
	}
	if withHistory {
		if err := archiveHistory(a, filepath.Join(dir, "history")); err != nil {
			return nil, err
		}
	}
	return &a.manifest, a.close()
}

func archiveTree(a *archiver, dir, folder string) error {
	err := filepath.WalkDir(filepath.Join(dir, folder), func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || notArchived.MatchString(e.Name()) {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		return a.add(filepath.ToSlash(rel), st.Size(), f)
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

var _ console.Copier = (*gateway)(nil)
