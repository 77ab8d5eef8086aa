// Package hook is a webhook receiver for tests: it checks Standard Webhooks signatures, reads Alertmanager v4 bodies, keeps
// everything it was sent, and fails as the test says. It was written from the two specifications, not from the sender.
package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Mode is what a Receiver does with a request. Every mode but Down and Broken takes the notification in.
type Mode string

// The modes.
const (
	Up     Mode = "up"    // 200
	Down   Mode = "down"  // nothing listens
	Broken Mode = "503"   // not taken; Retry-After: 1
	Reset  Mode = "reset" // taken, then the connection is cut: the sender cannot know
)

// Request is one request that was taken.
type Request struct {
	At     time.Time
	ID     string // webhook-id
	Header http.Header
	Body   []byte
	Alerts Notification
}

// Notification is an Alertmanager v4 webhook body.
type Notification struct {
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   int               `json:"truncatedAlerts"`
	Status            string            `json:"status"`
	Receiver          string            `json:"receiver"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Alerts            []Alert           `json:"alerts"`
}

// Alert is one alert of a Notification.
type Alert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// Receiver is an HTTP server on loopback. Methods are safe for concurrent use.
type Receiver struct {
	Address string // the same through Down and Up
	Secret  string // whsec_..., "" skips the signature check

	mu       sync.Mutex // guards all below
	mode     Mode
	server   *http.Server
	taken    []Request
	bad      []string // what was wrong with requests, at most 100
	attempts int
	arrived  chan struct{} // capacity 1: poked at each taken request
}

// Secret is a Standard Webhooks secret for tests.
const Secret = "whsec_c2x1aWNlLWUyZS1zZWNyZXQtMDEyMzQ1Njc4OQ=="

// NewReceiver listens on a free loopback port.
func NewReceiver(secret string) (*Receiver, error) {
	r := &Receiver{Address: "127.0.0.1:0", Secret: secret, mode: Down, arrived: make(chan struct{}, 1)}
	return r, r.Set(Up)
}

// URL is where notifications go.
func (r *Receiver) URL() string { return "http://" + r.Address + "/hook" }

// Set switches the mode.
func (r *Receiver) Set(m Mode) error {
	r.mu.Lock()
	was, server := r.mode, r.server
	r.mode = m
	r.mu.Unlock()
	switch {
	case m == Down && was != Down:
		return server.Close()
	case m != Down && was == Down:
		l, err := listen(r.Address)
		if err != nil {
			return err
		}
		server := &http.Server{Handler: r}
		r.mu.Lock()
		r.Address, r.server = l.Addr().String(), server
		r.mu.Unlock()
		go server.Serve(l)
	}
	return nil
}

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
func (r *Receiver) Close() error { return r.Set(Down) }

// ServeHTTP checks and takes one notification.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	at := time.Now()
	body, err := io.ReadAll(io.LimitReader(req.Body, 4<<20))
	if err != nil {
		panic(http.ErrAbortHandler) // the sender died in mid-request
	}
	r.mu.Lock()
	mode := r.mode
	r.attempts++
	r.mu.Unlock()
	if mode == Broken {
		w.Header().Set("Retry-After", "1")
		http.Error(w, "receiver is broken", http.StatusServiceUnavailable)
		return
	}
	got := Request{At: at, ID: req.Header.Get("webhook-id"), Header: req.Header.Clone(), Body: body}
	if err := r.check(&got, req); err != nil {
		r.mu.Lock()
		if len(r.bad) < 100 {
			r.bad = append(r.bad, err.Error())
		}
		r.mu.Unlock()
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	r.taken = append(r.taken, got)
	r.mu.Unlock()
	select {
	case r.arrived <- struct{}{}:
	default:
	}
	if mode == Reset {
		panic(http.ErrAbortHandler)
	}
}

func (r *Receiver) check(got *Request, req *http.Request) error {
	if req.Method != http.MethodPost {
		return fmt.Errorf("method %s", req.Method)
	}
	if ct := req.Header.Get("Content-Type"); !strings.HasPrefix(ct, "application/json") {
		return fmt.Errorf("content type %q", ct)
	}
	if r.Secret != "" {
		if err := Verify(r.Secret, req.Header, got.Body, got.At); err != nil {
			return err
		}
	}
	if err := json.Unmarshal(got.Body, &got.Alerts); err != nil {
		return fmt.Errorf("body: %w: %s", err, got.Body)
	}
	n := &got.Alerts
	if n.Version != "4" || n.GroupKey == "" || n.Receiver == "" || len(n.Alerts) == 0 {
		return fmt.Errorf("not an Alertmanager v4 notification: %s", got.Body)
	}
	firing := false
	for _, a := range n.Alerts {
		firing = firing || a.Status == "firing"
		if a.Status != "firing" && a.Status != "resolved" || a.Fingerprint == "" || a.StartsAt.IsZero() || a.Labels["alertname"] == "" ||
			a.Status == "resolved" && a.EndsAt.Before(a.StartsAt) {
			return fmt.Errorf("alert is incomplete: %s", got.Body)
		}
	}
	if want := map[bool]string{true: "firing", false: "resolved"}[firing]; n.Status != want {
		return fmt.Errorf("status %q, want %q: %s", n.Status, want, got.Body)
	}
	return nil
}

// tolerance is how far webhook-timestamp may be from now; the specification suggests five minutes.
const tolerance = 5 * time.Minute

// Verify checks the headers webhook-id, webhook-timestamp and webhook-signature of the Standard Webhooks specification:
// v1,base64(HMAC-SHA256(secret, id.timestamp.body)).
func Verify(secret string, h http.Header, body []byte, now time.Time) error {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil {
		return fmt.Errorf("secret: %w", err)
	}
	id, stamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	if id == "" || strings.Contains(id, ".") {
		return fmt.Errorf("webhook-id %q", id)
	}
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return fmt.Errorf("webhook-timestamp %q: %w", stamp, err)
	}
	if off := now.Sub(time.Unix(seconds, 0)); off.Abs() > tolerance {
		return fmt.Errorf("webhook-timestamp is off by %v", off)
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, stamp)
	mac.Write(body)
	want := mac.Sum(nil)
	for part := range strings.FieldsSeq(h.Get("webhook-signature")) {
		if version, sig, ok := strings.Cut(part, ","); ok && version == "v1" {
			if got, err := base64.StdEncoding.DecodeString(sig); err == nil && hmac.Equal(got, want) {
				return nil
			}
		}
	}
	return fmt.Errorf("webhook-signature %q does not match", h.Get("webhook-signature"))
}

// Taken returns what was taken so far, repeats included.
func (r *Receiver) Taken() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.taken)
}

// Bad returns what was wrong with requests.
func (r *Receiver) Bad() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.bad)
}

// Attempts counts requests of any outcome.
func (r *Receiver) Attempts() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.attempts
}

// Arrived is poked after each taken request; one poke may stand for several.
func (r *Receiver) Arrived() <-chan struct{} { return r.arrived }
