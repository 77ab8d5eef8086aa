// Package webhook delivers notifications, as Alertmanager's version 4 JSON, CloudEvents or by a template, with the headers of
// Standard Webhooks. It refuses to connect to private addresses unless they are listed, follows no redirect, and uses no proxy. It
// never retries and starts no goroutines; the Forwarder decides what happens after an error.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"sluice/uplink"
)

// Config of a Sink; zero values are defaults where one is given.
type Config struct {
	URL string // may hold a secret, so it is never shown in errors or logs
	// Secrets sign each request; several, also in one string with spaces between, for the time of a key change. Each is
	// whsec_ and base64, or taken as it is. None: requests are not signed.
	Secrets []string
	Timeout time.Duration  // 10 s for connection, request and answer
	Allow   []netip.Prefix // private and other special addresses that may be called all the same
	TLS     *tls.Config    // nil: the system's roots, TLS 1.2 or later
	Format  *Format        // nil: Alertmanager
	// DigestAfter is how long a receiver must have been away before alerts that began and ended meanwhile are told in one
	// notification, the digest. 0: each is told by itself.
	DigestAfter time.Duration
}

// Sink is one receiver. Safe for concurrent use.
type Sink struct {
	url     string
	keys    atomic.Pointer[[][]byte]
	timeout time.Duration
	client  *http.Client
	dialer  *net.Dialer
	format  *Format
	digests digester
	next    atomic.Pointer[expected]
}

// expected is a notification on its way through the outbox: it need not be read from its record.
type expected struct {
	body []byte
	n    *Notification
}

// Expect tells of a notification that is about to be put into the outbox as body, which Marshal made of it. Only the latest is
// kept; the sink does not change it, and neither may the caller. Deliver works the same without it, a little slower.
func (s *Sink) Expect(body []byte, n *Notification) {
	if bytes.Contains(body, notText) {
		return // what is read from the record differs from n in bytes that are no UTF-8, and every attempt sends the same
	}
	s.next.Store(&expected{body, n})
}

// notText is what encoding/json writes in place of bytes that are no UTF-8.
var notText = []byte(`\ufffd`)

// read is the notification of a record.
func (s *Sink) read(r *uplink.Record) (*Notification, error) {
	if x := s.next.Load(); x != nil && r.Type == uplink.TypeNotification && bytes.Equal(x.body, r.Body) {
		return x.n, nil
	}
	return parse(r)
}

// New checks c and returns a Sink. It does not connect.
func New(c Config) (*Sink, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, errors.New(`webhook: url: want "https://host/path" or "http://host/path"`)
	}
	s := &Sink{url: c.URL, timeout: c.Timeout, format: c.Format, digests: digester{after: c.DigestAfter}}
	if s.format == nil {
		s.format = Alertmanager
	}
	if s.timeout == 0 {
		s.timeout = 10 * time.Second
	}
	if err := s.SetSecrets(c.Secrets); err != nil {
		return nil, err
	}
	if c.TLS == nil {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	s.dialer = &net.Dialer{Timeout: s.timeout, KeepAlive: 30 * time.Second, ControlContext: guard(c.Allow)}
	s.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:            s.dialer.DialContext, // no Proxy: it would be called in the receiver's place
			TLSClientConfig:        c.TLS,
			TLSHandshakeTimeout:    s.timeout,
			ForceAttemptHTTP2:      true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        90 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
			DisableCompression:     true,
		},
	}
	return s, nil
}

// SetSecrets has requests from now on signed with other secrets, as in Config. On an error the old ones stay. Safe for concurrent use.
func (s *Sink) SetSecrets(secrets []string) error {
	var keys [][]byte
	for _, secret := range strings.Fields(strings.Join(secrets, " ")) {
		key, err := parseSecret(secret)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	s.keys.Store(&keys)
	return nil
}

func parseSecret(s string) ([]byte, error) {
	encoded, ok := strings.CutPrefix(s, "whsec_")
	if !ok {
		return []byte(s), nil
	}
	key, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(encoded, "="))
	if err != nil || len(key) == 0 {
		return nil, errors.New("webhook: secret: what follows whsec_ is not base64")
	}
	return key, nil
}

