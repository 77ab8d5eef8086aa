package uplink

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
	"sluice/uplink/condense"
)

// ladderSim is a pipeline, a degrading outbox and a destination that keeps points by their identity, on a simulated disk, all in one
// goroutine. The destination outlives crashes.
type ladderSim struct {
	fs      *simfs.FS
	outputs []simOutput
	o       OutboxOptions
	up      func(n, attempt int) (stores, answers bool)
	newest  bool // live records overtake the backlog
	lanes   int  // how often they began to

	out *Outbox
	q   *Quarantine
	f   *Forwarder

	checkpoint int
	at         int // the output that was put last
	attempts   int
	stored     map[string]simPoint
}

type simOutput struct {
	cause Cause
	body  []byte
}

// simPoint is what one point stands for.
type simPoint struct {
	series string
	window time.Duration
	count  uint64
	sum    float64
}

const simHorizon = 90 * time.Second

// simOutputs are windows of two devices with corrections, readings of a third, and alerts.
func simOutputs(windows int, pad int) (outs []simOutput) {
	filler := strings.Repeat("x", pad)
	type due struct {
		at int64
		p  telemetry.Point
	}
	var later []due
	put := func(at int64, p telemetry.Point) {
		outs = append(outs, simOutput{Cause{LSN: uint64(len(outs)/2 + 1), Ordinal: uint32(len(outs) % 2), Time: at}, telemetry.MarshalPoint(nil, &p)})
	}
	labels := func(device string) telemetry.Labels {
		return telemetry.NewLabels(telemetry.Label{Name: "device", Value: device}, telemetry.Label{Name: "filler", Value: filler})
	}
	base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()
	for w := range windows {
		start := base + int64(w)*10e9
		now := start + 12e9
		for len(later) > 0 && later[0].at <= now {
			put(now, later[0].p)
			later = later[1:]
		}
		for d, device := range []string{"a", "b"} {
			window := func(n int) telemetry.Point {
				var a telemetry.Aggregate
				for i := range n {
					a.Add(start+int64(i), float64(w+i+d))
				}
				return telemetry.Point{Measurement: "line", Labels: labels(device), Time: start, Window: 10 * time.Second,
					Aggregates: []telemetry.MetricAggregate{{Metric: "t", Aggregate: a}}, Stats: []telemetry.Stat{telemetry.StatCount, telemetry.StatSum}}
			}
			put(now, window(3+w%4))
			if w%4 == d {
				later = append(later, due{now + 60e9, window(5 + w%4)})
			}
		}
		put(now, telemetry.Point{Measurement: "raw", Labels: labels("c"), Time: start + 3e9, Fields: []telemetry.Field{{Name: "v", Value: float64(w)}}})
		if w%9 == 5 {
			put(now, telemetry.Point{Measurement: "alerts", Labels: labels("a"), Time: now, Fields: []telemetry.Field{{Name: "state", Value: 1}}})
		}
	}
	return outs
}

func simPolicy(m string) (condense.Readings, []telemetry.Stat) {
	if m == "raw" {
		return condense.Merge, []telemetry.Stat{telemetry.StatCount, telemetry.StatMean}
	}
	return condense.Keep, nil
}

func simDecode(body []byte) (identity string, p simPoint) {
	var tp telemetry.Point
	if err := telemetry.ParsePoint(body, &tp); err != nil {
		panic(err)
	}
	h, _ := condense.ReadHead(body)
	p = simPoint{series: tp.Measurement + "/" + tp.Labels.Get("device"), window: tp.Window}
	for i := range tp.Aggregates {
		p.count += tp.Aggregates[i].Count
		p.sum += tp.Aggregates[i].Total()
	}
	for _, f := range tp.Fields {
		p.count++
		p.sum += f.Value
	}
	return string(h.Identity), p
}

// totals sums by series what a destination holds.
func totals(points map[string]simPoint) map[string]simPoint {
	sums := make(map[string]simPoint)
	for _, p := range points {
		s := sums[p.series]
		s.count += p.count
		s.sum += p.sum
		sums[p.series] = s
	}
	return sums
}

