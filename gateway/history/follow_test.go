package history

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// t0 is the beginning of a block, ns.
const t0 = int64(1_800_000_000_000_000_000)

const (
	second = int64(time.Second)
	minute = 60 * second
)

// fakeJournal is records whose readings are known; index i holds LSN i+1.
type fakeJournal struct {
	mu      sync.Mutex
	records []record
	first   seglog.LSN // trimmed below
	rereads int
	fail    error
}

type record struct {
	device   *telemetry.Device
	t        int64
	readings []telemetry.Reading
}

func (j *fakeJournal) Durable() seglog.LSN {
	j.mu.Lock()
	defer j.mu.Unlock()
	return seglog.LSN(len(j.records))
}

func (j *fakeJournal) Reread(after seglog.LSN) (Reader, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.rereads++
	r := &fakeReader{j: j, next: max(after+1, j.first, 1)}
	r.missing = uint64(r.next - after - 1)
	return r, j.fail
}

type fakeReader struct {
	j       *fakeJournal
	next    seglog.LSN
	missing uint64
}

func (r *fakeReader) Next(put Put) (seglog.LSN, bool, error) {
	r.j.mu.Lock()
	defer r.j.mu.Unlock()
	if int(r.next) > len(r.j.records) {
		return 0, false, nil
	}
	rec := r.j.records[r.next-1]
	if rec.device != nil {
		copied := &telemetry.Device{Measurement: rec.device.Measurement, Labels: rec.device.Labels} // another fold, another device
		put(r.next, copied, rec.t, rec.readings)
	}
	r.next++
	return r.next - 1, true, nil
}

func (r *fakeReader) Missing() uint64 { return r.missing }
func (r *fakeReader) Close()          {}

// rig is a History and the pipeline before it.
type rig struct {
	*testing.T
	*fakeJournal
	o      Options
	h      *History
	cancel context.CancelFunc
	ended  chan error
}

func newRig(t *testing.T) *rig {
	j := &fakeJournal{}
	return &rig{T: t, fakeJournal: j, o: Options{
		Dir: filepath.Join(t.TempDir(), "history"), Keep: 15 * 24 * time.Hour, Journal: j,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}}
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) { w.t.Logf("%s", b); return len(b), nil }

func (r *rig) start() {
	r.Helper()
	r.h = New(r.o)
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.ended = cancel, make(chan error, 1)
	go func() { r.ended <- r.h.Run(ctx) }()
	r.Cleanup(r.stop)
}

func (r *rig) stop() {
	if r.cancel == nil {
		return
	}
	r.cancel()
	if err := <-r.ended; err != nil {
		r.Errorf("Run: %v", err)
	}
	r.cancel = nil
}

// publish journals a record and passes it on, as the pipeline would.
func (r *rig) publish(d *telemetry.Device, t int64, readings ...telemetry.Reading) {
	r.journal(d, t, readings...)
	at := r.Durable()
	r.h.Readings(at, d, t, readings)
	r.h.Passed(at)
}

func (r *rig) journal(d *telemetry.Device, t int64, readings ...telemetry.Reading) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records = append(r.records, record{d, t, readings})
}

func (r *rig) await(what string, cond func(Status) bool) {
	r.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if s := r.h.Status(); cond(s) {
			return
		} else if time.Now().After(end) {
			r.Fatalf("never %s: %+v", what, s)
		}
	}
}

func (r *rig) awaitLive() {
	r.Helper()
	r.await("live", func(s Status) bool { return s.State == Live })
}

func (r *rig) awaitApplied() {
	r.Helper()
	r.await("stored", func(s Status) bool { return s.Applied >= r.Durable() })
}

// all returns every sample by series and ms.
func (r *rig) all() map[string]map[int64]float64 {
	r.Helper()
	q, err := r.h.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		r.Fatal(err)
	}
	defer q.Close()
	out := map[string]map[int64]float64{}
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".+"))
	var it chunkenc.Iterator
	for set.Next() {
		s := set.At()
		samples := map[int64]float64{}
		out[s.Labels().String()] = samples
		it = s.Iterator(it)
		last := int64(math.MinInt64)
		for it.Next() != chunkenc.ValNone {
			t, v := it.At()
			if t <= last {
				r.Errorf("%s goes from %d to %d", s.Labels(), last, t)
			}
			samples[t], last = v, t
		}
		if it.Err() != nil {
			r.Fatal(it.Err())
		}
	}
	if set.Err() != nil {
		r.Fatal(set.Err())
	}
	return out
}

