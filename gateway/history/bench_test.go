package history

import (
	"context"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

// fleet is devices whose temperature, humidity and vibration wander, with two, one and three decimals.
type fleet struct {
	r       *rand.Rand
	devices []*telemetry.Device
	at      [][3]float64
	buf     [3]telemetry.Reading
}

func newFleet(n int) *fleet {
	f := &fleet{r: rand.New(rand.NewPCG(1, 2))}
	for i := range n {
		f.devices = append(f.devices, device(fmt.Sprintf("device-%04d", i)))
		f.at = append(f.at, [3]float64{20, 45, 0.5})
	}
	return f
}

// read is the next reading of device i.
func (f *fleet) read(i int) (*telemetry.Device, []telemetry.Reading) {
	v := &f.at[i]
	for k, m := range [...]struct {
		name       string
		step, unit float64
	}{{"temperature", 0.05, 100}, {"humidity", 0.2, 10}, {"vibration", 0.02, 1000}} {
		v[k] += m.step * f.r.NormFloat64()
		f.buf[k] = telemetry.Reading{Metric: m.name, Value: math.Round(v[k]*m.unit) / m.unit}
	}
	return f.devices[i], f.buf[:]
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func written() (n int64) {
	b, _ := os.ReadFile("/proc/self/io")
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "wchar: %d", &n)
	}
	return n
}

// forgetPeak lets peakMemory count from now on.
func forgetPeak() { os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) } // where that is not allowed, the peak is that of the process

// peakMemory is the highest resident set since forgetPeak, in bytes.
func peakMemory() (n int64) {
	b, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(b)) {
		fmt.Sscanf(line, "VmHWM: %d kB", &n)
	}
	return n << 10
}

func folderBytes(dir string) (total int64, parts map[string]int64) {
	parts = map[string]int64{}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if st, err := d.Info(); err == nil {
				rel, _ := filepath.Rel(dir, path)
				top := strings.SplitN(rel, "/", 2)[0]
				if strings.HasPrefix(top, "0") {
					top = "blocks"
				}
				parts[top] += st.Size()
				total += st.Size()
			}
		}
		return nil
	})
	return total, parts
}

// benchHistory runs a History whose journal is empty, so that everything comes through the queue.
func benchHistory(b *testing.B) (h *History, stop func()) {
	dir := filepath.Join(b.TempDir(), "history")
	h = New(Options{Dir: dir, Keep: 15 * 24 * time.Hour, Journal: &fakeJournal{}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { h.Run(ctx); close(ended) }()
	for h.Status().State != Live {
		time.Sleep(time.Millisecond)
	}
	return h, func() { cancel(); <-ended }
}

// One operation is one message of three readings; every figure includes the write-ahead log, compaction and the way through the
// queue. interval is between a device's messages.
func BenchmarkHistory_Message(b *testing.B) {
	for _, c := range []struct {
		devices  int
		interval time.Duration
	}{{100, 20 * time.Millisecond}, {100, 10 * time.Second}, {1000, 10 * time.Second}} {
		b.Run(fmt.Sprintf("devices=%d/every=%v", c.devices, c.interval), func(b *testing.B) {
			h, stop := benchHistory(b)
			f := newFleet(c.devices)
			b.ReportAllocs()
			debug.FreeOSMemory()
			forgetPeak()
			began, wrote := cpu(), written()
			b.ResetTimer()
			at := 0
			for i := range b.N {
				k := i % c.devices
				d, readings := f.read(k)
				t := t0 + int64(i/c.devices)*int64(c.interval) + int64(k)*int64(time.Millisecond)
				if at++; at%(queueSamples/2) == 0 { // no faster than it stores
					for int(h.Status().Stored) < 3*(at-queueSamples/4) {
						time.Sleep(time.Millisecond)
					}
				}
				at := uint64(i + 1)
				h.Readings(seqLSN(at), d, t, readings)
			}
			h.Passed(seqLSN(uint64(b.N)))
			for int(h.Status().Stored) < 3*b.N-10 && h.Status().Overflows == 0 {
				time.Sleep(time.Millisecond)
			}
			b.StopTimer()
			n := float64(3 * b.N)
			b.ReportMetric((cpu()-began).Seconds()/n*1e6, "cpu-s/Mreading")
			b.ReportMetric(float64(written()-wrote)/n, "B-written/reading")
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapInuse)/1e6, "heap-MB")
			b.ReportMetric(float64(peakMemory())/1e6, "peak-rss-MB")
			if s := h.Status(); s.Overflows > 0 {
				b.Fatalf("overflow: %+v", s)
			}
			stop()
			_, parts := folderBytes(h.o.Dir)
			b.ReportMetric(float64(parts["blocks"])/n, "B-blocks/reading")
			b.ReportMetric(float64(parts["wal"])/n, "B-wal/reading")
		})
	}
}

func BenchmarkHistory_RangeQuery24h(b *testing.B) {
	h, stop := benchHistory(b)
	defer stop()
	f := newFleet(100)
	n := 0
	for i := range 8640 {
		for k := range f.devices {
			d, readings := f.read(k)
			n++
			if n%(queueSamples/2) == 0 {
				for int(h.Status().Stored) < 3*(n-queueSamples/4) {
					time.Sleep(time.Millisecond)
				}
			}
			h.Readings(seqLSN(uint64(n)), d, t0+int64(i)*10*second, readings)
		}
	}
	for int(h.Status().Stored) < 3*n-300 {
		time.Sleep(time.Millisecond)
	}
	web := h.Handler()
	for _, step := range []int{15, 60} {
		b.Run(fmt.Sprintf("step=%ds", step), func(b *testing.B) {
			u := APIPrefix + "query_range?" + url.Values{
				"query": {`telemetry_temperature{device="device-0007"}`}, "start": {fmt.Sprint(t0 / second)},
				"end": {fmt.Sprint(t0/second + 86400)}, "step": {fmt.Sprint(step)},
			}.Encode()
			for b.Loop() {
				w := httptest.NewRecorder()
				web.ServeHTTP(w, httptest.NewRequest(http.MethodGet, u, nil))
				if w.Code != http.StatusOK || w.Body.Len() < 10_000 {
					b.Fatal(w.Code, w.Body.String())
				}
			}
		})
	}
}
