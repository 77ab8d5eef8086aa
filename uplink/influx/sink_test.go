package influx

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

const secretToken = "secret-token-4711"

// gateway is an outbox, a forwarder and a sink in front of a scripted server.
type gateway struct {
	t     *testing.T
	out   *uplink.Outbox
	q     *uplink.Quarantine
	f     *uplink.Forwarder
	lines []string // of the points, in order
}

// newGateway queues a point for each number and starts forwarding to url.
func newGateway(t *testing.T, c Config, points ...*telemetry.Point) *gateway {
	t.Helper()
	c.Org, c.Bucket, c.Token = "acme", "b1", secretToken
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t}
	if g.out, err = uplink.OpenOutbox(t.TempDir(), uplink.OutboxOptions{CursorEvery: time.Second}); err != nil {
		t.Fatal(err)
	}
	if g.q, err = uplink.OpenQuarantine(t.TempDir(), uplink.QuarantineOptions{}); err != nil {
		t.Fatal(err)
	}
	g.f, err = uplink.NewForwarder(g.out, s, uplink.ForwarderOptions{Name: "cloud", Quarantine: g.q, Describe: Describe,
		MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, ParkAfter: 6})
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range points {
		r := uplink.Record{Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}
		if err := g.out.Put(uplink.Cause{LSN: uint64(i + 1), Time: time.Now().UnixNano()}, r.Type, r.Body); err != nil {
			t.Fatal(err)
		}
		g.lines = append(g.lines, Describe(r))
	}
	if err := g.out.Flush(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
		g.out.Close()
		g.q.Close()
	})
	return g
}

// until polls the status until ok, at most ten seconds.
func (g *gateway) until(what string, ok func(uplink.Status) bool) uplink.Status {
	g.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s := g.f.Status()
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("not %s: %+v", what, s)
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *gateway) untilDrained() uplink.Status {
	g.t.Helper()
	return g.until("drained", func(s uplink.Status) bool { return s.Pending == 0 && s.State == uplink.Idle })
}

func (g *gateway) quarantined() (lines []string, items []uplink.Item) {
	g.t.Helper()
	if err := g.q.Each(1, func(it uplink.Item) bool {
		lines, items = append(lines, it.Points), append(items, it)
		return true
	}); err != nil {
		g.t.Fatal(err)
	}
	return lines, items
}

// readings makes n points of one series.
func readings(n int) []*telemetry.Point {
	points := make([]*telemetry.Point, n)
	for i := range points {
		points[i] = &telemetry.Point{Measurement: "m", Labels: labels("dev", fmt.Sprintf("d%d", i)), Time: 1764000000e9 + int64(i), Fields: one("v", float64(i)+0.5)}
	}
	return points
}

func without(lines []string, bad ...int) []string {
	var out []string
	for i, l := range lines {
		if !slices.Contains(bad, i) {
			out = append(out, l)
		}
	}
	return out
}

func wantStored(t *testing.T, s *scriptServer, lines []string) {
	t.Helper()
	got := slices.Sorted(maps.Keys(s.lines()))
	want := slices.Sorted(slices.Values(lines))
	if !slices.Equal(got, want) {
		t.Errorf("stored %q, want %q", got, want)
	}
}

func has(lines []string, part string) bool {
	return slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, part) })
}

func pick(lines []string, parts ...string) (out []string) {
next:
	for _, l := range lines {
		for _, p := range parts {
			if strings.Contains(l, p) {
				continue next
			}
		}
		out = append(out, l)
	}
	return out
}

func TestSink_SendsWhatInfluxDBExpects(t *testing.T) {
	for _, packed := range []bool{false, true} {
		s := newServer(t, nil, func(_ int, r request) reply { return reply{raw: answer4, store: r.lines} })
		g := newGateway(t, Config{URL: s.url(), Gzip: packed}, readings(3)...)
		g.untilDrained()
		wantStored(t, s, g.lines)
		r := s.requests()[0]
		if r.Method != "POST" || r.URL.Path != "/api/v2/write" || r.URL.Query().Encode() != "bucket=b1&org=acme&precision=ns" {
			t.Errorf("%s %s", r.Method, r.URL)
		}
		if r.Header.Get("Authorization") != "Token "+secretToken || r.packed != packed || r.ContentLength <= 0 || len(r.TransferEncoding) > 0 ||
			r.Header.Get("Idempotency-Key") != "" || !strings.HasPrefix(r.UserAgent(), "sluice") {
			t.Errorf("headers %v, length %d", r.Header, r.ContentLength)
		}
	}
}

