package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"text/template"
	"time"

	"sluice/gateway/e2e/hook"
	"sluice/gateway/e2e/proc"
)

// gateway is a data directory, a config file and, while it runs, the process.
type gateway struct {
	t          *testing.T
	dir        string
	configFile string
	mqtt, http string
	proc       *proc.Proc
	options    options
}

// options fill the config template; zero values leave a part out or take the default stated here.
type options struct {
	DataDir  string // default: DIR/data
	Store    string // base URL of the destination
	Token    bool   // send a token
	Hook     string // URL of the webhook
	Rules    string // text of the rule file
	Window   string // default 1s
	Grace    string // default 100ms
	Lateness string // default 10m
	Late     string // default quarantine
	Send     string // default aggregates
	Journal  string // default: commit_interval 2ms, 1 MiB segments
	Extra    string // appended to the file
	MQTT     string // address; default: a free port, kept over restarts
	HTTP     string // likewise
	Rules0   bool   // set by newGateway when Rules is
	Dir      string // set by newGateway
	TokenSet string // set by newGateway
}

// The config names two sources: lab/+/seq carries a sequence, lab/+/plain does not. Both carry the device's time in µs and
// become measurement telemetry.
var configText = template.Must(template.New("config").Parse(`
gateway: { id: e2e, data_dir: "{{.DataDir}}", labels: { site: lab } }
mqtt:
  listeners:
    - { address: "{{.MQTT}}" }
  allow_anonymous: true
journal: {{.Journal}}
sources:
  - name: sequenced
    topic: "lab/{device}/seq"
    format: json
    measurement: telemetry
    time: { field: ts, unit: us }
    sequence: seq
    fields: [temperature, humidity, vibration]
    window: {{.Window}}
    grace: {{.Grace}}
    lateness: {{.Lateness}}
    late: {{.Late}}
    send: {{.Send}}
    stats: [count, mean, min, max, last, first, sum]
  - name: plain
    topic: "lab/{device}/plain"
    format: json
    measurement: telemetry
    time: { field: ts, unit: us }
    fields: [temperature, humidity, vibration]
    window: {{.Window}}
    grace: {{.Grace}}
    lateness: {{.Lateness}}
    late: {{.Late}}
    send: {{.Send}}
    stats: [count, mean, min, max, last, first, sum]
{{- if .Rules0}}
rules: { files: ["rules.d/*.yaml"] }
{{- end}}
{{- if .Hook}}
webhooks:
  - { name: ops, url: "{{.Hook}}", secret_file: ops.whsec, timeout: 2s, allow: ["127.0.0.0/8"] }
{{- end}}
{{- if .Store}}
uplink:
  destinations:
    - { name: cloud, type: influxdb, url: "{{.Store}}", org: acme, bucket: edge{{.TokenSet}} }
{{- end}}
http: { address: "{{.HTTP}}" }
{{.Extra}}
`))

// stats is what the config asks for besides count.
var stats = []string{"mean", "min", "max", "last", "first", "sum"}

var metrics = []string{"temperature", "humidity", "vibration"}

func newGateway(t *testing.T, o options) *gateway {
	t.Helper()
	g := &gateway{t: t, dir: t.TempDir(), mqtt: o.MQTT, http: o.HTTP}
	g.configFile = filepath.Join(g.dir, "sluice.yaml")
	if o.MQTT == "" {
		o.MQTT = freeAddress(t)
	}
	if o.HTTP == "" {
		o.HTTP = freeAddress(t)
	}
	g.mqtt, g.http = o.MQTT, o.HTTP
	if o.DataDir == "" {
		o.DataDir = filepath.Join(g.dir, "data")
	}
	if o.Window == "" {
		o.Window = "1s"
	}
	if o.Lateness == "" {
		o.Lateness = "10m"
	}
	if o.Late == "" {
		o.Late = "quarantine"
	}
	if o.Send == "" {
		o.Send = "aggregates"
	}
	if o.Grace == "" {
		o.Grace = "100ms"
	}
	if o.Journal == "" {
		o.Journal = "{ commit_interval: 2ms, segment_bytes: 128KiB, keep_bytes: 256MiB, max_bytes: 1GiB }"
	}
	if o.Token {
		g.write("influx.token", "e2e-token\n", 0o600)
		o.TokenSet = ", token_file: influx.token"
	}
	if o.Hook != "" {
		g.write("ops.whsec", hook.Secret+"\n", 0o600)
	}
	if o.Rules0 = o.Rules != ""; o.Rules0 {
		g.write("rules.d/e2e.yaml", o.Rules, 0o644)
	}
	g.options = o
	g.writeConfig()
	t.Cleanup(func() {
		if g.proc != nil && g.proc.Alive() {
			g.proc.Kill()
		}
		if t.Failed() && g.proc != nil {
			t.Logf("last output of the gateway:\n%s", tail(g.proc.Log.String(), 40))
		}
	})
	return g
}

