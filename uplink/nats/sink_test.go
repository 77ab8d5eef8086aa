package nats

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"go.uber.org/goleak"

	"sluice/uplink"
	"sluice/uplink/stream"
	"sluice/uplink/stream/streamtest"
)

// server is a real nats-server with its own folder; it keeps its port over restarts.
type server struct {
	t    testing.TB
	path string
	conf string
	url  string
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func newServer(t testing.TB, more string) *server {
	t.Helper()
	s := &server{t: t, path: streamtest.Program(t, "nats-server")}
	dir, port := t.TempDir(), streamtest.FreePort(t)
	s.url = fmt.Sprintf("nats://127.0.0.1:%d", port)
	s.conf = filepath.Join(dir, "nats.conf")
	text := fmt.Sprintf("listen: \"127.0.0.1:%d\"\nmax_payload: 64KB\n%s\n", port, strings.ReplaceAll(more, "{dir}", dir))
	if err := os.WriteFile(s.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.kill)
	s.start()
	return s
}

const withJetStream = "jetstream: { store_dir: \"{dir}/js\" }"

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.path, "-c", s.conf)
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	streamtest.Eventually(s.t, 10*time.Second, "nats-server answers", func() bool {
		nc, err := nats.Connect(s.url, nats.NoReconnect(), nats.Timeout(time.Second))
		if err == nil {
			nc.Close()
		}
		return err == nil || errors.Is(err, nats.ErrAuthorization) || strings.Contains(err.Error(), "tls") || strings.Contains(err.Error(), "secure")
	})
}

func (s *server) signal(sig syscall.Signal) {
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) kill() {
	if s.cmd != nil && s.cmd.ProcessState == nil {
		s.cmd.Process.Kill()
		s.cmd.Wait()
	}
}

// admin is a connection of the test's own.
func (s *server) admin(options ...nats.Option) jetstream.JetStream {
	s.t.Helper()
	nc, err := nats.Connect(s.url, options...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		s.t.Fatal(err)
	}
	return js
}

