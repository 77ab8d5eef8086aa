package seglog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
)

// body is what the tests store at an LSN: recognisable, and of varying length.
func testBody(n uint64, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n>>(8*(i%8))) ^ byte(i/8)
	}
	return b
}

func mustOpen(t testing.TB, dir string, o Options) (*Log, Recovery) {
	t.Helper()
	l, rec, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, rec
}

func appendN(t testing.TB, l *Log, n, size int) {
	t.Helper()
	for range n {
		next := uint64(l.Next())
		if _, err := l.Append(byte(1+next%200), int64(next)*1000, testBody(next, size)); err != nil {
			t.Fatalf("append %d: %v", next, err)
		}
	}
}

// readAll reads what is visible from lsn on and checks every record against testBody.
func readAll(t testing.TB, l *Log, from LSN, size int) []LSN {
	t.Helper()
	c := l.Cursor(from)
	defer c.Close()
	var got []LSN
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		if want := testBody(uint64(r.LSN), size); !bytes.Equal(r.Body, want) || r.Type != byte(1+r.LSN%200) || r.Time != int64(r.LSN)*1000 {
			t.Fatalf("record %d is not what was appended", r.LSN)
		}
		got = append(got, r.LSN)
	}
}

func wantRange(t testing.TB, got []LSN, first, last LSN) {
	t.Helper()
	for i, lsn := range got {
		if lsn != first+LSN(i) {
			t.Fatalf("record %d is LSN %d, want %d", i, lsn, first+LSN(i))
		}
	}
	if n := int(last - first + 1); len(got) != n {
		t.Fatalf("read %d records, want %d (%d to %d)", len(got), n, first, last)
	}
}

func TestLog_ReadsBackAcrossSegmentsAndReopen(t *testing.T) {
	dir := t.TempDir()
	o := Options{SegmentBytes: 32 << 10}
	l, rec := mustOpen(t, dir, o)
	if rec.First != 0 || rec.Last != 0 || l.First() != 1 || l.Next() != 1 {
		t.Fatalf("empty log: %+v, first %d next %d", rec, l.First(), l.Next())
	}
	for range 30 {
		appendN(t, l, 10, 300)
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if l.Durable() != 300 || l.Visible() != 300 || l.Segments() < 3 {
		t.Fatalf("durable %d visible %d segments %d", l.Durable(), l.Visible(), l.Segments())
	}
	wantRange(t, readAll(t, l, 1, 300), 1, 300)
	wantRange(t, readAll(t, l, 157, 300), 157, 300)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l, rec = mustOpen(t, dir, o)
	if rec.First != 1 || rec.Last != 300 || rec.TornBytes != 0 || len(rec.Damaged) != 0 {
		t.Fatalf("recovery %+v", rec)
	}
	appendN(t, l, 5, 300)
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	wantRange(t, readAll(t, l, 0, 300), 1, 305)
}

func TestLog_RunCommitsConcurrentAppendsInOrder(t *testing.T) {
	var mu sync.Mutex
	var durable LSN
	seen := make(chan LSN, 10000)
	l, _ := mustOpen(t, t.TempDir(), Options{SegmentBytes: 64 << 10, MaxPendingBytes: 4 << 10, OnCommit: func(c CommitInfo) {
		mu.Lock()
		defer mu.Unlock()
		if c.Durable <= durable {
			t.Errorf("commit of %d after %d", c.Durable, durable)
		}
		durable = c.Durable
		seen <- c.Durable
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	for running := false; !running; { // before that, Append would not wait but return ErrFull
		l.mu.Lock()
		running = l.running
		l.mu.Unlock()
		runtime.Gosched()
	}
	const writers, each = 16, 200
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				if _, err := l.Append(1, int64(i), fmt.Appendf(nil, "%d/%d", w, i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := make([]int, writers)
	c := l.Cursor(1)
	defer c.Close()
	for want := LSN(1); want <= writers*each; want++ {
		r, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var w, i int
		fmt.Sscanf(string(r.Body), "%d/%d", &w, &i)
		if r.LSN != want || i != next[w] {
			t.Fatalf("read LSN %d %s, want LSN %d %d/%d", r.LSN, r.Body, want, w, next[w])
		}
		next[w]++
		if r.LSN%100 == 0 {
			if err := l.TrimBefore(r.LSN - 50); err != nil {
				t.Fatal(err)
			}
		}
	}
	wg.Wait()
	cancel()
	if err := <-ran; err != nil {
		t.Fatal(err)
	}
	if l.Durable() != writers*each {
		t.Fatalf("durable %d", l.Durable())
	}
}

func TestCursor_NextWaitsUntilContextEndsOrLogCloses(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{})
	c := l.Cursor(1)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := c.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("err %v", err)
	}
	got := make(chan error, 1)
	go func() {
		_, err := c.Next(context.Background())
		got <- err
	}()
	l.Close()
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Fatalf("err %v", err)
	}
	if _, err := l.Append(1, 0); !errors.Is(err, ErrClosed) {
		t.Fatalf("append: %v", err)
	}
}

func TestLog_RecordLargerThanSegment(t *testing.T) {
	dir := t.TempDir()
	l, _ := mustOpen(t, dir, Options{SegmentBytes: 16 << 10})
	big := bytes.Repeat([]byte("x"), 100<<10)
	for _, b := range [][]byte{[]byte("a"), big, []byte("b"), big, big, nil} {
		if _, err := l.Append(1, 0, b); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Commit(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l, _ = mustOpen(t, dir, Options{SegmentBytes: 16 << 10})
	c := l.Cursor(1)
	defer c.Close()
	for i, want := range []int{1, len(big), 1, len(big), len(big), 0} {
		r, ok, err := c.TryNext()
		if !ok || err != nil || len(r.Body) != want {
			t.Fatalf("record %d: %v %v %d bytes, want %d", i+1, ok, err, len(r.Body), want)
		}
	}
	if _, err := l.Append(1, 0, make([]byte, MaxRecord+1)); !errors.Is(err, ErrTooLarge) {
		t.Fatalf("too large: %v", err)
	}
	if _, err := l.Append(0, 0); err == nil {
		t.Fatal("type 0 was taken")
	}
}

func TestSlots_KeepNewest(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenSlots(nil, dir, "cp")
	if err != nil {
		t.Fatal(err)
	}
	if v, g, err := s.Load(); v != nil || g != 0 || err != nil {
		t.Fatal(v, g, err)
	}
	for i := range uint64(5) {
		if err := s.Store(binary.LittleEndian.AppendUint64(nil, i), i%2 == 0); err != nil {
			t.Fatal(err)
		}
		if v, _, err := s.Load(); err != nil || binary.LittleEndian.Uint64(v) != i {
			t.Fatal(v, err)
		}
	}
	s.Close()
	s, err = OpenSlots(nil, dir, "cp")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	v, g, err := s.Load()
	if err != nil || g != 5 || binary.LittleEndian.Uint64(v) != 4 {
		t.Fatal(v, g, err)
	}
	if both, err := s.Both(); err != nil || len(both) != 2 || both[1][0] != 2 {
		t.Fatal(both, err)
	}
}

func TestLog_AppendDoesNotAllocate(t *testing.T) {
	l, _ := mustOpen(t, t.TempDir(), Options{})
	body := make([]byte, 150)
	for range 2 { // both buffers grow
		for range 3000 {
			l.Append(1, 1, body)
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(1000, func() { l.Append(1, 1, body[:50], body[50:]) }); n != 0 {
		t.Fatalf("%v allocations a record", n)
	}
}
