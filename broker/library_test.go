package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// These tests hold faults of mochi-mqtt 2.7.9 that the connection, the listener and the hook keep from clients.

func TestSubscribe_CutAfterTheFilterEndsThatConnectionOnly(t *testing.T) {
	for name, packet := range map[string]string{
		"no options":       "82 06 00 01 00 00 01 61",
		"second filter":    "82 0A 00 01 00 00 01 61 00 00 01 62",
		"cut length":       "82 05 00 01 00 00 01",
		"property length":  "82 06 00 01 7F 00 01 61",
		"nothing but id":   "82 02 00 01",
		"one byte":         "82 01 00",
		"endless property": "82 06 00 01 FF FF FF FF",
	} {
		t.Run(name, func(t *testing.T) {
			b := start(t, &stubJournal{auto: true}, nil)
			c := dial(t, b)
			c.send(connectV5)
			c.expectKind(typeConnack)
			c.send(packet)
			c.expect("E0 02 81 00")
			c.expectClosed()
			d := dialV3(t, b, "p")
			d.send("32 06 00 01 61 00 01 78")
			d.expect("40 02 00 01")
			d.Close()
			eventually(t, "all gone", func() bool {
				return b.Stats().Connections == 0 && b.server.Clients.Len() == 0 && b.server.Info.ClientsConnected == 0
			})
			if s := b.Stats(); s.Malformed != 1 || s.Panics != 0 {
				t.Errorf("Stats() = %+v, want one malformed and no panic", s)
			}
		})
	}
}

func TestPanic_EndsThatConnectionOnlyAndLeavesNothingBehind(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, panicky{j}, nil)
	j.b = b
	l := dialV3(t, b, "l")
	l.send("82 09 00 01 00 04 77 69 6C 6C 00") // will
	l.expectKind(9)
	c := dialV3(t, b, "c")
	c.send("82 06 00 01 00 01 62 00")
	c.expectKind(9)
	c.write(publishFrame(false, 1, 1, "dev/panic", nil)) // dealt with in the connection
	c.expectClosed()
	c = dialV5(t, b, "c")
	f := publishFrame(true, 1, 1, "dev/panic", nil)
	f[0] |= 1 // retained: dealt with in the hook
	c.write(f)
	c.expectClosed()
	eventually(t, "tidied", func() bool {
		s := b.Stats()
		return s.Connections == 1 && s.Subscriptions == 1 && b.server.Clients.Len() == 1
	})
	if n := b.Stats().Panics; n != 2 {
		t.Errorf("Panics = %d, want 2", n)
	}
}

type panicky struct{ *stubJournal }

func (p panicky) Covers(topic string) bool {
	if topic == "dev/panic" {
		panic("as told")
	}
	return p.stubJournal.Covers(topic)
}

func TestStalledSubscriber_DelaysNobody(t *testing.T) {
	for qos := byte(0); qos <= 1; qos++ {
		t.Run(fmt.Sprintf("qos=%d", qos), func(t *testing.T) {
			b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.QueueBytes = 256 << 10 })
			stalled := dial(t, b)
			_ = stalled.Conn.(*net.TCPConn).SetReadBuffer(4 << 10)
			stalled.send("10 0D 00 04 4D 51 54 54 04 02 00 00 00 01 73") // keepalive 0, id "s"
			stalled.expect(connackV3)
			stalled.send(fmt.Sprintf("82 06 00 01 00 01 23 %02X", qos))
			stalled.expectKind(9)
			p := dialV3(t, b, "p")
			payload := make([]byte, 16<<10)
			// 20 MB: more than every buffer on the way.
			for i := 1; i <= 1200; i++ {
				p.write(publishFrame(false, 1, uint16(i), "dev/1", payload))
				if ack, err := p.packet(3 * time.Second); err != nil || ack[0] != 0x40 {
					t.Fatalf("message %d: % X, %v", i, ack, err)
				}
				if i == 700 {
					took := time.Now()
					again := dialV3(t, b, "s") // takes the stalled one over
					again.send(fmt.Sprintf("82 06 00 01 00 01 23 %02X", qos))
					again.expectKind(9)
					if d := time.Since(took); d > 3*time.Second {
						t.Errorf("takeover of a stalled client took %v", d)
					}
				}
			}
			eventually(t, "the slow one was closed", func() bool { return b.Stats().SlowClosed >= 1 })
		})
	}
}

