package console

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// plant is a Gateway that answers what it was given.
type plant struct {
	status Status
	ready  Readiness
	block  chan struct{} // not nil: Ready waits for it
	asked  chan struct{} // not nil: told when Ready is asked
}

func (p *plant) Status() Status { return p.status }

func (p *plant) Ready() Readiness {
	if p.asked != nil {
		close(p.asked)
	}
	if p.block != nil {
		<-p.block
	}
	return p.ready
}

var quiet = slog.New(slog.DiscardHandler)

func newServer(t *testing.T, cfg Config, g Gateway) *Server {
	t.Helper()
	metrics := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "sluice_up 1\n") })
	s, err := New(cfg, g, metrics, quiet)
	if err != nil {
		t.Fatalf("New(%+v) = %v", cfg, err)
	}
	return s
}

// ask answers one request without a connection.
func ask(t *testing.T, g Gateway, method, target string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.Host = "127.0.0.1:8080"
	w := httptest.NewRecorder()
	newServer(t, Config{Address: "127.0.0.1:0"}, g).http.Handler.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// start runs s until the test ends; stop ends it earlier and returns what Run returned.
func start(t *testing.T, s *Server) (stop func() error) {
	t.Helper()
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	done := false
	stop = func() error {
		if done {
			return nil
		}
		done = true
		cancel()
		return <-ended
	}
	t.Cleanup(func() { stop() })
	return stop
}

func TestNew_RefusesOtherAddressesUnlessInsecure(t *testing.T) {
	for address, loopback := range map[string]bool{
		"127.0.0.1:8080": true, "localhost:0": true, "[::1]:8080": true, "127.3.2.1:80": true, "LOCALHOST:1": true,
		"0.0.0.0:8080": false, ":8080": false, "[::]:8080": false, "192.0.2.1:8080": false, "gateway.plant:80": false, "localhost.evil:80": false,
	} {
		_, err := New(Config{Address: address}, &plant{}, nil, quiet)
		if (err == nil) != loopback {
			t.Errorf("New(%s) = %v, want refused %v", address, err, !loopback)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), "http.address: "+address) || !strings.Contains(err.Error(), "http.insecure: true")) {
			t.Errorf("New(%s) = %v, which does not say what to do", address, err)
		}
		if _, err := New(Config{Address: address, Insecure: true}, &plant{}, nil, quiet); err != nil {
			t.Errorf("New(%s, insecure) = %v", address, err)
		}
	}
	for _, address := range []string{"", "127.0.0.1", "localhost", "::1:8080"} {
		if _, err := New(Config{Address: address, Insecure: true}, &plant{}, nil, quiet); err == nil || !strings.Contains(err.Error(), "want host:port") {
			t.Errorf("New(%q) = %v, want an error that names the form", address, err)
		}
	}
}

func TestHost_OfAnotherNameIsRefusedOnLoopback(t *testing.T) {
	hosts := map[string]bool{
		"localhost": true, "localhost:8080": true, "127.0.0.1": true, "127.0.0.1:9999": true, "[::1]": true, "[::1]:8080": true, "LocalHost:1": true,
		"evil.example": false, "evil.example:8080": false, "127.0.0.1.evil.example": false, "localhost.evil.example:80": false, "": false,
		"192.0.2.1:8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "[fe80::1%lo]:80": false, "127.0.0.1:80:80": false, "user@localhost:80": false,
		"[::1": true, // no browser sends it; it names this machine all the same
	}
	for _, address := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		h := newServer(t, Config{Address: address, Insecure: true}, &plant{}).http.Handler
		for host, own := range hosts {
			for _, path := range []string{"/", "/api/v1/status", "/healthz", "/metrics", "/nothing"} {
				r := httptest.NewRequest("GET", path, nil)
				r.Host = host
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				refused := w.Code == http.StatusMisdirectedRequest
				if want := !own && address == "127.0.0.1:0"; refused != want {
					t.Errorf("on %s, GET %s with Host %q = %d, want refused %v", address, path, host, w.Code, want)
				}
			}
		}
	}
}

