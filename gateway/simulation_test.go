package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys/simfs"
	"sluice/gateway/telemetry"
	"sluice/rules"
	policy "sluice/rules/notify"
	"sluice/uplink"
	"sluice/uplink/webhook"
)

// The simulation runs the gateway's durable spine - journal, fold, checkpoints, outboxes, forwarders - on a file system in memory,
// in one goroutine but for a forwarder that runs while the others stand still. A publisher sends a fixed script and resends what
// was not acknowledged; the world outside keeps what it was given. Power may fail before any operation, and any operation may fail.

const simT0 = int64(1_800_000_000_000_000_000)

// simMessage is one step of the script: what a device publishes at a time.
type simMessage struct {
	device   string
	seq      int
	at       int64 // event and publishing time
	value    float64
	payload  string
	readings int
}

// simScript has two devices, values that make alerts fire and resolve, a late message, a duplicate and a malformed one.
func simScript(n int) []simMessage {
	var out []simMessage
	seq := map[string]int{}
	for i := range n {
		dev := string(rune('a' + i%2))
		m := simMessage{device: dev, seq: seq[dev], at: simT0 + int64(i)*int64(700*time.Millisecond), value: float64(i%7) - 3, readings: 1}
		seq[dev]++
		if i%10 == 9 { // a buffered reading, sent late
			m.at -= int64(4 * time.Second)
		}
		m.payload = fmt.Sprintf(`{"seq":%d,"ts":%d,"v":%g}`, m.seq, m.at/1e6, m.value)
		if i%13 == 12 {
			m.payload, m.readings = m.payload[:len(m.payload)-4], 0
			seq[dev]--
		}
		out = append(out, m)
	}
	return out
}

func simSpec() *pipeline.Spec {
	return &pipeline.Spec{
		Gateway: "sim", Limits: pipeline.Limits{Series: 100, Future: time.Hour, Past: 1000 * time.Hour},
		Sources: []pipeline.SourceSpec{{
			Name: "s", Topic: "d/{device}", Measurement: "m", Send: pipeline.SendBoth,
			Decode: decode.Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"},
			Window: 2 * time.Second, Grace: time.Second, Lateness: time.Minute, Stats: []telemetry.Stat{"count", "sum"},
		}},
		Rules: []pipeline.RuleFile{{Name: "r.yaml", Text: `groups:
  - name: g
    rules:
      - { alert: High, expr: v > 2 }
      - { alert: Low, expr: v < -2, for: 1s, keep_firing_for: 2s }
      - { alert: Warm, expr: v > -2.5, webhooks: [chat], escalate: [{ after: 5s, to: [ops] }] }
`}},
		Receivers: []policy.Receiver{
			{Name: "ops", GroupBy: []string{"alertname"}},
			{Name: "chat", GroupBy: []string{"alertname"}, GroupWait: time.Second, GroupInterval: 3 * time.Second, RepeatInterval: 2 * time.Second},
		},
	}
}

// simOperator is what an operator does before the message of that number. Like a device, the operator tries again until it is
// journalled, and says the same then.
func simOperator(n int) *policy.Command {
	fingerprint := func(alert, device string) string {
		return policy.FormatFingerprint(rules.Fingerprint(telemetry.LabelsFromMap(map[string]string{"alertname": alert, "device": device})))
	}
	at := simT0 + int64(n)*int64(700*time.Millisecond)
	switch n {
	case 10:
		return &policy.Command{Op: policy.AddSilence, By: "ann", ID: "b", Match: map[string]string{"device": "b"}, StartsAt: at, EndsAt: at + int64(12*time.Second)}
	case 18:
		return &policy.Command{Op: policy.Acknowledge, By: "ann", Fingerprint: fingerprint("Warm", "a")}
	case 22:
		return &policy.Command{Op: policy.ExpireSilence, By: "ann", ID: "b"}
	case 38:
		return &policy.Command{Op: policy.Acknowledge, By: "bob", Fingerprint: fingerprint("Warm", "b")}
	case 40:
		return &policy.Command{Op: policy.Unacknowledge, By: "bob", Fingerprint: fingerprint("Warm", "b")}
	}
	return nil
}

// simWorld is everything that a crash of the gateway does not touch.
type simWorld struct {
	t       testing.TB
	fs      *simfs.FS
	script  []simMessage
	next    int                // first message not acknowledged
	windows map[string]float64 // identity and field of each aggregate in the store
	raw     map[string]float64 // readings stored as such
	hookIDs map[string]bool
	history map[string][]string // by receiver: notifications in order of first arrival
	refused map[string]int
	starts  int
}

