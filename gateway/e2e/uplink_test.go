package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/gateway/e2e/store"
)

// destination is a gateway's uplink section with one destination.
func destination(url, more string) string {
	return fmt.Sprintf("uplink:\n  destinations:\n    - { name: cloud, type: influxdb, url: %q, org: acme, bucket: edge, %s }\n", url, more)
}

// outbox is what the API says of the destination.
type outbox struct {
	State   string  `json:"state"`
	Pending uint64  `json:"pending"`
	Bytes   int64   `json:"bytes"`
	Shed    uint64  `json:"shed_points"`
	Merged  uint64  `json:"degraded_points"`
	Rate    float64 `json:"rate_per_second"`
	Tiers   []struct {
		Window string `json:"window"`
		Points uint64 `json:"points"`
	} `json:"tiers"`
	Bandwidth *struct {
		SentToday    int64  `json:"sent_today"`
		PausedReason string `json:"paused_reason"`
	} `json:"bandwidth"`
	Forecast struct {
		BytesPerDayIn float64 `json:"bytes_per_day_in"`
		Coarsest      string  `json:"coarsest"`
	} `json:"forecast"`
}

func (g *gateway) outbox() (o outbox, err error) {
	code, body, err := g.get("/api/v1/outboxes/cloud")
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%d: %s", code, body)
	}
	if err == nil {
		err = json.Unmarshal([]byte(body), &o)
	}
	return o, err
}

// stored counts the readings that a store's points stand for, and the points by window.
func storedReadings(s *store.StandIn) (readings float64, byWindow map[string]int) {
	byWindow = make(map[string]int)
	for _, p := range s.Points("telemetry") {
		byWindow[p.Tag("window")]++
		for name, v := range p.Fields {
			if p.Tag("window") == "" {
				readings++
			} else if strings.HasSuffix(name, "_count") {
				readings += v
			}
		}
	}
	return readings, byWindow
}

// gaps sums the data_gap points.
func gaps(s *store.StandIn) (readings, points float64, reasons map[string]bool) {
	reasons = make(map[string]bool)
	for _, p := range s.Points("data_gap") {
		readings += p.Fields["count"]
		points += p.Fields["points"]
		reasons[p.Tag("source")+"/"+p.Tag("reason")] = true
	}
	return readings, points, reasons
}

// drained waits until nothing is pending.
func (g *gateway) drained(within time.Duration) {
	g.t.Helper()
	eventually(g.t, within, "the outbox is empty", func() error {
		o, err := g.outbox()
		if err == nil && o.Pending > 0 {
			err = fmt.Errorf("%+v", o)
		}
		return err
	})
}

func TestUplink_ALongOutageCostsResolutionAndNoReading(t *testing.T) {
	t.Parallel()
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Send: "readings", Lateness: "1s",
		Extra: destination(s.URL(), "disk: { max_bytes: 1MiB, when_full: degrade, ladder: [1s, 5s] }")})
	if err := s.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := newFleet(g, 7)
	f.add(2, sequencedSameSession)
	f.run(t)
	for range 2 { // a crash in between changes nothing
		f.publish(t, 4*time.Second)
		g.proc.Kill()
		g.start()
	}
	eventually(t, 20*time.Second, "records are merged", func() error {
		f.publish(t, 100*time.Millisecond)
		o, err := g.outbox()
		if err == nil && (len(o.Tiers) != 3 || o.Tiers[1].Points == 0) {
			err = fmt.Errorf("%+v", o)
		}
		return err
	})
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	sent := f.finish(t, 10*time.Second)
	g.drained(60 * time.Second)
	o, err := g.outbox()
	if err != nil || o.Shed != 0 || o.Merged == 0 || o.Forecast.Coarsest != "5s" {
		t.Errorf("outbox %+v, %v", o, err)
	}
	got, byWindow := storedReadings(s)
	if want := float64(len(sent)); got != want {
		t.Errorf("the store holds %.0f readings, want %.0f; points by window %v", got, want, byWindow)
	}
	if byWindow["1s"] == 0 || byWindow[""] == 0 {
		t.Errorf("points by window %v", byWindow)
	}
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
}

func TestUplink_WhatIsDroppedIsADataGap(t *testing.T) {
	t.Parallel()
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Send: "readings", Extra: destination(s.URL(), "disk: { max_bytes: 1MiB, when_full: drop_oldest }")})
	if err := s.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := newFleet(g, 8)
	f.add(8, sequencedSameSession)
	f.run(t)
	eventually(t, 30*time.Second, "points are shed", func() error {
		f.publish(t, 500*time.Millisecond)
		if o, err := g.outbox(); err != nil || o.Shed < 3000 {
			return fmt.Errorf("%+v, %w", o, err)
		}
		return nil
	})
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	sent := f.finish(t, 10*time.Second)
	g.drained(60 * time.Second)
	eventually(t, 20*time.Second, "every reading is stored or in a gap", func() error {
		got, _ := storedReadings(s)
		lost, points, reasons := gaps(s)
		o, err := g.outbox()
		if want := float64(len(sent)); err != nil || got+lost != want || points != float64(o.Shed) || lost == 0 {
			return fmt.Errorf("%.0f stored, %.0f lost, want %.0f; %.0f points lost, %d shed, %v, %v", got, lost, want, points, o.Shed, reasons, err)
		}
		if !reasons["sequenced/outbox_full"] && !reasons["telemetry/outbox_full"] {
			return fmt.Errorf("gaps of %v", reasons)
		}
		return nil
	})
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
}

