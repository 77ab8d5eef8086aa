package webhook

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"sluice/uplink"
)

// stockPayload is what a consumer written for Alertmanager's webhooks decodes: the payload as its documentation gives it
// (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config), with nothing allowed beside it.
type stockPayload struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   *int              `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       *string           `json:"externalURL"`
	Alerts            []stockAlert      `json:"alerts"`
}

type stockAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL *string           `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

func hot(device, status string) Alert {
	a := Alert{Status: status, Fingerprint: "00000000000000" + device, Value: 70,
		Labels:      map[string]string{"alertname": "Hot", "device": device, "site": "lab"},
		Annotations: map[string]string{"summary": "hot", "device": device}, StartsAt: time.Unix(1_800_000_000, 0).UTC()}
	if status == "resolved" {
		a.EndsAt = a.StartsAt.Add(time.Minute)
	}
	return a
}

func group(id, reason string, alerts ...Alert) *Notification {
	n := &Notification{ID: id, Receiver: "ops", Gateway: "plant-7", Reason: reason, GroupLabels: map[string]string{"alertname": "Hot"}, Alerts: alerts}
	n.complete()
	return n
}

// wantStock decodes a body as strictly as a consumer can and checks what consumers rely on.
func wantStock(t *testing.T, body []byte) *stockPayload {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	var p stockPayload
	if err := d.Decode(&p); err != nil {
		t.Fatalf("%v: %s", err, body)
	}
	if p.Version != "4" || p.GroupKey == "" || p.TruncatedAlerts == nil || *p.TruncatedAlerts != 0 || p.Receiver == "" || p.GroupLabels == nil ||
		p.CommonLabels == nil || p.CommonAnnotations == nil || p.ExternalURL == nil || len(p.Alerts) == 0 {
		t.Fatalf("payload is incomplete: %s", body)
	}
	firing := false
	for _, a := range p.Alerts {
		firing = firing || a.Status == "firing"
		if a.Status == "firing" != a.EndsAt.IsZero() || a.StartsAt.IsZero() || a.Labels["alertname"] == "" || a.Annotations == nil || a.Fingerprint == "" || a.GeneratorURL == nil {
			t.Errorf("alert is incomplete: %+v", a)
		}
		for name, v := range p.CommonLabels {
			if a.Labels[name] != v {
				t.Errorf("common label %s=%s is not on %v", name, v, a.Labels)
			}
		}
	}
	if (p.Status == "firing") != firing {
		t.Errorf("status is %s: %s", p.Status, body)
	}
	return &p
}

func TestAlertmanager_AStockConsumerReadsEveryNotification(t *testing.T) {
	for _, n := range []*Notification{
		group("1", "changed", hot("aa", "firing")), group("2", "repeated", hot("aa", "firing"), hot("bb", "firing")),
		group("3", "changed", hot("aa", "resolved")), group("4", "escalated", hot("aa", "resolved"), hot("bb", "firing")),
	} {
		body, err := Alertmanager.render(n)
		if err != nil {
			t.Fatal(err)
		}
		p := wantStock(t, body)
		if len(n.Alerts) == 2 && (p.CommonLabels["site"] != "lab" || p.CommonLabels["device"] != "" || p.CommonAnnotations["summary"] != "hot" || p.CommonAnnotations["device"] != "") {
			t.Errorf("common parts %v %v", p.CommonLabels, p.CommonAnnotations)
		}
		if p.GroupKey != `{}:{alertname="Hot"}` || p.GroupLabels["alertname"] != "Hot" {
			t.Errorf("group %s %v", p.GroupKey, p.GroupLabels)
		}
	}
}

func TestCloudEvents_EnvelopeHasWhatTheSpecificationRequires(t *testing.T) {
	body, err := CloudEvents.render(group("msg_1", "changed", hot("aa", "resolved")))
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		SpecVersion, ID, Source, Type, Subject, DataContentType string
		Time                                                    time.Time
		Data                                                    json.RawMessage
	}
	if err := json.Unmarshal(body, &e); err != nil {
		t.Fatal(err)
	}
	if e.SpecVersion != "1.0" || e.ID != "msg_1" || e.Source != "/sluice/plant-7" || e.Type != "sluice.alert.resolved" || e.Subject != "Hot" ||
		e.DataContentType != "application/json" || !e.Time.Equal(time.Unix(1_800_000_060, 0)) {
		t.Errorf("envelope %+v", e)
	}
	wantStock(t, e.Data)
}

