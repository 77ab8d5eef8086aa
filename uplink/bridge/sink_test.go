package bridge

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"sluice/uplink"
	"sluice/uplink/stream"
	"sluice/uplink/stream/streamtest"
)

func sinkFor(t testing.TB, url string, change func(*Config)) *Sink {
	t.Helper()
	c := Config{URL: url, Topic: "edge/{site}/{device}", ClientID: "sluice-test", Timeout: 10 * time.Second}
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

func TestSink_PublishesRecordsInOrder(t *testing.T) {
	m := newMosquitto(t, "")
	in := m.subscribe(nil)
	s := sinkFor(t, "mqtt://"+m.address(), nil)
	const n = 450
	for from := 0; from < n; from += 150 {
		if err := s.Deliver(t.Context(), streamtest.Records(from, from+150)); err != nil {
			t.Fatal(err)
		}
	}
	for i, r := range in.wait(t, n) {
		if want := fmt.Sprintf("edge/plant 7/d%d", i%3); r.Window() != i || r.topic != want {
			t.Fatalf("message %d: window %d to %s, want %s", i, r.Window(), r.topic, want)
		}
	}
}

func TestSink_ARedeliveredRecordHasTheSameIDAndACorrectionAnother(t *testing.T) {
	m := newMosquitto(t, "")
	in := m.subscribe(nil)
	recs := streamtest.Records(0, 1)
	for range 2 { // a gateway that crashed before it noted the acknowledgement
		s := sinkFor(t, "mqtt://"+m.address(), nil)
		if err := s.Deliver(t.Context(), recs); err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
	s := sinkFor(t, "mqtt://"+m.address(), nil)
	if err := s.Deliver(t.Context(), []uplink.Record{streamtest.Record(streamtest.Point(0, 2), 9)}); err != nil {
		t.Fatal(err)
	}
	got := in.wait(t, 3)
	if got[0].ID != got[1].ID || got[0].Version != got[1].Version {
		t.Errorf("redelivered as %+v, was %+v", got[1], got[0])
	}
	if got[2].ID != got[0].ID || got[2].Version <= got[0].Version || got[2].Fields["temperature_count"] != 2 {
		t.Errorf("correction %+v of %+v", got[2], got[0])
	}
}

// Paho completes the tokens of messages that nobody acknowledged, with and without an error. They must not count.
func TestSink_NothingIsDeliveredWithoutItsPUBACK(t *testing.T) {
	m := newMosquitto(t, "")
	w := newWire(t, m.address())
	s := sinkFor(t, w.url(), nil)
	recs := streamtest.Records(0, 60)
	w.set(true, 40) // 40 reach the broker, and no acknowledgement comes back
	kind(t, s.Deliver(t.Context(), recs), uplink.KindRetry, "closed the connection")
	w.set(false, 0)
	if err := s.Deliver(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	published, acked := w.seen()
	for i := range 60 {
		if !acked[i] {
			t.Errorf("window %d counts as delivered without a PUBACK", i)
		}
		if i < 40 && published[i] != 2 {
			t.Errorf("window %d was published %d times, want again", i, published[i])
		}
	}
}

func TestSink_ABatchThatBrokeOffGoesOnWhereItStood(t *testing.T) {
	m := newMosquitto(t, "")
	w := newWire(t, m.address())
	s := sinkFor(t, w.url(), func(c *Config) { c.InFlight = 5 })
	recs := streamtest.Records(0, 60)
	for range 4 {
		w.set(false, 15)
		kind(t, s.Deliver(t.Context(), recs), uplink.KindRetry)
	}
	w.set(false, 0)
	if err := s.Deliver(t.Context(), recs); err != nil {
		t.Fatal(err)
	}
	published, acked := w.seen()
	total := 0
	for i := range 60 {
		total += published[i]
		if !acked[i] {
			t.Errorf("window %d has no PUBACK", i)
		}
	}
	if total > 60+4*5 {
		t.Errorf("%d publishes for 60 records and 4 cuts with 5 in flight", total)
	}
}

func TestSink_AMessageThatClosesTheConnectionIsQuarantinedOnProof(t *testing.T) {
	for _, at := range []int{0, 17, 39} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			m := newMosquitto(t, "max_packet_size 2000")
			in := m.subscribe(nil)
			s := sinkFor(t, "mqtt://"+m.address(), nil)
			rig := streamtest.NewRig(t, s, uplink.ForwarderOptions{Describe: stream.Describe})
			for i := range 40 {
				p := streamtest.Point(i, 1)
				if i == at {
					p = streamtest.Big(i, 5000)
				}
				rig.Put(t, uint64(i+1), p)
			}
			rig.Drained(t, 20*time.Second)
			items := rig.Quarantined(t)
			if len(items) != 1 || items[0].Reason != "rejected" || !strings.Contains(items[0].Detail, "closed the connection at this one") || !strings.Contains(items[0].Points, `"note"`) {
				t.Fatalf("quarantined %+v", items)
			}
			seen := map[int]bool{}
			for _, r := range in.wait(t, 39) {
				seen[r.Window()] = true
			}
			if len(seen) != 39 || seen[at] {
				t.Errorf("%d windows, window %d among them: %v", len(seen), at, seen[at])
			}
		})
	}
}