func newSimWorld(t testing.TB, n int) *simWorld {
	return &simWorld{
		t: t, fs: simfs.New(1), script: simScript(n), windows: map[string]float64{}, raw: map[string]float64{},
		hookIDs: map[string]bool{}, history: map[string][]string{}, refused: map[string]int{},
	}
}

var simBoxes = []string{"cloud", "ops", "chat"}

type simSink func(recs []uplink.Record) error

func (s simSink) Deliver(_ context.Context, recs []uplink.Record) error { return s(recs) }

func (w *simWorld) store(recs []uplink.Record) error {
	for _, r := range recs {
		var p telemetry.Point
		if err := telemetry.ParsePoint(r.Body, &p); err != nil {
			w.t.Errorf("outbox holds a damaged point: %v", err)
			continue
		}
		if p.Measurement != "m" {
			continue
		}
		into := w.raw
		if p.Window > 0 {
			into = w.windows
		}
		p.EachField(func(name []byte, v float64) {
			into[fmt.Sprintf("%s@%d %s", p.Labels.Get("device"), p.Time-simT0, name)] = v
		})
	}
	return nil
}

func (w *simWorld) notify(recs []uplink.Record) error {
	for _, r := range recs {
		n, err := webhook.Parse(r.Body)
		if err != nil {
			w.t.Errorf("outbox holds a damaged notification: %v", err)
			continue
		}
		if w.hookIDs[n.ID] {
			continue
		}
		w.hookIDs[n.ID] = true
		line := n.Reason + ":"
		for _, a := range n.Alerts {
			line += " " + a.Labels["alertname"] + "/" + a.Labels["device"] + "=" + a.Status
		}
		w.history[n.Receiver] = append(w.history[n.Receiver], line)
	}
	return nil
}

// simGateway is one process.
type simGateway struct {
	*simWorld
	slots      *seglog.Slots
	journal    *seglog.Log
	out        *outlet
	runner     *pipeline.Runner
	outboxes   map[string]*uplink.Outbox
	forwarders map[string]*uplink.Forwarder
	cancel     context.CancelFunc
}

