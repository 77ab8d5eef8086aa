package console

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestAccepts_ReadsTheWeights(t *testing.T) {
	for _, tc := range []struct {
		header string
		want   bool
	}{
		{"", false}, {"br", true}, {"gzip, deflate, br", true}, {"gzip;q=1.0, br;q=0.8", true}, {"BR", true}, {"br;q=0", false}, {"br; q=0.000", false},
		{"gzip", false}, {"brotli", false}, {"*", false}, {"br;q=x", false}, {"br;level=1", true}, {" , ,br", true},
	} {
		if got := accepts([]string{tc.header}, "br"); got != tc.want {
			t.Errorf("accepts(%q, br) = %v, want %v", tc.header, got, tc.want)
		}
	}
	if !accepts([]string{"gzip", "br"}, "br") {
		t.Error("a second header line is not read")
	}
}

// fetch asks for a path with further headers.
func fetch(t *testing.T, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, path, nil)
	r.Host = "localhost"
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	newServer(t, Config{Address: "127.0.0.1:0"}, &plant{}).http.Handler.ServeHTTP(w, r)
	return w.Result()
}

func TestUI_HomeIsTheDashboardOrSaysHowToBuildIt(t *testing.T) {
	text := body(t, fetch(t, "/"))
	if uiBuilt() {
		if !strings.Contains(text, `<div id="app">`) || !strings.Contains(text, "./assets/") {
			t.Errorf("/ is not the dashboard: %s", text)
		}
	} else if !strings.Contains(text, "make build") {
		t.Errorf("/ does not say how to build the dashboard: %s", text)
	}
	plain := fetch(t, "/plain")
	if text := body(t, plain); !strings.Contains(text, `src="/status.js"`) || strings.Contains(text, "make build") == uiBuilt() {
		t.Errorf("/plain, with the dashboard built: %v: %s", uiBuilt(), text)
	}
}

func TestUI_NothingIsLoadedFromElsewhere(t *testing.T) {
	if !uiBuilt() {
		missing(t, "the dashboard is not built: make ui")
	}
	for name, f := range dashboard() {
		for _, bad := range []string{"https://", "@import", "//cdn", "eval(", "new Function", `style="`} {
			at := bytes.Index(f.raw, []byte(bad))
			if at >= 0 && !bytes.Contains(f.raw[at:min(at+40, len(f.raw))], []byte("www.w3.org")) {
				t.Errorf("%s has %q: %s", name, bad, f.raw[max(0, at-40):min(at+60, len(f.raw))])
			}
		}
	}
}

func TestUI_AssetsAreKeptForGoodAndSentCompressed(t *testing.T) {
	if !uiBuilt() {
		missing(t, "the dashboard is not built: make ui")
	}
	seen := 0
	for name, f := range dashboard() {
		if !strings.HasPrefix(name, "assets/") {
			continue
		}
		seen++
		raw := fetch(t, "/"+name)
		if got := raw.Header.Get("Cache-Control"); got != "public, max-age=31536000, immutable" {
			t.Errorf("%s: Cache-Control = %q", name, got)
		}
		if b, _ := io.ReadAll(raw.Body); raw.Header.Get("Content-Encoding") != "" || !bytes.Equal(b, f.raw) {
			t.Errorf("%s: %d bytes in coding %q, want %d as they are", name, len(b), raw.Header.Get("Content-Encoding"), len(f.raw))
		}
		zipped := fetch(t, "/"+name, "Accept-Encoding", "gzip")
		z, err := gzip.NewReader(zipped.Body)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if b, err := io.ReadAll(z); err != nil || !bytes.Equal(b, f.raw) {
			t.Errorf("%s: unpacks to %d bytes, %v, want %d", name, len(b), err, len(f.raw))
		}
		small := fetch(t, "/"+name, "Accept-Encoding", "gzip, deflate, br")
		if got := small.Header.Get("Content-Encoding"); got != "br" {
			t.Errorf("%s: Content-Encoding = %q, want br", name, got)
		}
		if got := small.Header.Get("Vary"); got != "Accept-Encoding" {
			t.Errorf("%s: Vary = %q", name, got)
		}
		if again := fetch(t, "/"+name, "If-None-Match", raw.Header.Get("Etag")); again.StatusCode != http.StatusNotModified {
			t.Errorf("%s: asked for again with its Etag: %d", name, again.StatusCode)
		}
	}
	if seen == 0 {
		t.Error("no asset was looked at")
	}
	if got := fetch(t, "/").Header.Get("Cache-Control"); got != "no-cache" {
		t.Errorf("/: Cache-Control = %q, want no-cache", got)
	}
}

func TestUI_WhatIsNotThereIsAProblem(t *testing.T) {
	for _, path := range []string{"/assets/", "/assets/nothing.js", "/assets/..%2findex.html", "/assets/../routes.go", "/ui/dist/index.html", "/index.html", "/dist.txt", "/api/v1/nothing"} {
		r := fetch(t, path)
		if r.StatusCode != http.StatusNotFound && r.StatusCode != http.StatusMovedPermanently && r.StatusCode != http.StatusTemporaryRedirect {
			t.Errorf("GET %s: %d, want 404", path, r.StatusCode)
		}
		if r.StatusCode == http.StatusNotFound && r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("GET %s: %q, want a problem document", path, r.Header.Get("Content-Type"))
		}
	}
}
