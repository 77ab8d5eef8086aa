package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
)

// machine is a computer without a battery-backed clock. Its times are real ones, but for what its wall clock shows.
type machine struct {
	boot   string
	booted time.Time
	behind atomic.Int64 // how far the wall clock is wrong, ns
}

func newMachine(boot string, clock time.Time) *machine {
	m := &machine{boot: boot, booted: time.Now().Add(-20 * time.Second)}
	m.behind.Store(int64(time.Since(clock)))
	return m
}

func (m *machine) wall() time.Time { return time.Now().Round(0).Add(-time.Duration(m.behind.Load())) }

// ntp sets the clock.
func (m *machine) ntp() { m.behind.Store(0) }

// install makes the machine's clock that of a gateway that does not run yet.
func (m *machine) install(c *clock) {
	began := time.Now()
	c.wall, c.start = m.wall, m.wall().UnixNano()
	c.mono = func() time.Duration { return time.Since(began) }
	c.uptime = func() time.Duration { return time.Since(m.booted) }
	c.machine = m.boot
	c.synced = func() bool { return false }
}

// captured is what a store was sent: line protocol, and what was seen of webhooks.
type captured struct {
	mu    sync.Mutex
	lines []string
	hooks []string
}

func (c *captured) store(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body = z
	}
	b, _ := io.ReadAll(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(string(b)) {
		c.lines = append(c.lines, strings.TrimSpace(line))
	}
	w.WriteHeader(http.StatusNoContent)
}

func (c *captured) hook(_ http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hooks = append(c.hooks, string(b))
}

// times are those of a measurement's points, by value of v.
func (c *captured) times(measurement string) map[string]time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := map[string]time.Time{}
	for _, line := range c.lines {
		words := strings.Fields(line)
		if len(words) != 3 || !strings.HasPrefix(line, measurement+",") {
			continue
		}
		ns, _ := strconv.ParseInt(words[2], 10, 64)
		at[words[1]] = time.Unix(0, ns)
	}
	return at
}

// clockGateway is a gateway on a machine, with a device that has no clock either.
type clockGateway struct {
	*gateway
	t      *testing.T
	stop   func()
	device paho.Client
}

func startOn(t *testing.T, m *machine, cfg *config.Config) *clockGateway {
	t.Helper()
	g, err := openGateway(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	m.install(g.clock)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	c := &clockGateway{gateway: g, t: t, stop: func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}}
	c.eventually("the gateway serves", func() string {
		if !g.ready.Load() {
			return "it does not"
		}
		return ""
	})
	c.device = paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + g.broker.Addrs()[0].String()).SetClientID("d").SetAutoReconnect(false))
	if token := c.device.Connect(); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		t.Fatalf("connect: %v", token.Error())
	}
	return c
}

func (c *clockGateway) eventually(what string, wrong func() string) {
	c.t.Helper()
	why := ""
	for by := time.Now().Add(10 * time.Second); time.Now().Before(by); time.Sleep(5 * time.Millisecond) {
		if why = wrong(); why == "" {
			return
		}
	}
	c.t.Fatalf("%s: %s", what, why)
}

// publish returns a moment within a few milliseconds of the arrival.
func (c *clockGateway) publish(payload string) time.Time {
	c.t.Helper()
	at := time.Now()
	if token := c.device.Publish("d/pump", 1, false, payload); !token.WaitTimeout(10*time.Second) || token.Error() != nil {
		c.t.Fatalf("publish: %v", token.Error())
	}
	return at
}

func (c *clockGateway) held(n uint64) {
	c.t.Helper()
	c.eventually(fmt.Sprintf("%d messages are held", n), func() string {
		if v := c.runner.View(); !v.Unset || v.Held != n {
			return fmt.Sprintf("unset %v, %d held", v.Unset, v.Held)
		}
		return ""
	})
}

