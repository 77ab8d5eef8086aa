package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

func TestTokens_TextIsShownOnceAndNeverStored(t *testing.T) {
	g := guardedPlant(t)
	ada := g.login("ada")
	r := g.ask("POST", "/api/v1/tokens", `{"name":"grafana","role":"viewer","scope":{"site":"a"},"expires_in":"30d"}`, ada)
	var made CreatedToken
	if err := json.NewDecoder(r.Body).Decode(&made); err != nil || r.StatusCode != 201 {
		t.Fatalf("POST /api/v1/tokens = %s, %v", r.Status, err)
	}
	if d := made.Expires.Sub(made.Created); made.CreatedBy != "ada" || made.Role != "viewer" || made.Scope["site"] != "a" || d < 29*24*time.Hour || d > 31*24*time.Hour {
		t.Errorf("the token is %+v", made)
	}
	secret := made.Text[strings.LastIndex(made.Text, made.ID)+len(made.ID)+1:]
	stored, err := os.ReadFile(g.cfg.TokensFile)
	if err != nil || strings.Contains(string(stored), secret) {
		t.Errorf("the file holds the secret, or: %v", err)
	}
	if info, err := os.Stat(g.cfg.TokensFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file's mode: %v, %v", info, err)
	}
	shows := "Authorization: Bearer " + made.Text
	if r := g.ask("GET", "/api/v1/status", "", shows); r.StatusCode != 200 {
		t.Errorf("the token gets %s", r.Status)
	}
	l := body(t, g.ask("GET", "/api/v1/tokens", "", ada))
	if strings.Contains(l, secret) || strings.Contains(l, "sha256") || !strings.Contains(l, `"last_used"`) {
		t.Errorf("GET /api/v1/tokens = %s", l)
	}
	for _, e := range g.plant.kept {
		if strings.Contains(e.Detail, secret) {
			t.Errorf("the audit holds the secret: %+v", e)
		}
	}
	// Another process with the same files knows it, until it is revoked.
	again := newServer(t, g.cfg, g.plant)
	if r := request(again.http.Handler, "GET", "/api/v1/status", "", shows); r.StatusCode != 200 {
		t.Errorf("after a restart the token gets %s", r.Status)
	}
	if r := g.ask("DELETE", "/api/v1/tokens/"+made.ID, "", ada); r.StatusCode != 204 {
		t.Errorf("DELETE = %s", r.Status)
	}
	if r := g.ask("GET", "/api/v1/status", "", shows); r.StatusCode != 401 {
		t.Errorf("a revoked token gets %s", r.Status)
	}
	if r := g.ask("DELETE", "/api/v1/tokens/"+made.ID, "", ada); r.StatusCode != 404 {
		t.Errorf("the second DELETE = %s", r.Status)
	}
}

