package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Notification is what one request carries: alerts that belong together, for one receiver. It is frozen when it is put into the
// outbox: every attempt sends the same bytes.
type Notification struct {
	ID          string // becomes webhook-id: the same whenever the same cause is replayed, and unique to it
	Receiver    string
	Status      string // firing or resolved; "": firing when one of Alerts is
	GroupKey    string // "": made from GroupLabels
	GroupLabels map[string]string
	ExternalURL string // where people find the gateway
	Alerts      []Alert
}

// Alert is one alert in a notification.
type Alert struct {
	Status       string // firing or resolved
	Labels       map[string]string
	Annotations  map[string]string
	StartsAt     time.Time
	EndsAt       time.Time // zero while firing
	Value        float64   // what the rule saw; not part of the Alertmanager body
	Fingerprint  string    // 16 hexadecimal digits, of the labels
	GeneratorURL string
}

// What stands in the outbox: JSON, so that people can read it, with a version of its own, so that an update of the program still
// delivers what its predecessor queued.
type storedNotification struct {
	Version     int               `json:"v"`
	ID          string            `json:"id"`
	Receiver    string            `json:"receiver"`
	Status      string            `json:"status"`
	GroupKey    string            `json:"group_key"`
	GroupLabels map[string]string `json:"group_labels"`
	ExternalURL string            `json:"external_url,omitempty"`
	Alerts      []storedAlert     `json:"alerts"`
}

type storedAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     int64             `json:"starts_at"`         // ns since the Unix epoch
	EndsAt       int64             `json:"ends_at,omitempty"` // 0: not yet
	Value        *float64          `json:"value,omitempty"`   // absent when not a finite number
	Fingerprint  string            `json:"fingerprint"`
	GeneratorURL string            `json:"generator_url,omitempty"`
}

const storedVersion = 1

// Marshal returns the notification's form in an outbox record.
func (n *Notification) Marshal() ([]byte, error) {
	if n.ID == "" {
		return nil, errors.New("notification without an id: a receiver could not recognise a repeated delivery")
	}
	s := storedNotification{Version: storedVersion, ID: n.ID, Receiver: n.Receiver, Status: n.Status, GroupKey: n.GroupKey,
		GroupLabels: n.GroupLabels, ExternalURL: n.ExternalURL, Alerts: make([]storedAlert, len(n.Alerts))}
	firing := false
	for i := range n.Alerts {
		a := &n.Alerts[i]
		firing = firing || a.Status == "firing"
		s.Alerts[i] = storedAlert{Status: a.Status, Labels: a.Labels, Annotations: a.Annotations, StartsAt: nanos(a.StartsAt),
			EndsAt: nanos(a.EndsAt), Fingerprint: a.Fingerprint, GeneratorURL: a.GeneratorURL}
		if v := a.Value; !math.IsNaN(v) && !math.IsInf(v, 0) {
			s.Alerts[i].Value = &v
		}
	}
	if s.Status == "" {
		s.Status = "resolved"
		if firing {
			s.Status = "firing"
		}
	}
	if s.GroupKey == "" {
		s.GroupKey = groupKey(s.GroupLabels)
	}
	return json.Marshal(&s)
}

// Parse reads what Marshal wrote.
func Parse(b []byte) (*Notification, error) {
	var s storedNotification
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("notification record: %w", err)
	}
	if s.Version != storedVersion || s.ID == "" {
		return nil, fmt.Errorf("notification record: version %d, id %q", s.Version, s.ID)
	}
	n := &Notification{ID: s.ID, Receiver: s.Receiver, Status: s.Status, GroupKey: s.GroupKey, GroupLabels: s.GroupLabels,
		ExternalURL: s.ExternalURL, Alerts: make([]Alert, len(s.Alerts))}
	for i := range s.Alerts {
		a := &s.Alerts[i]
		n.Alerts[i] = Alert{Status: a.Status, Labels: a.Labels, Annotations: a.Annotations, StartsAt: moment(a.StartsAt),
			EndsAt: moment(a.EndsAt), Value: math.NaN(), Fingerprint: a.Fingerprint, GeneratorURL: a.GeneratorURL}
		if a.Value != nil {
			n.Alerts[i].Value = *a.Value
		}
	}
	return n, nil
}

func nanos(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func moment(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// groupKey is in Alertmanager's form: the route, which sluice has none of, and the group's labels.
func groupKey(labels map[string]string) string {
	names := make([]string, 0, len(labels))
	for name := range labels {
		names = append(names, name)
	}
	slices.Sort(names)
	for i, name := range names {
		names[i] = name + "=" + strconv.Quote(labels[name])
	}
	return "{}:{" + strings.Join(names, ", ") + "}"
}

// The body of Alertmanager's webhook receiver, version 4: https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
type alertmanagerBody struct {
	Receiver          string              `json:"receiver"`
	Status            string              `json:"status"`
	Alerts            []alertmanagerAlert `json:"alerts"`
	GroupLabels       map[string]string   `json:"groupLabels"`
	CommonLabels      map[string]string   `json:"commonLabels"`
	CommonAnnotations map[string]string   `json:"commonAnnotations"`
	ExternalURL       string              `json:"externalURL"`
	Version           string              `json:"version"`
	GroupKey          string              `json:"groupKey"`
	TruncatedAlerts   uint64              `json:"truncatedAlerts"`
}

type alertmanagerAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// alertmanager renders n. It depends on n alone, and encoding/json sorts the keys of maps, so every attempt has the same bytes.
func alertmanager(n *Notification) ([]byte, error) {
	b := alertmanagerBody{Receiver: n.Receiver, Status: n.Status, Alerts: make([]alertmanagerAlert, len(n.Alerts)),
		GroupLabels: present(n.GroupLabels), ExternalURL: n.ExternalURL, Version: "4", GroupKey: n.GroupKey}
	labels := make([]map[string]string, len(n.Alerts))
	annotations := make([]map[string]string, len(n.Alerts))
	for i := range n.Alerts {
		a := &n.Alerts[i]
		labels[i], annotations[i] = a.Labels, a.Annotations
		b.Alerts[i] = alertmanagerAlert{Status: a.Status, Labels: present(a.Labels), Annotations: present(a.Annotations),
			StartsAt: a.StartsAt, EndsAt: a.EndsAt, GeneratorURL: a.GeneratorURL, Fingerprint: a.Fingerprint}
	}
	b.CommonLabels, b.CommonAnnotations = common(labels), common(annotations)
	return json.Marshal(&b)
}

// present makes an empty object out of nothing: receivers do not expect null.
func present(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// common returns the pairs that all have.
func common(sets []map[string]string) map[string]string {
	out := make(map[string]string)
	if len(sets) == 0 {
		return out
	}
pairs:
	for k, v := range sets[0] {
		for _, s := range sets[1:] {
			if w, ok := s[k]; !ok || w != v {
				continue pairs
			}
		}
		out[k] = v
	}
	return out
}
