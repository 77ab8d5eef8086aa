package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// guarded is a console with a users file, made without the cost of real password hashes where it can be helped.
type guarded struct {
	*Server
	t     *testing.T
	plant *audited
	file  string
}

// audited is a manned plant that keeps an audit.
type audited struct {
	manned
	kept   []AuditEntry
	refuse error
}

func (a *audited) Audit(_ context.Context, e AuditEntry) error {
	if a.refuse != nil {
		return a.refuse
	}
	e.LSN = uint64(len(a.kept) + 1)
	a.kept = append(a.kept, e)
	return nil
}

func (a *audited) Audits(context.Context) ([]AuditEntry, error) {
	var newest []AuditEntry
	for i := range a.kept {
		newest = append(newest, a.kept[len(a.kept)-1-i])
	}
	return newest, nil
}

// cheap is a bcrypt hash of least cost.
func cheap(t *testing.T, password string) string {
	t.Helper()
	h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func writeUsers(t *testing.T, path string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// guardedPlant has the users vic, olga and ada, a viewer, an operator and an admin, and tom, a viewer of site=a; each one's password is
// the name and "-secret".
func guardedPlant(t *testing.T, change ...func(*Config)) *guarded {
	t.Helper()
	dir := t.TempDir()
	g := &guarded{t: t, plant: &audited{}, file: filepath.Join(dir, "users")}
	writeUsers(t, g.file, "# who may look", "vic:viewer:"+cheap(t, "vic-secret"), "olga:operator:"+cheap(t, "olga-secret"),
		"ada:admin:"+cheap(t, "ada-secret"), "tom:viewer:"+cheap(t, "tom-secret")+":site=a")
	cfg := Config{Address: "127.0.0.1:0", UsersFile: g.file, TokensFile: filepath.Join(dir, "tokens.json")}
	for _, f := range change {
		f(&cfg)
	}
	g.Server = newServer(t, cfg, g.plant)
	// Tests with hashes of least cost would be slowed by strangers of full cost.
	g.site.door.compare = func(hash, password []byte) error {
		if strings.HasPrefix(string(hash), "$2a$12$") {
			return bcrypt.ErrMismatchedHashAndPassword
		}
		return bcrypt.CompareHashAndPassword(hash, password)
	}
	return g
}

// ask makes a request; headers are "Name: value".
func (g *guarded) ask(method, target, body string, headers ...string) *http.Response {
	g.t.Helper()
	return request(g.http.Handler, method, target, body, headers...)
}

func request(h http.Handler, method, target, body string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, v, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = v
		}
		r.Header.Set(name, v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

// login returns the header that carries a new session.
func (g *guarded) login(name string) string {
	g.t.Helper()
	r := g.ask("POST", "/api/v1/login", fmt.Sprintf(`{"user":%q,"password":"%s-secret"}`, name, name))
	if r.StatusCode != 200 || len(r.Cookies()) != 1 {
		g.t.Fatalf("login of %s = %s %s", name, r.Status, body(g.t, r))
	}
	return "Cookie: " + r.Cookies()[0].Name + "=" + r.Cookies()[0].Value
}

// token returns the header that carries a new token.
func (g *guarded) token(role string, scope map[string]string) string {
	g.t.Helper()
	one, err := (&NewToken{Name: "t", Role: role, Scope: scope}).order("test", time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	text, err := g.site.door.tokens.add(one, time.Now())
	if err != nil {
		g.t.Fatal(err)
	}
	return "Authorization: Bearer " + text
}

// stubs are the table's rows with nothing behind them; served counts what got through.
func stubs(served *int) []route {
	rows := table()
	for i := range rows {
		rows[i].part = nil
		rows[i].serve = func(_ *site, w http.ResponseWriter, _ *http.Request) { *served++; w.WriteHeader(http.StatusNoContent) }
	}
	return rows
}

// target is a path that a pattern takes.
func target(pattern string) string {
	path := strings.TrimSuffix(pattern, "{$}")
	for strings.Contains(path, "{") {
		a, b := strings.Index(path, "{"), strings.Index(path, "}")
		path = path[:a] + "x" + path[b+1:]
	}
	return path
}

// Every role asks for every row: what it gets is what the table says, with a session and with a token.
func TestTable_EveryRoleGetsWhatItsRowSays(t *testing.T) {
	g := guardedPlant(t)
	served := 0
	rows := stubs(&served)
	h := g.site.mux(rows)
	for _, c := range []struct {
		role  Role
		shows []string
	}{
		{Nobody, []string{""}}, {Nobody, []string{"Cookie: sluice_session=made-up"}},
		{Viewer, []string{g.login("vic")}}, {Viewer, []string{g.token("viewer", nil)}},
		{Operator, []string{g.login("olga")}}, {Operator, []string{g.token("operator", nil)}},
		{Admin, []string{g.login("ada")}}, {Admin, []string{g.token("admin", nil)}},
	} {
		for _, row := range rows {
			served = 0
			r := request(h, row.method, target(row.pattern), "{}", c.shows...)
			want := 204
			switch {
			case c.role == Nobody && row.least > Nobody:
				want = 401
			case c.role < row.least:
				want = 403
			}
			if r.StatusCode != want || (served == 1) != (want == 204) {
				t.Errorf("%s as %s (%.20s): %s %s = %d, served %d times; want %d", row.method, c.role, c.shows[0], row.method, row.pattern, r.StatusCode, served, want)
			}
			if want == 401 && r.Header.Get("WWW-Authenticate") == "" {
				t.Errorf("%s %s: a 401 without WWW-Authenticate", row.method, row.pattern)
			}
		}
	}
}

// Who sees one label only gets none of what has no labels, whatever the role.
func TestTable_ScopeIsRefusedWhatHasNoLabels(t *testing.T) {
	g := guardedPlant(t)
	served := 0
	rows := stubs(&served)
	h := g.site.mux(rows)
	for _, shows := range []string{g.token("admin", map[string]string{"site": "a"}), g.login("tom")} {
		for _, row := range rows {
			served = 0
			r := request(h, row.method, target(row.pattern), "{}", shows)
			if refused := row.scope == unscoped; (r.StatusCode == 403) != (refused || row.least > Viewer && strings.HasPrefix(shows, "Cookie")) || refused && served > 0 {
				t.Errorf("%.12s: %s %s = %d, served %d times; want refused %v", shows, row.method, row.pattern, r.StatusCode, served, refused)
			}
		}
	}
}

// What an operator changes stands in the audit, whether its handler thought of it or not.
func TestTable_EveryChangeIsAudited(t *testing.T) {
	g := guardedPlant(t)
	served := 0
	rows := stubs(&served)
	h := g.site.mux(rows)
	ada, changes := g.login("ada"), 0
	for _, row := range rows {
		g.plant.kept = nil
		request(h, row.method, target(row.pattern), "{}", ada)
		if row.method == http.MethodGet || row.least < Operator {
			continue
		}
		changes++
		if len(g.plant.kept) != 1 || g.plant.kept[0].Author != "ada" || g.plant.kept[0].Role != "admin" {
			t.Errorf("%s %s is audited as %+v", row.method, row.pattern, g.plant.kept)
		}
	}
	if changes < 5 {
		t.Fatalf("%d rows change something: the table is not what this test thinks", changes)
	}
}

func TestLogin_CookieIsOutOfReachOfScriptsAndOtherSites(t *testing.T) {
	for _, secure := range []bool{false, true} {
		g := guardedPlant(t)
		g.site.door.secure = secure
		r := g.ask("POST", "/api/v1/login", `{"user":"vic","password":"vic-secret"}`)
		set := r.Header.Get("Set-Cookie")
		for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
			if !strings.Contains(set, want) {
				t.Errorf("secure %v: Set-Cookie %q lacks %s", secure, set, want)
			}
		}
		if strings.Contains(set, "Domain") || strings.Contains(set, "Secure") != secure || strings.HasPrefix(set, "__Host-") != secure {
			t.Errorf("secure %v: Set-Cookie %q", secure, set)
		}
		if text := body(t, r); strings.Contains(text, r.Cookies()[0].Value) || strings.Contains(text, "$2a$") {
			t.Errorf("the answer holds a secret: %s", text)
		}
	}
}

// Whatever cookie a browser was made to bring, the session after the login has a new one, and the old one is over.
func TestLogin_DoesNotTakeOverASession(t *testing.T) {
	g := guardedPlant(t)
	planted := "Cookie: sluice_session=planted"
	r := g.ask("POST", "/api/v1/login", `{"user":"vic","password":"vic-secret"}`, planted)
	if r.Cookies()[0].Value == "planted" || g.ask("GET", "/api/v1/status", "", planted).StatusCode != 401 {
		t.Errorf("the planted session is in force")
	}
	first := "Cookie: sluice_session=" + r.Cookies()[0].Value
	r = g.ask("POST", "/api/v1/login", `{"user":"ada","password":"ada-secret"}`, first)
	if g.ask("GET", "/api/v1/status", "", first).StatusCode != 401 {
		t.Errorf("the session from before the login is still good")
	}
	now := "Cookie: sluice_session=" + r.Cookies()[0].Value
	if got := g.ask("POST", "/api/v1/logout", "", now); got.StatusCode != 204 || !strings.Contains(got.Header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("logout = %s %v", got.Status, got.Header)
	}
	if g.ask("GET", "/api/v1/status", "", now).StatusCode != 401 {
		t.Errorf("the session outlives its logout")
	}
}

func TestSession_TellsNothingBeforeTheLogin(t *testing.T) {
	g := guardedPlant(t, func(c *Config) { c.About = About{Gateway: "plant-7", Version: "9.9", TimeZone: "UTC"} })
	want := `{"user":"","role":"","scope":{},"login_required":true,"setup_required":false,"demo":false,"version":"","gateway":"","time_zone":""}` + "\n"
	if got := body(t, g.ask("GET", "/api/v1/session", "")); got != want {
		t.Errorf("GET /api/v1/session = %s, want %s", got, want)
	}
	var s Session
	if err := json.NewDecoder(g.ask("GET", "/api/v1/session", "", g.login("tom")).Body).Decode(&s); err != nil || s.User != "tom" || s.Role != "viewer" ||
		s.Scope["site"] != "a" || s.Gateway != "plant-7" {
		t.Errorf("GET /api/v1/session = %+v, %v", s, err)
	}
	g.plant.ready = Readiness{Ready: true, Parts: []Part{{"journal", true, "durable to 12"}}}
	if got := body(t, g.ask("GET", "/readyz", "")); strings.Contains(got, "journal") {
		t.Errorf("GET /readyz without login = %s", got)
	}
	if got := body(t, g.ask("GET", "/readyz", "", g.login("vic"))); !strings.Contains(got, "journal") {
		t.Errorf("GET /readyz = %s", got)
	}
}

// A user who does not exist costs what one who does costs: one comparison, of a hash as dear.
func TestLogin_StrangersCostWhatUsersCost(t *testing.T) {
	g := guardedPlant(t)
	var hashes []string
	g.site.door.compare = func(hash, _ []byte) error {
		hashes = append(hashes, string(hash))
		return bcrypt.ErrMismatchedHashAndPassword
	}
	var answers []string
	for _, name := range []string{"ada", "nobody", "", strings.Repeat("x", 500)} {
		hashes = nil
		r := g.ask("POST", "/api/v1/login", fmt.Sprintf(`{"user":%q,"password":"x"}`, name))
		answers = append(answers, fmt.Sprint(r.StatusCode, body(t, r)))
		if len(hashes) != 1 || len(hashes[0]) != 60 {
			t.Errorf("login of %.10q compared %q, want one hash of 60 bytes", name, hashes)
		}
	}
	for _, a := range answers[1:] {
		if a != answers[0] {
			t.Errorf("a stranger is told %s, a user %s", a, answers[0])
		}
	}
	real := NewUsers() // the hash that strangers are compared with is one that bcrypt takes
	if err := bcrypt.CompareHashAndPassword(fmt.Appendf(nil, stranger, bcrypt.MinCost), []byte("x")); !errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
		t.Errorf("the strangers' hash: %v", err)
	}
	if real.cost != bcryptCost {
		t.Errorf("strangers cost %d, want %d", real.cost, bcryptCost)
	}
}

func TestLogin_GuessingIsHeldUp(t *testing.T) {
	g := guardedPlant(t)
	g.login("ada") // from httptest's 192.0.2.1
	guess := func(name, from string) *http.Response {
		r := httptest.NewRequest("POST", "/api/v1/login", strings.NewReader(fmt.Sprintf(`{"user":%q,"password":"wrong"}`, name)))
		r.Host, r.RemoteAddr = "localhost", from
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		g.http.Handler.ServeHTTP(w, r)
		return w.Result()
	}
	for range addressBurst {
		if r := guess("vic", "198.51.100.1:1"); r.StatusCode != 401 {
			t.Fatalf("guess = %s", r.Status)
		}
	}
	if r := guess("olga", "198.51.100.1:2"); r.StatusCode != 429 || r.Header.Get("Retry-After") == "" {
		t.Errorf("another guess from the address = %s %v, want 429 with Retry-After", r.Status, r.Header)
	}
	// Many addresses, one user: the user's own limit. In one /64 they are one address.
	held := 0
	for i := range 60 {
		if guess("ada", fmt.Sprintf("203.0.113.%d:1", i)).StatusCode == 429 {
			held++
		}
	}
	if held < 60-nameBurst-1 {
		t.Errorf("%d of 60 guesses from 60 addresses were held up", held)
	}
	g.login("ada") // who comes from where they always come from is not
	for i := range addressBurst {
		guess(fmt.Sprint("u", i), fmt.Sprintf("[2001:db8::%d]:1", i))
	}
	if r := guess("u", "[2001:db8::ffff]:1"); r.StatusCode != 429 {
		t.Errorf("a guess from the same /64 = %s, want 429", r.Status)
	}
}

func TestAttempts_ComeBackWithTimeAndForgetBeyondTheirBound(t *testing.T) {
	a := newAttempts(2, time.Second, 3)
	now := time.Unix(1000, 0)
	for i, want := range []time.Duration{0, 0, time.Second} {
		if got := a.take("k", now); got != want {
			t.Errorf("take %d = %v, want %v", i, got, want)
		}
	}
	if got := a.take("k", now.Add(-time.Hour)); got <= 0 {
		t.Errorf("a clock that goes back gives attempts: %v", got)
	}
	if got := a.take("k", now.Add(1500*time.Millisecond)); got != 0 {
		t.Errorf("take after 1.5 s = %v, want 0", got)
	}
	for i := range 100 {
		a.take(fmt.Sprint(i), now)
	}
	if len(a.byKey) != 3 || a.order.Len() != 3 {
		t.Errorf("%d keys, %d in order, want 3", len(a.byKey), a.order.Len())
	}
	var r recent
	r.keep = 2
	for _, k := range []string{"a", "b", "a", "c"} {
		r.add(k)
	}
	if r.holds("a") || !r.holds("b") || !r.holds("c") || len(r.order) != 2 {
		t.Errorf("recent holds %v", r.has)
	}
}

func TestSessions_EndByThemselvesAndAreBounded(t *testing.T) {
	u := &user{name: "u", role: Viewer}
	now := time.Unix(1000, 0)
	s := newSessions()
	one := s.begin(u, now)
	if s.find(one, now.Add(sessionIdle-1)) == nil {
		t.Errorf("a session in use is over")
	}
	if s.find(one, now.Add(2*sessionIdle)) != nil {
		t.Errorf("an idle session is good")
	}
	long := s.begin(u, now)
	for at := now; at.Before(now.Add(sessionAbsolute)); at = at.Add(sessionIdle / 2) {
		if s.find(long, at) == nil {
			t.Fatalf("a session in use is over after %v", at.Sub(now))
		}
	}
	if s.find(long, now.Add(sessionAbsolute)) != nil {
		t.Errorf("a session is good for ever")
	}
	s = newSessions()
	first := s.begin(u, now)
	for i := range maxUserSessions {
		s.begin(u, now.Add(time.Duration(i+1)))
	}
	if len(s.byKey) != maxUserSessions || s.find(first, now) != nil {
		t.Errorf("%d sessions of one user, the first still good: %v", len(s.byKey), s.find(first, now) != nil)
	}
	for i := range maxSessions + 50 {
		s.begin(&user{name: fmt.Sprint(i)}, now.Add(time.Hour))
	}
	if len(s.byKey) > maxSessions {
		t.Errorf("%d sessions, want %d at most", len(s.byKey), maxSessions)
	}
}

// A user who is removed, or gets another password, role or scope, is logged out everywhere, and what still streams ends.
func TestReload_LogsOutWhoChanged(t *testing.T) {
	g := guardedPlant(t)
	shows := map[string]string{}
	for _, n := range []string{"vic", "olga", "ada", "tom"} {
		shows[n] = g.login(n)
	}
	started, over := make(chan struct{}), make(chan error, 1)
	h := g.site.mux([]route{{method: "GET", pattern: "/stream", least: Viewer, serve: func(_ *site, _ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		over <- r.Context().Err()
	}}})
	go request(h, "GET", "/stream", "", shows["olga"])
	<-started
	users, err := LoadUsers(g.file)
	if err != nil {
		t.Fatal(err)
	}
	writeUsers(t, g.file, users.lines[1], "olga:operator:"+cheap(t, "another"), strings.Replace(users.lines[3], "admin", "viewer", 1), users.lines[4]+"2")
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err == nil {
		t.Errorf("the stream ended without its context")
	}
	for name, want := range map[string]int{"vic": 200, "olga": 401, "ada": 401, "tom": 401} {
		if got := g.ask("GET", "/api/v1/status", "", shows[name]).StatusCode; got != want {
			t.Errorf("%s gets %d after the reload, want %d", name, got, want)
		}
	}
	for _, broken := range []string{"vic:viewer:plain", "x"} {
		writeUsers(t, g.file, broken)
		if err := g.Reload(); err == nil || !strings.Contains(err.Error(), g.file+":1: ") {
			t.Errorf("Reload of %q = %v, want an error with the line", broken, err)
		}
	}
	os.Remove(g.file)
	if err := g.Reload(); err == nil {
		t.Errorf("Reload of a file that went away = nil")
	}
	if got := g.ask("GET", "/api/v1/status", "", shows["vic"]).StatusCode; got != 200 {
		t.Errorf("a reload that failed logged vic out: %d", got)
	}
}

func setupPlant(t *testing.T) (g *guarded, token string) {
	t.Helper()
	g = guardedPlant(t, func(c *Config) { c.UsersFile += ".new" })
	g.file += ".new"
	s := &g.site.door.setup
	g.site.door.offerSetup(time.Now())
	// The log alone has the token; here one of our own takes its place.
	s.hash = sessionKey(sha256Of("the-token"))
	return g, "the-token"
}

func TestSetup_TokenMakesOneAdminOnce(t *testing.T) {
	g, token := setupPlant(t)
	post := func(token, user, password string) *http.Response {
		return g.ask("POST", "/api/v1/setup", fmt.Sprintf(`{"token":%q,"user":%q,"password":%q}`, token, user, password))
	}
	if s := body(t, g.ask("GET", "/api/v1/session", "")); !strings.Contains(s, `"setup_required":true`) {
		t.Errorf("session = %s", s)
	}
	for _, c := range []struct {
		token, user, password string
		code                  int
	}{
		{"", "ann", "long-enough", 401}, {"guess", "ann", "long-enough", 401}, {token, "ann", "short", 422}, {token, "a:b", "long-enough", 422},
		{token, "ann", strings.Repeat("x", 73), 422}, {token, "ann", "long-enough", 200}, {token, "bob", "long-enough", 409},
	} {
		if r := post(c.token, c.user, c.password); r.StatusCode != c.code {
			t.Errorf("setup(%q, %q) = %s, want %d: %s", c.token, c.user, r.Status, c.code, body(t, r))
		} else if c.code == 200 && g.ask("GET", "/api/v1/tokens", "", "Cookie: "+r.Cookies()[0].String()).StatusCode != 200 {
			t.Errorf("the first user is no admin, or not logged in")
		}
	}
	info, err := os.Stat(g.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the users file: %v, %v", info, err)
	}
	g, token = setupPlant(t)
	if _, err := g.site.door.first(token, "ann", []byte("long-enough"), time.Now().Add(setupAge+time.Second)); !errors.Is(err, errSetup) {
		t.Errorf("an expired token = %v", err)
	}
	if _, err := g.site.door.first("", "ann", []byte("long-enough"), time.Now()); !errors.Is(err, errSetup) {
		t.Errorf("no token = %v", err)
	}
	writeUsers(t, g.file, "eve:viewer:"+cheap(t, "x"))
	if _, err := g.site.door.first(token, "ann", []byte("long-enough"), time.Now()); !errors.Is(err, errSetup) {
		t.Errorf("a token after somebody wrote the file = %v", err)
	}
}

func TestSetup_GuessingIsHeldUp(t *testing.T) {
	g, _ := setupPlant(t)
	for i := range addressBurst + 1 {
		r := g.ask("POST", "/api/v1/setup", `{"token":"x","user":"a","password":"long-enough"}`)
		if want := 401 + 28*(i/addressBurst); r.StatusCode != want {
			t.Errorf("guess %d = %d, want %d", i, r.StatusCode, want)
		}
	}
}

// A page of another origin can use no session, whatever it may send; a program with a token needs no origin.
func TestOrigin_CountsForBrowsersOnly(t *testing.T) {
	g := guardedPlant(t)
	cookie, token := g.login("olga"), g.token("operator", nil)
	for _, c := range []struct {
		shows, header string
		code          int
	}{
		{cookie, "Origin: https://evil.example", 403}, {cookie, "Origin: null", 403}, {cookie, "Origin: http://127.0.0.1:9999", 403},
		{cookie, "Sec-Fetch-Site: cross-site", 403}, {cookie, "Sec-Fetch-Site: same-site", 403}, {cookie, "Origin: http://127.0.0.1:8080", 204},
		{token, "Origin: https://grafana.example", 204}, {token, "Sec-Fetch-Site: cross-site", 204},
	} {
		if r := g.ask("POST", "/api/v1/rules/reload", "", c.shows, c.header); r.StatusCode != c.code {
			t.Errorf("reload with %.8s and %s = %d, want %d", c.shows, c.header, r.StatusCode, c.code)
		}
	}
	if r := g.ask("POST", "/api/v1/login", `{"user":"vic","password":"vic-secret"}`, "Origin: https://evil.example"); r.StatusCode != 403 {
		t.Errorf("a page elsewhere logs in: %s", r.Status)
	}
	if r := g.ask("GET", "/api/v1/tokens", "", g.login("ada"), "Sec-Fetch-Site: cross-site"); r.StatusCode != 403 {
		t.Errorf("a page elsewhere navigates to what is an admin's: %s", r.Status)
	}
}

func TestHost_ListedNamesAreAnswered(t *testing.T) {
	for _, c := range []struct {
		address string
		names   []string
		host    string
		code    int
	}{
		{"127.0.0.1:0", []string{"gw.example"}, "gw.example:443", 200}, {"127.0.0.1:0", []string{"gw.example"}, "GW.example", 200},
		{"127.0.0.1:0", []string{"gw.example"}, "evil.example", 421}, {"127.0.0.1:0", []string{"gw.example"}, "gw.example.evil", 421},
		{"127.0.0.1:0", []string{"gw.example"}, "192.0.2.7", 421}, {"0.0.0.0:0", []string{"gw.example"}, "192.0.2.7:80", 200},
		{"0.0.0.0:0", []string{"gw.example"}, "evil.example", 421}, {"0.0.0.0:0", []string{"gw.example"}, "[2001:db8::1]:80", 200},
		{"0.0.0.0:0", nil, "any.example", 200},
	} {
		s := newServer(t, Config{Address: c.address, Insecure: true, Hosts: c.names}, &plant{})
		if r := request(s.http.Handler, "GET", "/healthz", "", "Host: "+c.host); r.StatusCode != c.code {
			t.Errorf("%s with %v, Host %s = %d, want %d", c.address, c.names, c.host, r.StatusCode, c.code)
		}
	}
}

// No spelling of a path gets around its row.
func TestPaths_TricksLeadNowhere(t *testing.T) {
	g := guardedPlant(t)
	for _, path := range []string{
		"//api/v1/status", "/api//v1/status", "/api/v1/../v1/status", "/./api/v1/status", "/api/v1/status/", "/api/v1/status/.", "/API/v1/status",
		"/api/v1/status%2f", "/api%2fv1%2fstatus", "/api/v1/%73tatus", "/prometheus/api/v1/../../../api/v1/tokens", "/prometheus/api/v1/%2e%2e/x",
		"/healthz/../api/v1/status", "/healthz%00", "/api/v1/status;x=1", "/api/v1/status%20", "/api/v1/alerts/..%2f..%2fstatus/ack", "/index.html/../metrics",
	} {
		for _, method := range []string{"GET", "HEAD", "POST", "CONNECT", "TRACE"} {
			r := httptest.NewRequest(method, "/", nil)
			u, err := r.URL.Parse("http://127.0.0.1:8080" + path)
			if err != nil {
				continue
			}
			r.URL, r.Host = u, "127.0.0.1:8080"
			w := httptest.NewRecorder()
			g.http.Handler.ServeHTTP(w, r)
			if w.Code < 300 {
				t.Errorf("%s %s = %d %s", method, path, w.Code, w.Body)
			}
			if where := w.Header().Get("Location"); strings.HasPrefix(where, "//") || strings.Contains(where, "evil") {
				t.Errorf("%s %s leads to %s", method, path, where)
			}
		}
	}
}

func TestBodies_AreBoundedBeforeTheLogin(t *testing.T) {
	g := guardedPlant(t)
	huge := `{"user":"` + strings.Repeat("x", 1<<20) + `"}`
	for _, path := range []string{"/api/v1/login", "/api/v1/setup"} {
		if r := g.ask("POST", path, huge); r.StatusCode != 413 {
			t.Errorf("POST %s with 1 MiB = %s, want 413", path, r.Status)
		}
	}
	if r := g.ask("POST", "/api/v1/login", `{"user":"vic","password":"`+strings.Repeat("p", 100)+`"}`); r.StatusCode != 401 {
		t.Errorf("a password longer than bcrypt reads = %s, want 401", r.Status)
	}
}

func TestNew_BeyondLoopbackNeedsUsersAndTLS(t *testing.T) {
	users := filepath.Join(t.TempDir(), "users")
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{Address: "0.0.0.0:0"}, "nobody has to log in"},
		{Config{Address: "0.0.0.0:0", UsersFile: users}, "in the clear"},
		{Config{Address: "0.0.0.0:0", UsersFile: users, Insecure: true}, ""},
		{Config{Address: "127.0.0.1:0", UsersFile: users}, ""},
		{Config{}, "want host:port"},
		{Config{Socket: "/x"}, ""},
	} {
		if err := c.cfg.Validate(); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Validate(%+v) = %v, want %q", c.cfg, err, c.want)
		}
	}
	writeUsers(t, users, "vic:viewer:"+cheap(t, "x"))
	if err := os.Chmod(users, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Address: "127.0.0.1:0", UsersFile: users}, &plant{}, nil, quiet); err == nil || !strings.Contains(err.Error(), "chmod 0600") {
		t.Errorf("New with a users file that all can read = %v", err)
	}
	// Without login everybody on loopback may do everything, as before.
	if r := request(newServer(t, Config{Address: "127.0.0.1:0"}, &manned{}).http.Handler, "POST", "/api/v1/rules/reload", ""); r.StatusCode != 204 {
		t.Errorf("reload on loopback = %s", r.Status)
	}
}

func TestLogins_FailuresAreSummedUpOnceAMinute(t *testing.T) {
	g := guardedPlant(t)
	for i := range 5 {
		g.ask("POST", "/api/v1/login", fmt.Sprintf(`{"user":"u%d\n","password":"x"}`, i%2))
	}
	for i := range 20 {
		g.site.door.failures.note(fmt.Sprint("many", i), "198.51.100.9:1")
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); g.site.watchLogins(ctx) }()
		time.Sleep(10 * failuresEvery)
		cancel()
		<-ended
	})
	if len(g.plant.kept) != 1 || g.plant.kept[0].Op != "login_failed" || !strings.HasPrefix(g.plant.kept[0].Detail, "25 failed logins:") ||
		!strings.Contains(g.plant.kept[0].Detail, `"u0\n" from 192.0.2.1 (3)`) || !strings.Contains(g.plant.kept[0].Detail, "others (14)") {
		t.Errorf("the audit says %+v", g.plant.kept)
	}
}
