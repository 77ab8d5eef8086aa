package history

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A disk without room stops the history alone, which says so, and goes on by itself when there is room again: what came meanwhile is read
// from the journal.
func TestHistory_WithoutRoomItStandsStillAndGoesOnByItself(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	disk := t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=560m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	r := newRig(t)
	t.Cleanup(func() {
		r.stop()
		if err := syscall.Unmount(disk, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", disk, err)
		}
	})
	r.o.Dir = filepath.Join(disk, "history")
	r.start()
	r.awaitLive()
	r.publish(device("a"), t0, temperature(1))
	r.awaitApplied()

	filler, err := os.Create(filepath.Join(disk, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	if err := syscall.Fallocate(int(filler.Fd()), 0, 0, 64<<20); err != nil {
		t.Fatal(err)
	}
	for i := range int64(100) {
		r.publish(device("a"), t0+(1+i)*second, temperature(float64(i)))
	}
	r.await("without room", func(s Status) bool { return s.State == Opening && strings.Contains(s.LastError, "MiB free on disk") })
	if s := r.h.Status(); s.Applied >= r.Durable() {
		t.Errorf("it says that it holds all up to %d", s.Applied)
	}
	for i := range int64(100) {
		r.publish(device("a"), t0+(101+i)*second, temperature(float64(i)))
	}
	if err := filler.Truncate(0); err != nil {
		t.Fatal(err)
	}
	r.awaitLive()
	r.awaitApplied()
	r.expectJournal()
	if s := r.h.Status(); s.LastError != "" || s.Missed != 0 || s.SetAside != 0 {
		t.Errorf("with room again: %+v", s)
	}
}
