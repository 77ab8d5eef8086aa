package pipeline

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

// sliceCursor reads records from memory.
type sliceCursor struct{ recs []seglog.Record }

func (c *sliceCursor) TryNext() (seglog.Record, bool, error) {
	if len(c.recs) == 0 {
		return seglog.Record{}, false, nil
	}
	r := c.recs[0]
	c.recs = c.recs[1:]
	return r, true, nil
}

func (c *sliceCursor) Close() error { return nil }

// world is a gateway without disks or sockets, and what is true of the devices around it. Processes are killed and go on from their last
// checkpoint, the machine loses power and its clock, devices send late, twice, from the past and from the future. What the destination
// holds in the end must be what was measured.
type world struct {
	t       *testing.T
	r       *rand.Rand
	journal []seglog.Record
	fold    *Fold
	saved   []byte // last checkpoint
	held    Cause  // of the last output the outbox holds

	now     int64 // true time
	scale   int64 // the gateway's clock minus true time
	unset   bool
	machine int   // the machine's boot
	booted  int64 // true time of it

	history map[string]map[int64]map[string]float64 // what a local history would hold: device, time, metric
	store   map[string]map[string]float64           // by identity of the window
	points  []string                                // others
	refused map[string]int
	seq     map[string]int
	truth   map[string][]float64 // values by device and window, in order of time
	lost    int                  // readings of a boot that never learnt the time, without one of their own
	pending []pendingReading     // of such a boot, until that is known
	sent    map[string]bool      // device and ms: one value a time
	jumps   bool                 // somebody sets the clock wrong, and right again; nobody depends on arrival times then
	answers [][]byte             // on their way into the journal
}

type pendingReading struct {
	machine int
	device  string
	t       int64 // true time of arrival
	v       float64
}

func worldSpec() *Spec {
	decodeTimed := decode.Spec{Format: "json", TimeField: "ts", TimeUnit: "ms", Sequence: "seq"}
	return &Spec{
		Gateway: "g", Limits: Limits{Series: 1000, Future: 10 * time.Minute, Past: 168 * time.Hour},
		Sources: []SourceSpec{
			{Name: "timed", Topic: "t/{device}", Measurement: "m", Decode: decodeTimed, Send: SendAggregates,
				Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: time.Minute, Late: LateBackfill,
				Stats: []telemetry.Stat{"count", "sum", "min", "max", "first", "last", "p50"}},
			{Name: "plain", Topic: "p/{device}", Measurement: "plain", Decode: decode.Spec{Format: "json", Sequence: "seq"}, Send: SendAggregates,
				Window: 10 * time.Second, Grace: 2 * time.Second, Lateness: time.Minute, Stats: []telemetry.Stat{"count", "sum"}},
		},
		Rules: []RuleFile{{Name: "r.yaml", Text: "groups: [{ name: g, rules: [{ alert: High, expr: v > 90 }] }]\n"}},
	}
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{
		t: t, r: rand.New(rand.NewPCG(seed, 3)), now: t0, booted: t0 - 1000*sec,
		history: map[string]map[int64]map[string]float64{}, store: map[string]map[string]float64{}, refused: map[string]int{},
		seq: map[string]int{}, truth: map[string][]float64{}, sent: map[string]bool{},
	}
	w.begin(NewFold())
	w.boot(false)
	raw, err := worldSpec().Encode()
	if err != nil {
		t.Fatal(err)
	}
	w.append(RecordConfigure, raw)
	return w
}

func (w *world) begin(f *Fold) {
	w.fold = f
	f.SetJournal(func(from seglog.LSN) Cursor { return &sliceCursor{w.journal[from-1:]} })
}

func (w *world) append(typ byte, body []byte) {
	w.journal = append(w.journal, seglog.Record{LSN: seglog.LSN(len(w.journal) + 1), Type: typ, Time: w.now + w.scale, Body: body})
	w.apply(&w.journal[len(w.journal)-1])
}

func (w *world) apply(r *seglog.Record) {
	if err := w.fold.Apply(r, w); err != nil {
		w.t.Fatalf("record %d: %v", r.LSN, err)
	}
	for _, l := range w.fold.ledgers {
		if im := l.Imbalance(); im != 0 {
			w.t.Fatalf("ledger of %q out of balance by %d after record %d", l.name, im, r.LSN)
		}
	}
}