func TestTokens_WhatIsNotOneIsRefused(t *testing.T) {
	g := guardedPlant(t)
	good := g.token("viewer", nil)
	old := bearer{ID: "old", Name: "old", Role: "admin", role: Admin, Expires: time.Now().Add(-time.Second)}
	text, err := g.site.door.tokens.add(&old, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	for _, shows := range []string{
		"Authorization: Bearer " + text, good + "x", good[:len(good)-1], "Authorization: Bearer", "Authorization: Bearer ", "Authorization: Basic dmljOnZpYy1zZWNyZXQ=",
		"Authorization: Bearer sluice__", "Authorization: Bearer sluice_old_", strings.Replace(good, "sluice_", "", 1), "Authorization: " + text,
		"Authorization: Bearer " + strings.Repeat("x", 8000),
	} {
		// A good session beside it does not make up for it.
		if r := g.ask("GET", "/api/v1/status", "", shows, g.login("ada")); r.StatusCode != 401 {
			t.Errorf("%.60s gets %s, want 401", shows, r.Status)
		}
		if r := g.ask("GET", "/healthz", "", shows); r.StatusCode != 200 {
			t.Errorf("%.60s at what is open gets %s", shows, r.Status)
		}
	}
	if r := g.ask("GET", "/api/v1/status", "", strings.Replace(good, "Bearer", "bearer", 1)); r.StatusCode != 200 {
		t.Errorf("the scheme in small letters gets %s", r.Status)
	}
}

func TestTokens_BodiesThatMakeNoSenseAre422(t *testing.T) {
	g := guardedPlant(t)
	ada := g.login("ada")
	for _, b := range []string{
		`{"name":"x","role":"root"}`, `{"name":"","role":"viewer"}`, `{"name":"x","role":"viewer","expires_in":"soon"}`, `{"name":"x","role":"viewer","expires_in":"-1h"}`,
		`{"name":"x","role":"viewer","expires_in":"99999d"}`, `{"name":"x","role":"viewer","scope":{"site":""}}`, `{"name":"x","role":"viewer","scope":{"site":"*"}}`,
		`{"name":"x","role":"viewer","scope":{"__name__":"x"}}`, `{"name":"x","role":"viewer","scope":{"si-te":"x"}}`, `{"name":"x\u001b[2J","role":"viewer"}`,
	} {
		if r := g.ask("POST", "/api/v1/tokens", b, ada); r.StatusCode != 422 {
			t.Errorf("POST %s = %s, want 422", b, r.Status)
		}
	}
	if n := len(g.site.door.tokens.byID); n != 0 {
		t.Errorf("%d tokens were made", n)
	}
	g.plant.refuse = fmt.Errorf("the journal is full")
	if r := g.ask("POST", "/api/v1/tokens", `{"name":"x","role":"viewer"}`, ada); r.StatusCode != 503 || len(g.site.door.tokens.byID) != 0 {
		t.Errorf("a token that no audit holds = %s, %d tokens", r.Status, len(g.site.door.tokens.byID))
	}
}

func TestTokens_DamagedFileLetsNobodyInAndIsSetAside(t *testing.T) {
	for _, text := range []string{"{", `{"tokens":[null]}`, `{"tokens":[{"id":"a","role":"king"}]}`, `{"tokens":[{"id":"a","role":"admin","sha256":"00"}]}`} {
		g := guardedPlant(t, func(c *Config) { writeUsers(t, c.TokensFile, text) })
		if b, err := os.ReadFile(g.cfg.TokensFile + ".damaged"); err != nil || string(b) != text+"\n" {
			t.Errorf("%s: set aside as %q, %v", text, b, err)
		}
		if n := len(g.site.door.tokens.byID); n != 0 {
			t.Errorf("%s: %d tokens", text, n)
		}
		if r := g.ask("GET", "/api/v1/status", "", g.token("viewer", nil)); r.StatusCode != 200 {
			t.Errorf("%s: a new token gets %s", text, r.Status)
		}
	}
}

func TestTokens_AreBounded(t *testing.T) {
	g := guardedPlant(t)
	k := g.site.door.tokens
	now := time.Now()
	for i := range maxTokens {
		k.byID[fmt.Sprint(i)] = &bearer{ID: fmt.Sprint(i), Role: "viewer", Expires: now.Add(time.Hour)}
	}
	if _, err := k.add(&bearer{ID: "more", Expires: now.Add(time.Hour)}, now); err == nil {
		t.Errorf("one more than %d tokens = nil", maxTokens)
	}
	if _, err := k.add(&bearer{ID: "later", Expires: now.Add(3 * time.Hour)}, now.Add(2*time.Hour)); err != nil || len(k.byID) != 1 {
		t.Errorf("after the others expired: %v, %d tokens", err, len(k.byID))
	}
}

func TestAudit_ListsNewestFirstInPages(t *testing.T) {
	g := guardedPlant(t)
	vic := g.login("vic")
	g.plant.kept = nil
	for i := range 25 {
		g.plant.kept = append(g.plant.kept, AuditEntry{Op: fmt.Sprint(i), LSN: uint64(i*7 + 1)})
	}
	var ops []string
	for next, pages := "", 0; ; pages++ {
		var l AuditList
		if err := json.NewDecoder(g.ask("GET", "/api/v1/audit?limit=10&cursor="+next, "", vic).Body).Decode(&l); err != nil || l.Total != 25 {
			t.Fatalf("page %d: %+v, %v", pages, l, err)
		}
		for _, e := range l.Entries {
			ops = append(ops, e.Op)
		}
		if pages == 0 { // what happens meanwhile moves nothing
			g.plant.kept = append(g.plant.kept, AuditEntry{Op: "new", LSN: 1000})
			g.plant.kept = g.plant.kept[1:]
		}
		if next = l.Next; next == "" {
			break
		}
	}
	want := ""
	for i := 24; i > 0; i-- {
		want += fmt.Sprint(i, " ")
	}
	if got := strings.Join(ops, " ") + " "; got != want {
		t.Errorf("pages hold %s, want %s", got, want)
	}
	if r := g.ask("GET", "/api/v1/audit?limit=0", "", vic); r.StatusCode != http.StatusBadRequest {
		t.Errorf("limit=0 = %s", r.Status)
	}
}

// The author is who logged in, whatever the request says.
func TestAuthor_IsWhoLoggedIn(t *testing.T) {
	g := guardedPlant(t)
	olga := g.login("olga")
	g.ask("POST", "/api/v1/alerts/0123456789abcdef/ack", `{"author":"mallory"}`, olga)
	g.ask("DELETE", "/api/v1/silences/s1?author=mallory", "", g.token("operator", nil))
	if got := strings.Join(g.plant.asked, "; "); got != "ack 0123456789abcdef by olga: ; expire s1 by token:t" {
		t.Errorf("the desk was asked %s", got)
	}
}