// TestSink_QuarantinesExactlyWhatTheServerRefuses holds the rows of 400 and 422: what is stored, and what stands in the quarantine in whose words.
func TestSink_QuarantinesExactlyWhatTheServerRefuses(t *testing.T) {
	const retention = `failure writing points to database: partial write: dropped 1 points outside retention policy of duration 1h0m0s - oldest point r,dev=a at 1970-01-01T00:00:01Z dropped because it violates a Retention Policy Lower Bound at 2026-11-22T16:00:00Z, newest point r,dev=a at 1970-01-01T00:00:01Z dropped because it violates a Retention Policy Lower Bound at 2026-11-22T16:00:00Z dropped=1 for database: 8b2a for retention policy: autogen`
	const conflict = `failure writing points to database: partial write: field type conflict: input field "v" on measurement "m" is type string, already exists as type float dropped=1`
	for _, tt := range []struct {
		name    string
		bad     []int // of 8 points
		partial bool  // the server keeps the good lines of a refused batch
		raw     string
		words   string
	}{
		{"malformed, 1 of 8", []int{2}, false, oss(400, "invalid", "unable to parse 'mal,dev=b v=': missing field value"), "invalid: unable to parse 'mal,dev=b v=': missing field value"},
		{"all malformed", []int{0, 1, 2, 3, 4, 5, 6, 7}, false, oss(400, "invalid", "unable to parse 'this is not lp': invalid field format"), "invalid field format"},
		{"malformed by the thousand, 1.03 MB answer", []int{5}, false, oss(400, "invalid", strings.Repeat("unable to parse 'mal,dev=b v=': missing field value\n", 20000)), "missing field value"},
		{"time outside range", []int{7}, false, oss(400, "invalid", "unable to parse 'm v=1 9223372036854775807': time outside range -9223372036854775806 - 9223372036854775806"), "time outside range"},
		{"invalid number", []int{0}, false, oss(400, "invalid", "unable to parse 'm v=NaN 1': invalid number"), "invalid number"},
		{"carriage return", []int{0, 7}, false, oss(400, "invalid", "unable to parse 'm v=1 1\r': bad timestamp"), "bad timestamp"},
		{"missing tag value", []int{3}, false, oss(400, "invalid", "unable to parse 'm,a= v=1': missing tag value"), "missing tag value"},
		{"duplicate tags", []int{3}, false, oss(400, "invalid", "unable to parse 'm,a=1,a=2 v=1': duplicate tags"), "duplicate tags"},
		{"reserved tag", []int{3}, false, oss(400, "invalid", `unable to parse 'm,time=1 v=1': cannot use reserved tag key "time"`), "reserved tag key"},
		{"70 KB line echoed", []int{4}, false, oss(400, "invalid", "unable to parse '"+strings.Repeat("x", 70000)+"': max key length exceeded"), "unable to parse"},
		{"type conflict, 1 of 8", []int{1}, true, oss(422, "unprocessable entity", conflict), "field type conflict"},
		{"type conflict everywhere", []int{0, 1, 2, 3, 4, 5, 6, 7}, true, oss(422, "unprocessable entity", conflict), "field type conflict"},
		{"beyond retention", []int{6}, true, oss(422, "unprocessable entity", retention), "outside retention policy"},
		{"retention and conflict, of which the server tells one", []int{0, 5}, true, oss(422, "unprocessable entity", conflict), "dropped=1"},
		{"only field is time", []int{2}, true, oss(422, "unprocessable entity", `failure writing points to database: partial write: invalid field name: input field "time" on measurement "m" is invalid dropped=1`), "invalid field name"},
		{"partial write as 400", []int{2}, true, oss(400, "invalid", conflict), "partial write"},
		{"serverless", []int{2}, true, bare(400, "Content-Type: application/json\r\n", `{"code":"invalid","line":2,"message":"failed to parse line protocol"}`), "invalid: failed to parse line protocol"},
		{"v3 without content type", []int{2}, false, bare(400, "", `{"code":"invalid","message":"partial write"}`), "invalid: partial write"},
		{"v3 with data", []int{2}, true, bare(400, "Content-Type: application/json\r\n", `{"error":"partial write of line protocol occurred","data":[{"original_line":"m v","line_number":2,"error_message":"no fields"}]}`), "partial write of line protocol occurred: line 2: no fields"},
		{"1.8", []int{2}, false, bare(400, "Content-Type: application/json\r\nX-Influxdb-Error: e\r\n", `{"error":"unable to parse 'x'"}`), "unable to parse 'x'"},
		{"words in a header only", []int{2}, false, bare(422, "X-Influxdb-Error: from the header\r\n", ""), "from the header"},
		{"plain text", []int{2}, false, bare(400, "Content-Type: text/plain\r\n", "bad line"), "bad line"},
		{"a body that poses as the library's own struct", []int{2}, false, bare(400, "Content-Type: application/json\r\n", `{"statuscode":204,"StatusCode":200,"retryafter":99,"message":"posing"}`), "posing"},
		{"JSON announced, something else sent", []int{2}, false, bare(422, "Content-Type: application/json\r\n", `not json`), "not json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var bad []string
			for _, n := range tt.bad {
				bad = append(bad, fmt.Sprintf("dev=d%d ", n))
			}
			s := newServer(t, nil, func(_ int, r request) reply {
				good := pick(r.lines, bad...)
				if len(good) == len(r.lines) {
					return reply{raw: answer4, store: r.lines}
				}
				if tt.partial {
					return reply{raw: tt.raw, store: good}
				}
				return reply{raw: tt.raw}
			})
			g := newGateway(t, Config{URL: s.url(), Gzip: true}, readings(8)...)
			st := g.untilDrained()
			wantStored(t, s, without(g.lines, tt.bad...))
			lines, items := g.quarantined()
			var want []string
			for _, n := range tt.bad {
				want = append(want, g.lines[n])
			}
			if !slices.Equal(lines, want) {
				t.Fatalf("quarantined %q, want %q", lines, want)
			}
			for _, it := range items {
				if !strings.Contains(it.Detail, tt.words) || len(it.Detail) > 5<<10 || it.Reason != "rejected" || it.Stage != uplink.StageSink {
					t.Errorf("item %.300q, want words %q", fmt.Sprintf("%+v", it), tt.words)
				}
			}
			if st.Delivered != uint64(8-len(tt.bad)) || st.Rejected != uint64(len(tt.bad)) {
				t.Errorf("Status %+v", st.Counters)
			}
		})
	}
}