func TestStatus_JSONNamesAreDocumentedAndListsAreNeverNull(t *testing.T) {
	r := ask(t, &plant{status: Status{Alerts: []Alert{{}}}}, "GET", "/api/v1/status")
	text := body(t, r)
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "application/json" || strings.Contains(text, "null") {
		t.Fatalf("GET /api/v1/status = %s %v %s", r.Status, r.Header, text)
	}
	doc, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	snake := regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`)
	walked := map[reflect.Type]bool{} // webhooks are documented as destinations are
	var walk func(typ reflect.Type, at string)
	walk = func(typ reflect.Type, at string) {
		if walked[typ] {
			return
		}
		walked[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !snake.MatchString(name) {
				t.Errorf("%s.%s is called %q in JSON", typ, f.Name, name)
			}
			path := at + name
			inner := f.Type
			if inner.Kind() == reflect.Slice {
				path, inner = path+"[]", inner.Elem()
			}
			if !strings.Contains(string(doc), "`"+path+"`") {
				t.Errorf("docs/http.md does not mention `%s`", path)
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
				walk(inner, path+".")
			}
		}
	}
	walk(reflect.TypeFor[Status](), "")
}

func TestStatus_CarriesWhatReadySays(t *testing.T) {
	p := &plant{
		status: Status{Gateway: "plant-7", Uptime: 1.5},
		ready:  Readiness{Ready: true, Parts: []Part{{"journal", true, "durable to 12"}}},
	}
	var got Status
	if err := json.NewDecoder(ask(t, p, "GET", "/api/v1/status").Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if !got.Ready || len(got.Parts) != 1 || got.Parts[0] != p.ready.Parts[0] || got.Gateway != "plant-7" {
		t.Errorf("GET /api/v1/status = %+v", got)
	}
}

func TestStatus_FigureThatJSONCannotHoldIsAProblem(t *testing.T) {
	r := ask(t, &plant{status: Status{Uptime: math.NaN()}}, "GET", "/api/v1/status")
	if r.StatusCode != 500 || r.Header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("GET /api/v1/status = %s %v", r.Status, r.Header)
	}
}

func TestStatus_AlertValueThatIsNotFiniteIsNull(t *testing.T) {
	p := &plant{status: Status{Alerts: []Alert{{Name: "a", Value: math.Inf(1)}, {Name: "b", Value: math.NaN()}, {Name: "c", Value: -2.5}}}}
	r := ask(t, p, "GET", "/api/v1/status")
	var got struct {
		Alerts []struct {
			Name  string
			Value *float64
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&got); err != nil || r.StatusCode != 200 || len(got.Alerts) != 3 {
		t.Fatalf("GET /api/v1/status = %s, %v, %+v", r.Status, err, got)
	}
	for i, a := range got.Alerts[:2] {
		if a.Value != nil || a.Name != p.status.Alerts[i].Name {
			t.Errorf("alert %d = %+v, want value null", i, a)
		}
	}
	if c := got.Alerts[2]; c.Value == nil || *c.Value != -2.5 {
		t.Errorf("alert c = %+v, want value -2.5", c)
	}
}

func TestReadyz_ExplainsEachPart(t *testing.T) {
	p := &plant{ready: Readiness{Ready: false, Parts: []Part{{"journal", true, "durable to 12"}, {"disk", false, "full since 16:05"}}}}
	r := ask(t, p, "GET", "/readyz")
	want := `{"ready":false,"parts":[{"name":"journal","ok":true,"detail":"durable to 12"},{"name":"disk","ok":false,"detail":"full since 16:05"}]}` + "\n"
	if got := body(t, r); r.StatusCode != 503 || got != want {
		t.Errorf("GET /readyz = %s %s, want 503 %s", r.Status, got, want)
	}
	r = ask(t, &plant{ready: Readiness{Ready: true}}, "GET", "/readyz")
	if got := body(t, r); r.StatusCode != 200 || got != `{"ready":true,"parts":[]}`+"\n" {
		t.Errorf("GET /readyz = %s %s", r.Status, got)
	}
}

func TestHealthz_AnswersWhileNotReady(t *testing.T) {
	r := ask(t, &plant{}, "GET", "/healthz")
	if got := body(t, r); r.StatusCode != 200 || got != "ok\n" {
		t.Errorf("GET /healthz = %s %q", r.Status, got)
	}
}

func TestMetrics_AreThoseGiven(t *testing.T) {
	if got := body(t, ask(t, &plant{}, "GET", "/metrics")); got != "sluice_up 1\n" {
		t.Errorf("GET /metrics = %q", got)
	}
	s, err := New(Config{Address: "127.0.0.1:0", Insecure: true}, &plant{}, nil, quiet)
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(w, httptest.NewRequest("GET", "http://localhost/metrics", nil))
	if w.Code != 404 {
		t.Errorf("GET /metrics without a handler = %d, want 404", w.Code)
	}
}

func TestErrors_AreProblemDocuments(t *testing.T) {
	for _, c := range []struct {
		method, path string
		code         int
		allow        string
	}{
		{"GET", "/nothing", 404, ""}, {"POST", "/nothing", 404, ""}, {"GET", "/readyz/", 404, ""}, {"GET", "/index.html", 404, ""},
		{"GET", "/api/v1/", 404, ""}, {"GET", "/page/status.js", 404, ""},
		{"POST", "/", 405, "GET, HEAD"}, {"DELETE", "/api/v1/status", 405, "GET, HEAD"}, {"OPTIONS", "/readyz", 405, "GET, HEAD"},
		{"PUT", "/healthz", 405, "GET, HEAD"}, {"POST", "/metrics", 405, "GET, HEAD"},
	} {
		r := ask(t, &plant{}, c.method, c.path)
		var p struct {
			Type, Title, Detail string
			Status              int
		}
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		if r.StatusCode != c.code || p.Status != c.code || p.Type != "about:blank" || p.Title != http.StatusText(c.code) || p.Detail == "" ||
			r.Header.Get("Allow") != c.allow || r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s = %d %+v %v, want %d", c.method, c.path, r.StatusCode, p, r.Header, c.code)
		}
	}
}

func TestHeaders_AreOnEveryAnswer(t *testing.T) {
	for _, path := range []string{"/", "/plain", "/status.js", "/status.css", "/icon.svg", "/healthz", "/readyz", "/metrics", "/api/v1/status", "/nothing"} {
		h := ask(t, &plant{}, "GET", path).Header
		csp := h.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'self';") || strings.Contains(csp, "unsafe") || !strings.Contains(csp, "frame-ancestors 'none'") ||
			h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Referrer-Policy") != "no-referrer" || h.Get("Cross-Origin-Resource-Policy") != "same-origin" {
			t.Errorf("GET %s: headers %v", path, h)
		}
		if h.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("GET %s may be read by other origins: %v", path, h)
		}
	}
}

func TestPage_KeepsToItsPolicy(t *testing.T) {
	html := body(t, ask(t, &plant{}, "GET", "/plain"))
	if !strings.Contains(html, `<script src="/status.js" defer></script>`) {
		t.Errorf("the page does not load its script")
	}
	js := body(t, ask(t, &plant{}, "GET", "/status.js"))
	css := body(t, ask(t, &plant{}, "GET", "/status.css"))
	for _, c := range []struct{ in, text, pattern string }{
		{"html", html, `<script[^>]*>[^<]`}, {"html", html, `<style`}, {"html", html, `\sstyle=`}, {"html", html, `\son[a-z]+=`}, {"html", html, `//`},
		{"js", js, `innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|\.style\b|https?:`}, {"css", css, `url\(|@import`},
	} {
		text := strings.Replace(c.text, "<!doctype html>", "", 1)
		if found := regexp.MustCompile(c.pattern).FindString(text); found != "" {
			t.Errorf("%s holds %q", c.in, found)
		}
	}
}

