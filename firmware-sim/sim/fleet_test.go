package sim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quick is a config for a test: many readings in little time.
func quick(server string, change func(*Config)) (Config, *lockedBuffer) {
	truth := &lockedBuffer{}
	cfg := Defaults()
	cfg.Server, cfg.Truth = server, truth
	cfg.Devices, cfg.Connections, cfg.Rate = 4, 2, 500
	cfg.ReconnectMax = 50 * time.Millisecond
	cfg.Drain, cfg.StopDrain = 20*time.Second, 20*time.Second
	if change != nil {
		change(&cfg)
	}
	return cfg, truth
}

func runFleet(t *testing.T, ctx context.Context, cfg Config) (*Fleet, <-chan error) {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan error, 1)
	go func() { ran <- f.Run(ctx) }()
	return f, ran
}

func wait(t *testing.T, ran <-chan error) error {
	t.Helper()
	select {
	case err := <-ran:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("Run did not return within 30 s")
		return nil
	}
}

// eventually polls a condition with a deadline.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 20 s: %s", what)
		}
	}
}

func TestFleet_PublishesEverythingOnceAndKnowsTheOutcome(t *testing.T) {
	for qos := range byte(3) {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			srv := newTestServer(t)
			cfg, truth := quick(srv.url(), func(c *Config) { c.QoS, c.Count = qos, 401 })
			f, ran := runFleet(t, context.Background(), cfg)
			if err := wait(t, ran); err != nil {
				t.Fatal(err)
			}
			by := checkTruth(t, truth.lines(t))
			final := "acked"
			if qos == 0 {
				final = "sent"
			}
			if got := len(srv.received()); got != 401 || len(by[final]) != 401 || len(by["publish"]) != 401 {
				t.Errorf("server got %d; truth says %d published, %d %s; want 401", got, len(by["publish"]), len(by[final]), final)
			}
			if len(by["connect"]) != 2 || len(by["disconnect"]) != 2 || len(by["resent"]) != 0 {
				t.Errorf("%d connects, %d disconnects, %d resent", len(by["connect"]), len(by["disconnect"]), len(by["resent"]))
			}
			s := f.Stats()
			if s.Planned != 401 || s.Readings != 401 || s.Published != 401 || s.Acked+s.Sent != 401 || s.InFlight != 0 || s.Behind != 0 || s.Connected != 0 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

// A message that was sent again is not an acknowledged one: paho completes its token at the resend.
func TestFleet_AckedOnlyAfterTheServerAcknowledged(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			srv := newTestServer(t)
			srv.set(func(s *testServer) { s.mute = true })
			cfg, truth := quick(srv.url(), func(c *Config) {
				c.QoS, c.Devices, c.Connections, c.Count, c.Inflight = qos, 2, 1, 30, 20
			})
			f, ran := runFleet(t, context.Background(), cfg)
			for round := 1; round <= 3; round++ {
				eventually(t, "20 messages on this connection", func() bool {
					n := 0
					for _, r := range srv.received() {
						if r.conn == round {
							n++
						}
					}
					return n >= 20
				})
				if s := f.Stats(); s.Acked != 0 || s.InFlight != 20 {
					t.Fatalf("round %d: %d acked, %d in flight; the server acknowledged nothing and 20 may be in flight", round, s.Acked, s.InFlight)
				}
				if round == 3 {
					srv.set(func(s *testServer) { s.mute = false })
				}
				srv.cutAll()
			}
			if err := wait(t, ran); err != nil {
				t.Fatal(err)
			}
			by := checkTruth(t, truth.lines(t))
			if len(by["acked"]) != 30 || len(by["resent"]) != 60 {
				t.Errorf("%d acked, %d resent; want 30 and 60", len(by["acked"]), len(by["resent"]))
			}
			var first []received
			for _, r := range srv.received() {
				if r.conn == 1 {
					first = append(first, r)
				}
			}
			n := map[int]int{}
			for _, r := range srv.received() {
				i := n[r.conn]
				n[r.conn]++
				if i >= len(first) {
					if r.dup || r.conn != 4 {
						t.Errorf("connection %d, message %d: a new message came with DUP %v", r.conn, i, r.dup)
					}
					continue
				}
				if r.payload != first[i].payload || r.packetID != first[i].packetID || r.dup != (r.conn > 1) {
					t.Errorf("connection %d, message %d: packet %d DUP %v %s; first sent as packet %d %s", r.conn, i, r.packetID, r.dup, r.payload, first[i].packetID, first[i].payload)
				}
			}
			for i, c := range by["connect"] {
				if c.SessionPresent != (i > 0) {
					t.Errorf("connect %d: session present %v", i+1, c.SessionPresent)
				}
			}
		})
	}
}

