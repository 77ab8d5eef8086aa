// Package influx delivers points to InfluxDB 2 and to what speaks its write API (InfluxDB 1.8 and 3, VictoriaMetrics): a Sink on the
// client library's blocking write, line protocol encoded here, and a transport that takes nothing for success but
// 204. It never retries, keeps nothing between calls and starts no goroutines; the Forwarder decides what happens after an error.
package influx

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
	"unsafe"

	influxdb2 "github.com/influxdata/influxdb-client-go/v2"
	"github.com/influxdata/influxdb-client-go/v2/api"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// Config of a Sink; zero values are defaults where one is given.
type Config struct {
	URL          string // scheme, host and perhaps a path before /api/v2/write
	Org          string // VictoriaMetrics needs none
	Bucket       string
	Token        string        // never shown in errors or logs
	Gzip         bool          // compress what is sent
	Timeout      time.Duration // 30 s for one request; it must exceed the server's own 10 s for a write
	MaxBodyBytes int           // 4 MiB of lines in one request: every server takes that
	TLS          *tls.Config   // nil: the system's roots, TLS 1.2 or later
	Transport    http.RoundTripper
}

// Sink is one bucket. Deliver may be called by one goroutine at a time or several; requests go out one after the other.
type Sink struct {
	timeout time.Duration
	maxBody int
	write   api.WriteAPIBlocking
	rules   *transport

	mu    sync.Mutex
	enc   Encoder
	point telemetry.Point
	lines *loan
	cuts  []int // ends of requests in lines
}

// New checks c and returns a Sink. It does not connect.
func New(c Config) (*Sink, error) {
	u, err := url.Parse(c.URL)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, errors.New(`influxdb: url: want "http://host:port" or "https://host"`)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("influxdb: url: organisation, bucket and token are keys of their own, not part of the address")
	case c.Bucket == "":
		return nil, errors.New("influxdb: bucket is missing")
	case strings.ContainsAny(c.Token, "\r\n") || strings.TrimSpace(c.Token) != c.Token:
		return nil, errors.New("influxdb: token contains white space or line ends")
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxBodyBytes == 0 {
		c.MaxBodyBytes = 4 << 20
	}
	base := c.Transport
	if base == nil {
		base = newTransport(c.TLS)
	}
	s := &Sink{timeout: c.Timeout, maxBody: c.MaxBodyBytes, lines: &loan{}}
	s.rules = &transport{base: base, gzip: c.Gzip}
	options := influxdb2.DefaultOptions().SetPrecision(time.Nanosecond).SetApplicationName("sluice").SetLogLevel(0).
		SetHTTPClient(&http.Client{Transport: s.rules})
	s.write = influxdb2.NewClientWithOptions(c.URL, c.Token, options).WriteAPIBlocking(c.Org, c.Bucket)
	return s, nil
}

func newTransport(c *tls.Config) *http.Transport {
	if c == nil {
		c = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        c,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    2,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// Deliver implements uplink.Sink. Points that line protocol cannot carry are named before anything is sent.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines.lent() { // the transport has not let go of the last request yet
		s.lines = &loan{}
	}
	if refused := s.encode(recs); len(refused) > 0 {
		return &uplink.Error{Kind: uplink.KindRejected, Detail: refused[0].Detail, Refused: refused}
	}
	from := 0
	for _, to := range s.cuts {
		if err := s.send(ctx, s.lines.b[from:to]); err != nil {
			return err
		}
		from = to
	}
	return nil
}

// encode fills lines and cuts, and tells which records are not in them.
func (s *Sink) encode(recs []uplink.Record) (refused []uplink.Refused) {
	b := s.lines.b[:0]
	s.cuts = s.cuts[:0]
	start := 0
	for i := range recs {
		at := len(b)
		var err error
		if b, err = s.appendRecord(b, &recs[i]); err != nil {
			var u *unwritable
			errors.As(err, &u)
			refused = append(refused, uplink.Refused{Index: i, Reason: u.reason, Detail: u.detail})
			continue
		}
		if len(b)-start > s.maxBody && at > start {
			s.cuts = append(s.cuts, at)
			start = at
		}
	}
	if len(b) > start {
		s.cuts = append(s.cuts, len(b))
	}
	s.lines.b = b
	return refused
}

func (s *Sink) appendRecord(b []byte, r *uplink.Record) ([]byte, error) {
	if r.Type != uplink.TypePoint {
		return b, &unwritable{reasonType, fmt.Sprintf("record type %d is not a point", r.Type)}
	}
	if err := telemetry.ParsePoint(r.Body, &s.point); err != nil {
		return b, &unwritable{reasonDamaged, err.Error()}
	}
	return s.enc.Append(b, &s.point)
}

func (s *Sink) send(ctx context.Context, lines []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	ctx = context.WithValue(ctx, loanKey{}, s.lines)
	// The string lives as long as the request: the loan keeps lines from being overwritten before that.
	err := s.write.WriteRecord(ctx, unsafe.String(unsafe.SliceData(lines), len(lines)))
	if err == nil {
		return nil
	}
	return uplink.TransportError(err)
}

// Describe renders a record as line protocol, or says why that cannot be done.
func Describe(r uplink.Record) string {
	s := Sink{}
	b, err := s.appendRecord(nil, &r)
	if err != nil {
		return "# " + err.Error()
	}
	return strings.TrimSuffix(string(b), "\n")
}