// expectJournal compares what is stored with what the journal holds.
func (r *rig) expectJournal() {
	r.Helper()
	want := map[string]map[int64]float64{}
	n := 0
	for _, rec := range r.records {
		if rec.device == nil {
			continue
		}
		for _, x := range rec.readings {
			var b labels.ScratchBuilder
			name := seriesLabels(&b, rec.device, x.Metric).String()
			if want[name] == nil {
				want[name] = map[int64]float64{}
			}
			want[name][rec.t/1e6] = x.Value
		}
	}
	got := r.all()
	for name, samples := range want {
		for t, v := range samples {
			n++
			if g, ok := got[name][t]; !ok || g != v {
				r.Fatalf("%s at %d is %v (there: %v), want %v; %d samples, want %d", name, t, g, ok, v, len(got[name]), len(samples))
			}
		}
		if len(got[name]) != len(samples) {
			r.Fatalf("%s has %d samples, want %d", name, len(got[name]), len(samples))
		}
	}
	if len(got) != len(want) {
		r.Fatalf("%d series, want %d", len(got), len(want))
	}
	if n == 0 {
		r.Fatal("nothing was compared")
	}
}

func device(name string) *telemetry.Device {
	return &telemetry.Device{Measurement: "telemetry", Labels: telemetry.NewLabels(
		telemetry.Label{Name: "device", Value: name}, telemetry.Label{Name: "site", Value: "plant-7"}, telemetry.Label{Name: "gateway", Value: "gw"})}
}

func temperature(v float64) telemetry.Reading {
	return telemetry.Reading{Metric: "temperature", Value: v}
}

func TestHistory_StoresWhatThePipelinePassesOn(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	a, b := device("a"), device("b")
	for i := range int64(500) {
		r.publish(a, t0+i*second, temperature(20+float64(i%7)/100), telemetry.Reading{Metric: "door", Value: float64(i % 2)})
		r.publish(b, t0+i*second, temperature(-18.5))
	}
	r.awaitApplied()
	r.expectJournal()
	if s := r.h.Status(); s.Stored != 1500 || s.Series != 3 {
		t.Errorf("status %+v", s)
	}
}

func TestHistory_TakesReadingsOutOfOrderAsFarBackAsItKeepsThem(t *testing.T) {
	r := newRig(t)
	r.o.Keep = 2 * time.Hour
	r.start()
	r.awaitLive()
	a := device("a")
	r.publish(a, t0+100*minute, temperature(1))
	for _, back := range []int64{5, 100, 30, 1, 99} { // minutes
		r.publish(a, t0+(100-back)*minute, temperature(float64(back)))
	}
	r.awaitApplied()
	r.expectJournal()
	r.publish(a, t0-100*minute, temperature(3))
	r.await("counted", func(s Status) bool { return s.TooOld == 1 })
	r.stop()
	r.records = r.records[:len(r.records)-1]
	r.start()
	r.await("open", func(s Status) bool { return s.State >= CatchingUp })
	r.expectJournal()
}

func TestHistory_OneValueAMillisecondAndTheOtherIsCounted(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	a := device("a")
	r.publish(a, t0, temperature(1))
	r.publish(a, t0+1000, temperature(1)) // the same again: no conflict
	r.publish(a, t0+2000, temperature(2))
	r.awaitApplied()
	if s := r.h.Status(); s.Stored != 1 || s.Conflicts != 1 {
		t.Errorf("stored %d, conflicts %d; want 1 and 1", s.Stored, s.Conflicts)
	}
}

func TestHistory_RestartReadsNothingAgain(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	for i := range int64(100) {
		r.publish(device("a"), t0+i*second, temperature(float64(i)))
	}
	r.stop()
	r.start()
	r.awaitLive()
	if s := r.h.Status(); s.Stored != 0 || s.Applied != 100 {
		t.Errorf("after a clean stop %d readings were stored again, watermark %d", s.Stored, s.Applied)
	}
	r.publish(device("a"), t0+100*second, temperature(100))
	r.awaitApplied()
	r.expectJournal()
}