func TestPage_EveryElementTheScriptUsesIsThere(t *testing.T) {
	html := body(t, ask(t, &plant{}, "GET", "/plain"))
	js := body(t, ask(t, &plant{}, "GET", "/status.js"))
	ids := regexp.MustCompile(`(?:el|fill)\("([a-z-]+)"`).FindAllStringSubmatch(js, -1)
	if len(ids) < 15 {
		t.Fatalf("%d elements found in the script: the pattern no longer fits", len(ids))
	}
	for _, id := range ids {
		if !strings.Contains(html, `id="`+id[1]+`"`) {
			t.Errorf("status.js uses #%s, which the page does not have", id[1])
		}
	}
}

func TestPage_IsSentOnceUntilItChanges(t *testing.T) {
	r := ask(t, &plant{}, "GET", "/status.js")
	tag := r.Header.Get("Etag")
	again := httptest.NewRequest("GET", "/status.js", nil)
	again.Host = "localhost"
	again.Header.Set("If-None-Match", tag)
	w := httptest.NewRecorder()
	newServer(t, Config{Address: "127.0.0.1:0"}, &plant{}).http.Handler.ServeHTTP(w, again)
	if tag == "" || w.Code != 304 || w.Body.Len() != 0 {
		t.Errorf("with tag %s: %d, %d bytes, want 304 without any", tag, w.Code, w.Body.Len())
	}
}

