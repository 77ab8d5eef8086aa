package broker

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestNew_RefusesAnOpenBrokerWithoutUsers(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": true, "localhost:0": true,
		"0.0.0.0:0": false, ":0": false, "192.0.2.1:0": false, "example.org:0": false, "nonsense": false,
	} {
		cfg := Config{Listeners: []ListenerConfig{{Address: address}}}
		if _, err := New(cfg, &stubJournal{}); (err == nil) != ok {
			t.Errorf("New(%s) = %v", address, err)
		}
		cfg.AllowAnonymous = true
		if _, err := New(cfg, &stubJournal{}); address != "nonsense" && err != nil {
			t.Errorf("New(%s, anonymous) = %v", address, err)
		}
	}
	if _, err := New(Config{}, &stubJournal{}); err == nil {
		t.Error("New without listeners accepted")
	}
	cfg := Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0", Protocol: "quic"}, {Address: "127.0.0.1:0", TLS: TLS{CertFile: "c"}}}}
	cfg.Limits.PacketBytes = -1
	_, err := New(cfg, &stubJournal{})
	for _, want := range []string{"listeners[0]: protocol", "listeners[1]: tls", "packet_bytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New() = %v, want it to name %s", err, want)
		}
	}
}

// connectAs sends CONNECT with a name and a password and returns CONNACK's code.
func connectAs(t *testing.T, b *Broker, id, user, password string) (*rawClient, byte) {
	t.Helper()
	c := dial(t, b)
	str := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	body := "\x00\x04MQTT\x04\xC2\x00\x3C" + str(id) + str(user) + str(password)
	c.write(append([]byte{0x10, byte(len(body))}, body...))
	return c, c.expectKind(typeConnack)[3]
}

func TestAuthenticate_DecidesWhoGetsIn(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.Authenticate = func(user string, password []byte) bool { return string(password) == "pw-"+user }
	})
	if c, code := connectAs(t, b, "a", "ann", "pw-ann"); code != 0 {
		t.Errorf("right password: CONNACK %d", code)
	} else {
		c.send("C0 00")
		c.expect("D0 00")
	}
	c, code := connectAs(t, b, "a2", "ann", "pw-bob")
	if code != 5 {
		t.Errorf("wrong password: CONNACK %d, want 5", code)
	}
	c.expectClosed()
	// Another user may not take over ann's session, ann may.
	if _, code := connectAs(t, b, "a", "bob", "pw-bob"); code != 2 {
		t.Errorf("another user's client id: CONNACK %d, want 2", code)
	}
	if _, code := connectAs(t, b, "a", "ann", "pw-ann"); code != 0 {
		t.Errorf("own client id: CONNACK %d", code)
	}
	anonymous := dial(t, b)
	anonymous.send(connectV3)
	anonymous.expect("20 02 00 05")
	anonymous.expectClosed()
	if n := b.Stats().AuthFailures; n != 3 {
		t.Errorf("AuthFailures = %d, want 3", n)
	}
}

// authority makes certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string

	serial int64 // of the next certificate; 0: 2
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true,
		BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "ca.pem")}
	a.pool.AddCert(cert)
	if err := os.WriteFile(a.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) issue(name string) (certFile, keyFile string) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if a.serial == 0 {
		a.serial = 2
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(a.serial),
		Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	k, _ := x509.MarshalPKCS8PrivateKey(key)
	dir := a.t.TempDir()
	certFile, keyFile = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	_ = os.WriteFile(certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600)
	_ = os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: k}), 0o600)
	return certFile, keyFile
}

func TestTLS_ServesModernClientsOnly(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("broker")
	j := &stubJournal{}
	b := start(t, j, func(c *Config) {
		c.Listeners[0].TLS = TLS{CertFile: cert, KeyFile: key}
		c.Limits.ConnectTimeout = 500 * time.Millisecond
	})
	address := b.Addrs()[0].String()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		nc, err := tls.Dial("tcp", address, &tls.Config{RootCAs: a.pool, MaxVersion: version})
		if err != nil {
			t.Fatal(err)
		}
		c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
		c.send(connectV3)
		c.expect(connackV3)
		var frames []byte
		for i := uint16(1); i <= 50; i++ {
			frames = append(frames, publishFrame(false, 1, i, "dev/1", []byte("x"))...)
		}
		c.write(frames)
		eventually(t, "held", func() bool { return b.Stats().HeldAcks == 50 })
		j.commit()
		for i := range 50 {
			if p := c.expectKind(typePuback); p[3] != byte(i+1) {
				t.Fatalf("PUBACK % X, want %d", p, i+1)
			}
		}
		nc.Close()
	}
	for name, cfg := range map[string]*tls.Config{
		"TLS 1.1": {RootCAs: a.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"CBC":     {RootCAs: a.pool, MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}},
	} {
		if nc, err := tls.Dial("tcp", address, cfg); err == nil {
			nc.Close()
			t.Errorf("%s accepted", name)
		}
	}
	silent := dial(t, b)
	silent.expectClosed()
	eventually(t, "3 handshakes failed", func() bool { return b.Stats().Rejected.Handshake == 3 })
}

