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
	Gateway     string // its id
	Reason      string // changed, repeated, escalated or digest; "": changed
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
	Gateway     string            `json:"gateway,omitempty"`
	Reason      string            `json:"reason,omitempty"`
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
		GroupLabels: n.GroupLabels, ExternalURL: n.ExternalURL, Gateway: n.Gateway, Reason: n.Reason, Alerts: make([]storedAlert, len(n.Alerts))}
	n.complete()
	s.Status, s.GroupKey = n.Status, n.GroupKey
	for i := range n.Alerts {
		a := &n.Alerts[i]
		s.Alerts[i] = storedAlert{Status: a.Status, Labels: a.Labels, Annotations: a.Annotations, StartsAt: nanos(a.StartsAt),
			EndsAt: nanos(a.EndsAt), Fingerprint: a.Fingerprint, GeneratorURL: a.GeneratorURL}
		if v := a.Value; !math.IsNaN(v) && !math.IsInf(v, 0) {
			s.Alerts[i].Value = &v
		}
	}
	return json.Marshal(&s)
}

// complete fills in what follows from the rest.
func (n *Notification) complete() {
	if n.Status == "" {
		n.Status = "resolved"
		if slices.ContainsFunc(n.Alerts, func(a Alert) bool { return a.Status == "firing" }) {
			n.Status = "firing"
		}
	}
	if n.GroupKey == "" {
		n.GroupKey = groupKey(n.GroupLabels)
	}
}

// time is when the newest of its transitions came about.
func (n *Notification) time() (t time.Time) {
	for i := range n.Alerts {
		for _, at := range [...]time.Time{n.Alerts[i].StartsAt, n.Alerts[i].EndsAt} {
			if at.After(t) {
				t = at
			}
		}
	}
	return t
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
		ExternalURL: s.ExternalURL, Gateway: s.Gateway, Reason: s.Reason, Alerts: make([]Alert, len(s.Alerts))}
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
