package broker

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// certificates are one listener's, as its files hold them. A handshake that finds a file changed reads them all again; what
// cannot be read leaves those in force that were.
type certificates struct {
	files TLS
	inUse atomic.Pointer[certificateSet]

	mu     sync.Mutex
	looked time.Time
	stamps [4]stamp
}

type certificateSet struct {
	config  *tls.Config
	revoked map[revocation]bool
}

// revocation is a certificate on a list: its authority and its number there.
type revocation struct{ issuer, serial string }

// stamp tells whether a file changed.
type stamp struct {
	modified time.Time
	size     int64
}

// lookEvery bounds how often handshakes look at the files' times.
const lookEvery = time.Second

// loadTLS reads the files t names; nil when it names none.
func loadTLS(t TLS) (*certificates, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	c := &certificates{files: t}
	c.stamps = c.look()
	set, err := t.read()
	if err != nil {
		return nil, err
	}
	c.looked = time.Now()
	c.inUse.Store(set)
	return c, nil
}

func (c *certificates) look() (s [4]stamp) {
	for i, path := range []string{c.files.CertFile, c.files.KeyFile, c.files.ClientCAFile, c.files.CRLFile} {
		if info, err := os.Stat(path); path != "" && err == nil {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}

// refresh reads the files again when they changed, or anyway when asked to. It returns whether there is something new, and
// why the files could not be read; that only once for each change, unless asked.
func (c *certificates) refresh(anyway bool) (changed bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !anyway && time.Since(c.looked) < lookEvery {
		return false, nil
	}
	c.looked = time.Now()
	stamps := c.look()
	if !anyway && stamps == c.stamps {
		return false, nil
	}
	c.stamps = stamps
	set, err := c.files.read()
	if err != nil {
		return false, err
	}
	c.inUse.Store(set)
	return true, nil
}

// read builds what t's files say.
func (t TLS) read() (*certificateSet, error) {
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("load certificate: %w", err)
	}
	set := &certificateSet{config: &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		// For TLS 1.2: authenticated encryption and forward secrecy only. TLS 1.3 has nothing else.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
	}}
	if t.ClientCAFile == "" {
		return set, nil
	}
	data, err := os.ReadFile(t.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read client authority: %w", err)
	}
	authorities := parseCertificates(data)
	if len(authorities) == 0 {
		return nil, fmt.Errorf("read client authority %s: no certificate in it", t.ClientCAFile)
	}
	set.config.ClientCAs = x509.NewCertPool()
	for _, a := range authorities {
		set.config.ClientCAs.AddCert(a)
	}
	set.config.ClientAuth = tls.RequireAndVerifyClientCert
	// A resumed session would bring a certificate past a new authority or list.
	set.config.SessionTicketsDisabled = true
	if t.CRLFile == "" {
		return set, nil
	}
	if set.revoked, err = readRevoked(t.CRLFile, authorities); err != nil {
		return nil, fmt.Errorf("read revocation list %s: %w", t.CRLFile, err)
	}
	set.config.VerifyConnection = func(s tls.ConnectionState) error {
		for _, chain := range s.VerifiedChains {
			for _, cert := range chain {
				if set.isRevoked(cert) {
					return errors.New("client certificate is revoked")
				}
			}
		}
		return nil
	}
	return set, nil
}

func (s *certificateSet) isRevoked(cert *x509.Certificate) bool {
	return s.revoked[revocation{string(cert.RawIssuer), string(cert.SerialNumber.Bytes())}]
}

func parseCertificates(data []byte) (list []*x509.Certificate) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			list = append(list, c)
		}
	}
	return list
}

// readRevoked reads one list in DER, or any number in PEM, each signed by one of authorities. A list past its next update is
// in force still: whom it names stays out, and a site whose authority is late stays in business.
func readRevoked(path string, authorities []*x509.Certificate) (map[revocation]bool, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var lists [][]byte
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "X509 CRL" {
			lists = append(lists, block.Bytes)
		}
	}
	if len(lists) == 0 {
		lists = [][]byte{data}
	}
	revoked := map[revocation]bool{}
	for _, der := range lists {
		list, err := x509.ParseRevocationList(der)
		if err != nil {
			return nil, err
		}
		signed := false
		for _, a := range authorities {
			signed = signed || bytes.Equal(a.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(a) == nil
		}
		if !signed {
			return nil, fmt.Errorf("the list of %s is not signed by the client authority", list.Issuer)
		}
		for _, e := range list.RevokedCertificateEntries {
			revoked[revocation{string(list.RawIssuer), string(e.SerialNumber.Bytes())}] = true
		}
	}
	return revoked, nil
}

// refreshTLS is certificates.refresh with its outcome counted and logged.
func (b *Broker) refreshTLS(l *listener, anyway bool) error {
	changed, err := l.tls.refresh(anyway)
	switch {
	case err != nil:
		b.count.tlsFailures.Add(1)
		b.log.Error("certificates not reloaded; those before stay in force", "address", l.cfg.Address, "err", err)
	case changed:
		b.count.tlsReloads.Add(1)
		b.log.Info("certificates reloaded", "address", l.cfg.Address)
	}
	return err
}

// shown is a client's certificate and those above it, as far as a later revocation needs them.
type shown struct {
	by     *certificates
	chains []revocation
}

func certificateOf(by *certificates, chains [][]*x509.Certificate) *shown {
	if by.files.CRLFile == "" {
		return nil
	}
	s := &shown{by: by}
	for _, chain := range chains {
		for _, c := range chain {
			s.chains = append(s.chains, revocation{string(c.RawIssuer), string(c.SerialNumber.Bytes())})
		}
	}
	return s
}

// revoked tells whether a list in force names s.
func (s *shown) revoked() bool {
	set := s.by.inUse.Load()
	for _, r := range s.chains {
		if set.revoked[r] {
			return true
		}
	}
	return false
}