func TestFanOut_BurstReachesTheSubscriber(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	s, p := dialV3(t, b, "s"), dialV3(t, b, "p")
	s.send("82 0A 00 01 00 05 64 65 76 2F 31 00")
	s.expectKind(9)
	const n = 4000
	var frames []byte
	for range n {
		frames = append(frames, publishFrame(false, 0, 0, "dev/1", []byte("x"))...)
	}
	go func() { _, _ = p.Write(frames) }()
	for i := range n {
		if m, err := s.packet(5 * time.Second); err != nil || m[0] != 0x30 {
			t.Fatalf("delivery %d: % X, %v; %d not queued", i, m, err, b.Stats().DeliveriesDropped)
		}
	}
}

func TestReceiveMaximum_DoesNotEndDelivery(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	s := dial(t, b)
	s.send("10 11 00 04 4D 51 54 54 05 02 00 3C 03 21 00 0A 00 01 73") // receive maximum 10
	s.expectKind(typeConnack)
	s.send("82 07 00 01 00 00 01 23 01")
	s.expectKind(9)
	p := dialV3(t, b, "p")
	const n = 200
	go func() {
		for i := uint16(1); i <= n; i++ {
			_, _ = p.Write(publishFrame(false, 1, i, "dev/1", []byte("x")))
			_, _ = p.packet(5 * time.Second)
		}
	}()
	var open [][]byte
	for range 10 {
		open = append(open, s.expectKind(typePublish))
	}
	s.expectNothing(50 * time.Millisecond) // the window is full
	for i := range n {
		m := open[0]
		open = open[1:]
		if !bytes.Contains(m, []byte("dev/1")) {
			t.Fatalf("delivery %d: % X", i, m)
		}
		id := m[2+2+5:][:2]
		s.write([]byte{0x40, 2, id[0], id[1]})
		if i < n-10 {
			open = append(open, s.expectKind(typePublish))
		}
	}
	s.expectNothing(20 * time.Millisecond)
}