// Deliver implements Sink.
func (s *ladderSim) Deliver(_ context.Context, recs []Record) error {
	s.attempts++
	stores, answers := s.up(s.at, s.attempts)
	if stores {
		for _, r := range recs {
			id, p := simDecode(r.Body)
			s.stored[id] = p
		}
	}
	if !answers {
		return &Error{Kind: KindRetry, Detail: "no answer"}
	}
	return nil
}

func (s *ladderSim) again(f func() error) (err error) {
	for range 5 {
		if err = f(); err == nil || s.fs.Crashed() {
			return err
		}
	}
	return err
}

func (s *ladderSim) open() (err error) {
	err = s.again(func() (err error) {
		if s.out, err = OpenOutbox("/data/outbox/cloud", s.o); err != nil {
			return err
		}
		if s.q, err = OpenQuarantine("/data/quarantine", QuarantineOptions{FS: s.fs}); err != nil {
			s.out.Close()
		}
		return err
	})
	if err != nil {
		return err
	}
	s.f, err = NewForwarder(s.out, s, ForwarderOptions{Name: "cloud", Quarantine: s.q, BatchRecords: 7, Rand: func() float64 { return 0 }, MinBackoff: 2, MaxBackoff: 2,
		NewestFirst: s.newest})
	if err != nil {
		return err
	}
	s.f.begin()
	return nil
}

func (s *ladderSim) close() {
	s.f.end()
	s.q.Close()
	s.out.Close()
}

func (s *ladderSim) run() error {
	if err := s.open(); err != nil {
		return err
	}
	defer s.close()
	for n := s.checkpoint; n < len(s.outputs); n++ {
		s.at = n
		o := s.outputs[n]
		if err := s.again(func() error {
			err := s.out.Put(o.cause, TypePoint, o.body)
			if err != nil { // the pipeline waits; the forwarder works meanwhile
				s.f.merge(crashContext{context.Background(), s.fs})
			}
			return err
		}); err != nil {
			return fmt.Errorf("put: %w", err)
		}
		if n%12 == 11 {
			if err := s.again(s.out.Flush); err != nil {
				return err
			}
		}
		if n%24 == 23 {
			if err := s.round(); err != nil {
				return err
			}
		}
		if n%60 == 59 {
			if err := s.again(s.out.Sync); err != nil {
				return err
			}
			s.checkpoint = n + 1
		}
	}
	s.at = len(s.outputs)
	if err := s.again(s.out.Sync); err != nil {
		return err
	}
	for range 10 * len(s.outputs) {
		if s.out.Counters().Pending == 0 {
			s.f.idle()
			return nil
		}
		if err := s.round(); err != nil {
			return err
		}
	}
	return fmt.Errorf("not drained: %+v", s.out.Counters())
}

// round is a turn of the forwarder's loop, with three attempts at most.
func (s *ladderSim) round() error {
	ctx := crashContext{context.Background(), s.fs}
	for again := true; again; again = s.f.stuck && !s.fs.Crashed() {
		if err := s.f.merge(ctx); err != nil {
			return err
		}
	}
	s.f.recall = false
	if s.out.Counters().Pending == 0 {
		return nil
	}
	s.f.hand, s.f.fate = s.f.hand[:0], s.f.fate[:0]
	before := s.f.fresh
	if err := s.again(func() error { return s.f.next(0, 0) }); err != nil || len(s.f.hand) == 0 {
		return err
	}
	if s.f.fresh != nil && s.f.fresh != before {
		s.lanes++
	}
	s.f.fate = make([]fate, len(s.f.hand))
	s.f.work = append(s.f.work[:0], piece{recs: s.f.hand})
	for i := 0; i < 3 && len(s.f.work) > 0 && !s.f.recall; i++ {
		if err := s.f.step(ctx); err != nil {
			return err
		}
	}
	s.f.giveBack()
	return nil
}

