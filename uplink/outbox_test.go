package uplink

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/gateway/seglog"
)

// openTest opens an outbox in dir and closes it with the test.
func openTest(t testing.TB, dir string, o OutboxOptions) *Outbox {
	t.Helper()
	b, err := OpenOutbox(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// causeN is the cause of the n-th output in tests: three outputs a journal record.
func causeN(n int) Cause {
	return Cause{LSN: uint64(n/3 + 1), Ordinal: uint32(n % 3), Time: int64(n) * 1e6}
}

// bodyN is its body.
func bodyN(n int) []byte { return fmt.Appendf(nil, "output %d %0500d", n, n) }

func putN(t testing.TB, b *Outbox, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := b.Put(causeN(n), TypePoint, bodyN(n)); err != nil {
			t.Fatalf("Put(%d): %v", n, err)
		}
	}
	if err := b.Flush(); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

// take reads up to n records as a forwarder does.
func take(t testing.TB, r *reader, n int) []Record {
	t.Helper()
	recs, err := r.read(nil, n, 1<<20)
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return recs
}

func ackAll(t testing.TB, b *Outbox, recs []Record) {
	t.Helper()
	last := recs[len(recs)-1]
	if err := b.ack(last.LSN, last.Cause, outcome{delivered: uint64(len(recs))}, len(recs)*550, 0); err != nil {
		t.Fatalf("ack: %v", err)
	}
}

func wantOutputs(t testing.TB, recs []Record, from, to int) {
	t.Helper()
	if len(recs) != to-from {
		t.Fatalf("got %d records, want %d", len(recs), to-from)
	}
	for i, r := range recs {
		n := from + i
		if want := causeN(n); r.Cause != want || !bytes.Equal(r.Body, bodyN(n)) || r.Type != TypePoint {
			t.Fatalf("record %d: got %+v %q, want %+v %q", i, r.Cause, r.Body, want, bodyN(n))
		}
	}
}

func checkBalance(t testing.TB, c Counters) {
	t.Helper()
	sum := c.Pending + c.Delivered + c.Rejected
	for _, n := range c.Shed {
		sum += n
	}
	if sum != c.Enqueued {
		t.Fatalf("counters do not balance: %+v", c)
	}
}

func TestOutbox_KeepsOrderAndContentOverARestart(t *testing.T) {
	dir := t.TempDir()
	b := openTest(t, dir, OutboxOptions{})
	putN(t, b, 0, 10)
	r := b.reader()
	got := take(t, r, 4)
	wantOutputs(t, got, 0, 4)
	ackAll(t, b, got)
	r.close()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}

	b = openTest(t, dir, OutboxOptions{})
	if got, want := b.Held(), causeN(9); got.LSN != want.LSN || got.Ordinal != want.Ordinal {
		t.Errorf("Held() = %+v, want %+v", got, want)
	}
	if got, want := b.OldestTime(), causeN(4).Time; got != want {
		t.Errorf("OldestTime() = %d, want %d", got, want)
	}
	if c := b.Counters(); c.Enqueued != 10 || c.Delivered != 4 || c.Pending != 6 {
		t.Errorf("Counters() = %+v", c)
	}
	r = b.reader()
	defer r.close()
	wantOutputs(t, take(t, r, 100), 4, 10)
}

func TestOutbox_SkipsWhatItHeldBefore(t *testing.T) {
	dir := t.TempDir()
	b := openTest(t, dir, OutboxOptions{})
	putN(t, b, 0, 6)
	r := b.reader()
	ackAll(t, b, take(t, r, 6))
	r.close()
	b.Close()

	b = openTest(t, dir, OutboxOptions{})
	putN(t, b, 0, 8)
	if got := b.Skipped(); got != 6 {
		t.Errorf("Skipped() = %d, want 6", got)
	}
	r = b.reader()
	defer r.close()
	wantOutputs(t, take(t, r, 100), 6, 8)
	if c := b.Counters(); c.Enqueued != 8 || c.Delivered != 6 {
		t.Errorf("Counters() = %+v", c)
	}
}

func TestOutbox_HeldIsKnownAfterEverythingWasTrimmed(t *testing.T) {
	dir := t.TempDir()
	o := OutboxOptions{MaxBytes: minOutbox}
	b := openTest(t, dir, o)
	n := 0
	for b.log.Segments() < 4 {
		putN(t, b, n, n+100)
		n += 100
		r := b.reader()
		for b.Counters().Pending > 0 {
			ackAll(t, b, take(t, r, 1000))
		}
		r.close()
		if n > 10000 {
			break // trimmed as fast as it fills: so it should be
		}
	}
	if c := b.Counters(); c.Delivered != uint64(n) || b.log.First() == 1 {
		t.Fatalf("after %d: %+v, first %d", n, c, b.log.First())
	}
	b.Close()
	b = openTest(t, dir, o)
	putN(t, b, 0, n)
	if got := b.Skipped(); got != uint64(n) {
		t.Errorf("Skipped() = %d, want %d", got, n)
	}
}

func TestOutbox_RefusesWhenFullAndTakesMoreAfterRoom(t *testing.T) {
	b := openTest(t, t.TempDir(), OutboxOptions{MaxBytes: minOutbox, WhenFull: Refuse})
	n := 0
	var err error
	for ; n < 10000; n++ {
		if err = b.Put(causeN(n), TypePoint, bodyN(n)); err != nil {
			break
		}
	}
	if !errors.Is(err, ErrFull) {
		t.Fatalf("Put(%d) = %v, want ErrFull", n, err)
	}
	if got := b.Bytes(); got > minOutbox || got < minOutbox*3/4 {
		t.Errorf("full at %d bytes, bound %d", got, minOutbox)
	}
	select {
	case <-b.Room():
		t.Error("Room before anything was delivered")
	default:
	}
	r := b.reader()
	defer r.close()
	got := take(t, r, n)
	wantOutputs(t, got, 0, n)
	ackAll(t, b, got)
	if err := b.Put(causeN(n), TypePoint, bodyN(n)); err != nil {
		t.Fatalf("Put after delivery: %v", err)
	}
	select {
	case <-b.Room():
	default:
		t.Error("no Room after delivery")
	}
	if c := b.Counters(); c.Enqueued != uint64(n)+1 || c.Shed[ShedFull] != 0 {
		t.Errorf("Counters() = %+v", c)
	}
}

func TestOutbox_DropOldestCountsEveryRecord(t *testing.T) {
	var told uint64
	var last Shed
	dir := t.TempDir()
	o := OutboxOptions{MaxBytes: minOutbox, WhenFull: DropOldest, OnShed: func(s Shed) {
		if s.Reason != ShedFull || s.From > s.To || s.From < last.To {
			t.Errorf("OnShed(%+v) after %+v", s, last)
		}
		told += s.Count
		last = s
	}}
	b := openTest(t, dir, o)
	const total = 2000
	putN(t, b, 0, total)
	c := b.Counters()
	checkBalance(t, c)
	if c.Enqueued != total || c.Shed[ShedFull] == 0 || c.Shed[ShedFull] != told {
		t.Fatalf("Counters() = %+v, told %d", c, told)
	}
	if b.log.DiskBytes() > minOutbox {
		t.Errorf("%d bytes on disk, bound %d", b.log.DiskBytes(), minOutbox)
	}
	if got, want := b.OldestTime(), causeN(int(told)).Time; got != want {
		t.Errorf("OldestTime() = %d, want %d", got, want)
	}
	b.Close()
	o.OnShed = func(s Shed) { t.Errorf("OnShed(%+v) at open", s) }
	b = openTest(t, dir, o)
	if got := b.Counters(); got != c {
		t.Errorf("after reopening: %+v, before %+v", got, c)
	}
	r := b.reader()
	defer r.close()
	wantOutputs(t, take(t, r, total), int(told), total)
}

func TestOutbox_WhatTheForwarderHoldsIsNotShed(t *testing.T) {
	dir := t.TempDir()
	b := openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
	putN(t, b, 0, 100)
	r := b.reader()
	held := take(t, r, 50)
	putN(t, b, 100, 2000) // sheds the segment that held them
	c := b.Counters()
	checkBalance(t, c)
	if c.Shed[ShedFull] == 0 || c.Enqueued != 2000 || c.Pending < 50 {
		t.Fatalf("Counters() = %+v", c)
	}
	shed := int(c.Shed[ShedFull])
	wantOutputs(t, held, 0, 50)
	ackAll(t, b, held)
	c = b.Counters()
	checkBalance(t, c)
	if c.Delivered != 50 || c.Shed[ShedFull] != uint64(shed) || c.Shed[ShedDamaged] != 0 {
		t.Fatalf("Counters() after the ack = %+v", c)
	}
	// The reader's buffer may still hold records that are shed by now: they must not come out.
	var rest []Record
	for {
		got := take(t, r, 100000)
		if len(got) == 0 {
			break
		}
		rest = append(rest, got...)
		ackAll(t, b, got)
	}
	wantOutputs(t, rest, 50+shed, 2000)
	if c := b.Counters(); c.Pending != 0 || c.Enqueued != 2000 {
		t.Errorf("Counters() at the end = %+v", c)
	}
	r.close()
	b.Close()

	// A restart in that moment: what was in hand is gone with the segment, and counted so.
	b = openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
	putN(t, b, 2000, 2100)
	r = b.reader()
	take(t, r, 50)
	putN(t, b, 2100, 4000)
	before := b.Counters()
	r.close()
	b.Close()
	b = openTest(t, dir, OutboxOptions{MaxBytes: minOutbox})
	after := b.Counters()
	checkBalance(t, after)
	if after.Enqueued != 4000 || after.Shed[ShedFull] != before.Shed[ShedFull]+50 {
		t.Errorf("after the restart %+v, before %+v", after, before)
	}
}

func TestOutbox_DamagedRecordIsCountedAndPassed(t *testing.T) {
	dir := t.TempDir()
	b := openTest(t, dir, OutboxOptions{})
	putN(t, b, 0, 5)
	// A record without the head every record has stands for damage that seglog cannot see.
	if _, err := b.log.Append(TypePoint, 0, []byte("short")); err != nil {
		t.Fatal(err)
	}
	putN(t, b, 5, 10)
	r := b.reader()
	defer r.close()
	got := take(t, r, 100)
	wantOutputs(t, got, 0, 10)
	ackAll(t, b, got)
	c := b.Counters()
	checkBalance(t, c)
	if c.Delivered != 10 || c.Shed[ShedDamaged] != 1 || c.Pending != 0 {
		t.Errorf("Counters() = %+v", c)
	}
}

func TestOutbox_TooLargeIsAnErrorAndNotAWedge(t *testing.T) {
	b := openTest(t, t.TempDir(), OutboxOptions{MaxBytes: minOutbox})
	if err := b.Put(causeN(0), TypePoint, make([]byte, minOutbox)); !errors.Is(err, seglog.ErrTooLarge) {
		t.Fatalf("Put(%d bytes) = %v, want ErrTooLarge", minOutbox, err)
	}
	putN(t, b, 1, 2)
}

func TestOutbox_UnknownPolicyIsRefused(t *testing.T) {
	if b, err := OpenOutbox(t.TempDir(), OutboxOptions{WhenFull: "shrink"}); err == nil {
		b.Close()
		t.Error(`OpenOutbox with when_full "shrink" succeeded`)
	}
}

func TestPosition_ReadsBackWhatItWrites(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		p := position{next: 1 + rng.Uint64N(1<<40), acked: Cause{LSN: rng.Uint64(), Ordinal: rng.Uint32(), Time: rng.Int64() - 1<<62},
			delivered: rng.Uint64(), rejected: rng.Uint64()}
		for i := range p.shed {
			p.shed[i] = rng.Uint64()
		}
		at := p.next
		for range rng.IntN(3) {
			at += 1 + rng.Uint64N(100)
			h := span{at, at + 1 + rng.Uint64N(100)}
			p.holes, at = append(p.holes, h), h.to
		}
		got, err := parsePosition(p.append(nil))
		if err != nil || fmt.Sprint(got) != fmt.Sprint(p) {
			t.Fatalf("parsePosition = %+v, %v, want %+v", got, err, p)
		}
	}
}

func FuzzParsePosition(f *testing.F) {
	p := position{next: 9, acked: Cause{LSN: 3, Ordinal: 1, Time: -5}, delivered: 7, holes: []span{{10, 12}, {20, 30}}}
	f.Add(p.append(nil))
	f.Add([]byte{positionVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePosition(b)
		if err != nil {
			return
		}
		q, err := parsePosition(p.append(nil))
		if err != nil || fmt.Sprint(q) != fmt.Sprint(p) {
			t.Fatalf("%+v written and read back: %+v, %v", p, q, err)
		}
	})
}

func BenchmarkOutbox_Put(b *testing.B) {
	o := openTest(b, b.TempDir(), OutboxOptions{})
	body := make([]byte, 300) // a point with three aggregates
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	n := 0
	for b.Loop() {
		if err := o.Put(Cause{LSN: uint64(n + 1), Time: int64(n)}, TypePoint, body); err != nil {
			b.Fatal(err)
		}
		n++
	}
}