func TestFleet_CleanSessionResendsAsNewMessages(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.CleanSession, c.Devices, c.Connections, c.Count, c.Inflight = true, 2, 1, 20, 10 })
	_, ran := runFleet(t, context.Background(), cfg)
	for round := 1; round <= 3; round++ {
		eventually(t, "10 messages on this connection", func() bool {
			n := 0
			for _, r := range srv.received() {
				if r.conn == round {
					n++
				}
			}
			return n == 10
		})
		if round == 3 {
			srv.set(func(s *testServer) { s.mute = false })
		}
		srv.cutAll()
	}
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	by := checkTruth(t, truth.lines(t))
	if len(by["acked"]) != 20 || len(by["publish"]) != 20 || len(by["resent"]) != 30 {
		t.Errorf("%d published, %d resent, %d acked; want 20, 30, 20", len(by["publish"]), len(by["resent"]), len(by["acked"]))
	}
	got := srv.received()
	for i, r := range got[:40] {
		if r.dup || r.payload != got[i%10].payload {
			t.Errorf("message %d: DUP %v, payload %s, first sent %s", i, r.dup, r.payload, got[i%10].payload)
		}
	}
}

func TestFleet_EverythingAckedThroughRepeatedCuts(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			srv := newTestServer(t)
			cfg, truth := quick(srv.url(), func(c *Config) { c.QoS, c.Devices, c.Connections, c.Rate, c.Count = qos, 20, 5, 300, 6000 })
			f, ran := runFleet(t, context.Background(), cfg)
			for cut := int64(1); cut <= 8; cut++ {
				eventually(t, "progress", func() bool { return f.Stats().Acked > cut*500 })
				srv.cutAll()
			}
			if err := wait(t, ran); err != nil {
				t.Fatal(err)
			}
			by := checkTruth(t, truth.lines(t))
			if len(by["acked"]) != 6000 {
				t.Errorf("%d acked of 6000", len(by["acked"]))
			}
			arrived := map[string]bool{}
			for _, r := range srv.received() {
				var p struct{ Seq uint64 }
				if err := json.Unmarshal([]byte(r.payload), &p); err != nil {
					t.Fatalf("payload %q: %v", r.payload, err)
				}
				arrived[fmt.Sprint(r.topic, p.Seq)] = true
			}
			if len(arrived) != 6000 {
				t.Errorf("server saw %d different messages of 6000", len(arrived))
			}
			if f.Stats().LostConnections < 8 {
				t.Errorf("%d lost connections; the test cut 8 times", f.Stats().LostConnections)
			}
		})
	}
}

func TestFleet_GivesUpOnlyWhenAsked(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.Count, c.Inflight, c.GiveUpAfter = 20, 3, 50*time.Millisecond })
	f, ran := runFleet(t, context.Background(), cfg)
	err := wait(t, ran)
	if !errors.Is(err, ErrIncomplete) {
		t.Errorf("Run() = %v, want ErrIncomplete", err)
	}
	by := checkTruth(t, truth.lines(t))
	if len(by["lost"]) != 20 || f.Stats().Lost != 20 || by["lost"][0].Reason != "gave up" {
		t.Errorf("%d lost: %+v", len(by["lost"]), f.Stats())
	}
}

func TestFleet_EndsADrainWithoutProgress(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.Count, c.Inflight, c.Drain = 20, 3, 100*time.Millisecond })
	_, ran := runFleet(t, context.Background(), cfg)
	err := wait(t, ran)
	if !errors.Is(err, ErrIncomplete) || !strings.Contains(err.Error(), "6 messages were never acknowledged, 14 planned") {
		t.Errorf("Run() = %v", err)
	}
	if by := checkTruth(t, truth.lines(t)); len(by["lost"]) != 6 {
		t.Errorf("%d lost, want the 3 in flight on 2 connections", len(by["lost"]))
	}
}

func TestFleet_CancelDrainsAndReturnsNil(t *testing.T) {
	srv := newTestServer(t)
	cfg, truth := quick(srv.url(), nil)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, ran := runFleet(t, ctx, cfg)
	eventually(t, "100 acknowledged", func() bool { return f.Stats().Acked > 100 })
	cancel()
	if err := wait(t, ran); err != nil {
		t.Errorf("Run() = %v", err)
	}
	checkTruth(t, truth.lines(t))
}

func TestFleet_CancelWithoutAServerReturnsAtOnce(t *testing.T) {
	cfg, _ := quick("tcp://127.0.0.1:1", func(c *Config) { c.ReconnectMax = time.Hour })
	ctx, cancel := context.WithCancel(context.Background())
	f, ran := runFleet(t, ctx, cfg)
	eventually(t, "a failed attempt", func() bool { return f.Stats().ConnectFailures > 0 })
	cancel()
	began := time.Now()
	if err := wait(t, ran); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("Run() = %v after %v", err, time.Since(began))
	}
}

