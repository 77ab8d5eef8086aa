package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// reserve is a file of zeros that is given up when the disk is full, so that the drain and the checkpoints have room.
type reserve struct {
	path  string
	bytes int64
	held  bool
	log   *slog.Logger
}

// reserveBytes is its size on a disk with plenty of room; on a small one it is a thirty-second of what is free.
const reserveBytes = 8 << 20

func newReserve(dir string, log *slog.Logger) *reserve {
	r := &reserve{path: filepath.Join(dir, "RESERVE"), log: log}
	if st, err := os.Stat(r.path); err == nil {
		r.held, r.bytes = true, st.Size()
	}
	return r
}

// keep makes the file if there is room for it, and for as much again.
func (r *reserve) keep() {
	if r.held {
		return
	}
	free := freeBytes(filepath.Dir(r.path))
	if r.bytes = min(reserveBytes, free/32); r.bytes < 64<<10 {
		return
	}
	if err := writeZeros(r.path, r.bytes); err != nil {
		os.Remove(r.path)
		r.log.Warn("no reserve for a full disk", "err", err)
		return
	}
	r.held = true
}

// release gives the room back.
func (r *reserve) release() {
	if !r.held {
		return
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		r.log.Error("reserve not released", "err", err)
		return
	}
	r.held = false
	r.log.Warn("disk full: reserve released", "bytes", r.bytes)
}

// plenty tells whether the disk has room for the reserve several times over.
func (r *reserve) plenty() bool { return freeBytes(filepath.Dir(r.path)) > 4*max(r.bytes, 64<<10) }

func freeBytes(dir string) int64 {
	free, _, _ := diskRoom(dir) // 0 with an error
	return free
}

// diskRoom is how much room the disk of dir has, for who may not use its last blocks, and how large it is.
func diskRoom(dir string) (free, size int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}

func writeZeros(path string, n int64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	zeros := make([]byte, 64<<10)
	for at := int64(0); at < n && err == nil; at += int64(len(zeros)) {
		_, err = f.WriteAt(zeros[:min(int64(len(zeros)), n-at)], at)
	}
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
