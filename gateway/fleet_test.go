package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"sluice/broker"
	"sluice/gateway/console"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/rules"
)

// testSite is a running gateway with sources, rules, a destination and a webhook that nobody answers.
type testSite struct {
	t *testing.T
	g *gateway
	n uint16 // messages sent
}

const testSiteConfig = `
gateway: { id: plant-7, data_dir: data, labels: { site: plant-7 } }
mqtt: { listeners: [ { address: "127.0.0.1:0" } ] }
sources:
  - { name: line, topic: "line/{device}", time: { field: ts, unit: ms }, window: 1s, grace: 0s, expect: { units: { temperature: "°C" } } }
  - { name: plain, topic: "plain/+/{unit}", format: value }
  - { name: homie, topic: "homie/#", format: homie }
rules: { files: [rules.yaml] }
webhooks: [ { name: ops, url: "http://127.0.0.1:9/", allow: ["127.0.0.0/8"] } ]
uplink: { destinations: [ { name: cloud, type: influxdb, url: "http://127.0.0.1:9", org: o, bucket: b } ] }
http: { address: "127.0.0.1:0" }
`

const testSiteRules = `
groups:
  - name: g
    rules:
      - { alert: Warm, match: { device: "freezer-*" }, expr: temperature > -10, annotations: { summary: "{{ $labels.device }} at {{ $value }}" } }
      - { alert: Later, match: { device: "freezer-*" }, expr: temperature > -10, for: 1h }
`

// startSite opens the gateway of dir and serves until stop is called, or the test ends.
func startSite(t *testing.T, dir string) (s *testSite, stop func()) {
	t.Helper()
	for name, text := range map[string]string{"sluice.yaml": testSiteConfig, "rules.yaml": testSiteRules} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := loadConfig(filepath.Join(dir, "sluice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	g, err := openGateway(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(stop)
	s = &testSite{t: t, g: g}
	s.await("the gateway to serve", g.ready.Load)
	return s, stop
}

func (s *testSite) await(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatal("waited for " + what)
		}
	}
}

// publish journals a message as if a device had sent it.
func (s *testSite) publish(topic, payload string) {
	s.t.Helper()
	s.n++
	_, err := s.g.intake.Append(&broker.Message{ClientID: "test", Topic: topic, QoS: 1, PacketID: s.n, Payload: []byte(payload), Received: s.g.clock.now()})
	if err != nil {
		s.t.Fatal(err)
	}
	s.g.journal.Commit()
	last := s.g.journal.Next() - 1
	s.await("the pipeline", func() bool { return s.g.runner.Applied() >= last })
}

func (s *testSite) get(path string) (int, []byte) {
	s.t.Helper()
	r, err := http.Get("http://" + s.g.console.Addr().String() + path)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, b
}

