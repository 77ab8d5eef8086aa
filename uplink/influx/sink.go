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
	"sync/atomic"
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
	Types        *Types        // of fields that the store holds otherwise; nil: each conflict is sent and refused
	Transport    http.RoundTripper
	Dial         func(ctx context.Context, network, address string) (net.Conn, error) // nil: the network's; not with Transport
}

// Sink is one bucket. Deliver may be called by several goroutines at once: their requests go out beside each other.
type Sink struct {
	timeout time.Duration
	maxBody int
	write   api.WriteAPIBlocking
	rules   *transport
	scratch spares[scratch]
	types   *Types

	url, bucket, token string // for Check
	readable           atomic.Bool
}

// scratch is what one Deliver works with.
type scratch struct {
	enc   Encoder
	point telemetry.Point
	read  telemetry.PointReader
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
		base = newTransport(c.TLS, c.Dial)
	}
	s := &Sink{scratch: newSpares[scratch](), types: c.Types, timeout: c.Timeout, maxBody: c.MaxBodyBytes, url: c.URL, bucket: c.Bucket, token: c.Token}
	s.rules = &transport{base: base, gzip: c.Gzip, zips: newSpares[packer]()}
	options := influxdb2.DefaultOptions().SetPrecision(time.Nanosecond).SetApplicationName("sluice").SetLogLevel(0).
		SetHTTPClient(&http.Client{Transport: s.rules})
	s.write = influxdb2.NewClientWithOptions(c.URL, c.Token, options).WriteAPIBlocking(c.Org, c.Bucket)
	return s, nil
}

func newTransport(c *tls.Config, dial func(context.Context, string, string) (net.Conn, error)) *http.Transport {
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	}
	if c == nil {
		c = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dial,
		TLSClientConfig:        c,
		TLSHandshakeTimeout:    10 * time.Second,
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// Deliver implements uplink.Sink. Points that line protocol cannot carry are named before anything is sent.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	w := s.scratch.get()
	defer s.scratch.put(w)
	if w.lines == nil || w.lines.lent() { // the transport has not let go of the last request yet
		w.lines = &loan{}
	}
	if refused := w.encode(recs, s.maxBody, s.types); len(refused) > 0 {
		return &uplink.Error{Kind: uplink.KindRejected, Detail: refused[0].Detail, Refused: refused}
	}
	from := 0
	for _, to := range w.cuts {
		if err := s.send(ctx, w.lines, from, to); err != nil {
			var e *uplink.Error
			if errors.As(err, &e) && e.Kind == uplink.KindRejected {
				s.types.learn(e.Detail, time.Now())
			}
			return err
		}
		from = to
	}
	return nil
}

// encode fills lines and cuts, and tells which records are not in them.
func (w *scratch) encode(recs []uplink.Record, maxBody int, types *Types) (refused []uplink.Refused) {
	b := w.lines.b[:0]
	w.cuts = w.cuts[:0]
	now := time.Now()
	if !types.any() {
		types = nil
	}
	start := 0
	for i := range recs {
		at := len(b)
		var err error
		b, err = w.appendRecord(b, &recs[i])
		if err == nil && recs[i].Type == uplink.TypePoint {
			if bad := types.check(&w.point, now); bad != nil {
				b, err = b[:at], bad
			}
		}
		if err != nil {
			var u *unwritable
			errors.As(err, &u)
			refused = append(refused, uplink.Refused{Index: i, Reason: u.reason, Detail: u.detail})
			continue
		}
		if len(b)-start > maxBody && at > start {
			w.cuts = append(w.cuts, at)
			start = at
		}
	}
	if len(b) > start {
		w.cuts = append(w.cuts, len(b))
	}
	w.lines.b = b
	return refused
}

func (w *scratch) appendRecord(b []byte, r *uplink.Record) ([]byte, error) {
	if r.Type == uplink.TypeTypedPoint {
		return w.appendTyped(b, r)
	}
	if r.Type != uplink.TypePoint {
		return b, &unwritable{reasonType, fmt.Sprintf("record type %d is not a point", r.Type)}
	}
	if err := w.read.Read(r.Body, &w.point); err != nil {
		return b, &unwritable{reasonDamaged, err.Error()}
	}
	return w.enc.Append(b, &w.point)
}

func (s *Sink) send(ctx context.Context, l *loan, from, to int) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	lines := l.b[from:to]
	ctx = context.WithValue(ctx, sendingKey{}, &sending{l, lines})
	// The string lives as long as the request: the loan keeps lines from being overwritten before that.
	err := s.write.WriteRecord(ctx, unsafe.String(unsafe.SliceData(lines), len(lines)))
	if err == nil {
		return nil
	}
	return uplink.TransportError(err)
}

// Describe renders a record as line protocol, or says why that cannot be done.
func Describe(r uplink.Record) string {
	w := scratch{}
	b, err := w.appendRecord(nil, &r)
	if err != nil {
		return "# " + err.Error()
	}
	return strings.TrimSuffix(string(b), "\n")
}
