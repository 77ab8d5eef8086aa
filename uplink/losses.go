package uplink

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/uplink/condense"
)

// Loss is a range of records that will not be delivered and are not in the quarantine.
type Loss struct {
	Source   string `json:"source"`   // as LossOptions.Source calls it; UnknownSource where the records themselves were gone
	Reason   string `json:"reason"`   // a ShedReason's name
	From     int64  `json:"from"`     // of the earliest point, ns since the Unix epoch; 0 where unknown
	To       int64  `json:"to"`       // the end of the latest one's window
	Points   uint64 `json:"points"`   // records, as the counters have them
	Readings uint64 `json:"readings"` // in them; what aggregates of the same outbox also stand for is not counted twice
	Noted    int64  `json:"noted"`    // journal time of the newest record at that moment, ns
	Time     int64  `json:"time"`     // of the data_gap point, which keeps it while the range grows
	Told     bool   `json:"told"`     // the destination holds it like this
}

// UnknownSource is the source of losses that only the counters tell of: a damaged disk, or a kill in the middle.
const UnknownSource = "unknown"

// LossOptions say what losses look like to the destination.
type LossOptions struct {
	Labels telemetry.Labels                // of every data_gap point, besides source and reason
	Source func(measurement string) string // which source sends it; nil: the measurement's name
	Tell   bool                            // deliver data_gap points
}

const (
	maxLosses = 1000 // entries kept; the oldest that were told go first

	// lossMerge is how far apart, in journal time, two losses of one source and reason may be to be one range.
	lossMerge = 3600e9
)

// losses is an outbox's log of what was shed: kept in two slots, written ahead of each deletion, so that it says the same as the
// counters whatever crashes. Safe for concurrent use.
type losses struct {
	out   *Outbox // the root
	slots *seglog.Slots

	mu sync.Mutex
	v  lossValue
}

// lossValue is what the slots hold, as JSON.
type lossValue struct {
	V      int    `json:"v"`
	Losses []Loss `json:"losses"`
	// Counted is how many records of each tier and reason are in Losses, or were; what the counters have beyond it is unknown.
	Counted map[string]uint64 `json:"counted"`
	Points  uint64            `json:"points"`
	Read    uint64            `json:"readings"`
	// Ahead is a deletion under way: it happened when its tier has no record below To any more.
	Ahead *lossAhead `json:"ahead,omitempty"`
	// Hand is what was deleted while a forwarder still had it in memory, by tier: lost only when the process ends before it is delivered.
	Hand map[string][]lossHand `json:"hand,omitempty"`
}

// lossHand is what the records [From, To) of one segment come to.
type lossHand struct {
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Losses []Loss `json:"losses"`
}

type lossAhead struct {
	Tier   string `json:"tier"`
	Reason string `json:"reason"`
	To     uint64 `json:"to"`
	Losses []Loss `json:"losses"`
}

const lossVersion = 1

func openLosses(b *Outbox) (*losses, error) {
	s, err := seglog.OpenSlots(b.o.FS, b.dir, "losses")
	if err != nil {
		return nil, err
	}
	l := &losses{out: b, slots: s, v: lossValue{V: lossVersion}}
	value, _, err := s.Load()
	if err == nil && value != nil {
		if err = json.Unmarshal(value, &l.v); err == nil && l.v.V != lossVersion {
			err = fmt.Errorf("log of losses is of version %d", l.v.V)
		}
	}
	if l.v.Counted == nil {
		l.v.Counted = make(map[string]uint64)
	}
	return l, err
}

// recover takes in what a crash left: the deletion that was under way, and what only the counters know.
func (l *losses) recover() {
	l.mu.Lock()
	a := l.v.Ahead
	l.v.Ahead = nil
	for _, t := range l.out.all() {
		if a != nil && t.name == a.Tier && t.pos.next >= a.To {
			l.take(a)
		}
	}
	l.mu.Unlock()
	for _, t := range l.out.all() {
		l.dropped(t)
		l.reconcile(t.name, &t.pos, t.held.Time)
	}
}

