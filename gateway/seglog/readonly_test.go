package seglog

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// contents maps every file below dir to its bytes.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		files[path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func unchanged(t *testing.T, dir string, before map[string]string) {
	t.Helper()
	after := contents(t, dir)
	for name, b := range before {
		if after[name] != b {
			t.Errorf("%s changed", name)
		}
	}
	if len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
}

func mustOpenReadOnly(t *testing.T, dir string, o Options) (*Log, Recovery) {
	t.Helper()
	l, rec, err := OpenReadOnly(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, rec
}

func TestOpenReadOnly_ReadsWhatAWriterHoldsAndChangesNothing(t *testing.T) {
	dir := t.TempDir()
	w, _ := mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes})
	appendN(t, w, 500, 100)
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	r, rec := mustOpenReadOnly(t, dir, Options{})
	if got := readAll(t, r, 1, 100); len(got) != 500 || rec.First != 1 || rec.Last != 500 {
		t.Errorf("%d records, recovery %+v", len(got), rec)
	}
	if from, err := r.SeekTime(250_000); err != nil || from != 250 {
		t.Errorf("SeekTime = %d, %v", from, err)
	}
	unchanged(t, dir, before)
	appendN(t, w, 500, 100) // the writer goes on
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, r, 1, 100); len(got) != 500 {
		t.Errorf("%d records after the writer went on, want those of the time of opening", len(got))
	}
	if r, _ := mustOpenReadOnly(t, dir, Options{}); len(readAll(t, r, 900, 100)) != 101 {
		t.Error("opened again it does not see what was written since")
	}
}

func TestOpenReadOnly_RefusesEveryWrite(t *testing.T) {
	dir := t.TempDir()
	w, _ := mustOpen(t, dir, Options{})
	appendN(t, w, 10, 10)
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	r, _ := mustOpenReadOnly(t, dir, Options{Retain: true})
	_, appendErr := r.Append(1, 1, []byte("x"))
	_, urgentErr := r.AppendUrgent(1, 1, []byte("x"))
	for name, err := range map[string]error{"Append": appendErr, "AppendUrgent": urgentErr, "Commit": r.Commit(), "Flush": r.Flush(), "Run": r.Run(context.Background()),
		"TrimBefore": r.TrimBefore(10), "TrimTo": r.TrimTo(0, 10), "Err": r.Err()} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s = %v, want ErrReadOnly", name, err)
		}
	}
	if err := r.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	unchanged(t, dir, before)
}

func TestOpenReadOnly_SkipsWhatTheWriterTrims(t *testing.T) {
	for _, recycle := range []bool{false, true} {
		dir := t.TempDir()
		w, _ := mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes, NoPrealloc: !recycle})
		appendN(t, w, 1000, 100)
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		r, _ := mustOpenReadOnly(t, dir, Options{OnDamage: func(d Damage) { t.Errorf("trimmed segments pass for damage: %+v", d) }})
		c := r.Cursor(1)
		defer c.Close()
		if rec, ok, err := c.TryNext(); rec.LSN != 1 || !ok || err != nil {
			t.Fatalf("first record: %d, %v, %v", rec.LSN, ok, err)
		}
		if err := w.TrimBefore(700); err != nil {
			t.Fatal(err)
		}
		appendN(t, w, 1000, 100) // what was trimmed is written over where segments are recycled
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		last, n := LSN(1), 1
		for {
			rec, ok, err := c.TryNext()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			if rec.LSN <= last || string(rec.Body) != string(testBody(uint64(rec.LSN), 100)) {
				t.Fatalf("record %d after %d is not what was written", rec.LSN, last)
			}
			last, n = rec.LSN, n+1
		}
		trimmed, damaged := c.Skipped()
		if last != 1000 || damaged != 0 || uint64(n)+trimmed != 1000 {
			t.Errorf("recycle %v: read %d records up to %d, trimmed %d, damaged %d", recycle, n, last, trimmed, damaged)
		}
	}
}

func TestOpenReadOnly_ReportsDamageWithoutSettingItAside(t *testing.T) {
	dir := t.TempDir()
	w, _ := mustOpen(t, dir, Options{SegmentBytes: minSegmentBytes})
	appendN(t, w, 500, 100)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, segmentName(1))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[headerBytes+10*125+50] ^= 1
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	before := contents(t, dir)
	reported := 0
	r, _ := mustOpenReadOnly(t, dir, Options{OnDamage: func(Damage) { reported++ }})
	if got := readAll(t, r, 1, 100); len(got) != 499 || reported != 1 {
		t.Errorf("%d records, %d ranges reported", len(got), reported)
	}
	unchanged(t, dir, before)
}

func TestOpenReadOnly_EmptyAndMissingDirectories(t *testing.T) {
	dir := t.TempDir()
	r, rec := mustOpenReadOnly(t, dir, Options{})
	if got := readAll(t, r, 1, 1); len(got) != 0 || rec.Last != 0 {
		t.Errorf("an empty directory holds %d records, %+v", len(got), rec)
	}
	missing := filepath.Join(dir, "no")
	if _, _, err := OpenReadOnly(missing, Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("OpenReadOnly of a missing directory = %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("it was created")
	}
}
