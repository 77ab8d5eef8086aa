package console

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// manned is a plant with a desk that writes down what it is asked.
type manned struct {
	plant
	alerts   AlertList
	silences SilenceList
	rules    RuleList
	err      error
	asked    []string
}

func (m *manned) note(format string, args ...any) error {
	m.asked = append(m.asked, fmt.Sprintf(format, args...))
	return m.err
}

func (m *manned) AlertList() AlertList                       { return m.alerts }
func (m *manned) SilenceList() SilenceList                   { return m.silences }
func (m *manned) RuleList(context.Context) (RuleList, error) { return m.rules, m.err }
func (m *manned) ReloadRules(context.Context) error          { return m.note("reload") }
func (m *manned) ExpireSilence(_ context.Context, id, by string) error {
	return m.note("expire %s by %s", id, by)
}
func (m *manned) Acknowledge(_ context.Context, fp string, a Acknowledgement) error {
	return m.note("ack %s by %s: %s", fp, a.Author, a.Comment)
}

func (m *manned) Unacknowledge(_ context.Context, fp, by string) error {
	return m.note("unack %s by %s", fp, by)
}

func (m *manned) AddSilence(_ context.Context, s NewSilence) (string, error) {
	return "s1", m.note("silence %v %s by %s", s.Match, s.Duration, s.Author)
}

// send makes a request as a program does; headers are "Name: value".
func send(t *testing.T, m *manned, method, target, body string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	for _, h := range headers {
		name, v, _ := strings.Cut(h, ": ")
		r.Header.Set(name, v)
	}
	w := httptest.NewRecorder()
	newServer(t, Config{Address: "127.0.0.1:0"}, m).http.Handler.ServeHTTP(w, r)
	return w.Result()
}

func TestDesk_CommandsArriveWithTheirAuthors(t *testing.T) {
	for _, tt := range []struct {
		method, target, body, want string
		code                       int
	}{
		{"POST", "/api/v1/alerts/0123456789abcdef/ack", `{"author":"ann","comment":"on it"}`, "ack 0123456789abcdef by ann: on it", 204},
		{"POST", "/api/v1/alerts/0123456789abcdef/ack", `{}`, "ack 0123456789abcdef by anonymous: ", 204},
		{"DELETE", "/api/v1/alerts/0123456789abcdef/ack?author=bob", ``, "unack 0123456789abcdef by bob", 204},
		{"POST", "/api/v1/silences", `{"match":{"a":"b*"},"duration":"2h","author":"ann"}`, "silence map[a:b*] 2h by ann", 201},
		{"DELETE", "/api/v1/silences/s1", ``, "expire s1 by anonymous", 204},
		{"POST", "/api/v1/rules/reload", ``, "reload", 204},
	} {
		m := &manned{}
		r := send(t, m, tt.method, tt.target, tt.body)
		if r.StatusCode != tt.code || strings.Join(m.asked, "; ") != tt.want {
			t.Errorf("%s %s = %d, asked %q; want %d, %q", tt.method, tt.target, r.StatusCode, m.asked, tt.code, tt.want)
		}
	}
}

