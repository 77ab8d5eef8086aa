package broker

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
)

// pair loads what issue wrote.
func pair(t *testing.T, certFile, keyFile string) tls.Certificate {
	t.Helper()
	p, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	p.Leaf, _ = x509.ParseCertificate(p.Certificate[0])
	return p
}

// replace puts from's contents in to's place with a new time, as a renewal does.
func replace(t *testing.T, to, from string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
	future := time.Now().Add(time.Minute)
	if err := os.Chtimes(to, future, future); err != nil {
		t.Fatal(err)
	}
}

// served is the name in the certificate the broker shows.
func served(t *testing.T, b *Broker, a *authority) string {
	t.Helper()
	nc, err := tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	return nc.ConnectionState().PeerCertificates[0].Subject.CommonName
}

func TestTLS_CertificatesAreReadAgainWhenTheyChange(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("first")
	cert2, key2 := a.issue("second")
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Listeners[0].TLS = TLS{CertFile: cert, KeyFile: key} })
	if n := served(t, b, a); n != "first" {
		t.Fatalf("serves %q", n)
	}
	nc, err := tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	old := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
	old.send(connectV3)
	old.expect(connackV3)

	replace(t, cert, cert2) // half of the renewal: it does not go with the key
	if err := b.Reload(nil); err == nil {
		t.Error("Reload took a certificate with another one's key")
	}
	if n := served(t, b, a); n != "first" {
		t.Errorf("with a broken pair it serves %q, want the one before", n)
	}
	replace(t, key, key2)
	// No signal: the next handshakes find out, a second later at most.
	eventually(t, "the new certificate is served", func() bool { return served(t, b, a) == "second" })
	old.send("C0 00") // who was connected still is
	old.expect("D0 00")
	if s := b.Stats(); s.TLSReloads != 1 || s.TLSFailures < 1 {
		t.Errorf("TLSReloads %d, TLSFailures %d", s.TLSReloads, s.TLSFailures)
	}
}

// revoke writes a list of a's that names certificates.
func (a *authority) revoke(file string, next time.Time, certs ...*x509.Certificate) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func TestTLS_RevokedCertificatesAreRefusedAndDisconnected(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("broker")
	var clients [2]tls.Certificate
	for i, name := range []string{"press-1", "press-2"} {
		a.serial = int64(100 + i)
		c, k := a.issue(name)
		clients[i] = pair(t, c, k)
	}
	crl := filepath.Join(t.TempDir(), "crl.pem")
	a.revoke(crl, time.Now().Add(-time.Hour)) // late, and in force
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.Listeners[0].TLS = TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.file, CRLFile: crl}
	})
	connect := func(i int, version uint16) (*rawClient, error) {
		nc, err := tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool, Certificates: clients[i : i+1], MaxVersion: version})
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { nc.Close() })
		c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
		c.send("10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01" + []string{"61", "62"}[i])
		_, err = c.packet(5 * time.Second)
		return c, err
	}
	one, err := connect(0, tls.VersionTLS13)
	if err != nil {
		t.Fatal(err)
	}
	two, err := connect(1, tls.VersionTLS12)
	if err != nil {
		t.Fatal(err)
	}
	a.revoke(crl, time.Now().Add(time.Hour), clients[0].Leaf)
	if err := b.Reload(nil); err != nil {
		t.Fatal(err)
	}
	one.expectClosed()
	two.send("C0 00")
	two.expect("D0 00")
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		if _, err := connect(0, version); err == nil {
			t.Errorf("TLS %x: a revoked certificate was accepted", version)
		}
	}
	if n := b.Stats().Revoked; n != 1 {
		t.Errorf("Revoked = %d, want 1", n)
	}
	// Somebody else's list does not count, and does not open the door.
	other := newAuthority(t)
	other.revoke(crl, time.Now().Add(time.Hour))
	if err := b.Reload(nil); err == nil {
		t.Error("a list of another authority was taken")
	}
	if _, err := connect(0, tls.VersionTLS13); err == nil {
		t.Error("a broken list let a revoked certificate in")
	}
}

func TestTLS_SessionOfAnotherCertificateIsNotTakenOver(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("broker")
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.Listeners[0].TLS = TLS{CertFile: cert, KeyFile: key, ClientCAFile: a.file}
	})
	for i, name := range []string{"press-1", "press-2"} {
		c, k := a.issue(name)
		nc, err := tls.Dial("tcp", b.Addrs()[0].String(), &tls.Config{RootCAs: a.pool, Certificates: []tls.Certificate{pair(t, c, k)}})
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		r := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
		r.send(connectV3)
		if p := r.expectKind(typeConnack); p[3] != []byte{0, 2}[i] {
			t.Errorf("%s: CONNACK % X", name, p)
		}
	}
}

// The paho client over each way in.
func TestListeners_ServeThePahoClient(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("broker")
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) {
		secure := TLS{CertFile: cert, KeyFile: key}
		c.Listeners = []ListenerConfig{{Address: "127.0.0.1:0"}, {Address: "127.0.0.1:0", TLS: secure},
			{Address: "127.0.0.1:0", Protocol: "websocket"}, {Address: "127.0.0.1:0", Protocol: "websocket", TLS: secure}}
		c.Limits.PacketBytes = 64 << 10
	})
	for i, scheme := range []string{"tcp", "ssl", "ws", "wss"} {
		o := paho.NewClientOptions().AddBroker(scheme + "://" + b.Addrs()[i].String() + map[bool]string{true: "/mqtt"}[i > 1]).
			SetClientID("c" + scheme).SetTLSConfig(&tls.Config{RootCAs: a.pool}).SetConnectTimeout(5 * time.Second).SetAutoReconnect(false)
		lost := make(chan error, 1)
		o.SetConnectionLostHandler(func(_ paho.Client, err error) { lost <- err })
		c := paho.NewClient(o)
		wait := func(what string, token paho.Token) {
			t.Helper()
			if !token.WaitTimeout(5*time.Second) || token.Error() != nil {
				t.Fatalf("%s: %s: %v", scheme, what, token.Error())
			}
		}
		wait("connect", c.Connect())
		got := make(chan string, 10)
		wait("subscribe", c.Subscribe("dev/+", 2, func(_ paho.Client, m paho.Message) { got <- string(m.Payload()) }))
		large := string(make([]byte, 60<<10))
		for qos := range byte(3) {
			wait("publish", c.Publish("dev/1", qos, false, large))
			select {
			case m := <-got:
				if m != large {
					t.Errorf("%s: received %d bytes, want %d", scheme, len(m), len(large))
				}
			case <-time.After(5 * time.Second):
				t.Fatalf("%s: QoS %d did not arrive", scheme, qos)
			}
		}
		c.Publish("dev/1", 0, false, make([]byte, 70<<10)) // beyond the limit
		select {
		case <-lost:
		case <-time.After(5 * time.Second):
			t.Errorf("%s: a packet beyond the limit was taken", scheme)
		}
		c.Disconnect(0)
	}
	if n := len(j.received()); n != 12 {
		t.Errorf("journalled %d, want 12", n)
	}
}
