package uplink

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
)

// sim is a pipeline, an outbox with its forwarder, a quarantine and a destination on a simulated disk, all in one goroutine. The
// destination outlives crashes, as does the journal from which the pipeline makes the same outputs again.
type sim struct {
	fs    *simfs.FS
	total int
	size  int  // of a body
	lazy  bool // the forwarder is slow, so that a bound is reached
	o     OutboxOptions

	out *Outbox
	q   *Quarantine
	f   *Forwarder

	runs       int
	checkpoint int      // outputs below are behind a durable checkpoint
	arrived    []string // at the destination, in order
}

func newSim(seed uint64, sc script) *sim {
	s := &sim{fs: simfs.New(seed), total: sc.total, size: sc.size, lazy: sc.lazy, o: sc.o}
	s.o.FS = s.fs
	return s
}

// badByPipeline and badBySink tell what is refused on the way.
func badByPipeline(n int) bool { return n%7 == 3 }
func badBySink(n int) bool     { return n%11 == 5 }

func (s *sim) name(n int) string { return fmt.Sprintf("output-%d", n) }

func (s *sim) body(n int) []byte {
	b := []byte(s.name(n) + " ")
	return append(b, bytes.Repeat([]byte{byte(n)}, s.size)...)
}

// Deliver implements Sink.
func (s *sim) Deliver(_ context.Context, recs []Record) error {
	for _, r := range recs {
		var n int
		fmt.Sscanf(string(r.Body[:20]), "output-%d ", &n)
		if badBySink(n) {
			return &Error{Kind: KindRejected, Status: 422, Detail: "no"}
		}
	}
	for _, r := range recs {
		name, _, _ := bytes.Cut(r.Body, []byte(" "))
		s.arrived = append(s.arrived, string(name))
	}
	return nil
}

