package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/broker/decode"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// Requeue puts what was quarantined back on its way: a journal record of RecordRequeue. The record holds everything, so a replay after a
// crash repeats it, and that it was journalled once is what makes it count once: the item leaves the quarantine where the record is applied.
//
// A message is decoded again, under the spec in force, as of its own arrival, and goes through the same checks; those of duplicates
// only where it has not passed them before. Of a message that was refused in part, only that part is taken. Rules do not look at it, the
// device is not taken for heard of, and it gets no commands: what it says is old. In the ledger the readings the item stood for are
// Requeued, and what becomes of them now is counted as of any message.
type Requeue struct {
	ID    uint64 // of the item in the quarantine
	Count uint64 // readings or records that it stood for

	// Of a record that a destination refused; "" for a message.
	Destination string
	Type        byte
	Record      []byte

	// Of a message.
	Source string // whose ledger counts it
	Late   bool   // it is counted there as late, not as quarantined
	// Backfill has windows that are closed recomputed from the local history, whatever the source says of late readings.
	Backfill bool
	Topic    string
	Payload  []byte
	Retry    Retry
}

// Retry is what else it takes to try a message again. It is part of Refused.
type Retry struct {
	Arrived            int64
	ClientID, Username string
	Flags              byte // as in the message's record
	PacketID           uint16
	Passed             byte     // checks for duplicates that the message has passed, and must not be held to again
	Sample             int      // with Metrics: in which sample of the message they were
	Metrics            []string // of the readings refused; nil: all that the message holds
}

// What Retry.Passed holds.
const (
	passedResend   byte = 1
	passedSequence byte = 2
)

// RequeueOutputs is implemented by Outputs that keep a quarantine. Causes do not depend on whether they do.
type RequeueOutputs interface {
	// Requeued takes the item out of the quarantine and, where it has a destination, puts its record into that one's outbox. It is valid only
	// during the call.
	Requeued(Cause, *Requeue)
}

// ReasonGone is given where a part of a message is tried again and the payload, as it is decoded now, does not hold it.
const ReasonGone = "not_in_payload"

const (
	requeueVersion     = 1
	requeueMessage     = 1
	requeueRecord      = 2
	requeueLate        = 1
	requeueBackfill    = 2
	retryVersion       = 1
	maxRequeuedMetrics = decode.MaxReadings
)

// Append appends the journal record's body:
//
//	version 1 | id | count | 1 | source | flags: 1 late, 2 backfill | retry | topic | payload
//	version 1 | id | count | 2 | destination | type | record
//
// Integers are unsigned varints, flags and type one byte, strings and bytes have their length before them.
func (q *Requeue) Append(b []byte) []byte {
	b = append(b, requeueVersion)
	b = binary.AppendUvarint(b, q.ID)
	b = binary.AppendUvarint(b, q.Count)
	if q.Destination != "" {
		b = telemetry.AppendString(append(b, requeueRecord), q.Destination)
		b = append(b, q.Type)
		return telemetry.AppendString(b, string(q.Record))
	}
	b = telemetry.AppendString(append(b, requeueMessage), q.Source)
	flags := byte(0)
	if q.Late {
		flags |= requeueLate
	}
	if q.Backfill {
		flags |= requeueBackfill
	}
	b = append(b, flags)
	b = telemetry.AppendString(b, string(q.Retry.Append(nil)))
	b = telemetry.AppendString(b, q.Topic)
	return telemetry.AppendString(b, string(q.Payload))
}

var errRequeue = errors.New("requeue is damaged or from a newer version")

// ParseRequeue reads what Append wrote; the result aliases b.
func ParseRequeue(b []byte) (*Requeue, error) {
	d := telemetry.NewDecoder(b)
	if d.Byte() != requeueVersion {
		return nil, errRequeue
	}
	q := &Requeue{ID: d.Uvarint(), Count: d.Uvarint()}
	switch d.Byte() {
	case requeueRecord:
		q.Destination, q.Type, q.Record = d.String(), d.Byte(), d.Bytes()
		if q.Destination == "" {
			return nil, errRequeue
		}
	case requeueMessage:
		q.Source = d.String()
		flags := d.Byte()
		q.Late, q.Backfill = flags&requeueLate != 0, flags&requeueBackfill != 0
		retry, err := ParseRetry(d.Bytes())
		if err != nil {
			return nil, err
		}
		q.Retry = retry
		q.Topic, q.Payload = d.String(), d.Bytes()
	default:
		return nil, errRequeue
	}
	if d.Err() != nil || len(d.Rest()) != 0 {
		return nil, errRequeue
	}
	return q, nil
}

// Append appends the retry as the quarantine keeps it:
//
//	version 1 | arrived (zigzag) | client id | user name | flags (byte) | packet id | passed (byte) | sample | n + 1 metrics, or 0
func (r *Retry) Append(b []byte) []byte {
	b = binary.AppendVarint(append(b, retryVersion), r.Arrived)
	b = telemetry.AppendString(telemetry.AppendString(b, r.ClientID), r.Username)
	b = binary.AppendUvarint(append(b, r.Flags), uint64(r.PacketID))
	b = binary.AppendUvarint(append(b, r.Passed), uint64(r.Sample))
	if r.Metrics == nil {
		return append(b, 0)
	}
	b = binary.AppendUvarint(b, uint64(len(r.Metrics))+1)
	for _, m := range r.Metrics {
		b = telemetry.AppendString(b, m)
	}
	return b
}