// boot starts a process; wrong tells that the clock is not set.
func (w *world) boot(wrong bool) {
	b := Boot{ID: "x", Version: "v", Machine: fmt.Sprint("boot-", w.machine), Uptime: w.now - w.booted, Unset: wrong}
	w.append(RecordBoot, b.Encode())
	w.unset = wrong
}

// kill ends the process and starts it again from its last checkpoint; outputs that the outbox holds are skipped.
func (w *world) kill() {
	f := NewFold()
	if w.saved != nil {
		var err error
		if f, err = RestoreFold(w.saved); err != nil {
			w.t.Fatal(err)
		}
	}
	w.begin(f)
	for i := int(f.LSN()); i < len(w.journal); i++ {
		w.apply(&w.journal[i])
	}
}

func (w *world) new(c Cause) bool {
	if c.LSN < w.held.LSN || c.LSN == w.held.LSN && c.Ordinal <= w.held.Ordinal && w.held.LSN > 0 {
		return false
	}
	w.held = c
	return true
}

// Point implements Outputs.
func (w *world) Point(c Cause, p *telemetry.Point) {
	if !w.new(c) {
		return
	}
	if p.Time > w.now+600*sec || p.Time < t0-200*3600*sec {
		w.t.Fatalf("a point with an implausible time went out: %s @%d", p.Measurement, (p.Time-t0)/sec)
	}
	if p.Window == 0 {
		w.points = append(w.points, fmt.Sprintf("%s %s %d", p.Measurement, p.Labels.Get("device"), (p.Time-t0)/sec))
		return
	}
	fields := map[string]float64{}
	p.EachField(func(name []byte, v float64) { fields[string(name)] = v })
	w.store[fmt.Sprintf("%s %s %d", p.Measurement, p.Labels.Get("device"), (p.Time-t0)/sec)] = fields
}

// Refuse implements Outputs.
func (w *world) Refuse(c Cause, q *Refused) {
	if w.new(c) {
		w.refused[q.Reason] += q.Count
	}
}

func (w *world) Alerts(c Cause, _ []rules.Event)        { w.new(c) }
func (w *world) Notify(c Cause, _ *notify.Notification) { w.new(c) }
func (w *world) Passed(seglog.LSN)                      {}

// Readings implements ReadingOutputs.
func (w *world) Readings(_ Cause, d *telemetry.Device, t int64, readings []telemetry.Reading) {
	if d.Measurement != "m" {
		return
	}
	dev := d.Labels.Get("device")
	if w.history[dev] == nil {
		w.history[dev] = map[int64]map[string]float64{}
	}
	if w.history[dev][t] == nil {
		w.history[dev][t] = map[string]float64{}
	}
	for _, r := range readings {
		w.history[dev][t][r.Metric] = r.Value
	}
}

// backfill answers as the gateway does; a crash may fall between an answer and its record, so some answers are given twice.
func (w *world) backfill() {
	for _, body := range w.answers {
		w.append(RecordBackfill, body)
	}
	w.answers = nil
	for _, q := range w.fold.Backfills(50) {
		var answers []BackfillAnswer
		for _, start := range q.Starts {
			a := BackfillAnswer{Start: start}
			dev := w.history[q.Device.Labels.Get("device")]
			for _, metric := range q.Metrics {
				m := telemetry.MetricAggregate{Metric: metric}
				for _, t := range slices.Sorted(maps.Keys(dev)) {
					if v, ok := dev[t][metric]; ok && t >= start && t < start+int64(q.Window) {
						m.AddSketched(t, v)
					}
				}
				if m.Count > 0 {
					a.Aggregates = append(a.Aggregates, m)
				}
			}
			answers = append(answers, a)
		}
		body := q.AppendAnswer(nil, answers)
		if w.r.IntN(3) == 0 { // something else comes first
			w.answers = append(w.answers, body)
			continue
		}
		w.append(RecordBackfill, body)
		if w.r.IntN(5) == 0 {
			w.append(RecordBackfill, body)
		}
	}
}

func (w *world) publish(topic string, seq, n int, payload string) {
	w.append(RecordMessage, messageBody(Message{ClientID: topic, Topic: topic, Payload: []byte(payload), QoS: 1, PacketID: uint16(n)}))
}