func TestHistory_CatchesUpWithWhatWasJournalledWhileItWasAway(t *testing.T) {
	r := newRig(t)
	a := device("a")
	for i := range int64(30_000) {
		r.journal(a, t0+i*second/10, temperature(float64(i%100)/10))
	}
	r.start()
	for i := range int64(5_000) { // the pipeline goes on meanwhile
		r.publish(a, t0+3000*second+i*second/10, temperature(float64(i%100)/10))
	}
	r.awaitApplied()
	r.awaitLive()
	r.publish(a, t0+9000*second, temperature(1))
	r.awaitApplied()
	r.expectJournal()
	if s := r.h.Status(); s.Stored != 35_001 || s.Missed != 0 {
		t.Errorf("status %+v", s)
	}
}

// Records with several samples must not be split by the moment at which the queue is joined.
func TestHistory_JoinsBetweenRecords(t *testing.T) {
	for round := range 20 {
		r := newRig(t)
		a, began := device("a"), time.Now()
		r.start()
		for i := 0; r.h.Status().State != Live || i < 50; i++ {
			at := t0 + int64(i)*second
			two := []telemetry.Reading{temperature(float64(i)), {Metric: "x", Value: float64(i)}}
			r.journal(a, at, two...)
			lsn := r.Durable()
			r.h.Readings(lsn, a, at, two[:1])
			r.h.Readings(lsn, a, at, two[1:])
			if i%3 == 0 {
				r.h.Passed(lsn)
			}
			if i%32 == 31 {
				time.Sleep(50 * time.Microsecond) // the pace of the load, not a wait for something
			}
			if time.Since(began) > 20*time.Second {
				t.Fatalf("round %d: never live", round)
			}
		}
		r.h.Passed(r.Durable())
		r.awaitApplied()
		r.expectJournal()
		r.stop()
	}
}

// The pipeline is never held up: with nobody storing, Readings returns at once, memory stays bounded, and the journal fills the gap.
func TestHistory_ABlockedDiskHoldsUpNothingAndLosesNothing(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	a := device("a")
	release := r.block()
	started := time.Now()
	n := int64(3 * queueSamples)
	for i := range n {
		r.publish(a, t0+i*second/100, temperature(float64(i%50)/10))
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("%d readings took the pipeline %v", n, took)
	}
	r.h.mu.Lock()
	held := len(r.h.queue.samples)
	r.h.mu.Unlock()
	if held > queueSamples {
		t.Errorf("%d samples are queued, want at most %d", held, queueSamples)
	}
	release()
	r.awaitApplied()
	r.awaitLive()
	r.expectJournal()
	if s := r.h.Status(); s.Overflows == 0 || s.Missed != 0 {
		t.Errorf("status %+v", s)
	}
}

// block stops commits until release is called, as a disk that does not answer does.
func (r *rig) block() (release func()) {
	r.Helper()
	held, freed := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stall := func() { once.Do(func() { close(held); <-freed }) }
	r.h.stall.Store(&stall)
	r.publish(device("a"), t0-second, temperature(0.5))
	<-held
	return func() { close(freed) }
}

func TestHistory_SaysWhatTheJournalNoLongerHeld(t *testing.T) {
	r := newRig(t)
	for i := range int64(100) {
		r.journal(device("a"), t0+i*second, temperature(1))
	}
	r.first = 41
	r.start()
	r.awaitLive()
	if s := r.h.Status(); s.Missed != 40 || s.Stored != 60 {
		t.Errorf("missed %d, stored %d; want 40 and 60", s.Missed, s.Stored)
	}
}

func TestHistory_AJournalThatBeganAnewIsReadFromItsBeginning(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	for i := range int64(50) {
		r.publish(device("a"), t0+i*second, temperature(1))
	}
	r.stop()
	r.records = nil
	for i := range int64(10) {
		r.journal(device("b"), t0+i*second, temperature(2))
	}
	r.start()
	r.awaitLive()
	if s := r.h.Status(); s.Stored != 10 || s.Applied != 10 {
		t.Errorf("status %+v", s)
	}
}

func TestHistory_TroubleWithTheJournalIsTriedAgain(t *testing.T) {
	r := newRig(t)
	r.fail = errors.New("no")
	r.start()
	r.await("failing", func(s Status) bool { return s.LastError == "no" })
	r.mu.Lock()
	r.fail = nil
	r.mu.Unlock()
	r.awaitLive()
	if s := r.h.Status(); s.LastError != "" {
		t.Errorf("last error %q stays", s.LastError)
	}
}

