package store

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Mode is what a StandIn answers.
type Mode string

// The modes. Down refuses connections; the others accept them.
const (
	Up          Mode = "up"          // stores, 204
	Down        Mode = "down"        // nothing listens
	Broken      Mode = "500"         // stores nothing
	Unavailable Mode = "503"         // stores nothing, Retry-After: 1
	Denied      Mode = "401"         // stores nothing
	Portal      Mode = "200 html"    // a captive portal: 200 with a page, stores nothing
	Redirect    Mode = "302"         // a captive portal: elsewhere
	Reset       Mode = "reset"       // stores everything, then cuts the connection: the answer is lost
	HalfReset   Mode = "half reset"  // reads half the request, then cuts
	Slow        Mode = "slow"        // stores, answers after 300 ms
	StoredError Mode = "stored, 500" // stores everything, answers 500
)

// Stored is what a StandIn holds for one point.
type Stored struct {
	Line
	Writes   int // how often the point arrived
	Versions int // how often it arrived with other values than before
	LastAt   time.Time
}

// StandIn speaks POST /api/v2/write. Methods are safe for concurrent use.
type StandIn struct {
	Address string // 127.0.0.1:port, the same through Down and Up

	discard bool

	mu       sync.Mutex // guards all below
	mode     Mode
	server   *http.Server
	points   map[string]*Stored
	refused  []string // parse errors and wrong requests, at most 100
	requests int
	lines    int
	bytes    int64 // as sent, compressed
}

// NewStandIn listens on a free loopback port. With discard it answers 204 and counts lines, but keeps no points: the null
// store of the benchmark.
func NewStandIn(discard bool) (*StandIn, error) {
	s := &StandIn{discard: discard, points: map[string]*Stored{}, mode: Down, Address: "127.0.0.1:0"}
	return s, s.Set(Up)
}

// URL is the server's base address.
func (s *StandIn) URL() string { return "http://" + s.Address }

// Set switches the mode; from Down it listens again on the same port.
func (s *StandIn) Set(m Mode) error {
	s.mu.Lock()
	was := s.mode
	s.mode = m
	server := s.server
	s.mu.Unlock()
	switch {
	case m == Down && was != Down:
		return server.Close()
	case m != Down && was == Down:
		l, err := listen(s.Address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: s}
		s.mu.Lock()
		s.Address, s.server = l.Addr().String(), server
		s.mu.Unlock()
		go server.Serve(l)
	}
	return nil
}

// listen retries for a second: the port may still be held by a connection attempt of the peer to itself.
func listen(address string) (net.Listener, error) {
	for deadline := time.Now().Add(time.Second); ; {
		l, err := net.Listen("tcp", address)
		if err == nil || time.Now().After(deadline) {
			return l, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// Close stops listening.
func (s *StandIn) Close() error { return s.Set(Down) }

// ServeHTTP answers as the mode says.
func (s *StandIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	mode := s.mode
	s.requests++
	s.mu.Unlock()
	if r.Method == http.MethodGet && r.URL.Path == "/login" {
		io.WriteString(w, "<html>please log in</html>")
		return
	}
	switch mode {
	case Broken:
		http.Error(w, `{"code":"internal error","message":"stand-in is broken"}`, http.StatusInternalServerError)
		return
	case Unavailable:
		w.Header().Set("Retry-After", "1")
		http.Error(w, `{"code":"unavailable","message":"later"}`, http.StatusServiceUnavailable)
		return
	case Denied:
		http.Error(w, `{"code":"unauthorized","message":"unauthorized access"}`, http.StatusUnauthorized)
		return
	case Portal:
		io.WriteString(w, "<html>please log in</html>")
		return
	case Redirect:
		http.Redirect(w, r, s.URL()+"/login", http.StatusFound)
		return
	case HalfReset:
		io.CopyN(io.Discard, r.Body, max(r.ContentLength/2, 1))
		panic(http.ErrAbortHandler)
	}
	if status, err := s.take(r); err != nil {
		s.mu.Lock()
		if len(s.refused) < 100 {
			s.refused = append(s.refused, err.Error())
		}
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json; charset=utf-8")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"code":"invalid","message":%q}`, err.Error())
		return
	}
	switch mode {
	case Reset:
		panic(http.ErrAbortHandler)
	case StoredError:
		http.Error(w, `{"code":"internal error","message":"timeout"}`, http.StatusInternalServerError)
		return
	case Slow:
		select {
		case <-r.Context().Done():
		case <-time.After(300 * time.Millisecond):
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

// take stores a write request whole or not at all, as InfluxDB does with a malformed line.
func (s *StandIn) take(r *http.Request) (int, error) {
	if r.URL.Path != "/api/v2/write" || r.Method != http.MethodPost {
		return http.StatusNotFound, fmt.Errorf("%s %s", r.Method, r.URL.Path)
	}
	q := r.URL.Query()
	if q.Get("org") == "" && q.Get("orgID") == "" || q.Get("bucket") == "" {
		return http.StatusBadRequest, fmt.Errorf("org or bucket missing: %s", r.URL.RawQuery)
	}
	if p := q.Get("precision"); p != "" && p != "ns" {
		return http.StatusBadRequest, fmt.Errorf("precision %q, want ns", p)
	}
	counted := &countReader{r: r.Body}
	body := io.Reader(counted)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return http.StatusInternalServerError, err
		}
		body = z
	}
	b, err := io.ReadAll(io.LimitReader(body, 64<<20))
	if err != nil {
		return http.StatusInternalServerError, err
	}
	if s.discard {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lines += strings.Count(string(b), "\n")
		s.bytes += counted.n
		return 0, nil
	}
	var lines []Line
	for text := range strings.Lines(string(b)) {
		text = strings.TrimSuffix(text, "\n")
		if text == "" {
			continue
		}
		l, err := ParseLine(text)
		if err != nil {
			return http.StatusBadRequest, fmt.Errorf("unable to parse: %w", err)
		}
		lines = append(lines, l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes += counted.n
	now := time.Now()
	for _, l := range lines {
		s.lines++
		key := l.Key()
		p := s.points[key]
		if p == nil {
			p = &Stored{Line: l}
			s.points[key] = p
		}
		changed := p.Writes == 0
		for name, v := range l.Fields { // fields merge, the last value wins
			if old, ok := p.Fields[name]; !ok || old != v {
				changed = true
			}
			p.Fields[name] = v
		}
		p.Writes++
		p.LastAt = now
		if changed {
			p.Versions++
		}
	}
	return 0, nil
}

// Points returns a copy of the points of one measurement, in order of time, then key.
func (s *StandIn) Points(measurement string) []Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Stored
	for _, p := range s.points {
		if p.Measurement == measurement {
			c := *p
			c.Fields = make(map[string]float64, len(p.Fields))
			for k, v := range p.Fields {
				c.Fields[k] = v
			}
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b Stored) int {
		if a.Time != b.Time {
			return int(min(max(a.Time-b.Time, -1), 1))
		}
		return strings.Compare(a.Key(), b.Key())
	})
	return out
}

// Totals says what arrived: requests of any outcome, lines stored, bytes on the wire of stored requests.
func (s *StandIn) Totals() (requests, lines int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.lines, s.bytes
}

// Refused returns why requests were answered 4xx, at most the first hundred.
func (s *StandIn) Refused() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.refused)
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.n += int64(n)
	return n, err
}
