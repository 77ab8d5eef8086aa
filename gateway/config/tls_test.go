package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writePair makes a self-signed certificate and its key, and returns their paths.
func writePair(t *testing.T) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certDER, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	return write("c.pem", "CERTIFICATE", certDER), write("k.pem", "PRIVATE KEY", keyDER)
}

func TestLoad_ChecksCertificatesBeforeTheFirstClient(t *testing.T) {
	cert, key := writePair(t)
	_, otherKey := writePair(t)
	_, openKey := writePair(t)
	if err := os.Chmod(openKey, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, cert, key, want string }{
		{"a pair", cert, key, ""},
		{"another's key", cert, otherKey, "private key does not match public key"},
		{"a key that others can read", cert, openKey, "tls.key_file: " + openKey + " can be read by every user of this machine (mode 0644)"},
		{"no certificate", cert + "x", key, "tls.cert_file: " + cert + "x does not exist"},
		{"a key for a certificate", key, key, "tls.cert_file: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := parse(t, fmt.Sprintf("mqtt: { allow_anonymous: true, listeners: [ { address: \":8883\", tls: { cert_file: %s, key_file: %s } } ] }", tc.cert, tc.key))
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("Load = %v, want %q", err, tc.want)
			}
		})
	}
}

// With a client authority, certificates say who may log in.
func TestLoad_ClientCertificatesOpenAListenerToOthers(t *testing.T) {
	cert, key := writePair(t)
	_, _, err := parse(t, fmt.Sprintf("mqtt: { listeners: [ { address: \":8883\", tls: { cert_file: %s, key_file: %s, client_ca_file: %s } } ] }", cert, key, cert))
	if err != nil {
		t.Errorf("Load = %v", err)
	}
}