// ParseRetry reads what Append wrote.
func ParseRetry(b []byte) (r Retry, err error) {
	d := telemetry.NewDecoder(b)
	if d.Byte() != retryVersion {
		return r, errRequeue
	}
	r.Arrived = d.Varint()
	r.ClientID, r.Username = d.String(), d.String()
	r.Flags, r.PacketID = d.Byte(), uint16(d.Uvarint())
	r.Passed, r.Sample = d.Byte(), int(d.Uvarint())
	if n := d.Uvarint(); n > 0 {
		if n > maxRequeuedMetrics+1 {
			return r, errRequeue
		}
		r.Metrics = make([]string, 0, min(n-1, uint64(len(b))))
		for range n - 1 {
			r.Metrics = append(r.Metrics, d.String())
			if d.Err() != nil {
				break
			}
		}
	}
	if d.Err() != nil || len(d.Rest()) != 0 || r.Sample < 0 {
		return Retry{}, errRequeue
	}
	return r, nil
}

// place is where in a message the fold is, so that what it refuses there can be tried again without the rest.
type place struct {
	arrived int64
	passed  byte
	samples int // of the message; 0: it is not decoded
	sample  int
	all     int // readings of the sample, refused ones included

	// What is refused, if something is: names, or else these.
	names    []string
	refused  []decode.Refusal
	readings []telemetry.Reading
}

// metrics names what is refused.
func (p *place) metrics() []string {
	if p.names != nil {
		return slices.Clone(p.names)
	}
	names := make([]string, 0, len(p.refused)+len(p.readings))
	for i := range p.refused {
		names = append(names, p.refused[i].Field)
	}
	for i := range p.readings {
		names = append(names, p.readings[i].Metric)
	}
	return names
}

// again is the message that is tried again at the moment.
type again struct {
	*Requeue
	left []string // of Retry.Metrics: not found in the payload yet
}

// requeue puts an item back on its way.
func (f *Fold) requeue(r *seglog.Record) error {
	q, err := ParseRequeue(r.Body)
	if err != nil {
		return fmt.Errorf("record %d: %w", r.LSN, err)
	}
	c := f.nextCause()
	if out, ok := f.out.(RequeueOutputs); ok {
		out.Requeued(c, q)
	}
	if q.Destination != "" {
		return nil
	}
	l := f.ledger(q.Source)
	if q.Late {
		l.RequeuedLate += q.Count
	} else {
		l.Requeued += q.Count
	}
	f.again = &again{q, slices.Clone(q.Retry.Metrics)}
	defer func() { f.again = nil }()
	body := append([]byte(nil), q.Retry.Flags, byte(q.Retry.PacketID), byte(q.Retry.PacketID>>8))
	body = telemetry.AppendString(telemetry.AppendString(body, q.Retry.ClientID), q.Retry.Username)
	body = append(telemetry.AppendString(body, q.Topic), q.Payload...)
	return f.message(&seglog.Record{LSN: r.LSN, Type: RecordMessage, Time: q.Retry.Arrived, Body: body})
}

// keep leaves of a sample only what is tried again.
func (a *again) keep(s *decode.Sample, sample int) {
	if a.Retry.Metrics == nil {
		return
	}
	mine := func(metric string) bool {
		ok := sample == a.Retry.Sample && slices.Contains(a.Retry.Metrics, metric)
		if i := slices.Index(a.left, metric); ok && i >= 0 {
			a.left = slices.Delete(a.left, i, i+1)
		}
		return ok
	}
	s.Readings = slices.DeleteFunc(s.Readings, func(r telemetry.Reading) bool { return !mine(r.Metric) })
	s.Refused = slices.DeleteFunc(s.Refused, func(r decode.Refusal) bool { return !mine(r.Field) })
}

// missing refuses what the payload does not hold any more, so that it still counts.
func (f *Fold) missing(te *topicEntry, m *rawMessage) {
	a := f.again
	if a == nil || len(a.left) == 0 {
		return
	}
	n := len(a.left)
	l := te.src.ledger
	l.Received += uint64(n)
	f.at = place{arrived: f.at.arrived, passed: a.Retry.Passed, samples: 1, sample: a.Retry.Sample, all: -1, names: a.left}
	f.refuse(l, te, m, "decode", ReasonGone, "the payload, as it is decoded now, does not hold what was refused", n)
}

// backfillsLate tells whether a reading that comes for a closed window has it recomputed.
func (f *Fold) backfillsLate(te *topicEntry) bool {
	return te.src.Late == LateBackfill || f.again != nil && f.again.Backfill
}

// tryQuietly decodes what is tried again without a trace in a decoder that remembers: the message is out of its order.
func (s *source) tryQuietly(in *decode.Message, out *decode.Batch) error {
	state, ok := s.decoder.(decode.Stateful)
	if !ok {
		return s.decoder.Decode(in, out)
	}
	before := state.Snapshot(nil)
	err := s.decoder.Decode(in, out)
	if restored := state.Restore(before); err == nil && restored != nil {
		err = restored
	}
	return err
}

// retry says what it takes to try again what is refused here.
func (f *Fold) retry(m *rawMessage) Retry {
	r := Retry{
		Arrived: f.at.arrived, ClientID: string(m.clientID), Username: string(m.username), Flags: m.flags, PacketID: m.packetID,
		Passed: f.at.passed,
	}
	metrics := f.at.metrics()
	switch {
	case f.at.samples == 0: // not decoded: whatever the message, or the part of it that was tried again, holds
		if f.again != nil {
			r.Passed, r.Sample, r.Metrics = f.again.Retry.Passed, f.again.Retry.Sample, f.again.Retry.Metrics
		}
	case f.at.samples == 1 && len(metrics) == f.at.all && (f.again == nil || f.again.Retry.Metrics == nil):
	default:
		r.Sample, r.Metrics = f.at.sample, metrics
	}
	return r
}
