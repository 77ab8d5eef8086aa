package uplink

import (
	"fmt"
	"testing"

	"sluice/gateway/seglog"
)

func openQuarantine(t testing.TB, dir string, o QuarantineOptions) *Quarantine {
	t.Helper()
	q, err := OpenQuarantine(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close() })
	return q
}

func itemN(n int) Item {
	return Item{Time: int64(n), Stage: StageDecode, Reason: "json", Detail: "unexpected end", Source: "line", Topic: "a/b", Payload: fmt.Appendf(nil, "payload %d", n), Count: 1}
}

func TestQuarantine_ItemsReadBackWholeOverARestart(t *testing.T) {
	dir := t.TempDir()
	q := openQuarantine(t, dir, QuarantineOptions{})
	want := Item{ID: 1, Cause: Cause{LSN: 9, Ordinal: 2}, Time: 1764000000e9, Stage: StageSink, Reason: "rejected", Detail: "the server's words", Source: "cloud",
		Topic: "t", Type: TypePoint, Payload: []byte{0, 1, 255}, Points: "m v=1 1", Count: 3}
	if err := q.Put(Cause{LSN: 9, Ordinal: 2, Time: 5}, want); err != nil {
		t.Fatal(err)
	}
	if err := q.Sync(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		got, ok, err := q.Get(1)
		if err != nil || !ok || fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
			t.Fatalf("Get(1) = %+v, %v, %v, want %+v", got, ok, err, want)
		}
		if _, ok, err := q.Get(2); ok || err != nil {
			t.Errorf("Get(2) = %v, %v", ok, err)
		}
		q.Close()
		q = openQuarantine(t, dir, QuarantineOptions{})
	}
}

func TestQuarantine_EachProducerSkipsItsOwnReplaysOnly(t *testing.T) {
	dir := t.TempDir()
	q := openQuarantine(t, dir, QuarantineOptions{})
	put := func(cause uint64, stage Stage, source string) {
		t.Helper()
		if err := q.Put(Cause{LSN: cause}, Item{Stage: stage, Source: source}); err != nil {
			t.Fatal(err)
		}
	}
	all := func() {
		for c := uint64(1); c <= 3; c++ {
			put(c+100, StageDecode, "line")
			put(c+100, StageTime, "line") // the pipeline's too: skipped as the same cause
			put(c, StageSink, "cloud")
			put(c+50, StageSink, "lake")
		}
		put(0, StageSink, "cloud") // no cause: never skipped
	}
	all()
	if s := q.Stats(); s.Put != 10 || s.Skipped != 3 {
		t.Fatalf("Stats() = %+v", s)
	}
	q.Close()
	q = openQuarantine(t, dir, QuarantineOptions{})
	all()
	if s := q.Stats(); s.Put != 11 || s.Skipped != 12 {
		t.Errorf("after the replay Stats() = %+v", s)
	}
}

func TestQuarantine_DropsTheOldestAtItsBoundAndKeepsCount(t *testing.T) {
	dir := t.TempDir()
	q := openQuarantine(t, dir, QuarantineOptions{MaxBytes: minOutbox})
	const total = 400
	big := make([]byte, 4000)
	put := func() {
		for n := range total {
			it := itemN(n)
			it.Payload = append(it.Payload, big...)
			if err := q.Put(Cause{LSN: uint64(n + 1)}, it); err != nil {
				t.Fatal(err)
			}
		}
		if err := q.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	put()
	s := q.Stats()
	if s.Put != total || s.Kept+s.Dropped != total || s.Dropped == 0 || s.Bytes > minOutbox {
		t.Fatalf("Stats() = %+v", s)
	}
	if _, ok, err := q.Get(1); ok || err != nil {
		t.Errorf("Get(1) = %v, %v: it should be gone", ok, err)
	}
	if it, ok, err := q.Get(total); !ok || err != nil || it.Cause.LSN != total {
		t.Errorf("Get(%d) = %+v, %v, %v", total, it, ok, err)
	}
	q.Close()
	q = openQuarantine(t, dir, QuarantineOptions{MaxBytes: minOutbox})
	put()
	if got := q.Stats(); got.Put != total || got.Skipped != total || got.Kept != s.Kept {
		t.Errorf("after the replay Stats() = %+v", got)
	}
}

func TestQuarantine_RemembersProducersWhoseItemsAreAllDropped(t *testing.T) {
	dir := t.TempDir()
	o := QuarantineOptions{MaxBytes: minOutbox}
	q := openQuarantine(t, dir, o)
	if err := q.Put(Cause{LSN: 7}, itemN(0)); err != nil {
		t.Fatal(err)
	}
	for n := 0; q.Stats().Dropped == 0; n++ {
		if err := q.Put(Cause{LSN: uint64(n + 1)}, Item{Stage: StageSink, Source: "cloud", Payload: make([]byte, 8000)}); err != nil {
			t.Fatal(err)
		}
	}
	q.Close()
	q = openQuarantine(t, dir, o)
	before := q.Stats().Put
	if err := q.Put(Cause{LSN: 7}, itemN(0)); err != nil {
		t.Fatal(err)
	}
	if got := q.Stats(); got.Put != before || got.Skipped != 1 {
		t.Errorf("the replay of a dropped item was put again: %+v", got)
	}
}

func TestQuarantine_ListsTheNewestFirstPageByPage(t *testing.T) {
	q := openQuarantine(t, t.TempDir(), QuarantineOptions{})
	for n := range 10 {
		if err := q.Put(Cause{LSN: uint64(n + 1)}, itemN(n)); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := q.List(0, 5); len(got) != 0 || err != nil {
		t.Errorf("before Flush List = %d items, %v", len(got), err)
	}
	if err := q.Flush(); err != nil {
		t.Fatal(err)
	}
	var ids []uint64
	for before := uint64(0); ; {
		page, err := q.List(before, 4)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		for _, it := range page {
			ids = append(ids, it.ID)
		}
		before = page[len(page)-1].ID
	}
	if fmt.Sprint(ids) != "[10 9 8 7 6 5 4 3 2 1]" {
		t.Errorf("ids %v", ids)
	}
}

func FuzzParseItem(f *testing.F) {
	it := itemN(1)
	head := make([]byte, recordHead)
	f.Add(it.append(head))
	f.Add(head)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseItem(seglog.Record{LSN: 1, Type: quarantineCaused, Body: b})
		if err != nil {
			return
		}
		again, err := parseItem(seglog.Record{LSN: 1, Type: quarantineCaused, Body: got.append(b[:recordHead:recordHead])})
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", got) {
			t.Errorf("%+v written and read back: %+v, %v", got, again, err)
		}
	})
}