const chat = `{"text": {{ json (printf "%s: %s" (upper .Status) .CommonLabels.alertname) }}, "who": [{{ range $i, $a := .Alerts }}{{ if $i }}, {{ end }}{{ json $a.Labels.device }}{{ end }}],
	"up": {{ len .Firing }}, "down": {{ len .Resolved }}, "value": {{ (index .Alerts 0).Value }}, "at": {{ json ((index .Alerts 0).StartsAt.Format "15:04") }}, "team": {{ json (default "nobody" (index .CommonLabels "team")) }}}`

func TestTemplate_RendersWhatItIsGiven(t *testing.T) {
	f, err := ParseTemplate("chat.tmpl", chat, "application/json")
	if err != nil {
		t.Fatal(err)
	}
	body, err := f.render(group("1", "", hot("aa", "firing"), hot("bb", "resolved")))
	want := `{"text": "FIRING: Hot", "who": ["aa", "bb"],
	"up": 1, "down": 1, "value": 70, "at": "08:00", "team": "nobody"}`
	if err != nil || string(body) != want {
		t.Errorf("got  %s, %v\nwant %s", body, err, want)
	}
}

func TestParseTemplate_FindsWhatWouldFailAtNight(t *testing.T) {
	for text, want := range map[string]string{
		`{{ .Alerts`:                                         "chat.tmpl:1: unclosed action",
		`{"a": {{ .CommonLabels.oops }}}`:                    `map has no entry for key "oops"`,
		`{{ range .Alerts }}{{ .Oops }}{{ end }}`:            "can't evaluate field Oops",
		`{"a": "{{ .CommonAnnotations.summary }}"}`:          "the body is no JSON", // the summary holds quotes: json is what it wants
		`{{ range $i := 1000000 }}{{ $.GroupKey }}{{ end }}`: "longer than",
	} {
		if _, err := ParseTemplate("chat.tmpl", text, "application/json"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseTemplate(%s) = %v, want %q", text, err, want)
		}
	}
	if _, err := ParseTemplate("big.tmpl", strings.Repeat("x", MaxTemplate+1), "text/plain"); err == nil {
		t.Error("a template beyond the bound is taken")
	}
}

func TestSink_ATemplateThatFailsOnAnAlertGoesToTheQuarantine(t *testing.T) {
	rc := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	f, err := ParseTemplate("t", `{{ .CommonLabels.severity }}`, "text/plain")
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(Config{URL: rc.URL, Allow: loopback, Format: f})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Deliver(t.Context(), []uplink.Record{record(t, group("1", "", hot("aa", "firing")))})
	var e *uplink.Error
	if !errors.As(err, &e) || e.Kind != uplink.KindRejected || len(e.Refused) != 1 || e.Refused[0].Reason != "template" || len(rc.bodies) != 0 {
		t.Errorf("Deliver = %v, %d requests", err, len(rc.bodies))
	}
}

// A key change: the gateway signs with both, so a receiver that knows either takes what arrives.
func TestSink_AFileOfSeveralSecretsSignsWithEach(t *testing.T) {
	secrets := []string{"whsec_" + base64.StdEncoding.EncodeToString([]byte("the new key, 24 bytes or more")), "whsec_" + base64.StdEncoding.EncodeToString([]byte("the old key, 24 bytes or more"))}
	var header http.Header
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header = r.Header.Clone()
		body, _ = io.ReadAll(r.Body)
	}))
	defer srv.Close()
	s, err := New(Config{URL: srv.URL, Allow: loopback, Secrets: []string{strings.Join(secrets, "\n") + "\n"}, Format: CloudEvents})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), []uplink.Record{record(t, group("msg_1", "", hot("aa", "firing")))}); err != nil {
		t.Fatal(err)
	}
	for i, secret := range secrets {
		official, err := standardwebhooks.NewWebhook(secret)
		if err != nil {
			t.Fatal(err)
		}
		if err := official.Verify(body, header); err != nil {
			t.Errorf("secret %d: %v", i+1, err)
		}
	}
	if ct := header.Get("Content-Type"); ct != "application/cloudevents+json" {
		t.Errorf("content type %s", ct)
	}
}
