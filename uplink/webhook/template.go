package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/template"
	"time"
)

// Data is what a template sees as ".". Its names are a contract (docs/alerts.md).
type Data struct {
	ID                string // the same at every attempt
	Receiver          string
	Gateway           string
	Status            string // firing or resolved
	Reason            string // changed, repeated, escalated or digest
	GroupKey          string
	GroupLabels       map[string]string
	CommonLabels      map[string]string // that all alerts have
	CommonAnnotations map[string]string
	ExternalURL       string
	Alerts            []DataAlert
}

// DataAlert is one alert as a template sees it.
type DataAlert struct {
	Status      string // firing or resolved
	Labels      map[string]string
	Annotations map[string]string
	Value       float64
	StartsAt    time.Time
	EndsAt      time.Time // zero while firing
	Fingerprint string
}

// Firing are the alerts that fire.
func (d Data) Firing() []DataAlert { return d.with("firing") }

// Resolved are the alerts that are over.
func (d Data) Resolved() []DataAlert { return d.with("resolved") }

func (d Data) with(status string) (list []DataAlert) {
	for _, a := range d.Alerts {
		if a.Status == status {
			list = append(list, a)
		}
	}
	return list
}

// Bounds on templates.
const (
	MaxTemplate = 64 << 10 // bytes of the file
	maxRendered = 1 << 20  // bytes of a body
)

var errRendered = fmt.Errorf("the body is longer than %d bytes", maxRendered)

// templateFunctions are what a template may call besides those of text/template.
var templateFunctions = template.FuncMap{
	"json": func(v any) (string, error) { b, err := json.Marshal(v); return string(b), err },
	"join": strings.Join, "upper": strings.ToUpper, "lower": strings.ToLower,
	"default": func(otherwise, v string) string {
		if v == "" {
			return otherwise
		}
		return v
	},
}

// ParseTemplate compiles a template and tries it on two made-up notifications: what would fail at night fails now. A label or
// an annotation that is looked up by field and missing is an error; (index .Labels "name") gives "".
func ParseTemplate(name, text, contentType string) (*Format, error) {
	if len(text) > MaxTemplate {
		return nil, fmt.Errorf("%s: longer than %d bytes", name, MaxTemplate)
	}
	t, err := template.New(name).Funcs(templateFunctions).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
	}
	f := &Format{ContentType: contentType, render: func(n *Notification) ([]byte, error) {
		w := &boundedBuffer{}
		if err := t.Execute(w, data(n)); err != nil {
			return nil, errors.New(strings.TrimPrefix(err.Error(), "template: "))
		}
		return w.Bytes(), nil
	}}
	for _, n := range samples() {
		body, err := f.render(n)
		if err != nil {
			return nil, fmt.Errorf("tried on an alert that is %s: %w", n.Status, err)
		}
		if strings.Contains(contentType, "json") && !json.Valid(body) {
			return nil, fmt.Errorf("%s: tried on an alert that is %s, the body is no JSON, which content_type %s promises", name, n.Status, contentType)
		}
	}
	return f, nil
}

func data(n *Notification) Data {
	d := Data{ID: n.ID, Receiver: n.Receiver, Gateway: n.Gateway, Status: n.Status, Reason: n.Reason, GroupKey: n.GroupKey,
		GroupLabels: present(n.GroupLabels), ExternalURL: n.ExternalURL}
	if d.Reason == "" {
		d.Reason = "changed"
	}
	d.CommonLabels, d.CommonAnnotations = n.common()
	for i := range n.Alerts {
		a := &n.Alerts[i]
		d.Alerts = append(d.Alerts, DataAlert{Status: a.Status, Labels: present(a.Labels), Annotations: present(a.Annotations), Value: a.Value,
			StartsAt: a.StartsAt, EndsAt: a.EndsAt, Fingerprint: a.Fingerprint})
	}
	return d
}

// present makes an empty map out of nothing.
func present(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

// samples are a firing and a resolved alert with the labels and annotations that most have.
func samples() []*Notification {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := Alert{Status: "firing", Value: -10, StartsAt: at, Fingerprint: "0123456789abcdef",
		Labels:      map[string]string{"alertname": "FreezerWarm", "device": "freezer-1", "site": "plant-7", "severity": "critical"},
		Annotations: map[string]string{"summary": `freezer-1 at -10 degC, "door" open`, "description": "a\nb"}}
	b := a
	b.Status, b.EndsAt = "resolved", at.Add(time.Minute)
	var list []*Notification
	for _, one := range []Alert{a, b} {
		n := &Notification{ID: "msg_sample", Receiver: "ops", Gateway: "plant-7", Reason: "changed", GroupLabels: map[string]string{"alertname": "FreezerWarm"},
			Alerts: []Alert{one}}
		n.complete()
		list = append(list, n)
	}
	return list
}

// boundedBuffer refuses to grow beyond maxRendered, which ends the template.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxRendered {
		return 0, errRendered
	}
	return b.Buffer.Write(p)
}