// check compares what the destination holds with what was put. After many crashes, each of which keeps some records from being
// merged, some may be shed: then at least nothing counts twice.
func (s *ladderSim) check(mayShed bool) error {
	if err := s.open(); err != nil {
		return fmt.Errorf("open at the end: %w", err)
	}
	defer s.close()
	want := make(map[string]simPoint)
	for _, o := range s.outputs {
		id, p := simDecode(o.body)
		want[id] = p
	}
	c := s.out.Counters()
	sum := c.Pending + c.Delivered + c.Rejected + c.Degraded
	for _, n := range c.Shed {
		sum += n
	}
	if n := s.out.Imbalance(); n != 0 {
		return fmt.Errorf("the counters do not explain %d records of the logs, counters %+v", n, c)
	}
	if c.Enqueued != uint64(len(s.outputs)) || sum != c.Enqueued || c.Pending != 0 {
		return fmt.Errorf("%d were put, counters %+v, tiers %+v", len(s.outputs), c, s.out.Tiers())
	}
	got, all := totals(s.stored), totals(want)
	if c.Shed[ShedFull] > 0 && mayShed && c.Shed[ShedExpired] == 0 && c.Shed[ShedDamaged] == 0 {
		for series, p := range got {
			if p.count > all[series].count {
				return fmt.Errorf("%s: the destination holds %d readings, %d were put", series, p.count, all[series].count)
			}
		}
		return nil
	}
	if c.Shed != [numShedReasons]uint64{} {
		return fmt.Errorf("records are shed: %v", c.Shed)
	}
	if !maps.Equal(got, all) {
		return fmt.Errorf("the destination holds\n%v, want\n%v", got, all)
	}
	return nil
}

func newLadderSim(seed uint64, up func(n, attempt int) (stores, answers bool)) *ladderSim {
	s := &ladderSim{fs: simfs.New(seed), outputs: simOutputs(255, 500), up: up, stored: make(map[string]simPoint)}
	s.o = OutboxOptions{FS: s.fs, MaxBytes: 512 << 10, WhenFull: Degrade, Ladder: []time.Duration{time.Minute, 5 * time.Minute},
		Horizon: simHorizon, Readings: simPolicy, CursorEvery: time.Hour}
	return s
}

// outage: the link is there at first, then away, with one exchange in between of which the answer is lost, then back.
func outage(n, attempt int) (stores, answers bool) {
	switch {
	case n < 100, n >= 880:
		return true, true
	}
	return attempt%13 == 0, false
}

func TestLadder_EveryReadingCountsOnceAtSomeResolution(t *testing.T) {
	s := newLadderSim(1, outage)
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := s.check(false); err != nil {
		t.Fatal(err)
	}
	byWindow := make(map[time.Duration]int)
	for _, p := range s.stored {
		byWindow[p.window]++
	}
	c := s.out.Counters()
	t.Logf("%d outputs, %d operations, counters %+v, points by window %v", len(s.outputs), s.fs.Ops(), c, byWindow)
	if c.Degraded == 0 || byWindow[time.Minute] == 0 || byWindow[10*time.Second] == 0 {
		t.Error("nothing was merged, or everything")
	}
}

func TestLadder_PowerCutAtAnyOperation(t *testing.T) {
	policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
	whole := newLadderSim(1, outage)
	if err := whole.run(); err != nil {
		t.Fatal(err)
	}
	ops := whole.fs.Ops()
	step := 13 // every operation when SLUICE_LONG is set: a minute
	if os.Getenv("SLUICE_LONG") != "" {
		step = 1
	}
	for op := 1; op <= ops; op += step {
		policy := policies[op%len(policies)]
		s := newLadderSim(uint64(op), outage)
		s.fs.CrashBefore(op)
		s.run()
		s.fs.Restart(policy, uint64(op))
		if op%3 == 0 {
			s.fs.CrashBefore(s.fs.Ops() + op%97)
			if s.run(); s.fs.Crashed() {
				s.fs.Restart(policies[(op/3)%len(policies)], uint64(op))
			}
			s.fs.CrashBefore(0)
		}
		err := s.run()
		if err == nil {
			err = s.check(false)
		}
		if err != nil {
			t.Fatalf("crash before operation %d of %d, policy %v: %v", op, ops, policy, err)
		}
	}
}

