package pipeline

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
)

// A gateway without a battery-backed clock boots with a time that is no time. Messages that come then are journalled on the scale of
// that boot: the journal's times go on from where they were, or from wherever the clock stands, and the boot's record says
// which moment of the machine's own uptime that was. The fold holds such messages back: rules look at them at once, since an alert
// cannot wait and needs no date, but nothing is counted, no window moves and no point goes out. When the clock is set, the record of that
// says by how much the scale was wrong, and the held messages are read from the journal again and counted as of their true arrival,
// with the ticks in between, as if the clock had been right.
//
// Other boots may lie in between. Those of the same boot of the machine (the process was killed) share its uptime, so their times are
// known as well. How long the machine was off is not: messages of its earlier boots count by their devices' own times, and those
// that have none are quarantined.

// Boot is the body of a RecordBoot.
type Boot struct {
	ID      string
	Version string
	Machine string // the machine's boot, as its kernel names it; "": not known
	Uptime  int64  // ns since then, at the record's time
	Unset   bool   // the clock shows no time
}

// Encode returns the record's body: id, version and, separated by blanks, machine=, up= and clock=unset.
func (b *Boot) Encode() []byte {
	out := append(append([]byte(b.ID), ' '), b.Version...)
	if b.Machine != "" {
		out = append(append(out, " machine="...), b.Machine...)
	}
	out = strconv.AppendInt(append(out, " up="...), b.Uptime, 10)
	if b.Unset {
		out = append(out, " clock=unset"...)
	}
	return out
}

// parseBoot reads what Encode wrote; words that it does not know are left out.
func parseBoot(body []byte) Boot {
	var b Boot
	for i, word := range strings.Fields(string(body)) {
		key, value, named := strings.Cut(word, "=")
		switch {
		case i == 0:
			b.ID = word
		case !named:
			b.Version = word
		case key == "machine":
			b.Machine = value
		case key == "up":
			b.Uptime, _ = strconv.ParseInt(value, 10, 64) // 0 when damaged: the record's checksum held
		case key == "clock":
			b.Unset = value == "unset"
		}
	}
	return b
}

// Cursor reads journal records in order; *seglog.Cursor is one.
type Cursor interface {
	TryNext() (seglog.Record, bool, error)
	Close() error
}

// SetJournal lets the fold read records again that it held back; without it they are forgotten when the clock is set, which serves
// those who look at rules alone. The journal must keep what Needs says.
func (f *Fold) SetJournal(from func(seglog.LSN) Cursor) { f.journal = from }

// Needs is the oldest record that the fold may read again, or the one after the last it has taken in.
func (f *Fold) Needs() seglog.LSN {
	if f.hold.on {
		return min(f.hold.from, f.lsn+1)
	}
	return f.lsn + 1
}

// hold is what the fold remembers while the clock is not set.
type hold struct {
	on       bool
	from     seglog.LSN // the boot's record with which it began
	now      int64      // fold time then
	messages uint64     // held
	decoders []heldDecoder
	boots    []heldBoot
	alerts   []heldAlert
}

// heldDecoder is what the decoder of a source remembered when the hold began.
type heldDecoder struct{ source, format, state string }

// heldBoot is a process that ran without a clock.
type heldBoot struct {
	at      seglog.LSN
	machine string
	zero    int64 // journal time at which the machine's uptime was 0
}

// heldAlert is a transition whose point waits for its time.
type heldAlert struct {
	boot   int // index of hold.boots
	time   int64
	labels telemetry.Labels
	firing bool
	value  float64
}

// maxHeldAlerts bounds the transitions that wait; the points of further ones are quarantined.
const maxHeldAlerts = 10_000

// boot takes in that a process started.
func (f *Fold) boot(r *seglog.Record) error {
	b := parseBoot(r.Body)
	var err error
	switch {
	case b.Unset:
		if !f.hold.on {
			f.hold = hold{on: true, from: r.LSN, now: f.now, decoders: f.c.holdDecoders()}
		}
		f.hold.boots = append(f.hold.boots, heldBoot{r.LSN, b.Machine, r.Time - b.Uptime})
		f.cause.Unset = true
		f.advance(r.Time)
	case f.hold.on:
		if d := r.Time - f.now; d < 0 {
			f.step(d)
		}
		f.advance(r.Time)
		err = f.release(b.Machine, r.Time-b.Uptime, -1)
	default:
		if r.Time < f.now {
			f.step(r.Time - f.now)
		}
		f.advance(r.Time)
	}
	f.resumed = f.now
	f.engine.Resume(f.ruleNow())
	return err
}

