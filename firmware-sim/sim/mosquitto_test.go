package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// mosquitto runs Debian's broker as a child process on a port of its own.
type mosquitto struct {
	t    *testing.T
	conf string
	addr string
	cmd  *exec.Cmd
}

func newMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		if _, err := os.Stat("/usr/sbin/mosquitto"); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatal("mosquitto is not installed (Debian: apt install mosquitto)")
			}
			t.Skip("mosquitto is not installed (Debian: apt install mosquitto)")
		}
		t.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	m := &mosquitto{t: t, conf: filepath.Join(t.TempDir(), "mosquitto.conf"), addr: fmt.Sprintf("127.0.0.1:%d", port)}
	conf := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\n", port)
	if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.kill)
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	eventually(m.t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) kill() {
	if m.cmd == nil {
		return
	}
	_ = m.cmd.Process.Kill()
	_ = m.cmd.Wait()
	m.cmd = nil
}

func TestMosquitto_EverythingAckedThoughTheBrokerIsKilled(t *testing.T) {
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
			m := newMosquitto(t)
			cfg, truth := quick("tcp://"+m.addr, func(c *Config) { c.QoS, c.Devices, c.Connections, c.Rate, c.Count = qos, 20, 4, 100, 5000 })
			f, ran := runFleet(t, context.Background(), cfg)
			for kill := int64(1); kill <= 3; kill++ {
				eventually(t, "progress", func() bool { return f.Stats().Acked > kill*1000 })
				m.kill()
				eventually(t, "the fleet notices", func() bool { return f.Stats().Connected == 0 })
				m.start()
			}
			if err := wait(t, ran); err != nil {
				t.Fatal(err)
			}
			if by := checkTruth(t, truth.lines(t)); len(by["acked"]) != 5000 || len(by["publish"]) != 5000 {
				t.Errorf("%d published, %d acked; want 5000", len(by["publish"]), len(by["acked"]))
			}
		})
	}
}

// BenchmarkFleet_Mosquitto publishes flat out over four connections; see docs/firmware-sim.md for what it gave.
func BenchmarkFleet_Mosquitto(b *testing.B) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		b.Skip("mosquitto is not installed")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := ln.Addr().String()
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	conf := filepath.Join(b.TempDir(), "mosquitto.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "listener %d 127.0.0.1\nallow_anonymous true\n", port), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("mosquitto", "-c", conf)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	cfg := Defaults()
	cfg.Server, cfg.Devices, cfg.Connections, cfg.TotalRate, cfg.Rate = "tcp://"+addr, 100, 4, 1e6, 0
	cfg.Count, cfg.ReconnectMax = int64(b.N), 50*time.Millisecond
	b.ReportAllocs()
	b.ResetTimer()
	f, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	if err := f.Run(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// selfSigned writes a certificate for 127.0.0.1 with its key, and returns the files and a pool that trusts it.
func selfSigned(t *testing.T) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(cryptorand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, data := range map[string][]byte{
		certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

func TestMosquitto_TransportsAndPassword(t *testing.T) {
	certFile, keyFile, pool := selfSigned(t)
	for _, c := range []struct{ scheme, extra string }{
		{"tcp", ""},
		{"ssl", fmt.Sprintf("certfile %s\nkeyfile %s\n", certFile, keyFile)},
	} {
		t.Run(c.scheme, func(t *testing.T) {
			m := newMosquitto(t)
			m.kill()
			passwords := filepath.Join(t.TempDir(), "passwd")
			if err := os.WriteFile(passwords, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("mosquitto_passwd", "-b", passwords, "device", "s3cret").CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_passwd: %v: %s", err, out)
			}
			_, port, _ := net.SplitHostPort(m.addr)
			conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\n%sallow_anonymous false\npassword_file %s\n", port, c.extra, passwords)
			if err := os.WriteFile(m.conf, []byte(conf), 0o600); err != nil {
				t.Fatal(err)
			}
			m.start()
			cfg, truth := quick(c.scheme+"://"+m.addr, func(cfg *Config) {
				cfg.Count, cfg.Username, cfg.Password = 1000, "device", "wrong"
				cfg.TLS = &tls.Config{RootCAs: pool}
				cfg.Faults = []Fault{{Kind: "reconnect_storm", Start: 100 * time.Millisecond, Offline: 20 * time.Millisecond}}
			})
			cfg.Drain = 200 * time.Millisecond
			_, ran := runFleet(t, context.Background(), cfg)
			if err := wait(t, ran); !errors.Is(err, ErrIncomplete) {
				t.Errorf("with a wrong password Run() = %v", err)
			}
			cfg.Password, cfg.Drain = "s3cret", 20*time.Second
			f, ran := runFleet(t, context.Background(), cfg)
			if err := wait(t, ran); err != nil {
				t.Fatal(err)
			}
			if by := checkTruth(t, truth.lines(t)); len(by["acked"]) != 1000 || f.Stats().LostConnections == 0 {
				t.Errorf("%d acked of 1000, %d connections cut", len(by["acked"]), f.Stats().LostConnections)
			}
		})
	}
}
