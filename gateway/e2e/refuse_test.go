package e2e

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/store"
)

// Started again with a full outbox that refuses, the gateway cannot take the journal in: it takes no devices, says why on the console, ends when it
// is asked to, and goes on by itself once the store takes points.
func TestUplink_AStartWithAFullOutboxThatRefusesWaitsAndGoesOn(t *testing.T) {
	t.Parallel()
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Send: "readings", Extra: destination(s.URL(), "disk: { max_bytes: 1MiB, when_full: refuse }")})
	if err := s.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := newFleet(g, 8)
	f.add(8, sequencedSameSession)
	f.run(t)
	waits := func() error {
		code, body, err := g.get("/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !strings.Contains(body, "waits for cloud") || !strings.Contains(body, "outbox is full")) {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	}
	eventually(t, 30*time.Second, "the pipeline waits for room", func() error {
		f.publish(t, 500*time.Millisecond)
		return waits()
	})
	g.proc.Kill()
	g.launch()
	eventually(t, 20*time.Second, "the console says what the start waits for", waits)
	g.stop()
	g.launch()
	eventually(t, 20*time.Second, "the console says it again", waits)
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	if _, err := g.proc.WaitAccept(g.mqtt, 40*time.Second); err != nil {
		t.Fatal(err)
	}
	sent := f.finish(t, 10*time.Second)
	g.drained(60 * time.Second)
	eventually(t, 20*time.Second, "every reading is stored", func() error {
		if got, _ := storedReadings(s); got != float64(len(sent)) {
			return fmt.Errorf("%.0f stored, want %d", got, len(sent))
		}
		return nil
	})
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
}
