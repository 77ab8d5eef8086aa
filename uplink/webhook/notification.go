package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
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
	n.complete()
	b := make([]byte, 0, 256+320*len(n.Alerts))
	b = appendNumber(b, '{', "v", storedVersion)
	b = appendMember(b, ',', "id", n.ID)
	b = appendMember(b, ',', "receiver", n.Receiver)
	b = appendMember(b, ',', "status", n.Status)
	b = appendMember(b, ',', "group_key", n.GroupKey)
	b = appendMap(appendKey(b, ',', "group_labels"), n.GroupLabels)
	b = appendIfSet(b, "external_url", n.ExternalURL)
	b = appendIfSet(b, "gateway", n.Gateway)
	b = appendIfSet(b, "reason", n.Reason)
	b = append(appendKey(b, ',', "alerts"), '[')
	for i := range n.Alerts {
		if i > 0 {
			b = append(b, ',')
		}
		b = n.Alerts[i].appendStored(b)
	}
	return append(b, ']', '}'), nil
}

func (a *Alert) appendStored(b []byte) []byte {
	b = appendMember(b, '{', "status", a.Status)
	b = appendMap(appendKey(b, ',', "labels"), a.Labels)
	b = appendMap(appendKey(b, ',', "annotations"), a.Annotations)
	b = appendNumber(b, ',', "starts_at", nanos(a.StartsAt))
	if !a.EndsAt.IsZero() {
		b = appendNumber(b, ',', "ends_at", nanos(a.EndsAt))
	}
	if v := a.Value; !math.IsNaN(v) && !math.IsInf(v, 0) {
		b = strconv.AppendFloat(appendKey(b, ',', "value"), v, 'g', -1, 64)
	}
	b = appendMember(b, ',', "fingerprint", a.Fingerprint)
	return append(appendIfSet(b, "generator_url", a.GeneratorURL), '}')
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

// common returns the labels and the annotations that all alerts have.
func (n *Notification) common() (labels, annotations map[string]string) {
	labels, annotations = map[string]string{}, map[string]string{}
	if len(n.Alerts) == 0 {
		return labels, annotations
	}
	maps.Copy(labels, n.Alerts[0].Labels)
	maps.Copy(annotations, n.Alerts[0].Annotations)
	for i := range n.Alerts[1:] {
		a := &n.Alerts[i+1]
		keep(labels, a.Labels)
		keep(annotations, a.Annotations)
	}
	return labels, annotations
}

// keep leaves the pairs in m that other has, too.
func keep(m, other map[string]string) {
	maps.DeleteFunc(m, func(name, value string) bool {
		v, ok := other[name]
		return !ok || v != value
	})
}