// After a restart the sink has seen nothing that the broker takes, and the forwarder waits for the one record it has.
func TestSink_TheFirstMessageEverSentDoesNotBlockTheRest(t *testing.T) {
	m := newMosquitto(t, "max_packet_size 2000")
	in := m.subscribe(nil)
	rig := streamtest.NewRig(t, sinkFor(t, "mqtt://"+m.address(), nil), uplink.ForwarderOptions{MinBackoff: 10 * time.Millisecond, MaxBackoff: 20 * time.Millisecond})
	rig.Put(t, 1, streamtest.Big(0, 5000))
	streamtest.Eventually(t, 10*time.Second, "it is tried", func() bool { return rig.Forwarder.Status().State == uplink.BackingOff })
	rig.Put(t, 2, streamtest.Point(1, 1))
	rig.Drained(t, 20*time.Second)
	if items := rig.Quarantined(t); len(items) != 1 {
		t.Errorf("quarantined %+v", items)
	}
	in.wait(t, 1)
}

// A broker that closes every connection is down for everybody: nothing is blamed.
func TestSink_ABrokerThatClosesEveryConnectionRefusesNothing(t *testing.T) {
	m := newMosquitto(t, "max_packet_size 60")
	s := sinkFor(t, "mqtt://"+m.address(), nil)
	recs := streamtest.Records(0, 3)
	for range 3 * closings {
		kind(t, s.Deliver(t.Context(), recs), uplink.KindRetry)
	}
}

func TestSink_NamesRecordsBeyondItsOwnBound(t *testing.T) {
	s := sinkFor(t, "mqtt://127.0.0.1:1", func(c *Config) { c.MaxMessageBytes = 2000 })
	recs := streamtest.Records(0, 3)
	recs[1] = streamtest.Record(streamtest.Big(1, 2000), 2)
	e := kind(t, s.Deliver(t.Context(), recs), uplink.KindRejected)
	if len(e.Refused) != 1 || e.Refused[0].Index != 1 || e.Refused[0].Reason != "too_large" {
		t.Errorf("refused %+v", e.Refused)
	}
}

func TestSink_PasswordsAreCheckedAndNeverShown(t *testing.T) {
	m := newMosquitto(t, "")
	m.kill()
	conf, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(conf), "allow_anonymous true", "allow_anonymous false\npassword_file "+passwords(t, "edge", "s3cret"), 1)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	login := func(password string) error {
		s := sinkFor(t, "mqtt://"+m.address(), func(c *Config) { c.Username, c.Password = "edge", password })
		defer s.Close()
		return s.Deliver(t.Context(), streamtest.Records(0, 3))
	}
	if err := login("s3cret"); err != nil {
		t.Error(err)
	}
	if e := kind(t, login("wr0ng"), uplink.KindConfig, "refused the connection"); strings.Contains(e.Error(), "wr0ng") {
		t.Errorf("the password is in %q", e)
	}
}