func (w *simWorld) start() (g *simGateway, err error) {
	w.starts++
	g = &simGateway{simWorld: w, outboxes: map[string]*uplink.Outbox{}, forwarders: map[string]*uplink.Forwarder{}}
	defer func() {
		if err != nil {
			g.stop()
		}
	}()
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
	g.journal, _, err = seglog.Open("/d/journal", seglog.Options{FS: w.fs, SegmentBytes: 16 << 10, MinNext: fold.LSN() + 1})
	if err != nil {
		return g, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	g.cancel = cancel
	go func() { // a process without power does not wait for room
		for ctx.Err() == nil && !w.fs.Crashed() {
			time.Sleep(200 * time.Microsecond)
		}
		cancel()
	}()
	g.out = &outlet{ctx: ctx, instanceOf: func(uint64) string { return "sim" }, log: quiet}
	if g.out.quarantine, err = uplink.OpenQuarantine("/d/quarantine", uplink.QuarantineOptions{FS: w.fs}); err != nil {
		return g, err
	}
	for i, name := range simBoxes {
		sink := []simSink{w.store, w.notify, w.notify}[i]
		box, err := uplink.OpenOutbox("/d/outbox/"+name, uplink.OutboxOptions{FS: w.fs, SegmentBytes: 16 << 10, WhenFull: uplink.Refuse})
		if err != nil {
			return g, err
		}
		g.outboxes[name] = box
		g.forwarders[name], err = uplink.NewForwarder(box, sink, uplink.ForwarderOptions{
			Name: name, Quarantine: g.out.quarantine, BatchRecords: 7, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond,
		})
		if err != nil {
			return g, err
		}
	}
	g.out.destinations = []*destination{{name: "cloud", outbox: g.outboxes["cloud"]}}
	g.out.webhooks = []*hook{{name: "ops", outbox: g.outboxes["ops"]}, {name: "chat", outbox: g.outboxes["chat"]}}
	g.runner = pipeline.NewRunner(fold, g.journal, g.slots, g.out, pipeline.Options{CheckpointBytes: 1500, KeepBytes: 1})
	if _, err := g.runner.Replay(); err != nil {
		return g, err
	}
	raw, err := simSpec().Encode()
	if err != nil {
		return g, err
	}
	if string(g.runner.SpecInForce()) != string(raw) {
		if _, err := g.journal.Append(pipeline.RecordConfigure, simT0, raw); err != nil {
			return g, err
		}
	}
	return g, g.commit()
}

func (g *simGateway) commit() error {
	if err := g.journal.Commit(); err != nil {
		return err
	}
	_, err := g.runner.Replay()
	return err
}

// step publishes the next message, and ticks; a message is acknowledged when its commit has succeeded.
func (g *simGateway) step() error {
	m := &g.script[g.next]
	at := simT0 + int64(g.next)*int64(700*time.Millisecond)
	if c := simOperator(g.next); c != nil {
		body, err := c.Encode()
		if err != nil {
			return err
		}
		if _, err := g.journal.Append(pipeline.RecordOperator, at, body); err != nil {
			return err
		}
	}
	head := pipeline.AppendMessageHead(nil, &pipeline.Message{ClientID: m.device, Topic: "d/" + m.device, QoS: 1})
	if _, err := g.journal.Append(pipeline.RecordMessage, at, head, []byte(m.payload)); err != nil {
		return err
	}
	if g.next%3 == 0 {
		if _, err := g.journal.Append(pipeline.RecordTick, at); err != nil {
			return err
		}
	}
	if err := g.journal.Commit(); err != nil {
		return err
	}
	g.next++
	_, err := g.runner.Replay()
	return err
}

// forward lets both forwarders empty their outboxes.
func (g *simGateway) forward() error {
	for _, name := range simBoxes {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- g.forwarders[name].Run(ctx) }()
		var err error
		for end := time.Now().Add(5 * time.Second); g.outboxes[name].Counters().Pending > 0 && err == nil; {
			select {
			case err = <-ended:
				ended <- err
			case <-time.After(50 * time.Microsecond):
			}
			switch {
			case g.fs.Crashed():
				err = simfs.ErrCrashed
			case time.Now().After(end):
				err = errors.New("the forwarder makes no progress")
			}
		}
		cancel()
		if ferr := <-ended; err == nil {
			err = ferr
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// stop ends the process without a word, as kill -9 does.
func (g *simGateway) stop() {
	if g.cancel != nil {
		g.cancel()
	}
	for _, b := range g.outboxes {
		b.Close()
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

// life runs one process from its start to the script's end, or to its first error.
func (w *simWorld) life() error {
	g, err := w.start()
	if err != nil {
		return err
	}
	defer g.stop()
	for w.next < len(w.script) {
		if err := g.step(); err != nil {
			return err
		}
		if w.next%8 == 0 { // the store is reachable now and then
			if err := g.forward(); err != nil {
				return err
			}
		}
	}
	for i := range 4 {
		end := simT0 + int64(len(w.script))*int64(time.Second) + int64(i+1)*int64(3*time.Second)
		if _, err := g.journal.Append(pipeline.RecordTick, end); err != nil {
			return err
		}
		if err := g.commit(); err != nil {
			return err
		}
	}
	if err := g.forward(); err != nil {
		return err
	}
	g.runner.Refresh()
	v := g.runner.View()
	if v.Total.Imbalance() != 0 {
		w.t.Errorf("ledger is out of balance: %+v", v.Total)
	}
	for reason, n := range v.ByReason {
		w.refused[reason] = int(n)
	}
	return nil
}

// expected recomputes the windows from the messages, each counted once.
func (w *simWorld) expected() (windows, raw map[string]float64) {
	windows, raw = map[string]float64{}, map[string]float64{}
	for _, m := range w.script {
		if m.readings == 0 {
			continue
		}
		at := m.at / 1e6 * 1e6
		start := at - at%int64(2*time.Second)
		key := fmt.Sprintf("%s@%d ", m.device, start-simT0)
		windows[key+"v_count"]++
		windows[key+"v_sum"] += m.value
		raw[fmt.Sprintf("%s@%d v", m.device, at-simT0)] = m.value
	}
	return windows, raw
}

// judge compares the world with what it must be. baseline is the history of a run without trouble.
func (w *simWorld) judge(baseline string) error {
	windows, raw := w.expected()
	if d := difference(w.windows, windows); d != "" {
		return errors.New("windows: " + d)
	}
	if d := difference(w.raw, raw); d != "" {
		return errors.New("readings: " + d)
	}
	if got := w.told(); baseline != "" && got != baseline {
		return fmt.Errorf("notifications:\n%s\nwithout trouble:\n%s", got, baseline)
	}
	return nil
}

// told is what each receiver was told, in order.
func (w *simWorld) told() string {
	return "ops\n" + strings.Join(w.history["ops"], "\n") + "\nchat\n" + strings.Join(w.history["chat"], "\n")
}

func difference(got, want map[string]float64) string {
	for k, v := range want {
		g, ok := got[k]
		if !ok {
			return "missing " + k
		}
		if math.Abs(g-v) > 1e-9 {
			return fmt.Sprintf("%s is %g, want %g", k, g, v)
		}
	}
	for k := range got {
		if _, ok := want[k]; !ok {
			return "nobody published " + k
		}
	}
	return ""
}

// endure restarts the gateway until the script has run to its end.
func (w *simWorld) endure(after func(n int)) error {
	for n := range 8 {
		err := w.life()
		if err == nil {
			return nil
		}
		after(n)
	}
	return errors.New("the gateway does not come back")
}

const simMessages = 60

func simBaseline(t testing.TB) (history string, ops int) {
	w := newSimWorld(t, simMessages)
	if err := w.life(); err != nil {
		t.Fatalf("run without trouble: %v", err)
	}
	if err := w.judge(""); err != nil {
		t.Fatalf("run without trouble: %v", err)
	}
	history = w.told()
	for _, want := range []string{"changed: High/a=firing", "changed: High/a=resolved", "repeated: Warm/", "escalated: Warm/", "Warm/a=firing Warm/b=firing"} {
		if !strings.Contains(history, want) {
			t.Errorf("the script exercises too little: %q is not in\n%s", want, history)
		}
	}
	if len(w.history["ops"]) < 10 || len(w.history["chat"]) < 8 || w.refused["syntax"] == 0 {
		t.Fatalf("the script exercises too little: %s %v", history, w.refused)
	}
	t.Logf("without trouble:\n%s", history)
	return history, w.fs.Ops()
}

// simRounds is how many of the disk policies, or faults, each operation meets: one by default, all of them and more seeds with
// SLUICE_SIM_ROUNDS, every twentieth operation with -short.
func simRounds(t *testing.T) (rounds, stride int) {
	if n, err := strconv.Atoi(os.Getenv("SLUICE_SIM_ROUNDS")); err == nil && n > 0 {
		return n, 1
	}
	if testing.Short() {
		return 1, 20
	}
	return 1, 1
}

// Power fails before every operation, under every idea of what a disk keeps; the publisher resends what was not acknowledged.
func TestSimulation_PowerCutAtAnyOperationLosesAndRepeatsNothing(t *testing.T) {
	baseline, ops := simBaseline(t)
	runs := 0
	policies := append([]simfs.Policy{simfs.Kill}, simfs.Policies...)
	rounds, stride := simRounds(t)
	for n := 0; n < rounds*ops; n += stride {
		at, round := n%ops+1, n/ops
		policy, seed := policies[(at+round)%len(policies)], uint64(n+1)
		w := newSimWorld(t, simMessages)
		w.fs.CrashBefore(at)
		err := w.endure(func(int) {
			w.fs.CrashBefore(0)
			w.fs.Restart(policy, seed)
		})
		if err == nil {
			err = w.judge(baseline)
		}
		if err != nil {
			t.Fatalf("power cut before operation %d of %d, disk policy %q, seed %d: %v", at, ops, policy, seed, err)
		}
		runs++
	}
	t.Logf("%d power cuts over %d operations", runs, ops)
}

// Every operation fails once, in every way; the process may end, and is started again.
func TestSimulation_AnyOperationMayFailOnce(t *testing.T) {
	baseline, ops := simBaseline(t)
	faults := []simfs.Fault{simfs.EIO, simfs.ENOSPC, simfs.ShortWrite, simfs.FailedSync, simfs.DoneAnyway}
	runs := 0
	rounds, stride := simRounds(t)
	for n := 0; n < rounds*ops; n += stride {
		at := n%ops + 1
		fault := faults[(at+n/ops)%len(faults)]
		w := newSimWorld(t, simMessages)
		w.fs.FailAt(at, fault)
		err := w.endure(func(int) {})
		if err == nil {
			err = w.judge(baseline)
		}
		if err != nil {
			t.Fatalf("operation %d of %d (%s) fails with %q: %v", at, ops, w.fs.Failed(), fault, err)
		}
		runs++
	}
	t.Logf("%d failures over %d operations", runs, ops)
}
