package console

import (
	"fmt"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"sluice/rules/expr"
)

// NewToken is the body of POST /api/v1/tokens.
type NewToken struct {
	Name      string            `json:"name"`
	Role      string            `json:"role"`       // viewer operator admin
	Scope     map[string]string `json:"scope"`      // labels of what it may see; empty: everything
	ExpiresIn string            `json:"expires_in"` // such as 30d; "": 90d
}

// Token is a bearer token as lists show it.
type Token struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Role      string            `json:"role"`
	Scope     map[string]string `json:"scope"`
	Created   time.Time         `json:"created"`
	Expires   time.Time         `json:"expires"`
	CreatedBy string            `json:"created_by"`
	LastUsed  time.Time         `json:"last_used,omitzero"` // since the gateway started
	Expired   bool              `json:"expired"`
}

// CreatedToken is the answer to POST /api/v1/tokens. Nobody sees the text again.
type CreatedToken struct {
	Token
	Text string `json:"token"`
}

// TokenList is /api/v1/tokens.
type TokenList struct {
	Tokens []Token `json:"tokens"` // the oldest first
}

func (s *site) tokens(w http.ResponseWriter, _ *http.Request) {
	l := TokenList{Tokens: []Token{}}
	now := time.Now()
	for _, t := range s.door.tokens.list() {
		l.Tokens = append(l.Tokens, t.view(now))
	}
	s.answer(w, http.StatusOK, l)
}

func (t *bearer) view(now time.Time) Token {
	v := Token{
		ID: t.ID, Name: t.Name, Role: t.Role, Scope: t.Scope, Created: t.Created, Expires: t.Expires, CreatedBy: t.CreatedBy, LastUsed: t.used,
		Expired: !now.Before(t.Expires),
	}
	if v.Scope == nil {
		v.Scope = map[string]string{}
	}
	return v
}

// order makes the token that a request asks for, not stored yet.
func (n *NewToken) order(by string, now time.Time) (*bearer, error) {
	role, err := ParseRole(n.Role)
	if err != nil {
		return nil, err
	}
	if n.Name == "" || len(n.Name) > maxNameBytes || !utf8.ValidString(n.Name) || strings.ContainsFunc(n.Name, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, fmt.Errorf("name: want 1 to %d bytes of text", maxNameBytes)
	}
	if err := CheckScope(n.Scope); err != nil {
		return nil, err
	}
	age := defaultTokenAge
	if n.ExpiresIn != "" {
		if age, err = expr.ParseDuration(n.ExpiresIn); err != nil {
			return nil, fmt.Errorf("expires_in: %w", err)
		}
	}
	if age <= 0 || age > maxTokenAge {
		return nil, fmt.Errorf("expires_in: want more than 0 and at most five years, such as 30d")
	}
	return &bearer{
		ID: newTokenID(), Name: n.Name, Role: n.Role, Scope: n.Scope, Created: now.UTC().Truncate(time.Second), Expires: now.Add(age).UTC().Truncate(time.Second),
		CreatedBy: by, role: role,
	}, nil
}

func (s *site) addToken(w http.ResponseWriter, r *http.Request) {
	var n NewToken
	if !s.read(w, r, &n) {
		return
	}
	now := time.Now()
	one, err := n.order(author(r, ""), now)
	if err != nil {
		s.fail(w, fmt.Errorf("%w: %w", ErrInvalid, err))
		return
	}
	detail := fmt.Sprintf("%s %q, %s, until %s", one.ID, one.Name, one.Role, one.Expires.Format(time.RFC3339))
	for _, label := range sortedKeys(one.Scope) {
		detail += fmt.Sprintf(", %s=%s", label, one.Scope[label])
	}
	if !s.audited(w, r, "token_add", detail) {
		return
	}
	text, err := s.door.tokens.add(one, now)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusCreated, CreatedToken{one.view(now), text})
}

func (s *site) removeToken(w http.ResponseWriter, r *http.Request) {
	one, ok := s.door.tokens.get(r.PathValue("id"))
	if !ok {
		problem(w, http.StatusNotFound, "no token has this id")
		return
	}
	if !s.audited(w, r, "token_remove", fmt.Sprintf("%s %q", one.ID, one.Name)) {
		return
	}
	if err := s.door.tokens.remove(one.ID); err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}