// Deliver implements uplink.Sink, one request a record: it takes the first and says so. Of a backlog that is old enough, all records
// are taken at once, with what began and ended meanwhile in a digest.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	if list, n := s.digests.of(recs, time.Now()); list != nil {
		err := s.digests.deliver(recs[:n], list, func(n *Notification) error { return s.send(ctx, n) })
		if err != nil || n == len(recs) {
			return err
		}
		return &uplink.Error{Kind: uplink.KindPartial, Taken: n}
	}
	n, err := s.read(&recs[0])
	if err != nil {
		return refused("damaged", err)
	}
	if err := s.send(ctx, n); err != nil || len(recs) == 1 {
		return err
	}
	return &uplink.Error{Kind: uplink.KindPartial, Taken: 1}
}

// refused is the first record's fault.
func refused(reason string, err error) error {
	return &uplink.Error{Kind: uplink.KindRejected, Detail: err.Error(), Err: err, Refused: []uplink.Refused{{Reason: reason, Detail: err.Error()}}}
}

// send makes one request. A refusal names the first record of the batch.
func (s *Sink) send(ctx context.Context, n *Notification) error {
	body, err := s.format.render(n)
	if err != nil {
		return refused("template", err)
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, bytes.NewReader(body))
	if err != nil {
		return uplink.TransportError(err)
	}
	s.sign(req.Header, n.ID, time.Now(), body)
	req.Header.Set("Content-Type", s.format.ContentType)
	req.Header.Set("User-Agent", "sluice")
	// The id makes a repeated request harmless, so a connection that the receiver had closed may be replaced; an empty value
	// tells net/http so and is not sent.
	req.Header["Idempotency-Key"] = []string{}
	resp, err := s.client.Do(req)
	if err != nil {
		var b *blockedError
		if errors.As(err, &b) {
			return &uplink.Error{Kind: uplink.KindConfig, Detail: b.Error(), Err: b}
		}
		return uplink.TransportError(err)
	}
	if resp.StatusCode/100 == 2 {
		io.Copy(io.Discard, io.LimitReader(resp.Body, uplink.MaxErrorBody)) // so that the connection can be used again
		resp.Body.Close()
		return nil
	}
	e := verdict(resp, uplink.ReadErrorBody(resp), time.Now())
	if e.Kind == uplink.KindRejected {
		e.Refused = []uplink.Refused{{Reason: "rejected", Detail: e.Detail}}
	}
	return e
}

func parse(r *uplink.Record) (*Notification, error) {
	if r.Type != uplink.TypeNotification {
		return nil, fmt.Errorf("record type %d is not a notification", r.Type)
	}
	return Parse(r.Body)
}

// sign sets the headers of Standard Webhooks 1.0.0. The time is the attempt's, so the signature differs from attempt to attempt; the
// id and the body do not.
func (s *Sink) sign(h http.Header, id string, now time.Time, body []byte) {
	at := strconv.FormatInt(now.Unix(), 10)
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", at)
	keys := *s.keys.Load()
	if len(keys) == 0 {
		return
	}
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key)
		io.WriteString(mac, id+"."+at+".")
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	h.Set("webhook-signature", strings.Join(signatures, " "))
}

// verdict reads an answer outside 2xx. 4xx is final as with Alertmanager, but for those that ask for another try and those that a
// wrong address or secret earns: an alert is kept until someone has put that right, or retry_for is over.
func verdict(resp *http.Response, body string, now time.Time) *uplink.Error {
	e := &uplink.Error{Status: resp.StatusCode, Detail: strings.TrimSpace(body), RetryAfter: uplink.RetryAfter(resp.Header, now)}
	switch s := resp.StatusCode; {
	case s == http.StatusGone:
		e.Kind = uplink.KindGone
	case s < 400:
		e.Kind = uplink.KindConfig
		e.Detail = fmt.Sprintf("the answer was %d", s)
		if to, err := resp.Location(); err == nil {
			e.Detail += ", redirected to " + to.Scheme + "://" + to.Host
		}
		e.Detail += ": redirects are not followed; set the final address"
	case s == 408, s == 425, s == 429, s >= 500:
		e.Kind = uplink.KindRetry
	case s == 401, s == 403, s == 404, s == 405:
		e.Kind = uplink.KindConfig
	default:
		e.Kind = uplink.KindRejected
	}
	return e
}

// Describe renders a record's body as Alertmanager's JSON, or says why that cannot be done.
func Describe(r uplink.Record) string {
	n, err := parse(&r)
	if err != nil {
		return err.Error()
	}
	body, err := alertmanager(n)
	if err != nil {
		return err.Error()
	}
	return string(body)
}
