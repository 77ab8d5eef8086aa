package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/e2e/hook"
)

// A key is changed, and a receiver that said 410 is called again, by a reload: nobody has to restart a gateway for either.
func TestGateway_AReloadChangesTheKeyAndCallsWhoWasGone(t *testing.T) {
	needProgram(t, "mosquitto_pub")
	const newer = "whsec_bmV3ZXIta2V5LW5ld2VyLWtleS1uZXdlci1rZXk="
	var mu sync.Mutex // guards the next two
	gone, verified := true, ""
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		verified += "."
		for name, secret := range map[string]string{"older": hook.Secret, "newer": newer} {
			if hook.Verify(secret, r.Header, body, time.Now()) == nil {
				verified += name
			}
		}
		if gone {
			w.WriteHeader(http.StatusGone)
		}
	}))
	defer receiver.Close()
	g := newGateway(t, options{Hook: receiver.URL, Rules: hotRule})
	g.start()
	g.mosquittoPub("lab/a/seq", reading{Seq: 1, TS: time.Now().UnixMicro(), Temperature: 70}.payload())
	wait := func(want string) {
		t.Helper()
		eventually(t, 10*time.Second, "requests signed "+want, func() error {
			mu.Lock()
			defer mu.Unlock()
			if verified != want {
				return fmt.Errorf("%s", verified)
			}
			return nil
		})
	}
	wait(".older")
	g.write("ops.whsec", newer+"\n", 0o600)
	mu.Lock()
	gone = false
	mu.Unlock()
	if err := g.proc.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	wait(".older.newer")
	g.stop()
}
