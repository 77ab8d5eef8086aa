package broker

import (
	"context"
	"net"
	"testing"
	"time"
)

// FuzzSession sends bytes after CONNECT, of either version. Whatever they are, another client is served afterwards.
func FuzzSession(f *testing.F) {
	for _, seed := range []string{
		"82 06 00 01 00 00 01 61",    // SUBSCRIBE cut after the filter
		"82 06 00 01 00 01 23 01",    // SUBSCRIBE
		"82 07 00 01 00 00 01 23 01", // SUBSCRIBE, v5
		"A2 05 00 02 00 01 23",       // UNSUBSCRIBE
		"32 06 00 01 61 00 01 78 32 07 00 01 61 00 01 00 78",
		"34 06 00 01 61 00 07 78 62 02 00 07 62 02 00 07",
		"3D 06 00 01 61 00 07 78 50 02 00 07 70 02 00 07 40 02 00 07",
		"31 04 00 01 61 78 30 02 00 00 C0 00 C0 01 00 E0 00",
		"30 09 00 01 61 03 23 00 01 78 79 30 06 00 00 03 23 00 01",
		"10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 70",
		"F0 02 00 00 E0 07 04 05 11 00 00 00 01",
		"82 18 00 01 00 00 10 24 73 68 61 72 65 2F 67 2F 2B 2F 23 2F 61 2F 62 00 01",
		"30 FF FF FF 7F 00", "30 FF FF FF FF 01", "00 00", "90 00 20 00 D0 00",
	} {
		f.Add(false, unhex(seed))
		f.Add(true, unhex(seed))
	}
	for _, seed := range packetSeeds {
		f.Add(false, unhex(seed))
		f.Add(true, unhex(seed))
	}
	j := &stubJournal{auto: true}
	b, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval, Limits: Limits{PacketBytes: 4096}}, j)
	if err != nil {
		f.Fatal(err)
	}
	j.b = b
	if err := b.Listen(); err != nil {
		f.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	f.Cleanup(func() { cancel(); <-done })
	f.Fuzz(func(t *testing.T, v5 bool, session []byte) {
		var c *rawClient
		if v5 {
			c = dialV5(t, b, "fuzz")
		} else {
			c = dialV3(t, b, "fuzz")
		}
		_, _ = c.Write(session)
		_ = c.Conn.(*net.TCPConn).CloseWrite()
		for {
			if _, err := c.packet(5 * time.Second); err != nil {
				break
			}
		}
		c.Close()
		other := dialV3(t, b, "other")
		other.send("32 06 00 01 61 00 01 78")
		other.expect("40 02 00 01")
		other.Close()
		if n := b.Stats().Panics; n != 0 {
			t.Fatalf("%d panics", n)
		}
	})
}

// FuzzFrame looks at one frame the way the connection does before mochi.
func FuzzFrame(f *testing.F) {
	f.Add(unhex("32 06 00 01 61 00 01 78"), false)
	f.Add(unhex("32 07 00 01 61 00 01 00 78"), true)
	f.Add(unhex("82 06 00 01 00 00 01 61"), true)
	f.Add(unhex("30 FF FF FF FF"), true)
	f.Add(unhex("30 80"), false)
	f.Fuzz(func(t *testing.T, b []byte, v5 bool) {
		header, size, err := frameSize(b)
		if header == 0 {
			if err == nil && len(b) >= 5 {
				t.Fatalf("frameSize(% X) wants more than 5 bytes", b)
			}
			return
		}
		if err != nil || header < 2 || header > 5 || size < header || size > maxPacketBytes+5 {
			t.Fatalf("frameSize(% X) = %d, %d, %v", b, header, size, err)
		}
		if size > len(b) {
			return
		}
		frame := b[:size]
		validate(frame, header, v5)
		readConnect(frame, header)
		if p, ok := parsePlainPublish(frame, header, v5); ok {
			again := publishFrame(v5, p.qos, p.packetID, string(p.topic), p.payload)
			if string(again[len(again)-(size-header):]) != string(frame[header:]) {
				t.Fatalf("% X parsed to %+v, which is % X", frame, p, again)
			}
		}
	})
}
