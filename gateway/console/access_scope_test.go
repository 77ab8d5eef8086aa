package console

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// twoTenants has alerts and silences of the sites a and b; what names b is marked.
func twoTenants(t *testing.T) *guarded {
	g := guardedPlant(t, func(c *Config) {
		c.PromQL = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "asked\n") })
	})
	a, b := map[string]string{"site": "a", "device": "one"}, map[string]string{"site": "b", "device": "other-tenant"}
	g.plant.status = Status{
		Gateway: "g", Devices: 9, Alerts: []Alert{{Name: "A", Labels: a}, {Name: "other-tenant", Labels: b}, {Name: "other-tenant"}},
		Destinations: []Destination{{Name: "other-tenant"}}, Ledger: Ledger{Sources: []LedgerSource{{Source: "other-tenant"}}},
	}
	g.plant.ready = Readiness{Ready: true, Parts: []Part{{"other-tenant", true, ""}}}
	g.plant.alerts = AlertList{
		Alerts: []AlertDetail{{Fingerprint: "000000000000000a", Labels: a}, {Fingerprint: "000000000000000b", Name: "other-tenant", Labels: b}},
		Recent: []AlertDetail{{Name: "other-tenant", Labels: b}, {Name: "Old", Labels: a}, {Name: "other-tenant"}},
	}
	g.plant.silences = SilenceList{Silences: []SilenceDetail{
		{ID: "sa", Match: map[string]string{"site": "a", "device": "x*"}}, {ID: "sb", Comment: "other-tenant", Match: map[string]string{"site": "b"}},
		{ID: "all", Comment: "other-tenant", Match: map[string]string{"site": "*"}}, {ID: "any", Comment: "other-tenant", Match: map[string]string{"device": "one"}},
	}}
	return g
}

// A tenant gets nothing of another's from any path.
func TestScope_NoAnswerHoldsAnothersData(t *testing.T) {
	g := twoTenants(t)
	for _, shows := range []string{g.login("tom"), g.token("admin", map[string]string{"site": "a"})} {
		for _, row := range table() {
			if row.method != http.MethodGet || row.pattern == "/api/v1/events" || row.part != nil && !row.part(g.site) {
				continue
			}
			r := g.ask("GET", target(row.pattern), "", shows)
			if text := body(t, r); strings.Contains(text, "other-tenant") {
				t.Errorf("GET %s with %.12s = %s %s", row.pattern, shows, r.Status, text)
			}
		}
		if text := body(t, g.ask("GET", "/api/v1/alerts", "", shows)); !strings.Contains(text, "000000000000000a") || !strings.Contains(text, `"Old"`) {
			t.Errorf("GET /api/v1/alerts lacks the tenant's own: %s", text)
		}
		if text := body(t, g.ask("GET", "/api/v1/status", "", shows)); !strings.Contains(text, `"name":"A"`) || strings.Contains(text, `"devices":9`) {
			t.Errorf("GET /api/v1/status = %s", text)
		}
		if text := body(t, g.ask("GET", "/api/v1/silences", "", shows)); strings.Count(text, `"id"`) != 1 {
			t.Errorf("GET /api/v1/silences = %s", text)
		}
	}
	// Nor does filtering touch what others see.
	if text := body(t, g.ask("GET", "/api/v1/alerts", "", g.login("vic"))); strings.Count(text, "other-tenant") < 3 {
		t.Errorf("GET /api/v1/alerts of the whole site = %s", text)
	}
}

// A tenant changes nothing of another's.
func TestScope_ChangesStayWithin(t *testing.T) {
	for _, c := range []struct {
		method, target, body string
		code                 int
		asked                string
	}{
		{"POST", "/api/v1/alerts/000000000000000a/ack", `{}`, 204, "ack 000000000000000a by token:t: "},
		{"POST", "/api/v1/alerts/000000000000000b/ack", `{}`, 404, ""},
		{"DELETE", "/api/v1/alerts/000000000000000b/ack", ``, 404, ""},
		{"DELETE", "/api/v1/silences/sa", ``, 204, "expire sa by token:t"},
		{"DELETE", "/api/v1/silences/sb", ``, 404, ""}, {"DELETE", "/api/v1/silences/all", ``, 404, ""}, {"DELETE", "/api/v1/silences/any", ``, 404, ""},
		{"POST", "/api/v1/silences", `{"duration":"1h"}`, 201, "silence map[site:a] 1h by token:t"},
		{"POST", "/api/v1/silences", `{"match":{"device":"*"},"duration":"1h"}`, 201, "silence map[device:* site:a] 1h by token:t"},
		{"POST", "/api/v1/silences", `{"match":{"site":"*"},"duration":"1h"}`, 422, ""}, {"POST", "/api/v1/silences", `{"match":{"site":"b"}}`, 422, ""},
		{"POST", "/api/v1/silences", `{"id":"sb","match":{"site":"a"}}`, 404, ""},
		{"POST", "/api/v1/rules/reload", ``, 403, ""}, {"POST", "/api/v1/tokens", `{"name":"x","role":"admin"}`, 403, ""},
	} {
		g := twoTenants(t)
		r := g.ask(c.method, c.target, c.body, g.token("admin", map[string]string{"site": "a"}))
		if got := strings.Join(g.plant.asked, "; "); r.StatusCode != c.code || got != c.asked {
			t.Errorf("%s %s %s = %s, asked %q; want %d, %q", c.method, c.target, c.body, r.Status, got, c.code, c.asked)
		}
	}
}
