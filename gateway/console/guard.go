package console

import (
	"encoding/json"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// guard sets the headers every answer has, and refuses requests that name another host: a web page elsewhere can point a name of its own
// at 127.0.0.1 and would read the answers as its own origin (DNS rebinding).
func guard(next http.Handler, hosts *hostRule) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Content-Type-Options", "nosniff")
		if !hosts.allow(hostOf(r.Host)) {
			problem(w, http.StatusMisdirectedRequest, "this console answers to localhost, 127.0.0.1 and [::1], and to the names in http.hosts")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hostRule says by which names the console may be called.
type hostRule struct {
	loopback bool     // it listens on loopback alone
	names    []string // besides; none beyond loopback: any
}

func (h *hostRule) allow(host string) bool {
	if !h.loopback && len(h.names) == 0 || loopbackName(host) {
		return true
	}
	if slices.ContainsFunc(h.names, func(n string) bool { return strings.EqualFold(n, host) }) {
		return true
	}
	_, err := netip.ParseAddr(host)
	return !h.loopback && err == nil // nobody's DNS makes an address mean this machine
}

// hostOf is the Host header without port and brackets.
func hostOf(hostport string) string {
	if host, _, err := net.SplitHostPort(hostport); err == nil {
		return host
	}
	return strings.TrimSuffix(strings.TrimPrefix(hostport, "["), "]")
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
