package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/uplink/rollup"
)

// A reading that comes when its window is closed may still be counted, where its source says late: backfill. The fold does not hold
// that window any more, but the local history holds its readings. So the fold passes the reading on to the history and remembers
// that the window is to be recomputed. Somebody outside asks for what is to be done (Runner.Backfills), reads the history once it
// holds the record of the last such reading, and journals the answer, RecordBackfill. Applying that record puts the whole window out, with its
// usual identity, and only then is the window forgotten here: a crash in between repeats the question, and a repeated answer puts out
// the same point. The fold stays a function of its records.

// Backfill asks for windows of one device to be recomputed.
type Backfill struct {
	Device  *telemetry.Device // as the history has it
	Metrics []string
	Window  time.Duration
	Sketch  bool       // somebody wants quantiles
	Starts  []int64    // of the windows, ascending
	Last    seglog.LSN // the record of the last reading that came late for one of them

	measurement string
	labels      telemetry.Labels // without the gateway's id
}

// WindowStart is the start of the window of that length that t lies in.
func WindowStart(t int64, window time.Duration) int64 { return rollup.Floor(t, window) }

// BackfillAnswer is what came of one window of a Backfill.
type BackfillAnswer struct {
	Start      int64
	Refused    string                      // why it cannot be recomputed; "" when it was
	Aggregates []telemetry.MetricAggregate // without those that hold no reading
}

// backfill is one window that is to be recomputed.
type backfill struct {
	dev    *device
	start  int64
	since  int64      // the rules' time of the first late reading, which never goes back
	latest int64      // and of the last one
	last   seglog.LSN // its record
	counts []lateCount
}

// lateCount is how many readings of one source came late for a window; their ledger counts them as aggregated meanwhile.
type lateCount struct {
	source string
	n      uint64
}

// backfills are the windows to be recomputed, in the order of their first late readings.
type backfills struct {
	list     []*backfill
	latest   int64 // the newest of their latest
	complete int64 // the history holds every reading counted with an event time from here on
}

// maxBackfills bounds the windows that wait for the history at a time.
const maxBackfills = 200_000

// A window is recomputed when no late reading came for it for settleBackfill, or at the latest backfillAfter after the first: a device
// that was out of reach sends its store in one go.
const (
	settleBackfill = 2 * time.Second
	backfillAfter  = 20 * time.Second
)

// refusesBackfill tells why a late reading with time t cannot be counted, "" when it can.
func (f *Fold) refusesBackfill(dev *device, t int64) string {
	start := dev.stream.rollup.Start(t)
	switch {
	case start < f.backfills.complete:
		return "window of " + stamp(t) + " is closed, and the local history is complete only from " + stamp(f.backfills.complete) + " on"
	case dev.backfills[start] == nil && len(f.backfills.list) >= maxBackfills:
		return fmt.Sprintf("window of %s is closed, and %d others wait for the local history", stamp(t), maxBackfills)
	}
	return ""
}

// late notes n readings for a window that is to be recomputed.
func (f *Fold) late(dev *device, t int64, source string, n uint64) {
	start := dev.stream.rollup.Start(t)
	b := dev.backfills[start]
	if b == nil {
		b = &backfill{dev: dev, start: start, since: f.ruleNow()}
		f.addBackfill(b)
		dev.stream.rollup.Seal(start)
	}
	b.latest, b.last = f.ruleNow(), f.lsn
	f.backfills.latest = b.latest
	for i := range b.counts {
		if b.counts[i].source == source {
			b.counts[i].n += n
			return
		}
	}
	b.counts = append(b.counts, lateCount{source, n})
}

func (f *Fold) addBackfill(b *backfill) {
	if b.dev.backfills == nil {
		b.dev.backfills = map[int64]*backfill{}
	}
	b.dev.backfills[b.start] = b
	f.backfills.list = append(f.backfills.list, b)
}

// backfillDue is when all windows there are may be recomputed, in the rules' time; math.MaxInt64 when they may already.
func (f *Fold) backfillDue() int64 {
	if due := f.backfills.latest + int64(settleBackfill); len(f.backfills.list) > 0 && due > f.ruleNow() {
		return due
	}
	return math.MaxInt64
}

// forgetBackfills drops what is answered.
func (f *Fold) forgetBackfills() {
	f.backfills.list = slices.DeleteFunc(f.backfills.list, func(b *backfill) bool { return b.dev.backfills[b.start] != b })
}

