package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
)

// change asks the gateway to change something and returns the answer.
func (g *gateway) change(method, path, body string) (string, error) {
	req, err := http.NewRequest(method, "http://"+g.http+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	client := http.Client{Timeout: 10 * time.Second}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s %s", method, path, resp.Status, b)
	}
	return string(b), err
}

// listed is one alert as the API lists it.
type listed struct {
	Fingerprint  string
	State        string
	SilencedBy   string `json:"silenced_by"`
	Acknowledged *struct{ Author, Comment string }
}

func (g *gateway) alert(device string) (listed, error) {
	_, body, err := g.get("/api/v1/alerts")
	if err != nil {
		return listed{}, err
	}
	var l struct {
		Alerts []struct {
			listed
			Labels map[string]string
		}
	}
	if err := json.Unmarshal([]byte(body), &l); err != nil {
		return listed{}, fmt.Errorf("%w: %s", err, body)
	}
	for _, a := range l.Alerts {
		if a.Labels["device"] == device {
			return a.listed, nil
		}
	}
	return listed{}, fmt.Errorf("no alert of %s: %s", device, body)
}

// The operator's work - a silence, an acknowledgement, their ends - is as durable as the readings: whatever moment the gateway is
// killed at, receivers hear what they hear from a gateway that never stopped, in the same order.
func TestGateway_SilencesAndAcknowledgementsInForceSurviveKills(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	want := playOperator(t, nil)
	if got := strings.Join([]string{"a firing", "c firing", "c resolved", "b firing", "a resolved", "b resolved", "a firing", "a resolved"}, "; "); got != want {
		t.Fatalf("without a kill: %s\nwant %s", want, got)
	}
	runs := 4
	if testing.Short() {
		runs = 1
	}
	for seed := range uint64(runs) {
		if got := playOperator(t, rand.New(rand.NewPCG(seed, 5))); got != want {
			t.Errorf("seed %d: with kills: %s\nwithout: %s", seed, got, want)
		}
	}
}