func TestTLS_CommonNameIsTheUser(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("broker")
	clientCert, clientKey := a.issue("press-4")
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) {
		c.Listeners[0].TLS = TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.file}
	})
	pair, err := tls.LoadX509KeyPair(clientCert, clientKey)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
	c.send(connectV3)
	c.expect(connackV3)
	c.write(publishFrame(false, 1, 1, "dev/1", nil))
	c.expect("40 02 00 01")
	if m := j.received()[0]; m.Username != "press-4" {
		t.Errorf("Username = %q, want press-4", m.Username)
	}
	nc, err = tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool})
	if err == nil {
		defer nc.Close()
		_ = nc.SetDeadline(time.Now().Add(5 * time.Second))
		if n, err := nc.Read(make([]byte, 1)); err == nil {
			t.Errorf("client without a certificate read %d bytes", n)
		}
	}
}

func TestWebSocket_CarriesMQTT(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, func(c *Config) { c.Listeners[0].Protocol = "websocket" })
	url := "ws://" + b.Addrs()[0].String() + "/mqtt"
	d := websocket.Dialer{Subprotocols: []string{"mqtt"}}
	ws, _, err := d.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	if ws.Subprotocol() != "mqtt" {
		t.Errorf("subprotocol %q, want mqtt", ws.Subprotocol())
	}
	expect := func(want string) {
		t.Helper()
		_ = ws.SetReadDeadline(time.Now().Add(5 * time.Second))
		kind, p, err := ws.ReadMessage()
		if err != nil || kind != websocket.BinaryMessage || !bytes.Equal(p, unhex(want)) {
			t.Fatalf("received % X (%v), want %s", p, err, want)
		}
	}
	// Packets need not be aligned with messages.
	connect := unhex(connectV3)
	_ = ws.WriteMessage(websocket.BinaryMessage, connect[:5])
	_ = ws.WriteMessage(websocket.BinaryMessage, append(connect[5:], publishFrame(false, 1, 1, "dev/1", []byte("x"))...))
	expect(connackV3)
	eventually(t, "journalled", func() bool { return len(j.received()) == 1 })
	j.commit()
	expect("40 02 00 01")
	_ = ws.WriteMessage(websocket.TextMessage, []byte("no"))
	_ = ws.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, p, err := ws.ReadMessage(); err == nil {
		t.Errorf("text message answered by % X", p)
	}
	if _, r, err := d.Dial(url, http.Header{"Origin": {"http://evil.example"}}); err == nil || r == nil || r.StatusCode != 403 {
		t.Errorf("foreign origin: %v", err)
	}
}

func TestAdmission_LimitsConnectionsInTotalAndByAddress(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Connections = 3; c.Limits.ConnectionsPerAddress = 2 })
	dialV3(t, b, "a")
	second := dialV3(t, b, "b")
	third := dial(t, b)
	third.expectClosed()
	second.Close()
	eventually(t, "left", func() bool { return b.Stats().Connections == 1 })
	dialV3(t, b, "c")
	if s := b.Stats(); s.Rejected.TooManyOneAddress != 1 {
		t.Errorf("Stats() = %+v, want one rejected", s)
	}
}

func TestPublishRate_HoldsAClientBackWithoutLoss(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) { c.Limits.PublishRate = 100 })
	c, other := dialV3(t, b, "fast"), dialV3(t, b, "other")
	began := time.Now()
	var frames []byte
	for i := uint16(1); i <= 150; i++ {
		frames = append(frames, publishFrame(false, 1, i, "dev/1", []byte("x"))...)
	}
	c.write(frames)
	other.write(publishFrame(false, 1, 1, "dev/2", nil))
	other.expect("40 02 00 01")
	if d := time.Since(began); d > 300*time.Millisecond {
		t.Errorf("another client waited %v", d)
	}
	for range 150 {
		c.expectKind(typePuback)
	}
	if d := time.Since(began); d < 450*time.Millisecond {
		t.Errorf("150 messages at 100 a second, burst 100, took %v", d)
	}
}

func TestDrain_CommitsAcknowledgesAndSaysGoodbye(t *testing.T) {
	j := &stubJournal{}
	cfg := Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval, Commit: func() { j.commit() }}
	cfg.Limits.DrainTimeout = 2 * time.Second
	cfg.Limits.QueueBytes = 64 << 20
	b, err := New(cfg, j)
	if err != nil {
		t.Fatal(err)
	}
	j.b = b
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	c3, c5 := dialV3(t, b, "c3"), dialV5(t, b, "c5")
	stalled := dialV3(t, b, "stalled")
	_ = stalled.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	stalled.send("82 06 00 01 00 01 62 00")
	stalled.expectKind(9)
	for range 100 {
		if err := b.Publish("b", make([]byte, 200<<10), 0, false); err != nil {
			t.Fatal(err)
		}
	}
	c3.write(publishFrame(false, 1, 1, "dev/1", nil))
	c5.write(publishFrame(true, 2, 2, "dev/1", nil))
	eventually(t, "held", func() bool { return b.Stats().HeldAcks == 2 })
	began := time.Now()
	cancel()
	c3.expect("40 02 00 01")
	c3.expectClosed()
	c5.expect("50 02 00 02")
	c5.expect("E0 02 8B 00")
	c5.expectClosed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 4*time.Second {
		t.Errorf("drain took %v with a stalled client, want about 2 s", d)
	}
	if _, err := net.Dial("tcp", b.Addrs()[0].String()); err == nil {
		t.Error("still accepts connections")
	}
}