// abandon gives a window up: its late readings are late after all.
func (f *Fold) abandon(b *backfill, why string) {
	delete(b.dev.backfills, b.start)
	for _, c := range b.counts {
		l := f.ledger(c.source)
		l.Aggregated -= c.n
		l.Backfilled -= c.n
		l.Late += c.n
		f.byReason[ReasonLate] += c.n
		f.out.Refuse(f.nextCause(), &Refused{
			Time: f.now, Stage: "time", Reason: ReasonLate, Source: c.source, Count: int(c.n),
			Detail: fmt.Sprintf("window of %s, %s%s, cannot be recomputed: %s", stamp(b.start), b.dev.stream.measurement, b.dev.labels, why),
		})
	}
}

// Backfills lists what is to be recomputed now, by device, at most that many windows.
func (f *Fold) Backfills(most int) []Backfill {
	var list []Backfill
	index := map[*device]int{}
	for _, b := range f.backfills.list {
		if now := f.ruleNow(); b.latest > now-int64(settleBackfill) && b.since > now-int64(backfillAfter) {
			continue
		}
		if most--; most < 0 {
			break
		}
		i, ok := index[b.dev]
		if !ok {
			i = len(list)
			index[b.dev] = i
			list = append(list, Backfill{
				Device: b.dev.origin(), Metrics: slices.Clone(b.dev.metrics), Window: b.dev.stream.rollup.Window(),
				Sketch:      slices.ContainsFunc(b.dev.stream.stats, telemetry.Stat.Sketched),
				measurement: b.dev.stream.measurement, labels: b.dev.labels,
			})
		}
		list[i].Starts = append(list[i].Starts, b.start)
		list[i].Last = max(list[i].Last, b.last)
	}
	for i := range list {
		slices.Sort(list[i].Starts)
	}
	return list
}

const backfillVersion = 1

// What stands before each window of an answer.
const (
	backfillDone    byte = 0
	backfillRefused byte = 1
)

// AppendAnswer appends the body of a RecordBackfill that answers q, or some windows of it:
//
//	version 1 | measurement | window ns | n labels {name value} | last LSN
//	| n windows { start (zigzag) | 0 | n metrics {metric aggregate sketch} } or { start | 1 | reason }
//
// Integers are unsigned varints unless said otherwise, strings have their length before them; aggregates and sketches are those of points.
func (q *Backfill) AppendAnswer(b []byte, answers []BackfillAnswer) []byte {
	b = append(b, backfillVersion)
	b = telemetry.AppendString(b, q.measurement)
	b = binary.AppendUvarint(b, uint64(q.Window))
	b = binary.AppendUvarint(b, uint64(len(q.labels)))
	b = q.labels.AppendKey(b)
	b = binary.AppendUvarint(b, uint64(q.Last))
	b = binary.AppendUvarint(b, uint64(len(answers)))
	for i := range answers {
		a := &answers[i]
		b = binary.AppendVarint(b, a.Start)
		if a.Refused != "" {
			b = telemetry.AppendString(append(b, backfillRefused), a.Refused)
			continue
		}
		b = append(b, backfillDone)
		b = binary.AppendUvarint(b, uint64(len(a.Aggregates)))
		for j := range a.Aggregates {
			m := &a.Aggregates[j]
			b = telemetry.AppendString(b, m.Metric)
			b = m.AppendSketch(m.Append(b))
		}
	}
	return b
}

var errBackfill = errors.New("backfill is damaged or from a newer version")

// parseBackfill reads what AppendAnswer wrote.
func parseBackfill(body []byte) (q Backfill, answers []BackfillAnswer, err error) {
	d := telemetry.NewDecoder(body)
	if d.Byte() != backfillVersion {
		return q, nil, errBackfill
	}
	q.measurement = d.String()
	q.Window = time.Duration(d.Uvarint())
	for range d.Count(2) {
		q.labels = append(q.labels, telemetry.Label{Name: d.String(), Value: d.String()})
	}
	q.Last = seglog.LSN(d.Uvarint())
	for range d.Count(3) {
		a := BackfillAnswer{Start: d.Varint()}
		switch d.Byte() {
		case backfillRefused:
			if a.Refused = d.String(); a.Refused == "" {
				return q, nil, errBackfill
			}
		case backfillDone:
			for range d.Count(3) {
				m := telemetry.MetricAggregate{Metric: d.String()}
				d.Aggregate(&m.Aggregate)
				d.Sketch(&m.Aggregate)
				a.Aggregates = append(a.Aggregates, m)
			}
		default:
			return q, nil, errBackfill
		}
		answers = append(answers, a)
	}
	if d.Err() != nil || len(d.Rest()) != 0 {
		return q, nil, errBackfill
	}
	return q, answers, nil
}

