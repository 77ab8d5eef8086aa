// Package fsys is the seam between sluice's durable files and the file system: the dozen operations that seglog and the
// files beside it need, so that tests can crash, tear and fail every one of them. It starts no goroutines.
package fsys

import (
	"io"
	"io/fs"
)

// FS is a file system rooted nowhere in particular; names are paths as the operating system takes them.
type FS interface {
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// Create makes an empty file for reading and writing; it fails with fs.ErrExist when name stands.
	// The name survives a crash only after SyncDir of its directory.
	Create(name string) (File, error)
	// Rename replaces newName by oldName; durable only after SyncDir.
	Rename(oldName, newName string) error
	// Remove deletes a file; durable only after SyncDir.
	Remove(name string) error
	// MkdirAll makes a directory and its parents, each durable on return.
	MkdirAll(name string) error
	// ReadDir lists names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// SyncDir makes creations, renames and removals in a directory durable.
	SyncDir(name string) error
}

// File is an open file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size is the file's length in bytes.
	Size() (int64, error)
	// Truncate sets the length; a longer file reads zeros.
	Truncate(size int64) error
	// Sync is fdatasync: data, and the length needed to read it back, survive power loss when it returns nil.
	// After an error the file's unsynced contents are unknown; it must not be retried.
	Sync() error
}

// ErrNotExist and ErrExist are what Open and Create return, as errors.Is sees them.
var (
	ErrNotExist = fs.ErrNotExist
	ErrExist    = fs.ErrExist
)
