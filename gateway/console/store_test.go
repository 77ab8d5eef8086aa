package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// depot is a plant with everything that a store has; it writes down what it is asked.
type depot struct {
	plant
	items  []QuarantineItem
	outbox []Destination
	report LedgerReport
	err    error
	backup string // what Backup writes before it returns err
	asked  []string
}

func (d *depot) note(format string, args ...any) error {
	d.asked = append(d.asked, fmt.Sprintf(format, args...))
	return d.err
}

func (d *depot) QuarantineList(q QuarantineQuery) (QuarantineList, error) {
	err := d.note("list %+v", q)
	return QuarantineList{Items: d.items, Total: uint64(len(d.items))}, err
}

func (d *depot) QuarantineItem(id uint64) (QuarantineItem, error) {
	if id != 7 {
		return QuarantineItem{}, fmt.Errorf("%w: no item has the id %d", ErrNotFound, id)
	}
	return d.items[0], nil
}

func (d *depot) ReplayQuarantine(_ context.Context, q QuarantineReplay) (string, error) {
	return "j1", d.note("replay %v %v as %q by %s", q.IDs, q.Filter, q.Type, q.By)
}

func (d *depot) DeleteQuarantine(_ context.Context, q QuarantineSelection) (int, error) {
	return 2, d.note("delete %v %v", q.IDs, q.Filter)
}

func (d *depot) OutboxList() []Destination { return d.outbox }

func (d *depot) Purge(_ context.Context, name string, p Purge) (uint64, error) {
	return 5, d.note("purge %s before %s: %s", name, p.Before.Format(time.RFC3339), p.Reason)
}

func (d *depot) Ledger(since time.Time) LedgerReport {
	d.note("ledger since %s", since.Format(time.RFC3339))
	return d.report
}

func (d *depot) Replay(_ context.Context, r Replay) (string, error) {
	return "j2", d.note("replay %s to %s into %s", r.From.Format(time.RFC3339), r.To.Format(time.RFC3339), r.Sink)
}

func (d *depot) Backup(_ context.Context, w io.Writer, history bool) error {
	if d.backup != "" {
		io.WriteString(w, d.backup)
	}
	return d.note("backup, history %v", history)
}

func (d *depot) BackupName() string { return "b.tar" }

func askDepot(t *testing.T, d *depot, method, target, body string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host = "127.0.0.1:8080"
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	newServer(t, Config{Address: "127.0.0.1:0"}, d).http.Handler.ServeHTTP(w, r)
	return w.Result()
}

func TestStore_RequestsArriveAsTheyWereMeant(t *testing.T) {
	for _, tt := range []struct {
		method, target, body, want string
		code                       int
	}{
		{"GET", "/api/v1/quarantine?stage=sink&reason=rejected&limit=5&cursor=17", "", "list {QuarantineFilter:{Stage:sink Reason:rejected Source: Destination: Search:} Limit:5 Before:17}", 200},
		{"GET", "/api/v1/quarantine?stage=nowhere", "", "", 400},
		{"GET", "/api/v1/quarantine?limit=1001", "", "", 400},
		{"GET", "/api/v1/quarantine?cursor=x", "", "", 400},
		{"GET", "/api/v1/quarantine/x", "", "", 404},
		{"GET", "/api/v1/quarantine/8", "", "", 404},
		{"POST", "/api/v1/quarantine/replay", `{"ids":["7",8],"type":"int"}`, `replay [7 8] <nil> as "int" by anonymous`, 202},
		{"POST", "/api/v1/quarantine/replay", `{"ids":[],"filter":{"reason":"type"}}`, `replay [] &{ type   } as "" by anonymous`, 202},
		{"POST", "/api/v1/quarantine/replay", `{}`, "", 422},
		{"POST", "/api/v1/quarantine/replay", `{"ids":["7"],"filter":{}}`, "", 422},
		{"POST", "/api/v1/quarantine/replay", `{"ids":["seven"]}`, "", 400},
		{"POST", "/api/v1/quarantine/delete", `{"filter":{}}`, "delete [] &{    }", 200},
		{"POST", "/api/v1/outboxes/cloud/purge", `{"before":"","reason":"test"}`, "purge cloud before 0001-01-01T00:00:00Z: test", 200},
		{"POST", "/api/v1/outboxes/cloud/purge", `{"before":"2026-05-01T00:00:00Z"}`, "purge cloud before 2026-05-01T00:00:00Z: ", 200},
		{"POST", "/api/v1/outboxes/cloud/purge", `{"before":"yesterday"}`, "", 422},
		{"GET", "/api/v1/outboxes/lake", "", "", 404},
		{"GET", "/api/v1/ledger?since=2026-05-01T00:00:00Z", "", "ledger since 2026-05-01T00:00:00Z", 200},
		{"GET", "/api/v1/ledger", "", "ledger since 0001-01-01T00:00:00Z", 200},
		{"GET", "/api/v1/ledger?since=x", "", "", 400},
		{"GET", "/api/v1/ledger?since=d", "", "", 400},
		{"POST", "/api/v1/replay", `{"from":"2026-05-01T00:00:00Z","to":"2026-05-02T00:00:00Z","sink":"cloud"}`, "replay 2026-05-01T00:00:00Z to 2026-05-02T00:00:00Z into cloud", 202},
		{"POST", "/api/v1/replay", `{"from":"2026-05-01T00:00:00Z","sink":""}`, "", 422},
		{"POST", "/api/v1/replay", `{"sink":"cloud"}`, "", 422},
		{"GET", "/api/v1/backup?history=true", "", "backup, history true", 200},
		{"GET", "/api/v1/backup?history=some", "", "", 400},
	} {
		d := &depot{items: []QuarantineItem{{ID: 7}}, outbox: []Destination{{Name: "cloud"}}, backup: "x"}
		r := askDepot(t, d, tt.method, tt.target, tt.body)
		if r.StatusCode != tt.code || strings.Join(d.asked, "; ") != tt.want {
			t.Errorf("%s %s %s = %d, asked %q; want %d, %q", tt.method, tt.target, tt.body, r.StatusCode, d.asked, tt.code, tt.want)
		}
	}
}

