package seglog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"sluice/gateway/seglog/fsys"
	"sluice/gateway/seglog/fsys/simfs"
)

// world runs a fixed script on a simulated disk and remembers what the log and the slots have promised.
type world struct {
	disk    *simfs.FS
	fs      fsys.FS // disk, or a planted defect in front of it
	o       Options
	ids     uint64
	log     *Log
	slots   *Slots
	serial  uint64           // makes every appended body its own
	history map[LSN][][]byte // every body ever appended with that LSN
	acked   map[LSN][]byte   // what must be there
	trimmed LSN              // below it nothing must be there
	stored  [][]byte         // values given to Store, in order
	kept    int              // index of the newest one that must not be lost, -1: none
	faults  int              // OnFault calls
	flush   bool             // an outbox: Flush and Retain
	lastErr error
}

func newWorld(seed uint64, flush bool) *world {
	w := &world{disk: simfs.New(seed), history: map[LSN][][]byte{}, acked: map[LSN][]byte{}, kept: -1, flush: flush}
	w.fs = w.disk
	w.o = Options{SegmentBytes: minSegmentBytes, Retain: flush, OnCommit: func(c CommitInfo) { w.ack(c.Durable) },
		OnFault: func(error, LSN) { w.faults++ }}
	return w
}

func (w *world) ack(durable LSN) {
	for lsn := durable; lsn > 0 && w.acked[lsn] == nil; lsn-- {
		v := w.history[lsn]
		if len(v) == 0 {
			break
		}
		w.acked[lsn] = v[len(v)-1]
	}
}

func (w *world) open() (Recovery, error) {
	w.o.FS = w.fs
	l, rec, err := open("d/log", w.o, func() uint64 { w.ids++; return w.ids * 0x9e3779b97f4a7c15 })
	if err != nil {
		return rec, err
	}
	s, err := OpenSlots(w.fs, "d/state", "cp")
	if err != nil {
		l.Close()
		return rec, err
	}
	w.log, w.slots = l, s
	return rec, nil
}

func (w *world) append(n, size int) {
	for i := range n {
		w.serial++
		body := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, w.serial), 1+(size+i*37)/8)
		lsn, err := w.log.Append(7, int64(w.serial), body)
		if err == nil {
			w.history[lsn] = append(w.history[lsn], body)
		}
	}
}

func (w *world) commit() {
	if w.flush && w.serial%3 != 0 {
		w.lastErr = w.log.Flush()
	} else {
		w.lastErr = w.log.Commit()
	}
}

func (w *world) store(size int, sync bool) {
	v := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, uint64(len(w.stored)+1)), 1+size/8)
	w.stored = append(w.stored, v)
	if err := w.slots.Store(v, sync); err == nil && sync {
		w.kept = len(w.stored) - 1
	}
}

func (w *world) trim(lsn LSN) {
	w.trimmed = max(w.trimmed, lsn)
	w.log.TrimBefore(lsn)
}

// script is the fixed run: groups of all sizes, several segments, trims that recycle, slots, and a restart in the middle.
func (w *world) script() error {
	if err := w.reopen(); err != nil {
		return err
	}
	for round := range 12 {
		w.append(1+round%5, 40)
		w.commit()
		w.append(4, 900)
		w.commit()
		w.store(100+round*150, round%3 != 1)
		if round%3 == 2 {
			w.trim(w.log.Durable() - min(w.log.Durable(), 4))
		}
		if round == 4 {
			w.append(1, 20000) // larger than a segment
			w.commit()
		}
		if round == 7 {
			w.append(3, 100)
			w.log.Close() // commits them
			w.slots.Close()
			if err := w.reopen(); err != nil {
				return err
			}
		}
	}
	return nil
}

// reopen tries twice: the first time may have met the planned fault.
func (w *world) reopen() error {
	if _, err := w.open(); err != nil {
		if _, err := w.open(); err != nil {
			return err
		}
	}
	return nil
}

