package broker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The generator runs in a process of its own, so that getrusage of this one is the broker's and the journal's CPU alone.
// It writes pre-encoded QoS 1 frames and reads acknowledgements; flat out it keeps a window open on each connection, paced
// it writes one message at a time.

// load is what the generator is asked to do, and after that what it saw.
type load struct {
	Address     string
	Connections int
	Window      int
	Messages    int     // in all
	Rate        float64 // a second in all; 0: flat out
	V5          bool
	Topic       string // formatted with the connection's number

	Seconds  float64
	P50, P99 float64 // ms from write to PUBACK, of paced loads
}

const generatorVariable = "BROKER_TEST_LOAD"

// TestGenerator is the generator's process, not a test.
func TestGenerator(t *testing.T) {
	request := os.Getenv(generatorVariable)
	if request == "" {
		t.Skip("runs as a child of the benchmarks")
	}
	var l load
	if err := json.Unmarshal([]byte(request), &l); err != nil {
		t.Fatal(err)
	}
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	out, _ := json.Marshal(l)
	fmt.Fprintf(os.Stderr, "LOAD%s\n", out)
}

var payload120 = []byte(`{"ts":1700000000123,"seq":123456,"temperature":21.53,"humidity":45.21,"vibration":0.0123,"line":"press-4","mode":"auto"}`)[:120]

func (l *load) run() error {
	start := make(chan struct{})
	errs := make(chan error, l.Connections)
	var ready sync.WaitGroup
	var latencies [][]time.Duration = make([][]time.Duration, l.Connections)
	ready.Add(l.Connections)
	each := l.Messages / l.Connections
	for i := range l.Connections {
		go func() {
			errs <- l.client(i, each, &ready, start, &latencies[i])
		}()
	}
	ready.Wait()
	began := time.Now()
	close(start)
	for range l.Connections {
		if err := <-errs; err != nil {
			return err
		}
	}
	l.Seconds = time.Since(began).Seconds()
	l.Messages = each * l.Connections
	l.P50, l.P99 = percentiles(latencies)
	return nil
}

func (l *load) client(i, each int, ready *sync.WaitGroup, start chan struct{}, latency *[]time.Duration) error {
	nc, err := net.Dial("tcp", l.Address)
	if err != nil {
		ready.Done()
		return err
	}
	defer nc.Close()
	id := fmt.Sprintf("dev%05d", i)
	head := unhex("00 04 4D 51 54 54 04 02 00 3C 00")
	if l.V5 {
		head = unhex("00 04 4D 51 54 54 05 02 00 3C 00 00")
	}
	head = append(append(head, byte(len(id))), id...)
	_, _ = nc.Write(append([]byte{0x10, byte(len(head))}, head...))
	ack := make([]byte, 4096)
	n, err := nc.Read(ack)
	ready.Done()
	if err != nil || n < 4 || ack[0] != 0x20 {
		return fmt.Errorf("CONNACK % X: %v", ack[:n], err)
	}
	<-start
	topic := fmt.Sprintf(l.Topic, i)
	frame := publishFrame(l.V5, 1, 1, topic, payload120)
	idAt := bytes.Index(frame, []byte(topic)) + len(topic)
	if l.Rate > 0 {
		return l.paced(nc, i, each, frame, idAt, latency)
	}
	var sent, acked int
	var partial int
	batch := make([]byte, 0, l.Window*len(frame))
	for acked < each {
		batch = batch[:0]
		for sent < each && sent-acked < l.Window {
			id := sent%65000 + 1
			frame[idAt], frame[idAt+1] = byte(id>>8), byte(id)
			batch = append(batch, frame...)
			sent++
		}
		if len(batch) > 0 {
			if _, err := nc.Write(batch); err != nil {
				return err
			}
		}
		n, err := nc.Read(ack)
		if err != nil {
			return fmt.Errorf("after %d acknowledgements: %w", acked, err)
		}
		partial += n
		acked += partial / 4
		partial %= 4
	}
	return nil
}

func (l *load) paced(nc net.Conn, i, each int, frame []byte, idAt int, latency *[]time.Duration) error {
	interval := time.Duration(float64(l.Connections) / l.Rate * 1e9)
	var sentAt [1 << 16]atomic.Int64
	failed := make(chan error, 1)
	began := time.Now()
	go func() {
		ack := make([]byte, 4096)
		var partial []byte
		for acked := 0; acked < each; {
			n, err := nc.Read(ack)
			if err != nil {
				failed <- fmt.Errorf("after %d acknowledgements: %w", acked, err)
				return
			}
			now := time.Since(began)
			for partial = append(partial, ack[:n]...); len(partial) >= 4; partial = partial[4:] {
				id := int(partial[2])<<8 | int(partial[3])
				*latency = append(*latency, now-time.Duration(sentAt[id].Load()))
				acked++
			}
		}
		failed <- nil
	}()
	next := time.Duration(float64(interval) * float64(i) / float64(l.Connections))
	for k := range each {
		time.Sleep(next - time.Since(began))
		next += interval
		id := k%65000 + 1
		frame[idAt], frame[idAt+1] = byte(id>>8), byte(id)
		sentAt[id].Store(int64(time.Since(began)))
		if _, err := nc.Write(frame); err != nil {
			return err
		}
	}
	return <-failed
}

func percentiles(of [][]time.Duration) (p50, p99 float64) {
	var buckets [100000]int // 10 us each
	total := 0
	for _, l := range of {
		for _, d := range l {
			buckets[min(max(int(d/(10*time.Microsecond)), 0), len(buckets)-1)]++
			total++
		}
	}
	seen := 0
	for i, n := range buckets {
		if seen*100 < total*50 && (seen+n)*100 >= total*50 {
			p50 = float64(i) / 100
		}
		if seen*100 < total*99 && (seen+n)*100 >= total*99 {
			p99 = float64(i) / 100
		}
		seen += n
	}
	return p50, p99
}

