package main

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"

	"sluice/gateway/telemetry"
	"sluice/rules"
)

// heard is what a broker was told: retained messages by topic.
type heard struct {
	mu       sync.Mutex
	retained map[string]string
	more     chan struct{}
}

func (h *heard) publish(topic string, payload []byte, qos byte, retain bool) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !retain || qos != 1 {
		return fmt.Errorf("retain %v, QoS %d", retain, qos)
	}
	h.retained[topic] = string(payload)
	if len(payload) == 0 {
		delete(h.retained, topic)
	}
	select {
	case h.more <- struct{}{}:
	default:
	}
	return nil
}

func topicEvent(device string, firing bool) rules.Event {
	labels := telemetry.LabelsFromMap(map[string]string{"alertname": "Hot", "device": device})
	e := rules.Event{Alert: "Hot", State: rules.Resolved, Labels: labels, Fingerprint: rules.Fingerprint(labels), StartsAt: 1}
	if firing {
		e.State = rules.Firing
	}
	return e
}

func TestAlertTopics_WhatFiresIsRetainedAndWhatEndedIsCleared(t *testing.T) {
	h := &heard{retained: map[string]string{}, more: make(chan struct{}, 1)}
	topics := newAlertTopics(h.publish, slog.New(slog.DiscardHandler))
	gone, stays := topicEvent("gone", false), topicEvent("stays", true)
	h.retained[alertTopic("Hot", gone.Fingerprint)] = "left from before the restart"
	topics.put([]rules.Event{topicEvent("new", true)})
	topics.begin([]alertMessage{{alert: "Hot", fingerprint: gone.Fingerprint}, {"Hot", stays.Fingerprint, &publishedAlert{Status: "firing", Alert: "Hot"}}})
	// Far more than the queue holds: each alert's last word counts.
	for i := range 5000 {
		topics.put([]rules.Event{topicEvent(fmt.Sprint(i%3), i/3%2 == 0)})
	}
	if n := len(topics.queue); n > maxAlertQueue+3 {
		t.Errorf("%d messages wait, want about %d", n, maxAlertQueue)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- topics.run(ctx) }()
	last := topicEvent("last", true)
	topics.put([]rules.Event{last})
	topics.signal()
	for done := false; !done; {
		<-h.more
		h.mu.Lock()
		done = h.retained[alertTopic("Hot", last.Fingerprint)] != ""
		h.mu.Unlock()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"stays": true, "new": true, "last": true, "gone": false}
	for i := range 5000 {
		want[fmt.Sprint(i%3)] = i/3%2 == 0
	}
	for device, on := range want {
		ev := topicEvent(device, on)
		if got := h.retained[alertTopic("Hot", ev.Fingerprint)] != ""; got != on {
			t.Errorf("%s: retained %v, want %v", device, got, on)
		}
	}
}

func TestIntake_OwnTopicsAreNoReadings(t *testing.T) {
	for topic, own := range map[string]bool{"sluice/alerts/Hot/0": true, "sluice/x": true, "sluice": false, "site/sluice/x": false, "sluices/x": false} {
		if isOwnTopic(topic) != own {
			t.Errorf("isOwnTopic(%s) = %v", topic, !own)
		}
	}
}
