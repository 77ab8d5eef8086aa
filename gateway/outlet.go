package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/uplink"
	"sluice/uplink/webhook"
)

// outlet spreads the fold's outputs over the outboxes and the quarantine. It belongs to the pipeline's goroutine.
type outlet struct {
	ctx          context.Context // ends waiting for room
	destinations []*destination
	webhooks     []*hook
	quarantine   *uplink.Quarantine
	history      *history.History // nil: none
	live         *live
	instanceOf   func(lsn uint64) string                  // see meta
	gateway      string                                   // its id
	topics       *alertTopics                             // nil: alerts are not published
	publish      func(topic string, payload []byte) error // to devices; nil where there is no broker
	log          *slog.Logger

	body    []byte
	told    bool  // a notification was put since the last Flush
	err     error // why an output could not be stored
	blocked atomic.Pointer[string]
}

type destination struct {
	name   string
	match  rules.Matchers
	outbox *uplink.Outbox
}

type hook struct {
	name   string
	outbox *uplink.Outbox
	sink   *webhook.Sink // told beforehand what is on its way; nil: it reads the outbox
}

func cause(c pipeline.Cause) uplink.Cause {
	return uplink.Cause{LSN: uint64(c.LSN), Ordinal: c.Ordinal, Time: c.Time}
}

// Point implements pipeline.Outputs.
func (o *outlet) Point(c pipeline.Cause, p *telemetry.Point) {
	o.body = telemetry.MarshalPoint(o.body[:0], p)
	for _, d := range o.destinations {
		if d.match.Match(p.Labels) {
			put := d.outbox.Put
			if p.Measurement == uplink.AlertMeasurement {
				put = d.outbox.PutUrgent
			}
			o.put(d.name, func() error { return put(cause(c), uplink.TypePoint, o.body) })
		}
	}
}

// Refuse implements pipeline.Outputs.
func (o *outlet) Refuse(c pipeline.Cause, r *pipeline.Refused) {
	var retry []byte
	if r.Topic != "" { // else it is about readings whose messages are not at hand any more
		retry = r.Retry.Append(nil)
	}
	o.put("quarantine", func() error {
		return o.quarantine.Put(cause(c), uplink.Item{
			Time: r.Time, Stage: uplink.Stage(r.Stage), Reason: r.Reason, Detail: r.Detail, Source: r.Source, Topic: r.Topic,
			Payload: r.Payload, Count: uint64(r.Count), Retry: retry,
		})
	})
}

// Requeued implements pipeline.RequeueOutputs. An item whose destination is gone stays where it is.
func (o *outlet) Requeued(c pipeline.Cause, q *pipeline.Requeue) {
	if q.Destination != "" {
		outbox := o.outbox(q.Destination)
		if outbox == nil {
			o.log.Error("quarantined record not put back: its destination is gone", "destination", q.Destination, "item", q.ID)
			return
		}
		o.put(q.Destination, func() error { return outbox.Put(cause(c), q.Type, q.Record) })
	}
	o.put("quarantine", func() error { return o.quarantine.Taken(cause(c), q.ID, q.Destination, q.Source, q.Count) })
}

// outbox is that of a destination or webhook, nil when there is none of that name.
func (o *outlet) outbox(name string) *uplink.Outbox {
	for _, d := range o.destinations {
		if d.name == name {
			return d.outbox
		}
	}
	for _, h := range o.webhooks {
		if h.name == name {
			return h.outbox
		}
	}
	return nil
}

// Command implements pipeline.CommandOutputs.
func (o *outlet) Command(_ pipeline.Cause, c *decode.Command) {
	if o.publish == nil {
		return
	}
	if err := o.publish(c.Topic, bytes.Clone(c.Payload)); err != nil {
		o.log.Warn("command to a device not published", "topic", c.Topic, "err", err)
	}
}

// put stores one output and waits while there is no room for it. Nothing that follows is looked at meanwhile: order is kept, the
// journal holds what comes in, and in the end its bound stops the acknowledgements.
func (o *outlet) put(name string, store func() error) {
	if o.err != nil {
		return
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := store()
		if err == nil {
			o.free()
			return
		}
		if errors.Is(err, seglog.ErrTooLarge) {
			o.log.Error("output is larger than any record may be", "for", name, "err", err)
			return
		}
		o.block(name, err)
		select {
		case <-o.ctx.Done():
			o.err = o.ctx.Err()
			return
		case <-time.After(wait):
		}
	}
}

func (o *outlet) block(name string, err error) {
	if o.blocked.Load() == nil {
		o.log.Error("pipeline waits", "for", name, "err", err)
	}
	why := name + ": " + err.Error()
	o.blocked.Store(&why)
}

func (o *outlet) free() {
	if o.blocked.Load() != nil {
		o.blocked.Store(nil)
		o.log.Info("pipeline goes on")
	}
}

// waiting tells why the pipeline waits, "" when it does not; safe for concurrent use.
func (o *outlet) waiting() string {
	if s := o.blocked.Load(); s != nil {
		return *s
	}
	return ""
}

// Flush implements pipeline.Outlet. Alerts come first: while their forwarders set out, the rest follows.
func (o *outlet) Flush() error {
	for _, h := range o.webhooks {
		o.put(h.name, h.outbox.Flush)
	}
	if o.told {
		o.told = false
		runtime.Gosched() // the forwarder that was just woken is next on this processor: it need not wait for another one
	}
	for _, d := range o.destinations {
		o.put(d.name, d.outbox.Flush)
	}
	o.put("quarantine", o.quarantine.Flush)
	if o.topics != nil {
		o.topics.signal()
	}
	return o.err
}

// Sync implements pipeline.Outlet.
func (o *outlet) Sync() error {
	for _, h := range o.webhooks {
		o.put(h.name, h.outbox.Sync)
	}
	for _, d := range o.destinations {
		o.put(d.name, d.outbox.Sync)
	}
	o.put("quarantine", o.quarantine.Sync)
	if o.topics != nil {
		o.topics.signal()
	}
	return o.err
}