// measure lets a device send a reading with a time of its own, now or long after.
func (w *world) measure(age int64) {
	dev := string(rune('a' + w.r.IntN(2)))
	at := (w.now - age) / 1e6 * 1e6
	for w.sent[fmt.Sprint(dev, at)] {
		at -= 1e6
	}
	w.sent[fmt.Sprint(dev, at)] = true
	v := float64(w.r.IntN(100))
	w.seq[dev]++
	payload := fmt.Sprintf(`{"seq":%d,"ts":%d,"v":%g}`, w.seq[dev], at/1e6, v)
	w.publish("t/"+dev, w.seq[dev], w.seq[dev], payload)
	if w.r.IntN(8) == 0 { // its acknowledgement was lost
		w.publish("t/"+dev, w.seq[dev], w.seq[dev], payload)
	}
	w.count("m", dev, at, v)
}

func (w *world) count(measurement, dev string, at int64, v float64) {
	key := fmt.Sprintf("%s %s %d", measurement, dev, (at-at%(10*sec)-t0)/sec)
	w.truth[key] = append(w.truth[key], v)
}

// plain lets a device send a reading without a time: it is that of its arrival, if that is ever known.
func (w *world) plain() {
	w.seq["p"]++
	v := float64(w.r.IntN(100))
	w.publish("p/p", w.seq["p"], w.seq["p"], fmt.Sprintf(`{"seq":%d,"v":%g}`, w.seq["p"], v))
	if w.unset {
		w.pending = append(w.pending, pendingReading{w.machine, "p", w.now, v})
		return
	}
	w.count("plain", "p", w.now, v)
}

// clockSet is NTP, at last.
func (w *world) clockSet() {
	delta := -w.scale
	w.scale = 0
	w.append(RecordClockStep, appendVarint(delta))
	w.known()
}

// known sorts out what came while nobody knew the time.
func (w *world) known() {
	w.unset = false
	for _, p := range w.pending {
		if p.machine == w.machine {
			w.count("plain", p.device, p.t, p.v)
		} else {
			w.lost++
		}
	}
	w.pending = nil
}

// powerCut takes the machine down for a while; it comes back without a clock, on the scale of the journal.
func (w *world) powerCut() {
	last := w.journal[len(w.journal)-1].Time
	w.now += w.r.Int64N(3 * 3600 * sec)
	w.machine++
	w.booted = w.now - 10*sec
	w.kill()
	w.scale = last - w.now
	w.boot(true)
}

// restart kills the process alone. When the clock was set meanwhile, the boot's record says so.
func (w *world) restart() {
	w.kill()
	if w.unset && w.r.IntN(3) == 0 {
		w.scale = 0
		w.boot(false)
		w.known()
		return
	}
	w.boot(w.unset)
}

func (w *world) live(steps int) {
	for range steps {
		w.now += w.r.Int64N(3 * sec)
		switch k := w.r.IntN(200); {
		case k < 60:
			w.append(RecordTick, nil)
			w.backfill()
		case k < 62:
			w.saved = w.fold.Snapshot(nil)
		case k < 65:
			w.restart()
		case k < 67 && w.jumps:
			step := w.r.Int64N(2*3600*sec) - w.scale
			if w.r.IntN(2) == 0 {
				step = -w.scale
			}
			w.scale += step
			w.append(RecordClockStep, appendVarint(step))
		case k < 67:
			w.powerCut()
		case k < 74 && w.unset:
			w.clockSet()
		case k < 75:
			w.publish("t/a", 0, 0, `{"seq":`)
		case k < 76:
			w.seq["a"]++
			w.publish("t/a", 0, 0, fmt.Sprintf(`{"seq":%d,"ts":%d,"v":1}`, w.seq["a"], (w.now+20*3600*sec)/1e6))
		case k < 77:
			w.seq["a"]++
			w.publish("t/a", 0, 0, fmt.Sprintf(`{"seq":%d,"ts":%d,"v":1}`, w.seq["a"], (w.now-300*3600*sec)/1e6))
		case k < 85: // a device comes back into reach
			for range 1 + w.r.IntN(20) {
				w.measure(w.r.Int64N(4 * 3600 * sec))
			}
		case k < 130:
			w.measure(w.r.Int64N(90 * sec))
		case !w.jumps:
			w.plain()
		}
	}
	if w.jumps {
		step := -w.scale
		w.scale = 0
		w.append(RecordClockStep, appendVarint(step))
	}
	if w.unset {
		w.clockSet()
	}
	for range 30 {
		w.now += 5 * sec
		w.append(RecordTick, nil)
		w.backfill()
	}
	w.now += 3600 * sec
	w.append(RecordTick, nil)
	w.backfill()
}

