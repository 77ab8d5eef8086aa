package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/gateway/e2e/proc"
	"sluice/gateway/e2e/store"
)

// ext4 is a small file system in an image file, with which the power can be cut.
type ext4 struct {
	t          *testing.T
	image, dir string
}

func newExt4(t *testing.T) *ext4 {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting an image needs root")
	}
	needProgram(t, "mkfs.ext4")
	e := &ext4{t: t, image: filepath.Join(t.TempDir(), "disk.img"), dir: t.TempDir()}
	if err := os.WriteFile(e.image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(e.image, 192<<20); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command("mkfs.ext4", "-q", e.image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v\n%s", err, b)
	}
	if b, err := exec.Command("mount", "-o", "loop", e.image, e.dir).CombinedOutput(); err != nil {
		t.Skipf("no loop mounts here: %v %s", err, b)
	}
	t.Cleanup(func() { exec.Command("umount", e.dir).Run() })
	return e
}

// The ioctl that ends a file system at once; ext4 took it over from xfs. With noLogFlush what was not synced is gone.
const (
	ioctlShutdown = 0x8004587d // _IOR('X', 125, uint32)
	noLogFlush    = 2
)

// cut drops everything that was not synced and mounts what is left. Nothing may write meanwhile.
func (e *ext4) cut(whileDead func()) {
	e.t.Helper()
	d, err := os.Open(e.dir)
	if err != nil {
		e.t.Fatal(err)
	}
	err = unix.IoctlSetPointerInt(int(d.Fd()), ioctlShutdown, noLogFlush)
	d.Close()
	if err != nil {
		e.t.Skipf("this kernel's ext4 cannot be shut down: %v", err)
	}
	whileDead()
	eventually(e.t, 5*time.Second, "umount", func() error { return syscall.Unmount(e.dir, 0) })
	if b, err := exec.Command("mount", "-o", "loop", e.image, e.dir).CombinedOutput(); err != nil {
		e.t.Fatalf("mount after the cut: %v\n%s", err, b)
	}
}

// freeze stops every thread of the process and waits until none is inside a system call any more: an fdatasync under way
// when the power is cut may return success for what was lost, and the acknowledgement it leads to would accuse the wrong one.
func freeze(t *testing.T, p *proc.Proc) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "every thread is stopped", func() error {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
		for _, name := range tasks {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if state := b[strings.LastIndexByte(string(b), ')')+2]; state != 'T' {
				return fmt.Errorf("%s is in state %c", name, state)
			}
		}
		return err
	})
}

func TestGateway_PowerCutKeepsEveryAcknowledgedReading(t *testing.T) {
	cuts := envInt(t, "SLUICE_POWER_CUTS", 25)
	if testing.Short() {
		cuts = min(cuts, 3)
	}
	disk := newExt4(t)
	seed := uint64(envInt(t, "SLUICE_CRASH_SEED", int(time.Now().UnixNano()%1e9)+1))
	t.Logf("%d cuts, SLUICE_CRASH_SEED=%d", cuts, seed)
	rng := rand.New(rand.NewPCG(seed, 2))
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL(), DataDir: filepath.Join(disk.dir, "data"),
		Journal: "{ commit_interval: 2ms, segment_bytes: 1MiB, keep_bytes: 16MiB, max_bytes: 64MiB }"})
	f := newFleet(g, seed)
	f.add(2, sequencedSameSession)
	f.add(1, sequencedFresh)
	f.add(1, plainSameSession)
	f.run(t)
	for range cuts {
		g.start()
		if err := s.Set([]store.Mode{store.Up, store.Up, store.Down, store.Broken}[rng.IntN(4)]); err != nil {
			t.Fatal(err)
		}
		f.publish(t, time.Duration(2+rng.IntN(400))*time.Millisecond)
		freeze(t, g.proc)
		disk.cut(g.proc.Kill)
	}
	if err := s.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	g.start()
	readings := f.finish(t, 30*time.Second)
	wantStored(t, s, readings, time.Second, 90*time.Second)
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
	t.Logf("%d cuts, %d messages, %d readings", cuts, f.acked(), len(readings))
}

// Every seventh sync fails, as a dying card's would: what was in it is written elsewhere and synced before anything is
// acknowledged, and the gateway goes on.
func TestGateway_FailedSyncsLoseNothingAcknowledged(t *testing.T) {
	needProgram(t, "strace")
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL()})
	// -D: the gateway is our child and strace its grandchild, so that signals reach the gateway.
	g.proc, err = proc.Start("sluice", nil, "strace", "-D", "-f", "-qq", "-o", filepath.Join(g.dir, "strace"), "-e", "trace=fdatasync",
		"-e", "inject=fdatasync:error=EIO:when=40+7", binary, "run", "--config", g.configFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.proc.WaitAccept(g.mqtt, 20*time.Second); err != nil {
		t.Fatal(err)
	}
	f := newFleet(g, 4)
	f.add(2, sequencedSameSession)
	f.add(1, sequencedFresh)
	f.run(t)
	f.publish(t, 3*time.Second)
	if f.acked() == 0 {
		t.Fatal("nothing acknowledged")
	}
	g.proc.Kill()
	trace, err := os.ReadFile(filepath.Join(g.dir, "strace"))
	if n := strings.Count(string(trace), "INJECTED"); err != nil || n < 3 {
		t.Fatalf("%d syncs failed on purpose, %v; want several:\n%s", n, err, tail(string(trace), 5))
	}
	g.start() // the disk is well again
	readings := f.finish(t, 20*time.Second)
	wantStored(t, s, readings, time.Second, 60*time.Second)
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.stop()
	t.Logf("%d syncs failed, %d messages", strings.Count(string(trace), "INJECTED"), f.acked())
}