func TestFleet_CancelDuringAStormReturnsAtOnce(t *testing.T) {
	srv := newTestServer(t)
	cfg, truth := quick(srv.url(), func(c *Config) {
		c.Rate = 1
		c.Faults = []Fault{{Kind: "reconnect_storm", Start: 100 * time.Millisecond, Offline: time.Hour}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	f, ran := runFleet(t, ctx, cfg)
	eventually(t, "both cut", func() bool { return f.Stats().LostConnections == 2 })
	cancel()
	began := time.Now()
	if err := wait(t, ran); err != nil || time.Since(began) > cfg.StopDrain/2 {
		t.Errorf("Run() = %v after %v", err, time.Since(began))
	}
	checkTruth(t, truth.lines(t))
}

func TestFleet_CancelGivesUpOnAServerThatNeverAnswers(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.Inflight, c.StopDrain = 2, 100*time.Millisecond })
	ctx, cancel := context.WithCancel(context.Background())
	f, ran := runFleet(t, ctx, cfg)
	eventually(t, "a full window", func() bool { return f.Stats().InFlight == 4 })
	cancel()
	if err := wait(t, ran); !errors.Is(err, ErrIncomplete) {
		t.Errorf("Run() = %v, want ErrIncomplete", err)
	}
	if by := checkTruth(t, truth.lines(t)); len(by["lost"]) != 4 {
		t.Errorf("%d lost, want 4", len(by["lost"]))
	}
}

func TestFleet_KeepsTryingAServerThatRefuses(t *testing.T) {
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.refuse = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.Count = 20 })
	f, ran := runFleet(t, context.Background(), cfg)
	eventually(t, "refused attempts", func() bool { return f.Stats().ConnectFailures > 4 })
	srv.set(func(s *testServer) { s.refuse = false })
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	if by := checkTruth(t, truth.lines(t)); len(by["acked"]) != 20 {
		t.Errorf("%d acked of 20", len(by["acked"]))
	}
}

// A server that stops answering without closing the connection is found by the keep-alive.
func TestFleet_LeavesASilentServer(t *testing.T) {
	t.Parallel()
	srv := newTestServer(t)
	srv.set(func(s *testServer) { s.mute = true })
	cfg, truth := quick(srv.url(), func(c *Config) { c.Devices, c.Connections, c.Count, c.KeepAlive = 1, 1, 5, time.Second })
	f, ran := runFleet(t, context.Background(), cfg)
	eventually(t, "the silent connection is dropped", func() bool { return f.Stats().LostConnections > 0 })
	srv.set(func(s *testServer) { s.mute = false })
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	by := checkTruth(t, truth.lines(t))
	if len(by["acked"]) != 5 || by["disconnect"][0].Reason != "the server was silent" {
		t.Errorf("%d acked, first disconnect: %+v", len(by["acked"]), by["disconnect"][0])
	}
}

func TestFleet_KeepAliveHoldsAnIdleConnection(t *testing.T) {
	t.Parallel()
	srv := newTestServer(t)
	cfg, truth := quick(srv.url(), func(c *Config) { c.Devices, c.Connections, c.Rate, c.Count, c.KeepAlive = 1, 1, 0.2, 2, time.Second })
	f, ran := runFleet(t, context.Background(), cfg) // five seconds of silence between the two
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	if s := f.Stats(); s.LostConnections != 0 || s.Acked != 2 {
		t.Errorf("%+v", s)
	}
	checkTruth(t, truth.lines(t))
}

