// Package uplink takes what the pipeline puts out - points and notifications - to its destinations: a durable Outbox for
// each destination, a Forwarder that drains it through a Sink, and a Quarantine for what was refused.
//
// Nothing leaves an Outbox before the destination has said that it holds it, or before it stands in the Quarantine, or in the
// counters and the log of losses with the reason why not: enqueued = delivered + pending + rejected + degraded + shed holds at every moment and over
// restarts. Degraded are those merged into longer windows when the disk's bound or the budget of bytes came near, see ladder.go and plan.go.
//
// Urgent records go first, then live ones, then what waits. Several requests may be under way, and live records may overtake a
// backlog, but a correction is never overtaken by the version it replaces, see inflight.go and read.go.
//
// The package never decodes what it carries but to merge, count and order points, and knows neither rules nor MQTT. What is merged, shed or
// overtakes depends on journal times alone; a clock decides only when something is tried and what a day's budget is. The program runs
// each Forwarder's Run, which starts a goroutine for each request and waits for it, unless a sink does not come back: that one is left behind.
package uplink

import "context"

// Cause names the journal record that led to an output. Outputs of one journal record are numbered from 0, in the order in
// which the pipeline produces them; the pair (LSN, Ordinal) therefore grows from output to output, and is the same again when
// the record is replayed.
type Cause struct {
	LSN     uint64 // of the journal record; 0: none
	Ordinal uint32 // running number within that record, per destination
	Time    int64  // the journal record's time, ns since the Unix epoch
}

// After tells whether c came about later than d.
func (c Cause) After(d Cause) bool {
	return c.LSN > d.LSN || c.LSN == d.LSN && c.Ordinal > d.Ordinal
}

// Record types in an outbox. Sinks refuse a type they do not know.
const (
	TypePoint        byte = 1 // telemetry.MarshalPoint
	TypeNotification byte = 2 // webhook.Notification.Marshal
	TypeTypedPoint   byte = 3 // MarshalTyped: a point for a store that holds its fields as another type
)

// Record is one output on its way to a destination.
type Record struct {
	LSN   uint64 // in its outbox
	Cause Cause
	Type  byte
	Body  []byte
}

// Sink stores records at a destination.
type Sink interface {
	// Deliver returns nil only when the destination has confirmed that it holds every one of recs; else an *Error that says
	// what to do (any other error counts as KindRetry). Delivering a record again must do no harm: after a crash or a lost answer
	// it will happen. It gives up by itself after a time of its own, or when ctx ends, and keeps no reference to recs.
	Deliver(ctx context.Context, recs []Record) error
}
