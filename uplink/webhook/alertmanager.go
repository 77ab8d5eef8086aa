package webhook

import (
	"encoding/json"
	"time"
)

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
func alertmanager(n *Notification) ([]byte, error) { return json.Marshal(alertmanagerOf(n)) }

func alertmanagerOf(n *Notification) *alertmanagerBody {
	b := &alertmanagerBody{Receiver: n.Receiver, Status: n.Status, Alerts: make([]alertmanagerAlert, len(n.Alerts)),
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
	return b
}
