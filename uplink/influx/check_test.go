package influx

import (
	"bufio"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"sluice/gateway/telemetry"
)

func TestCheck_ReadsBackWhatItWrote(t *testing.T) {
	point := &telemetry.Point{Measurement: "sluice_canary", Labels: telemetry.NewLabels(telemetry.Label{Name: "gateway", Value: "it's"}), Time: 1e18,
		Fields: []telemetry.Field{{Name: "sent", Value: 1}}}
	answer := ""
	status := http.StatusOK
	var query, token string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/v2/write" {
			bufio.NewReader(r.Body).WriteTo(io.Discard)
			w.WriteHeader(http.StatusNoContent)
			return
		}
		query, token = r.URL.Query().Get("q"), r.Header.Get("Authorization")
		w.WriteHeader(status)
		io.WriteString(w, answer)
	}))
	defer server.Close()
	s, err := New(Config{URL: server.URL, Bucket: "b", Token: "t"})
	if err != nil {
		t.Fatal(err)
	}
	const found = `{"results":[{"statement_id":0,"series":[{"name":"sluice_canary","columns":["time","sent"],"values":[[1000000000000000000,1]]}]}]}`
	const missing = `{"results":[{"statement_id":0}]}`
	for _, tc := range []struct {
		name     string
		status   int
		answer   string
		readBack bool
		words    string
	}{
		{"a server without queries", 404, "no", false, ""},
		{"a database that is not mapped", 200, `{"results":[{"error":"database not found: b"}]}`, false, ""},
		{"found", 200, found, true, ""},
		{"once found, it must be there", 200, missing, false, "not read back: it is not there"},
		{"once found, the query must be answered", 503, "", false, "answered 503"},
		{"a page instead", 200, "<html>", false, "something else"},
		{"found again", 200, found, true, ""},
	} {
		status, answer = tc.status, tc.answer
		readBack, err := s.Check(t.Context(), point)
		if readBack != tc.readBack || (err == nil) != (tc.words == "") || err != nil && !strings.Contains(err.Error(), tc.words) {
			t.Errorf("%s: %v, %v", tc.name, readBack, err)
		}
	}
	if want := `SELECT * FROM "sluice_canary" WHERE time = 1000000000000000000 AND "gateway" = 'it\'s'`; query != want || token != "Token t" {
		t.Errorf("query %s, token %q", query, token)
	}
	server.Close()
	if _, err := s.Check(t.Context(), point); err == nil || !strings.Contains(err.Error(), "write: ") {
		t.Errorf("a server that is gone: %v", err)
	}
}