// backfilled puts recomputed windows out. An answer to what is not asked any more changes nothing.
func (f *Fold) backfilled(r *seglog.Record) error {
	q, answers, err := parseBackfill(r.Body)
	if err != nil {
		return fmt.Errorf("record %d: %w", r.LSN, err)
	}
	f.scratch = streamKey(f.scratch[:0], q.measurement, q.Window, q.labels)
	dev := f.byKey[string(f.scratch)]
	if dev == nil {
		return nil
	}
	for i := range answers {
		a := &answers[i]
		b := dev.backfills[a.Start]
		if b == nil {
			continue
		}
		if a.Refused == "" && a.readings() < b.readings() && b.last <= q.Last {
			a.Refused = fmt.Sprintf("the local history holds %d readings of it, and %d came late", a.readings(), b.readings())
		}
		if a.Refused != "" {
			f.abandon(b, a.Refused)
			continue
		}
		f.putBackfill(dev, a)
		if b.last <= q.Last { // else another reading has come since, and the question stands
			delete(dev.backfills, a.Start)
		}
	}
	f.forgetBackfills()
	return nil
}

func (a *BackfillAnswer) readings() (n uint64) {
	for i := range a.Aggregates {
		n += a.Aggregates[i].Count
	}
	return n
}

func (b *backfill) readings() (n uint64) {
	for _, c := range b.counts {
		n += c.n
	}
	return n
}

func (f *Fold) putBackfill(dev *device, a *BackfillAnswer) {
	p := &f.point
	*p = telemetry.Point{
		Measurement: dev.stream.measurement, Labels: dev.pointLabels, Time: a.Start, Window: dev.stream.rollup.Window(), Stats: dev.stream.stats,
		Fields: p.Fields[:0], Aggregates: append(p.Aggregates[:0], a.Aggregates...),
	}
	f.out.Point(f.nextCause(), p)
}

// HistoryBegins is the body of a RecordHistory: the local history holds every reading with an event time from t on.
func HistoryBegins(t int64) []byte { return binary.AppendVarint(nil, t) }

// historyBegins takes in how far the local history goes back.
func (f *Fold) historyBegins(r *seglog.Record) error {
	t, n := binary.Varint(r.Body)
	if n <= 0 {
		return fmt.Errorf("history record %d is damaged", r.LSN)
	}
	f.backfills.complete = t
	return nil
}

func (b *backfills) snapshot(out []byte) []byte {
	out = binary.AppendVarint(out, b.complete)
	out = binary.AppendUvarint(out, uint64(len(b.list)))
	for _, x := range b.list {
		out = binary.AppendUvarint(out, uint64(x.dev.rollup.ID))
		out = binary.AppendVarint(out, x.start)
		out = binary.AppendVarint(out, x.since)
		out = binary.AppendVarint(out, x.latest)
		out = binary.AppendUvarint(out, uint64(x.last))
		out = binary.AppendUvarint(out, uint64(len(x.counts)))
		for _, c := range x.counts {
			out = binary.AppendUvarint(telemetry.AppendString(out, c.source), c.n)
		}
	}
	return out
}

func (f *Fold) restoreBackfills(d *telemetry.Decoder) error {
	f.backfills.complete = d.Varint()
	for range d.Count(6) {
		id := d.Uvarint()
		if id >= uint64(len(f.devices)) {
			return errSnapshot
		}
		b := &backfill{dev: f.devices[id], start: d.Varint(), since: d.Varint(), latest: d.Varint(), last: seglog.LSN(d.Uvarint())}
		for range d.Count(2) {
			b.counts = append(b.counts, lateCount{d.String(), d.Uvarint()})
		}
		f.addBackfill(b)
		f.backfills.latest = max(f.backfills.latest, b.latest)
	}
	if d.Err() != nil {
		return errSnapshot
	}
	return nil
}
