package seglog

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/seglog/fsys"
	"sluice/gateway/seglog/fsys/simfs"
)

// fill appends and commits until Append refuses; it returns the number of records acknowledged.
func fill(t *testing.T, l *Log, size int) (n LSN) {
	t.Helper()
	for {
		if _, err := l.Append(1, 1, make([]byte, size)); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatalf("append to a full log: %v, want ErrFull", err)
			}
			return n
		}
		if err := l.Commit(); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatalf("commit to a full log: %v, want ErrFull", err)
			}
			return l.Durable()
		}
		n = l.Durable()
		if n > 1e6 {
			t.Fatal("the log does not get full")
		}
	}
}

func TestLog_FullAtItsBoundTakesUrgentRecordsAndRecoversByTrimming(t *testing.T) {
	for name, o := range map[string]Options{
		"bound": {MaxBytes: 5 * minSegmentBytes},
		"disk":  {},
	} {
		t.Run(name, func(t *testing.T) {
			disk := simfs.New(1)
			if o.MaxBytes == 0 {
				disk.SetCapacity(4*minSegmentBytes + 4000)
			}
			o.FS, o.SegmentBytes = disk, minSegmentBytes
			l, _ := mustOpen(t, "d", o)
			n := fill(t, l, 300)
			if err := l.Err(); !errors.Is(err, ErrFull) {
				t.Fatalf("Err is %v", err)
			}
			if o.MaxBytes > 0 && (l.DiskBytes() > o.MaxBytes || disk.Used() != l.DiskBytes()) {
				t.Fatalf("%d bytes on disk, %d counted, bound %d", disk.Used(), l.DiskBytes(), o.MaxBytes)
			}
			urgent := 0
			for {
				if _, err := l.AppendUrgent(2, 2, []byte("tick")); err != nil {
					if !errors.Is(err, ErrFull) {
						t.Fatal(err)
					}
					break
				}
				l.Commit() // the probe's error: the log is still full
				urgent++
			}
			if want := minSegmentBytes / reserveShare / (recordHeader + 4) / 2; urgent < want {
				t.Fatalf("%d urgent records, want at least %d", urgent, want)
			}
			if l.Durable() != n+LSN(urgent) {
				t.Fatalf("durable %d, want %d normal and %d urgent", l.Durable(), n, urgent)
			}
			if err := l.TrimBefore(n / 2); err != nil {
				t.Fatal(err)
			}
			l.Commit()
			if err := l.Err(); err != nil {
				t.Fatalf("after trimming: %v", err)
			}
			if _, err := l.Append(1, 3, make([]byte, 300)); err != nil {
				t.Fatal(err)
			}
			if err := l.Commit(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLog_OpensOnFullDisk(t *testing.T) {
	disk := simfs.New(1)
	o := Options{FS: disk, SegmentBytes: minSegmentBytes}
	l, _ := mustOpen(t, "d", o)
	appendN(t, l, 40, 300)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	n := l.Next() - 1
	l.Close()
	disk.SetCapacity(1)
	l, rec := mustOpen(t, "d", o)
	if rec.Last != n {
		t.Fatalf("%+v", rec)
	}
	wantRange(t, readAll(t, l, 0, 300), 1, n)
	n = max(n, fill(t, l, 300))
	disk.SetCapacity(0)
	if err := l.Commit(); err != nil || l.Err() != nil {
		t.Fatal(err, l.Err())
	}
	if lsn, err := l.Append(1, 1); err != nil || lsn != n+1 {
		t.Fatal(lsn, err)
	}
}

func TestLog_RunRecoversFromFaultsWithoutRestart(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		synctest.Test(t, func(t *testing.T) {
			disk := &switchable{FS: simfs.New(1)}
			faults := 0
			var last LSN
			l, _ := mustOpen(t, "d", Options{FS: disk, SegmentBytes: minSegmentBytes, CommitInterval: 5 * time.Millisecond,
				OnFault:  func(err error, durable LSN) { faults++; last = durable },
				OnCommit: func(c CommitInfo) { last = c.Durable }})
			ctx, cancel := context.WithCancel(t.Context())
			ran := make(chan error)
			go func() { ran <- l.Run(ctx) }()
			appendN(t, l, 10, 100)
			synctest.Wait()
			time.Sleep(time.Second)
			if l.Durable() != 10 || last != 10 {
				t.Fatalf("durable %d, OnCommit %d", l.Durable(), last)
			}
			disk.set(fault)
			appendN(t, l, 3, 100)
			time.Sleep(10 * time.Second)
			want := ErrFailed
			if fault == syscall.ENOSPC {
				want = ErrFull
			}
			if _, err := l.Append(1, 1); !errors.Is(err, want) || !errors.Is(err, fault) || faults != 1 || l.Next() != 11 {
				t.Fatalf("append: %v, %d faults, next %d", err, faults, l.Next())
			}
			disk.set(nil)
			time.Sleep(2 * time.Second)
			if err := l.Err(); err != nil {
				t.Fatal(err)
			}
			appendN(t, l, 3, 100)
			time.Sleep(time.Second)
			if l.Durable() != 13 {
				t.Fatalf("durable %d", l.Durable())
			}
			appendN(t, l, 1, 100)
			cancel()
			if err := <-ran; err != nil || l.Durable() != 14 {
				t.Fatalf("run: %v, durable %d", err, l.Durable())
			}
			wantRange(t, readAll(t, l, 0, 100), 1, 14)
		})
	}
}

func TestLog_BackPressureEndsWithFaultAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &switchable{FS: simfs.New(1)}
		l, _ := mustOpen(t, "d", Options{FS: disk, SegmentBytes: minSegmentBytes, MaxPendingBytes: 1000, CommitInterval: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error)
		go func() { ran <- l.Run(ctx) }()
		synctest.Wait()
		appendN(t, l, 1, 100) // committed at once
		synctest.Wait()
		if l.Durable() != 1 {
			t.Fatalf("durable %d", l.Durable())
		}
		appendN(t, l, 7, 100)
		got := make(chan error, 1)
		go func() { _, err := l.Append(1, 1, make([]byte, 500)); got <- err }()
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("Append did not wait")
		}
		time.Sleep(time.Hour)
		if err := <-got; err != nil {
			t.Fatal(err)
		}
		appendN(t, l, 3, 100)
		go func() { _, err := l.Append(1, 1, make([]byte, 500)); got <- err }()
		synctest.Wait()
		disk.set(syscall.EIO)
		if err := <-got; !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
		cancel()
		<-ran
	})
}

// switchable fails every write, sync and directory operation while an error is set.
type switchable struct {
	fsys.FS
	err  atomic.Pointer[error]
	once atomic.Bool // fail the next sync of a file
}

type switchableFile struct {
	fsys.File
	s *switchable
}

func (s *switchable) set(err error) { s.err.Store(&err) }

func (s *switchable) failure() error {
	if p := s.err.Load(); p != nil {
		return *p
	}
	return nil
}

func (s *switchable) wrap(f fsys.File, err error) (fsys.File, error) {
	return switchableFile{f, s}, err
}
func (s *switchable) Open(n string) (fsys.File, error) { return s.wrap(s.FS.Open(n)) }
func (s *switchable) Create(n string) (fsys.File, error) {
	if err := s.failure(); err != nil {
		return nil, err
	}
	return s.wrap(s.FS.Create(n))
}
func (s *switchable) SyncDir(n string) error { return errors.Join(s.failure(), s.FS.SyncDir(n)) }
func (f switchableFile) Sync() error {
	if err := f.s.failure(); err != nil {
		return err
	}
	if f.s.once.Swap(false) {
		return syscall.EIO
	}
	return f.File.Sync()
}

func TestLog_OutboxKeepsRecordsWhileTheDiskFails(t *testing.T) {
	disk := &switchable{FS: simfs.New(1)}
	faults := 0
	l, _ := mustOpen(t, "d", Options{FS: disk, SegmentBytes: minSegmentBytes, Retain: true, MaxPendingBytes: 4000,
		OnFault: func(error, LSN) { faults++ }})
	appendN(t, l, 5, 100)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5, 100)
	if err := l.Flush(); err != nil || l.Durable() != 5 || l.Visible() != 10 { // the segment's first group is always synced
		t.Fatal(err, l.Durable(), l.Visible())
	}
	wantRange(t, readAll(t, l, 0, 100), 1, 10)
	disk.set(syscall.EIO)
	for range 3 {
		if err := l.Commit(); !errors.Is(err, ErrFailed) {
			t.Fatal(err)
		}
	}
	appendN(t, l, 3, 100)
	if err := l.Flush(); !errors.Is(err, ErrFailed) || faults != 1 || l.Err() == nil {
		t.Fatal(err, faults, l.Err())
	}
	var err error
	for range 100 {
		if _, err = l.Append(1, 1, make([]byte, 100)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("append beyond MaxPendingBytes: %v", err)
	}
	disk.set(nil)
	if err := l.Commit(); err != nil || l.Err() != nil || l.Durable() != l.Next()-1 {
		t.Fatal(err, l.Err(), l.Durable())
	}
	c := l.Cursor(0)
	defer c.Close()
	for want := LSN(1); want <= l.Durable(); want++ {
		if r, ok, err := c.TryNext(); !ok || err != nil || r.LSN != want {
			t.Fatal(r.LSN, ok, err)
		}
	}
}

func TestLog_RealDiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := filepath.Join(t.TempDir(), "small")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skip("cannot mount a tmpfs: ", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	o := Options{SegmentBytes: 128 << 10}
	l, _ := mustOpen(t, filepath.Join(dir, "log"), o)
	n := fill(t, l, 1000)
	if n < 500 {
		t.Fatalf("full after %d records", n)
	}
	if _, err := l.AppendUrgent(1, 1, []byte("tick")); err != nil {
		t.Fatal(err)
	}
	l.Commit()
	n++
	if l.Durable() != n {
		t.Fatalf("durable %d, want %d", l.Durable(), n)
	}
	if err := l.TrimBefore(n / 2); err != nil {
		t.Fatal(err)
	}
	l.Commit()
	if _, err := l.Append(1, 1, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec := mustOpen(t, filepath.Join(dir, "log"), o)
	if rec.Last != n+1 || len(rec.Damaged) != 0 {
		t.Fatalf("%+v", rec)
	}
	l.Close()
}

func TestLog_FailedSyncOnRealDiskGoesToANewSegment(t *testing.T) {
	dir := t.TempDir()
	disk := &switchable{FS: fsys.OS{}}
	commits := 0
	l, _ := mustOpen(t, dir, Options{FS: disk, SegmentBytes: minSegmentBytes, OnCommit: func(CommitInfo) { commits++ }})
	appendN(t, l, 5, 100)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 5, 100)
	disk.once.Store(true)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	if l.Segments() != 2 || l.Durable() != 10 || commits != 2 {
		t.Fatalf("%d segments, durable %d, %d commits", l.Segments(), l.Durable(), commits)
	}
	l.Close()
	l, rec := mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes, Verify: true})
	if rec.Last != 10 || len(rec.Damaged) != 0 {
		t.Fatalf("%+v", rec)
	}
	wantRange(t, readAll(t, l, 0, 100), 1, 10)
}