func TestSink_ChecksTheBrokersCertificate(t *testing.T) {
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
	m := newMosquitto(t, joined("certfile "+write("c.pem", "CERTIFICATE", pair.Certificate[0]), "keyfile "+write("k.pem", "PRIVATE KEY", key)))
	roots := x509.NewCertPool()
	roots.AddCert(web.Certificate())
	in := m.subscribe(withTLS(&tls.Config{RootCAs: roots}))
	url := "mqtts://" + m.address()
	good := sinkFor(t, url, func(c *Config) { c.TLS = &tls.Config{RootCAs: roots} })
	if err := good.Deliver(t.Context(), streamtest.Records(0, 3)); err != nil {
		t.Errorf("with its authority: %v", err)
	}
	in.wait(t, 3)
	kind(t, sinkFor(t, url, func(c *Config) { c.ClientID = "other" }).Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig, "certificate")

	var n streamtest.Wire
	wrapped := sinkFor(t, url, func(c *Config) { c.TLS, c.Wrap, c.ClientID = &tls.Config{RootCAs: roots}, n.Wrap, "wrapped" })
	if err := wrapped.Deliver(t.Context(), streamtest.Records(3, 6)); err != nil || n.Bytes() < 2000 {
		t.Errorf("with a wrapped connection: %v after %d bytes, want a handshake's worth and more", err, n.Bytes())
	}
	in.wait(t, 6)
	kind(t, sinkFor(t, url, func(c *Config) { c.ClientID, c.Wrap = "other", n.Wrap }).Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindConfig, "certificate")
}

func TestSink_SpeaksWebSocket(t *testing.T) {
	m := newMosquitto(t, "")
	m.kill()
	port := streamtest.FreePort(t)
	conf, err := os.ReadFile(m.conf)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("%slistener %d 127.0.0.1\nprotocol websockets\n", conf, port)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	in := m.subscribe(nil)
	s := sinkFor(t, fmt.Sprintf("ws://127.0.0.1:%d/mqtt", port), nil)
	streamtest.Eventually(t, 5*time.Second, "delivered", func() bool { return s.Deliver(t.Context(), streamtest.Records(0, 30)) == nil })
	in.wait(t, 30)
	var n streamtest.Wire
	wrapped := sinkFor(t, fmt.Sprintf("ws://127.0.0.1:%d/mqtt", port), func(c *Config) { c.Wrap, c.ClientID = n.Wrap, "wrapped" })
	if err := wrapped.Deliver(t.Context(), streamtest.Records(30, 60)); err != nil || n.Bytes() < 30*100 {
		t.Errorf("with a wrapped connection: %v after %d bytes", err, n.Bytes())
	}
	in.wait(t, 60)
}

func TestSink_AServerThatSaysNothingIsARetryWithinTheTimeout(t *testing.T) {
	address := streamtest.Mute(t)
	for _, scheme := range []string{"mqtt", "mqtts", "ws", "wss"} {
		s := sinkFor(t, scheme+"://"+address, func(c *Config) { c.Timeout = 500 * time.Millisecond })
		start := time.Now()
		kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
		if took := time.Since(start); took > 3*time.Second {
			t.Errorf("it took %s", took)
		}
	}
}

func TestSink_NobodyListeningIsARetryAtOnce(t *testing.T) {
	s := sinkFor(t, fmt.Sprintf("mqtt://127.0.0.1:%d", streamtest.FreePort(t)), nil)
	start := time.Now()
	kind(t, s.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry, "connection refused")
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
}

func TestSink_ABrokerThatHangsEndsWithTheTimeout(t *testing.T) {
	m := newMosquitto(t, "")
	s := sinkFor(t, "mqtt://"+m.address(), func(c *Config) { c.Timeout = time.Second })
	if err := s.Deliver(t.Context(), streamtest.Records(0, 3)); err != nil {
		t.Fatal(err)
	}
	m.signal(syscall.SIGSTOP)
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
	kind(t, sinkFor(t, "mqtt://"+m.address(), nil).Deliver(ctx, streamtest.Records(3, 6)), uplink.KindRetry)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("cancelled, it took %s", took)
	}
	m.signal(syscall.SIGCONT)
	streamtest.Eventually(t, 10*time.Second, "delivered", func() bool { return s.Deliver(t.Context(), streamtest.Records(3, 3000)) == nil })
}

