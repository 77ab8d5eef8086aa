// Package pipeline is the pure fold over the journal: decode, time and duplicate rules, rollup, rules. Equal records give equal
// outputs in equal order: there is no wall clock, no map order and no randomness in it, and a tick is a record. The same Fold
// serves live traffic, recovery after a crash and offline replays. Runner drives it from the journal and keeps its checkpoints.
package pipeline

import (
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"slices"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
	"sluice/uplink/rollup"
)

// Cause says which record an output comes from and which of its outputs it is, counting from 0. A replay repeats causes
// exactly, so whoever stores outputs in order can skip those it holds.
type Cause struct {
	LSN     seglog.LSN
	Ordinal uint32
	Time    int64 // the record's time
	Unset   bool  // which is none: the clock is not set
}

// Outputs takes what the fold puts out, in order. What is passed is valid only during the call.
type Outputs interface {
	// Point is for the destinations.
	Point(Cause, *telemetry.Point)
	// Alerts are the transitions one record caused, whoever is told of them; all of them share one cause.
	Alerts(Cause, []rules.Event)
	// Notify is for one webhook. The notification outlives the call.
	Notify(Cause, *notify.Notification)
	// Refuse is for the quarantine.
	Refuse(Cause, *Refused)
}

// ReadingOutputs is implemented by Outputs that also want every reading that is counted, one call for each sample. Causes do not
// depend on whether anybody wants them.
type ReadingOutputs interface {
	// Readings are what d measured at t. A Device outlives the call and stays the same for as long as its labels do.
	Readings(c Cause, d *telemetry.Device, t int64, readings []telemetry.Reading)
	// Passed tells, now and then, that the readings of all records up to at were passed.
	Passed(at seglog.LSN)
}

// CommandOutputs is implemented by Outputs that can reach devices. A command keeps a device's data readable; it may get lost, and
// a replay repeats it. Causes do not depend on whether anybody wants it.
type CommandOutputs interface {
	// Command is to be published at once or not at all; it is valid only during the call.
	Command(Cause, *decode.Command)
}

// Refused is a payload, or the part of it, that was not counted.
type Refused struct {
	Time          int64
	Stage         string // decode or time
	Reason        string // a word from a fixed vocabulary
	Detail        string
	Source, Topic string
	Payload       []byte
	Count         int // readings
	Retry         Retry
}

// Reasons the pipeline itself gives; those of payloads are in package decode.
const (
	ReasonLate     = "late"
	ReasonFuture   = "future"
	ReasonPast     = "past"
	ReasonSeries   = "series_limit"
	ReasonNoSource = "no_source"
	ReasonRetained = "retained" // kept by another broker for an unknown time; see RetainedStale
	ReasonMissing  = "missing"  // a field that the source's expectation requires
	ReasonRange    = "range"    // a value outside the expected range
	ReasonUnit     = "unit"     // a unit other than the expected one
	ReasonNoClock  = "no_clock" // it came in an earlier boot of the machine, whose clock was never set, and has no time of its own
)

// Fold is the state of everything derived from the journal. One goroutine owns it.
type Fold struct {
	c         *compiled
	lsn       seglog.LSN // last record applied
	now       int64      // fold time: moves with records and ticks, back only with a clock step
	stepped   int64      // sum of clock steps; rules live on now - stepped, which never goes back
	resumed   int64      // when the gateway last started or its clock was set: a gap that began before says nothing
	engine    *rules.Engine
	policy    *notify.Policy
	streams   []*stream // by measurement, in order of first use
	devices   []*device // by ID
	byKey     map[string]*device
	topics    map[string]*topicEntry
	clients   map[string]*resends
	order     []string // clients by first use, for the snapshot
	series    int
	ledgers   []*namedLedger
	byReason  map[string]uint64 // quarantined readings
	rejected  uint64            // specs from the journal that this program could not put in force
	commands  commandRate
	backfills backfills
	final     bool // windows are emitted once only, at their end; of a fold for replays
	audits    audits
	hold      hold // what waits for the clock
	journal   func(seglog.LSN) Cursor
	at        place
	counting  *released // how what was held is counted at the moment, nil: nothing is
	again     *again    // what is tried again at the moment, nil: nothing

	out      Outputs
	readings ReadingOutputs // out, where it wants them
	cause    Cause
	events   []rules.Event
	batch    decode.Batch
	incoming decode.Message
	point    telemetry.Point
	scratch  []byte
}

// stream is what sources with one measurement share.
type stream struct {
	measurement string
	rollup      *rollup.Rollup
	stats       []telemetry.Stat
}

