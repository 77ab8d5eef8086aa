package main

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"
)

// manifestName is the archive's last entry: an archive without it was cut short.
const manifestName = "MANIFEST.json"

// archiveFormat is the version of the archive's layout; a newer one is refused.
const archiveFormat = 1

// manifest says what an archive holds.
type manifest struct {
	Format   int       `json:"format"`
	Version  string    `json:"version"` // of the program that wrote it
	Gateway  string    `json:"gateway"`
	Instance string    `json:"instance"`
	Created  time.Time `json:"created"`
	// AcknowledgedUntil is the moment up to which everything acknowledged is in it.
	AcknowledgedUntil time.Time      `json:"acknowledged_until"`
	Checkpoint        uint64         `json:"checkpoint"` // last journal record that the checkpoint covers
	Journal           uint64         `json:"journal"`    // last journal record
	Running           bool           `json:"running"`    // it was taken from a gateway that ran
	History           bool           `json:"history"`
	Files             []archivedFile `json:"files"`
}

type archivedFile struct {
	Name   string `json:"name"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// archiver writes an archive.
type archiver struct {
	tar      *tar.Writer
	manifest manifest
	now      time.Time
}

func newArchiver(w io.Writer, now time.Time) *archiver {
	return &archiver{tar: tar.NewWriter(w), now: now, manifest: manifest{Format: archiveFormat, Version: readBuildInfo().Version, Created: now}}
}

// add copies size bytes.
func (a *archiver) add(name string, size int64, r io.Reader) error {
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: a.now}); err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	h := sha256.New()
	n, err := io.Copy(a.tar, io.TeeReader(io.LimitReader(r, size), h))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("archive %s: %w", name, err)
	}
	a.manifest.Files = append(a.manifest.Files, archivedFile{name, size, hex.EncodeToString(h.Sum(nil))})
	return nil
}

func (a *archiver) addBytes(name string, b []byte) error {
	return a.add(name, int64(len(b)), strings.NewReader(string(b)))
}

// close writes the manifest.
func (a *archiver) close() error {
	text, err := json.MarshalIndent(&a.manifest, "", "  ")
	if err != nil {
		return err
	}
	if err := a.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: manifestName, Size: int64(len(text)), Mode: 0o600, ModTime: a.now}); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if _, err := a.tar.Write(text); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	if err := a.tar.Close(); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}

var errArchive = errors.New("not a whole archive of sluice backup")

// maxManifest bounds what is read of a manifest.
const maxManifest = 64 << 20

// readArchive reads an archive to its end and checks every byte of it. put, where it is not nil, gets each file; what it does not read is
// read for it. Nothing of what put got may be used before readArchive has returned nil.
func readArchive(r io.Reader, put func(name string, r io.Reader) error) (*manifest, error) {
	t := tar.NewReader(r)
	seen := make(map[string]archivedFile)
	var m *manifest
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errArchive, err)
		}
		switch {
		case m != nil:
			return nil, fmt.Errorf("%w: %q stands behind its manifest", errArchive, h.Name)
		case h.Typeflag != tar.TypeReg || !safeName(h.Name):
			return nil, fmt.Errorf("%w: it holds %q", errArchive, h.Name)
		case h.Name == manifestName:
			text, err := io.ReadAll(io.LimitReader(t, maxManifest))
			if err == nil {
				err = json.Unmarshal(text, &m)
			}
			if err != nil {
				return nil, fmt.Errorf("%w: manifest: %w", errArchive, err)
			}
			if m.Format > archiveFormat {
				return nil, fmt.Errorf("the archive's format %d is newer than this program's %d: use a newer sluice", m.Format, archiveFormat)
			}
			continue
		}
		if _, twice := seen[h.Name]; twice {
			return nil, fmt.Errorf("%w: it holds %q twice", errArchive, h.Name)
		}
		sum := sha256.New()
		in := io.TeeReader(t, sum)
		if put != nil {
			if err := put(h.Name, in); err != nil {
				return nil, err
			}
		}
		if _, err := io.Copy(io.Discard, in); err != nil {
			return nil, fmt.Errorf("%w: %s: %w", errArchive, h.Name, err)
		}
		seen[h.Name] = archivedFile{h.Name, h.Size, hex.EncodeToString(sum.Sum(nil))}
	}
	if m == nil {
		return nil, fmt.Errorf("%w: it ends before its manifest", errArchive)
	}
	if len(m.Files) != len(seen) {
		return nil, fmt.Errorf("%w: it holds %d files, its manifest names %d", errArchive, len(seen), len(m.Files))
	}
	for _, f := range m.Files {
		if seen[f.Name] != f {
			return nil, fmt.Errorf("%w: %s is damaged", errArchive, f.Name)
		}
	}
	if _, ok := seen["META"]; !ok {
		return nil, fmt.Errorf("%w: META is not in it", errArchive)
	}
	return m, nil
}

// archiveFolders are those of a data directory that an archive may hold.
var archiveFolders = []string{"journal", "outbox", "state", "quarantine", "broker", "history"}

// safeName tells the names that a data directory has from those that lead elsewhere.
func safeName(name string) bool {
	if name == "" || path.Clean(name) != name || path.IsAbs(name) || strings.ContainsAny(name, "\\\x00") || strings.HasPrefix(name, "..") {
		return false
	}
	folder, _, nested := strings.Cut(name, "/")
	if !nested {
		return name == "META" || name == "tokens.json" || name == manifestName
	}
	return slices.Contains(archiveFolders, folder)
}
