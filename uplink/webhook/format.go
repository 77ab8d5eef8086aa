package webhook

import (
	"encoding/json"
	"fmt"
	"time"
)

// Format is what a receiver is sent.
type Format struct {
	ContentType string
	render      func(*Notification) ([]byte, error)
}

// Render is the body that a request with n has.
func (f *Format) Render(n *Notification) ([]byte, error) {
	n.complete()
	return f.render(n)
}

// The formats that need no settings.
var (
	Alertmanager = &Format{"application/json", alertmanager}
	CloudEvents  = &Format{"application/cloudevents+json", cloudEvents}
)

// FormatNamed returns the format of a name as it stands in the configuration; "template" is made by ParseTemplate.
func FormatNamed(name string) (*Format, error) {
	switch name {
	case "", "alertmanager":
		return Alertmanager, nil
	case "cloudevents":
		return CloudEvents, nil
	}
	return nil, fmt.Errorf("webhook: unknown format %q", name)
}

// cloudEvent is a CloudEvents 1.0 envelope in structured JSON: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
type cloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"` // with source it identifies the event; the same as webhook-id
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Time            time.Time       `json:"time"`
	Subject         string          `json:"subject,omitempty"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data"`
}

// cloudEvents puts the Alertmanager body into an envelope. Like it, the envelope depends on n alone.
func cloudEvents(n *Notification) ([]byte, error) {
	data, err := alertmanager(n)
	if err != nil {
		return nil, err
	}
	return json.Marshal(&cloudEvent{
		SpecVersion: "1.0", ID: n.ID, Source: "/sluice/" + n.Gateway, Type: "sluice.alert." + n.Status, Time: n.time(),
		Subject: n.GroupLabels["alertname"], DataContentType: "application/json", Data: data,
	})
}