// TestSink_ConfigurationErrorsKeepEverything holds the rows where someone must act; after the cause is gone everything arrives.
func TestSink_ConfigurationErrorsKeepEverything(t *testing.T) {
	portal := "<!DOCTYPE html><html><head><title>Welcome to Airport WiFi</title></head><body>Please log in</body></html>"
	for _, tt := range []struct{ name, raw, words string }{
		{"token wrong", oss(401, "unauthorized", "unauthorized access"), "unauthorized access"},
		{"token inactive", oss(403, "forbidden", "insufficient permissions for write: token is inactive"), "token is inactive"},
		{"token without write", oss(403, "forbidden", "insufficient permissions for write"), "insufficient permissions"},
		{"bucket unknown", oss(404, "not found", `bucket "nope" not found`), `bucket "nope" not found`},
		{"organisation unknown", oss(404, "not found", `organization name "nope" not found`), "organization name"},
		{"bucket missing", oss(404, "not found", "bucket not found"), "bucket not found"},
		{"organisation missing", oss(400, "invalid", "Please provide either orgID or org"), "orgID or org"},
		{"precision not known", oss(400, "invalid", "invalid precision; valid precision units are ns, us, ms, and s"), "invalid precision"},
		{"method not allowed", bare(405, "Allow: OPTIONS, POST\r\nContent-Type: application/json; charset=utf-8\r\n", `{"code":"method not allowed","message":"allow: OPTIONS, POST"}`), "allow: OPTIONS, POST"},
		{"captive portal, 200", bare(200, "Content-Type: text/html\r\n", portal), "captive portal"},
		{"200 without a body", bare(200, "", ""), "only 204 means stored"},
		{"200 with JSON", bare(200, "Content-Type: application/json\r\n", `{"ok":true}`), "only 204"},
		{"201", bare(201, "", ""), "only 204"},
		{"206", bare(206, "", "x"), "only 204"},
		{"captive portal, 302", bare(302, "Location: http://login.portal.example/?token=abc\r\n", ""), "http://login.portal.example"},
		{"redirect to https", bare(301, "Location: https://influx.example/api/v2/write\r\n", ""), "https://influx.example"},
		{"redirect that repeats the method", bare(307, "Location: /elsewhere\r\n", ""), "redirected"},
		{"308", bare(308, "Location: /elsewhere\r\n", ""), "redirected"},
		{"304", "HTTP/1.1 304 Not Modified\r\n\r\n", "only 204"},
		{"400 of a web server", bare(400, "Content-Type: text/html\r\n", "<html><center>The plain HTTP request was sent to HTTPS port</center></html>"), "HTTPS port"},
		{"411", bare(411, "", ""), ""},
		{"proxy wants a login", bare(407, "", ""), ""},
		{"511", bare(511, "Content-Type: text/html\r\n", portal), "Airport"},
		{"410 says no more than 404 here", bare(410, "", "gone"), "gone"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			fixed := make(chan struct{})
			s := newServer(t, nil, func(_ int, r request) reply {
				select {
				case <-fixed:
					return reply{raw: answer4, store: r.lines}
				default:
					return reply{raw: tt.raw}
				}
			})
			g := newGateway(t, Config{URL: s.url(), Gzip: true}, readings(5)...)
			st := g.until("in config error", func(st uplink.Status) bool { return st.State == uplink.ConfigError })
			if !strings.Contains(st.LastError, tt.words) || strings.Contains(st.LastError, "token=abc") || strings.Contains(st.LastError, secretToken) {
				t.Errorf("LastError %q, want words %q", st.LastError, tt.words)
			}
			if wait := time.Until(st.NextAttempt); st.Pending != 5 || wait < 25*time.Second || wait > time.Minute {
				t.Errorf("pending %d, next attempt in %v", st.Pending, wait)
			}
			wantStored(t, s, nil)
			if n := len(s.requests()); n != 1 {
				t.Errorf("%d requests: a redirect was followed, or the wait was none", n)
			}
			close(fixed)
			g.f.Retry()
			g.untilDrained()
			wantStored(t, s, g.lines)
			if lines, _ := g.quarantined(); len(lines) != 0 {
				t.Errorf("quarantined %q", lines)
			}
		})
	}
}

