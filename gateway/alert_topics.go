package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules"
	policy "sluice/rules/notify"
)

// alertTopics publishes alerts on the gateway's own broker: sluice/alerts/<alertname>/<fingerprint>, retained while the alert fires
// and cleared when it resolves. Messages wait in order until run hands them to the broker; past maxAlertQueue a newer state of an
// alert takes the place of an older one that nobody has seen, so that the memory is bounded by the number of alerts.
type alertTopics struct {
	publish func(topic string, payload []byte, qos byte, retain bool) error
	log     *slog.Logger

	mu    sync.Mutex // guards the next two
	queue []alertMessage
	place map[uint64]int // in queue, by fingerprint: the newest
	wake  chan struct{}  // 1; more signals merge
}

// alertMessage is a topic's next message. It is written out only when it is published: the pipeline has webhooks to serve first.
type alertMessage struct {
	alert       string
	fingerprint uint64
	firing      *publishedAlert // nil: the alert is over
}

const maxAlertQueue = 1024

// ownTopics is the part of the topic tree that belongs to the gateway: no source takes it, whoever publishes there.
const ownTopics = "sluice/"

func newAlertTopics(publish func(string, []byte, byte, bool) error, log *slog.Logger) *alertTopics {
	return &alertTopics{publish: publish, log: log, place: map[uint64]int{}, wake: make(chan struct{}, 1)}
}

// alertTopic is where an alert is published. Names of alerts hold neither / nor wildcards.
func alertTopic(alert string, fingerprint uint64) string {
	return ownTopics + "alerts/" + alert + "/" + policy.FormatFingerprint(fingerprint)
}

// publishedAlert is the payload, JSON.
type publishedAlert struct {
	Status      string            `json:"status"` // firing: an alert that is over has an empty message
	Alert       string            `json:"alert"`
	Fingerprint string            `json:"fingerprint"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Value       float64           `json:"value"`
	StartsAt    time.Time         `json:"starts_at"`

	labels, annotations telemetry.Labels
}

func (p *publishedAlert) marshal() []byte {
	p.Labels, p.Annotations = p.labels.Map(), p.annotations.Map()
	b, err := json.Marshal(p)
	if err != nil { // values of events are finite
		return nil
	}
	return b
}

// put queues the transitions of one record; for the pipeline's goroutine. They go out after the next signal.
func (t *alertTopics) put(events []rules.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range events {
		ev := &events[i]
		m := alertMessage{alert: ev.Alert, fingerprint: ev.Fingerprint}
		if ev.State == rules.Firing {
			m.firing = &publishedAlert{Status: "firing", Alert: ev.Alert, Fingerprint: policy.FormatFingerprint(ev.Fingerprint), labels: ev.Labels,
				annotations: ev.Annotations, Value: ev.Value, StartsAt: unixTime(ev.StartsAt)}
		}
		t.add(m)
	}
}

func (t *alertTopics) add(m alertMessage) {
	if at, ok := t.place[m.fingerprint]; ok && len(t.queue) >= maxAlertQueue {
		t.queue[at] = m
		return
	}
	t.place[m.fingerprint] = len(t.queue)
	t.queue = append(t.queue, m)
}

// signal has run publish what is queued.
func (t *alertTopics) signal() {
	t.mu.Lock()
	n := len(t.queue)
	t.mu.Unlock()
	if n == 0 {
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// begin publishes what fires, and clears what ended, before what is queued: a broker that kept its retained messages over a restart
// may hold alerts that ended while it was away.
func (t *alertTopics) begin(known []alertMessage) {
	t.mu.Lock()
	waiting := t.queue
	t.queue, t.place = nil, map[uint64]int{}
	for _, m := range append(known, waiting...) {
		t.add(m)
	}
	t.mu.Unlock()
	t.signal()
}

// run publishes until ctx ends.
func (t *alertTopics) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.wake:
		}
		t.mu.Lock()
		queue := t.queue
		t.queue = nil
		clear(t.place)
		t.mu.Unlock()
		for _, m := range queue {
			// QoS 1: a subscriber that asks for it gets each change, also after a short absence.
			var payload []byte
			if m.firing != nil {
				payload = m.firing.marshal()
			}
			topic := alertTopic(m.alert, m.fingerprint)
			if err := t.publish(topic, payload, 1, true); err != nil {
				t.log.Warn("alert not published", "topic", topic, "err", err)
			}
		}
	}
}

// isOwnTopic tells whether a topic belongs to the gateway.
func isOwnTopic(topic string) bool { return strings.HasPrefix(topic, ownTopics) }

// publishAlerts keeps sluice/alerts up to date until ctx ends.
func (g *gateway) publishAlerts(ctx context.Context) error {
	v := g.runner.View()
	var known []alertMessage
	for i := range v.Notify.Recent {
		known = append(known, alertMessage{alert: v.Notify.Recent[i].Alert, fingerprint: v.Notify.Recent[i].Fingerprint})
	}
	for i := range v.Alerts {
		if a := &v.Alerts[i]; a.State == rules.Firing {
			known = append(known, alertMessage{a.Alert, a.Fingerprint, &publishedAlert{Status: "firing", Alert: a.Alert,
				Fingerprint: policy.FormatFingerprint(a.Fingerprint), labels: a.Labels, annotations: a.Annotations, Value: a.Value,
				StartsAt: unixTime(a.StartsAt)}})
		}
	}
	g.topics.begin(known)
	return g.topics.run(ctx)
}