func (w *world) judge() string {
	var wrong []string
	for key, values := range w.truth {
		got := w.store[key]
		sum := 0.0
		for _, v := range values {
			sum += v
		}
		if got["v_count"] != float64(len(values)) || got["v_sum"] != sum {
			wrong = append(wrong, fmt.Sprintf("%s holds %v, want %d readings, sum %g", key, got, len(values), sum))
			continue
		}
		if strings.HasPrefix(key, "m ") && (got["v_min"] != slices.Min(values) || got["v_max"] != slices.Max(values)) {
			wrong = append(wrong, fmt.Sprintf("%s holds %v, want %v", key, got, values))
		}
		if _, ok := got["v_p50"]; !ok && strings.HasPrefix(key, "m ") {
			wrong = append(wrong, fmt.Sprintf("%s has no quantile: %v", key, got))
		}
	}
	for key, fields := range w.store {
		if _, ok := w.truth[key]; !ok {
			wrong = append(wrong, fmt.Sprintf("nobody measured %s %v", key, fields))
		}
	}
	if w.refused[ReasonNoClock] != w.lost {
		wrong = append(wrong, fmt.Sprintf("%d readings quarantined for want of a clock, want %d", w.refused[ReasonNoClock], w.lost))
	}
	v := w.fold.View()
	if v.Total.Late != 0 || v.Waiting != 0 || v.Held != 0 {
		wrong = append(wrong, fmt.Sprintf("late %d, %d windows wait, %d messages held", v.Total.Late, v.Waiting, v.Held))
	}
	slices.Sort(wrong)
	return strings.Join(wrong[:min(len(wrong), 8)], "\n")
}

// Whatever the clock does, however late devices send and wherever the process dies: what the destination holds is what was measured, or the
// quarantine says why not; no point ever has an implausible time, and the ledger balances after every record.
func TestFold_TheDestinationHoldsWhatWasMeasuredWhateverTheClockDoes(t *testing.T) {
	backfilled, lost, alerts := uint64(0), 0, 0
	for seed := range uint64(32) {
		w := newWorld(t, seed)
		w.jumps = seed%4 == 3
		w.live(400)
		if wrong := w.judge(); wrong != "" {
			t.Fatalf("seed %d:\n%s", seed, wrong)
		}
		backfilled += w.fold.View().Total.Backfilled
		lost += w.lost
		alerts += len(w.points)
		f := NewFold() // without any crash the state is the same
		f.SetJournal(func(from seglog.LSN) Cursor { return &sliceCursor{w.journal[from-1:]} })
		for i := range w.journal {
			if err := f.Apply(&w.journal[i], &recorder{}); err != nil {
				t.Fatal(err)
			}
		}
		if string(f.Snapshot(nil)) != string(w.fold.Snapshot(nil)) {
			t.Fatalf("seed %d: the state after crashes differs from that without", seed)
		}
	}
	t.Logf("%d readings backfilled, %d lost for want of a clock, %d alert points", backfilled, lost, alerts)
	if backfilled < 1000 || lost < 50 || alerts < 100 {
		t.Errorf("the worlds exercise too little: %d backfilled, %d lost, %d alert points", backfilled, lost, alerts)
	}
}

func TestFold_HeldMessagesKeepTheJournalFromTheirBootOn(t *testing.T) {
	w := newWorld(t, 1)
	w.plain()
	before := seglog.LSN(len(w.journal))
	w.powerCut() // a restart, and the boot's record
	w.plain()
	w.append(RecordTick, nil)
	restored, err := RestoreFold(w.fold.Snapshot(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*Fold{w.fold, restored} {
		if f.Needs() != before+1 || f.Due() != 1<<63-1 && f.Due() < w.now {
			t.Errorf("needs the journal from %d, want %d; due %d", f.Needs(), before+1, f.Due())
		}
	}
	if v := w.fold.View(); !v.Unset || v.Held != 1 {
		t.Errorf("unset %v, %d held", v.Unset, v.Held)
	}
	w.clockSet()
	if w.fold.Needs() != seglog.LSN(len(w.journal))+1 {
		t.Error("the journal is held on to after the clock was set")
	}
}