// device is one set of labels under one measurement.
type device struct {
	stream      *stream
	labels      telemetry.Labels  // gateway labels, captures, payload labels
	pointLabels telemetry.Labels  // labels and the gateway's id
	public      *telemetry.Device // what others see of it, nil until somebody wants it
	metrics     []string
	rollup      rollup.Device
	backfills   map[int64]*backfill // by start; in order in the fold's list
	subject     *rules.Subject
	sequences   []sourceSequence
	units       []decode.Unit // of metrics, where they are known
	firstSeen   int64
	lastSeen    int64 // last reading or sign of life, 0: none yet
	cadence     rules.Cadence
	state       deviceState
	rawTime     int64 // event time of the last reading sent as such, and how far it was moved to stay apart
	rawShift    int64
	source      string // that its last message came by
}

type sourceSequence struct {
	source string
	sequence
}

type topicEntry struct {
	src    *source
	topic  string
	labels []telemetry.Label
	rest   string  // the levels that # stands for
	bad    string  // why its levels cannot be labels
	dev    *device // the device when the payload brings no labels
}

type namedLedger struct {
	name string
	Ledger
}

// maxTopics bounds the cache from topics to sources; beyond it the cache starts anew.
const maxTopics = 100_000

// NewFold makes an empty fold that puts nothing out until a spec is in force.
func NewFold() *Fold {
	f := &Fold{byKey: map[string]*device{}, clients: map[string]*resends{}, byReason: map[string]uint64{},
		backfills: backfills{complete: math.MinInt64}}
	empty, _ := (&Spec{}).Encode()
	c, err := compile(empty)
	if err != nil {
		panic("pipeline: the empty spec does not compile: " + err.Error())
	}
	f.c = c
	f.topics = map[string]*topicEntry{}
	f.engine = rules.NewEngine(c.rules, rules.Options{})
	f.policy = notify.New()
	return f
}

// Apply folds one record in. Records must come in LSN order; an error means the record itself is damaged or unknown, and the
// fold goes on as if it had not been there.
func (f *Fold) Apply(r *seglog.Record, out Outputs) error {
	f.out = out
	f.readings, _ = out.(ReadingOutputs)
	f.lsn = r.LSN
	f.cause = Cause{LSN: r.LSN, Time: r.Time, Unset: f.hold.on}
	f.events = f.events[:0]
	var err error
	switch r.Type {
	case RecordMessage:
		f.advance(r.Time)
		if f.hold.on {
			err = f.heldMessage(r)
		} else {
			err = f.message(r)
		}
	case RecordTick:
		f.advance(r.Time)
		f.tick()
	case RecordConfigure:
		f.advance(r.Time)
		err = f.configure(r.Body)
	case RecordBoot:
		err = f.boot(r)
	case RecordClockStep:
		err = f.clockSet(r)
	case RecordOperator:
		f.advance(r.Time)
		err = f.operate(r)
	case RecordAudit:
		f.advance(r.Time)
		err = f.audited(r)
	case RecordBackfill:
		f.advance(r.Time)
		err = f.backfilled(r)
	case RecordHistory:
		f.advance(r.Time)
		err = f.historyBegins(r)
	case RecordRequeue:
		f.advance(r.Time)
		err = f.requeue(r)
	default:
		err = fmt.Errorf("record %d has unknown type %d", r.LSN, r.Type)
	}
	if len(f.events) > 0 {
		if f.hold.on {
			f.holdAlerts()
		} else {
			f.alertPoints()
		}
		f.out.Alerts(f.nextCause(), f.events)
	}
	if len(f.events) > 0 || r.Type != RecordMessage {
		f.policy.Take(f.policyTime(), f.events, f.notify)
	}
	return err
}

// operate does what an operator asked for.
func (f *Fold) operate(r *seglog.Record) error {
	c, err := notify.ParseCommand(r.Body)
	if err != nil {
		return fmt.Errorf("record %d: %w", r.LSN, err)
	}
	f.policy.Command(f.policyTime(), c, f.notify)
	f.auditCommand(r, c)
	return nil
}

// policyTime is the record's moment: timers live on the clock of the rules, silences on that of people.
func (f *Fold) policyTime() notify.Time { return notify.Time{Now: f.ruleNow(), Wall: f.now} }

func (f *Fold) notify(n *notify.Notification) { f.out.Notify(f.nextCause(), n) }

func (f *Fold) advance(t int64) { f.now = max(f.now, t) }

func (f *Fold) step(delta int64) {
	f.now += delta
	f.stepped += delta
	f.engine.SetWallOffset(f.stepped)
}

