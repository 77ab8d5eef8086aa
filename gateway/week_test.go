package main

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/config"
	"sluice/gateway/e2e/store"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
	"sluice/uplink"
	"sluice/uplink/influx"
)

// The week is a long outage in simulated time: devices publish for days while the store answers nothing, or nonsense, and the process
// is killed or loses its power now and then. What is real: journal, fold, checkpoints, outbox with its ladder, forwarder, the
// InfluxDB sink and its HTTP. What is simulated: the disk, the devices and the passing of time.

// weekScale is how much of it is run: seven days, 50 devices and 200 MB with SLUICE_WEEK, else a day that takes seconds.
type weekScale struct {
	days     float64
	devices  int
	maxBytes int64
	kills    int
	batch    int
}

func weekOf(t *testing.T) weekScale {
	if os.Getenv("SLUICE_WEEK") != "" {
		return weekScale{days: 7, devices: 50, maxBytes: 200 << 20, kills: 60, batch: 5000}
	}
	return weekScale{days: 1, devices: 5, maxBytes: 2 << 20, kills: 12, batch: 200}
}

const (
	weekEvery  = 10 * time.Second
	weekWindow = 10 * time.Second
	weekCommit = 30 // steps between two commits
)

// weekStore is an InfluxDB that is away, then talks nonsense, then works. It keeps points by their identity.
type weekStore struct {
	mu      sync.Mutex
	rng     *rand.Rand
	mood    string // away, nonsense or well
	points  map[string]store.Line
	answers map[string]int
	server  *httptest.Server
}

func newWeekStore(seed uint64) *weekStore {
	s := &weekStore{rng: rand.New(rand.NewPCG(seed, 7)), mood: "away", points: map[string]store.Line{}, answers: map[string]int{}}
	s.server = httptest.NewServer(s)
	return s
}

func (s *weekStore) set(mood string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mood = mood
}

// ServeHTTP implements http.Handler.
func (s *weekStore) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, "bad gzip", http.StatusBadRequest)
			return
		}
		body = z
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := "store"
	switch s.mood {
	case "away":
		answer = "503"
	case "nonsense":
		answer = []string{"store", "store", "503", "429", "500", "html", "redirect", "reset", "reset after storing", "401", "413", "truncated"}[s.rng.IntN(12)]
	}
	s.answers[answer]++
	switch answer {
	case "503":
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusServiceUnavailable)
	case "429":
		w.WriteHeader(http.StatusTooManyRequests)
	case "500":
		http.Error(w, `{"code":"internal error","message":"unexpected error writing points to database: timeout"}`, http.StatusInternalServerError)
	case "html":
		io.WriteString(w, "<html>Welcome to the hotel</html>")
	case "redirect":
		http.Redirect(w, r, "http://127.0.0.1:1/login", http.StatusFound)
	case "401":
		http.Error(w, `{"code":"unauthorized","message":"unauthorized access"}`, http.StatusUnauthorized)
	case "reset":
		panic(http.ErrAbortHandler)
	case "413":
		if len(lines) > 50 {
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
			return
		}
		s.take(w, lines)
	case "truncated":
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "{")
	case "reset after storing":
		s.take(nil, lines)
		panic(http.ErrAbortHandler)
	default:
		s.take(w, lines)
	}
}