// dropped notes as lost what a tier found gone when it was opened, because a forwarder had it in memory, in the words of Hand.
func (l *losses) dropped(t *Outbox) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := t.name + "/" + ShedFull.String()
	for _, h := range l.v.Hand[t.name] {
		missing := min(t.pos.shed[ShedFull]-min(l.v.Counted[key], t.pos.shed[ShedFull]), min(h.To, t.gone.to)-min(max(h.From, t.gone.from), h.To))
		if h.From >= t.gone.to || h.To <= t.gone.from || missing == 0 {
			continue
		}
		for _, e := range h.Losses {
			if all := h.To - h.From; missing < all { // a part had been delivered: which readings that were is not known
				part := min(e.Points, (e.Points*missing+all/2)/all)
				if e.Points == 0 || part == 0 {
					continue
				}
				e.Readings, e.Points = e.Readings*part/e.Points, part
			}
			l.v.Counted[key] += e.Points
			l.add(e)
		}
	}
	if _, ok := l.v.Hand[t.name]; ok {
		delete(l.v.Hand, t.name)
		l.store()
	}
}

// hold notes what records of tier come to that will be deleted while a forwarder has them; done is the first record that is not
// accounted for. The begin that follows makes it durable.
func (l *losses) hold(tier string, done uint64, h lossHand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.v.Hand == nil {
		l.v.Hand = make(map[string][]lossHand)
	}
	kept := slices.DeleteFunc(l.v.Hand[tier], func(o lossHand) bool { return o.To <= done || o.From >= h.From })
	if h.From < h.To {
		kept = append(kept, h)
	}
	if l.v.Hand[tier] = kept; len(kept) == 0 {
		delete(l.v.Hand, tier)
	}
}

// begin notes durably that records of tier are about to be deleted up to the record to. Where it cannot, the records
// are deleted all the same, and the counters tell of them.
func (l *losses) begin(tier string, reason ShedReason, to uint64, t *tally) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.v.Ahead = &lossAhead{Tier: tier, Reason: reason.String(), To: to, Losses: t.losses(reason)}
	l.store()
}

// end says whether that happened.
func (l *losses) end(happened bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.v.Ahead; a != nil && happened {
		l.take(a)
	}
	l.v.Ahead = nil
}

// take makes what was about to be lost lost.
func (l *losses) take(a *lossAhead) {
	for _, e := range a.Losses {
		l.v.Counted[a.Tier+"/"+a.Reason] += e.Points
		l.add(e)
	}
}

// add merges e into the latest range of its source and reason, or begins another.
func (l *losses) add(e Loss) {
	l.v.Points += e.Points
	l.v.Read += e.Readings
	e.Told = false
	for i := len(l.v.Losses) - 1; i >= 0; i-- {
		p := &l.v.Losses[i]
		if p.Source != e.Source || p.Reason != e.Reason {
			continue
		}
		if p.Noted < e.Noted-lossMerge && p.Time != e.Time {
			break
		}
		if p.From == 0 || e.From != 0 && e.From < p.From {
			p.From = e.From
		}
		p.To, p.Noted = max(p.To, e.To), max(p.Noted, e.Noted)
		p.Points, p.Readings, p.Told = p.Points+e.Points, p.Readings+e.Readings, false
		return
	}
	l.v.Losses = append(l.v.Losses, e)
	if len(l.v.Losses) > maxLosses {
		i := max(slices.IndexFunc(l.v.Losses, func(e Loss) bool { return e.Told }), 0)
		l.v.Losses = slices.Delete(l.v.Losses, i, i+1)
	}
}

// reconcile notes what the counters of a tier have beyond what is explained. now is a journal time.
func (l *losses) reconcile(tier string, p *position, now int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := false
	for reason, n := range p.shed {
		key := tier + "/" + ShedReason(reason).String()
		if n <= l.v.Counted[key] {
			continue
		}
		n -= l.v.Counted[key]
		l.v.Counted[key] += n
		from := min(p.acked.Time, now)
		if from == 0 { // nothing was ever delivered: when it began is not known, but that was not in 1970
			from = now
		}
		l.add(Loss{Source: UnknownSource, Reason: ShedReason(reason).String(), From: from, To: now, Points: n, Readings: n, Noted: now, Time: from})
		changed = true
	}
	if changed {
		l.store()
	}
}

// store makes the value durable; the caller holds mu.
func (l *losses) store() {
	text, err := json.Marshal(&l.v)
	if err == nil {
		err = l.slots.Store(text, true)
	}
	if err != nil {
		l.out.o.Log.Error("log of losses cannot be stored", "outbox", l.out.dir, "err", err)
	}
}

// untold returns data_gap points that the destination does not hold, at most n, and the entries they stand for.
func (l *losses) untold(n int) (points [][]byte, entries []Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.v.Losses {
		e := l.v.Losses[i]
		if e.Told || len(points) == n {
			continue
		}
		entries = append(entries, e)
		points = append(points, telemetry.MarshalPoint(nil, l.point(&e)))
	}
	return points, entries
}