// generate runs l in a child process.
func (l load) generate(b *testing.B) load {
	request, _ := json.Marshal(l)
	cmd := exec.Command(os.Args[0], "-test.run=^TestGenerator$")
	cmd.Env = append(os.Environ(), generatorVariable+"="+string(request))
	var out bytes.Buffer
	cmd.Stderr, cmd.Stdout = &out, io.Discard
	if err := cmd.Run(); err != nil {
		b.Fatalf("generator: %v\n%s", err, out.String())
	}
	for line := range strings.Lines(out.String()) {
		if rest, ok := strings.CutPrefix(line, "LOAD"); ok {
			if err := json.Unmarshal([]byte(rest), &l); err != nil {
				b.Fatal(err)
			}
			return l
		}
	}
	b.Fatalf("generator said nothing: %s", out.String())
	return l
}

// ownCPU is user and system time of this process.
func ownCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func (l load) report(b *testing.B, cpu time.Duration) {
	b.ReportMetric(float64(l.Messages)/l.Seconds, "msg/s")
	b.ReportMetric(float64(cpu.Microseconds())/float64(l.Messages), "cpu-us/msg")
	if l.Rate > 0 {
		b.ReportMetric(l.P50, "p50-ms")
		b.ReportMetric(l.P99, "p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// loads are the cases of every benchmark; the topic is one that nobody subscribes to.
var loads = []struct {
	name string
	load
	interval time.Duration // commit interval
}{
	{"flat/1x100", load{Connections: 1, Window: 100, Messages: 600_000}, 0},
	{"flat/20x100", load{Connections: 20, Window: 100, Messages: 1_200_000}, 0},
	{"flat/20x100/v5", load{Connections: 20, Window: 100, Messages: 1_200_000, V5: true}, 0},
	{"paced5k/4", load{Connections: 4, Messages: 20_000, Rate: 5_000}, 5 * time.Millisecond},
	{"paced5k/100", load{Connections: 100, Messages: 20_000, Rate: 5_000}, 5 * time.Millisecond},
	{"paced20k/4", load{Connections: 4, Messages: 60_000, Rate: 20_000}, 5 * time.Millisecond},
	{"paced10k/1000", load{Connections: 1000, Messages: 40_000, Rate: 10_000}, 5 * time.Millisecond},
}

// BenchmarkBroker_Journalled acknowledges after a real fdatasync.
func BenchmarkBroker_Journalled(b *testing.B) {
	for _, c := range loads {
		b.Run(c.name, func(b *testing.B) {
			j := newFileJournal(b, c.interval)
			br := start(b, j, func(cfg *Config) { cfg.CommitInterval = c.interval })
			stop := make(chan struct{})
			go j.run(stop)
			defer func() { close(stop); <-j.done }()
			l := c.load
			l.Address, l.Topic = br.Addrs()[0].String(), "dev/%d/telemetry"
			for range b.N {
				before := ownCPU()
				l := l.generate(b)
				l.report(b, ownCPU()-before)
			}
		})
	}
}

// BenchmarkBroker_Log is the broker on the gateway's own log.
func BenchmarkBroker_Log(b *testing.B) {
	for _, c := range loads {
		b.Run(c.name, func(b *testing.B) {
			br, _ := startWithLog(b, c.interval)
			l := c.load
			l.Address, l.Topic = br.Addrs()[0].String(), "dev/%d/telemetry"
			for range b.N {
				before := ownCPU()
				l := l.generate(b)
				l.report(b, ownCPU()-before)
			}
		})
	}
}

// BenchmarkBroker_Alone leaves the journal's file out: what remains is the broker's own share.
func BenchmarkBroker_Alone(b *testing.B) {
	for _, c := range loads {
		if c.interval == 0 {
			continue
		}
		b.Run(c.name, func(b *testing.B) {
			j := &fileJournal{interval: c.interval, wake: make(chan struct{}, 1), done: make(chan struct{})}
			br := start(b, j, func(cfg *Config) { cfg.CommitInterval = c.interval })
			stop := make(chan struct{})
			go j.run(stop)
			defer func() { close(stop); <-j.done }()
			l := c.load
			l.Address, l.Topic = br.Addrs()[0].String(), "dev/%d/telemetry"
			for range b.N {
				before := ownCPU()
				l := l.generate(b)
				l.report(b, ownCPU()-before)
			}
		})
	}
}

// BenchmarkMosquitto is the same load on Debian's mosquitto, which keeps nothing on disk.
func BenchmarkMosquitto(b *testing.B) {
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		path = "/usr/sbin/mosquitto"
	}
	if _, err := os.Stat(path); err != nil {
		b.Skip("needs mosquitto: apt-get install mosquitto")
	}
	for _, c := range loads {
		b.Run(c.name, func(b *testing.B) {
			address, pid := startMosquitto(b, path)
			l := c.load
			l.Address, l.Topic = address, "dev/%d/telemetry"
			for range b.N {
				before := cpuOf(b, pid)
				l := l.generate(b)
				l.report(b, cpuOf(b, pid)-before)
			}
		})
	}
}

func startMosquitto(b testing.TB, path string) (address string, pid int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	address = l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	conf := filepath.Join(b.TempDir(), "mosquitto.conf")
	text := "listener " + port + " 127.0.0.1\nallow_anonymous true\npersistence false\nlog_type none\nmax_inflight_messages 0\nmax_queued_messages 0\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(path, "-c", conf)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(b, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address, cmd.Process.Pid
}

// cpuOf reads user and system time from /proc, in ticks of 10 ms.
func cpuOf(b testing.TB, pid int) time.Duration {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