// clockSet takes in that the clock was set, to the record's time.
func (f *Fold) clockSet(r *seglog.Record) (err error) {
	delta, n := binary.Varint(r.Body)
	if n <= 0 {
		return fmt.Errorf("clock step record %d is damaged", r.LSN)
	}
	f.step(delta)
	f.advance(r.Time)
	if f.hold.on {
		last := len(f.hold.boots) - 1
		err = f.release(f.hold.boots[last].machine, f.hold.boots[last].zero+delta, last)
	}
	f.resumed = f.now
	return err
}

// heldMessage lets the rules see a message whose time is not known. Everything else waits.
func (f *Fold) heldMessage(r *seglog.Record) error {
	var m rawMessage
	if !m.parse(r.Body) {
		return fmt.Errorf("message record %d is damaged", r.LSN)
	}
	f.hold.messages++
	f.at = place{arrived: r.Time}
	te := f.topic(m.topic)
	if te.src == nil || te.bad != "" || len(m.payload) == 0 && m.retain() {
		return nil
	}
	f.incoming = decode.Message{Topic: te.topic, Labels: te.labels, Rest: te.rest, Payload: m.payload, Received: r.Time, Retain: m.retain()}
	err := te.src.decoder.Decode(&f.incoming, &f.batch)
	f.command()
	if err != nil {
		return nil // it is refused when its time is known
	}
	stale := te.src.Retained == RetainedStale && m.retain()
	for i := range f.batch.States {
		s := &f.batch.States[i]
		if dev := f.device(te, s.Labels); dev != nil && !stale && s.Reason != decode.StateSleeping {
			f.engine.Availability(dev.labels, s.Online, f.ruleNow(), f.event)
		}
	}
	for i := range f.batch.Samples {
		s := &f.batch.Samples[i]
		dev := f.device(te, s.Labels)
		if dev == nil || stale {
			continue
		}
		dev.lastSeen = f.now
		if s.Historical {
			continue
		}
		if te.src.expect != nil {
			s.Readings = te.src.expect.only(dev, s.Readings)
		}
		switch {
		case len(s.Readings) == 0:
		case m.retain():
			f.engine.ObserveRetained(dev.subject, f.ruleNow(), f.ruleNow(), false, s.Readings, f.event)
		default:
			f.engine.Observe(dev.subject, f.ruleNow(), f.ruleNow(), s.Readings, f.event)
		}
	}
	return nil
}

// holdAlerts keeps the points of this record's transitions until their time is known.
func (f *Fold) holdAlerts() {
	for i := range f.events {
		ev := &f.events[i]
		if len(f.hold.alerts) >= maxHeldAlerts {
			f.out.Refuse(f.nextCause(), &Refused{
				Time: f.now, Stage: "time", Reason: ReasonNoClock, Source: alertMeasurement, Count: 1,
				Detail: fmt.Sprintf("the clock is not set, and %d transitions wait for it: %s%s", maxHeldAlerts, alertMeasurement, ev.Labels),
			})
			continue
		}
		f.hold.alerts = append(f.hold.alerts, heldAlert{
			boot: len(f.hold.boots) - 1, time: f.now, labels: ev.Labels, firing: ev.State == rules.Firing, value: ev.Value,
		})
	}
}

// released is how held records are counted, one boot after the other.
type released struct {
	known bool  // the boot's scale is known: true time = journal time + delta
	delta int64 // otherwise it ended at fold time at the latest
}

// release counts what was held. machine is the boot of the machine whose uptime was 0 at the true time zero; boot is an index of
// hold.boots that certainly belongs to it, -1 for none.
func (f *Fold) release(machine string, zero int64, boot int) error {
	h := f.hold
	f.hold, f.cause.Unset = hold{}, false
	scales := make([]released, len(h.boots))
	began := f.now // of this boot of the machine, at the latest
	for i, b := range h.boots {
		if i == boot || b.machine != "" && b.machine == machine {
			scales[i] = released{known: true, delta: zero - b.zero}
			began = min(began, zero)
		}
	}
	now, resumed := f.now, f.resumed
	f.now = max(h.now, 0)
	for i := range h.alerts {
		a := &h.alerts[i]
		t := began
		if s := scales[a.boot]; s.known {
			t = a.time + s.delta
		}
		f.alertPoint(t, a.labels, a.firing, a.value)
	}
	var err error
	if f.journal != nil {
		f.c.rewindDecoders(h.decoders)
		err = f.recount(&h, scales, began)
	}
	f.now, f.resumed = max(now, f.now), resumed
	f.counting = nil
	return err
}