// ruleNow is a clock that never goes back.
func (f *Fold) ruleNow() int64 { return f.now - f.stepped }

func (f *Fold) nextCause() Cause {
	c := f.cause
	f.cause.Ordinal++
	return c
}

func (f *Fold) message(r *seglog.Record) error {
	var m rawMessage
	if !m.parse(r.Body) {
		return fmt.Errorf("message record %d is damaged", r.LSN)
	}
	f.at = place{arrived: r.Time}
	te := f.topic(m.topic)
	if te.src == nil {
		l := f.ledger("")
		if f.again == nil {
			l.Messages++
		}
		l.Received++
		f.refuse(l, te, &m, "decode", ReasonNoSource, "no source takes this topic any more", 1)
		return nil
	}
	l := te.src.ledger
	if f.again == nil {
		l.Messages++
	}
	if te.bad != "" {
		l.Received++
		f.refuse(l, te, &m, "decode", decode.ReasonLabel, te.bad, 1)
		return nil
	}
	if len(m.payload) == 0 && m.retain() { // tells the broker to forget what it keeps (MQTT 3.1.1, section 3.3.1.3)
		l.Ignored++
		return nil
	}
	f.incoming = decode.Message{Topic: te.topic, Labels: te.labels, Rest: te.rest, Payload: m.payload, Received: r.Time, Retain: m.retain()}
	var err error
	if f.again == nil {
		err = te.src.decoder.Decode(&f.incoming, &f.batch)
		if f.counting == nil {
			f.command()
		}
	} else {
		err = te.src.tryQuietly(&f.incoming, &f.batch)
	}
	if err != nil {
		l.Received++
		var de *decode.Error
		if !errors.As(err, &de) {
			de = &decode.Error{Reason: decode.ReasonSyntax, Detail: err.Error()}
		}
		f.refuse(l, te, &m, "decode", de.Reason, de.Detail, 1)
		return nil
	}
	for i := range f.batch.States {
		if f.again == nil {
			f.deviceState(te, &m, &f.batch.States[i])
		}
	}
	defer f.missing(te, &m)
	if len(f.batch.Samples) == 0 {
		if len(f.batch.States) > 0 {
			l.States++
		} else {
			l.Ignored++
		}
		return nil
	}
	resend := (f.again == nil || f.again.Retry.Passed&passedResend == 0) && f.resend(te, &m)
	f.at.passed, f.at.samples = passedResend, len(f.batch.Samples)
	for i := range f.batch.Samples {
		f.at.sample, f.at.passed, f.at.names = i, passedResend, nil
		f.sample(te, &m, &f.batch.Samples[i], r.Time, resend)
	}
	return nil
}

