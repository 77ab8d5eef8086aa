package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

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
	instance     string
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

// Alerts implements pipeline.Outputs: what one record caused becomes one notification for each webhook concerned.
func (o *outlet) Alerts(c pipeline.Cause, events []rules.Event) {
	for _, h := range o.webhooks {
		n := webhook.Notification{ID: o.notificationID(h.name, c), Receiver: h.name}
		for i := range events {
			if ev := &events[i]; ev.Webhooks == nil || slices.Contains(ev.Webhooks, h.name) {
				n.Alerts = append(n.Alerts, alert(ev))
			}
		}
		if len(n.Alerts) == 0 {
			continue
		}
		if name := events[0].Alert; !slices.ContainsFunc(n.Alerts, func(a webhook.Alert) bool { return a.Labels["alertname"] != name }) {
			n.GroupLabels = map[string]string{"alertname": name}
		}
		body, err := n.Marshal()
		if err != nil {
			o.err = fmt.Errorf("encode notification: %w", err)
			return
		}
		o.put(h.name, func() error { return h.outbox.Put(cause(c), uplink.TypeNotification, body) })
	}
}

// notificationID is the same whenever the same record is replayed, and differs between data directories.
func (o *outlet) notificationID(receiver string, c pipeline.Cause) string {
	sum := sha256.Sum256([]byte(o.instance + "\x00" + receiver + "\x00" + strconv.FormatUint(uint64(c.LSN), 10)))
	return "msg_" + hex.EncodeToString(sum[:16])
}

func alert(ev *rules.Event) webhook.Alert {
	a := webhook.Alert{
		Status: "firing", Labels: ev.Labels.Map(), Annotations: ev.Annotations.Map(), Value: ev.Value,
		StartsAt: time.Unix(0, ev.StartsAt).UTC(), Fingerprint: fmt.Sprintf("%016x", ev.Fingerprint),
	}
	if ev.State == rules.Resolved {
		a.Status, a.EndsAt = "resolved", time.Unix(0, ev.EndsAt).UTC()
	}
	return a
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
