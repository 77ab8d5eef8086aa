package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"time"

	"sluice/gateway/pipeline"
	"sluice/rules"
	policy "sluice/rules/notify"
	"sluice/uplink"
	"sluice/uplink/webhook"
)

// Alerts implements pipeline.Outputs: what changed is published for whoever subscribes.
func (o *outlet) Alerts(_ pipeline.Cause, events []rules.Event) {
	if o.topics != nil {
		o.topics.put(events)
	}
}

// Notify implements pipeline.Outputs. A receiver that was taken out of the configuration is not told any more.
func (o *outlet) Notify(c pipeline.Cause, n *policy.Notification) {
	for _, h := range o.webhooks {
		if h.name != n.Receiver {
			continue
		}
		m := notification(n, o.notificationID(n.Receiver, c), o.gateway)
		if c.Unset {
			for i := range m.Alerts {
				m.Alerts[i].Annotations["clock"] = "the gateway's clock is not set: these times are none"
			}
		}
		body, err := m.Marshal()
		if err != nil {
			o.err = fmt.Errorf("encode notification: %w", err)
			return
		}
		if h.sink != nil {
			h.sink.Expect(body, m)
		}
		o.put(h.name, func() error { return h.outbox.Put(cause(c), uplink.TypeNotification, body) })
		o.told = true
	}
}

// notificationID is the same whenever the same record is replayed, and differs between data directories.
func (o *outlet) notificationID(receiver string, c pipeline.Cause) string {
	sum := sha256.Sum256([]byte(o.instanceOf(uint64(c.LSN)) + "\x00" + receiver + "\x00" + strconv.FormatUint(uint64(c.LSN), 10) + "\x00" + strconv.Itoa(int(c.Ordinal))))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// notification is n as webhooks have it.
func notification(n *policy.Notification, id, gateway string) *webhook.Notification {
	m := &webhook.Notification{ID: id, Receiver: n.Receiver, Gateway: gateway, Reason: n.Reason.String(), GroupLabels: n.Group.Map(),
		Alerts: make([]webhook.Alert, len(n.Alerts))}
	for i := range n.Alerts {
		m.Alerts[i] = alert(&n.Alerts[i])
	}
	return m
}

func alert(a *policy.Alert) webhook.Alert {
	w := webhook.Alert{
		Status: "firing", Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Value: a.Value,
		StartsAt: time.Unix(0, a.StartsAt).UTC(), Fingerprint: policy.FormatFingerprint(a.Fingerprint),
	}
	if !a.Firing {
		w.Status, w.EndsAt = "resolved", time.Unix(0, a.EndsAt).UTC()
	}
	if a.Flaps > 0 {
		w.Annotations["flapping"] = fmt.Sprintf("fired %d times within %s", a.Flaps, policy.FlapWindow)
	}
	return w
}
