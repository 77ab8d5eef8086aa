package seglog

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

func cpu() time.Duration {
	var r syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkLog_AppendDurable lets each writer append 150 bytes and wait until they are durable. Set TMPDIR to the disk to measure.
func BenchmarkLog_AppendDurable(b *testing.B) {
	for _, writers := range []int{1, 8, 256, 4096} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			var mu sync.Mutex
			cond := sync.NewCond(&mu)
			var durable LSN
			l, _ := mustOpen(b, b.TempDir(), Options{OnCommit: func(c CommitInfo) {
				mu.Lock()
				durable = c.Durable
				mu.Unlock()
				cond.Broadcast()
			}})
			ctx, cancel := context.WithCancel(b.Context())
			var run, wg sync.WaitGroup
			run.Go(func() { l.Run(ctx) })
			stop := make(chan struct{})
			run.Go(func() { // as a gateway does that keeps 64 MiB
				for {
					select {
					case <-stop:
						return
					case <-time.After(50 * time.Millisecond):
						if d := l.Durable(); d > 300_000 {
							l.TrimBefore(d - 300_000)
						}
					}
				}
			})
			body := make([]byte, 150)
			b.ReportAllocs()
			b.SetBytes(150)
			b.ResetTimer()
			used, device := cpu(), l.DeviceBytes()
			for w := range writers {
				n := b.N / writers
				if w < b.N%writers {
					n++
				}
				wg.Go(func() {
					for range n {
						lsn, err := l.Append(1, 0, body)
						if err != nil {
							b.Error(err)
							return
						}
						mu.Lock()
						for durable < lsn {
							cond.Wait()
						}
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
			b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N)/1e3, "us-cpu/rec")
			b.ReportMetric(float64(l.DeviceBytes()-device)/float64(b.N)/150, "dev-B/payload-B")
			close(stop)
			cancel()
			run.Wait()
		})
	}
}

// BenchmarkLog_Append is the caller's cost alone: writers that keep many records in flight.
func BenchmarkLog_Append(b *testing.B) {
	l, _ := mustOpen(b, b.TempDir(), Options{CommitInterval: time.Millisecond})
	ctx, cancel := context.WithCancel(b.Context())
	var run sync.WaitGroup
	run.Go(func() { l.Run(ctx) })
	for range 1000 { // until Run runs
		l.Append(1, 0)
	}
	for l.Durable() < 1000 {
		time.Sleep(time.Millisecond)
	}
	body := make([]byte, 150)
	b.ReportAllocs()
	b.ResetTimer()
	used, device := cpu(), l.DeviceBytes()
	for i := range b.N {
		if _, err := l.Append(1, 0, body); err != nil {
			b.Fatal(err)
		}
		if i%500_000 == 499_999 {
			l.TrimBefore(l.Durable() - min(l.Durable(), 200_000))
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	b.ReportMetric(float64((cpu()-used).Nanoseconds())/float64(b.N)/1e3, "us-cpu/rec")
	b.ReportMetric(float64(l.DeviceBytes()-device)/float64(b.N)/150, "dev-B/payload-B")
	cancel()
	run.Wait()
}

func benchLog(b *testing.B, records int) (string, int64) {
	dir := b.TempDir()
	l, _ := mustOpen(b, dir, Options{NoPrealloc: true})
	body := make([]byte, 150)
	for i := range records {
		if _, err := l.Append(1, int64(i), body); err != nil {
			b.Fatal(err)
		}
		if i%10000 == 9999 {
			if err := l.Commit(); err != nil {
				b.Fatal(err)
			}
		}
	}
	l.Close()
	return dir, l.Bytes()
}

func BenchmarkCursor_Read(b *testing.B) {
	dir, _ := benchLog(b, 1_000_000)
	l, _ := mustOpen(b, dir, Options{})
	c := l.Cursor(0)
	b.ReportAllocs()
	b.SetBytes(150)
	b.ResetTimer()
	for range b.N {
		_, ok, err := c.TryNext()
		if err != nil {
			b.Fatal(err)
		}
		if !ok {
			c.Close()
			c = l.Cursor(0)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	c.Close()
}

func BenchmarkOpen(b *testing.B) {
	dir, bytes := benchLog(b, 2_000_000)
	for _, verify := range []bool{false, true} {
		b.Run(fmt.Sprintf("verify=%v", verify), func(b *testing.B) {
			b.ReportAllocs()
			for range b.N {
				l, _, err := Open(dir, Options{NoPrealloc: true, Verify: verify})
				if err != nil {
					b.Fatal(err)
				}
				l.Close()
			}
			b.ReportMetric(b.Elapsed().Seconds()/float64(b.N)/float64(bytes)*float64(1<<30), "s/GiB")
		})
	}
	os.RemoveAll(dir)
}