// fill makes a history with blocks and a head, and returns its folder.
func (r *rig) fill(hours int64) {
	r.Helper()
	a := device("a")
	for i := range hours * 360 {
		r.journal(a, t0+i*10*second, temperature(float64(i%500)/10))
	}
	r.start()
	r.awaitLive()
	r.await("compacted", func(s Status) bool { return s.Blocks > 0 })
}

func TestHistory_ADamagedBlockIsSetAsideAndTheRestStays(t *testing.T) {
	r := newRig(t)
	r.fill(3)
	r.stop()
	blocks, _ := filepath.Glob(filepath.Join(r.o.Dir, "01*"))
	if err := os.WriteFile(filepath.Join(blocks[0], "index"), []byte("no index at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.start()
	r.awaitLive()
	r.expectJournal()
	if s := r.h.Status(); s.SetAside != 1 {
		t.Errorf("status %+v", s)
	}
	if _, err := os.Stat(filepath.Join(r.o.Dir+".damaged", filepath.Base(blocks[0]), "index")); err != nil {
		t.Errorf("the damaged block was not kept: %v", err)
	}
}

func TestHistory_DamagedFilesOfTheHeadAreRebuiltFromTheJournal(t *testing.T) {
	for _, pattern := range []string{"wal/0*", "chunks_head/0*", "chunk_snapshot*/0*", "WATERMARK", "0*/chunks/0*", "0*/meta.json"} {
		t.Run(pattern, func(t *testing.T) {
			r := newRig(t)
			r.fill(2)
			r.stop()
			files, _ := filepath.Glob(filepath.Join(r.o.Dir, pattern))
			if len(files) == 0 {
				t.Fatalf("no file is like %s", pattern)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				for i := 0; i < len(b); i += 97 {
					b[i] ^= 0x5a
				}
				if err := os.WriteFile(f, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			r.start()
			r.awaitLive()
			r.awaitApplied()
			if pattern != "0*/chunks/0*" { // checked by CRC when read, and then said
				r.expectJournal()
			}
			r.publish(device("a"), t0+10*3600*second, temperature(1))
			r.awaitApplied()
		})
	}
}

func TestMark_OutlivesAProcessAndTrustsOnlyWhatWasSyncedAfterAReboot(t *testing.T) {
	m := mark{applied: 90, synced: 40}
	b := m.encode()
	if got := decodeMark(b); got != m {
		t.Errorf("decodeMark = %+v, want %+v", got, m)
	}
	other := mark{applied: 90, synced: 40}.encodeAs([16]byte{1})
	if got := decodeMark(other); got.applied != 40 || got.synced != 40 {
		t.Errorf("after a reboot %+v, want 40 and 40", got)
	}
	for i := range b {
		b[i] ^= 1
		if got := decodeMark(b); got != (mark{}) {
			t.Errorf("byte %d flipped: %+v", i, got)
		}
		b[i] ^= 1
	}
	if got := decodeMark(b[:20]); got != (mark{}) {
		t.Errorf("cut short: %+v", got)
	}
}

func TestNames_MapPredictably(t *testing.T) {
	for _, tc := range [][2]string{
		{MetricName("telemetry", "temperature"), "telemetry_temperature"},
		{MetricName("line 1", "temp.in°C"), "line_1_temp_in_C"},
		{MetricName("3d", "x"), "_3d_x"},
		{MetricName("a:b", "Ünit"), "a_b__nit"},
		{LabelName("device"), "device"}, {LabelName("site.id"), "site_id"}, {LabelName("1st"), "_1st"},
		{LabelName("__name__"), "label__name__"}, {LabelName(""), "_"}, {LabelName("_x"), "_x"},
	} {
		if tc[0] != tc[1] {
			t.Errorf("got %q, want %q", tc[0], tc[1])
		}
	}
	d := &telemetry.Device{Measurement: "m", Labels: telemetry.NewLabels(
		telemetry.Label{Name: "a-b", Value: "1"}, telemetry.Label{Name: "a.b", Value: "2"}, telemetry.Label{Name: "__name__", Value: "x"})}
	var b labels.ScratchBuilder
	if got, want := seriesLabels(&b, d, "v").String(), `{__name__="m_v", a_b="1;2", label__name__="x"}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func seqLSN(n uint64) seglog.LSN { return seglog.LSN(n) }
