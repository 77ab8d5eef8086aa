package webhook

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"sluice/uplink"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func example() *Notification {
	at := time.Date(2026, 11, 22, 17, 0, 0, 123456789, time.UTC)
	return &Notification{
		ID: "msg_0011", Receiver: "ops", GroupLabels: map[string]string{"alertname": "FreezerWarm", "site": `a "b"`}, ExternalURL: "http://plant-7:8080",
		Alerts: []Alert{
			{Status: "firing", Labels: map[string]string{"alertname": "FreezerWarm", "site": "a", "device": "freezer-1", "severity": "critical"},
				Annotations: map[string]string{"summary": "freezer-1 at -10 degC <now>"}, StartsAt: at, Value: -10, Fingerprint: "00c0ffee00c0ffee"},
			{Status: "resolved", Labels: map[string]string{"alertname": "FreezerWarm", "site": "a", "device": "freezer-2"},
				Annotations: map[string]string{"summary": "freezer-2 is cold"}, StartsAt: at.Add(-time.Hour), EndsAt: at, Value: math.Inf(1), Fingerprint: "0123456789abcdef",
				GeneratorURL: "http://plant-7:8080/alerts/x"},
		},
	}
}

func record(t testing.TB, n *Notification) uplink.Record {
	t.Helper()
	b, err := n.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return uplink.Record{LSN: 1, Type: uplink.TypeNotification, Body: b}
}

func TestNotification_BodyIsAlertmanagersVersion4ToTheByte(t *testing.T) {
	want, err := os.ReadFile("testdata/alertmanager.json")
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, want); err != nil {
		t.Fatal(err)
	}
	if got := Describe(record(t, example())); got != compact.String() {
		t.Errorf("body\n%s\nwant\n%s", got, compact.String())
	}
}

// The stored form is frozen: this record was written by the first version.
func TestNotification_ARecordOfTheFirstVersionIsStillDelivered(t *testing.T) {
	stored, err := os.ReadFile("testdata/stored-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	stored = bytes.TrimSpace(stored)
	if got := record(t, example()); string(got.Body) != string(stored) {
		t.Errorf("Marshal writes\n%s\nwant\n%s", got.Body, stored)
	}
	if got, want := Describe(uplink.Record{Type: uplink.TypeNotification, Body: stored}), Describe(record(t, example())); got != want {
		t.Errorf("body\n%s\nwant\n%s", got, want)
	}
}

func TestNotification_EmptyPartsAreEmptyObjectsNotNull(t *testing.T) {
	got := Describe(record(t, &Notification{ID: "x", Receiver: "r", Alerts: []Alert{{Status: "firing"}}}))
	want := `{"receiver":"r","status":"firing","alerts":[{"status":"firing","labels":{},"annotations":{},"startsAt":"0001-01-01T00:00:00Z",` +
		`"endsAt":"0001-01-01T00:00:00Z","generatorURL":"","fingerprint":""}],"groupLabels":{},"commonLabels":{},"commonAnnotations":{},"externalURL":"",` +
		`"version":"4","groupKey":"{}:{}","truncatedAlerts":0}`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if _, err := (&Notification{}).Marshal(); err == nil {
		t.Error("Marshal without an id succeeded")
	}
}

func FuzzParse(f *testing.F) {
	b, err := example().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"v":1,"id":"a","alerts":[{}]}`))
	f.Add([]byte(`{"v":2,"id":"a"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := Parse(b)
		if err != nil || n.Status == "" || n.GroupKey == "" {
			return
		}
		first, err := alertmanager(n)
		if err != nil {
			t.Fatal(err)
		}
		again, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if n, err = Parse(again); err != nil {
			t.Fatal(err)
		}
		if second, err := alertmanager(n); err != nil || !bytes.Equal(first, second) {
			t.Errorf("written and read back\n%s, %v\nfirst\n%s", second, err, first)
		}
	})
}

// receiver is a real HTTP server that answers from a function.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	bodies [][]byte
	heads  []http.Header
}

