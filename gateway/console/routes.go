package console

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
)

//go:embed page
var page embed.FS

// routes is every path there is. All but those of a Desk are read with GET or HEAD only.
func routes(g Gateway, metrics http.Handler, log *slog.Logger) http.Handler {
	a := api{g: g, log: log}
	mux := http.NewServeMux()
	get := func(pattern string, h http.HandlerFunc) { mux.Handle(pattern, readOnly(h)) }
	get("/{$}", file("index.html", "text/html; charset=utf-8"))
	get("/status.js", file("status.js", "text/javascript; charset=utf-8"))
	get("/status.css", file("status.css", "text/css; charset=utf-8"))
	get("/icon.svg", file("icon.svg", "image/svg+xml"))
	get("/healthz", alive)
	get("/readyz", a.ready)
	get("/api/v1/status", a.status)
	if metrics != nil {
		get("/metrics", metrics.ServeHTTP)
	}
	if d, ok := g.(Desk); ok {
		deskRoutes(mux, d, log)
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing at this path")
	})
	return mux
}

// promQLPrefix is where a Prometheus data source is found.
const promQLPrefix = "/prometheus/api/v1/"

func withPromQL(rest, promQL http.Handler) http.Handler {
	if promQL == nil {
		return rest
	}
	mux := http.NewServeMux()
	mux.Handle(promQLPrefix, promQL)
	mux.Handle("/", rest)
	return mux
}

// alive answers as long as the process serves requests at all.
func alive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte("ok\n"))
}

type api struct {
	g   Gateway
	log *slog.Logger
}

func (a api) ready(w http.ResponseWriter, _ *http.Request) {
	r := a.g.Ready()
	r.Parts = list(r.Parts)
	code := http.StatusOK
	if !r.Ready {
		code = http.StatusServiceUnavailable
	}
	a.answer(w, code, r)
}

func (a api) status(w http.ResponseWriter, _ *http.Request) {
	s := a.g.Status()
	r := a.g.Ready()
	s.Ready, s.Parts = r.Ready, r.Parts
	s.complete()
	a.answer(w, http.StatusOK, s)
}

func (a api) answer(w http.ResponseWriter, code int, body any) {
	b, err := json.Marshal(body)
	if err != nil { // NaN in a figure: a bug, but no reason to send half an answer
		a.log.Error("console answer not encodable", "err", err)
		problem(w, http.StatusInternalServerError, "the answer could not be encoded")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}

// file serves one embedded file. Browsers keep it and ask whether it changed.
func file(name, contentType string) http.HandlerFunc {
	b, err := fs.ReadFile(page, "page/"+name)
	if err != nil {
		panic("console: " + err.Error()) // a file missing from the build
	}
	sum := sha256.Sum256(b)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return func(w http.ResponseWriter, r *http.Request) {
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