// TestSink_TroubleOnTheWayIsRetriedUntilEverythingIsStored holds the rows of 5xx, 429, transport, and what servers store without saying so.
func TestSink_TroubleOnTheWayIsRetriedUntilEverythingIsStored(t *testing.T) {
	full := func(r request) []string { return r.lines }
	none := func(request) []string { return nil }
	for _, tt := range []struct {
		name  string
		reply reply
		store func(request) []string
		words string
	}{
		{"cache full", reply{raw: oss(500, "internal error", "unexpected error writing points to database: engine: cache-max-memory-size exceeded: (320000/200000)")}, none, "cache-max-memory-size exceeded"},
		{"storage timed out, and stored all", reply{raw: oss(500, "internal error", "unexpected error writing points to database: timeout")}, full, "timeout"},
		{"429 with seconds", reply{raw: bare(429, "Retry-After: 0.05\r\nContent-Type: application/json\r\n", `{"code":"too many requests","message":"org 1 has exceeded limited_write plan limit"}`)}, none, "exceeded"},
		{"503, empty", reply{raw: bare(503, "", "")}, none, "503"},
		{"1.8 throttles", reply{raw: bare(503, "Content-Type: application/json\r\n", `{"error":"request throttled, queue full"}`)}, none, "queue full"},
		{"502 of a proxy, HTML", reply{raw: bare(502, "Content-Type: text/html\r\n", "<html>Bad Gateway</html>")}, none, "Bad Gateway"},
		{"504", reply{raw: bare(504, "", "")}, none, "504"},
		{"408", reply{raw: bare(408, "Connection: close\r\n", "")}, none, "408"},
		{"closed without an answer", reply{}, none, "EOF"},
		{"closed without an answer, and stored", reply{}, full, "EOF"},
		{"reset after it stored", reply{reset: true}, full, "reset"},
		{"hangs", reply{hang: true}, full, "no answer in time"},
		{"trickles headers for ever", reply{raw: "HTTP/1.1 204 No Content\r\nX-A: b", drip: true}, full, "no answer in time"},
		{"trickles an error for ever", reply{raw: "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 999999\r\n\r\n" + strings.Repeat("z", 1000), drip: true}, none, ""},
		{"gzip cut on the way", reply{raw: oss(500, "internal error", "unable to read data: unexpected EOF")}, none, "unexpected EOF"},
		{"cut in the status line", reply{raw: "HTTP/1.1 20"}, full, ""},
		{"cut in the headers", reply{raw: "HTTP/1.1 204 No Content\r\nX-Influxdb-Bu"}, full, "broken"},
		{"an error cut in its body", reply{raw: "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 500\r\n\r\n{\"code\""}, none, "503"},
		{"not HTTP", reply{raw: "SSH-2.0-OpenSSH_9.2\r\n"}, none, "malformed HTTP"},
		{"headers without end", reply{raw: "HTTP/1.1 204 No Content\r\nX: " + strings.Repeat("x", 200<<10)}, none, "exceeded"},
		{"an endless error body", reply{raw: "HTTP/1.1 503 Service Unavailable\r\n\r\n" + strings.Repeat("y", 8<<20)}, none, "yyy"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, nil, func(call int, r request) reply {
				if call < 2 {
					a := tt.reply
					a.store = tt.store(r)
					return a
				}
				return reply{raw: answer4, store: r.lines}
			})
			var seen sync.Map
			g := newGateway(t, Config{URL: s.url(), Gzip: true, Timeout: 300 * time.Millisecond}, readings(5)...)
			g.until("drained", func(st uplink.Status) bool {
				if st.LastError != "" {
					seen.Store(st.LastError, true)
				}
				return st.Pending == 0
			})
			wantStored(t, s, g.lines)
			if lines, _ := g.quarantined(); len(lines) != 0 {
				t.Errorf("quarantined %q", lines)
			}
			found := false
			var all []string
			seen.Range(func(k, _ any) bool {
				all = append(all, k.(string))
				found = found || strings.Contains(k.(string), tt.words)
				return true
			})
			if !found {
				t.Errorf("errors %q, want words %q", all, tt.words)
			}
		})
	}
}

