package wire

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"sluice/gateway/e2e/proc"
)

// The bytes were worked out by hand from the MQTT specifications.
func TestCodec_WritesTheBytesOfTheSpecification(t *testing.T) {
	for _, c := range []struct {
		what string
		got  []byte
		want string
	}{
		{"CONNECT 3.1.1", AppendConnect(nil, Connect{ClientID: "p", Clean: true, KeepAlive: 60}), "100d00044d5154540402003c000170"},
		{"CONNECT 5", AppendConnect(nil, Connect{ClientID: "x", Version: V5, Clean: true, KeepAlive: 60}), "100e00044d5154540502003c00000178"},
		{"CONNECT 5, session expiry 1 s, user and password", AppendConnect(nil, Connect{ClientID: "d", Version: V5, User: "u", Password: "p", SessionExpiry: 1, KeepAlive: 60}), "101900044d51545405c0003c051100000001000164000175000170"},
		{"PUBLISH 3.1.1", AppendPublish(nil, V311, Publish{Topic: "a", Payload: []byte("x"), ID: 1, QoS: 1}), "3206000161000178"},
		{"PUBLISH 5, DUP", AppendPublish(nil, V5, Publish{Topic: "a", Payload: []byte("x"), ID: 1, QoS: 1, DUP: true}), "3a0700016100010078"},
		{"PUBLISH QoS 0, retained", AppendPublish(nil, V311, Publish{Topic: "a", Payload: []byte("x"), ID: 9, Retain: true}), "310400016178"},
		{"PUBREL", AppendAck(nil, PUBREL, 7), "62020007"},
		{"SUBSCRIBE", AppendSubscribe(nil, V311, 1, "#", 1), "8206000100012301"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s = %s, want %s", c.what, got, c.want)
		}
	}
}

func TestCodec_ReadsBackPublishes(t *testing.T) {
	for _, version := range []byte{V311, V5} {
		for _, n := range []int{0, 1, 100, 127, 128, 20_000, 300_000} {
			want := Publish{Topic: "a/b", Payload: bytes.Repeat([]byte{7}, n), ID: 513, QoS: 1}
			p, err := ReadPacket(bufio.NewReader(bytes.NewReader(AppendPublish(nil, version, want))), version)
			if err != nil || p.Topic != want.Topic || p.ID != want.ID || !bytes.Equal(p.Payload, want.Payload) {
				t.Errorf("version %d, %d bytes: got topic %q id %d, %d bytes, %v", version, n, p.Topic, p.ID, len(p.Payload), err)
			}
		}
	}
}

func FuzzReadPacket(f *testing.F) {
	f.Add([]byte{0x20, 2, 0, 0}, byte(V311))
	f.Add(AppendPublish(nil, V5, Publish{Topic: "a", Payload: []byte("x"), ID: 1, QoS: 1}), byte(V5))
	f.Add([]byte{0x32, 0x05, 0x00, 0xff, 0x61, 0x00, 0x01}, byte(V5))
	f.Add([]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, byte(V311))
	f.Fuzz(func(t *testing.T, b []byte, version byte) {
		r := bufio.NewReader(bytes.NewReader(b))
		for {
			p, err := ReadPacket(r, version)
			if err != nil {
				return
			}
			if len(p.Body) > len(b) {
				t.Fatalf("body of %d bytes from %d bytes of input", len(p.Body), len(b))
			}
		}
	})
}

// broker accepts one connection at a time and hands each PUBLISH or PUBREL it read to serve, which answers on the
// connection; serve returning false cuts it.
func broker(t *testing.T, version byte, serve func(connection int, c *Conn, p Packet) bool) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := 1; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c := &Conn{Net: nc, R: bufio.NewReader(nc), Version: version}
			if p, err := ReadPacket(c.R, version); err != nil || p.Type != CONNECT {
				t.Errorf("connection %d starts with packet type %d, %v", n, p.Type, err)
			}
			connack := []byte{CONNACK << 4, 2, 0, 0}
			if version == V5 {
				connack = []byte{CONNACK << 4, 3, 0, 0, 0}
			}
			nc.Write(connack)
			for {
				p, err := ReadPacket(c.R, version)
				if err != nil || !serve(n, c, p) {
					break
				}
			}
			nc.Close()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func runDevice(t *testing.T, d *Device, messages int) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for i := range messages {
		d.Offer(&Message{Topic: "t", Payload: []byte{byte(i)}})
	}
	go func() {
		for d.Acked() < messages && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	err := d.Run(ctx)
	if err == nil && d.Acked() != messages {
		t.Fatalf("%d of %d messages acknowledged", d.Acked(), messages)
	}
	return err
}