func (l *losses) point(e *Loss) *telemetry.Point {
	labels := slices.Clone(l.out.o.Losses.Labels)
	labels = labels.With(telemetry.Label{Name: "source", Value: e.Source}, telemetry.Label{Name: "reason", Value: e.Reason})
	return &telemetry.Point{Measurement: GapMeasurement, Labels: labels, Time: e.Time, Fields: []telemetry.Field{
		{Name: "count", Value: float64(e.Readings)}, {Name: "points", Value: float64(e.Points)},
		{Name: "from", Value: float64(e.From) / 1e9}, {Name: "to", Value: float64(e.To) / 1e9},
	}}
}

// GapMeasurement is the measurement of points that tell of losses, AlertMeasurement that of alerts.
const (
	GapMeasurement   = "data_gap"
	AlertMeasurement = "alerts"
)

// told marks entries as held by the destination, unless they have grown since.
func (l *losses) told(entries []Loss) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		if i := slices.Index(l.v.Losses, e); i >= 0 {
			l.v.Losses[i].Told = true
		}
	}
	l.store()
}

// Losses lists what was shed and not delivered, oldest first, and counts all there ever was: the list is bounded.
func (b *Outbox) Losses() ([]Loss, LossTotals) {
	l := b.root.losses
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.v.Losses), LossTotals{Points: l.v.Points, Readings: l.v.Read}
}

// tally counts records that are about to be lost, by source.
type tally struct {
	o        *OutboxOptions
	bySource map[string]*Loss
	seen     map[identity]*Loss // where the readings of the latest version are counted
	readings map[identity]uint64
	point    telemetry.Point
	now      int64
}

func newTally(o *OutboxOptions, now int64) *tally {
	return &tally{o: o, bySource: make(map[string]*Loss), seen: make(map[identity]*Loss), readings: make(map[identity]uint64), now: now}
}

// add counts one record. Of several versions of one point the readings of the last are counted.
func (t *tally) add(r *Record) {
	source, readings := "notifications", uint64(0)
	from, to := r.Cause.Time, r.Cause.Time
	var id identity
	p := &t.point
	point := r.Type == TypePoint && telemetry.ParsePoint(r.Body, p) == nil
	if point {
		source = t.source(p.Measurement)
		from, to = p.Time, p.Time+int64(p.Window)
		readings = t.count(p)
		if h, ok := condense.ReadHead(r.Body); ok {
			id = identityOf(h.Identity)
		}
	}
	e := t.bySource[source]
	if e == nil {
		e = &Loss{Source: source, From: math.MaxInt64, Noted: t.now}
		t.bySource[source] = e
	}
	e.From, e.To = min(e.From, from), max(e.To, to)
	e.Points++
	if point {
		if before := t.seen[id]; before != nil {
			before.Readings -= t.readings[id]
		}
		t.seen[id], t.readings[id] = e, readings
	}
	e.Readings += readings
}

func (t *tally) source(measurement string) string {
	if t.o.Losses.Source != nil {
		return t.o.Losses.Source(measurement)
	}
	return measurement
}

// count is the number of readings in a point.
func (t *tally) count(p *telemetry.Point) (n uint64) {
	switch {
	case p.Window > 0:
		for i := range p.Aggregates {
			n += p.Aggregates[i].Count
		}
	case p.Measurement == AlertMeasurement:
		n = 1
	default:
		n = uint64(len(p.Fields))
		if t.o.Readings != nil {
			if what, _ := t.o.Readings(p.Measurement); what == condense.Covered {
				n = 0
			}
		}
	}
	return n
}

func (t *tally) losses(reason ShedReason) []Loss {
	var out []Loss
	for _, e := range t.bySource {
		e.Reason, e.Time = reason.String(), e.From
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b Loss) int { return strings.Compare(a.Source, b.Source) })
	return out
}

// tallyRange counts the records [from, to) of one tier, but for those in holes.
func (b *Outbox) tallyRange(from, to uint64) (*tally, error) {
	t := newTally(&b.o, b.held.Time)
	c := b.log.Cursor(seglog.LSN(from))
	defer c.Close()
	for {
		raw, ok, err := c.TryNext()
		if err != nil || !ok || uint64(raw.LSN) >= to {
			return t, err
		}
		if uint64(raw.LSN) < from || b.pos.accounted(uint64(raw.LSN)) {
			continue
		}
		if r, err := splitRecord(raw); err == nil {
			t.add(&r)
		}
	}
}