// A page of another origin, or a form, must not be able to silence an alert.
func TestDesk_RefusesWhatAPageFromElsewhereSends(t *testing.T) {
	const ack, body = "/api/v1/alerts/0123456789abcdef/ack", `{"author":"x"}`
	for _, tt := range []struct {
		method, target, body string
		headers              []string
		code                 int
	}{
		{"POST", ack, body, []string{"Origin: https://evil.example"}, 403},
		{"POST", ack, body, []string{"Origin: null"}, 403},
		{"POST", ack, body, []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"POST", ack, body, []string{"Sec-Fetch-Site: same-site"}, 403},
		{"DELETE", ack, "", []string{"Origin: http://127.0.0.1:9999"}, 403},
		{"DELETE", "/api/v1/silences/s", "", []string{"Sec-Fetch-Site: cross-site"}, 403},
		{"POST", ack, body, []string{"Content-Type: text/plain"}, 415},
		{"POST", ack, body, []string{"Content-Type: application/x-www-form-urlencoded"}, 415},
		{"POST", ack, body, []string{"Origin: http://127.0.0.1:8080", "Sec-Fetch-Site: same-origin"}, 204},
		{"PUT", ack, body, nil, 405}, {"GET", ack, "", nil, 405}, {"DELETE", "/api/v1/silences", "", nil, 405},
		{"POST", "/api/v1/alerts", "{}", nil, 405}, {"POST", "/api/v1/status", "{}", nil, 405},
		{"POST", "/api/v1/silences", `{"match":{}} {}`, nil, 400}, {"POST", "/api/v1/silences", ``, nil, 400},
		{"POST", "/api/v1/silences", `{"unknown":1}`, nil, 400}, {"POST", "/api/v1/silences", `[]`, nil, 400},
		{"POST", "/api/v1/silences", `{"comment":"` + strings.Repeat("x", 8<<10) + `"}`, nil, 413},
	} {
		m := &manned{}
		r := send(t, m, tt.method, tt.target, tt.body, tt.headers...)
		if r.StatusCode != tt.code || tt.code >= 400 && len(m.asked) > 0 {
			t.Errorf("%s %s %v = %d, asked %v; want %d", tt.method, tt.target, tt.headers, r.StatusCode, m.asked, tt.code)
		}
		if tt.code >= 400 && r.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: the problem is %s", tt.method, tt.target, r.Header.Get("Content-Type"))
		}
	}
}

func TestDesk_ErrorsSayWhoseFaultItIs(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{fmt.Errorf("%w: no alert fires", ErrNotFound), 404, "no alert fires"},
		{fmt.Errorf("%w: match: empty", ErrInvalid), 422, "match: empty"},
		{context.DeadlineExceeded, 503, "context deadline exceeded"},
	} {
		r := send(t, &manned{err: tt.err}, "POST", "/api/v1/silences", `{}`)
		var p struct{ Detail string }
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.StatusCode != tt.code || p.Detail != tt.want {
			t.Errorf("%v: %d %q, %v; want %d %q", tt.err, r.StatusCode, p.Detail, err, tt.code, tt.want)
		}
	}
}

func TestDesk_ListsAreNeverNull(t *testing.T) {
	m := &manned{alerts: AlertList{Alerts: []AlertDetail{{}}, Recent: []AlertDetail{{}}}, rules: RuleList{Rules: []RuleDetail{{}}}}
	for path, want := range map[string]string{
		"/api/v1/alerts": `"notifications":[]`, "/api/v1/silences": `{"silences":[]}`, "/api/v1/rules": `"series":[]`,
	} {
		if text := body(t, send(t, m, "GET", path, "")); !strings.Contains(text, want) {
			t.Errorf("GET %s = %s, want %s", path, text, want)
		}
	}
}

func TestDesk_JSONNamesAreDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	walked := map[reflect.Type]bool{}
	var walk func(typ reflect.Type, at string)
	walk = func(typ reflect.Type, at string) {
		if walked[typ] {
			return
		}
		walked[typ] = true
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			path, inner := at+name, f.Type
			if inner.Kind() == reflect.Slice {
				path, inner = path+"[]", inner.Elem()
			}
			if inner.Kind() == reflect.Pointer {
				inner = inner.Elem()
			}
			if !strings.Contains(string(doc), "`"+path+"`") {
				t.Errorf("docs/http.md does not mention `%s`", path)
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() {
				walk(inner, path+".")
			}
		}
	}
	walk(reflect.TypeFor[AlertList](), "")
	walk(reflect.TypeFor[SilenceList](), "")
	walk(reflect.TypeFor[RuleList](), "")
	for _, typ := range []reflect.Type{reflect.TypeFor[NewSilence](), reflect.TypeFor[Acknowledgement]()} {
		for i := range typ.NumField() {
			if name := typ.Field(i).Tag.Get("json"); !strings.Contains(string(doc), "`"+name+"`") {
				t.Errorf("docs/http.md does not mention `%s` of %s", name, typ)
			}
		}
	}
}