func TestReceiveMaximum_NoDeadlockOfPublishers(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	s := dial(t, b)
	s.send("10 11 00 04 4D 51 54 54 05 02 00 3C 03 21 00 32 00 01 73") // receive maximum 50
	s.expectKind(typeConnack)
	s.send("82 07 00 01 00 00 01 23 01")
	s.expectKind(9)
	go func() {
		for {
			m, err := s.packet(10 * time.Second)
			if err != nil {
				return
			}
			if m[0]>>4 == typePublish {
				id := m[2+2+5:][:2]
				_, _ = s.Write([]byte{0x40, 2, id[0], id[1]})
			}
		}
	}()
	var wg sync.WaitGroup
	for k := range 4 {
		p := dialV3(t, b, fmt.Sprintf("p%d", k))
		wg.Go(func() {
			for round := range 50 {
				for i := range uint16(20) {
					_, _ = p.Write(publishFrame(false, 1, i+1, "dev/1", []byte("x")))
				}
				for range 20 {
					if _, err := p.packet(2 * time.Second); err != nil {
						t.Errorf("round %d: acknowledgements stand still: %v", round, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

// failingListener fails its second Accept.
type failingListener struct {
	net.Listener
	calls atomic.Int32
}

func (l *failingListener) Accept() (net.Conn, error) {
	if l.calls.Add(1) == 2 {
		return nil, errors.New("too many open files")
	}
	return l.Listener.Accept()
}

func TestAccept_SurvivesAnError(t *testing.T) {
	j := &stubJournal{auto: true}
	b, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval}, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	b.listeners[0].Listener = &failingListener{Listener: b.listeners[0].Listener}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- b.Run(ctx) }()
	defer func() { cancel(); <-done }()
	dialV3(t, b, "first")
	dialV3(t, b, "second")
	if n := b.Stats().AcceptErrors; n != 1 {
		t.Errorf("AcceptErrors = %d, want 1", n)
	}
}

func TestConnect_SilentAndGreedySocketsAreClosedInTime(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.ConnectTimeout = time.Second })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var conns []*rawClient
	for i := range 400 {
		c := dial(t, b)
		switch i % 4 {
		case 1:
			c.send("10 FF FF FF 01") // 4 MB to come
		case 2:
			c.send("10 FF FF FF 7F") // 256 MB
		case 3:
			c.send("10 F0 FF 0F 00 04") // 256 KB less one byte: within the limit, and never sent
		}
		conns = append(conns, c)
	}
	eventually(t, "all were accepted or refused", func() bool { return b.Stats().Malformed == 200 })
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 40<<20 {
		t.Errorf("400 sockets made the heap grow by %d MB", grown>>20)
	}
	for _, c := range conns {
		c.expectClosed()
	}
	if n := b.Stats().Rejected.ConnectTimeout; n != 200 {
		t.Errorf("ConnectTimeout = %d, want 200", n)
	}
}

func TestConnect_FirstPacketMustBeConnect(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	c := dial(t, b)
	c.send("C0 00")
	c.expectClosed()
	if n := b.Stats().Rejected.NotConnect; n != 1 {
		t.Errorf("NotConnect = %d, want 1", n)
	}
}

func TestSession_ExpiredOneLeavesNoSubscription(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	c := dial(t, b)
	c.send("10 13 00 04 4D 51 54 54 05 02 00 3C 05 11 00 00 00 01 00 01 64") // expires after 1 s, id "d"
	c.expectKind(typeConnack)
	c.send("82 0B 00 01 00 00 05 63 6D 64 2F 23 01") // cmd/#
	c.expectKind(9)
	c.Close()
	eventually(t, "expired", func() bool { return b.server.Clients.Len() == 0 })
	c = dialV3(t, b, "d")
	p := dialV3(t, b, "p")
	p.write(publishFrame(false, 1, 1, "cmd/x", []byte("x")))
	p.expect("40 02 00 01")
	c.expectNothing(30 * time.Millisecond)
}

func TestKeepalive_OfAnyLengthIsHonoured(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	var conns []*rawClient
	for i, k := range []string{"AA AA", "AA AB", "AA AC", "FF FF", "00 00"} {
		c := dial(t, b)
		c.send("10 0D 00 04 4D 51 54 54 04 02 " + k + fmt.Sprintf(" 00 01 %02X", 'a'+i))
		c.expect(connackV3)
		conns = append(conns, c)
	}
	short := dial(t, b)
	short.send("10 0D 00 04 4D 51 54 54 04 02 00 01 00 01 7A") // 1 s
	short.expect(connackV3)
	began := time.Now()
	for time.Since(began) < 2*time.Second { // traffic keeps it open beyond 1.5 s
		short.send("C0 00")
		short.expect("D0 00")
		short.expectNothing(200 * time.Millisecond)
	}
	last := time.Now()
	if _, err := short.packet(4 * time.Second); err == nil || time.Since(last) < 1200*time.Millisecond || time.Since(last) > 2500*time.Millisecond {
		t.Errorf("keepalive of 1 s ended after %v of silence (%v), want 1.5 s", time.Since(last), err)
	}
	for i, c := range conns {
		c.send("C0 00")
		if p, err := c.packet(time.Second); err != nil {
			t.Errorf("connection %d: % X, %v", i, p, err)
		}
	}
}

func TestRun_EndsWhileClientsComeAndGo(t *testing.T) {
	for range 5 {
		j := &stubJournal{auto: true}
		b, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval}, j)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Listen(); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- b.Run(ctx) }()
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for k := range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					nc, err := net.Dial("tcp", b.Addrs()[0].String())
					if err != nil {
						continue
					}
					_, _ = nc.Write(append(unhex("10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01"), byte('a'+k)))
					_ = nc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
					_, _ = nc.Read(make([]byte, 4))
					nc.Close()
				}
			})
		}
		time.AfterFunc(50*time.Millisecond, cancel)
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(8 * time.Second):
			t.Fatal("Run hangs")
		}
		close(stop)
		wg.Wait()
	}
}

type rights func(clientID, username, topic string, write bool) bool

func (r rights) Allowed(clientID, username, topic string, write bool) bool {
	return r(clientID, username, topic, write)
}