func TestDevice_ResendsUnacknowledgedInOrder(t *testing.T) {
	type seen struct {
		id      uint16
		payload byte
		dup     bool
	}
	for _, mode := range []Resend{SameSession, FreshSession} {
		var got [3][]seen
		address := broker(t, V311, func(n int, c *Conn, p Packet) bool {
			got[n] = append(got[n], seen{p.ID, p.Payload[0], p.Flags&8 != 0})
			if n == 1 && len(got[1]) == 4 { // of ids 1 to 4 acknowledge the first two, then cut
				c.Net.Write(AppendAck(AppendAck(nil, PUBACK, 1), PUBACK, 2))
				c.Net.(*net.TCPConn).CloseWrite() // a full close could overtake the acknowledgements
			}
			if n == 2 {
				c.Net.Write(AppendAck(nil, PUBACK, p.ID))
			}
			return true
		})
		d := &Device{Address: address, QoS: 1, Window: 4, Resend: mode, Connect: Connect{ClientID: "d"}}
		if err := runDevice(t, d, 6); err != nil {
			t.Fatal(err)
		}
		payloads, resent := "", 0
		for i, s := range got[2] {
			payloads += fmt.Sprint(s.payload)
			if s.dup {
				resent++
				if mode == SameSession && s.id != uint16(s.payload)+1 {
					t.Errorf("mode %d: payload %d resent with id %d, want the id of the first time", mode, s.payload, s.id)
				}
			}
			if mode == FreshSession && s.id != uint16(i+1) {
				t.Errorf("fresh session: message %d has id %d, want a new count", i+1, s.id)
			}
		}
		if payloads != "2345" {
			t.Errorf("mode %d: second connection carries %s, want 2345", mode, payloads)
		}
		if want := map[Resend]int{SameSession: d.Resent(), FreshSession: 0}[mode]; resent != want {
			t.Errorf("mode %d: %d messages with DUP, want %d", mode, resent, want)
		}
	}
}

func TestDevice_QoS2CompletesAfterACutBetweenPubrecAndPubrel(t *testing.T) {
	var trace string
	address := broker(t, V311, func(n int, c *Conn, p Packet) bool {
		trace += fmt.Sprintf("%d:%d ", n, p.Type)
		switch p.Type {
		case PUBLISH:
			c.Net.Write(AppendAck(nil, PUBREC, p.ID))
		case PUBREL:
			if n == 1 {
				return false
			}
			c.Net.Write(AppendAck(nil, PUBCOMP, p.ID))
		}
		return true
	})
	d := &Device{Address: address, QoS: 2, Window: 1, Connect: Connect{ClientID: "d"}}
	if err := runDevice(t, d, 1); err != nil {
		t.Fatal(err)
	}
	if want := "1:3 1:6 2:6 "; trace != want || d.Acked() != 1 {
		t.Errorf("connection:packet = %q with %d complete, want %q with 1", trace, d.Acked(), want)
	}
}

func TestDevice_ReportsAnswersTheProtocolForbids(t *testing.T) {
	for name, answer := range map[string][]byte{
		"PUBACK for an id not in flight": AppendAck(nil, PUBACK, 99),
		"PUBREC at QoS 1":                AppendAck(nil, PUBREC, 1),
		"PUBACK that refuses":            {PUBACK << 4, 3, 0, 1, 0x97},
	} {
		address := broker(t, V5, func(_ int, c *Conn, p Packet) bool {
			c.Net.Write(answer)
			return true
		})
		err := runDevice(t, &Device{Address: address, QoS: 1, Connect: Connect{ClientID: "d", Version: V5}}, 1)
		var violation *ViolationError
		if !errors.As(err, &violation) {
			t.Errorf("%s: Run = %v, want a ViolationError", name, err)
		}
	}
}

func TestDevice_SpeaksWithMosquitto(t *testing.T) {
	if _, err := exec.LookPath("mosquitto"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("mosquitto is not installed, and CI must have it")
		}
		t.Skip("mosquitto is not installed")
	}
	port, err := proc.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	m, err := proc.Start("mosquitto", nil, "mosquitto", "-p", fmt.Sprint(port))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Kill()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	if _, err := m.WaitAccept(address, 5*time.Second); err != nil {
		t.Fatal(err)
	}
	for _, version := range []byte{V311, V5} {
		for _, qos := range []byte{1, 2} {
			name := fmt.Sprintf("v%d-qos%d", version, qos)
			sub, err := Dial(context.Background(), address, Connect{ClientID: "sub-" + name, Version: version, Clean: true, KeepAlive: 60})
			if err != nil {
				t.Fatal(err)
			}
			defer sub.Close()
			sub.Net.Write(AppendSubscribe(nil, version, 1, "t", 0))
			if p, err := sub.Read(5 * time.Second); err != nil || p.Type != SUBACK || p.Reason >= 0x80 {
				t.Fatalf("%s: SUBACK = %+v, %v", name, p, err)
			}
			const n = 200
			d := &Device{Address: address, QoS: qos, Window: 10, Connect: Connect{ClientID: name, Version: version, KeepAlive: 60}}
			if err := runDevice(t, d, n); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			for i := range n {
				if p, err := sub.Read(5 * time.Second); err != nil || p.Type != PUBLISH || p.Payload[0] != byte(i) {
					t.Fatalf("%s: delivery %d = %+v, %v", name, i, p, err)
				}
			}
		}
	}
}
