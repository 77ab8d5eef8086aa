package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
)

// standInCloud plays the InfluxDB and the webhook receiver of a demo, behind a link that can be cut.
type standInCloud struct {
	listener net.Listener
	cut      atomic.Bool

	mu      sync.Mutex
	points  map[string]struct{} // measurement, tags and time of each point stored
	writes  int                 // lines taken, corrections included
	alerts  int                 // notifications taken
	lastHit string              // the last alert, in words
}

func newStandInCloud() (*standInCloud, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &standInCloud{listener: l, points: map[string]struct{}{}}, nil
}

func (c *standInCloud) url() string { return "http://" + c.listener.Addr().String() }

// Run serves until ctx ends.
func (c *standInCloud) Run(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/write", c.write)
	mux.HandleFunc("POST /hook", c.hook)
	srv := &http.Server{Handler: mux}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(c.listener); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// drop ends the connection without an answer, as a cut link does.
func drop(w http.ResponseWriter) {
	if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
		conn.Close()
	}
}

func (c *standInCloud) write(w http.ResponseWriter, r *http.Request) {
	if c.cut.Load() {
		drop(w)
		return
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = z
	}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	c.mu.Lock()
	defer c.mu.Unlock()
	for lines.Scan() {
		c.writes++
		c.points[pointIdentity(lines.Text())] = struct{}{}
	}
	w.WriteHeader(http.StatusNoContent)
}

// pointIdentity is a line without its fields. Quoted strings do not occur in what the gateway writes.
func pointIdentity(line string) string {
	series, rest := line, ""
	for i := 1; i < len(line); i++ {
		if line[i] == ' ' && line[i-1] != '\\' {
			series, rest = line[:i], line[i:]
			break
		}
	}
	return series + rest[strings.LastIndexByte(rest, ' ')+1:]
}

func (c *standInCloud) hook(w http.ResponseWriter, r *http.Request) {
	var n struct {
		Alerts []struct {
			Status      string            `json:"status"`
			Labels      map[string]string `json:"labels"`
			Annotations map[string]string `json:"annotations"`
		} `json:"alerts"`
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&n); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alerts++
	for _, a := range n.Alerts {
		text := a.Annotations["summary"]
		if text == "" {
			text = a.Labels["device"]
		}
		c.lastHit = a.Status + " " + a.Labels["alertname"] + ": " + text
	}
	w.WriteHeader(http.StatusOK)
}

// figures are what the demo's summary shows of the far side.
func (c *standInCloud) figures() (points, writes, alerts int, last string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.points), c.writes, c.alerts, c.lastHit
}