func TestRights_CoverWillsDeliveriesSubscriptionsAndAliases(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) {
		c.Rights = rights(func(id, user, topic string, write bool) bool {
			return !strings.HasPrefix(topic, "secret") || id == "boss"
		})
	})
	boss := dialV5(t, b, "boss")
	boss.send("82 0C 00 01 00 00 06 73 65 63 72 65 74 00") // secret
	boss.expectKind(9)

	c := dial(t, b) // a will on secret
	c.send("10 1A 00 04 4D 51 54 54 05 06 00 3C 00 00 01 77 00 00 06 73 65 63 72 65 74 00 01 78")
	c.expectKind(typeConnack) // the device is served, its will is not sent
	c.Close()
	c = dial(t, b)
	c.send("10 18 00 04 4D 51 54 54 04 06 00 3C 00 01 77 00 06 73 65 63 72 65 74 00 01 78")
	c.expect("20 02 00 00")
	c.Close()

	c = dialV5(t, b, "c")
	c.write(publishFrame(true, 1, 1, "secret", []byte("x")))
	if p := c.expectKind(typePuback); p[4] != 0x87 {
		t.Errorf("PUBACK % X, want not authorized", p)
	}
	c.send("82 0D 00 02 00 00 07 73 65 63 72 65 74 73 00") // secrets
	if p := c.expectKind(9); p[len(p)-1] != 0x80 {
		t.Errorf("SUBACK % X, want refused", p)
	}
	c.send("82 14 00 03 00 00 0E 24 73 68 61 72 65 2F 67 2F 73 65 63 72 65 00") // $share/g/secre
	if p := c.expectKind(9); p[len(p)-1] != 0 {
		t.Errorf("SUBACK % X, want granted", p)
	}
	c.send("82 15 00 03 00 00 0F 24 73 68 61 72 65 2F 67 2F 73 65 63 72 65 74 00") // $share/g/secret
	if p := c.expectKind(9); p[len(p)-1] != 0x80 {
		t.Errorf("SUBACK % X, want refused", p)
	}
	// An alias learned from a refused publish stands for its topic, and is refused, too; an unknown alias is an error.
	c.send("32 0F 00 06 73 65 63 72 65 74 00 02 03 23 00 01 78")
	if p := c.expectKind(typePuback); p[4] != 0x87 {
		t.Errorf("PUBACK % X, want not authorized", p)
	}
	c.send("32 09 00 00 00 03 03 23 00 01 78")
	if p := c.expectKind(typePuback); p[4] != 0x87 {
		t.Errorf("PUBACK % X, want not authorized", p)
	}
	c.send("32 09 00 00 00 04 03 23 00 02 78")
	c.expectKind(typeDisconnect)
	boss.expectNothing(30 * time.Millisecond)
	if n := len(j.received()); n != 0 {
		t.Errorf("journalled %d messages, want none", n)
	}
}

func TestWill_IsSentWhenTheConnectionBreaks(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	l := dialV3(t, b, "l")
	l.send("82 06 00 01 00 01 77 00")
	l.expectKind(9)
	c := dial(t, b)
	c.send("10 13 00 04 4D 51 54 54 04 06 00 3C 00 01 63 00 01 77 00 01 78")
	c.expect(connackV3)
	c.Close()
	l.expect("30 04 00 01 77 78")
}

func TestPublishV5_AckHasNoPropertiesAndDeliveryNoExpiry(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	s, p := dialV5(t, b, "s"), dialV5(t, b, "p")
	s.send("82 07 00 01 00 00 01 61 00")
	s.expectKind(9)
	p.send("32 0E 00 01 61 00 01 07 26 00 01 6B 00 01 76 78") // user property k=v
	p.expect("40 02 00 01")
	s.expect("30 0C 00 01 61 07 26 00 01 6B 00 01 76 78")
	p.send("34 0E 00 01 61 00 02 07 26 00 01 6B 00 01 76 78")
	p.expect("50 02 00 02")
}

func TestQoS2_IsAcknowledgedByPubrecAndDeliveredOnce(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, nil)
	s, p := dialV3(t, b, "s"), dialV3(t, b, "p")
	s.send("82 06 00 01 00 01 61 02")
	s.expect("90 03 00 01 02")
	p.send("34 06 00 01 61 00 07 78")
	p.expect("50 02 00 07")
	m := s.expectKind(typePublish)
	if m[0] != 0x34 {
		t.Fatalf("delivered % X, want QoS 2", m)
	}
	s.write([]byte{0x50, 2, m[5], m[6]})
	s.write([]byte{0x70, 2, m[5], m[6]})
	s.expectKind(6)
	p.send("3C 06 00 01 61 00 07 78") // again, DUP
	p.expect("50 02 00 07")
	p.send("62 02 00 07")
	p.expect("70 02 00 07")
	s.expectNothing(20 * time.Millisecond)
	if n := len(j.received()); n != 1 {
		t.Errorf("journalled %d times, want once", n)
	}
}

func TestQoS2_ResendToMQTT5IsNotAnError(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, nil)
	p := dialV5(t, b, "p")
	p.send("34 07 00 01 61 00 07 00 78")
	p.expect("50 02 00 07")
	p.send("3C 07 00 01 61 00 07 00 78") // DUP; stock mochi answers 0x91, which would end the delivery
	p.expect("50 02 00 07")
	p.send("62 02 00 07")
	p.expect("70 02 00 07")
	if n := len(j.received()); n != 1 {
		t.Errorf("journalled %d times, want once", n)
	}
}

