package uplink

import (
	"errors"
	"fmt"
	"strings"
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
		Topic: "t", Type: TypePoint, Payload: []byte{0, 1, 255}, Points: "m v=1 1", Count: 3, Retry: []byte{7, 0}}
	want.Bytes = len(want.append(nil)) + recordOnDisk
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

func stats(t testing.TB, q *Quarantine) QuarantineStats {
	t.Helper()
	if err := q.Flush(); err != nil {
		t.Fatal(err)
	}
	s, err := q.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
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
	if s := stats(t, q); s.Items != 10 || s.Skipped != 3 {
		t.Fatalf("Stats() = %+v", s)
	}
	q.Close()
	q = openQuarantine(t, dir, QuarantineOptions{})
	all()
	if s := stats(t, q); s.Items != 11 || s.Skipped != 12 {
		t.Errorf("after the replay Stats() = %+v", s)
	}
}

func lost(q *Quarantine) (n uint64) {
	for _, l := range q.Losses() {
		n += l.Count
	}
	return n
}

func TestQuarantine_DropsTheOldestAtItsBoundAndListsThemAsLost(t *testing.T) {
	dir := t.TempDir()
	o := QuarantineOptions{MaxBytes: minOutbox}
	q := openQuarantine(t, dir, o)
	const total = 400
	big := make([]byte, 4000)
	put := func() {
		for n := range total {
			it := itemN(n + 1)
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
	s := stats(t, q)
	if s.Items+lost(q) != total || lost(q) == 0 || s.Bytes > minOutbox {
		t.Fatalf("Stats() = %+v, lost %d of %d", s, lost(q), total)
	}
	want := QuarantineLoss{Source: "line", Reason: LostFull, From: 1, To: int64(lost(q)), Count: lost(q)}
	if got := q.Losses(); len(got) != 1 || got[0].From != want.From || got[0].To != want.To || got[0].Source != want.Source || got[0].Reason != want.Reason {
		t.Errorf("Losses() = %+v, want %+v", got, want)
	}
	if _, ok, err := q.Get(1); ok || err != nil {
		t.Errorf("Get(1) = %v, %v: it should be gone", ok, err)
	}
	if it, ok, err := q.Get(total); !ok || err != nil || it.Cause.LSN != total {
		t.Errorf("Get(%d) = %+v, %v, %v", total, it, ok, err)
	}
	before := lost(q)
	q.Close()
	q = openQuarantine(t, dir, o)
	put()
	if got := stats(t, q); got.Skipped != total || got.Items != s.Items || lost(q) != before {
		t.Errorf("after the replay Stats() = %+v, lost %d, want %+v and %d", got, lost(q), s, before)
	}
}

func TestQuarantine_RemembersProducersWhoseItemsAreAllDropped(t *testing.T) {
	dir := t.TempDir()
	o := QuarantineOptions{MaxBytes: minOutbox}
	q := openQuarantine(t, dir, o)
	if err := q.Put(Cause{LSN: 7}, itemN(0)); err != nil {
		t.Fatal(err)
	}
	for n := 0; lost(q) == 0; n++ {
		if err := q.Put(Cause{LSN: uint64(n + 1)}, Item{Stage: StageSink, Source: "cloud", Payload: make([]byte, 8000), Count: 1}); err != nil {
			t.Fatal(err)
		}
	}
	q.Close()
	q = openQuarantine(t, dir, o)
	before := stats(t, q).Items
	if err := q.Put(Cause{LSN: 7}, itemN(0)); err != nil {
		t.Fatal(err)
	}
	if got := stats(t, q); got.Items != before || got.Skipped != 1 {
		t.Errorf("the replay of a dropped item was put again: %+v", got)
	}
}

func ids(items []Item) (list []uint64) {
	for _, it := range items {
		list = append(list, it.ID)
	}
	return list
}

func TestQuarantine_ListsTheNewestFirstPageByPage(t *testing.T) {
	q := openQuarantine(t, t.TempDir(), QuarantineOptions{})
	for n := range 10 {
		it := itemN(n)
		if n%2 == 1 {
			it.Reason = "range"
		}
		if err := q.Put(Cause{LSN: uint64(n + 1)}, it); err != nil {
			t.Fatal(err)
		}
	}
	if got, _, err := q.Find(QuarantineFilter{}, 0, 5); len(got) != 0 || err != nil {
		t.Errorf("before Flush Find = %d items, %v", len(got), err)
	}
	if err := q.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		f    QuarantineFilter
		want string
	}{
		{QuarantineFilter{}, "[10 9 8 7 6 5 4 3 2 1]"},
		{QuarantineFilter{Reason: "range"}, "[10 8 6 4 2]"},
		{QuarantineFilter{Source: "line", Stage: StageDecode, Search: "PAYLOAD 7"}, "[8]"},
		{QuarantineFilter{Destination: "line"}, "[]"},
	} {
		var got []uint64
		for before := uint64(0); ; {
			page, total, err := q.Find(tt.f, before, 4)
			if err != nil {
				t.Fatal(err)
			}
			if want := strings.Count(tt.want, " ") + 1; tt.want != "[]" && total != uint64(want) {
				t.Errorf("Find(%+v): %d in all, want %d", tt.f, total, want)
			}
			if len(page) == 0 {
				break
			}
			got = append(got, ids(page)...)
			before = page[len(page)-1].ID
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("Find(%+v): ids %v, want %s", tt.f, got, tt.want)
		}
	}
}

// What was removed stays removed over a restart, once, and only a deletion is a loss.
func TestQuarantine_RemovedItemsStayRemovedAndDeletedOnesAreLost(t *testing.T) {
	dir := t.TempDir()
	q := openQuarantine(t, dir, QuarantineOptions{})
	for n := range 20 {
		it := itemN(n)
		if n >= 10 {
			it.Stage, it.Source, it.Count = StageSink, "cloud", 2
		}
		if err := q.Put(Cause{LSN: uint64(n + 1)}, it); err != nil {
			t.Fatal(err)
		}
	}
	take := func() {
		t.Helper()
		if err := q.Taken(Cause{LSN: 30, Time: 77}, 3, "", "line", 1); err != nil {
			t.Fatal(err)
		}
		if err := q.Taken(Cause{LSN: 31, Time: 78}, 15, "cloud", "", 2); err != nil {
			t.Fatal(err)
		}
		if err := q.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	take()
	if n, err := q.Delete(99, []uint64{3, 4, 16, 500}); n != 2 || err != nil {
		t.Fatalf("Delete = %d, %v, want the two that are there", n, err)
	}
	for life := range 3 {
		if s := stats(t, q); s.Items != 16 || s.Count != 8+8*2 {
			t.Errorf("life %d: %+v, want 16 items of 24", life, s)
		}
		groups, err := q.Groups()
		if err != nil || len(groups) != 2 || groups[0].Source != "cloud" || groups[0].Items != 8 || groups[1].Count != 8 || groups[1].ExampleID != 10 {
			t.Errorf("life %d: groups %+v, %v", life, groups, err)
		}
		for _, id := range []uint64{3, 4, 15, 16} {
			if _, ok, err := q.Get(id); ok || err != nil {
				t.Errorf("life %d: Get(%d) = %v, %v", life, id, ok, err)
			}
		}
		if got := q.Requeued("cloud"); got != 2 {
			t.Errorf("life %d: %d requeued, want 2", life, got)
		}
		if l := q.Losses(); len(l) != 2 || l[0].Count != 1 || l[1].Count != 2 || l[1].Destination != "cloud" || l[0].Reason != LostDeleted {
			t.Errorf("life %d: losses %+v", life, l)
		}
		q.Close()
		q = openQuarantine(t, dir, QuarantineOptions{})
		take() // a replay
	}
}

func TestQuarantine_CompactReleasesWhatIsEmpty(t *testing.T) {
	q := openQuarantine(t, t.TempDir(), QuarantineOptions{MaxBytes: minOutbox})
	for n := range 80 {
		it := itemN(n)
		it.Payload = make([]byte, 4000)
		if err := q.Put(Cause{LSN: uint64(n + 1)}, it); err != nil {
			t.Fatal(err)
		}
	}
	before := stats(t, q)
	all, err := q.IDs(QuarantineFilter{})
	if err != nil || len(all) != 80 {
		t.Fatalf("IDs = %d, %v", len(all), err)
	}
	if n, err := q.Delete(1, all[:60]); n != 60 || err != nil {
		t.Fatal(n, err)
	}
	if after := stats(t, q); after.Items != 20 || after.Bytes > before.Bytes/2 {
		t.Errorf("after deleting three quarters: %+v, before %+v", after, before)
	}
	if lost(q) != 60 {
		t.Errorf("%d lost, want 60", lost(q))
	}
}

// A crash right after it was written down that the oldest items are dropped, and before they were.
func TestQuarantine_DropCutShortIsFinishedAndCountedOnce(t *testing.T) {
	dir := t.TempDir()
	o := QuarantineOptions{MaxBytes: minOutbox}
	q := openQuarantine(t, dir, o)
	put := func(n int) {
		it := itemN(n)
		it.Payload = make([]byte, 4000)
		if err := q.Put(Cause{LSN: uint64(n + 1)}, it); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	for ; q.log.Segments() < 3; n++ {
		put(n)
	}
	if err := q.Sync(); err != nil {
		t.Fatal(err)
	}
	total := stats(t, q).Items
	q.mu.Lock()
	to, _ := q.log.Second()
	gone, err := q.index.countKept(q, uint64(to))
	for _, l := range gone {
		q.state.lose(l)
	}
	q.state.droppedTo = to
	err = errors.Join(err, q.storeState())
	q.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	q.Close()
	q = openQuarantine(t, dir, o)
	if s := stats(t, q); s.Items+lost(q) != total || lost(q) == 0 || q.log.First() < to {
		t.Errorf("%d held and %d lost of %d; first %d, want %d", s.Items, lost(q), total, q.log.First(), to)
	}
}

func FuzzParseItem(f *testing.F) {
	it := itemN(1)
	head := make([]byte, recordHead)
	f.Add(it.append(head))
	f.Add(head)
	var x removal
	x.add(party{true, "cloud"}, 7, 2)
	x.add(party{false, "line"}, 9, 1)
	f.Add(x.append(head))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, ok := parseRemoval(seglog.Record{LSN: 1, Type: quarantineTaken, Body: b}); ok {
			y, ok := parseRemoval(seglog.Record{LSN: 1, Type: quarantineTaken, Body: x.append(b[:recordHead:recordHead])})
			if !ok || fmt.Sprint(y.parties) != fmt.Sprint(x.parties) {
				t.Errorf("%+v written and read back: %+v, %v", x, y, ok)
			}
		}
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