func (s *testSite) post(path, body string) (int, []byte) {
	s.t.Helper()
	r, err := http.Post("http://"+s.g.console.Addr().String()+path, "application/json", strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return r.StatusCode, b
}

func decoded[T any](t *testing.T, code int, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil || code >= 300 {
		t.Fatalf("%d %v: %s", code, err, b)
	}
	return v
}

func (s *testSite) device(name string) console.Device {
	s.t.Helper()
	s.g.fleet.mu.Lock()
	s.g.fleet.asked = time.Time{} // look anew
	s.g.fleet.mu.Unlock()
	code, b := s.get("/api/v1/devices?search=" + name)
	l := decoded[console.DeviceList](s.t, code, b)
	if len(l.Devices) != 1 {
		s.t.Fatalf("devices called %s: %s", name, b)
	}
	return l.Devices[0]
}

func TestFleet_IsTheSameAfterARestartAndTellsWhoFellSilent(t *testing.T) {
	dir := t.TempDir()
	s, stop := startSite(t, dir)
	now := s.g.clock.now() / 1e6
	for i := range 5 {
		s.publish("line/freezer-1", fmt.Sprintf(`{"ts":%d,"temperature":-18.%d}`, now+int64(i), i))
		s.publish("plain/temperature/a1", fmt.Sprint(20+i))
	}
	s.publish("line/freezer-1", fmt.Sprintf(`{"ts":%d,"temperature":99}`, now-60_000)) // late: not the newest
	d := s.device("freezer-1")
	if d.State != "online" || d.Source != "line" || d.Labels["site"] != "plant-7" || d.Series != 1 || d.Interval <= 0 || d.LastSeen.IsZero() || d.Rate <= 0 {
		t.Errorf("freezer-1: %+v", d)
	}
	if other := s.device("a1"); other.Name != "a1" || other.Source != "plain" {
		t.Errorf("a device without the label device: %+v", other)
	}
	code, b := s.get("/api/v1/series?device=" + d.ID)
	l := decoded[console.SeriesList](t, code, b)
	if len(l.Series) != 1 || l.Series[0].Name != "line_temperature" || l.Series[0].Unit != "°C" || l.Series[0].Labels["gateway"] != "plant-7" ||
		l.Series[0].Last == nil || l.Series[0].Last.Value != -18.4 {
		t.Fatalf("series: %s", b)
	}
	// The names lead to the history.
	s.await("the history", func() bool {
		_, b := s.get(`/prometheus/api/v1/query?query=` + l.Series[0].Name + `%7Bdevice%3D%22freezer-1%22%7D&time=` + fmt.Sprint(now/1000+1))
		return bytes.Contains(b, []byte(`"-18.4"`))
	})
	s.await("silence", func() bool { return s.device("freezer-1").State == "silent" }) // 2 s: the least that counts as silence
	stop()

	s, _ = startSite(t, dir)
	again := s.device("freezer-1")
	if again.ID != d.ID || !again.FirstSeen.Equal(d.FirstSeen) || again.Interval != d.Interval || again.State != "unknown" {
		t.Errorf("after a restart %+v, before %+v; nobody listened meanwhile", again, d)
	}
	s.await("the value from before the restart", func() bool {
		s.device("freezer-1")
		code, b := s.get("/api/v1/series?device=" + d.ID)
		l := decoded[console.SeriesList](t, code, b)
		return l.Series[0].Last != nil && l.Series[0].Last.Value == -18.4
	})
	s.await("silence after the restart", func() bool { return s.device("freezer-1").State == "silent" })
	s.publish("line/freezer-1", fmt.Sprintf(`{"ts":%d,"temperature":-17}`, s.g.clock.now()/1e6))
	if d := s.device("freezer-1"); d.State != "online" {
		t.Errorf("it came back: %+v", d)
	}
}

func TestDeviceState_SilenceIsThreeIntervalsWithSomebodyListening(t *testing.T) {
	const s = int64(time.Second)
	started := 1000 * s
	for _, c := range []struct {
		what  string
		view  pipeline.DeviceView
		now   int64
		state string
	}{
		{"within its interval", pipeline.DeviceView{LastSeen: 2000 * s, Allowed: 30 * time.Second}, 2030 * s, "online"},
		{"beyond it", pipeline.DeviceView{LastSeen: 2000 * s, Allowed: 30 * time.Second}, 2031 * s, "silent"},
		{"heard before the start, little time since", pipeline.DeviceView{LastSeen: 100 * s, Allowed: 30 * time.Second}, 1020 * s, "unknown"},
		{"heard before the start, time enough since", pipeline.DeviceView{LastSeen: 100 * s, Allowed: 30 * time.Second}, 1031 * s, "silent"},
		{"its broker says it is gone", pipeline.DeviceView{LastSeen: 2000 * s, Allowed: 30 * time.Second, State: "offline"}, 2001 * s, "offline"},
		{"it says it is there and sends nothing", pipeline.DeviceView{LastSeen: 2000 * s, Allowed: 30 * time.Second, State: "online"}, 2100 * s, "silent"},
		{"it never sent", pipeline.DeviceView{}, 2000 * s, "unknown"},
		{"it never sent but said it is there", pipeline.DeviceView{State: "online"}, 2000 * s, "online"},
		{"a newcomer", pipeline.DeviceView{LastSeen: 2000 * s}, 2060 * s, "online"},
		{"a newcomer who said no more", pipeline.DeviceView{LastSeen: 2000 * s}, 2061 * s, "unknown"},
		{"a newcomer of yesterday", pipeline.DeviceView{LastSeen: 2000 * s}, 2001*s + 24*3600*s, "silent"},
	} {
		if got := deviceState(&c.view, c.now, started); got != c.state {
			t.Errorf("%s: %s, want %s", c.what, got, c.state)
		}
	}
}

func TestAlertIndex_CountsWhatFiresForADevice(t *testing.T) {
	labels := func(pairs ...string) telemetry.Labels {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return telemetry.LabelsFromMap(m)
	}
	x := firing([]rules.AlertView{
		{State: rules.Firing, Labels: labels("alertname", "A", "device", "f1", "site", "s1", "severity", "high")},
		{State: rules.Firing, Labels: labels("alertname", "B", "device", "f1", "site", "s2")},
		{State: rules.Pending, Labels: labels("alertname", "C", "device", "f1", "site", "s1")},
		{State: rules.Firing, Labels: labels("alertname", "D", "site", "s1")},
	})
	for want, device := range []map[string]string{{"device": "f2", "site": "s1"}, {"device": "f1", "site": "s1"}, {"device": "f1"}} {
		if got := x.of(device); got != want {
			t.Errorf("alerts of %v: %d, want %d", device, got, want)
		}
	}
}

// TestOpenAPI_RealAnswersAreAsDescribed asks a running gateway for everything that is read.
func TestOpenAPI_RealAnswersAreAsDescribed(t *testing.T) {
	s, _ := startSite(t, t.TempDir())
	for i := range 3 {
		s.publish("line/freezer-1", fmt.Sprintf(`{"ts":%d,"temperature":%d}`, s.g.clock.now()/1e6, i))
		s.publish("line/freezer-2", `{"temperature": tru`)
	}
	s.publish("line/pump-1", `{"temperature":1e400}`)
	if code, b := s.post("/api/v1/silences", `{"match":{"device":"pump-*"},"duration":"1h","comment":"c"}`); code != http.StatusCreated {
		t.Fatalf("%d %s", code, b)
	}
	code, b := s.post("/api/v1/rules/backtest", `{"since":"1h","for":"2m"}`)
	id := decoded[console.Created](t, code, b).ID
	s.await("the backtest", func() bool {
		code, b := s.get("/api/v1/jobs/" + id)
		return decoded[console.Job](t, code, b).State == "done"
	})
	s.await("an alert", func() bool { _, b := s.get("/api/v1/alerts"); return bytes.Contains(b, []byte(`"Warm"`)) })

	_, doc := s.get("/api/openapi.json")
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	for _, schema := range v.(map[string]any)["components"].(map[string]any)["schemas"].(map[string]any) {
		schema.(map[string]any)["additionalProperties"] = false // a name that is not described
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("doc.json", v); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for path, methods := range v.(map[string]any)["paths"].(map[string]any) {
		op, _ := methods.(map[string]any)["get"].(map[string]any)
		if op == nil {
			continue
		}
		response, _ := op["responses"].(map[string]any)["200"].(map[string]any)
		content, _ := response["content"].(map[string]any)
		body, _ := content["application/json"].(map[string]any)
		if body["schema"] == nil || path == "/api/v1/demo" { // there is none
			continue
		}
		target := path
		if strings.Contains(path, "{") {
			target = strings.NewReplacer("/devices/{id}", "/devices/"+s.device("freezer-1").ID, "/jobs/{id}", "/jobs/"+id, "{name}", "cloud").Replace(path)
			if strings.Contains(target, "/quarantine/") {
				_, b := s.get("/api/v1/quarantine")
				var l struct{ Items []struct{ ID string } }
				if err := json.Unmarshal(b, &l); err != nil || len(l.Items) == 0 {
					t.Fatalf("quarantine: %v %s", err, b)
				}
				target = "/api/v1/quarantine/" + l.Items[0].ID
			}
		}
		schema, err := c.Compile("doc.json#/paths/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path) + "/get/responses/200/content/application~1json/schema")
		if err != nil {
			t.Fatal(err)
		}
		code, b := s.get(target)
		answer, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if code != http.StatusOK || err != nil {
			t.Errorf("GET %s = %d, %v: %s", target, code, err, b)
			continue
		}
		if err := schema.Validate(answer); err != nil {
			t.Errorf("GET %s: %v\nin %s", target, err, b)
		}
		asked++
	}
	if asked < 15 {
		t.Errorf("%d answers were looked at", asked)
	}
}