func TestVersion31_IsSpoken(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, nil)
	c := dial(t, b)
	c.send("10 0F 00 06 4D 51 49 73 64 70 03 02 00 3C 00 01 70")
	c.expect(connackV3)
	c.send("32 06 00 01 61 00 01 78")
	c.expect("40 02 00 01")
	if n := len(j.received()); n != 1 {
		t.Errorf("journalled %d, want 1", n)
	}
}

func TestClient_NamedLikeTheGatewayDisturbsNothing(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	for _, id := range []string{"sluice", "inline"} {
		c := dialV3(t, b, id)
		c.send("82 06 00 01 00 01 61 00")
		c.expectKind(9)
		if err := b.Publish("a", []byte("x"), 1, false); err != nil {
			t.Fatal(err)
		}
		c.expect("30 04 00 01 61 78")
		c.Close()
	}
}

func TestPublish_ReachesSubscribersAndIsRetained(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, nil)
	c := dialV3(t, b, "c")
	if err := b.Publish("dev/alerts", []byte("x"), 1, true); err != nil {
		t.Fatal(err)
	}
	c.send("82 06 00 01 00 01 23 01")
	c.expectKind(9)
	if m := c.expectKind(typePublish); m[0] != 0x33 || !bytes.HasSuffix(m, []byte("x")) {
		t.Errorf("delivered % X, want QoS 1, retained", m)
	}
	for _, bad := range []string{"", "a/#", "$SYS/x", "a\x00"} {
		if err := b.Publish(bad, nil, 0, false); err == nil {
			t.Errorf("Publish(%q) accepted", bad)
		}
	}
	if n := len(j.received()); n != 0 {
		t.Errorf("journalled %d of the gateway's own messages", n)
	}
}

func TestSubscription_IsSeenByThePublisherThatTookTheShortWay(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	p, s := dialV3(t, b, "p"), dialV3(t, b, "s")
	for i := uint16(1); i < 50; i++ {
		p.write(publishFrame(false, 1, i, "dev/1", []byte("unheard")))
		p.expectKind(typePuback)
		s.send("82 0A 00 01 00 05 64 65 76 2F 31 00")
		s.expectKind(9)
		p.write(publishFrame(false, 1, i, "dev/1", []byte("heard")))
		p.expectKind(typePuback)
		// mochi acknowledges before it fans out, so the message before may still find the new subscription.
		m := s.expectKind(typePublish)
		if bytes.HasSuffix(m, []byte("1unheard")) {
			m = s.expectKind(typePublish)
		}
		if !bytes.HasSuffix(m, []byte("1heard")) {
			t.Fatalf("delivered %q", m)
		}
		s.send("A2 09 00 02 00 05 64 65 76 2F 31")
		s.expectKind(11)
	}
}

// Stock 2.7.9 says that every filter somebody has was this client's, and counts it down.
func TestUnsubscribe_TellsWhatTheClientHad(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	other := dialV3(t, b, "other")
	other.send("82 06 00 01 00 01 61 00") // a
	other.expectKind(9)
	c := dialV5(t, b, "c")
	c.send("82 07 00 01 00 00 01 62 00") // b
	c.expectKind(9)
	c.send("A2 0C 00 02 00 00 01 61 00 01 62 00 01 63") // a, b, c
	c.expect("B0 06 00 02 00 11 00 11")
	if n := b.Stats().Subscriptions; n != 1 {
		t.Errorf("%d subscriptions counted, want one", n)
	}
	c.send("A2 06 00 03 00 00 01 62")
	c.expect("B0 04 00 03 00 11")
	c3 := dialV3(t, b, "c3")
	c3.send("A2 05 00 02 00 01 61")
	c3.expect("B0 02 00 02")
	p := dialV3(t, b, "p")
	p.write(publishFrame(false, 0, 0, "a", []byte("x")))
	other.expectKind(typePublish)
}

func TestTakeover_LeavesNoSubscriptionOfTheOldConnectionBehind(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Takeovers = -1 })
	for i := range 100 {
		old := dialV3(t, b, "x")
		old.send("82 06 00 01 00 01 61 00") // a
		for range i % 50 {                  // to meet different moments
			runtime.Gosched()
		}
		c := dialV3(t, b, "x")
		c.send("E0 00")
		_, _ = c.Close(), old.Close()
	}
	eventually(t, "nobody is left", func() bool { return b.Stats().Connections == 0 })
	if n := len(b.targets("a")); n != 0 || b.Stats().Subscriptions != 0 {
		t.Errorf("%d subscribers to a and %d subscriptions, want none", n, b.Stats().Subscriptions)
	}
}
