package influx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"sluice/uplink"
)

// transport lets the client library see either a 204 or an error of ours: redirects, other successes and error bodies of any size or
// form do not reach its decoding. Safe for concurrent use.
type transport struct {
	base http.RoundTripper
	gzip bool
	zips spares[packer]

	mu     sync.Mutex
	errors int  // answers of 500 in a row
	doubt  bool // plain lines were taken after compressed ones were not: the next compressed request decides
	plain  bool // compress no more
}

// packer compresses one request at a time.
type packer struct {
	zip    *gzip.Writer
	packed *loan
}

// loan is a buffer that request bodies read from. The HTTP transport may go on reading after the answer came, so the buffer is used again
// only when all bodies are closed.
type loan struct {
	b    []byte
	open atomic.Int32
}

// sending is what a request's context carries: its lines, and the loan they are on.
type sending struct {
	loan  *loan
	lines []byte
}

type sendingKey struct{}

func (l *loan) lent() bool { return l.open.Load() > 0 }

// body reads through r until it is closed.
func (l *loan) body(r io.Reader) io.ReadCloser {
	l.open.Add(1)
	return &lentBody{Reader: r, loan: l}
}

type lentBody struct {
	io.Reader
	loan *loan
	once sync.Once
}

func (b *lentBody) Close() error {
	b.once.Do(func() { b.loan.open.Add(-1) })
	return nil
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	s := req.Context().Value(sendingKey{}).(*sending)
	out := req.Clone(req.Context())
	// Writing the same lines again does no harm, so a connection that the server had closed may be replaced; an empty
	// value tells net/http so and is not sent.
	out.Header["Idempotency-Key"] = []string{}
	out.Header.Set("User-Agent", "sluice")
	// A proxy that unpacks but leaves the header makes InfluxDB answer 500 to every compressed request.
	t.mu.Lock()
	packed := t.gzip && !t.plain && t.errors%4 != 3
	t.mu.Unlock()
	if packed {
		p := t.zips.get()
		defer t.zips.put(p)
		req.Body.Close() // the same lines as in s
		if err := p.pack(out, s.lines); err != nil {
			return nil, err
		}
	} else {
		l := s.loan
		out.Body = l.body(req.Body)
		out.GetBody = func() (io.ReadCloser, error) {
			r, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			return l.body(r), nil
		}
	}
	resp, err := t.base.RoundTrip(out)
	if err != nil {
		return nil, uplink.TransportError(err)
	}
	t.learn(resp.StatusCode, packed)
	if resp.StatusCode == http.StatusNoContent {
		return resp, nil
	}
	return nil, verdict(resp, uplink.ReadErrorBody(resp), time.Now())
}

// learn decides whether compression is what the server chokes on.
func (t *transport) learn(status int, packed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case status != http.StatusInternalServerError:
		if status == http.StatusNoContent && t.gzip {
			t.doubt = !packed
		}
		t.errors = 0
	case packed && t.doubt:
		t.plain, t.errors = true, 0
	default:
		t.errors++
	}
}

// pack compresses into one buffer, so that length and replay are known.
func (p *packer) pack(out *http.Request, lines []byte) error {
	if p.packed == nil || p.packed.lent() {
		p.packed = &loan{}
	}
	l := p.packed
	buf := bytes.NewBuffer(l.b[:0])
	if p.zip == nil {
		p.zip, _ = gzip.NewWriterLevel(buf, gzipLevel) // fails for a bad level only
	} else {
		p.zip.Reset(buf)
	}
	if _, err := p.zip.Write(lines); err != nil {
		return err
	}
	if err := p.zip.Close(); err != nil {
		return err
	}
	l.b = buf.Bytes()
	out.Body = l.body(bytes.NewReader(l.b))
	out.GetBody = func() (io.ReadCloser, error) { return l.body(bytes.NewReader(l.b)), nil }
	out.ContentLength = int64(len(l.b))
	out.Header.Set("Content-Encoding", "gzip")
	return nil
}

const gzipLevel = gzip.BestSpeed

// verdict reads an answer that is not 204.
func verdict(resp *http.Response, body string, now time.Time) *uplink.Error {
	e := &uplink.Error{Status: resp.StatusCode, Detail: words(resp, body), RetryAfter: uplink.RetryAfter(resp.Header, now)}
	foreign := looksLikePage(resp, body)
	switch s := resp.StatusCode; {
	case s < 400:
		e.Kind = uplink.KindConfig
		e.Detail = notStored(resp, e.Detail)
	case s == 400 || s == 422:
		e.Kind = uplink.KindRejected
		// These are not about the points, and a page is not the database speaking.
		if foreign || strings.Contains(body, "either orgID or org") || strings.Contains(body, "invalid precision") {
			e.Kind = uplink.KindConfig
		}
	case s == 413:
		e.Kind = uplink.KindTooLarge
	case s == 408, s == 425, s == 429:
		e.Kind = uplink.KindRetry
	case s < 500, s == 501, s == 505, s == 511: // 511: a captive portal that says so
		e.Kind = uplink.KindConfig
	default:
		e.Kind = uplink.KindRetry
	}
	return e
}

func notStored(resp *http.Response, words string) string {
	what := fmt.Sprintf("the answer was %d, and only 204 means stored", resp.StatusCode)
	if to, err := resp.Location(); err == nil {
		what += ", redirected to " + to.Scheme + "://" + to.Host
	}
	what += ": a captive portal, a proxy, or the wrong address?"
	if words != "" {
		what += " (" + uplink.Clip(words, 120) + ")"
	}
	return what
}

func looksLikePage(resp *http.Response, body string) bool {
	t, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return t == "text/html" || t == "application/xhtml+xml" || strings.HasPrefix(strings.ToLower(strings.TrimSpace(body)), "<!doctype html")
}

// words takes the server's message out of the bodies that InfluxDB 1, 2 and 3 send; anything else is returned as it is.
func words(resp *http.Response, body string) string {
	var m struct {
		Code    string
		Message string
		Error   string
		Data    json.RawMessage
	}
	if err := json.Unmarshal([]byte(body), &m); err == nil {
		var lines []struct {
			Line  int    `json:"line_number"`
			Error string `json:"error_message"`
		}
		json.Unmarshal(m.Data, &lines) // other forms of data stay out
		switch {
		case m.Message != "" && m.Code != "":
			return m.Code + ": " + m.Message
		case m.Message != "":
			return m.Message
		case m.Error != "" && len(lines) > 0:
			return fmt.Sprintf("%s: line %d: %s", m.Error, lines[0].Line, lines[0].Error)
		case m.Error != "":
			return m.Error
		}
	}
	if body = strings.TrimSpace(body); body == "" {
		return strings.TrimSpace(resp.Header.Get("X-Influxdb-Error"))
	}
	return body
}