func (s *server) stream(c jetstream.StreamConfig) jetstream.Stream {
	s.t.Helper()
	if c.Name == "" {
		c.Name, c.Subjects = "EDGE", []string{"edge.>"}
	}
	st, err := s.admin().CreateStream(context.Background(), c)
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// stored reads everything in a stream, in order.
func stored(t *testing.T, st jetstream.Stream) (msgs []*jetstream.RawStreamMsg) {
	t.Helper()
	info, err := st.Info(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq && seq > 0; seq++ {
		m, err := st.GetMsg(context.Background(), seq)
		if err != nil {
			t.Fatal(err)
		}
		msgs = append(msgs, m)
	}
	return msgs
}

func sinkFor(t testing.TB, url string, change func(*Config)) *Sink {
	t.Helper()
	c := Config{URL: url, Stream: "EDGE", Subject: "edge.{site}", Timeout: 10 * time.Second}
	if change != nil {
		change(&c)
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func kind(t *testing.T, err error, want uplink.Kind, words ...string) *uplink.Error {
	t.Helper()
	var e *uplink.Error
	if !errors.As(err, &e) || e.Kind != want {
		t.Fatalf("got %v, want kind %s", err, want)
	}
	for _, w := range words {
		if !strings.Contains(e.Error(), w) {
			t.Fatalf("got %q, want %q in it", e, w)
		}
	}
	return e
}

func TestSink_StoresRecordsInOrderWithTheirIDs(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{})
	s := sinkFor(t, srv.url, nil)
	const n = 3 * inFlight
	if err := s.Deliver(t.Context(), streamtest.Records(0, n)); err != nil {
		t.Fatal(err)
	}
	got := stored(t, st)
	if len(got) != n {
		t.Fatalf("%d messages, want %d", len(got), n)
	}
	for i, m := range got {
		r := streamtest.Parse(t, m.Data)
		if r.Window() != i || m.Subject != "edge.plant_7" || m.Header.Get("Nats-Msg-Id") != r.ID+"."+r.Version || m.Header.Get("Content-Type") != "application/json" {
			t.Fatalf("message %d: window %d, subject %s, headers %v", i, r.Window(), m.Subject, m.Header)
		}
	}
}

func TestSink_ARedeliveredRecordIsStoredOnceAndACorrectionIsStored(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{})
	recs := streamtest.Records(0, 20)
	for range 3 { // a gateway that crashed before it noted the acknowledgements
		if err := sinkFor(t, srv.url, nil).Deliver(t.Context(), recs); err != nil {
			t.Fatal(err)
		}
	}
	s := sinkFor(t, srv.url, nil)
	if err := s.Deliver(t.Context(), []uplink.Record{streamtest.Record(streamtest.Point(3, 2), 21)}); err != nil {
		t.Fatal(err)
	}
	got := stored(t, st)
	if len(got) != 21 {
		t.Fatalf("%d messages, want 20 and a correction", len(got))
	}
	was, is := streamtest.Parse(t, got[3].Data), streamtest.Parse(t, got[20].Data)
	if is.ID != was.ID || is.Version <= was.Version || is.Fields["temperature_count"] != 2 {
		t.Errorf("correction %+v of %+v", is, was)
	}
}

func TestSink_OneRefusedRecordIsQuarantinedWithTheServersWords(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>"}, MaxMsgSize: 2000})
	s := sinkFor(t, srv.url, nil)
	recs := streamtest.Records(0, 40)
	recs[17] = streamtest.Record(streamtest.Big(17, 5000), 18)
	e := kind(t, s.Deliver(t.Context(), recs), uplink.KindRejected, "message size exceeds maximum allowed (10054)")
	if len(e.Refused) != 1 || e.Refused[0].Index != 17 {
		t.Fatalf("refused %+v", e.Refused)
	}
	rig := streamtest.NewRig(t, s, uplink.ForwarderOptions{Describe: stream.Describe})
	for i := range 40 {
		p := streamtest.Point(i, 1)
		if i == 17 {
			p = streamtest.Big(i, 5000)
		}
		rig.Put(t, uint64(i+1), p)
	}
	rig.Drained(t, 10*time.Second)
	if items := rig.Quarantined(t); len(items) != 1 || !strings.Contains(items[0].Detail, "10054") || !strings.Contains(items[0].Points, `"note"`) {
		t.Fatalf("quarantined %+v", items)
	}
	if got := stored(t, st); len(got) != 39 {
		t.Errorf("%d stored, want 39", len(got))
	}
}

func TestSink_NamesRecordsBeyondTheServersPayload(t *testing.T) {
	srv := newServer(t, withJetStream)
	srv.stream(jetstream.StreamConfig{})
	recs := streamtest.Records(0, 3)
	recs[1] = streamtest.Record(streamtest.Big(1, 65_000), 2)
	e := kind(t, sinkFor(t, srv.url, nil).Deliver(t.Context(), recs), uplink.KindRejected)
	if len(e.Refused) != 1 || e.Refused[0].Index != 1 || e.Refused[0].Reason != "too_large" {
		t.Errorf("refused %+v", e.Refused)
	}
}

func TestSink_WhatSomeoneMustSetRightIsAMatterOfConfiguration(t *testing.T) {
	srv := newServer(t, withJetStream)
	recs := streamtest.Records(0, 3)
	s := sinkFor(t, srv.url, nil)
	kind(t, s.Deliver(t.Context(), recs), uplink.KindConfig, "stream EDGE: stream not found (10059)")
	srv.stream(jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.*"}})
	srv.stream(jetstream.StreamConfig{Name: "OTHER", Subjects: []string{"other.*"}})
	if err := s.Deliver(t.Context(), recs); err != nil {
		t.Errorf("after the stream was made: %v", err)
	}
	stray := sinkFor(t, srv.url, func(c *Config) { c.Subject = "stray.{site}" })
	kind(t, stray.Deliver(t.Context(), recs), uplink.KindConfig, "does not take the subject", "edge.*")
	other := sinkFor(t, srv.url, func(c *Config) { c.Subject = "other.{site}" })
	kind(t, other.Deliver(t.Context(), recs), uplink.KindConfig, "another stream than EDGE")
	plain := newServer(t, "")
	kind(t, sinkFor(t, plain.url, nil).Deliver(t.Context(), recs), uplink.KindConfig, "jetstream not enabled")
	lost := sinkFor(t, srv.url, func(c *Config) { c.CredentialsFile = filepath.Join(t.TempDir(), "edge.creds") })
	kind(t, lost.Deliver(t.Context(), recs), uplink.KindConfig, "edge.creds")
}

func TestSink_AFullStreamIsRetriedWithTheServersWords(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>"}, MaxMsgs: 5, Discard: jetstream.DiscardNew})
	s := sinkFor(t, srv.url, nil)
	recs := streamtest.Records(0, 10)
	kind(t, s.Deliver(t.Context(), recs), uplink.KindRetry, "maximum messages exceeded")
	if err := st.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Deliver(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	got := stored(t, st)
	if len(got) != 5 || streamtest.Parse(t, got[0].Data).Window() != 5 {
		t.Errorf("%d messages, want what was not stored before", len(got))
	}
}

func TestSink_UsersAndTheirRightsAreTheServers(t *testing.T) {
	srv := newServer(t, withJetStream+`
accounts: { $SYS: { users: [] }, E: { jetstream: enabled, users: [
  { user: admin, password: "s3cret" },
  { user: edge, password: "s3cret" },
  { user: blind, password: "s3cret", permissions: { publish: { allow: ["edge.>"] } } },
  { user: muted, password: "s3cret", permissions: { publish: { allow: ["$JS.API.>", "_INBOX.>"] } } }
] } }`)
	recs := streamtest.Records(0, 700)
	if _, err := srv.admin(nats.UserInfo("admin", "s3cret")).CreateStream(t.Context(), jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>"}}); err != nil {
		t.Fatal(err)
	}
	as := func(user, password string) error {
		return sinkFor(t, srv.url, func(c *Config) { c.Username, c.Password = user, password }).Deliver(t.Context(), recs)
	}
	if err := as("edge", "s3cret"); err != nil {
		t.Error(err)
	}
	if e := kind(t, as("edge", "wr0ng"), uplink.KindConfig, "Authorization Violation"); strings.Contains(e.Error(), "wr0ng") {
		t.Errorf("the password is in %q", e)
	}
	kind(t, as("", ""), uplink.KindConfig, "Authorization Violation")
	start := time.Now()
	kind(t, as("muted", "s3cret"), uplink.KindConfig, "Permissions Violation for Publish to \"edge.plant_7\"")
	kind(t, as("blind", "s3cret"), uplink.KindConfig, "Permissions Violation for Publish to \"$JS.API.STREAM.INFO.EDGE\"")
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("missing rights took %s", took)
	}
}

func TestSink_ChecksTheServersCertificate(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	dir := t.TempDir()
	pair := web.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	srv := newServer(t, fmt.Sprintf("%s\ntls: { cert_file: %q, key_file: %q }", withJetStream,
		write("c.pem", "CERTIFICATE", pair.Certificate[0]), write("k.pem", "PRIVATE KEY", key)))
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	js := srv.admin(nats.Secure(&tls.Config{RootCAs: roots}))
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "EDGE", Subjects: []string{"edge.>"}}); err != nil {
		t.Fatal(err)
	}
	recs := streamtest.Records(0, 3)
	for _, scheme := range []string{"nats", "tls"} {
		url := strings.Replace(srv.url, "nats", scheme, 1)
		good := sinkFor(t, url, func(c *Config) { c.TLS = &tls.Config{RootCAs: roots} })
		if err := good.Deliver(t.Context(), recs); err != nil {
			t.Errorf("%s with its authority: %v", scheme, err)
		}
		kind(t, sinkFor(t, url, nil).Deliver(t.Context(), recs), uplink.KindConfig, "certificate")
	}
}

func TestSink_NeverSpeaksInTheClearWhereTLSIsConfigured(t *testing.T) {
	srv := newServer(t, withJetStream)
	srv.stream(jetstream.StreamConfig{})
	s := sinkFor(t, srv.url, func(c *Config) { c.TLS = &tls.Config{} })
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig, "secure connection not available")
}

