package broker

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// needs returns a program's path; where it is missing the test is skipped, but fails in CI.
func needs(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed: apt-get install mosquitto-clients", name)
	}
	t.Skipf("%s is not installed: apt-get install mosquitto-clients", name)
	return ""
}

func TestMosquittoClients_PublishAndSubscribe(t *testing.T) {
	pub, sub := needs(t, "mosquitto_pub"), needs(t, "mosquitto_sub")
	for _, version := range []string{"mqttv31", "mqttv311", "mqttv5"} {
		for qos := range 3 {
			t.Run(fmt.Sprintf("%s qos %d", version, qos), func(t *testing.T) {
				j := &stubJournal{auto: true}
				b := start(t, j, nil)
				_, port, _ := net.SplitHostPort(b.Addrs()[0].String())
				common := []string{"-h", "127.0.0.1", "-p", port, "-V", version, "-q", fmt.Sprint(qos), "-t", "dev/1"}
				const n = 100
				s := exec.Command(sub, append(common, "-C", fmt.Sprint(n), "-W", "10")...)
				out, err := s.StdoutPipe()
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Start(); err != nil {
					t.Fatal(err)
				}
				eventually(t, "subscribed", func() bool { return b.Stats().Subscriptions == 1 })
				var lines []string
				for i := range n {
					lines = append(lines, fmt.Sprintf(`{"n":%d}`, i))
				}
				p := exec.Command(pub, append(common, "-l")...)
				p.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
				if text, err := p.CombinedOutput(); err != nil {
					t.Fatalf("mosquitto_pub: %v %s", err, text)
				}
				i := 0
				for scan := bufio.NewScanner(out); scan.Scan(); i++ {
					if scan.Text() != lines[i] {
						t.Fatalf("delivery %d: %s, want %s", i, scan.Text(), lines[i])
					}
				}
				if err := s.Wait(); err != nil || i != n {
					t.Fatalf("mosquitto_sub got %d of %d: %v", i, n, err)
				}
				if got := len(j.received()); got != n {
					t.Errorf("journalled %d, want %d", got, n)
				}
			})
		}
	}
}

// A v5 mosquitto_sub sends a receive maximum; stock mochi stops serving it after twice that.
func TestMosquittoSub_GetsEverythingWithAReceiveMaximum(t *testing.T) {
	sub := needs(t, "mosquitto_sub")
	b := start(t, &stubJournal{auto: true}, nil)
	_, port, _ := net.SplitHostPort(b.Addrs()[0].String())
	const n = 2000
	s := exec.Command(sub, "-h", "127.0.0.1", "-p", port, "-V", "mqttv5", "-q", "1", "-t", "#", "-C", fmt.Sprint(n), "-W", "20", "-N")
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "subscribed", func() bool { return b.Stats().Subscriptions == 1 })
	p := dialV3(t, b, "p")
	for i := range n {
		p.write(publishFrame(false, 1, uint16(i+1), "dev/1", []byte("x")))
		if _, err := p.packet(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if i%100 == 99 { // beyond 1,000 the library drops
			eventually(t, "the subscriber caught up", func() bool { return atomic.LoadInt64(&b.server.Info.Inflight) < 500 })
		}
	}
	if err := s.Wait(); err != nil {
		t.Errorf("mosquitto_sub: %v; %d sent, %d not queued", err, b.Stats().Delivered, b.Stats().DeliveriesDropped)
	}
}