// counter is a proxy that counts what goes over the wire, both ways.
type counter struct {
	address string
	target  string
	n       atomic.Int64
	mu      sync.Mutex
	conns   []net.Conn
	l       net.Listener
}

func newCounter(t *testing.T, target string) *counter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counter{address: l.Addr().String(), target: target, l: l}
	t.Cleanup(func() {
		l.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, conn := range c.conns {
			conn.Close()
		}
	})
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", target)
			if err != nil {
				in.Close()
				continue
			}
			c.mu.Lock()
			c.conns = append(c.conns, in, out)
			c.mu.Unlock()
			pipe := func(to, from net.Conn) {
				io.Copy(to, counted{from, &c.n})
				to.Close()
			}
			go pipe(out, in)
			go pipe(in, out)
		}
	}()
	return c
}

type counted struct {
	net.Conn
	n *atomic.Int64
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.n.Add(int64(n))
	return n, err
}

func TestUplink_LiveDataOvertakesTheBacklogWithinTheRate(t *testing.T) {
	t.Parallel()
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wire := newCounter(t, s.Address)
	const rate = 12_000
	g := newGateway(t, options{Send: "readings", Extra: destination("http://"+wire.address, fmt.Sprintf("bandwidth: { bytes_per_second: %d }", rate))})
	if err := s.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := newFleet(g, 9)
	f.add(3, sequencedSameSession)
	f.run(t)
	f.publish(t, 14*time.Second)
	before := wire.n.Load()
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	came := time.Now()
	eventually(t, 60*time.Second, "a live point while the backlog drains", func() error {
		f.publish(t, 100*time.Millisecond)
		o, err := g.outbox()
		if err != nil {
			return err
		}
		if o.Pending < 500 && lines(s) > 0 {
			t.Fatalf("the backlog was gone first: %+v", o)
		}
		for _, p := range s.Points("telemetry") {
			if p.Time > came.Add(500*time.Millisecond).UnixNano() {
				t.Logf("a point of %v after the link came back arrived after %v, %d pending", time.Unix(0, p.Time).Sub(came), time.Since(came), o.Pending)
				return nil
			}
		}
		return fmt.Errorf("none yet; %+v", o)
	})
	took, n := time.Since(came), wire.n.Load()-before
	if most := rate * (took.Seconds() + 2); float64(n) > most {
		t.Errorf("%d bytes in %v, at most %.0f are allowed", n, took, most)
	}
	o, err := g.outbox()
	if err != nil || o.Bandwidth == nil || o.Bandwidth.SentToday < wire.n.Load()*9/10 {
		t.Errorf("%d bytes on the wire, outbox %+v, %v", wire.n.Load(), o.Bandwidth, err)
	}
	f.finish(t, 10*time.Second)
	g.stop()
}

func TestUplink_ABudgetHoldsOverAKillAndAlertsStillGo(t *testing.T) {
	t.Parallel()
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	wire := newCounter(t, s.Address)
	const budget = 96 << 10
	g := newGateway(t, options{Send: "readings", Rules: hotRule,
		Extra: destination("http://"+wire.address, fmt.Sprintf("bandwidth: { bytes_per_day: %d }", budget))})
	g.start()
	f := newFleet(g, 10)
	f.add(4, sequencedSameSession)
	f.run(t)
	paused := func() {
		t.Helper()
		eventually(t, 30*time.Second, "the budget pauses points", func() error {
			f.publish(t, 200*time.Millisecond)
			o, err := g.outbox()
			if err == nil && (o.Bandwidth == nil || o.Bandwidth.PausedReason != "day_budget" || o.State != "paused") {
				err = fmt.Errorf("%+v %+v", o, o.Bandwidth)
			}
			return err
		})
	}
	paused()
	g.proc.Kill()
	used := wire.n.Load()
	g.start()
	paused()
	alerts := len(s.Points("alerts"))
	eventually(t, 20*time.Second, "an alert while points are paused", func() error {
		f.publish(t, 200*time.Millisecond)
		if n := len(s.Points("alerts")); n == alerts {
			return fmt.Errorf("still %d; %d bytes used, %d before the kill", n, wire.n.Load(), used)
		}
		return nil
	})
	if n := wire.n.Load(); n > budget || used < budget/2 {
		t.Errorf("%d bytes on the wire, %d before the kill, the budget is %d", n, used, budget)
	}
	f.end()
	g.proc.Kill()
}