// recount reads the held records again.
func (f *Fold) recount(h *hold, scales []released, began int64) error {
	c := f.journal(h.from)
	defer c.Close()
	boot := -1
	for {
		r, ok, err := c.TryNext()
		if err != nil {
			return fmt.Errorf("read held records: %w", err)
		}
		if !ok || r.LSN >= f.lsn {
			return nil
		}
		for boot+1 < len(h.boots) && h.boots[boot+1].at <= r.LSN {
			boot++
			f.counting = &scales[boot]
			if !scales[boot].known {
				f.advance(began)
			}
			f.resumed = math.MaxInt64 // a gap over a start says nothing
		}
		if boot < 0 {
			continue
		}
		s := scales[boot]
		t := f.now
		if s.known {
			t = r.Time + s.delta
			f.advance(t)
		}
		switch r.Type {
		case RecordMessage:
			held := r
			held.Time = t
			_ = f.message(&held) // damaged ones were reported when they came
		case RecordTick:
			if s.known {
				f.tickWindows()
			}
		}
	}
}

func (c *compiled) holdDecoders() (list []heldDecoder) {
	for _, s := range c.sources {
		if d, ok := s.decoder.(decode.Stateful); ok {
			list = append(list, heldDecoder{s.Name, s.Decode.Format, string(d.Snapshot(nil))})
		}
	}
	return list
}

// rewindDecoders puts the decoders back to what they remembered when the messages that come again came first. Those of sources that
// came meanwhile begin anew: so they did then.
func (c *compiled) rewindDecoders(list []heldDecoder) {
	for _, s := range c.sources {
		d, ok := s.decoder.(decode.Stateful)
		if !ok {
			continue
		}
		var state []byte
		for _, x := range list {
			if x.source == s.Name && x.format == s.Decode.Format {
				state = []byte(x.state)
			}
		}
		_ = d.Restore(state) // with an error it remembers nothing
	}
}

func (h *hold) snapshot(b []byte) []byte {
	if !h.on {
		return append(b, 0)
	}
	b = append(b, 1)
	b = binary.AppendUvarint(b, uint64(h.from))
	b = binary.AppendVarint(b, h.now)
	b = binary.AppendUvarint(b, h.messages)
	b = binary.AppendUvarint(b, uint64(len(h.decoders)))
	for _, x := range h.decoders {
		b = telemetry.AppendString(telemetry.AppendString(telemetry.AppendString(b, x.source), x.format), x.state)
	}
	b = binary.AppendUvarint(b, uint64(len(h.boots)))
	for _, x := range h.boots {
		b = binary.AppendUvarint(b, uint64(x.at))
		b = telemetry.AppendString(b, x.machine)
		b = binary.AppendVarint(b, x.zero)
	}
	b = binary.AppendUvarint(b, uint64(len(h.alerts)))
	for i := range h.alerts {
		a := &h.alerts[i]
		b = binary.AppendUvarint(b, uint64(a.boot))
		b = binary.AppendVarint(b, a.time)
		b = binary.AppendUvarint(b, uint64(len(a.labels)))
		b = a.labels.AppendKey(b)
		state := byte(0)
		if a.firing {
			state = 1
		}
		b = telemetry.AppendFloat(append(b, state), a.value)
	}
	return b
}

func restoreHold(d *telemetry.Decoder) (h hold, err error) {
	if d.Byte() == 0 {
		return h, d.Err()
	}
	h = hold{on: true, from: seglog.LSN(d.Uvarint()), now: d.Varint(), messages: d.Uvarint()}
	for range d.Count(3) {
		h.decoders = append(h.decoders, heldDecoder{d.String(), d.String(), d.String()})
	}
	for range d.Count(3) {
		h.boots = append(h.boots, heldBoot{seglog.LSN(d.Uvarint()), d.String(), d.Varint()})
	}
	for range d.Count(12) {
		a := heldAlert{boot: int(d.Uvarint()), time: d.Varint()}
		for range d.Count(2) {
			a.labels = append(a.labels, telemetry.Label{Name: d.String(), Value: d.String()})
		}
		a.firing, a.value = d.Byte() != 0, d.Float()
		if a.boot < 0 || a.boot >= len(h.boots) {
			return h, errSnapshot
		}
		h.alerts = append(h.alerts, a)
	}
	if d.Err() != nil || len(h.boots) == 0 {
		return h, errSnapshot
	}
	return h, nil
}

// ClockState is what the next start needs to know of the clock.
type ClockState struct {
	Now     int64  // last journal time the fold knows
	True    int64  // the same, without what lies on a scale of its own; 0: none yet
	Unset   bool   // the last process ran without a clock to its end
	Machine string // and its boot of the machine, whose uptime was 0 at the journal time Zero
	Zero    int64
}

// ClockState is for the goroutine that owns the fold.
func (f *Fold) ClockState() ClockState {
	if !f.hold.on {
		return ClockState{Now: f.now, True: f.now}
	}
	b := f.hold.boots[len(f.hold.boots)-1]
	return ClockState{Now: f.now, True: f.hold.now, Unset: true, Machine: b.machine, Zero: b.zero}
}
