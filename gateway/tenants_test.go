package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/bcrypt"

	"sluice/gateway/console"
	"sluice/gateway/pipeline"
)

// certify writes a new certificate for 127.0.0.1, and returns it.
func certify(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"k.pem": {Type: "PRIVATE KEY", Bytes: keyDER}, "c.pem": {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// served is a gateway with users ada, an admin, and TLS, and two sites that publish: a, and b whose every name holds "other-tenant".
type served struct {
	t      *testing.T
	g      *gateway
	dir    string
	client *http.Client
	url    string
}

func serveTenants(t *testing.T) *served {
	t.Helper()
	dir, err := os.MkdirTemp("", "t") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	hash, err := bcrypt.GenerateFromPassword([]byte("ada-secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "users"), []byte("ada:admin:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	certify(t, dir, 1)
	text := `
gateway: { id: g, data_dir: data }
mqtt: { listeners: [ { address: "127.0.0.1:0" } ] }
sources: [ { name: line, topic: "sites/{site}/{device}/t", send: both, window: 1s, grace: 0s } ]
rules: { files: [ rules.yaml ] }
http: { address: "127.0.0.1:0", users_file: users, tls: { cert_file: c.pem, key_file: k.pem } }
`
	rulesText := `
groups: [ { name: g, rules: [ { alert: Warm, expr: temperature > 5 } ] } ]
`
	for name, text := range map[string]string{"sluice.yaml": text, "rules.yaml": rulesText} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := loadConfig(filepath.Join(dir, "sluice.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	s := &served{t: t, dir: dir}
	if s.g, err = openGateway(cfg, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.g.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	s.until("the gateway serves", s.g.ready.Load)
	s.url = "https://" + s.g.console.Addr().String()
	s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	return s
}

func (s *served) until(what string, ok func() bool) {
	s.t.Helper()
	for by := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(by) {
			s.t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// publish sends three readings of each site; above 5 they alert.
func (s *served) publish(temperature int) {
	s.t.Helper()
	c := paho.NewClient(paho.NewClientOptions().AddBroker("tcp://" + s.g.broker.Addrs()[0].String()).SetClientID("p"))
	if k := c.Connect(); !k.WaitTimeout(10*time.Second) || k.Error() != nil {
		s.t.Fatal(k.Error())
	}
	defer c.Disconnect(100)
	for _, topic := range []string{"sites/a/one/t", "sites/other-tenant-b/other-tenant-two/t"} {
		for i := range 3 {
			if k := c.Publish(topic, 1, false, fmt.Sprintf(`{"temperature":%d,"humidity":5}`, temperature+i)); !k.WaitTimeout(10*time.Second) || k.Error() != nil {
				s.t.Fatal(k.Error())
			}
		}
	}
}

// ask makes a request with the token, "" for none, and returns the code and the whole answer.
func (s *served) ask(token, method, path string, form url.Values) (code int, text string) {
	s.t.Helper()
	var content io.Reader
	if form != nil {
		content = strings.NewReader(form.Encode())
	}
	r, err := http.NewRequest(method, s.url+path, content)
	if err != nil {
		s.t.Fatal(err)
	}
	if form != nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// command runs sluice against the gateway over its socket, and returns what it prints.
func (s *served) command(args ...string) string {
	s.t.Helper()
	var out, errs bytes.Buffer
	if code := execute(s.t.Context(), append(args, "--config", filepath.Join(s.dir, "sluice.yaml")), strings.NewReader(""), &out, &errs); code != 0 {
		s.t.Fatalf("sluice %v = %d: %s", args, code, errs.String())
	}
	return out.String()
}

// One gateway, two tenants: a token of one gets nothing of the other, whatever it asks for.
func TestTenants_StayApartInAPIAndPromQL(t *testing.T) {
	s := serveTenants(t)
	s.publish(7)
	all := strings.TrimSpace(s.command("token", "add", "all", "--role", "viewer"))
	mine := strings.TrimSpace(s.command("token", "add", "mine", "--role", "admin", "--scope", "site=a"))
	s.until("both tenants are in the history and alert", func() bool {
		_, text := s.ask(all, "GET", "/prometheus/api/v1/query?query=line_temperature", nil)
		_, alerts := s.ask(all, "GET", "/api/v1/alerts", nil)
		return strings.Contains(text, "other-tenant-two") && strings.Contains(text, `"one"`) && strings.Contains(alerts, "other-tenant-two") && strings.Contains(alerts, `"one"`)
	})
	if code, _ := s.ask("", "GET", "/prometheus/api/v1/query?query=line_temperature", nil); code != 401 {
		t.Errorf("PromQL without a token = %d, want 401", code)
	}
	now := fmt.Sprint(time.Now().Unix())
	for _, q := range []string{
		`line_temperature`, `{site="other-tenant-b"}`, `{site!="a"}`, `{site=~".*"}`, `{site=~".+",__name__=~".+"}`, `{__name__=~".+"}`, `{site="a"} or {site="other-tenant-b"}`,
		`line_temperature{site="other-tenant-b",site="a"}`, `count by (site,device) ({__name__=~".+"})`, `group by (device) (last_over_time({__name__=~".+"}[1h]))`,
		`label_replace({__name__=~".+"}, "x", "$1", "device", "(.*)")`, `max_over_time(line_temperature{site=~"o.*"}[1h:1m])`, `line_temperature @ ` + now, `line_temperature offset -1m`,
		`absent({site="other-tenant-b",device="other-tenant-two"}) * 0`, `topk(100, {__name__=~".+"})`, `line_temperature and on() line_humidity{site!="a"}`,
	} {
		for _, path := range []string{"query?time=" + now, "query_range?start=" + now + "&end=" + now + "&step=1", "format_query?"} {
			form := url.Values{"query": {q}}
			_, get := s.ask(mine, "GET", "/prometheus/api/v1/"+path+"&"+form.Encode(), nil)
			_, post := s.ask(mine, "POST", "/prometheus/api/v1/"+path, form)
			for _, text := range []string{get, post} {
				// What the query itself says may come back, as in absent() and format_query; values and names of the other may not.
				if strings.Contains(text, "other-tenant") && !strings.Contains(q, "other-tenant") || strings.Contains(text, `"device":"other-tenant-two"`) && !strings.Contains(q, "absent") {
					t.Errorf("%s %s tells %s", path, q, text)
				}
			}
		}
	}
	for _, path := range []string{
		"series?match[]={__name__=~%22.%2B%22}", "series?match[]={__name__=~%22.%2B%22,site!=%22a%22}", "labels", "label/site/values", "label/device/values", "label/device/values?match[]={__name__=~%22.%2B%22,site!=%22a%22}",
		"label/__name__/values", "metadata", "query_exemplars?query=x", "rules", "alerts", "status/buildinfo",
	} {
		if code, text := s.ask(mine, "GET", "/prometheus/api/v1/"+path, nil); strings.Contains(text, "other-tenant") || code != 200 {
			t.Errorf("%s = %d %s", path, code, text)
		}
	}
	for _, path := range []string{
		"/api/v1/status", "/api/v1/alerts", "/api/v1/silences", "/api/v1/rules", "/api/v1/devices", "/api/v1/devices?search=other", "/api/v1/devices?label=site:other-tenant-b",
		"/api/v1/series", "/api/v1/series?search=other", "/api/v1/outboxes", "/api/v1/quarantine", "/api/v1/ledger", "/api/v1/audit", "/api/v1/tokens", "/api/v1/jobs", "/metrics", "/readyz",
		"/api/v1/session", "/api/v1/backup",
	} {
		if code, text := s.ask(mine, "GET", path, nil); strings.Contains(text, "other-tenant") || code != 200 && code != 403 && code != 404 {
			t.Errorf("%s = %d %s", path, code, text)
		}
	}
	if _, text := s.ask(mine, "GET", "/api/v1/alerts", nil); !strings.Contains(text, `"one"`) {
		t.Errorf("a tenant does not see its own alerts: %s", text)
	}
}

// What operators do is listed with author and role, and outlives the process.
func TestAudit_IsInJournalAndCheckpoint(t *testing.T) {
	s := serveTenants(t)
	id := strings.TrimSpace(s.command("silence", "add", "device=*", "--comment", "moving house"))
	s.command("token", "add", "scraper")
	if code, _ := s.ask("sluice_made_up", "GET", "/api/v1/audit", nil); code != 401 {
		t.Errorf("an audit for a made-up token = %d", code)
	}
	list := func() (ops string) {
		var l console.AuditList
		if err := json.Unmarshal([]byte(s.command("audit", "--json")), &l); err != nil {
			t.Fatal(err)
		}
		for _, e := range l.Entries {
			ops += e.Role + " " + e.Op + " " + e.Detail + "; "
		}
		return ops
	}
	if got := list(); !strings.HasPrefix(got, "admin token_add ") || !strings.Contains(got, "; admin silence "+id+" device=*: moving house; ") {
		t.Errorf("the audit lists %s", got)
	}
	// A checkpoint holds the list, and so does the journal without one.
	before, err := s.g.runner.Audits(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f := pipeline.NewFold()
	cursor := s.g.journal.Cursor(1)
	defer cursor.Close()
	for {
		rec, ok, err := cursor.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			break
		}
		if err := f.Apply(&rec, nowhere{}); err != nil {
			t.Fatal(err)
		}
	}
	restored, err := pipeline.RestoreFold(f.Snapshot(nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]pipeline.Audit{"journal": f.Audits(), "checkpoint": restored.Audits()} {
		if diff := cmp.Diff(before, got); diff != "" {
			t.Errorf("%s: - before + after:\n%s", name, diff)
		}
	}
}

func TestConsole_TLSFollowsItsFilesAndTakesNoOldProtocol(t *testing.T) {
	s := serveTenants(t)
	serial := func(c *tls.Config) (int64, error) {
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), c)
		if err != nil {
			return 0, err
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if n, err := serial(&tls.Config{InsecureSkipVerify: true}); n != 1 || err != nil {
		t.Fatalf("certificate %d, %v, want 1", n, err)
	}
	for name, c := range map[string]*tls.Config{
		"TLS 1.1": {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10},
		"CBC":     {InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		if _, err := serial(c); err == nil {
			t.Errorf("a handshake with %s succeeds", name)
		}
	}
	certify(t, s.dir, 2)
	s.until("the new certificate is in force", func() bool {
		n, err := serial(&tls.Config{InsecureSkipVerify: true})
		return err == nil && n == 2
	})
	// The command verifies it with --ca-file, and says what is wrong without.
	ask := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := execute(t.Context(), append([]string{"alerts", "--address", s.url}, args...), strings.NewReader(""), &out, &errs)
		return code, out.String() + errs.String()
	}
	if code, text := ask(); code != 1 || !strings.Contains(text, "certificate") {
		t.Errorf("sluice alerts without --ca-file = %d %s", code, text)
	}
	ca := filepath.Join(s.dir, "c.pem")
	if code, text := ask("--ca-file", ca); code != 1 || !strings.Contains(text, "--token-file") {
		t.Errorf("sluice alerts without a token = %d %s", code, text)
	}
	token := filepath.Join(s.dir, "token")
	if err := os.WriteFile(token, []byte(s.command("token", "add", "x")), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, text := ask("--ca-file", ca, "--token-file", token); code != 0 {
		t.Errorf("sluice alerts with a token = %d %s", code, text)
	}
	// The session's cookie is bound to TLS and to this host.
	resp, err := s.client.Post(s.url+"/api/v1/login", "application/json", strings.NewReader(`{"user":"ada","password":"ada-secret"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if set := resp.Header.Get("Set-Cookie"); !strings.HasPrefix(set, "__Host-sluice=") || !strings.Contains(set, "; Secure") {
		t.Errorf("Set-Cookie = %q", set)
	}
}

// A stream tells a tenant of its own readings and alerts, and ends with its token.
func TestTenants_StreamsAreConfinedAndEndWithTheirToken(t *testing.T) {
	s := serveTenants(t)
	var made console.CreatedToken
	if err := json.Unmarshal([]byte(s.command("token", "add", "mine", "--scope", "site=a", "--json")), &made); err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(t.Context(), "GET", s.url+"/api/v1/events?readings=all", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+made.Text)
	stream := &http.Client{Transport: s.client.Transport}
	resp, err := stream.Do(r)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("GET /api/v1/events = %v, %v", resp, err)
	}
	defer resp.Body.Close()
	told := make(chan string, 1000)
	go func() {
		defer close(told)
		lines := bufio.NewScanner(resp.Body)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			told <- lines.Text()
		}
	}()
	heard := map[string]bool{}
	again := time.NewTicker(200 * time.Millisecond) // readings are collected once somebody watches
	defer again.Stop()
	warm := false
	for by, revoked := time.After(20*time.Second), false; ; {
		select {
		case text, ok := <-told:
			if !ok && !revoked {
				t.Fatalf("the stream ended by itself after %v", heard)
			}
			if !ok {
				return
			}
			if strings.Contains(text, "other-tenant") {
				t.Fatalf("the stream tells %s", text)
			}
			if kind, ok := strings.CutPrefix(text, "event: "); ok {
				heard[kind] = true
			}
			if !revoked && heard["status"] && heard["reading"] && heard["alert"] {
				revoked = true
				s.command("token", "rm", made.ID)
			}
		case <-again.C:
			warm = !warm
			if warm {
				s.publish(7)
			} else {
				s.publish(0)
			}
		case <-by:
			t.Fatalf("after 20 s the stream told %v, and goes on", heard)
		}
	}
}
