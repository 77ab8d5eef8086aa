package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"sluice/uplink"
	"sluice/uplink/webhook"
)

// A receiver that was away for an hour: what began and ended meanwhile comes in one notification, what fires comes by itself, and
// whatever was answered is not sent again.
func TestWebhook_ABacklogArrivesAsADigestAndWhatStillFires(t *testing.T) {
	var mu sync.Mutex
	var got, ids []string
	away := true
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		if away {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		var n struct {
			Alerts []struct{ Status, Fingerprint string }
		}
		if err := json.Unmarshal(body, &n); err != nil {
			t.Error(err)
		}
		line := ""
		for _, a := range n.Alerts {
			line += a.Fingerprint + "=" + a.Status + " "
		}
		got, ids = append(got, line), append(ids, r.Header.Get("webhook-id"))
	}))
	defer srv.Close()
	outbox, err := uplink.OpenOutbox(t.TempDir(), uplink.OutboxOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer outbox.Close()
	quarantine, err := uplink.OpenQuarantine(t.TempDir(), uplink.QuarantineOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer quarantine.Close()
	sink, err := webhook.New(webhook.Config{URL: srv.URL, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, DigestAfter: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	lsn := uint64(0)
	put := func(age time.Duration, fingerprint, status string) {
		t.Helper()
		lsn++
		at := time.Now().Add(-age)
		a := webhook.Alert{Status: status, Labels: map[string]string{"alertname": "Hot"}, StartsAt: at, Fingerprint: fingerprint}
		if status == "resolved" {
			a.EndsAt = at
		}
		body, err := (&webhook.Notification{ID: fmt.Sprintf("msg_%d", lsn), Receiver: "ops", Alerts: []webhook.Alert{a}}).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := outbox.Put(uplink.Cause{LSN: lsn, Time: at.UnixNano()}, uplink.TypeNotification, body); err != nil {
			t.Fatal(err)
		}
		if err := outbox.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	put(time.Hour, "aa", "firing")
	f, err := uplink.NewForwarder(outbox, sink, uplink.ForwarderOptions{
		Name: "ops", Quarantine: quarantine, BatchRecords: webhookBatch, ParkAfter: -1, Whole: true, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	await := func(what string, done func(uplink.Status) bool) {
		t.Helper()
		for end := time.Now().Add(10 * time.Second); !done(f.Status()); time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%s: %+v", what, f.Status())
			}
		}
	}
	await("no attempt failed", func(s uplink.Status) bool { return s.Attempts["retry"] > 0 })
	put(50*time.Minute, "bb", "firing") // the batch that failed takes these in
	put(40*time.Minute, "aa", "resolved")
	put(30*time.Minute, "bb", "resolved")
	put(20*time.Minute, "aa", "firing")
	put(10*time.Minute, "cc", "firing")
	failed := f.Status().Attempts["retry"]
	await("the batch is not tried again", func(s uplink.Status) bool { return s.Attempts["retry"] > failed+1 })
	mu.Lock()
	away = false
	mu.Unlock()
	await("not everything is delivered", func(s uplink.Status) bool { return s.Delivered == 6 && s.Pending == 0 })
	put(0, "aa", "resolved")
	await("the last is not delivered", func(s uplink.Status) bool { return s.Delivered == 7 })
	cancel()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	want := []string{"cc=firing ", "aa=resolved bb=resolved ", "aa=firing ", "aa=resolved "}
	if !slices.Equal(got, want) || ids[0] != "msg_6" || ids[2] != "msg_5" || ids[3] != "msg_7" {
		t.Errorf("got %q with ids %v, want %q", got, ids, want)
	}
}