// check opens what the crash left and holds it against the promises. What it reads becomes a promise: a second crash, which
// keeps only what is synced, must not take it back.
func (w *world) check(p simfs.Policy, seed uint64, crashOnly bool) error {
	w.disk.Restart(p, seed)
	w.fs = w.disk
	old := w.lengths()
	for pass := range 3 {
		rec, err := w.open()
		if err != nil {
			return fmt.Errorf("pass %d: open: %w", pass, err)
		}
		for _, d := range rec.Damaged {
			if crashOnly && !d.Torn && !d.Known {
				return fmt.Errorf("pass %d: a crash was taken for damage: %+v", pass, d)
			}
		}
		if err := w.compare(true); err != nil {
			return fmt.Errorf("pass %d: %w", pass, err)
		}
		if pass == 1 {
			w.appendLike(old)
			if err := w.log.Commit(); err != nil {
				return fmt.Errorf("append after recovery: %w", err)
			}
			w.store(64, true)
			w.append(2, 500) // lost in the next crash, or not
			w.log.Flush()
		}
		if pass == 0 && p == simfs.Kill {
			w.disk.Restart(simfs.Random, seed+1)
		} else {
			w.disk.Restart(simfs.DropAll, 0)
		}
	}
	return nil
}

// compare reads everything.
func (w *world) compare(restarted bool) error {
	found := map[LSN]bool{}
	if err := w.readBack(found); err != nil {
		return err
	}
	for lsn := range w.acked {
		if lsn >= w.trimmed && !found[lsn] {
			return fmt.Errorf("acknowledged LSN %d is missing (of %d to %d, trimmed below %d)", lsn, w.log.First(), w.log.Durable(), w.trimmed)
		}
	}
	if restarted { // what is not there now must not come back later
		for lsn := range w.history {
			if lsn >= w.trimmed && !found[lsn] {
				delete(w.history, lsn)
			}
		}
	}
	v, _, err := w.slots.Load()
	if err != nil {
		return err
	}
	i := len(w.stored) - 1
	for i >= 0 && !bytes.Equal(v, w.stored[i]) {
		i--
	}
	if i < w.kept || (i < 0 && v != nil) {
		return fmt.Errorf("slots hold value %d, want %d or later", i, w.kept)
	}
	w.kept = i
	return nil
}

// readBack reads every visible record and compares it with what was appended.
func (w *world) readBack(found map[LSN]bool) error {
	c := w.log.Cursor(0)
	defer c.Close()
	var before LSN
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if r.LSN <= before {
			return fmt.Errorf("LSN %d after %d", r.LSN, before)
		}
		before = r.LSN
		found[r.LSN] = true
		want, acked := w.acked[r.LSN]
		if acked && !bytes.Equal(want, r.Body) {
			return fmt.Errorf("LSN %d is not the record that was acknowledged", r.LSN)
		}
		known := false
		for _, v := range w.history[r.LSN] {
			known = known || bytes.Equal(v, r.Body)
		}
		if !known {
			return fmt.Errorf("LSN %d was never appended like this", r.LSN)
		}
		if !acked {
			w.acked[r.LSN] = bytes.Clone(r.Body)
		}
	}
	return nil
}

// lengths are those of the bodies last appended with each LSN.
func (w *world) lengths() map[LSN]int {
	n := map[LSN]int{}
	for lsn, v := range w.history {
		n[lsn] = len(v[len(v)-1])
	}
	return n
}

// appendLike appends a record as long as the one that had its LSN before the crash, so that what is left of that group
// would stand exactly behind it.
func (w *world) appendLike(old map[LSN]int) {
	size, ok := old[w.log.Next()]
	if !ok {
		size = 500
	}
	w.append(1, size-8)
}

func countOps(t testing.TB, flush bool) int {
	w := newWorld(1, flush)
	if err := w.script(); err != nil {
		t.Fatal(err)
	}
	n := w.disk.Ops()
	if err := w.compare(false); err != nil {
		t.Fatal(err)
	}
	return n
}

// stride is 1, and larger with -short.
func stride() int {
	if testing.Short() {
		return 11
	}
	return 1
}

var worlds = map[string]bool{"journal": false, "outbox": true}

func TestLog_SurvivesCrashBeforeEveryOperation(t *testing.T) {
	for name, flush := range worlds {
		t.Run(name, func(t *testing.T) {
			k := countOps(t, flush)
			runs := 0
			for n := 1; n <= k+1; n += stride() {
				for _, p := range append([]simfs.Policy{simfs.Kill}, simfs.Policies...) {
					seeds := uint64(1)
					if p == simfs.Random {
						seeds = 6
					}
					for seed := range seeds {
						runs++
						if err := crashRun(n, p, seed, flush, nil); err != nil {
							t.Fatalf("crash before operation %d of %d, %s, seed %d: %v", n, k, p, seed, err)
						}
					}
				}
			}
			t.Logf("K = %d crash points, %d runs", k, runs)
		})
	}
}

