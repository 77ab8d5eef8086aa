package console

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"sync"
	"time"
)

// Bounds of sessions. They live in memory: a restart logs everybody out.
const (
	sessionIdle     = 8 * time.Hour
	sessionAbsolute = 7 * 24 * time.Hour
	maxSessions     = 1000
	maxUserSessions = 20 // of one user; the one unused for longest gives way
)

// sessions are who has logged in. A browser holds a secret of 256 bits; here is its SHA-256, so that memory read out logs nobody in.
type sessions struct {
	mu    sync.Mutex
	byKey map[sessionKey]*session
}

type sessionKey [sha256.Size]byte

type session struct {
	key      sessionKey
	user     *user // as the users file had it at the login
	created  time.Time
	seen     time.Time       // guarded by sessions.mu
	ctx      context.Context // ends with the session: answers that go on for long end with it
	withdraw context.CancelFunc
}

func newSessions() *sessions { return &sessions{byKey: map[sessionKey]*session{}} }

// newSecret returns 256 bits as text.
func newSecret() string {
	var b [32]byte
	rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// begin makes a session and returns the secret for its cookie.
func (s *sessions) begin(u *user, now time.Time) (secret string) {
	secret = newSecret()
	one := &session{key: sha256.Sum256([]byte(secret)), user: u, created: now, seen: now}
	one.ctx, one.withdraw = context.WithCancel(context.Background())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep(now)
	var own, oldest, oldestOwn = 0, (*session)(nil), (*session)(nil)
	for _, other := range s.byKey {
		oldest = older(oldest, other)
		if other.user.name == u.name {
			own++
			oldestOwn = older(oldestOwn, other)
		}
	}
	switch {
	case own >= maxUserSessions:
		s.end(oldestOwn)
	case len(s.byKey) >= maxSessions:
		s.end(oldest)
	}
	s.byKey[one.key] = one
	return secret
}

func older(a, b *session) *session {
	if a == nil || b.seen.Before(a.seen) {
		return b
	}
	return a
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.seen) >= sessionIdle || now.Sub(s.created) >= sessionAbsolute
}

// find is the session of a cookie's secret, nil when there is none or it has expired.
func (s *sessions) find(secret string, now time.Time) *session {
	key := sessionKey(sha256.Sum256([]byte(secret)))
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byKey[key]
	if one == nil {
		return nil
	}
	if one.over(now) {
		s.end(one)
		return nil
	}
	one.seen = now
	return one
}

// end revokes one; the caller holds mu.
func (s *sessions) end(one *session) {
	delete(s.byKey, one.key)
	one.withdraw()
}

func (s *sessions) sweep(now time.Time) {
	for _, one := range s.byKey {
		if one.over(now) {
			s.end(one)
		}
	}
}

// revoke ends the session of a cookie's secret, where there is one, and returns whose it was.
func (s *sessions) revoke(secret string) (name string) {
	key := sessionKey(sha256.Sum256([]byte(secret)))
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byKey[key]
	if one == nil {
		return ""
	}
	s.end(one)
	return one.user.name
}

// keep ends the sessions of everybody whom users does not hold as they logged in.
func (s *sessions) keep(users *Users) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.byKey {
		if !one.user.same(users.byName[one.user.name]) {
			s.end(one)
		}
	}
}

// cookieName is that of the session's cookie. Browsers take the one with __Host- only over TLS, for the whole site and for no other host.
func cookieName(secure bool) string {
	if secure {
		return "__Host-sluice"
	}
	return "sluice_session"
}

// sessionCookie is the cookie with a secret, or the one that takes it away.
func sessionCookie(secret string, secure bool) *http.Cookie {
	c := &http.Cookie{
		Name: cookieName(secure), Value: secret, Path: "/", HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode,
		MaxAge: int(sessionAbsolute / time.Second),
	}
	if secret == "" {
		c.MaxAge = -1
	}
	return c
}
