// Package configs holds no code: its tests load every configuration that is shipped.
package configs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway/config"
	"sluice/rules"
	"sluice/rules/notify"
	"sluice/rules/ruletest"
	"sluice/uplink/webhook"
)

// clearEnv keeps the SLUICE_ variables of whoever runs the tests out of them.
func clearEnv(t *testing.T) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "SLUICE_") || name == "CREDENTIALS_DIRECTORY" {
			t.Setenv(name, "")
		}
	}
}

func TestSluiceYAML_LoadsWithoutAWarning(t *testing.T) {
	clearEnv(t)
	c, err := config.Load("sluice.yaml")
	if err != nil {
		t.Fatalf("Load(sluice.yaml): %v", err)
	}
	if len(c.Warnings) != 0 {
		t.Errorf("warnings:\n%v", c.Warnings)
	}
	if len(c.Sources) == 0 {
		t.Error("sluice.yaml has no source")
	}
}

// The commented-out parts are what people switch on: they must be right as well.
func TestSluiceYAML_CommentedPartsLoad(t *testing.T) {
	clearEnv(t)
	text, err := os.ReadFile("sluice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"ops.whsec", "influx.token", "passwd", "acl"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		rest := strings.TrimLeft(line, " ")
		indent := line[:len(line)-len(rest)]
		if code, ok := strings.CutPrefix(rest, "# "); ok {
			word, _, _ := strings.Cut(strings.TrimSpace(code), " ")
			if strings.HasSuffix(word, ":") && word == strings.ToLower(word) && !strings.HasPrefix(code, "sluice.yaml") || strings.HasPrefix(strings.TrimLeft(code, " "), "- {") ||
				strings.HasPrefix(code, "  ") {
				line = indent + code
			}
		}
		if !strings.Contains(line, "cert.pem") { // a certificate is the reader's own
			lines = append(lines, line)
		}
	}
	path := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(strings.Join(lines, ""), `"127.0.0.1:1883"`, `"127.0.0.1:1884"`)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatalf("with every comment switched on: %v\n%s", err, strings.Join(lines, ""))
	}
	if len(c.Webhooks) != 2 || len(c.Uplink.Destinations) != 1 || len(c.MQTT.Listeners) != 2 || c.MQTT.PasswordFile == "" || c.Gateway.ID != "plant-7" {
		t.Errorf("the comments were not switched on: %+v", c)
	}
}

// selfSigned is a certificate that is its own authority, and its key, in PEM.
func selfSigned(t *testing.T) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func TestRemoteSiteYAML_LoadsWithoutAWarning(t *testing.T) {
	clearEnv(t)
	text, err := os.ReadFile("remote-site.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := selfSigned(t)
	for name, content := range map[string][]byte{
		"server.pem": cert, "devices-ca.pem": cert, "server.key": key, "passwd": nil, "acl": nil, "console.users": nil,
		"ops.whsec": []byte("x"), "influx.token": []byte("x"), "rules.d/site.yaml": nil, "sluice.yaml": text,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := config.Load(filepath.Join(dir, "sluice.yaml"))
	if err != nil || len(c.Warnings) != 0 {
		t.Fatalf("Load(remote-site.yaml): %v, %v", err, c.Warnings)
	}
}

func TestDestinationsYAML_LoadsWithoutAWarning(t *testing.T) {
	clearEnv(t)
	text, err := os.ReadFile("destinations.yaml")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"influx.token", "influx3.token", "kafka.password", "hub.creds", "bridge.password"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "sluice.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil || len(c.Warnings) != 0 {
		t.Fatalf("Load(destinations.yaml): %v, %v", err, c.Warnings)
	}
	types := map[string]bool{}
	for _, d := range c.Uplink.Destinations {
		types[d.Type] = true
	}
	if len(types) != 4 {
		t.Errorf("types %v, want one of each", types)
	}
}

func TestRuleFiles_Compile(t *testing.T) {
	names, err := config.RuleFiles(&config.Config{Rules: config.Rules{Files: []string{"rules.d/*.yaml"}}})
	if err != nil || len(names) == 0 {
		t.Fatalf("RuleFiles(rules.d/*.yaml) = %v, %v", names, err)
	}
	var files []rules.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, rules.File{Name: name, Data: data})
	}
	if _, err := rules.Parse(files); err != nil {
		t.Error(err)
	}
}

func TestRuleTests_Hold(t *testing.T) {
	names, _ := filepath.Glob("rules.d/*_test.yaml")
	if len(names) < 3 {
		t.Fatalf("only %d files of rule tests", len(names))
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		file, err := rules.ParseTests(rules.File{Name: name, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		var files []rules.File
		for _, r := range file.Rules {
			text, err := os.ReadFile(filepath.Join(filepath.Dir(name), r))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, rules.File{Name: r, Data: text})
		}
		set, err := rules.Parse(files)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range ruletest.Run(file, set, ruletest.Options{Default: notify.Receiver{GroupBy: []string{"alertname"}}, Body: body}) {
			for _, f := range r.Failures {
				t.Errorf("%s: %s: %s", name, r.Name, f.Text)
			}
		}
	}
}

// A file that no test loads is a file that is wrong next year. Scenarios are loaded by firmware-sim's tests, the files for Grafana and
// Prometheus by gateway's.
func TestConfigs_EveryFileIsLoadedBySomeTest(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		for _, known := range []string{"sluice.yaml", "remote-site.yaml", "destinations.yaml", "configs_test.go", "rules.d/*.yaml", "scenarios/*.yaml",
			"grafana-dashboard.json", "prometheus-alerts.yaml"} {
			if ok, _ := filepath.Match(known, path); ok {
				return nil
			}
		}
		t.Errorf("%s is loaded by no test", path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// body is what a webhook without settings is sent.
func body(_ int, told *notify.Notification) ([]byte, error) {
	n := &webhook.Notification{ID: "msg_test", Receiver: told.Receiver, GroupLabels: told.Group.Map()}
	for _, a := range told.Alerts {
		one := webhook.Alert{Status: "firing", Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), StartsAt: time.Unix(0, a.StartsAt).UTC()}
		if !a.Firing {
			one.Status, one.EndsAt = "resolved", time.Unix(0, a.EndsAt).UTC()
		}
		n.Alerts = append(n.Alerts, one)
	}
	return webhook.Alertmanager.Render(n)
}
