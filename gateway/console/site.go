package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
)

//go:embed page
var assets embed.FS

// site is what the handlers show; each of its parts that is nil has no routes.
type site struct {
	g       Gateway
	about   About
	door    *door
	auditor Auditor
	desk    Desk
	fleet   Fleet
	jobs    Jobs
	store
	stream  *events
	demo    Demo
	metrics http.Handler
	promQL  http.Handler
	log     *slog.Logger
}

func newSite(cfg *Config, g Gateway, d *door, metrics http.Handler, log *slog.Logger) *site {
	s := &site{g: g, about: cfg.About, door: d, metrics: metrics, promQL: cfg.PromQL, log: log}
	s.auditor, _ = g.(Auditor)
	s.desk, _ = g.(Desk)
	s.fleet, _ = g.(Fleet)
	s.jobs, _ = g.(Jobs)
	s.store = storeOf(g)
	s.stream = newEvents(g, s.statusFor, log)
	s.demo = cfg.Demo
	return s
}

// alive answers as long as the process serves requests at all.
func (s *site) alive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte("ok\n"))
}

// ready tells everybody whether, and those who may see the whole site why not: a load balancer has no login.
func (s *site) ready(w http.ResponseWriter, r *http.Request) {
	v := s.g.Ready()
	v.Parts = list(v.Parts)
	if as := who(r); as.Role < Viewer || len(as.Scope) > 0 {
		v.Parts = []Part{}
	}
	code := http.StatusOK
	if !v.Ready {
		code = http.StatusServiceUnavailable
	}
	s.answer(w, code, v)
}

func (s *site) status(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, s.statusFor(r.Context(), who(r)))
}

func (s *site) showMetrics(w http.ResponseWriter, r *http.Request) { s.metrics.ServeHTTP(w, r) }

func (s *site) answer(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // NaN in a figure: a bug, but no reason to send half an answer
		s.log.Error("console answer not encodable", "err", err)
		problem(w, http.StatusInternalServerError, "the answer could not be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// fail answers with what went wrong. What is not the caller's fault is a 503: the journal may take it again later.
func (s *site) fail(w http.ResponseWriter, err error) {
	code, detail := http.StatusServiceUnavailable, err.Error()
	switch {
	case errors.Is(err, ErrNotFound):
		code, detail = http.StatusNotFound, strings.TrimPrefix(detail, ErrNotFound.Error()+": ")
	case errors.Is(err, ErrInvalid):
		code, detail = http.StatusUnprocessableEntity, strings.TrimPrefix(detail, ErrInvalid.Error()+": ")
	case errors.Is(err, ErrBusy):
		code, detail = http.StatusTooManyRequests, strings.TrimPrefix(detail, ErrBusy.Error()+": ")
	default:
		s.log.Error("operator's command not carried out", "err", err)
	}
	problem(w, code, detail)
}

// read decodes a JSON body with known names only, or answers with what is wrong with it.
func (s *site) read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return true
		}
		err = errors.New("more than one JSON value")
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		problem(w, http.StatusRequestEntityTooLarge, "the body is larger than any command")
	case err == io.EOF:
		problem(w, http.StatusBadRequest, "the body is empty: want a JSON object")
	default:
		problem(w, http.StatusBadRequest, "the body cannot be read: "+strings.TrimPrefix(err.Error(), "json: "))
	}
	return false
}

// file serves one embedded file. Browsers keep it and ask whether it changed.
func file(name, contentType string) func(*site, http.ResponseWriter, *http.Request) {
	b, err := fs.ReadFile(assets, "page/"+name)
	if err != nil {
		panic("console: " + err.Error()) // a file missing from the build
	}
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(_ *site, w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("Etag", tag)
		if strings.Contains(r.Header.Get("If-None-Match"), tag) {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Write(b)
	}
}