func TestFleet_StormCutsMatchingConnectionsAndBringsThemBackTogether(t *testing.T) {
	t.Parallel()
	srv := newTestServer(t)
	const offline = 300 * time.Millisecond
	cfg, truth := quick(srv.url(), func(c *Config) {
		c.Devices, c.Connections, c.Rate = 40, 0, 20
		c.Faults = []Fault{{Name: "radio", Kind: "reconnect_storm", Devices: "pump-*", Off: true, Offline: offline}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, ran := runFleet(t, ctx, cfg)
	eventually(t, "all connected", func() bool { return f.Stats().Connected == 40 })
	if err := f.SetFault("nonsense", true); err == nil {
		t.Error("SetFault accepted an unknown name")
	}
	if err := f.SetFault("radio", true); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ten cut", func() bool { return f.Stats().LostConnections == 10 })
	if !f.Faults()[0].Active {
		t.Error("the fault is not active")
	}
	eventually(t, "ten back", func() bool { return f.Stats().Connected == 40 && f.Stats().Connects == 50 })
	if err := f.SetFault("radio", false); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the fault is told", func() bool {
		for _, l := range truth.lines(t) {
			if l.Event == "fault_end" {
				return true
			}
		}
		return false
	})
	cancel()
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	by := checkTruth(t, truth.lines(t))
	if len(by["fault_start"]) != 1 || len(by["fault_end"]) != 1 {
		t.Errorf("%d starts, %d ends", len(by["fault_start"]), len(by["fault_end"]))
	}
	back := by["connect"][40:]
	first, last := back[0].T, back[0].T
	for _, c := range back {
		if c.T.Before(first) {
			first = c.T
		}
		if c.T.After(last) {
			last = c.T
		}
	}
	if away := first.Sub(by["fault_start"][0].T); away < offline {
		t.Errorf("first reconnect %v after the cut, want %v", away, offline)
	}
	if spread := last.Sub(first); spread > 2*time.Second { // on a busy machine; a few ms else
		t.Errorf("reconnects are spread over %v", spread)
	}
}

func TestFleet_DuplicatesAndHeldMessagesArriveAsTheTruthSays(t *testing.T) {
	srv := newTestServer(t)
	cfg, truth := quick(srv.url(), func(c *Config) {
		c.Devices, c.Connections, c.Rate, c.Count = 2, 1, 100, 200
		c.Faults = []Fault{
			{Kind: "duplicate", Probability: 0.3, Delay: 30 * time.Millisecond},
			{Kind: "out_of_order", Probability: 0.3, Delay: 100 * time.Millisecond},
		}
	})
	_, ran := runFleet(t, context.Background(), cfg)
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	by := checkTruth(t, truth.lines(t))
	copies := map[string]int{}
	for _, l := range by["acked"] {
		copies[fmt.Sprint(l.Device, l.Seq)]++
	}
	twice := 0
	for _, n := range copies {
		if n == 2 {
			twice++
		} else if n != 1 {
			t.Errorf("a message was sent %d times", n)
		}
	}
	if len(copies) != 200 || twice < 30 || twice > 90 {
		t.Errorf("%d messages, %d of them twice", len(copies), twice)
	}
	overtaken, last := 0, map[string]uint64{}
	for i, r := range srv.received() {
		var p struct{ Seq uint64 }
		if err := json.Unmarshal([]byte(r.payload), &p); err != nil {
			t.Fatal(err)
		}
		if got := by["publish"][i]; got.Topic != r.topic || got.Seq != p.Seq {
			t.Fatalf("message %d on the wire is %s seq %d, in the truth %s seq %d", i, r.topic, p.Seq, got.Topic, got.Seq)
		}
		if p.Seq < last[r.topic] {
			overtaken++
		}
		last[r.topic] = max(last[r.topic], p.Seq)
	}
	if overtaken < 20 {
		t.Errorf("%d messages were overtaken", overtaken)
	}
}

func TestFleet_FailingTruthEndsTheRun(t *testing.T) {
	srv := newTestServer(t)
	cfg, _ := quick(srv.url(), func(c *Config) { c.Truth = failingWriter{} })
	_, ran := runFleet(t, context.Background(), cfg)
	if err := wait(t, ran); err == nil || !strings.Contains(err.Error(), "write ground truth: no space") {
		t.Errorf("Run() = %v", err)
	}
}

func TestFleet_EventsArriveInTheOrderOfTheLines(t *testing.T) {
	srv := newTestServer(t)
	var events []Event
	cfg, truth := quick(srv.url(), func(c *Config) {
		c.Count = 100
		c.OnEvent = func(e Event) { events = append(events, e) }
	})
	_, ran := runFleet(t, context.Background(), cfg)
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	lines := truth.lines(t)
	if len(lines) != len(events) {
		t.Fatalf("%d lines, %d events", len(lines), len(events))
	}
	for i, e := range events {
		if string(e.Kind) != lines[i].Event || e.ID != lines[i].ID || e.Seq != lines[i].Seq {
			t.Fatalf("event %d: %+v, line %+v", i, e, lines[i])
		}
	}
}

func TestFleet_OverWebSocketThroughCuts(t *testing.T) {
	srv := newTestServer(t)
	cfg, truth := quick(srv.websocketURL(t), func(c *Config) { c.Count = 1000 })
	f, ran := runFleet(t, context.Background(), cfg)
	for cut := int64(1); cut <= 3; cut++ {
		eventually(t, "progress", func() bool { return f.Stats().Acked > cut*200 })
		srv.cutAll()
	}
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	if by := checkTruth(t, truth.lines(t)); len(by["acked"]) != 1000 || f.Stats().LostConnections < 3 {
		t.Errorf("%d acked of 1000, %d connections lost", len(by["acked"]), f.Stats().LostConnections)
	}
}

func TestFleet_RunsOnce(t *testing.T) {
	srv := newTestServer(t)
	cfg, _ := quick(srv.url(), func(c *Config) { c.Count = 1 })
	f, ran := runFleet(t, context.Background(), cfg)
	if err := wait(t, ran); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(context.Background()); err == nil {
		t.Error("a second Run was accepted")
	}
}