// crashContext ends when power fails, so that no loop waits for a dead disk.
type crashContext struct {
	context.Context
	fs *simfs.FS
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

func (c crashContext) Done() <-chan struct{} {
	if c.fs.Crashed() {
		return closedChannel
	}
	return nil
}

func (c crashContext) Err() error {
	if c.fs.Crashed() {
		return context.Canceled
	}
	return nil
}

// run opens everything, works until the last output is delivered, and closes. It returns early when power fails.
func (s *sim) run() (err error) {
	s.runs++
	if err := s.open(); err != nil {
		return err
	}
	defer func() {
		s.f.read.close()
		s.q.Close()
		s.out.Close()
	}()
	for n := s.checkpoint; n < s.total; n++ {
		if err := s.output(n); err != nil {
			return err
		}
		if n%3 == 2 {
			if err := s.again(s.out.Flush); err != nil {
				return err
			}
		}
		if s.lazy && n%20 == 19 || !s.lazy && n%5 == 4 {
			if err := s.drain(n%2 == 0); err != nil {
				return err
			}
		}
		if n%10 == 9 {
			if err := s.again(s.out.Sync); err != nil {
				return err
			}
			if err := s.again(s.q.Sync); err != nil {
				return err
			}
			s.checkpoint = n + 1
		}
	}
	if err := s.drain(true); err != nil {
		return err
	}
	return s.again(s.q.Sync)
}

func (s *sim) open() (err error) {
	try := func() (err error) {
		if s.out, err = OpenOutbox("/data/outbox/cloud", s.o); err != nil {
			return err
		}
		if s.q, err = OpenQuarantine("/data/quarantine", QuarantineOptions{FS: s.fs}); err != nil {
			s.out.Close()
		}
		return err
	}
	if err := s.again(try); err != nil {
		return err
	}
	s.f, err = NewForwarder(s.out, s, ForwarderOptions{Name: "cloud", Quarantine: s.q, BatchRecords: 4, Rand: func() float64 { return 0 }, MinBackoff: 1})
	if err != nil {
		return err
	}
	s.f.begin()
	return nil
}

// again tries like the program does, which waits in between, until power fails or it is pointless.
func (s *sim) again(f func() error) (err error) {
	for range 5 {
		if err = f(); err == nil || s.fs.Crashed() {
			return err
		}
	}
	return err
}

func (s *sim) output(n int) error {
	cause := Cause{LSN: uint64(n/3 + 1), Ordinal: uint32(n % 3), Time: int64(n)}
	if badByPipeline(n) {
		return s.again(func() error {
			return s.q.Put(cause, Item{Time: int64(n), Stage: StageDecode, Reason: "json", Payload: []byte(s.name(n)), Count: 1})
		})
	}
	return s.again(func() error { return s.out.Put(cause, TypePoint, s.body(n)) })
}

// drain lets the forwarder work until nothing is pending, or, with all false, for three batches.
func (s *sim) drain(all bool) error {
	if err := s.again(s.out.Flush); err != nil {
		return err
	}
	ctx := crashContext{context.Background(), s.fs}
	for batch := 1; s.out.Counters().Pending > 0; batch++ {
		if err := s.again(func() error { return s.f.fill(ctx) }); err != nil {
			return err
		}
		s.f.work = append(s.f.work[:0], piece{recs: s.f.hand})
		for len(s.f.work) > 0 {
			if err := s.f.step(ctx); err != nil {
				return err
			}
		}
		if !all && batch == 3 {
			return nil
		}
	}
	s.f.out.idle()
	return nil
}

// check compares the end with what must be: every output once, in one place.
func (s *sim) check() error {
	if err := s.open(); err != nil {
		return fmt.Errorf("open at the end: %w", err)
	}
	defer func() {
		s.f.read.close()
		s.q.Close()
		s.out.Close()
	}()
	refused := make(map[string]int)
	var items uint64
	if err := s.q.Each(1, func(it Item) bool {
		name, _, _ := strings.Cut(string(it.Payload), " ")
		refused[name]++
		items++
		return true
	}); err != nil {
		return err
	}
	last := make(map[string]int)
	for i, name := range s.arrived {
		last[name] = i
	}
	c := s.out.Counters()
	if n := s.out.Imbalance(); n != 0 {
		return fmt.Errorf("the counters do not explain %d records of the log, counters %+v", n, c)
	}
	var put, bySink, missing uint64
	at := -1
	for n := range s.total {
		name := s.name(n)
		want := 0
		if badByPipeline(n) || badBySink(n) {
			want = 1
		}
		if i, ok := last[name]; ok {
			if i < at {
				return fmt.Errorf("%s was overtaken for good", name)
			}
			at = i
		} else if !badByPipeline(n) && refused[name] == 0 {
			missing++
		}
		if !badByPipeline(n) {
			put++
			if badBySink(n) {
				bySink++
			}
		}
		if refused[name] != want && c.Shed[ShedFull] == 0 {
			return fmt.Errorf("%s stands %d times in the quarantine, want %d", name, refused[name], want)
		}
		if refused[name] > 1 {
			return fmt.Errorf("%s stands %d times in the quarantine", name, refused[name])
		}
	}
	sum := c.Pending + c.Delivered + c.Rejected
	for _, n := range c.Shed {
		sum += n
	}
	switch {
	case c.Enqueued != put || sum != put:
		return fmt.Errorf("%d were put, counters %+v", put, c)
	case c.Pending != 0 || c.Shed[ShedDamaged] != 0 || c.Shed[ShedExpired] != 0:
		return fmt.Errorf("counters at the end %+v", c)
	case c.Shed[ShedFull] < missing || !s.lazy && c.Shed[ShedFull] > 0:
		return fmt.Errorf("%d are missing, and %d were shed", missing, c.Shed[ShedFull])
	case c.Shed[ShedFull] > missing+uint64(4*s.runs): // a batch in hand when power failed may have arrived, and its segment be gone
		return fmt.Errorf("%d are missing, and %d counted as shed", missing, c.Shed[ShedFull])
	case c.Delivered > uint64(len(last)):
		return fmt.Errorf("%d have arrived, counters %+v", len(last), c)
	case c.Shed[ShedFull] == 0 && (c.Rejected != bySink || c.Delivered != put-bySink):
		return fmt.Errorf("%d put of which %d bad, counters %+v", put, bySink, c)
	}
	return nil
}

type script struct {
	name        string
	total, size int
	lazy        bool
	o           OutboxOptions
}

// scripts are the runs that are broken at every operation.
var scripts = []script{
	{"cursor after every ack", 60, 1500, false, OutboxOptions{SegmentBytes: 64 << 10}},
	{"cursor rarely", 60, 1500, false, OutboxOptions{SegmentBytes: 64 << 10, CursorEvery: time.Hour}},
	{"segments roll", 60, 7000, false, OutboxOptions{SegmentBytes: 64 << 10, CursorEvery: time.Hour}},
	{"oldest are shed", 80, 16000, true, OutboxOptions{MaxBytes: 512 << 10, CursorEvery: time.Hour}},
}

func TestOutbox_PowerCutAtEveryOperation(t *testing.T) {
	policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			whole := newSim(1, sc)
			if err := whole.run(); err != nil {
				t.Fatal(err)
			}
			if err := whole.check(); err != nil {
				t.Fatalf("without a crash: %v", err)
			}
			if shed := whole.out.Counters().Shed[ShedFull]; (shed > 0) != sc.lazy {
				t.Fatalf("without a crash %d records are shed", shed)
			}
			ops := whole.fs.Ops()
			for op := 1; op <= ops; op++ {
				for k := range 1 + op%2 { // every second operation with two of the policies
					policy := policies[(op*2+k)%len(policies)]
					s := newSim(uint64(op), sc)
					s.fs.CrashBefore(op)
					s.run()
					s.fs.Restart(policy, uint64(op))
					if op%3 == 0 { // and once more, soon after
						s.fs.CrashBefore(s.fs.Ops() + op%97)
						if s.run(); s.fs.Crashed() {
							s.fs.Restart(policies[op%len(policies)], uint64(op))
						}
						s.fs.CrashBefore(0)
					}
					err := s.run()
					if err == nil {
						err = s.check()
					}
					if err != nil {
						t.Fatalf("crash before operation %d of %d, policy %v: %v", op, ops, policy, err)
					}
				}
			}
			t.Logf("%d operations, each cut once or twice", ops)
		})
	}
}

