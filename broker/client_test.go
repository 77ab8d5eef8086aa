package broker

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

// start runs a broker on a loopback port until the test ends.
func start(t testing.TB, j Journal, change func(*Config)) *Broker {
	t.Helper()
	cfg := Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval}
	if change != nil {
		change(&cfg)
	}
	b, err := New(cfg, j)
	if err != nil {
		t.Fatal(err)
	}
	switch j := j.(type) {
	case *stubJournal:
		j.b = b
	case *fileJournal:
		j.b = b
	}
	b.apart = commitInterval == 0
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(15 * time.Second):
			t.Fatal("Run did not end")
		}
	})
	return b
}

// rawClient speaks bytes.
type rawClient struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func dial(t testing.TB, b *Broker) *rawClient {
	t.Helper()
	nc, err := net.Dial("tcp", b.Addrs()[0].String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
}

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func (c *rawClient) send(hexBytes string) {
	c.t.Helper()
	if _, err := c.Write(unhex(hexBytes)); err != nil {
		c.t.Fatalf("send %s: %v", hexBytes, err)
	}
}

// packet reads one whole packet.
func (c *rawClient) packet(within time.Duration) ([]byte, error) {
	_ = c.SetReadDeadline(time.Now().Add(within))
	var p []byte
	for {
		b, err := c.in.ReadByte()
		if err != nil {
			return p, err
		}
		p = append(p, b)
		header, size, err := frameSize(p)
		if err != nil {
			return p, err
		}
		if header > 0 {
			p = append(p, make([]byte, size-header)...)
			_, err := io.ReadFull(c.in, p[header:])
			return p, err
		}
	}
}

func (c *rawClient) expect(hexBytes string) {
	c.t.Helper()
	p, err := c.packet(5 * time.Second)
	if err != nil || !bytes.Equal(p, unhex(hexBytes)) {
		c.t.Fatalf("received % X (%v), want %s", p, err, hexBytes)
	}
}

// expectKind reads a packet of a type, the high nibble of its first byte.
func (c *rawClient) expectKind(kind byte) []byte {
	c.t.Helper()
	p, err := c.packet(5 * time.Second)
	if err != nil || p[0]>>4 != kind {
		c.t.Fatalf("received % X (%v), want a packet of type %d", p, err, kind)
	}
	return p
}

func (c *rawClient) expectNothing(within time.Duration) {
	c.t.Helper()
	p, err := c.packet(within)
	if !errors.Is(err, os.ErrDeadlineExceeded) || len(p) > 0 {
		c.t.Fatalf("received % X (%v), want nothing", p, err)
	}
}

// expectClosed wants the connection closed without another packet.
func (c *rawClient) expectClosed() {
	c.t.Helper()
	p, err := c.packet(5 * time.Second)
	if len(p) > 0 || err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("received % X (%v), want the connection closed", p, err)
	}
}

const (
	connectV3 = "10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 70"    // clean, keepalive 60, id "p"
	connectV5 = "10 0E 00 04 4D 51 54 54 05 02 00 3C 00 00 01 78" // id "x"
	connackV3 = "20 02 00 00"
)

func dialV3(t testing.TB, b *Broker, id string) *rawClient {
	t.Helper()
	c := dial(t, b)
	p := append(unhex("00 04 4D 51 54 54 04 02 00 3C 00"), byte(len(id)))
	p = append(p, id...)
	if _, err := c.Write(append([]byte{0x10, byte(len(p))}, p...)); err != nil {
		t.Fatal(err)
	}
	c.expect(connackV3)
	return c
}

func dialV5(t testing.TB, b *Broker, id string) *rawClient {
	t.Helper()
	c := dial(t, b)
	p := append(unhex("00 04 4D 51 54 54 05 02 00 3C 00 00"), byte(len(id)))
	p = append(p, id...)
	if _, err := c.Write(append([]byte{0x10, byte(len(p))}, p...)); err != nil {
		t.Fatal(err)
	}
	if p := c.expectKind(typeConnack); p[3] != 0 {
		t.Fatalf("CONNACK % X, want success", p)
	}
	return c
}

// publishFrame encodes a PUBLISH.
func publishFrame(v5 bool, qos byte, id uint16, topic string, payload []byte) []byte {
	body := append([]byte{byte(len(topic) >> 8), byte(len(topic))}, topic...)
	if qos > 0 {
		body = append(body, byte(id>>8), byte(id))
	}
	if v5 {
		body = append(body, 0)
	}
	body = append(body, payload...)
	f := []byte{0x30 | qos<<1}
	for n := len(body); ; {
		d := byte(n & 0x7f)
		if n >>= 7; n > 0 {
			f = append(f, d|0x80)
			continue
		}
		return append(append(f, d), body...)
	}
}

func (c *rawClient) write(frame []byte) {
	c.t.Helper()
	if _, err := c.Write(frame); err != nil {
		c.t.Fatal(err)
	}
}

// eventually polls until ok, for conditions no packet tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for by := time.Now().Add(5 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(by) {
			t.Fatalf("timed out waiting until %s", what)
		}
	}
}
