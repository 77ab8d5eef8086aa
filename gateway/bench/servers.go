package main

import (
	"bufio"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/proc"
)

// server is a broker under test.
type server struct {
	name    string
	proc    *proc.Proc
	address string
	http    string        // of the gateway; "" for others
	ready   time.Duration // start to first accepted connection
	dir     string        // removed at the end
}

func (s *server) stop() error {
	_, err := s.proc.Stop(20 * time.Second)
	os.RemoveAll(s.dir)
	return err
}

// newServer makes a directory and finds a free port.
func (b *bench) newServer(name string) (*server, int, error) {
	port, err := proc.FreePort()
	if err != nil {
		return nil, 0, err
	}
	dir, err := os.MkdirTemp(b.dir, "sluice-bench-")
	return &server{name: name, dir: dir, address: fmt.Sprintf("127.0.0.1:%d", port)}, port, err
}

// waitReady sets ready, or ends a server that does not come up.
func (s *server) waitReady() (err error) {
	if s.ready, err = s.proc.WaitAccept(s.address, 20*time.Second); err != nil {
		s.proc.Kill()
		os.RemoveAll(s.dir)
	}
	return err
}

// accepted is how many readings the gateway's pipeline has taken in.
func (s *server) accepted() (uint64, error) {
	resp, err := http.Get("http://" + s.http + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	for sc.Scan() {
		if rest, ok := strings.CutPrefix(sc.Text(), `sluice_readings_total{outcome="accepted"} `); ok {
			n, err := strconv.ParseFloat(rest, 64)
			return uint64(n), err
		}
	}
	return 0, errors.Join(sc.Err(), errors.New("no metric sluice_readings_total"))
}

// startMosquitto runs Debian's broker as it comes: no persistence, anonymous on loopback.
func (b *bench) startMosquitto() (*server, error) {
	s, port, err := b.newServer("mosquitto")
	if err != nil {
		return nil, err
	}
	if s.proc, err = proc.Start(s.name, nil, "mosquitto", "-p", fmt.Sprint(port)); err != nil {
		return nil, err
	}
	return s, s.waitReady()
}

// sluiceOptions choose the parts of the gateway; an empty one leaves the part out.
type sluiceOptions struct {
	noHistory bool
	readings  bool // send: readings

	store string // base URL
	more  string // keys of the destination, after a comma
	hook  string
	rules string
}

const benchConfig = `gateway: { id: bench, data_dir: "DIR/data", labels: { site: bench } }
mqtt:
  listeners: [ { address: "MQTT" } ]
  allow_anonymous: true
  limits: { connections: 20000, connections_per_address: 0 }
journal: { commit_interval: COMMIT }
sources:
  - name: bench
    topic: "bench/{device}/telemetry"
    measurement: telemetry
    time: { field: ts, unit: ms }
    fields: [temperature, humidity, vibration]
http: { address: "HTTP" }
`

// benchRules are evaluated for every message and fire for the probe of the alert latency only.
const benchRules = `groups:
  - name: bench
    rules:
      - { alert: Hot, match: { site: bench }, expr: "temperature > 60", clear: "temperature < 50", labels: { severity: critical } }
      - { alert: Shaking, expr: "vibration > 5", for: 10s, keep_firing_for: 30s }
      - { alert: Damp, match: { device: "d*" }, expr: "humidity > 99 and temperature > 0" }
`

// startSluice runs the built gateway in a fresh data directory.
func (b *bench) startSluice(o sluiceOptions) (*server, error) {
	s, config, err := b.prepare(o)
	if err != nil {
		return nil, err
	}
	if s.proc, err = proc.Start("sluice", nil, b.binary, "run", "--config", config); err != nil {
		return nil, err
	}
	return s, s.waitReady()
}

// prepare writes the configuration of a gateway.
func (b *bench) prepare(o sluiceOptions) (s *server, config string, err error) {
	if s, _, err = b.newServer("sluice"); err != nil {
		return nil, "", err
	}
	httpPort, err := proc.FreePort()
	if err != nil {
		return nil, "", err
	}
	s.http = fmt.Sprintf("127.0.0.1:%d", httpPort)
	text := strings.NewReplacer("DIR", s.dir, "MQTT", s.address, "HTTP", s.http, "COMMIT", b.commit.String()).Replace(benchConfig)
	files := map[string]string{"ops.whsec": hook.Secret + "\n", "rules.yaml": o.rules}
	if o.store != "" {
		text += fmt.Sprintf("uplink:\n  destinations:\n    - { name: cloud, type: influxdb, url: %q, org: acme, bucket: edge%s }\n", o.store, o.more)
	}
	if o.hook != "" {
		text += fmt.Sprintf("webhooks:\n  - { name: ops, url: %q, secret_file: ops.whsec, allow: [\"127.0.0.0/8\"] }\n", o.hook)
	}
	if o.noHistory {
		text += "history: { keep: 0s }\n"
	}
	if o.rules != "" {
		text += "rules: { files: [rules.yaml] }\n"
	}
	if o.readings {
		text = strings.Replace(text, "    fields: [", "    send: readings\n    fields: [", 1)
	}
	files["sluice.yaml"] = text
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
			return nil, "", err
		}
	}
	return s, filepath.Join(s.dir, "sluice.yaml"), nil
}
