package console

import (
	"bytes"
	"context"
	"math"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// browse opens the page in a real browser and returns the document as it stands after three seconds, and what the browser's
// console said.
func browse(t *testing.T, g Gateway) (document, console string) {
	t.Helper()
	browser := chromium(t)
	s := newServer(t, Config{Address: "127.0.0.1:0"}, g)
	start(t, s)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", "http://"+s.Addr().String()+"/plain")
	cmd.WaitDelay = 5 * time.Second // its children may hold the pipes
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, log.String())
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			console += line
		}
	}
	return out.String(), console
}

func TestBrowser_ShowsHostileNamesAsText(t *testing.T) {
	hostile := `<img src=x onerror="document.title='owned'"><script>document.title='owned'</script>&lt;b`
	bad := Destination{Name: hostile, Type: hostile, State: hostile, Pending: 7, LastError: hostile}
	document, console := browse(t, &plant{
		status: Status{
			Gateway: hostile, Version: hostile,
			Alerts: []Alert{
				{Name: hostile, State: "firing", Value: 1, Labels: map[string]string{hostile: hostile}, Summary: hostile},
				{Name: "Divided", State: hostile, Value: math.Inf(1)},
			},
			Destinations: []Destination{bad}, Webhooks: []Destination{bad},
			Journal: Journal{Error: hostile},
			Ledger:  Ledger{Imbalance: 1, Sources: []LedgerSource{{Source: hostile, Imbalance: 1}}},
		},
		ready: Readiness{Parts: []Part{{Name: hostile, Detail: hostile}}},
	})
	if console != "" {
		t.Errorf("the browser complained: %s", console)
	}
	if strings.Contains(document, `<img src="x"`) || strings.Contains(document, "<title>owned") {
		t.Errorf("a name became markup:\n%s", document)
	}
	// Once each: gateway, version, alert name, summary, 2 in the label, 2 x (name, type, state, error), journal, source, 2 in the
	// part, 2 x (name, error) and the journal's error again among what is wrong; title; the state of the second alert.
	if n := strings.Count(document, "&lt;img src=x onerror="); n < 20 {
		t.Errorf("hostile names stand in the page %d times, want at least 20:\n%s", n, document)
	}
	for _, want := range []string{"not ready", "not finite", "1 readings are not accounted for", "(7 waiting)"} {
		if !strings.Contains(document, want) {
			t.Errorf("the page does not say %q:\n%s", want, document)
		}
	}
}

func TestBrowser_SaysWhenThereIsNoAnswer(t *testing.T) {
	document, _ := browse(t, &plant{status: Status{Uptime: math.NaN()}})
	if !strings.Contains(document, "No news: the gateway answered 500. This page keeps trying.") || !strings.Contains(document, "no connection") {
		t.Errorf("the page does not say that it has no answer:\n%s", document)
	}
}