func (g *gateway) writeConfig() {
	g.t.Helper()
	var b bytes.Buffer
	if err := configText.Execute(&b, g.options); err != nil {
		g.t.Fatal(err)
	}
	g.write("sluice.yaml", b.String(), 0o644)
}

// write puts a file beside the config file.
func (g *gateway) write(name, text string, mode os.FileMode) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		g.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		g.t.Fatal(err)
	}
}

// launch starts the process without waiting for anything.
func (g *gateway) launch() {
	g.t.Helper()
	p, err := proc.Start("sluice", nil, binary, "run", "--config", g.configFile)
	if err != nil {
		g.t.Fatal(err)
	}
	g.proc = p
}

// start starts the process and waits until it accepts MQTT connections.
func (g *gateway) start() time.Duration {
	g.t.Helper()
	g.launch()
	took, err := g.proc.WaitAccept(g.mqtt, 20*time.Second)
	if err != nil {
		g.t.Fatal(err)
	}
	return took
}

// stop asks the process to end, which it must do cleanly.
func (g *gateway) stop() {
	g.t.Helper()
	code, err := g.proc.Stop(15 * time.Second)
	if err != nil || code != 0 {
		g.t.Fatalf("after SIGTERM: exit code %d, want 0 (%v)\n%s", code, err, tail(g.proc.Log.String(), 40))
	}
}

// get fetches an HTTP path.
func (g *gateway) get(path string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + g.http + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, string(b), err
}

// metric sums the samples of a metric whose label text contains all parts, such as `outcome="accepted"`.
func (g *gateway) metric(name string, parts ...string) (float64, error) {
	code, body, err := g.get("/metrics")
	if err != nil || code != http.StatusOK {
		return 0, fmt.Errorf("GET /metrics: %d %v", code, err)
	}
	found, sum := false, 0.0
lines:
	for line := range strings.Lines(body) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			continue
		}
		i := strings.LastIndexByte(rest, ' ')
		for _, part := range parts {
			if !strings.Contains(rest[:i], part) {
				continue lines
			}
		}
		v, err := strconv.ParseFloat(rest[i+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("metric %s: %w", line, err)
		}
		found, sum = true, sum+v
	}
	if !found {
		return 0, fmt.Errorf("no metric %s with %v", name, parts)
	}
	return sum, nil
}

// wantMetric polls until a metric has a value.
func (g *gateway) wantMetric(want float64, name string, parts ...string) {
	g.t.Helper()
	eventually(g.t, 10*time.Second, fmt.Sprintf("metric %s %v", name, parts), func() error {
		got, err := g.metric(name, parts...)
		if err == nil && got != want {
			err = fmt.Errorf("got %v, want %v", got, want)
		}
		return err
	})
}

// reading is the payload of both sources.
type reading struct {
	Seq         uint64  `json:"seq"`
	TS          int64   `json:"ts"` // µs
	Temperature float64 `json:"temperature"`
	Humidity    float64 `json:"humidity"`
	Vibration   float64 `json:"vibration"`
}

func (r reading) payload() []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic(err) // numbers only: cannot happen
	}
	return b
}

func freeAddress(t *testing.T) string {
	t.Helper()
	port, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