func TestOutbox_EveryOperationFailsOnce(t *testing.T) {
	faults := []simfs.Fault{simfs.EIO, simfs.ENOSPC, simfs.ShortWrite, simfs.FailedSync, simfs.DoneAnyway}
	for _, sc := range scripts {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			whole := newSim(1, sc)
			if err := whole.run(); err != nil {
				t.Fatal(err)
			}
			ops := whole.fs.Ops()
			for op := 1; op <= ops; op++ {
				fault := faults[op%len(faults)]
				s := newSim(uint64(op), sc)
				s.fs.FailAt(op, fault)
				err := s.run()
				if err == nil {
					// Power fails at the end: what failed to be synced must not have been taken for durable.
					s.fs.Restart(simfs.DropAll, uint64(op))
					err = s.run()
				}
				if err == nil {
					err = s.check()
				}
				if err != nil {
					t.Fatalf("%v at operation %d of %d: %v", fault, op, ops, err)
				}
			}
		})
	}
}

func TestOutbox_RandomCrashesOverALongRun(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for round := range 100 {
		sc := scripts[round%len(scripts)]
		sc.total *= 2
		s := newSim(uint64(round), sc)
		var history []string
		for {
			s.fs.CrashBefore(s.fs.Ops() + 1 + rng.IntN(200))
			err := s.run()
			if err == nil && !s.fs.Crashed() {
				break
			}
			policy, seed := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)[rng.IntN(7)], rng.Uint64()
			history = append(history, fmt.Sprintf("op %d %v", s.fs.Ops(), policy))
			s.fs.Restart(policy, seed)
		}
		s.fs.CrashBefore(0)
		if err := s.check(); err != nil {
			t.Fatalf("round %d (%s), crashes %v: %v", round, sc.name, history, err)
		}
	}
}