func TestListen_PortInUseIsToldBeforeRun(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s := newServer(t, Config{Address: taken.Addr().String()}, &plant{})
	if err := s.Listen(); err == nil || !strings.Contains(err.Error(), taken.Addr().String()) {
		t.Errorf("Listen = %v, want an error that names %s", err, taken.Addr())
	}
	if s.Addr() != nil {
		t.Errorf("Addr = %v after a failed Listen", s.Addr())
	}
}

func TestRun_ServesAndStopsCleanly(t *testing.T) {
	s := newServer(t, Config{Address: "127.0.0.1:0"}, &plant{})
	stop := start(t, s)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	r, err := client.Get("http://" + s.Addr().String() + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	if got := body(t, r); got != "ok\n" {
		t.Errorf("GET /healthz = %q", got)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v after a stop, want nil", err)
	}
	if c, err := net.Dial("tcp", s.Addr().String()); err == nil {
		c.Close()
		t.Errorf("%s still accepts after Run ended", s.Addr())
	}
}

func TestRun_StopLetsARequestEnd(t *testing.T) {
	p := &plant{block: make(chan struct{}), asked: make(chan struct{}), ready: Readiness{Ready: true}}
	s := newServer(t, Config{Address: "127.0.0.1:0"}, p)
	stop := start(t, s)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	code := make(chan int, 1)
	go func() {
		r, err := client.Get("http://" + s.Addr().String() + "/readyz")
		if err != nil {
			code <- 0
			return
		}
		r.Body.Close()
		code <- r.StatusCode
	}()
	<-p.asked
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for deadline := time.Now().Add(5 * time.Second); ; { // until it accepts no more
		c, err := net.Dial("tcp", s.Addr().String())
		if err != nil {
			break
		}
		c.Close()
		if time.Now().After(deadline) {
			t.Fatal("still accepting 5 s after the stop")
		}
	}
	close(p.block)
	if got := <-code; got != 200 {
		t.Errorf("a request under way when the stop came ended with %d, want 200", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestRun_StopIsBoundedByAStalledClient(t *testing.T) {
	p := &plant{block: make(chan struct{}), asked: make(chan struct{})}
	s := newServer(t, Config{Address: "127.0.0.1:0"}, p)
	stop := start(t, s)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	<-p.asked
	begun := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if took := time.Since(begun); took > shutdownTimeout+2*time.Second {
		t.Errorf("the stop took %v, want about %v", took, shutdownTimeout)
	}
	close(p.block)
}

func TestRun_SlowHeadersAreCutOff(t *testing.T) {
	s := newServer(t, Config{Address: "127.0.0.1:0"}, &plant{})
	if s.http.ReadHeaderTimeout != headerTimeout || s.http.IdleTimeout != idleTimeout || s.http.MaxHeaderBytes != maxHeaderBytes {
		t.Fatalf("limits are not those documented: %+v", &s.http)
	}
	s.http.ReadHeaderTimeout = 50 * time.Millisecond
	start(t, s)
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: localh")
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if b, err := io.ReadAll(c); err != nil || strings.Contains(string(b), "200 OK") {
		t.Errorf("half a request got %q, %v, want the connection closed", b, err)
	}
}

// A Prometheus data source gets its own handler, for long POSTs too; everything else stays read-only and behind the Host check.
func TestConsole_PromQLIsReachedWithPostAndLongBodies(t *testing.T) {
	var asked string
	s := newServer(t, Config{Address: "127.0.0.1:0", PromQL: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		asked = fmt.Sprintf("%s %s %d %v", r.Method, r.URL.Path, len(b), err)
	})}, &plant{})
	for _, tc := range []struct {
		path, host string
		code       int
		asked      string
	}{
		{"/prometheus/api/v1/query", "localhost", 200, "POST /prometheus/api/v1/query 20000 <nil>"},
		{"/prometheus/api/v1/query", "evil.example", 421, ""},
		{"/api/v1/status", "localhost", 405, ""},
		{"/prometheus/elsewhere", "localhost", 404, ""},
	} {
		asked = ""
		r := httptest.NewRequest(http.MethodPost, tc.path, strings.NewReader(strings.Repeat("x", 20_000)))
		r.Host = tc.host
		w := httptest.NewRecorder()
		s.http.Handler.ServeHTTP(w, r)
		if w.Code != tc.code || asked != tc.asked {
			t.Errorf("POST %s at %s: %d, asked %q; want %d, %q", tc.path, tc.host, w.Code, asked, tc.code, tc.asked)
		}
	}
}