func TestSink_AServerThatSaysNothingIsARetryWithinTheTimeout(t *testing.T) {
	address := streamtest.Mute(t)
	for _, scheme := range []string{"nats", "tls", "ws"} {
		s := sinkFor(t, scheme+"://"+address, func(c *Config) { c.Timeout = 500 * time.Millisecond })
		start := time.Now()
		kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	}
}

func TestSink_NobodyListeningIsARetryAtOnce(t *testing.T) {
	s := sinkFor(t, fmt.Sprintf("nats://127.0.0.1:%d", streamtest.FreePort(t)), nil)
	start := time.Now()
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry, "no server")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestSink_AServerThatHangsEndsWithTheTimeout(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{})
	s := sinkFor(t, srv.url, func(c *Config) { c.Timeout = time.Second })
	if err := s.Deliver(t.Context(), streamtest.Records(0, 3)); err != nil {
		t.Fatal(err)
	}
	srv.signal(syscall.SIGSTOP)
	for _, what := range []string{"on a connection that is there", "on a new one"} {
		start := time.Now()
		kind(t, s.Deliver(t.Context(), streamtest.Records(3, 3000)), uplink.KindRetry)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("%s: it took %s", what, took)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	kind(t, sinkFor(t, srv.url, nil).Deliver(ctx, streamtest.Records(3, 6)), uplink.KindRetry)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("cancelled, it took %s", took)
	}
	srv.signal(syscall.SIGCONT)
	if err := s.Deliver(t.Context(), streamtest.Records(3, 3000)); err != nil {
		t.Fatal(err)
	}
	if got := stored(t, st); len(got) != 3000 {
		t.Errorf("%d messages, want each of 3000 once", len(got))
	}
}

