package console

import (
	"encoding/json"
	"net"
	"net/http"
	"strings"
)

// guard sets the headers every answer has and, on loopback, refuses requests that name another host: a web page elsewhere
// can point a name of its own at 127.0.0.1 and would read the answers as its own origin (DNS rebinding).
func guard(next http.Handler, loopback bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		if loopback && !loopbackName(hostOf(r.Host)) {
			problem(w, http.StatusMisdirectedRequest, "this console answers to localhost, 127.0.0.1 and [::1] only")
			return
		}
		if !strings.HasPrefix(r.URL.Path, promQLPrefix) { // queries may be longer
			r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		}
		next.ServeHTTP(w, r)
	})
}

// hostOf is the Host header without port and brackets.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
}

func readOnly(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem(w, http.StatusMethodNotAllowed, "this path is read with GET")
			return
		}
		next(w, r)
	}
}

// problem answers with a problem document (RFC 9457). The kind of problem is the status code, hence about:blank.
func problem(w http.ResponseWriter, code int, detail string) {
	b, _ := json.Marshal(struct { // strings and a number: cannot fail
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(code), code, detail})
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(append(b, '\n'))
}