// take stores what it likes: the device "cursed" never is, as by a schema of the store's own.
func (s *weekStore) take(w http.ResponseWriter, lines []string) {
	refused := 0
	for _, l := range lines {
		p, err := store.ParseLine(l)
		if err != nil || p.Tag("device") == "cursed" {
			refused++
			continue
		}
		s.points[p.Key()] = p
	}
	switch {
	case w == nil:
	case refused > 0:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnprocessableEntity)
		io.WriteString(w, `{"code":"unprocessable entity","message":"failure writing points to database: partial write: field type conflict: input field \"v\" on measurement \"m\" is type float, already exists as type integer dropped=`+strconv.Itoa(refused)+`"}`)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// sums are the readings that the stored points of measurement m stand for, and those that data_gap points tell of.
func (s *weekStore) sums(t *testing.T) (byDevice map[string]float64, byWindow map[string]int, gaps float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	byDevice, byWindow = map[string]float64{}, map[string]int{}
	for _, p := range s.points {
		switch p.Measurement {
		case "m":
			byDevice[p.Tag("device")] += p.Fields["v_count"]
			byWindow[p.Tag("window")]++
		case "data_gap":
			gaps += p.Fields["count"]
		default:
			t.Errorf("nobody sent %s", p.Measurement)
		}
	}
	return byDevice, byWindow, gaps
}

// weekSite is the devices: each publishes a reading every ten seconds, some of them late or twice.
type weekSite struct {
	devices  int
	rng      *rand.Rand
	seq      map[string]int
	accepted map[string]float64 // readings that count
}

type weekMessage struct {
	device  string
	payload string
	counts  bool
}

// publish is what the devices say in one step.
func (s *weekSite) publish(at int64) (out []weekMessage) {
	for i := range s.devices {
		out = append(out, s.reading("device-"+strconv.Itoa(i), at))
		switch n := s.rng.IntN(500); {
		case n == 0:
			again := out[len(out)-1]
			again.counts = false
			out = append(out, again)
		case n == 1: // kept back for some minutes
			out = append(out, s.reading("device-"+strconv.Itoa(i), at-int64(s.rng.IntN(500))*1e9))
		case n == 2:
			out = append(out, weekMessage{device: "device-" + strconv.Itoa(i), payload: `{"v":`})
		}
	}
	if s.rng.IntN(200) == 0 {
		out = append(out, s.reading("cursed", at))
	}
	return out
}

func (s *weekSite) reading(device string, at int64) weekMessage {
	s.seq[device]++
	return weekMessage{device, fmt.Sprintf(`{"seq":%d,"ts":%d,"v":%d}`, s.seq[device], at/1e6, s.rng.IntN(1000)), true}
}

// week is the world of one run.
type week struct {
	t       *testing.T
	scale   weekScale
	fs      *simfs.FS
	store   *weekStore
	site    *weekSite
	step    int
	held    []weekMessage // published, not acknowledged: published again after a kill
	crashes int
}

func weekSources() []config.Source {
	return []config.Source{{Name: "s", Measurement: "m", Send: "aggregates", Window: weekWindow, Grace: 2 * time.Second, Lateness: 10 * time.Minute,
		Stats: []string{"count", "sum", "min", "max", "last"}}}
}

func (w *week) spec() *pipeline.Spec {
	src := weekSources()[0]
	return &pipeline.Spec{
		Gateway: "week", Limits: pipeline.Limits{Series: 1000, Future: time.Hour, Past: 1000 * time.Hour},
		Sources: []pipeline.SourceSpec{{
			Name: "s", Topic: "d/{device}", Measurement: "m", Send: pipeline.SendAggregates,
			Decode: decode.Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"},
			Window: src.Window, Grace: src.Grace, Lateness: src.Lateness,
			Stats: []telemetry.Stat{"count", "sum", "min", "max", "last"},
		}},
	}
}

// weekGateway is one process.
type weekGateway struct {
	*week
	slots     *seglog.Slots
	journal   *seglog.Log
	out       *outlet
	box       *uplink.Outbox
	forwarder *uplink.Forwarder
	runner    *pipeline.Runner
	cancel    context.CancelFunc
	ended     chan error
}

func (w *week) start() (g *weekGateway, err error) {
	g = &weekGateway{week: w}
	quiet := slog.New(slog.DiscardHandler)
	for _, d := range []string{"/d/journal", "/d/state", "/d/outbox"} {
		if err := w.fs.MkdirAll(d); err != nil {
			return g, err
		}
	}
	if g.slots, err = seglog.OpenSlots(w.fs, "/d/state", "checkpoint"); err != nil {
		return g, err
	}
	fold, err := pipeline.Recover(g.slots, quiet)
	if err != nil {
		return g, err
	}
	g.journal, _, err = seglog.Open("/d/journal", seglog.Options{FS: w.fs, SegmentBytes: 256 << 10, MinNext: fold.LSN() + 1})
	if err != nil {
		return g, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.cancel = cancel
	go func() { // a process without power does not wait for room
		for ctx.Err() == nil && !w.fs.Crashed() {
			time.Sleep(200 * time.Microsecond)
		}
		cancel()
	}()
	g.out = &outlet{ctx: ctx, instanceOf: func(uint64) string { return "week" }, log: quiet}
	if g.out.quarantine, err = uplink.OpenQuarantine("/d/quarantine", uplink.QuarantineOptions{FS: w.fs}); err != nil {
		return g, err
	}
	sources := weekSources()
	g.box, err = uplink.OpenOutbox("/d/outbox/cloud", uplink.OutboxOptions{
		FS: w.fs, MaxBytes: w.scale.maxBytes, WhenFull: uplink.Degrade, SegmentBytes: 4 << 20,
		Ladder: []time.Duration{time.Minute, 10 * time.Minute, time.Hour}, Horizon: horizon(sources), Readings: readings(sources),
		LiveWindow: liveWindow(sources), CursorEvery: time.Second,
		Losses: uplink.LossOptions{Source: sourceOf(sources), Tell: true}, Urgent: true,
	})
	if err != nil {
		return g, err
	}
	g.out.destinations = []*destination{{name: "cloud", outbox: g.box}}
	sink, err := influx.New(influx.Config{URL: w.store.server.URL, Org: "o", Bucket: "b", Gzip: true})
	if err != nil {
		return g, err
	}
	g.forwarder, err = uplink.NewForwarder(g.box, sink, uplink.ForwarderOptions{
		Name: "cloud", Quarantine: g.out.quarantine, Describe: influx.Describe, InFlight: 4, NewestFirst: true, BatchRecords: w.scale.batch,
		MinBackoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, ParkAfter: -1,
	})
	if err != nil {
		return g, err
	}
	g.ended = make(chan error, 1)
	go func() { g.ended <- g.forwarder.Run(ctx) }()
	g.runner = pipeline.NewRunner(fold, g.journal, g.slots, g.out, pipeline.Options{CheckpointBytes: 256 << 10, KeepBytes: 1})
	if _, err := g.runner.Replay(); err != nil {
		return g, err
	}
	raw, err := w.spec().Encode()
	if err != nil {
		return g, err
	}
	if string(g.runner.SpecInForce()) != string(raw) {
		if _, err := g.journal.Append(pipeline.RecordConfigure, w.at(), raw); err != nil {
			return g, err
		}
	}
	if err := g.journal.Commit(); err != nil {
		return g, err
	}
	_, err = g.runner.Replay()
	return g, err
}

// stop ends the process without a word.
func (g *weekGateway) stop() {
	if g.cancel != nil {
		g.cancel()
	}
	if g.ended != nil {
		<-g.ended
		g.forwarder.CloseSink()
	}
	if g.box != nil {
		g.box.Close()
	}
	if g.out != nil && g.out.quarantine != nil {
		g.out.quarantine.Close()
	}
	if g.journal != nil {
		g.journal.Close()
	}
	if g.slots != nil {
		g.slots.Close()
	}
}

func (w *week) at() int64 { return simT0 + int64(w.step)*int64(weekEvery) }

// commit acknowledges what was published and lets the pipeline have it.
func (g *weekGateway) commit() error {
	if err := g.journal.Commit(); err != nil {
		return err
	}
	for _, m := range g.held {
		if m.counts {
			g.site.accepted[m.device]++
		}
	}
	g.held = g.held[:0]
	_, err := g.runner.Replay()
	return err
}

// publish journals one message at a time.
func (g *weekGateway) publish(m weekMessage) error {
	head := pipeline.AppendMessageHead(nil, &pipeline.Message{ClientID: m.device, Topic: "d/" + m.device, QoS: 1})
	_, err := g.journal.Append(pipeline.RecordMessage, g.at(), head, []byte(m.payload))
	return err
}

// run lets time pass up to a step, or to the first error.
func (g *weekGateway) run(until int) error {
	for _, m := range g.held { // not acknowledged before the kill
		if err := g.publish(m); err != nil {
			return err
		}
	}
	if err := g.commit(); err != nil {
		return err
	}
	for g.step < until {
		g.step++
		said := g.site.publish(g.at())
		g.held = append(g.held, said...)
		for _, m := range said {
			if err := g.publish(m); err != nil {
				return err
			}
		}
		if _, err := g.journal.Append(pipeline.RecordTick, g.at()); err != nil {
			return err
		}
		if g.step%weekCommit == 0 {
			if err := g.commit(); err != nil {
				return err
			}
		}
	}
	return g.commit()
}

// drain waits until nothing is left to send, whatever the store says.
func (g *weekGateway) drain() error {
	for end := time.Now().Add(2 * time.Minute); g.box.Counters().Pending > 0 || g.forwarder.Status().Losses.Points > 0 && g.untold(); time.Sleep(time.Millisecond) {
		g.forwarder.Retry() // credentials and portals: somebody has seen to it
		switch {
		case g.fs.Crashed():
			return simfs.ErrCrashed
		case time.Now().After(end):
			return fmt.Errorf("the forwarder makes no progress: %+v", g.forwarder.Status())
		}
	}
	return nil
}

// untold tells whether the store is still to hear of a loss.
func (g *weekGateway) untold() bool {
	list, _ := g.box.Losses()
	for i := range list {
		if !list[i].Told {
			return true
		}
	}
	return false
}

// live starts the process again and again until time has come to the step, and calls last, if there is one, in the last life.
func (w *week) live(until int, last func(*weekGateway) error) {
	w.t.Helper()
	var err error
	for range 1000 {
		if err = w.life(until, last); err == nil {
			return
		}
		if !w.fs.Crashed() {
			w.t.Fatalf("step %d: %v", w.step, err)
		}
		w.fs.CrashBefore(0)
		policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
		w.fs.Restart(policies[w.site.rng.IntN(len(policies))], w.site.rng.Uint64())
		w.crashes++
	}
	w.t.Fatalf("the gateway does not come back: %v", err)
}

func (w *week) life(until int, last func(*weekGateway) error) error {
	g, err := w.start()
	defer g.stop()
	if err != nil {
		return err
	}
	if err := g.run(until); err != nil || last == nil {
		return err
	}
	return last(g)
}

func TestWeek_OfflineOnASmallDiskCoversEveryReadingAtSomeResolution(t *testing.T) {
	w := &week{t: t, scale: weekOf(t), fs: simfs.New(3), store: newWeekStore(5),
		site: &weekSite{rng: rand.New(rand.NewPCG(11, 13)), seq: map[string]int{}, accepted: map[string]float64{}}}
	defer w.store.server.Close()
	w.site.devices = w.scale.devices
	steps := int(w.scale.days * 24 * float64(time.Hour/weekEvery))
	begun := time.Now()
	for k := range w.scale.kills {
		w.fs.CrashBefore(w.fs.Ops() + 1 + w.site.rng.IntN(2000))
		w.live(steps*(k+1)/w.scale.kills, nil)
	}
	offline := time.Since(begun)
	var most uplink.Status
	w.store.set("nonsense")
	for range 5 { // killed while the backlog drains, too
		w.fs.CrashBefore(w.fs.Ops() + 20 + w.site.rng.IntN(300))
		w.live(w.step+10, func(g *weekGateway) error {
			for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
				g.forwarder.Retry()
			}
			if s := g.forwarder.Status(); s.Pending > most.Pending {
				most = s
			}
			return nil
		})
	}
	w.fs.CrashBefore(0)
	w.live(w.step+100, (*weekGateway).drain)
	w.store.set("well")
	w.live(w.step+10, func(g *weekGateway) error {
		for i := range 3 { // nothing is open any more
			if _, err := g.journal.Append(pipeline.RecordTick, g.at()+int64(i+1)*int64(time.Hour)); err != nil {
				return err
			}
		}
		if err := g.commit(); err != nil {
			return err
		}
		if err := g.drain(); err != nil {
			return err
		}
		w.judge(g)
		return nil
	})
	t.Logf("%v days, %d devices, %d crashes: offline %v, all %v; store answered %v; tiers in the end of the outage %+v", w.scale.days, w.scale.devices,
		w.crashes, offline.Round(time.Millisecond), time.Since(begun).Round(time.Millisecond), w.store.answers, most.Tiers)
}

// judge compares what the store holds, and what ledger and quarantine say, with what was acknowledged.
func (w *week) judge(g *weekGateway) {
	t := w.t
	g.runner.Refresh()
	v := g.runner.View()
	if v.Total.Imbalance() != 0 {
		t.Errorf("ledger is out of balance: %+v", v.Total)
	}
	if n := g.box.Imbalance(); n != 0 {
		t.Errorf("the outbox is out of balance by %d: %+v", n, g.box.Counters())
	}
	byDevice, byWindow, gaps := w.store.sums(t)
	var want, got float64
	for device, n := range w.site.accepted {
		if device == "cursed" {
			continue
		}
		want += n
		got += byDevice[device]
		if byDevice[device] > n {
			t.Errorf("%s: the store has %g readings of %g: some count twice", device, byDevice[device], n)
		}
	}
	late := float64(v.Total.Late)
	if missing := want - got; missing > gaps+late || missing < 0 {
		t.Errorf("the store has %g of %g readings; gaps tell of %g, %g were late", got, want, gaps, late)
	}
	s := g.forwarder.Status()
	if s.Losses.Points > 0 {
		t.Errorf("a ladder of an hour was not enough: %+v", s.Losses)
	}
	if byWindow["10s"] == 0 || byWindow["1m"] == 0 {
		t.Errorf("windows %v: the run puts too little pressure on the disk, or too much", byWindow)
	}
	if byDevice["cursed"] != 0 || s.Rejected == 0 {
		t.Errorf("the store refuses the cursed device: stored %g, quarantined %d", byDevice["cursed"], s.Rejected)
	}
	t.Logf("%g readings acknowledged, %g stored, windows %v, %d points quarantined, %g in gaps, %g late", want, got, byWindow, s.Rejected, gaps, late)
}