// The server is killed in the middle and comes back with what it had stored.
func TestSink_EndToEndOverAKillOfTheServer(t *testing.T) {
	srv := newServer(t, withJetStream)
	st := srv.stream(jetstream.StreamConfig{})
	s := sinkFor(t, srv.url, nil)
	rig := streamtest.NewRig(t, s, uplink.ForwarderOptions{BatchRecords: 50})
	const n = 3000
	for i := range n {
		rig.Put(t, uint64(i+1), streamtest.Point(i, 1))
		if i == n/2 {
			streamtest.Eventually(t, 10*time.Second, "something was delivered", func() bool { return rig.Outbox.Counters().Delivered > 0 })
			srv.kill()
		}
	}
	streamtest.Eventually(t, 10*time.Second, "the loss was noticed", func() bool { return rig.Forwarder.Status().State == uplink.BackingOff })
	srv.start()
	rig.Drained(t, 30*time.Second)
	seen := map[string]int{}
	highest := -1
	for _, m := range stored(t, st) {
		r := streamtest.Parse(t, m.Data)
		seen[r.ID]++
		highest = max(highest, r.Window())
	}
	if len(seen) != n || highest != n-1 {
		t.Errorf("%d windows up to %d, want %d", len(seen), highest, n)
	}
	if c := rig.Outbox.Counters(); c.Delivered != n {
		t.Errorf("counters %+v", c)
	}
}

