package uplink

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"sluice/gateway/seglog/fsys/simfs"
)

// flapping is a link that goes and comes back, again and again, and loses answers.
func flapping(n, attempt int) (stores, answers bool) {
	if n%230 < 90 || n >= 880 {
		return true, attempt%11 != 0
	}
	return attempt%13 == 0, false
}

func newNewestSim(seed uint64) *ladderSim {
	s := newLadderSim(seed, flapping)
	s.newest = true
	return s
}

func TestNewestFirst_EveryReadingCountsOnceAndCorrectionsWin(t *testing.T) {
	s := newNewestSim(1)
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := s.check(false); err != nil {
		t.Fatal(err)
	}
	if s.lanes < 3 || s.out.Counters().Degraded == 0 {
		t.Errorf("%d lanes, counters %+v: the test does not test what it says", s.lanes, s.out.Counters())
	}
}

func TestNewestFirst_PowerCutsAtAnyOperation(t *testing.T) {
	policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
	whole := newNewestSim(1)
	if err := whole.run(); err != nil {
		t.Fatal(err)
	}
	ops := whole.fs.Ops()
	for op := 1; op <= ops; op += 47 {
		policy := policies[op%len(policies)]
		s := newNewestSim(uint64(op))
		s.fs.CrashBefore(op)
		s.run()
		s.fs.Restart(policy, uint64(op))
		err := s.run()
		if err == nil {
			err = s.check(true)
		}
		if err != nil {
			t.Fatalf("crash before operation %d of %d, policy %v: %v", op, ops, policy, err)
		}
	}
}

func TestNewestFirst_RandomCrashes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for round := range 20 {
		s := newNewestSim(uint64(round))
		var history []string
		for {
			s.fs.CrashBefore(s.fs.Ops() + 1 + rng.IntN(500))
			if err := s.run(); err == nil && !s.fs.Crashed() {
				break
			}
			policy, seed := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)[rng.IntN(7)], rng.Uint64()
			history = append(history, fmt.Sprintf("op %d %v", s.fs.Ops(), policy))
			s.fs.Restart(policy, seed)
		}
		s.fs.CrashBefore(0)
		if err := s.check(true); err != nil {
			t.Fatalf("round %d, crashes %v: %v", round, history, err)
		}
	}
}

func TestPosition_CoverAgreesWithASet(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for round := range 300 {
		p := position{next: 1}
		done := make(map[uint64]bool)
		for range 60 {
			from := 1 + rng.Uint64N(80)
			to := from + rng.Uint64N(12)
			want := uint64(0)
			for n := max(from, p.next); n < to; n++ {
				if !done[n] {
					want++
				}
			}
			for n := from; n < to; n++ {
				done[n] = true
			}
			if got := p.cover(from, to); got != want {
				t.Fatalf("round %d: cover(%d, %d) = %d, want %d", round, from, to, got, want)
			}
			q, err := parsePosition(p.append(nil))
			if err != nil || fmt.Sprint(q.holes) != fmt.Sprint(p.holes) {
				t.Fatalf("round %d: %v > %v, %v", round, p.holes, q.holes, err)
			}
			for n := uint64(1); n < 95; n++ {
				if got := n < p.next || p.accounted(n); got != done[n] {
					t.Fatalf("round %d: record %d accounted %v, want %v; next %d, holes %v", round, n, got, done[n], p.next, p.holes)
				}
			}
		}
	}
}
