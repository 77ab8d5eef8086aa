package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/wire"
)

// publish sends one message at QoS 1 over a new connection and wants its PUBACK.
func (g *gateway) publish(client, topic string, payload []byte) {
	g.t.Helper()
	c, err := wire.Dial(context.Background(), g.mqtt, wire.Connect{ClientID: client, Clean: true, KeepAlive: 60})
	if err != nil {
		g.t.Fatalf("connect %s: %v", client, err)
	}
	defer c.Close()
	publishOn(g.t, c, 1, topic, payload)
}

func publishOn(t *testing.T, c *wire.Conn, id uint16, topic string, payload []byte) {
	t.Helper()
	if _, err := c.Net.Write(wire.AppendPublish(nil, c.Version, wire.Publish{Topic: topic, Payload: payload, ID: id, QoS: 1})); err != nil {
		t.Fatalf("publish: %v", err)
	}
	p, err := c.Read(5 * time.Second)
	if err != nil || p.Type != wire.PUBACK || p.ID != id || p.Reason >= 0x80 {
		t.Fatalf("publish id %d: answer %+v, %v; want its PUBACK", id, p, err)
	}
}

func TestGateway_MalformedPayloadIsAcknowledgedAndQuarantined(t *testing.T) {
	g := newGateway(t, options{})
	g.start()
	now := time.Now().UnixMicro()
	deep := strings.Repeat(`{"a":`, 2000) + "1" + strings.Repeat("}", 2000)
	bad := map[string]string{
		"no JSON":       "temperature=20",
		"empty":         "",
		"cut":           fmt.Sprintf(`{"seq":1,"ts":%d,"temperature":2`, now),
		"NaN":           fmt.Sprintf(`{"seq":2,"ts":%d,"temperature":NaN}`, now),
		"beyond float":  fmt.Sprintf(`{"seq":3,"ts":%d,"temperature":1e999}`, now),
		"deep":          deep,
		"invalid UTF-8": fmt.Sprintf("{\"seq\":4,\"ts\":%d,\"temperature\":20,\"\xff\xfe\":1}", now),
		"an array":      `[1,2,3]`,
	}
	for name, payload := range bad {
		g.publish("bad-"+strings.ReplaceAll(name, " ", ""), "lab/bad/seq", []byte(payload))
	}
	g.publish("good", "lab/good/seq", reading{Seq: 1, TS: now, Temperature: 20}.payload())

	g.wantMetric(3, "sluice_readings_total", `outcome="accepted"`)
	eventually(t, 10*time.Second, "quarantined messages", func() error {
		n, err := g.metric("sluice_quarantined_total")
		if err == nil && n < float64(len(bad)) {
			err = fmt.Errorf("sluice_quarantined_total is %v, want at least %d", n, len(bad))
		}
		return err
	})
	if _, err := g.metric("sluice_quarantined_total", "reason="); err != nil {
		t.Errorf("sluice_quarantined_total says no reason: %v", err)
	}
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
}

func TestGateway_MalformedMQTTClosesThatConnectionOnly(t *testing.T) {
	g := newGateway(t, options{})
	g.start()
	bystander, err := wire.Dial(context.Background(), g.mqtt, wire.Connect{ClientID: "bystander", Clean: true, KeepAlive: 60})
	if err != nil {
		t.Fatal(err)
	}
	defer bystander.Close()

	connect5 := string(wire.AppendConnect(nil, wire.Connect{ClientID: "evil", Version: wire.V5, Clean: true, KeepAlive: 60}))
	connect4 := string(wire.AppendConnect(nil, wire.Connect{ClientID: "evil", Clean: true, KeepAlive: 60}))
	for name, bytes := range map[string]string{
		"v5 SUBSCRIBE cut behind the filter": connect5 + "\x82\x06\x00\x01\x00\x00\x01a",
		"no CONNECT first":                   "\x30\x03\x00\x01a",
		"five length bytes":                  "\x10\xff\xff\xff\xff\x01",
		"reserved packet type":               connect4 + "\x00\x00",
		"PUBLISH at QoS 3":                   connect4 + "\x36\x06\x00\x01a\x00\x01x",
		"topic longer than packet":           connect4 + "\x32\x05\x00\xffa\x00\x01",
		"wildcard in a topic":                connect4 + "\x32\x06\x00\x01#\x00\x01x",
		"HTTP":                               "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := net.Dial("tcp", g.mqtt)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.Write([]byte(bytes)); err != nil {
				t.Fatal(err)
			}
			c.SetReadDeadline(time.Now().Add(8 * time.Second))
			for buf := make([]byte, 256); err == nil; _, err = c.Read(buf) {
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the connection is still open after 8 s")
			}
		})
	}
	publishOn(t, bystander, 7, "lab/bystander/seq", reading{Seq: 1, TS: time.Now().UnixMicro()}.payload())
	g.publish("newcomer", "lab/newcomer/seq", reading{Seq: 1, TS: time.Now().UnixMicro()}.payload())
	g.stop()
}