// playOperator runs the story and returns what the receiver was told, each webhook-id once. With rng, the gateway is killed after
// almost every step, and the receiver comes and goes.
func playOperator(t *testing.T, rng *rand.Rand) string {
	t.Helper()
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	g := newGateway(t, options{Hook: receiver.URL(), Rules: hotRule})
	g.start()
	kills, seq := 0, 0
	trouble := func() {
		if rng == nil {
			return
		}
		if rng.IntN(3) == 0 {
			if err := receiver.Set([]hook.Mode{hook.Up, hook.Down, hook.Reset}[rng.IntN(3)]); err != nil {
				t.Fatal(err)
			}
		}
		if rng.IntN(5) > 0 {
			time.Sleep(time.Duration(rng.IntN(15)) * time.Millisecond) // the kill's moment
			g.proc.Kill()
			g.start()
			kills++
		}
	}
	publish := func(device string, temperature float64) {
		t.Helper()
		seq++
		r := reading{Seq: uint64(seq), TS: time.Now().UnixMicro(), Temperature: temperature}
		host, port := splitAddress(g.mqtt)
		eventually(t, 10*time.Second, "publish", func() error {
			b, err := exec.Command("mosquitto_pub", "-h", host, "-p", port, "-q", "1", "-t", "lab/"+device+"/seq", "-m", string(r.payload())).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, b)
			}
			return nil
		})
		trouble()
	}
	ask := func(method, path, body string) string {
		t.Helper()
		var answer string
		eventually(t, 10*time.Second, method+" "+path, func() (err error) {
			answer, err = g.change(method, path, body)
			return err
		})
		trouble()
		return answer
	}
	find := func(device string, ok func(listed) bool) (found listed) {
		t.Helper()
		eventually(t, 10*time.Second, "the alert of "+device+" is listed as it is", func() (err error) {
			if found, err = g.alert(device); err == nil && !ok(found) {
				err = fmt.Errorf("listed as %+v", found)
			}
			return err
		})
		return found
	}

	var created struct{ ID string }
	if err := json.Unmarshal([]byte(ask("POST", "/api/v1/silences", `{"match":{"device":"b"},"duration":"1h","author":"ann"}`)), &created); err != nil {
		t.Fatal(err)
	}
	for _, device := range []string{"a", "b", "c"} {
		publish(device, 70)
	}
	find("b", func(l listed) bool { return l.State == "firing" && l.SilencedBy == created.ID })
	ask("POST", "/api/v1/alerts/"+find("a", func(l listed) bool { return l.State == "firing" }).Fingerprint+"/ack", `{"author":"ann","comment":"on my way"}`)
	find("a", func(l listed) bool {
		return l.Acknowledged != nil && l.Acknowledged.Author == "ann" && l.Acknowledged.Comment == "on my way"
	})
	publish("c", 20)
	ask("DELETE", "/api/v1/silences/"+created.ID+"?author=bob", "")
	find("b", func(l listed) bool { return l.State == "firing" && l.SilencedBy == "" })
	publish("a", 20)
	publish("b", 20)
	publish("a", 70)
	find("a", func(l listed) bool { return l.State == "firing" && l.Acknowledged == nil })
	publish("a", 20)

	if err := receiver.Set(hook.Up); err != nil {
		t.Fatal(err)
	}
	told := func() []string {
		var list []string
		ids := map[string]bool{}
		for _, r := range receiver.Taken() {
			if ids[r.ID] {
				continue
			}
			ids[r.ID] = true
			for _, a := range r.Alerts.Alerts {
				list = append(list, a.Labels["device"]+" "+a.Status)
			}
		}
		return list
	}
	eventually(t, 30*time.Second, "every notification arrives", func() error {
		if n := len(told()); n < 8 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	g.stop()
	for _, bad := range receiver.Bad() {
		t.Errorf("notification refused: %s", bad)
	}
	if rng != nil {
		t.Logf("%d kills, %d requests", kills, receiver.Attempts())
	}
	return strings.Join(told(), "; ")
}

// Whoever looks at the gateway's broker sees what fires, also after a crash, and nothing else.
func TestGateway_WhatFiresIsRetainedOnMQTT(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	needProgram(t, "mosquitto_sub")
	g := newGateway(t, options{Rules: hotRule})
	g.start()
	retained := func() string {
		host, port := splitAddress(g.mqtt)
		b, err := exec.Command("mosquitto_sub", "-h", host, "-p", port, "-t", "sluice/#", "-C", "1", "-W", "1", "-v").Output()
		if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) { // 27: nothing came within a second
			t.Fatal(err)
		}
		return string(b)
	}
	wantRetained := func(when string) {
		t.Helper()
		eventually(t, 10*time.Second, "the alert is retained "+when, func() error {
			topic, payload, _ := strings.Cut(strings.TrimSpace(retained()), " ")
			var p struct {
				Status, Alert, Fingerprint string
				Labels                     map[string]string
				Value                      float64
			}
			if err := json.Unmarshal([]byte(payload), &p); err != nil {
				return fmt.Errorf("%w: %q %q", err, topic, payload)
			}
			if topic != "sluice/alerts/Hot/"+p.Fingerprint || p.Status != "firing" || p.Alert != "Hot" || p.Labels["device"] != "a" || p.Value != 70 {
				return fmt.Errorf("%s %s", topic, payload)
			}
			return nil
		})
	}
	g.mosquittoPub("lab/a/seq", reading{Seq: 1, TS: time.Now().UnixMicro(), Temperature: 70}.payload())
	wantRetained("at once")
	g.proc.Kill()
	g.start()
	wantRetained("after a crash")
	g.mosquittoPub("lab/a/seq", reading{Seq: 2, TS: time.Now().UnixMicro(), Temperature: 20}.payload())
	eventually(t, 10*time.Second, "the alert is cleared", func() error {
		if text := retained(); text != "" {
			return errors.New(text)
		}
		return nil
	})
	g.proc.Kill()
	g.start()
	if text := retained(); text != "" {
		t.Errorf("retained after the alert ended and a crash: %s", text)
	}
	g.stop()
}