func TestSink_RetryAfterIsReadInBothForms(t *testing.T) {
	now := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		header string
		want   time.Duration
	}{
		{"120", 2 * time.Minute}, {"1.5", 1500 * time.Millisecond}, {"Sun, 22 Nov 2026 17:01:00 GMT", time.Minute},
		{"Sun, 22 Nov 2026 16:00:00 GMT", 0}, {"86400", 10 * time.Minute}, {"Sun, 22 Nov 2027 17:01:00 GMT", 10 * time.Minute},
		{"-5", 0}, {"soon", 0}, {"", 0}, {"NaN", 0}, {"1e99", 10 * time.Minute},
	} {
		for _, status := range []int{429, 503} {
			resp := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {tt.header}}}
			if e := verdict(resp, "", now); e.Kind != uplink.KindRetry || e.RetryAfter != tt.want {
				t.Errorf("%d with Retry-After %q: %v, %v, want %v", status, tt.header, e.Kind, e.RetryAfter, tt.want)
			}
		}
	}
}

func TestSink_TooLargeIsHalvedAndTheOneThatNeverFitsQuarantined(t *testing.T) {
	for _, raw := range []string{
		oss(413, "request too large", "unable to read data: points batch is too large"),
		bare(413, "Content-Type: text/html\r\nConnection: close\r\n", "<html>nginx</html>"),
	} {
		s := newServer(t, nil, func(_ int, r request) reply {
			if len(r.lines) > 3 || has(r.lines, "dev=d5 ") {
				return reply{raw: raw}
			}
			return reply{raw: answer4, store: r.lines}
		})
		g := newGateway(t, Config{URL: s.url(), Gzip: true}, readings(16)...)
		g.untilDrained()
		wantStored(t, s, without(g.lines, 5))
		if lines, items := g.quarantined(); !slices.Equal(lines, g.lines[5:6]) || items[0].Reason != "too_large" {
			t.Errorf("quarantined %q", lines)
		}
	}
}

