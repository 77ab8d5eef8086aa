package uplink

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"sluice/gateway/seglog/fsys/simfs"
)

// Copies are put between outputs, and power fails at every operation on the disk. What the pipeline puts again afterwards is recognised as
// before: no output is missing or taken twice, and the counters balance. A copy that was not synced may be gone.
func TestResend_PowerCutAtEveryOperationLosesNoOutput(t *testing.T) {
	const total = 40
	policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
	type life struct {
		fs         *simfs.FS
		checkpoint int // outputs and copies before it are synced
		copies     int // of those before it
	}
	open := func(l *life) (*Outbox, error) {
		return OpenOutbox("/data/outbox/cloud", OutboxOptions{FS: l.fs, MaxBytes: 512 << 10, SegmentBytes: 4 << 10, WhenFull: Refuse})
	}
	run := func(l *life) (b *Outbox, err error) {
		if b, err = open(l); err != nil {
			return nil, err
		}
		copies := l.copies
		for n := l.checkpoint; n < total; n++ {
			if err = b.Put(causeN(n), TypePoint, bodyN(n)); err != nil {
				return b, err
			}
			if n%5 == 2 {
				if err = b.Resend(TypePoint, fmt.Appendf(nil, "copy %d", n)); err != nil {
					return b, err
				}
				copies++
			}
			if n%4 == 1 {
				if err = b.Flush(); err != nil {
					return b, err
				}
			}
			if n%8 == 7 {
				if err = b.Sync(); err != nil {
					return b, err
				}
				l.checkpoint, l.copies = n+1, copies
			}
		}
		return b, b.Sync()
	}
	check := func(b *Outbox, copies int) error {
		c := b.Counters()
		sum := c.Pending + c.Delivered + c.Rejected + c.Degraded
		for _, n := range c.Shed {
			sum += n
		}
		r := b.reader()
		defer r.close()
		recs, err := r.read(nil, 10*total, 1<<20)
		if err != nil {
			return err
		}
		var outputs, again []string
		last := Cause{}
		for i := range recs {
			if last.After(recs[i].Cause) {
				return fmt.Errorf("record %d has cause %v, behind %v", recs[i].LSN, recs[i].Cause, last)
			}
			last = recs[i].Cause
			words := strings.Fields(string(recs[i].Body))
			if words[0] == "copy" {
				again = append(again, words[1])
			} else {
				outputs = append(outputs, words[1])
			}
		}
		var want []string
		for n := range total {
			want = append(want, fmt.Sprint(n))
		}
		if !slices.Equal(outputs, want) {
			return fmt.Errorf("outputs %v", outputs)
		}
		if len(again) < copies {
			return fmt.Errorf("%d copies, want the %d that were synced: %v", len(again), copies, again)
		}
		if sum != c.Enqueued || c.Enqueued != uint64(len(recs)) {
			return fmt.Errorf("counters %+v, %d records", c, len(recs))
		}
		return nil
	}
	whole := &life{fs: simfs.New(1)}
	b, err := run(whole)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(b, total/5); err != nil {
		t.Fatalf("without a crash: %v", err)
	}
	b.Close()
	for op := 1; op <= whole.fs.Ops(); op++ {
		for _, policy := range policies {
			l := &life{fs: simfs.New(uint64(op))}
			l.fs.CrashBefore(op)
			if b, _ := run(l); b != nil {
				b.Close()
			}
			l.fs.Restart(policy, uint64(op))
			b, err := run(l)
			if err == nil {
				err = check(b, l.copies)
			}
			if err != nil {
				t.Fatalf("crash before operation %d, policy %v: %v", op, policy, err)
			}
			b.Close()
		}
	}
}