// resend tells whether a message without a sequence is a DUP resend of one that was counted.
func (f *Fold) resend(te *topicEntry, m *rawMessage) bool {
	if m.qos() == 0 || te.src.Decode.Sequence != "" && allSequenced(f.batch.Samples) {
		return false
	}
	c := f.clients[string(m.clientID)]
	if c == nil {
		c = &resends{}
		id := string(m.clientID)
		f.clients[id] = c
		f.order = append(f.order, id)
		f.forgetClients()
	}
	sum := crc32.Update(crc32.Checksum(m.payload, castagnoli), castagnoli, m.topic)
	return c.duplicate(resendKey(m.packetID, len(m.payload), sum), m.dup())
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// maxClients bounds the clients whose packets are remembered; beyond it the quarter seen first is forgotten.
const maxClients = 20_000

func (f *Fold) forgetClients() {
	if len(f.order) <= maxClients {
		return
	}
	n := maxClients / 4
	for _, id := range f.order[:n] {
		delete(f.clients, id)
	}
	f.order = slices.Delete(f.order, 0, n)
}

func allSequenced(samples []decode.Sample) bool {
	for i := range samples {
		if !samples[i].HasSequence {
			return false
		}
	}
	return true
}

func (f *Fold) sample(te *topicEntry, m *rawMessage, s *decode.Sample, arrived int64, resend bool) {
	l := te.src.ledger
	f.at.all = len(s.Readings) + len(s.Refused)
	passed := false // a check for duplicates that is not made twice
	if f.again != nil {
		f.again.keep(s, f.at.sample)
		passed = f.again.Retry.Passed&passedSequence != 0
		if len(s.Readings)+len(s.Refused) == 0 {
			return
		}
	}
	f.at.refused, f.at.readings = s.Refused, s.Readings
	n := len(s.Readings)
	l.Received += uint64(n + len(s.Refused))
	dev := f.device(te, s.Labels)
	if dev == nil {
		f.refuse(l, te, m, "decode", ReasonSeries, fmt.Sprintf("%d devices are known already", len(f.devices)), n+len(s.Refused))
		return
	}

	dev.source = te.src.Name
	t, timed := s.Time, s.Time != 0
	if !timed {
		t = arrived
	}
	if resend || !passed && s.HasSequence && dev.sequence(te.src.Name).duplicate(s.Sequence, t, timed) {
		l.Duplicate += uint64(n + len(s.Refused))
		return
	}
	f.at.passed |= passedSequence
	if k := len(s.Refused); k > 0 {
		f.at.readings = nil
		f.refuse(l, te, m, "decode", s.Refused[0].Reason, refusals(s.Refused), k)
	}
	for i := range s.Units {
		dev.setUnit(i, s.Units[i])
	}
	f.at.refused, f.at.readings = nil, s.Readings
	if te.src.expect != nil {
		n = f.expect(te, m, dev, s)
		f.at.readings, f.at.names = s.Readings, nil
	}
	if n == 0 {
		return
	}
	stale := te.src.Retained == RetainedStale && m.retain()
	switch {
	case !timed && f.counting != nil && !f.counting.known:
		f.refuse(l, te, m, "time", ReasonNoClock, "it came before "+stamp(f.now)+", in a boot whose clock was never set, and has no time of its own", n)
		return
	case stale && !timed:
		f.refuse(l, te, m, "time", ReasonRetained, "another broker kept it for an unknown time, and it has no time of its own", n)
		return
	case t > f.now+int64(f.c.spec.Limits.Future):
		f.refuse(l, te, m, "time", ReasonFuture, "device time "+stamp(t)+" is ahead of the gateway's "+stamp(f.now), n)
		return
	case t < f.now-int64(f.c.spec.Limits.Past):
		f.refuse(l, te, m, "time", ReasonPast, "device time "+stamp(t)+" is too far behind the gateway's "+stamp(f.now), n)
		return
	}
	if !stale && f.again == nil {
		dev.heard(f.now, f.resumed)
	}
	if f.count(te, m, dev, s, t) && !s.Historical && !stale && f.again == nil && f.counting == nil {
		if m.retain() {
			f.engine.ObserveRetained(dev.subject, f.ruleNow(), t-f.stepped, timed, s.Readings, f.event)
		} else {
			f.engine.Observe(dev.subject, f.ruleNow(), t-f.stepped, s.Readings, f.event)
		}
	}
}

// count takes the readings into their windows or sends them on; it returns false when there is nothing for the rules.
func (f *Fold) count(te *topicEntry, m *rawMessage, dev *device, s *decode.Sample, t int64) bool {
	l := te.src.ledger
	windows := te.src.Send != SendReadings
	late := windows && dev.stream.rollup.Late(t, f.now)
	if late && f.backfillsLate(te) && dev.stream.rollup.Open(&dev.rollup, t, f.now) {
		late = false // by itself, but others of its window were not
	}
	if late {
		why := "window of " + stamp(t) + " is closed at " + stamp(f.now)
		if f.backfillsLate(te) {
			why = f.refusesBackfill(dev, t)
		}
		if why != "" {
			l.Late += uint64(len(s.Readings))
			f.refuseUncounted(te, m, "time", ReasonLate, why, len(s.Readings))
			return false
		}
	}
	over := 0
	for i := range s.Readings {
		r := &s.Readings[i]
		k := dev.metric(i, r.Metric)
		if k < 0 {
			if f.series >= f.c.spec.Limits.Series {
				over++
				f.at.names = append(f.at.names, r.Metric)
				r.Metric = ""
				continue
			}
			k = len(dev.metrics)
			dev.metrics = append(dev.metrics, r.Metric)
			f.series++
		}
		l.Aggregated++
		if windows && !late {
			dev.stream.rollup.Add(&dev.rollup, k, t, r.Value)
		}
	}
	if over > 0 {
		s.Readings = slices.DeleteFunc(s.Readings, func(r telemetry.Reading) bool { return r.Metric == "" })
		f.refuse(l, te, m, "decode", ReasonSeries, fmt.Sprintf("%d series are known already", f.series), over)
	}
	if len(s.Readings) == 0 {
		return false
	}
	if f.readings != nil {
		f.readings.Readings(f.cause, dev.origin(), t, s.Readings)
	}
	if te.src.Send != SendAggregates {
		f.sendReadings(dev, s, t)
	}
	if late {
		l.Backfilled += uint64(len(s.Readings))
		f.late(dev, t, te.src.Name, uint64(len(s.Readings)))
	}
	return !late
}

// sendReadings puts the readings out as a point. Messages of one device with one stamp move apart by a nanosecond each, or
// they would overwrite each other at the destination.
func (f *Fold) sendReadings(dev *device, s *decode.Sample, t int64) {
	if t == dev.rawTime {
		dev.rawShift++
	} else {
		dev.rawTime, dev.rawShift = t, 0
	}
	p := &f.point
	*p = telemetry.Point{
		Measurement: dev.stream.measurement, Labels: dev.pointLabels, Time: t + dev.rawShift,
		Fields: p.Fields[:0], Aggregates: p.Aggregates[:0],
	}
	for i := range s.Readings {
		p.Fields = append(p.Fields, telemetry.Field{Name: s.Readings[i].Metric, Value: s.Readings[i].Value})
	}
	f.out.Point(f.nextCause(), p)
}

func (f *Fold) tick() {
	if !f.hold.on {
		f.tickWindows()
	}
	f.engine.Tick(f.ruleNow(), f.event)
}

func (f *Fold) tickWindows() {
	for _, st := range f.streams {
		st.rollup.Tick(f.now, f.emitter(st))
	}
}

// emitter turns a window into a point.
func (f *Fold) emitter(st *stream) rollup.Emit {
	return func(d *rollup.Device, start int64, aggs []telemetry.Aggregate) {
		dev := f.devices[d.ID]
		p := &f.point
		*p = telemetry.Point{
			Measurement: st.measurement, Labels: dev.pointLabels, Time: start, Window: st.rollup.Window(), Stats: st.stats,
			Fields: p.Fields[:0], Aggregates: p.Aggregates[:0],
		}
		for i := range aggs {
			if aggs[i].Count > 0 {
				p.Aggregates = append(p.Aggregates, telemetry.MetricAggregate{Metric: dev.metrics[i], Aggregate: aggs[i]})
			}
		}
		f.out.Point(f.nextCause(), p)
	}
}

func (f *Fold) event(e *rules.Event) { f.events = append(f.events, *e) }

// alertMeasurement is the measurement of alerts' points; no source may have it.
const alertMeasurement = "alerts"

// alertPoints puts each transition out as a point of the measurement alerts.
func (f *Fold) alertPoints() {
	for i := range f.events {
		ev := &f.events[i]
		f.alertPoint(f.now, ev.Labels, ev.State == rules.Firing, ev.Value)
	}
}

func (f *Fold) alertPoint(t int64, labels telemetry.Labels, firing bool, value float64) {
	state := 0.0
	if firing {
		state = 1
	}
	p := telemetry.Point{
		Measurement: alertMeasurement, Time: t, Labels: f.withGateway(labels),
		Fields: []telemetry.Field{{Name: "state", Value: state}, {Name: "value", Value: value}},
	}
	f.out.Point(f.nextCause(), &p)
}

// Due is the earliest fold time at which a tick would change something, or math.MaxInt64.
func (f *Fold) Due() int64 {
	due := int64(math.MaxInt64)
	for _, st := range f.streams {
		if !f.hold.on {
			due = min(due, st.rollup.Due())
		}
	}
	if d := min(f.engine.Due(), f.policy.Due(), f.backfillDue()); d != math.MaxInt64 {
		due = min(due, d+f.stepped)
	}
	return due
}

func (f *Fold) refuse(l *Ledger, te *topicEntry, m *rawMessage, stage, reason, detail string, n int) {
	l.Quarantined += uint64(n)
	f.refuseUncounted(te, m, stage, reason, detail, n)
}

func (f *Fold) refuseUncounted(te *topicEntry, m *rawMessage, stage, reason, detail string, n int) {
	f.byReason[reason] += uint64(n)
	name := ""
	if te.src != nil {
		name = te.src.Name
	}
	f.out.Refuse(f.nextCause(), &Refused{
		Time: f.now, Stage: stage, Reason: reason, Detail: detail, Source: name, Topic: te.topic, Payload: m.payload, Count: n,
		Retry: f.retry(m),
	})
}

func refusals(list []decode.Refusal) string {
	var b []byte
	for i := range list {
		if i == 8 {
			return string(append(b, "; ..."...))
		}
		if i > 0 {
			b = append(b, "; "...)
		}
		b = append(append(append(b, list[i].Field...), ": "...), list[i].Detail...)
	}
	return string(b)
}

func stamp(t int64) string { return time.Unix(0, t).UTC().Format("2006-01-02T15:04:05.000Z") }