func TestSink_AProxyThatUnpacksIsAnsweredWithPlainLines(t *testing.T) {
	s := newServer(t, nil, func(_ int, r request) reply {
		if r.packed {
			return reply{raw: oss(500, "internal error", "An internal error has occurred - check server logs")}
		}
		return reply{raw: answer4, store: r.lines}
	})
	points := readings(200)
	g := newGateway(t, Config{URL: s.url(), Gzip: true}, points[:1]...)
	g.untilDrained()
	for i := 1; i < 12; i++ {
		if err := g.out.Put(uplink.Cause{LSN: uint64(i + 1)}, uplink.TypePoint, telemetry.MarshalPoint(nil, points[i])); err != nil {
			t.Fatal(err)
		}
		if err := g.out.Flush(); err != nil {
			t.Fatal(err)
		}
		g.untilDrained()
	}
	if n := len(s.lines()); n != 12 {
		t.Errorf("stored %d points", n)
	}
	last := s.requests()
	for _, r := range last[len(last)-5:] {
		if r.packed {
			t.Error("it still compresses, in vain")
		}
	}
	if lines, _ := g.quarantined(); len(lines) != 0 {
		t.Errorf("quarantined %q", lines)
	}
}

func TestSink_OnePlainSuccessDoesNotEndCompression(t *testing.T) {
	s := newServer(t, nil, func(call int, r request) reply {
		if call < 3 {
			return reply{raw: oss(500, "internal error", "busy")}
		}
		return reply{raw: answer4, store: r.lines}
	})
	points := readings(3)
	g := newGateway(t, Config{URL: s.url(), Gzip: true}, points[0])
	g.untilDrained()
	g.out.Put(uplink.Cause{LSN: 2}, uplink.TypePoint, telemetry.MarshalPoint(nil, points[1]))
	g.out.Flush()
	g.untilDrained()
	if r := s.requests(); r[3].packed || !r[4].packed {
		t.Errorf("compressed: request 3 %v, request 4 %v", r[3].packed, r[4].packed)
	}
}