func newReceiver(t *testing.T, answer func(call int, w http.ResponseWriter, r *http.Request)) *receiver {
	rc := &receiver{}
	rc.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		rc.mu.Lock()
		call := len(rc.bodies)
		rc.bodies, rc.heads = append(rc.bodies, body), append(rc.heads, r.Header)
		rc.mu.Unlock()
		answer(call, w, r)
	}))
	t.Cleanup(rc.Close)
	return rc
}

func newSink(t *testing.T, c Config) *Sink {
	t.Helper()
	if c.Allow == nil {
		c.Allow = loopback
	}
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSink_SignaturesSatisfyTheOfficialLibrary(t *testing.T) {
	key := bytes.Repeat([]byte{7, 1}, 16)
	current := "whsec_" + base64.StdEncoding.EncodeToString(key)
	rc := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	for _, secrets := range [][]string{{current}, {"raw-secret-of-mine"}, {"raw-secret-of-mine " + current}, {current, "whsec_" + base64.StdEncoding.EncodeToString([]byte("older key"))}} {
		s := newSink(t, Config{URL: rc.URL, Secrets: secrets})
		if err := s.Deliver(t.Context(), []uplink.Record{record(t, example())}); err != nil {
			t.Fatal(err)
		}
		body, head := rc.bodies[len(rc.bodies)-1], rc.heads[len(rc.heads)-1]
		verified := 0
		for _, secret := range strings.Fields(strings.Join(secrets, " ")) {
			wh, err := standardwebhooks.NewWebhookRaw([]byte(secret))
			if strings.HasPrefix(secret, "whsec_") {
				wh, err = standardwebhooks.NewWebhook(secret)
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := wh.Verify(body, head); err != nil {
				t.Errorf("secrets %q: %v", secrets, err)
			}
			verified++
			if err := wh.Verify(append(body, ' '), head); err == nil {
				t.Error("a changed body verifies too")
			}
		}
		if head.Get("webhook-id") != "msg_0011" || head.Get("Content-Type") != "application/json" || verified == 0 {
			t.Errorf("headers %v", head)
		}
	}
	s := newSink(t, Config{URL: rc.URL})
	if err := s.Deliver(t.Context(), []uplink.Record{record(t, example())}); err != nil {
		t.Fatal(err)
	}
	if head := rc.heads[len(rc.heads)-1]; head.Get("webhook-signature") != "" || head.Get("webhook-id") == "" || head.Get("webhook-timestamp") == "" {
		t.Errorf("headers without a secret %v", head)
	}
}

func TestNew_BadSecretsAreRefusedAndNotShown(t *testing.T) {
	for _, c := range []Config{
		{URL: "https://h", Secrets: []string{"whsec_not*base64"}},
		{URL: "https://h", Secrets: []string{"whsec_"}},
		{URL: "ops.example/hook-secret"},
		{URL: "ftp://h/hook-secret"},
	} {
		if _, err := New(c); err == nil || strings.Contains(err.Error(), "base64!") || strings.Contains(err.Error(), "not*") || strings.Contains(err.Error(), "hook-secret") {
			t.Errorf("New(%+v) = %v", c, err)
		}
	}
}

func TestSink_AnswersThatSomeonePutsRightKeepTheAlert(t *testing.T) {
	for _, tt := range []struct {
		status int
		header string
		want   uplink.Kind
		after  time.Duration
		ok     bool
	}{
		{200, "", 0, 0, true}, {201, "", 0, 0, true}, {202, "", 0, 0, true}, {204, "", 0, 0, true},
		{301, "", uplink.KindConfig, 0, false}, {302, "", uplink.KindConfig, 0, false}, {307, "", uplink.KindConfig, 0, false},
		{400, "", uplink.KindRejected, 0, false}, {401, "", uplink.KindConfig, 0, false}, {403, "", uplink.KindConfig, 0, false}, {404, "", uplink.KindConfig, 0, false},
		{405, "", uplink.KindConfig, 0, false}, {413, "", uplink.KindRejected, 0, false}, {422, "", uplink.KindRejected, 0, false},
		{408, "", uplink.KindRetry, 0, false}, {425, "", uplink.KindRetry, 0, false}, {429, "7", uplink.KindRetry, 7 * time.Second, false},
		{500, "", uplink.KindRetry, 0, false}, {502, "", uplink.KindRetry, 0, false}, {503, "120", uplink.KindRetry, 2 * time.Minute, false}, {504, "", uplink.KindRetry, 0, false},
		{410, "", uplink.KindGone, 0, false},
	} {
		rc := newReceiver(t, func(_ int, w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/hook" {
				t.Errorf("%d: a redirect was followed", tt.status)
			}
			w.Header().Set("Retry-After", tt.header)
			w.Header().Set("Location", "/elsewhere?secret=1")
			w.WriteHeader(tt.status)
			if tt.status != 204 {
				io.WriteString(w, "the receiver's words")
			}
		})
		s := newSink(t, Config{URL: rc.URL + "/hook"})
		err := s.Deliver(t.Context(), []uplink.Record{record(t, example())})
		if tt.ok {
			if err != nil {
				t.Errorf("%d: %v", tt.status, err)
			}
			continue
		}
		var e *uplink.Error
		if !errors.As(err, &e) || e.Kind != tt.want || e.Status != tt.status || e.RetryAfter != tt.after || strings.Contains(err.Error(), "secret=1") {
			t.Errorf("%d: %v (%+v), want %v", tt.status, err, e, tt.want)
		}
	}
}

func TestSink_EveryAttemptSendsTheSameBytesAndIDInOrder(t *testing.T) {
	rc := newReceiver(t, func(call int, w http.ResponseWriter, _ *http.Request) {
		switch call {
		case 0, 1:
			w.WriteHeader(503)
		case 2: // the connection breaks after the receiver took it
			panic(http.ErrAbortHandler)
		}
	})
	out, err := uplink.OpenOutbox(t.TempDir(), uplink.OutboxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	q, err := uplink.OpenQuarantine(t.TempDir(), uplink.QuarantineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	for i, id := range []string{"msg_1", "msg_2", "msg_3"} {
		n := example()
		n.ID = id
		if err := out.Put(uplink.Cause{LSN: uint64(i + 1), Time: time.Now().UnixNano()}, uplink.TypeNotification, record(t, n).Body); err != nil {
			t.Fatal(err)
		}
	}
	out.Flush()
	s := newSink(t, Config{URL: rc.URL, Secrets: []string{"x"}})
	f, err := uplink.NewForwarder(out, s, uplink.ForwarderOptions{Name: "ops", Quarantine: q, BatchRecords: 1, MinBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); f.Status().Pending > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", f.Status())
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i, h := range rc.heads {
		ids = append(ids, h.Get("webhook-id"))
		if !bytes.Equal(rc.bodies[i], rc.bodies[0]) {
			t.Errorf("attempt %d sent other bytes", i)
		}
	}
	if got := strings.Join(ids, " "); got != "msg_1 msg_1 msg_1 msg_1 msg_2 msg_3" {
		t.Errorf("ids %s", got)
	}
}

func TestSink_GivesUpInTime(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	rc := newReceiver(t, func(_ int, w http.ResponseWriter, _ *http.Request) { <-stop })
	s := newSink(t, Config{URL: rc.URL, Timeout: 50 * time.Millisecond})
	err := s.Deliver(t.Context(), []uplink.Record{record(t, example())})
	var e *uplink.Error
	if !errors.As(err, &e) || e.Kind != uplink.KindRetry || !strings.Contains(e.Detail, "no answer in time") {
		t.Errorf("Deliver = %v", err)
	}
	rc.CloseClientConnections()
}

func TestSink_ForeignRecordsAreNamed(t *testing.T) {
	s := newSink(t, Config{URL: "http://127.0.0.1:1"})
	for _, r := range []uplink.Record{{Type: uplink.TypePoint, Body: []byte("x")}, {Type: uplink.TypeNotification, Body: []byte("x")},
		{Type: uplink.TypeNotification, Body: []byte(`{"v":99,"id":"a"}`)}} {
		err := s.Deliver(t.Context(), []uplink.Record{r})
		var e *uplink.Error
		if !errors.As(err, &e) || e.Kind != uplink.KindRejected || len(e.Refused) != 1 || e.Refused[0].Reason != "damaged" {
			t.Errorf("Deliver(%q) = %v", r.Body, err)
		}
	}
}
