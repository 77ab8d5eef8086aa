package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/uplink"
)

// outlet spreads the fold's outputs over the outboxes and the quarantine. It belongs to the pipeline's goroutine.
type outlet struct {
	ctx          context.Context // ends waiting for room
	destinations []*destination
	webhooks     []*hook
	quarantine   *uplink.Quarantine
	history      *history.History // nil: none
	instance     string
	gateway      string                                   // its id
	topics       *alertTopics                             // nil: alerts are not published
	publish      func(topic string, payload []byte) error // to devices; nil where there is no broker
	log          *slog.Logger

	body    []byte
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
}

func cause(c pipeline.Cause) uplink.Cause {
	return uplink.Cause{LSN: uint64(c.LSN), Ordinal: c.Ordinal, Time: c.Time}
}

// Point implements pipeline.Outputs.
func (o *outlet) Point(c pipeline.Cause, p *telemetry.Point) {
	o.body = telemetry.MarshalPoint(o.body[:0], p)
	for _, d := range o.destinations {
		if d.match.Match(p.Labels) {
			o.put(d.name, func() error { return d.outbox.Put(cause(c), uplink.TypePoint, o.body) })
		}
	}
}

// Refuse implements pipeline.Outputs.
func (o *outlet) Refuse(c pipeline.Cause, r *pipeline.Refused) {
	o.put("quarantine", func() error {
		return o.quarantine.Put(cause(c), uplink.Item{
			Time: r.Time, Stage: uplink.Stage(r.Stage), Reason: r.Reason, Detail: r.Detail, Source: r.Source, Topic: r.Topic,
			Payload: r.Payload, Count: uint64(r.Count),
		})
	})
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

// Flush implements pipeline.Outlet.
func (o *outlet) Flush() error { return o.each((*uplink.Outbox).Flush, (*uplink.Quarantine).Flush) }

// Sync implements pipeline.Outlet.
func (o *outlet) Sync() error { return o.each((*uplink.Outbox).Sync, (*uplink.Quarantine).Sync) }

func (o *outlet) each(outbox func(*uplink.Outbox) error, quarantine func(*uplink.Quarantine) error) error {
	for _, d := range o.destinations {
		o.put(d.name, func() error { return outbox(d.outbox) })
	}
	for _, h := range o.webhooks {
		o.put(h.name, func() error { return outbox(h.outbox) })
	}
	o.put("quarantine", func() error { return quarantine(o.quarantine) })
	return o.err
}