func TestStore_SinceTakesDaysBackFromNow(t *testing.T) {
	d := &depot{}
	askDepot(t, d, "GET", "/api/v1/ledger?since=7d", "")
	at, err := time.Parse("ledger since "+time.RFC3339, d.asked[0])
	if ago := time.Since(at); err != nil || ago < 167*time.Hour || ago > 169*time.Hour {
		t.Errorf("7d asks for %v", d.asked)
	}
}

func TestQuarantine_ListShowsTheBeginningOfAPayloadAndTheItemAllOfIt(t *testing.T) {
	big := strings.Repeat("x", 5000)
	d := &depot{items: []QuarantineItem{{ID: 7, Payload: []byte(big), PayloadBytes: len(big)}}}
	var l QuarantineList
	if err := json.NewDecoder(askDepot(t, d, "GET", "/api/v1/quarantine?limit=1", "").Body).Decode(&l); err != nil {
		t.Fatal(err)
	}
	if len(l.Items) != 1 || len(l.Items[0].Payload) != 1024 || l.Items[0].PayloadBytes != 5000 || l.Next != "7" {
		t.Errorf("list: %d items, next %q, %+v", len(l.Items), l.Next, l.Items)
	}
	d.items[0].Payload = []byte(big)
	var it QuarantineItem
	if err := json.NewDecoder(askDepot(t, d, "GET", "/api/v1/quarantine/7", "").Body).Decode(&it); err != nil || string(it.Payload) != big {
		t.Errorf("item: %d bytes of payload, %v", len(it.Payload), err)
	}
}

func TestBackup_CutShortEndsTheConnectionInsteadOfTheArchive(t *testing.T) {
	d := &depot{backup: "half of it", err: errors.New("the disk is gone")}
	s := httptest.NewServer(newServer(t, Config{Address: "127.0.0.1:0"}, d).http.Handler)
	defer s.Close()
	r, err := http.Get(s.URL + "/api/v1/backup")
	if err == nil {
		_, err = io.ReadAll(r.Body)
		r.Body.Close()
	}
	if err == nil {
		t.Error("the client saw a whole answer")
	}
	d = &depot{err: fmt.Errorf("%w: a backup is being taken already", ErrBusy)}
	if r := askDepot(t, d, "GET", "/api/v1/backup", ""); r.StatusCode != http.StatusTooManyRequests {
		t.Errorf("busy: %d", r.StatusCode)
	}
}

func TestStore_JSONNamesAreDocumentedAndListsAreNeverNull(t *testing.T) {
	doc, err := os.ReadFile("../../docs/http.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(typ reflect.Type, at string)
	walk = func(typ reflect.Type, at string) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			path, inner := at+name, f.Type
			if inner.Kind() == reflect.Slice && inner.Elem().Kind() == reflect.Struct {
				path, inner = path+"[]", inner.Elem()
			}
			if name != "-" && !strings.Contains(string(doc), "`"+path+"`") {
				t.Errorf("docs/http.md does not mention `%s` of %s", path, typ)
			}
			if inner.Kind() == reflect.Struct && inner != reflect.TypeFor[time.Time]() && inner != reflect.TypeFor[LedgerSource]() {
				walk(inner, path+".")
			}
		}
	}
	walk(reflect.TypeFor[QuarantineList](), "")
	walk(reflect.TypeFor[LedgerReport](), "")
	walk(reflect.TypeFor[QuarantineReplayed](), "")
	for _, path := range []string{"/api/v1/quarantine", "/api/v1/ledger", "/api/v1/outboxes", "/api/v1/outboxes/cloud"} {
		d := &depot{outbox: []Destination{{Name: "cloud"}}}
		if text := body(t, askDepot(t, d, "GET", path, "")); strings.Contains(text, `s":null`) {
			t.Errorf("GET %s = %s", path, text)
		}
	}
}