// crashRun is one run of the script with a crash; plant puts a defective file system in front of the disk.
func crashRun(n int, p simfs.Policy, seed uint64, flush bool, plant func(fsys.FS) fsys.FS) error {
	w := newWorld(seed, flush)
	if plant != nil {
		w.fs = plant(w.disk)
	}
	w.disk.CrashBefore(n)
	if err := w.script(); err != nil && !errors.Is(err, simfs.ErrCrashed) {
		return err
	}
	return w.check(p, seed*7919+uint64(n), true)
}

func TestLog_SurvivesFailureOfEveryOperation(t *testing.T) {
	faults := []simfs.Fault{simfs.EIO, simfs.ENOSPC, simfs.ShortWrite, simfs.FailedSync, simfs.DoneAnyway}
	for name, flush := range worlds {
		t.Run(name, func(t *testing.T) {
			k := countOps(t, flush)
			runs := 0
			for n := 1; n <= k; n += stride() {
				for _, f := range faults {
					for i, p := range []simfs.Policy{simfs.Kill, simfs.DropAll, simfs.Random, simfs.KeepAll} {
						runs++
						if err := faultRun(n, f, p, uint64(i), flush, nil); err != nil {
							t.Fatalf("operation %d of %d: %s, then %s: %v", n, k, f, p, err)
						}
					}
				}
			}
			t.Logf("K = %d operations, %d runs", k, runs)
		})
	}
}

func faultRun(n int, f simfs.Fault, p simfs.Policy, seed uint64, flush bool, plant func(fsys.FS) fsys.FS) error {
	w := newWorld(seed, flush)
	if plant != nil {
		w.fs = plant(w.disk)
	}
	w.disk.FailAt(n, f)
	if err := w.script(); err != nil {
		return fmt.Errorf("%s failed: script: %w", w.disk.Failed(), err)
	}
	// A single failure must leave the log working without a restart.
	w.append(2, 100)
	if err := w.log.Commit(); err != nil {
		w.append(2, 100)
		if err := w.log.Commit(); err != nil {
			return fmt.Errorf("%s failed: the log does not recover: %w", w.disk.Failed(), err)
		}
	}
	if err := w.log.Err(); err != nil {
		return fmt.Errorf("%s failed: %w", w.disk.Failed(), err)
	}
	if flush && int(w.log.Durable()) != w.appended() {
		return fmt.Errorf("%s failed: durable %d of %d that are retained", w.disk.Failed(), w.log.Durable(), w.appended())
	}
	if err := w.compare(false); err != nil {
		return fmt.Errorf("%s failed: before the crash: %w", w.disk.Failed(), err)
	}
	if err := w.check(p, seed*7919+uint64(n), false); err != nil {
		return fmt.Errorf("%s failed: %w", w.disk.Failed(), err)
	}
	return nil
}

func (w *world) appended() int {
	var last LSN
	for lsn := range w.history {
		last = max(last, lsn)
	}
	return int(last)
}

// killAfterFault fails each sync, lets the process die a few operations later, and power fail once it is up again.
func killAfterFault(flush bool, runs *int) error {
	k := countOpsOf(flush)
	for n := 1; n <= k; n += min(stride(), 3) {
		for later := 1; later <= 4; later++ {
			w := newWorld(uint64(n), flush)
			w.disk.FailAt(n, simfs.FailedSync)
			w.disk.CrashBefore(n + later)
			if err := w.script(); err != nil && !errors.Is(err, simfs.ErrCrashed) {
				return err
			}
			if runs != nil {
				*runs++
			}
			op := w.disk.Failed()
			if err := w.check(simfs.Kill, uint64(n), false); err != nil {
				return fmt.Errorf("operation %d (%s) failed, death %d later: %w", n, op, later, err)
			}
		}
	}
	return nil
}

func TestLog_SurvivesDeathAfterFailedSyncAndThenPowerLoss(t *testing.T) {
	for name, flush := range worlds {
		t.Run(name, func(t *testing.T) {
			runs := 0
			if err := killAfterFault(flush, &runs); err != nil {
				t.Fatal(err)
			}
			t.Logf("%d runs", runs)
		})
	}
}

func countOpsOf(flush bool) int {
	w := newWorld(1, flush)
	if w.script() != nil {
		return 0
	}
	return w.disk.Ops()
}