// image copies a running gateway's data directory as a kill would leave it: the journal last, since it holds everything.
func image(t *testing.T, from, to string) {
	t.Helper()
	for _, d := range []string{"META", "state", "outbox", "quarantine", "broker", "journal"} {
		if _, err := os.Stat(filepath.Join(from, d)); err != nil {
			continue
		}
		if d == "META" {
			b, err := os.ReadFile(filepath.Join(from, d))
			if err == nil {
				err = os.WriteFile(filepath.Join(to, d), b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.CopyFS(filepath.Join(to, d), os.DirFS(filepath.Join(from, d))); err != nil {
			t.Fatal(err)
		}
	}
}

// The machine boots in 2001. Alerts go out at once; messages wait, over a kill of the process too, and when NTP sets the clock each
// reading reaches the store with the time it truly arrived. Nothing is sent with another.
func TestClock_BootedIn2001HoldsEverythingButAlertsUntilTheClockIsSet(t *testing.T) {
	sent := &captured{}
	store, hook := httptest.NewServer(http.HandlerFunc(sent.store)), httptest.NewServer(http.HandlerFunc(sent.hook))
	defer store.Close()
	defer hook.Close()
	dir := t.TempDir()
	text := `gateway: { id: g, data_dir: data }
mqtt: { allow_anonymous: true, listeners: [ { address: "127.0.0.1:0" } ] }
sources:
  - { name: m, topic: "d/{device}", send: readings }
  - { name: never, topic: "n/{device}" }
rules: { files: [r.yaml] }
webhooks: [ { name: ops, url: "` + hook.URL + `", allow: ["127.0.0.0/8"] } ]
uplink: { destinations: [ { name: cloud, type: influxdb, url: "` + store.URL + `", bucket: b } ] }
history: { keep: 0 }
http: { address: "" }
`
	for name, data := range map[string]string{"sluice.yaml": text, "r.yaml": "groups: [ { name: g, rules: [ { alert: High, expr: v > 90 } ] } ]\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := loadConfig(filepath.Join(dir, "sluice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	arrived := map[string]time.Time{}
	m := newMachine("boot-1", time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC))
	g := startOn(t, m, cfg)
	for i := range 3 {
		arrived[fmt.Sprintf("v=%d", i)] = g.publish(fmt.Sprintf(`{"v":%d}`, i))
	}
	arrived["v=95"] = g.publish(`{"v":95}`)
	g.held(4)
	g.eventually("the webhook is told of the alert at once", func() string {
		sent.mu.Lock()
		defer sent.mu.Unlock()
		if len(sent.hooks) == 0 || !strings.Contains(sent.hooks[0], `"High"`) || !strings.Contains(sent.hooks[0], "clock is not set") {
			return fmt.Sprint(sent.hooks)
		}
		return ""
	})

	// kill -9, and the process comes back on the same machine, whose clock is as wrong as before.
	killed := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(killed, 0o700); err != nil {
		t.Fatal(err)
	}
	image(t, filepath.Join(dir, "data"), killed)
	g.stop()
	if at := sent.times("m"); len(at) != 0 {
		t.Fatalf("sent before the clock was set: %v", at)
	}
	cfg.Gateway.DataDir = killed
	g = startOn(t, m, cfg)
	defer func() { g.stop() }()
	arrived["v=7"] = g.publish(`{"v":7}`)
	g.held(5)
	m.ntp()
	g.eventually("the store holds every reading", func() string {
		at := sent.times("m")
		for v, want := range arrived {
			got, ok := at[v]
			if off := got.Sub(want); !ok || off < -time.Second || off > time.Second {
				return fmt.Sprintf("%s at %v, want %v (%d points)", v, got, want, len(at))
			}
		}
		if len(at) != len(arrived) {
			return fmt.Sprint(at)
		}
		return ""
	})
	for fields, at := range sent.times("alerts") {
		if off := at.Sub(arrived["v=95"]); off < -time.Second || off > time.Second {
			t.Errorf("point of an alert %s at %v, want %v", fields, at, arrived["v=95"])
		}
	}
	if len(sent.times("alerts")) == 0 {
		t.Error("the alert's point never went out")
	}
	// From here on everything is as usual.
	arrived["v=8"] = g.publish(`{"v":8}`)
	g.eventually("the next reading arrives", func() string {
		if off := sent.times("m")["v=8"].Sub(arrived["v=8"]); off < -time.Second || off > time.Second {
			return fmt.Sprint(off)
		}
		return ""
	})
	g.eventually("the ledger counts each once", func() string {
		if v := g.runner.View(); v.Total.Received != 6 || v.Total.Aggregated != 6 || v.Unset || v.Held != 0 {
			return fmt.Sprintf("ledger %+v, unset %v, %d held", v.Total, v.Unset, v.Held)
		}
		return ""
	})
}

func TestClock_DecidesAtTheStartWhatIsATime(t *testing.T) {
	built := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	last := built.AddDate(1, 0, 0)
	for _, tt := range []struct {
		name    string
		wall    time.Time
		state   pipeline.ClockState
		uptime  time.Duration
		synced  bool
		unset   bool
		now     int64
		plainly bool // settle has nothing to say
	}{
		{name: "a first start", wall: last, now: last.UnixNano(), plainly: true},
		{name: "before the build", wall: built.AddDate(-5, 0, 0), unset: true, now: built.AddDate(-5, 0, 0).UnixNano(), plainly: true},
		{name: "behind the journal", wall: last.Add(-time.Hour), state: pipeline.ClockState{Now: last.UnixNano(), True: last.UnixNano()}, unset: true, now: last.UnixNano(), plainly: true},
		{name: "behind the journal, but kept right", wall: last.Add(-time.Hour), synced: true,
			state: pipeline.ClockState{Now: last.UnixNano(), True: last.UnixNano()}, now: last.Add(-time.Hour).UnixNano(), plainly: true},
		{name: "a little behind the journal", wall: last.Add(-10 * time.Second), state: pipeline.ClockState{Now: last.UnixNano(), True: last.UnixNano()},
			now: last.Add(-10 * time.Second).UnixNano(), plainly: true},
		{name: "the process alone was away", wall: time.Unix(500, 0), uptime: 400 * time.Second,
			state: pipeline.ClockState{Now: 1000e9, Unset: true, Machine: "b", Zero: 700e9}, unset: true, now: 1100e9, plainly: true},
		{name: "and the clock was set meanwhile", wall: last, uptime: 400 * time.Second,
			state: pipeline.ClockState{Now: 1000e9, Unset: true, Machine: "b", Zero: 700e9}, unset: true, now: 1100e9},
		{name: "another boot, still without", wall: time.Unix(5, 0), uptime: 4 * time.Second,
			state: pipeline.ClockState{Now: 1000e9, Unset: true, Machine: "a", Zero: 700e9}, unset: true, now: 1000e9, plainly: true},
	} {
		c := newClock(func() time.Time { return tt.wall })
		c.least, c.machine = built, "b"
		c.uptime = func() time.Duration { return tt.uptime }
		c.synced = func() bool { return tt.synced }
		b := c.begin(tt.state)
		if b.Unset != tt.unset || c.now() != tt.now {
			t.Errorf("%s: unset %v, now %d; want %v, %d", tt.name, b.Unset, c.now(), tt.unset, tt.now)
		}
		if step, set := c.settle(); (step == 0 && !set) != tt.plainly {
			t.Errorf("%s: settle says %v, %v", tt.name, step, set)
		}
	}
}

func TestClock_BelievesInTheEndThatTheJournalWasWrong(t *testing.T) {
	wall := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	c := newClock(func() time.Time { return wall })
	up := time.Duration(0)
	c.uptime = func() time.Duration { return up }
	future := wall.AddDate(3, 0, 0).UnixNano()
	if b := c.begin(pipeline.ClockState{Now: future, True: future}); !b.Unset {
		t.Fatal("a clock three years behind the journal was believed at once")
	}
	if _, set := c.settle(); set {
		t.Fatal("believed without a reason")
	}
	up = clockTrust
	step, set := c.settle()
	if !set {
		t.Fatal("never believed")
	}
	if c.take(step); c.now() != wall.UnixNano() {
		t.Errorf("now %d, want %d", c.now(), wall.UnixNano())
	}
}

func TestClock_DoesNotFollowIntoThePast(t *testing.T) {
	wall := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	c := newClock(func() time.Time { return wall })
	c.mono = func() time.Duration { return time.Minute }
	c.begin(pipeline.ClockState{})
	before := c.now()
	wall = time.Unix(0, 0)
	if step, set := c.settle(); step != 0 || set || c.now() != before || !c.ignored {
		t.Errorf("1970 is followed: step %v, now %d, was %d", step, c.now(), before)
	}
}
