package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/e2e/store"
)

// tmpfs mounts a RAM file system of a fixed size; it needs root, which a build machine gives and a desktop does not.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

func TestGateway_FullDiskStopsAcknowledgementsAndRecoversWithoutRestart(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	disk := tmpfs(t, "48m")
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL(), DataDir: filepath.Join(disk, "data")})
	f := newFleet(g, 3)
	f.add(2, sequencedSameSession)
	f.add(1, sequencedV5)
	g.start()
	f.run(t)
	f.publish(t, time.Second)
	if f.acked() == 0 {
		t.Fatal("nothing acknowledged on the empty disk")
	}

	filler := fill(t, filepath.Join(disk, "filler"))
	// The segment in use is pre-allocated, so acknowledgements end only when the next one finds no room.
	quiet := 0
	for deadline := time.Now().Add(60 * time.Second); quiet < 3; {
		before := f.acked()
		f.publish(t, 500*time.Millisecond)
		if quiet++; f.acked() != before {
			quiet = 0
		}
		if time.Now().After(deadline) {
			t.Fatalf("still acknowledging after a minute on a full disk: %d messages", f.acked())
		}
		refill(t, filler) // the gateway's own reserve, or what it frees, must not hide that the disk is full
	}
	if !g.proc.Alive() {
		t.Fatalf("the gateway ended:\n%s", tail(g.proc.Log.String(), 40))
	}
	eventually(t, 10*time.Second, "/readyz says that the disk is full", func() error {
		code, body, err := g.get("/readyz")
		if err == nil && (code != http.StatusServiceUnavailable || !saysFull(body)) {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
	if code, body, err := g.get("/healthz"); err != nil || code != http.StatusOK {
		t.Errorf("/healthz: %d %q %v, want 200: the process itself is well", code, body, err)
	}

	acked := f.acked()
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, 30*time.Second, "acknowledgements resume once there is room", func() error {
		if f.acked() == acked {
			return fmt.Errorf("still %d", acked)
		}
		return nil
	})
	readings := f.finish(t, 30*time.Second)
	wantStored(t, s, readings, time.Second, 60*time.Second)
	eventually(t, 10*time.Second, "/readyz is well again", func() error {
		code, body, err := g.get("/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d: %s", code, body)
		}
		return err
	})
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
}

func saysFull(body string) bool {
	body = strings.ToLower(body)
	return strings.Contains(body, "no space") || strings.Contains(body, "full")
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) string {
	t.Helper()
	if refill(t, path) == 0 {
		t.Fatal("the filler found no room at all")
	}
	return path
}

// refill appends to the filler until the disk is full again.
func refill(t *testing.T, path string) (written int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, 4096); ; {
		n, err := f.Write(chunk)
		written += n
		if err != nil {
			return written
		}
	}
}
