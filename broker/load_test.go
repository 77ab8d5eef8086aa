package broker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const serverVariable = "BROKER_TEST_SERVER"

// TestServer is a broker in a process of its own, for benchmarks that look at its memory, not a test.
func TestServer(t *testing.T) {
	if os.Getenv(serverVariable) == "" {
		t.Skip("runs as a child of the benchmarks")
	}
	j := &stubJournal{auto: true}
	b, err := New(Config{
		Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: 5 * time.Millisecond,
		Limits: Limits{Connections: 20_000, ConnectionsPerAddress: -1, Takeovers: -1},
	}, j)
	if err != nil {
		t.Fatal(err)
	}
	j.b = b
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); cancel() }()
	fmt.Fprintf(os.Stderr, "LISTENING %s\n", b.Addrs()[0])
	if err := b.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func startServer(b *testing.B) (address string, pid int) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestServer$")
	cmd.Env = append(os.Environ(), serverVariable+"=1")
	stderr, _ := cmd.StderrPipe()
	stdin, _ := cmd.StdinPipe()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	scan := bufio.NewScanner(stderr)
	for address == "" && scan.Scan() {
		address, _ = strings.CutPrefix(scan.Text(), "LISTENING ")
	}
	go func() {
		for scan.Scan() {
		}
	}()
	b.Cleanup(func() { _ = stdin.Close(); _ = cmd.Wait() })
	return address, cmd.Process.Pid
}

// rss is a process's resident memory in MB.
func rss(b *testing.B, pid int) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Skip("needs /proc")
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kB, _ := strconv.Atoi(strings.Fields(rest)[0])
	return float64(kB) / 1024
}

// connectMany opens n sessions, each with one subscription and one message published.
func connectMany(b *testing.B, address string, n int) (close func()) {
	conns := make([]net.Conn, n)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			nc, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			conns[i] = nc
			id := fmt.Sprintf("dev%05d", i)
			p := append(unhex("10 14 00 04 4D 51 54 54 04 02 0E 10 00 08"), id...)
			_, _ = nc.Write(p)
			topic := "cmd/" + id
			p = append([]byte{0x82, byte(5 + len(topic)), 0, 1, 0, byte(len(topic))}, topic...)
			_, _ = nc.Write(append(append(p, 1), publishFrame(false, 1, 1, "dev/"+id, payload120)...))
			buf := make([]byte, 64)
			for got := 0; got < 4+5+4; { // CONNACK, SUBACK, PUBACK
				k, err := nc.Read(buf)
				if err != nil {
					b.Errorf("connection %d after %d bytes: %v", i, got, err)
					return
				}
				got += k
			}
		})
	}
	wg.Wait()
	return func() {
		for _, nc := range conns {
			if nc != nil {
				_ = nc.Close()
			}
		}
	}
}

// settledRSS waits until memory is given back, which nothing tells of.
func settledRSS(b *testing.B, pid int) float64 {
	time.Sleep(8 * time.Second)
	return rss(b, pid)
}

// BenchmarkIdleConnections holds 10,000 sessions that have published once and listen, beside mosquitto; then they reconnect.
func BenchmarkIdleConnections(b *testing.B) {
	const n, rounds = 10_000, 4
	for _, who := range []string{"sluice", "mosquitto"} {
		b.Run(who, func(b *testing.B) {
			var address string
			var pid int
			if who == "sluice" {
				address, pid = startServer(b)
			} else {
				path := "/usr/sbin/mosquitto"
				if _, err := os.Stat(path); err != nil {
					b.Skip("needs mosquitto: apt-get install mosquitto")
				}
				address, pid = startMosquitto(b, path)
			}
			for range b.N {
				var all []string
				for round := range rounds {
					closeAll := connectMany(b, address, n)
					mb := settledRSS(b, pid)
					all = append(all, fmt.Sprintf("%.0f", mb))
					b.ReportMetric(mb, fmt.Sprintf("MB-round%d", round+1))
					before := cpuOf(b, pid)
					began := time.Now()
					time.Sleep(3 * time.Second) // what idleness costs
					if round == 0 {
						b.ReportMetric(100*float64(cpuOf(b, pid)-before)/float64(time.Since(began)), "%cpu-idle")
					}
					closeAll()
				}
				b.ReportMetric(0, "ns/op")
				b.Logf("RSS in MB by round: %s", strings.Join(all, ", "))
			}
		})
	}
}