func TestGateway_SecondProcessOnTheDataDirectoryExits3(t *testing.T) {
	g := newGateway(t, options{})
	g.start()
	second := newGateway(t, options{DataDir: g.options.DataDir})
	second.launch()
	code, err := second.proc.Wait(10 * time.Second)
	if err != nil || code != 3 {
		t.Errorf("second process: exit code %d, want 3 (%v)\n%s", code, err, second.proc.Log)
	}
	if !strings.Contains(second.proc.Log.String(), g.options.DataDir) {
		t.Errorf("second process does not name the data directory:\n%s", second.proc.Log)
	}
	g.publish("first", "lab/first/seq", reading{Seq: 1, TS: time.Now().UnixMicro()}.payload())
	g.stop()
}

func TestGateway_BadConfigExits78AndNamesFileLineAndColumn(t *testing.T) {
	for _, command := range []string{"run", "check-config"} {
		t.Run(command, func(t *testing.T) {
			g := newGateway(t, options{Extra: "histroy: { keep: 15d }\nlimits: { series: many }\n"})
			b, err := exec.Command(binary, command, "--config", g.configFile).CombinedOutput()
			exit, _ := err.(*exec.ExitError)
			if exit == nil || exit.ExitCode() != 78 {
				t.Errorf("exit %v, want code 78", err)
			}
			at := regexp.MustCompile(`sluice\.yaml:\d+:\d+:`)
			if got := len(at.FindAllString(string(b), -1)); got < 2 || !strings.Contains(string(b), "histroy") || !strings.Contains(string(b), "many") {
				t.Errorf("want both errors, each with file:line:column, got:\n%s", b)
			}
		})
	}
	t.Run("rules", func(t *testing.T) {
		g := newGateway(t, options{Rules: strings.Replace(hotRule, "temperature > 50", "temperature >", 1)})
		b, err := exec.Command(binary, "check-config", "--config", g.configFile).CombinedOutput()
		exit, _ := err.(*exec.ExitError)
		if exit == nil || exit.ExitCode() != 78 || !regexp.MustCompile(`e2e\.yaml:6:\d+:`).Match(b) {
			t.Errorf("exit %v, want code 78 and e2e.yaml:6:column, got:\n%s", err, b)
		}
	})
}

// dampRule continues the group of hotRule.
const dampRule = `      - alert: Damp
        match: { site: lab }
        expr: humidity > 90
`

func TestGateway_BrokenRuleFileOnReloadKeepsTheOldRules(t *testing.T) {
	receiver, err := hook.NewReceiver(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	defer receiver.Close()
	g := newGateway(t, options{Hook: receiver.URL(), Rules: hotRule})
	g.start()
	rules := filepath.Join("rules.d", "e2e.yaml")
	g.write(rules, strings.Replace(hotRule, "temperature > 50", "temperature >> 50", 1), 0o644)
	if err := g.proc.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the log names the broken rule file with line and column", func() error {
		if !regexp.MustCompile(`e2e\.yaml:6:\d+`).MatchString(g.proc.Log.String()) {
			return fmt.Errorf("log:\n%s", tail(g.proc.Log.String(), 10))
		}
		return nil
	})
	now := time.Now().UnixMicro()
	g.publish("d", "lab/oven/seq", reading{Seq: 1, TS: now, Temperature: 70}.payload())
	waitAlert(t, receiver, "firing")

	// A file that is right again takes effect without a restart, and the alert of the unchanged rule keeps its state.
	g.write(rules, hotRule+dampRule, 0o644)
	if err := g.proc.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	seq := uint64(1)
	eventually(t, 10*time.Second, "the new rule fires", func() error {
		seq++
		g.publish("d", "lab/oven/seq", reading{Seq: seq, TS: now + int64(seq), Temperature: 70, Humidity: 95}.payload())
		for _, r := range receiver.Taken() {
			for _, a := range r.Alerts.Alerts {
				if a.Labels["alertname"] == "Damp" {
					return nil
				}
			}
		}
		return fmt.Errorf("%d notifications", len(receiver.Taken()))
	})
	transitions, _ := hook.Transitions(receiver.Taken())
	for fp, ts := range transitions {
		if ts[0].Labels["alertname"] == "Hot" && len(ts) != 1 {
			t.Errorf("alert %s of the unchanged rule: %d transitions, want the first firing only: %v", fp, len(ts), ts)
		}
	}
	g.stop()
}

func TestGateway_HealthPathsAnswer(t *testing.T) {
	g := newGateway(t, options{})
	g.start()
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/api/v1/status"} {
		eventually(t, 5*time.Second, "GET "+path, func() error {
			code, body, err := g.get(path)
			if err == nil && code != http.StatusOK {
				err = fmt.Errorf("%d: %s", code, body)
			}
			return err
		})
	}
	g.stop()
}