func TestSink_PointsThatCannotBeWrittenDoNotPoisonTheBatch(t *testing.T) {
	s := newServer(t, nil, func(_ int, r request) reply { return reply{raw: answer4, store: r.lines} })
	points := readings(6)
	points[1].Measurement = "#m"
	points[4].Labels = labels("dev", `d4\`)
	g := newGateway(t, Config{URL: s.url()}, points...)
	if err := g.out.Put(uplink.Cause{LSN: 100}, uplink.TypePoint, []byte("damaged")); err != nil {
		t.Fatal(err)
	}
	if err := g.out.Put(uplink.Cause{LSN: 101}, uplink.TypeNotification, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	g.out.Flush()
	g.untilDrained()
	wantStored(t, s, without(g.lines, 1, 4))
	_, items := g.quarantined()
	var reasons []string
	for _, it := range items {
		reasons = append(reasons, it.Reason)
	}
	if !slices.Equal(reasons, []string{reasonMeasurement, reasonTag, reasonDamaged, reasonType}) || items[0].Points != "# measurement: a line that starts with # is a comment" {
		t.Errorf("quarantined %q", reasons)
	}
}

func TestSink_ABatchIsSplitAtTheBodyLimit(t *testing.T) {
	s := newServer(t, nil, func(_ int, r request) reply { return reply{raw: answer4, store: r.lines} })
	g := newGateway(t, Config{URL: s.url(), MaxBodyBytes: 200}, readings(20)...)
	g.untilDrained()
	wantStored(t, s, g.lines)
	for _, r := range s.requests() {
		if r.ContentLength > 200 {
			t.Errorf("a request of %d bytes", r.ContentLength)
		}
	}
}

func TestSink_AServerThatIsNotThereIsRetried(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	g := newGateway(t, Config{URL: "http://" + addr}, readings(1)...)
	st := g.until("backing off", func(st uplink.Status) bool { return st.State == uplink.BackingOff })
	if !strings.Contains(st.LastError, "refused") || strings.Contains(st.LastError, "api/v2") {
		t.Errorf("LastError %q", st.LastError)
	}
}

func TestSink_CertificatesAreChecked(t *testing.T) {
	for _, tt := range []struct {
		name, words string
		host        string
		until       time.Time
		trusted     bool
		kind        uplink.Kind
	}{
		{"expired", "not valid at this machine's time", "127.0.0.1", time.Now().Add(-time.Hour), true, uplink.KindConfig},
		{"for another name", "127.0.0.1", "192.0.2.1", time.Now().Add(time.Hour), true, uplink.KindConfig},
		{"from nobody we know", "unknown authority", "127.0.0.1", time.Now().Add(time.Hour), false, uplink.KindConfig},
		{"good", "", "127.0.0.1", time.Now().Add(time.Hour), true, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, pool := certificate(t, tt.host, tt.until)
			s := newServer(t, &tls.Config{Certificates: []tls.Certificate{cert}}, func(_ int, r request) reply { return reply{raw: answer4, store: r.lines} })
			c := &tls.Config{}
			if tt.trusted {
				c.RootCAs = pool
			}
			sink, err := New(Config{URL: "https://" + s.ln.Addr().String(), Bucket: "b", TLS: c})
			if err != nil {
				t.Fatal(err)
			}
			err = sink.Deliver(t.Context(), []uplink.Record{{Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, readings(1)[0])}})
			if tt.words == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			var e *uplink.Error
			if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Detail, tt.words) {
				t.Errorf("Deliver = %v, want %v with %q", err, tt.kind, tt.words)
			}
			if len(s.lines()) > 0 {
				t.Error("it sent all the same")
			}
		})
	}
}

func certificate(t *testing.T, host string, until time.Time) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: until.Add(-24 * time.Hour), NotAfter: until,
		IPAddresses: []net.IP{net.ParseIP(host)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

func TestNew_NamesTheKeyThatIsWrongAndHidesSecrets(t *testing.T) {
	for _, tt := range []struct {
		c    Config
		want string
	}{
		{Config{URL: "influx.example", Bucket: "b"}, "url"},
		{Config{URL: "ftp://influx.example", Bucket: "b"}, "url"},
		{Config{URL: "https://h?token=" + secretToken, Bucket: "b"}, "url"},
		{Config{URL: "https://h"}, "bucket"},
		{Config{URL: "https://h", Bucket: "b", Token: secretToken + "\n"}, "token"},
	} {
		_, err := New(tt.c)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), secretToken) {
			t.Errorf("New(%+v) = %v, want %q", tt.c, err, tt.want)
		}
	}
}

func FuzzVerdict_NoAnswerIsASuccess(f *testing.F) {
	f.Add(200, "text/html", "<html>", "1")
	f.Add(422, "application/json", `{"code":"x","message":"y"}`, "Sun, 22 Nov 2026 17:01:00 GMT")
	f.Add(400, "", `{"error":"e","data":[{"line_number":1,"error_message":"m"}]}`, "-1")
	f.Fuzz(func(t *testing.T, status int, contentType, body, after string) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {contentType}, "Retry-After": {after}, "Location": {body}}}
		e := verdict(resp, body, time.Now())
		if e == nil || e.RetryAfter < 0 || e.RetryAfter > uplink.MaxRetryAfter || len(e.Error()) > 1200 {
			t.Errorf("verdict = %+v", e)
		}
		if status/100 != 4 && e.Kind == uplink.KindRejected {
			t.Errorf("%d is taken for a refusal", status)
		}
	})
}
