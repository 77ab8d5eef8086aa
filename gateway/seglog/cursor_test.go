package seglog

import (
	"errors"
	"testing"

	"sluice/gateway/seglog/fsys/simfs"
)

func TestLog_MinNextLeavesAGapThatIsNoDamage(t *testing.T) {
	disk := simfs.New(1)
	for _, open := range []struct{ min, first, next LSN }{{1000, 1000, 1000}, {500, 1000, 1010}, {2000, 1000, 2000}, {2000, 1000, 2010}} {
		l, rec := mustOpen(t, "d", Options{FS: disk, SegmentBytes: minSegmentBytes, MinNext: open.min, Verify: true,
			OnDamage: func(d Damage) { t.Errorf("%+v", d) }})
		if l.First() != open.first || l.Next() != open.next || len(rec.Damaged) != 0 {
			t.Fatalf("%+v: first %d next %d, %+v", open, l.First(), l.Next(), rec)
		}
		appendN(t, l, 10, 100)
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
		got := readAll(t, l, 0, 100)
		if got[len(got)-1] != open.next+9 {
			t.Fatalf("%+v: read %v", open, got)
		}
		c := l.Cursor(0)
		for {
			if _, ok, err := c.TryNext(); err != nil {
				t.Fatal(err)
			} else if !ok {
				break
			}
		}
		if trimmed, damaged := c.Skipped(); trimmed+damaged != 0 {
			t.Fatalf("%+v: skipped %d and %d", open, trimmed, damaged)
		}
		c.Close()
		l.Close()
	}
}

func TestLog_SeekTimeFindsTheFirstRecordAtOrAfter(t *testing.T) {
	l, _ := mustOpen(t, "d", Options{FS: simfs.New(1), SegmentBytes: minSegmentBytes})
	if lsn, err := l.SeekTime(5); err != nil || lsn != 1 {
		t.Fatal(lsn, err)
	}
	appendN(t, l, 200, 400) // the time of n is 1000 n
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		t    int64
		want LSN
	}{{-1, 1}, {1000, 1}, {1001, 2}, {99_999, 100}, {100_000, 100}, {200_000, 200}, {200_001, 201}} {
		if lsn, err := l.SeekTime(c.t); err != nil || lsn != c.want {
			t.Errorf("SeekTime(%d) = %d, %v, want %d", c.t, lsn, err, c.want)
		}
	}
	if err := l.TrimBefore(150); err != nil {
		t.Fatal(err)
	}
	if lsn, err := l.SeekTime(0); err != nil || lsn != l.First() {
		t.Errorf("after trimming: %d, %v, want %d", lsn, err, l.First())
	}
}

func TestCursor_JumpsToFirstWhenTrimmedAndRecycledUnderIt(t *testing.T) {
	l, _ := mustOpen(t, "d", Options{FS: simfs.New(1), SegmentBytes: minSegmentBytes,
		OnDamage: func(d Damage) { t.Errorf("%+v", d) }})
	appendN(t, l, 100, 700)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	c := l.Cursor(1)
	defer c.Close()
	r, _, err := c.TryNext()
	if err != nil || r.LSN != 1 {
		t.Fatal(r.LSN, err)
	}
	c.r.buf = c.r.buf[:0] // nothing read ahead
	if err := l.TrimBefore(90); err != nil {
		t.Fatal(err)
	}
	appendN(t, l, 100, 700) // into the recycled segments
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	first := l.First()
	r, ok, err := c.TryNext()
	if !ok || err != nil || r.LSN != first {
		t.Fatalf("LSN %d %v %v, want %d", r.LSN, ok, err, first)
	}
	if trimmed, damaged := c.Skipped(); trimmed != uint64(first-2) || damaged != 0 {
		t.Fatalf("trimmed %d, damaged %d", trimmed, damaged)
	}
}

func TestCursor_ReadErrorIsReturnedAndCanBeTriedAgain(t *testing.T) {
	disk := simfs.New(1)
	l, _ := mustOpen(t, "d", Options{FS: disk, SegmentBytes: minSegmentBytes})
	appendN(t, l, 10, 100)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	c := l.Cursor(1)
	defer c.Close()
	for range 2 {
		disk.FailAt(disk.Ops()+1, simfs.EIO)
		if _, ok, err := c.TryNext(); ok || err == nil {
			t.Fatal("no error")
		}
	}
	if r, ok, err := c.TryNext(); !ok || err != nil || r.LSN != 1 {
		t.Fatal(r, ok, err)
	}
}

func TestCursor_ReadsWithoutAllocating(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{})
	appendN(t, l, 2000, 100)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	c := l.Cursor(1)
	defer c.Close()
	c.TryNext()
	if n := testing.AllocsPerRun(1000, func() {
		if _, ok, err := c.TryNext(); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}); n != 0 {
		t.Fatalf("%v allocations a record", n)
	}
}

func TestLockDir_SecondHolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := LockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestLog_TrimToStopsAtTheBytesToKeep(t *testing.T) {
	l, _ := mustOpen(t, "d", Options{FS: simfs.New(1), SegmentBytes: minSegmentBytes})
	appendN(t, l, 200, 700)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	keep := l.Bytes() / 2
	if err := l.TrimTo(keep, 20); err != nil || l.First() > 20 {
		t.Fatalf("first %d, %v: trimmed beyond the LSN", l.First(), err)
	}
	if err := l.TrimTo(keep, l.Next()); err != nil || l.Bytes() > keep || l.Bytes() < keep-minSegmentBytes {
		t.Fatalf("%d bytes left of %d, %v", l.Bytes(), keep, err)
	}
	wantRange(t, readAll(t, l, 0, 700), l.First(), 200)
}
