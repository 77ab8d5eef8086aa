package seglog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// A copy taken while the log is written to and trimmed holds what was there at the moment of Freeze, and nothing else.
func TestFreeze_CopyIsTheLogOfThatMomentWhateverHappensMeanwhile(t *testing.T) {
	dir := t.TempDir()
	l, _, err := Open(dir, Options{SegmentBytes: 16 << 10})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	put := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			if _, err := l.Append(1, int64(i), fmt.Appendf(nil, "record %d %0500d", i, i)); err != nil {
				t.Fatal(err)
			}
			if i%7 == 0 {
				if err := l.Commit(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := l.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	put(1, 200)
	first := l.First()
	f, err := l.Freeze()
	if err != nil {
		t.Fatal(err)
	}
	put(200, 500)
	if err := l.TrimBefore(450); err != nil { // released segments would become spares, and be written over
		t.Fatal(err)
	}
	put(500, 700)
	if l.First() == first {
		t.Fatal("nothing was trimmed: the test shows nothing")
	}
	to := t.TempDir()
	for _, file := range f.Files {
		b := make([]byte, file.Size)
		if _, err := file.File.ReadAt(b, 0); err != nil {
			t.Fatalf("%s: %v", file.Name, err)
		}
		if err := os.WriteFile(filepath.Join(to, file.Name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	copied, rec, err := Open(to, Options{SegmentBytes: 16 << 10, Verify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if rec.First != first || rec.Last != 199 || len(rec.Damaged) > 0 || rec.TornBytes > 0 {
		t.Errorf("the copy holds %d to %d, %d torn bytes, damage %v; want %d to 199", rec.First, rec.Last, rec.TornBytes, rec.Damaged, first)
	}
	c := copied.Cursor(first)
	defer c.Close()
	for want := int(first); want < 200; want++ {
		r, ok, err := c.TryNext()
		if err != nil || !ok || int(r.LSN) != want || string(r.Body) != fmt.Sprintf("record %d %0500d", want, want) {
			t.Fatalf("record %d: %v %v %v", want, r.LSN, ok, err)
		}
	}
}
