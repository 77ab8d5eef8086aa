package simfs

import (
	"bytes"
	"errors"
	"syscall"
	"testing"

	"sluice/gateway/seglog/fsys"
)

func write(t *testing.T, f fsys.File, off int64, s string) {
	t.Helper()
	if _, err := f.WriteAt([]byte(s), off); err != nil {
		t.Fatal(err)
	}
}

func create(t *testing.T, s *FS, name string) fsys.File {
	t.Helper()
	if err := s.MkdirAll("d"); err != nil {
		t.Fatal(err)
	}
	f, err := s.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestFS_CrashKeepsWhatWasSyncedUnderEveryPolicy(t *testing.T) {
	for _, p := range Policies {
		for seed := range uint64(50) {
			s := New(seed)
			f := create(t, s, "d/a")
			write(t, f, 0, "durable")
			if f.Sync() != nil || s.SyncDir("d") != nil {
				t.Fatal("sync")
			}
			write(t, f, sector, "later")
			s.Rename("d/a", "d/b")
			s.Restart(p, seed)
			if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrCrashed) {
				t.Fatalf("an old file reads: %v", err)
			}
			b := append(s.ReadFile("d/a"), s.ReadFile("d/b")...)
			if !bytes.HasPrefix(b, []byte("durable")) {
				t.Fatalf("%s, seed %d: %q", p, seed, b)
			}
			renamed, grown := s.ReadFile("d/b") != nil, len(b) > sector
			switch {
			case p == DropAll && (renamed || grown), p == KeepAll && (!renamed || string(b[sector:]) != "later"),
				p == DataOnly && (renamed || !grown), p == NamesOnly && (!renamed || grown):
				t.Fatalf("%s: renamed %v, %q", p, renamed, b)
			}
		}
	}
}

func TestFS_FailedSyncCannotBeMendedByASecondOne(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		s := New(seed)
		f := create(t, s, "d/a")
		write(t, f, 0, "old")
		f.Sync()
		s.SyncDir("d")
		write(t, f, 0, "new")
		s.FailAt(s.Ops()+1, FailedSync)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if string(s.ReadFile("d/a")) != "new" {
			t.Fatal("the page cache lost the write")
		}
		s.Restart(KeepAll, seed)
		if string(s.ReadFile("d/a")) == "old" {
			lost++
		}
	}
	if lost == 0 || lost == 20 {
		t.Fatalf("%d of 20 lost", lost)
	}
}

func TestFS_CapacityAndShortWrites(t *testing.T) {
	s := New(1)
	f := create(t, s, "d/a")
	s.SetCapacity(10)
	if n, err := f.WriteAt(make([]byte, 15), 0); n != 10 || !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(n, err)
	}
	write(t, f, 0, "in place")
	s.SetCapacity(0)
	s.FailAt(s.Ops()+1, ShortWrite)
	if n, err := f.WriteAt(make([]byte, 20), 0); n != 10 || err == nil {
		t.Fatal(n, err)
	}
	s.CrashBefore(s.Ops() + 1)
	if err := f.Sync(); !errors.Is(err, ErrCrashed) || !s.Crashed() {
		t.Fatal(err)
	}
}

func TestFS_SameSeedSameContents(t *testing.T) {
	run := func(seed uint64) []byte {
		s := New(seed)
		f := create(t, s, "d/a")
		s.SyncDir("d")
		for i := range 40 {
			write(t, f, int64(i)*300, "some bytes that are not synced")
		}
		s.Restart(Random, seed)
		return s.ReadFile("d/a")
	}
	differ := false
	for seed := range uint64(10) {
		if !bytes.Equal(run(seed), run(seed)) {
			t.Fatal("not deterministic")
		}
		differ = differ || !bytes.Equal(run(seed), run(seed+1))
	}
	if !differ {
		t.Fatal("the seed has no effect")
	}
}