func TestLadder_RandomCrashesAndAnswers(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for round := range 60 {
		down, lost := 20+rng.IntN(100), 2+rng.IntN(9)
		s := newLadderSim(uint64(round), func(n, attempt int) (bool, bool) {
			if n < down || n >= 880 {
				return true, true
			}
			return attempt%lost == 0, attempt%(3*lost) == 0 && attempt%lost == 0
		})
		var history []string
		for {
			s.fs.CrashBefore(s.fs.Ops() + 1 + rng.IntN(400))
			if err := s.run(); err == nil && !s.fs.Crashed() {
				break
			}
			policy, seed := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)[rng.IntN(7)], rng.Uint64()
			history = append(history, fmt.Sprintf("op %d %v", s.fs.Ops(), policy))
			s.fs.Restart(policy, seed)
		}
		s.fs.CrashBefore(0)
		if err := s.check(true); err != nil {
			t.Fatalf("round %d, down from %d, lost %d, crashes %v: %v", round, down, lost, history, err)
		}
	}
}

func TestLadder_AnyOperationFailsOnce(t *testing.T) {
	faults := []simfs.Fault{simfs.EIO, simfs.ENOSPC, simfs.ShortWrite, simfs.FailedSync, simfs.DoneAnyway}
	whole := newLadderSim(1, outage)
	if err := whole.run(); err != nil {
		t.Fatal(err)
	}
	ops := whole.fs.Ops()
	for op := 1; op <= ops; op += 23 {
		fault := faults[op%len(faults)]
		s := newLadderSim(uint64(op), outage)
		s.fs.FailAt(op, fault)
		err := s.run()
		if err == nil {
			s.fs.Restart(simfs.DropAll, uint64(op))
			err = s.run()
		}
		if err == nil {
			err = s.check(true) // a failed write may begin a segment, and at this size that may be the one too many
		}
		if err != nil {
			t.Fatalf("%v at operation %d of %d: %v", fault, op, ops, err)
		}
	}
}

func TestLadder_AnUnfinishedBatchIsMadeAgainFromTheSameRecords(t *testing.T) {
	s := newLadderSim(1, func(int, int) (bool, bool) { return true, true })
	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	put := func(from, to int) {
		for _, o := range s.outputs[from:to] {
			if err := s.out.Put(o.cause, TypePoint, o.body); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.out.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	put(0, 50)
	// Power fails when the first merged point is durable and the others are not put yet.
	below := s.out.below
	bt := batch{s: s.out, t: below, from: 1, newest: s.out.Held().Time, horizon: int64(simHorizon)}
	if err := bt.choose(); err != nil || bt.end == 1 || bt.end >= 50 {
		t.Fatalf("batch ends at %d, %v", bt.end, err)
	}
	if err := bt.compare(); err != nil {
		t.Fatal(err)
	}
	m := condense.New(below.step, simPolicy)
	if err := bt.merge(m); err != nil || m.Len() < 2 {
		t.Fatalf("merged into %d points, %v", m.Len(), err)
	}
	enough := errors.New("enough")
	if err := m.Each(func(body []byte) error {
		if err := below.Put(Cause{LSN: bt.end - 1, Ordinal: kept + 1, Time: bt.first}, TypePoint, body); err != nil {
			t.Fatal(err)
		}
		return enough
	}); err != enough {
		t.Fatal(err)
	}
	if err := below.Sync(); err != nil {
		t.Fatal(err)
	}
	s.fs.Restart(simfs.DropAll, 1)

	if err := s.open(); err != nil {
		t.Fatal(err)
	}
	if !s.out.pinned {
		t.Error("the records of an unfinished batch may be shed")
	}
	put(50, 150) // more would be old enough now
	if err := s.out.finish(); err != nil || s.out.pos.next != bt.end || s.out.pinned {
		t.Errorf("finish: %v, batch ends at %d, want %d", err, s.out.pos.next, bt.end)
	}
	s.close()
	s.checkpoint = 150
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := s.check(false); err != nil {
		t.Fatal(err)
	}
}
