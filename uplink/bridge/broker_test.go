package bridge

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/uplink/stream/streamtest"
)

// mosquitto is a real broker of the test's own; it keeps its port over restarts.
type mosquitto struct {
	t    testing.TB
	path string
	conf string
	port int
	cmd  *exec.Cmd
	log  bytes.Buffer
}

func newMosquitto(t testing.TB, listener string) *mosquitto {
	t.Helper()
	m := &mosquitto{t: t, path: streamtest.Program(t, "mosquitto"), port: streamtest.FreePort(t)}
	dir := t.TempDir()
	m.conf = filepath.Join(dir, "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nuser root\nmax_queued_messages 0\n%s\n", m.port, listener)
	if err := os.WriteFile(m.conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.kill)
	m.start()
	return m
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.path, "-c", m.conf)
	m.cmd.Stdout, m.cmd.Stderr = &m.log, &m.log
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	streamtest.Eventually(m.t, 10*time.Second, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", m.address())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
}

func (m *mosquitto) address() string { return fmt.Sprintf("127.0.0.1:%d", m.port) }

func (m *mosquitto) signal(sig syscall.Signal) {
	if err := m.cmd.Process.Signal(sig); err != nil {
		m.t.Fatal(err)
	}
}

func (m *mosquitto) kill() {
	if m.cmd != nil && m.cmd.ProcessState == nil {
		m.cmd.Process.Kill()
		m.cmd.Wait()
	}
}

// received is what a subscriber got.
type received struct {
	topic string
	*streamtest.Read
}

// inbox is a subscriber of everything below edge/.
type inbox struct {
	mu  sync.Mutex
	got []received
}

func (m *mosquitto) subscribe(change func(*mqtt.ClientOptions)) *inbox {
	m.t.Helper()
	in := &inbox{}
	o := mqtt.NewClientOptions().AddBroker("tcp://" + m.address()).SetClientID("inbox").SetAutoReconnect(false)
	if change != nil {
		change(o)
	}
	c := mqtt.NewClient(o)
	if t := c.Connect(); t.Wait() && t.Error() != nil {
		m.t.Fatal(t.Error())
	}
	m.t.Cleanup(func() { c.Disconnect(0) })
	t := c.Subscribe("edge/#", 1, func(_ mqtt.Client, msg mqtt.Message) {
		in.mu.Lock()
		defer in.mu.Unlock()
		in.got = append(in.got, received{msg.Topic(), streamtest.Parse(m.t, msg.Payload())})
	})
	if t.Wait() && t.Error() != nil {
		m.t.Fatal(t.Error())
	}
	return in
}

func (in *inbox) all() []received {
	in.mu.Lock()
	defer in.mu.Unlock()
	return append([]received(nil), in.got...)
}

// wait returns what came, at least n.
func (in *inbox) wait(t *testing.T, n int) []received {
	t.Helper()
	streamtest.Eventually(t, 10*time.Second, fmt.Sprintf("%d messages", n), func() bool { return len(in.all()) >= n })
	return in.all()
}

// wire stands between the sink and a broker, and sees every packet: which windows were published, and which PUBACKs went back to
// the sink.
type wire struct {
	ln net.Listener
	to string

	mu        sync.Mutex
	published map[int]int  // window > times
	acked     map[int]bool // windows whose PUBACK was passed on
	swallow   bool         // PUBACKs are not passed on
	cutAfter  int          // publishes until the connection is closed; 0: never
	conns     []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, to: to, published: map[int]int{}, acked: map[int]bool{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns sync.WaitGroup
		defer conns.Wait()
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { w.serve(t, c) })
		}
	}()
	t.Cleanup(func() { ln.Close(); w.cut(); <-done })
	return w
}

func (w *wire) url() string { return "mqtt://" + w.ln.Addr().String() }

func (w *wire) set(swallow bool, cutAfter int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.swallow, w.cutAfter = swallow, cutAfter
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		c.Close()
	}
	w.conns = nil
}

func (w *wire) seen() (published map[int]int, acked map[int]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	published, acked = map[int]int{}, map[int]bool{}
	for k, v := range w.published {
		published[k] = v
	}
	for k, v := range w.acked {
		acked[k] = v
	}
	return published, acked
}

func (w *wire) serve(t *testing.T, client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer server.Close()
	w.mu.Lock()
	w.conns = append(w.conns, client, server)
	w.mu.Unlock()
	var mids sync.Map // of this connection > window
	back := make(chan struct{})
	go func() {
		defer close(back)
		defer client.Close()
		for {
			p, err := packets.ReadPacket(server)
			if err != nil {
				return
			}
			if ack, ok := p.(*packets.PubackPacket); ok {
				window, _ := mids.Load(ack.MessageID)
				w.mu.Lock()
				swallow := w.swallow
				if !swallow {
					w.acked[window.(int)] = true
				}
				w.mu.Unlock()
				if swallow {
					continue
				}
			}
			if p.Write(client) != nil {
				return
			}
		}
	}()
	for {
		p, err := packets.ReadPacket(client)
		if err != nil {
			break
		}
		if pub, ok := p.(*packets.PublishPacket); ok {
			window := streamtest.Parse(t, pub.Payload).Window()
			mids.Store(pub.MessageID, window)
			w.mu.Lock()
			w.published[window]++
			over := false
			if w.cutAfter > 0 {
				w.cutAfter--
				over = w.cutAfter == 0
			}
			w.mu.Unlock()
			if over {
				p.Write(server)
				break
			}
		}
		if p.Write(server) != nil {
			break
		}
	}
	client.Close()
	server.Close()
	<-back
}

// passwords makes a password file with mosquitto's own program.
func passwords(t *testing.T, user, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "passwd")
	if out, err := exec.Command(streamtest.Program(t, "mosquitto_passwd"), "-c", "-b", path, user, password).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_passwd: %v %s", err, out)
	}
	return path
}

func withTLS(c *tls.Config) func(*mqtt.ClientOptions) {
	return func(o *mqtt.ClientOptions) {
		o.Servers[0].Scheme = "ssl"
		o.SetTLSConfig(c)
	}
}

func joined(lines ...string) string { return strings.Join(lines, "\n") }