// The broker is killed in the middle and comes back, empty: what counts as delivered is what it acknowledged.
func TestSink_EndToEndOverKillsOfTheBroker(t *testing.T) {
	m := newMosquitto(t, "")
	w := newWire(t, m.address())
	rig := streamtest.NewRig(t, sinkFor(t, w.url(), nil), uplink.ForwarderOptions{BatchRecords: 100})
	const n = 3000
	for i := range n {
		rig.Put(t, uint64(i+1), streamtest.Point(i, 1))
		if i%1000 == 500 {
			before := rig.Outbox.Counters().Delivered
			streamtest.Eventually(t, 20*time.Second, "something was delivered", func() bool { return rig.Outbox.Counters().Delivered > before })
			m.kill()
			streamtest.Eventually(t, 20*time.Second, "the loss was noticed", func() bool { return rig.Forwarder.Status().State == uplink.BackingOff })
			m.start()
		}
	}
	rig.Drained(t, 30*time.Second)
	if c := rig.Outbox.Counters(); c.Delivered != n {
		t.Errorf("counters %+v", c)
	}
	_, acked := w.seen()
	for i := range n {
		if !acked[i] {
			t.Errorf("window %d counts as delivered without a PUBACK", i)
		}
	}
	if items := rig.Quarantined(t); len(items) != 0 {
		t.Errorf("quarantined %+v", items)
	}
}

func TestNew_RefusesWhatNoBrokerTakes(t *testing.T) {
	good := Config{URL: "mqtt://h", Topic: "edge/{site}", ClientID: "c"}
	s, err := New(good)
	if err != nil || s.c.URL != "tcp://h:1883" {
		t.Fatalf("%v %+v", err, s)
	}
	for name, change := range map[string]func(*Config){
		"no url":         func(c *Config) { c.URL = "" },
		"another scheme": func(c *Config) { c.URL = "http://h" },
		"password":       func(c *Config) { c.URL = "mqtt://u:p@h" },
		"no client":      func(c *Config) { c.ClientID = "" },
		"no topic":       func(c *Config) { c.Topic = "" },
		"plus":           func(c *Config) { c.Topic = "edge/+" },
		"hash":           func(c *Config) { c.Topic = "edge/#" },
		"system":         func(c *Config) { c.Topic = "$SYS/{site}" },
		"template":       func(c *Config) { c.Topic = "edge/{site" },
	} {
		c := good
		change(&c)
		if _, err := New(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAppendTopic_KeepsLevelsApart(t *testing.T) {
	s := sinkFor(t, "mqtt://h", func(c *Config) { c.Topic = "{site}/x{device}" })
	p := streamtest.Point(0, 1)
	for i, v := range []string{"$SYS", "a/+#b\x00c"} {
		p.Labels[2].Value, p.Labels[0].Value = v, "$a/b"
		want := []string{"_SYS/x$a_b", "a___b_c/x$a_b"}[i]
		if got := string(s.appendTopic([]byte("before"), p)); got != "before"+want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestSink_CloseEndsWhatItStarted(t *testing.T) {
	m := newMosquitto(t, "")
	before := goleak.IgnoreCurrent()
	s := sinkFor(t, "mqtt://"+m.address(), nil)
	if err := s.Deliver(t.Context(), streamtest.Records(0, 300)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	down := sinkFor(t, fmt.Sprintf("mqtt://127.0.0.1:%d", streamtest.FreePort(t)), nil)
	kind(t, down.Deliver(t.Context(), streamtest.Records(0, 3)), uplink.KindRetry)
	streamtest.Eventually(t, 5*time.Second, "nothing is left", func() bool { return goleak.Find(before) == nil })
}

// Whatever the configuration says and devices call themselves, a topic is one that every broker takes.
func FuzzTopic(f *testing.F) {
	f.Add("edge/{site}", "plant 7")
	f.Add("{site}/x{site}{site}", "$SYS/+#")
	f.Add("a//b", "")
	f.Add("{", "\xff\x00")
	f.Fuzz(func(t *testing.T, template, value string) {
		s, err := New(Config{URL: "mqtt://h", Topic: template, ClientID: "c"})
		if err != nil {
			return
		}
		p := streamtest.Point(0, 1)
		p.Labels[2].Value = value
		topic := string(s.appendTopic(nil, p))
		if topic == "" || topic[0] == '$' || strings.ContainsAny(topic, "+#\x00") || strings.Count(topic, "/") != strings.Count(s.topic.Sample(), "/") {
			t.Fatalf("template %q with %q gives %q", template, value, topic)
		}
	})
}

func BenchmarkSink_Deliver5000(b *testing.B) {
	m := newMosquitto(b, "")
	s := sinkFor(b, "mqtt://"+m.address(), nil)
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