func TestNew_RefusesWhatNoServerTakes(t *testing.T) {
	good := Config{URL: "nats://h:4222", Stream: "EDGE", Subject: "edge.{site}"}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Config){
		"no url":         func(c *Config) { c.URL = "" },
		"another scheme": func(c *Config) { c.URL = "http://h" },
		"password":       func(c *Config) { c.URL = "nats://u:p@h" },
		"one of two":     func(c *Config) { c.URL = "nats://a:1,b" },
		"no stream":      func(c *Config) { c.Stream = "" },
		"stream":         func(c *Config) { c.Stream = "a.b" },
		"no subject":     func(c *Config) { c.Subject = "" },
		"wildcard":       func(c *Config) { c.Subject = "edge.*" },
		"rest":           func(c *Config) { c.Subject = "edge.>" },
		"space":          func(c *Config) { c.Subject = "edge.a b" },
		"empty token":    func(c *Config) { c.Subject = "edge..a" },
		"template":       func(c *Config) { c.Subject = "edge.{site" },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAppendToken_IsOneTokenAlways(t *testing.T) {
	for value, want := range map[string]string{"a.b*c>d e\tf\x7f": "a_b_c_d_e_f_", "plant-7": "plant-7", "ü": "ü"} {
		if got := string(appendToken(nil, value)); got != want {
			t.Errorf("%q: got %q, want %q", value, got, want)
		}
	}
}

func TestCovered_ReadsWildcards(t *testing.T) {
	for _, tc := range []struct {
		pattern, subject string
		want             bool
	}{
		{"a.b", "a.b", true}, {"a.*", "a.b", true}, {"a.>", "a.b.c", true}, {">", "a", true}, {"a.*.c", "a.b.c", true},
		{"a.*", "a", false}, {"a.>", "a", false}, {"a.*", "a.b.c", false}, {"a", "a.b", false}, {"*.b", "a.c", false},
	} {
		if got := covered([]string{"zzz", tc.pattern}, tc.subject); got != tc.want {
			t.Errorf("covered(%s, %s) = %v", tc.pattern, tc.subject, got)
		}
	}
}

func TestSink_CloseEndsWhatItStarted(t *testing.T) {
	srv := newServer(t, withJetStream)
	srv.stream(jetstream.StreamConfig{})
	before := goleak.IgnoreCurrent()
	s := sinkFor(t, srv.url, nil)
	if err := s.Deliver(t.Context(), streamtest.Records(0, 30)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	down := sinkFor(t, fmt.Sprintf("nats://127.0.0.1:%d", streamtest.FreePort(t)), nil)
	kind(t, down.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
	lost := sinkFor(t, srv.url, func(c *Config) { c.Stream = "NONE" })
	kind(t, lost.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig)
	streamtest.Eventually(t, 5*time.Second, "nothing is left", func() bool { return goleak.Find(before) == nil })
}

// Whatever the configuration says and devices call themselves, a subject is one that every server takes.
func FuzzSubject(f *testing.F) {
	f.Add("edge.{site}", "plant 7")
	f.Add("{site}.x{site}{site}", "a.b*>")
	f.Add("a..b", "")
	f.Add("{", "\xff\x00")
	f.Fuzz(func(t *testing.T, template, value string) {
		s, err := New(Config{URL: "nats://h", Stream: "S", Subject: template})
		if err != nil {
			return
		}
		p := streamtest.Point(0, 1)
		p.Labels[2].Value = value
		for _, token := range strings.Split(string(s.subject.Append(nil, p)), ".") {
			if token == "" || strings.ContainsAny(token, " \t\r\n*>\x00") {
				t.Fatalf("template %q with %q gives token %q", template, value, token)
			}
		}
	})
}

func BenchmarkSink_Deliver5000(b *testing.B) {
	srv := newServer(b, withJetStream)
	srv.stream(jetstream.StreamConfig{})
	s := sinkFor(b, srv.url, nil)
	recs := streamtest.Records(0, 5000)
	lsn := uint64(0)
	b.ReportAllocs()
	for b.Loop() {
		for i := range recs { // other records each time, so that none is a repeat
			lsn++
			recs[i].LSN, recs[i].Cause.LSN = lsn, lsn
		}
		if err := s.Deliver(b.Context(), recs); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(5000*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
