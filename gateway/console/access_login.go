package console

import (
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Login is the body of POST /api/v1/login.
type Login struct {
	User     string `json:"user"`
	Password string `json:"password"`
}

// Setup is the body of POST /api/v1/setup: it makes the first user, an admin.
type Setup struct {
	Token    string `json:"token"` // from the gateway's log
	User     string `json:"user"`
	Password string `json:"password"`
}

// Session is /api/v1/session: who asks, and what they may do.
type Session struct {
	User          string            `json:"user"`  // "" where nobody has logged in
	Role          string            `json:"role"`  // viewer operator admin; "" before the login
	Scope         map[string]string `json:"scope"` // labels of what they may see; empty: everything
	LoginRequired bool              `json:"login_required"`
	SetupRequired bool              `json:"setup_required"` // there is no user yet
	Demo          bool              `json:"demo"`
	Version       string            `json:"version"` // with those below "" before the login
	Gateway       string            `json:"gateway"`
	TimeZone      string            `json:"time_zone"`
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (s *site) session(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, s.sessionOf(who(r)))
}

func (s *site) sessionOf(as Who) Session {
	v := Session{Scope: map[string]string{}, LoginRequired: s.door.loginRequired(), SetupRequired: s.door.setupRequired()}
	if as.Role == Nobody {
		return v
	}
	v.User, v.Role, v.Demo = as.Name, as.Role.String(), s.about.Demo
	v.Version, v.Gateway, v.TimeZone = s.about.Version, s.about.Gateway, s.about.TimeZone
	maps.Copy(v.Scope, as.Scope)
	return v
}

func (s *site) login(w http.ResponseWriter, r *http.Request) {
	var l Login
	if !s.read(w, r, &l) {
		return
	}
	if !s.door.loginRequired() {
		problem(w, http.StatusConflict, "nobody logs in here: http.users_file is not set")
		return
	}
	u, no, wait := s.door.login(r.Context(), l.User, []byte(l.Password), r.RemoteAddr, time.Now())
	if no != nil {
		retryAfter(w, wait)
		problem(w, no.code, no.detail)
		return
	}
	s.enter(w, r, u, "login")
}

func retryAfter(w http.ResponseWriter, wait time.Duration) {
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait+time.Second-1)/time.Second)))
	}
}

// enter begins a session with a secret of its own, whatever the browser brought, and ends the one it had.
func (s *site) enter(w http.ResponseWriter, r *http.Request, u *user, op string) {
	s.leave(r)
	secret := s.door.sessions.begin(u, time.Now())
	http.SetCookie(w, sessionCookie(secret, s.door.secure))
	as := Who{Name: u.name, Role: u.role, Scope: u.scope}
	s.tell(r, as, op, "from "+addressKey(r.RemoteAddr))
	s.answer(w, http.StatusOK, s.sessionOf(as))
}

// leave ends the session whose cookie a request brings, and returns whose it was.
func (s *site) leave(r *http.Request) string {
	if c, err := r.Cookie(cookieName(s.door.secure)); err == nil {
		return s.door.sessions.revoke(c.Value)
	}
	return ""
}

func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	as := who(r)
	if s.leave(r) != "" {
		s.tell(r, as, "logout", "from "+addressKey(r.RemoteAddr))
	}
	http.SetCookie(w, sessionCookie("", s.door.secure))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

func (s *site) setup(w http.ResponseWriter, r *http.Request) {
	var l Setup
	if !s.read(w, r, &l) {
		return
	}
	if !s.door.setupRequired() {
		problem(w, http.StatusConflict, "the gateway is set up already, or nobody logs in here")
		return
	}
	now, address := time.Now(), addressKey(r.RemoteAddr)
	if wait := s.door.addresses.take(address, now); wait > 0 {
		retryAfter(w, wait)
		problem(w, http.StatusTooManyRequests, "too many failed attempts from this address: wait")
		return
	}
	u, err := s.door.first(l.Token, l.User, []byte(l.Password), now)
	switch {
	case errors.Is(err, errSetup):
		s.door.failures.note("set-up", r.RemoteAddr)
		problem(w, http.StatusUnauthorized, err.Error())
		return
	case err != nil:
		s.door.addresses.giveBack(address)
		s.fail(w, err)
		return
	}
	s.door.addresses.giveBack(address)
	s.enter(w, r, u, "setup")
}
