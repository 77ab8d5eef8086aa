package history

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
)

// plannedJournal is records that follow from their number, so that every process reads the same ones: a day and more of five devices,
// every fiftieth reading half an hour late, so that blocks, merges and out-of-order files are written all the time.
type plannedJournal struct{}

const (
	plannedRecords = 240_000
	plannedDevices = 5
	killRounds     = 10
)

func (plannedJournal) Durable() seglog.LSN { return plannedRecords }

func (plannedJournal) Reread(after seglog.LSN) (Reader, error) {
	r := &plannedReader{next: after + 1}
	for i := range r.devices {
		r.devices[i] = device(fmt.Sprint("d", i))
	}
	return r, nil
}

type plannedReader struct {
	next    seglog.LSN
	devices [plannedDevices]*telemetry.Device
}

// planned is the reading of a record.
func planned(at seglog.LSN) (device int, t int64, v float64) {
	device, t = int(at%plannedDevices), t0+int64(at/plannedDevices)*2*second
	if at/plannedDevices%50 == 49 {
		t -= 30*minute - second // where nothing else is
	}
	return device, t, float64(at % 1000)
}

func (r *plannedReader) Next(put Put) (seglog.LSN, bool, error) {
	if r.next > plannedRecords {
		return 0, false, nil
	}
	d, t, v := planned(r.next)
	put(r.next, r.devices[d], t, []telemetry.Reading{temperature(v)})
	r.next++
	return r.next - 1, true, nil
}

func (*plannedReader) Missing() uint64 { return 0 }
func (*plannedReader) Close()          {}

// TestKilledProcess is the process that the test below kills.
func TestKilledProcess(t *testing.T) {
	dir := os.Getenv("SLUICE_TEST_HISTORY")
	if dir == "" {
		t.Skip("run by TestHistory_KilledWhileItCompactsHoldsEveryReadingOnce")
	}
	h := New(Options{Dir: dir, Keep: 15 * 24 * time.Hour, Journal: plannedJournal{}})
	h.Run(context.Background())
}

// However often it is killed while it writes, compacts and truncates, the history ends with every reading, once, and nothing damaged.
func TestHistory_KilledWhileItCompactsHoldsEveryReadingOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 6))
	r := newRig(t)
	r.o.Journal = plannedJournal{}
	compacted := 0
	for range killRounds {
		c := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
		c.Env = append(os.Environ(), "SLUICE_TEST_HISTORY="+r.o.Dir)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(20+rng.IntN(130)) * time.Millisecond) // the moment of the kill, not a wait for something
		c.Process.Kill()
		c.Wait()
		blocks, _ := filepath.Glob(filepath.Join(r.o.Dir, "0*"))
		compacted = max(compacted, len(blocks))
	}
	r.start()
	r.await("caught up", func(s Status) bool { return s.Applied == plannedRecords && s.State == Live })
	type series struct {
		n   int
		sum float64
	}
	var want [plannedDevices]series
	for at := range seglog.LSN(plannedRecords) {
		d, _, v := planned(at + 1)
		want[d].n++
		want[d].sum += v
	}
	end := fmt.Sprint(t0/second + plannedRecords/plannedDevices*2)
	web := r.h.Handler()
	for d, w := range want {
		for f, want := range map[string]string{"count_over_time": fmt.Sprint(w.n), "sum_over_time": fmt.Sprintf("%.0f", w.sum)} {
			q := fmt.Sprintf(`%s(telemetry_temperature{device="d%d"}[30d])`, f, d)
			code, answer := call(t, web, http.MethodGet, "query", url.Values{"query": {q}, "time": {end}})
			if got := fmt.Sprint(answer["data"]); code != http.StatusOK || !containsValue(answer, want) {
				t.Errorf("seed %d: %s = %d %s, want %s", seed, q, code, got, want)
			}
		}
	}
	if s := r.h.Status(); s.SetAside != 0 || s.Missed != 0 || s.Blocks == 0 {
		t.Errorf("seed %d: %+v", seed, s)
	}
	t.Logf("seed %d: at most %d blocks seen after a kill", seed, compacted)
}

// containsValue tells whether a vector has one element of this value.
func containsValue(answer map[string]any, want string) bool {
	data, _ := answer["data"].(map[string]any)
	result, _ := data["result"].([]any)
	if len(result) != 1 {
		return false
	}
	element, _ := result[0].(map[string]any)
	value, _ := element["value"].([]any)
	return len(value) == 2 && value[1] == want
}
