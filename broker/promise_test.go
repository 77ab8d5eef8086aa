package broker

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// commitInterval decides who watches the connections: a goroutine for each (0), or our poller. Every test runs under both.
var commitInterval time.Duration

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 && os.Getenv(generatorVariable) == "" && flag.Lookup("test.bench").Value.String() == "" && flag.Lookup("test.fuzz").Value.String() == "" {
		commitInterval = 4 * time.Millisecond
		code = m.Run()
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func TestAck_NotBeforeTheCommit(t *testing.T) {
	for _, v5 := range []bool{false, true} {
		for qos := byte(1); qos <= 2; qos++ {
			t.Run(fmt.Sprintf("v5=%v qos=%d", v5, qos), func(t *testing.T) {
				j := &stubJournal{}
				b := start(t, j, nil)
				connect := dialV3
				if v5 {
					connect = dialV5
				}
				c := connect(t, b, "d")
				c.write(publishFrame(v5, qos, 7, "dev/1", []byte("x")))
				eventually(t, "journalled", func() bool { return len(j.received()) == 1 })
				c.send("C0 00")
				c.expect("D0 00") // a ping is answered meanwhile
				if v5 {
					c.send("82 07 00 01 00 00 01 62 00")
				} else {
					c.send("82 06 00 01 00 01 62 00")
				}
				c.expectKind(9)
				c.expectNothing(30 * time.Millisecond)
				if s := b.Stats(); s.HeldAcks != 1 || s.Journalled != 1 || s.Acked != 0 {
					t.Errorf("Stats() = %+v, want one held", s)
				}
				j.commit()
				c.expect(fmt.Sprintf("%X0 02 00 07", 3+qos))
				eventually(t, "counted", func() bool { s := b.Stats(); return s.Acked == 1 && s.HeldAcks == 0 && s.AckDuration.Count == 1 })
			})
		}
	}
}

func TestAck_InOrderOfArrivalWhicheverWayAMessageTook(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, nil)
	c := dialV3(t, b, "d")
	listener := dialV3(t, b, "l")
	listener.send("82 0A 00 01 00 05 64 65 76 2F 6C 00") // dev/l
	listener.expectKind(9)
	// Covered and unheard, covered and heard, uncovered, retained, QoS 2.
	var want []string
	var frames []byte
	for i := uint16(1); i <= 60; i++ {
		qos, topic := byte(1), "dev/1"
		switch i % 5 {
		case 1:
			topic = "dev/l"
		case 2:
			topic = "other/1"
		case 3:
			qos = 2
		}
		f := publishFrame(false, qos, i, topic, []byte("x"))
		if i%5 == 4 {
			f[0] |= 1
		}
		frames = append(frames, f...)
		want = append(want, fmt.Sprintf("%X0 02 00 %02X", 3+qos, i))
	}
	c.write(frames)
	eventually(t, "journalled", func() bool { return len(j.received()) == 48 })
	j.commit()
	for _, w := range want {
		c.expect(w)
	}
	for i, m := range j.received() {
		if i > 0 && m.PacketID <= j.received()[i-1].PacketID {
			t.Fatalf("journal has packet %d after %d", m.PacketID, j.received()[i-1].PacketID)
		}
	}
}

func TestAck_OneWriteACommit(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, nil)
	c := dialV3(t, b, "d")
	var frames []byte
	for i := uint16(1); i <= 100; i++ {
		frames = append(frames, publishFrame(false, 1, i, "dev/1", []byte("x"))...)
	}
	c.write(frames)
	eventually(t, "journalled", func() bool { return b.Stats().HeldAcks == 100 })
	j.commit()
	p := make([]byte, 4096)
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(p); n != 400 || err != nil {
		t.Errorf("first read of acknowledgements = %d, %v; want 400 bytes at once", n, err)
	}
}

func TestJournal_RefusalIsNotAcknowledged(t *testing.T) {
	for qos := byte(1); qos <= 2; qos++ {
		for _, heard := range []bool{false, true} {
			t.Run(fmt.Sprintf("qos=%d heard=%v", qos, heard), func(t *testing.T) {
				j := &stubJournal{}
				b := start(t, j, nil)
				l := dialV3(t, b, "l")
				if heard {
					l.send("82 06 00 01 00 01 23 01")
					l.expectKind(9)
				}
				j.fail(errors.New("disk full"))
				c := dialV3(t, b, "d3")
				c.write(publishFrame(false, qos, 7, "dev/1", []byte("x")))
				c.expectClosed()
				c = dialV5(t, b, "d5")
				c.write(publishFrame(true, qos, 7, "dev/1", []byte("x")))
				c.expect("E0 02 97 00")
				c.expectClosed()
				l.expectNothing(20 * time.Millisecond)
				if s := b.Stats(); s.Refused != 2 || s.Journalled != 0 {
					t.Errorf("Stats() = %+v, want 2 refused", s)
				}
				j.fail(nil)
				c = dialV5(t, b, "d5")
				c.write(publishFrame(true, qos, 7, "dev/1", []byte("x")))
				eventually(t, "journalled", func() bool { return len(j.received()) == 1 })
				j.commit()
				c.expect(fmt.Sprintf("%X0 02 00 07", 3+qos))
			})
		}
	}
}

func TestJournal_NothingOvertakesARefusedMessage(t *testing.T) {
	for _, retain := range []byte{0, 1} { // without and through the library
		j := &stubJournal{auto: true, err: errors.New("disk full"), errOnce: true}
		b := start(t, j, nil)
		c := dialV3(t, b, "d")
		var frames []byte
		for i := uint16(1); i <= 3; i++ {
			f := publishFrame(false, 1, i, "dev/1", []byte("x"))
			f[0] |= retain
			frames = append(frames, f...)
		}
		c.write(frames)
		c.expectClosed()
		eventually(t, "closed", func() bool { return b.Stats().Connections == 0 })
		if got := j.received(); len(got) != 0 {
			t.Errorf("retain=%d: journalled %v after a refusal", retain, got)
		}
	}
}

func TestJournal_RefusedQoS0IsCounted(t *testing.T) {
	j := &stubJournal{err: errors.New("disk full")}
	b := start(t, j, nil)
	c := dialV3(t, b, "d")
	c.write(publishFrame(false, 0, 0, "dev/1", []byte("x")))
	c.send("C0 00")
	c.expect("D0 00")
	if s := b.Stats(); s.Dropped != 1 {
		t.Errorf("Dropped = %d, want 1", s.Dropped)
	}
}

func TestFault_HeldAcknowledgementsAreNeverSent(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, nil)
	c3, c5 := dialV3(t, b, "d3"), dialV5(t, b, "d5")
	c3.write(publishFrame(false, 1, 1, "dev/1", []byte("kept")))
	c3.expectNothing(5 * time.Millisecond)
	j.commit()
	c3.expect("40 02 00 01")
	c3.write(publishFrame(false, 1, 2, "dev/1", []byte("lost")))
	c5.write(publishFrame(true, 2, 3, "dev/1", []byte("lost")))
	eventually(t, "journalled", func() bool { return b.Stats().HeldAcks == 2 })
	j.fault()
	// The lost positions are given again and committed at once.
	d := dialV3(t, b, "other")
	d.write(publishFrame(false, 1, 9, "dev/1", []byte("new")))
	d.write(publishFrame(false, 1, 10, "dev/1", []byte("new")))
	eventually(t, "journalled", func() bool { return len(j.received()) == 3 })
	j.commit()
	c3.expectClosed()
	c5.expect("E0 02 97 00")
	c5.expectClosed()
	d.expect("40 02 00 09")
	d.expect("40 02 00 0A")
	if s := b.Stats(); s.Unacked != 2 || s.HeldAcks != 0 {
		t.Errorf("Stats() = %+v, want 2 unacked and none held", s)
	}
}

func TestFault_QoS2IsJournalledAgainOnResend(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, nil)
	connect := "10 0D 00 04 4D 51 54 54 04 00 00 3C 00 01 73" // keeps its session
	c := dial(t, b)
	c.send(connect)
	c.expect(connackV3)
	c.write(publishFrame(false, 2, 7, "dev/1", []byte("x")))
	eventually(t, "journalled", func() bool { return b.Stats().HeldAcks == 1 })
	j.fault()
	c.expectClosed()
	c = dial(t, b)
	c.send(connect)
	c.expectKind(typeConnack)
	f := publishFrame(false, 2, 7, "dev/1", []byte("x"))
	f[0] |= 8
	c.write(f)
	eventually(t, "journalled again", func() bool { return len(j.received()) == 1 })
	j.commit()
	c.expect("50 02 00 07")
	c.send("62 02 00 07")
	c.expect("70 02 00 07")
}

func TestTakeover_QoS2WaitsForTheCommitOnTheNewConnection(t *testing.T) {
	for name, connect := range map[string]string{
		"v3": "10 0D 00 04 4D 51 54 54 04 00 00 3C 00 01 73",
		"v5": "10 13 00 04 4D 51 54 54 05 00 00 3C 05 11 00 00 00 3C 00 01 73",
	} {
		t.Run(name, func(t *testing.T) {
			j := &stubJournal{}
			b := start(t, j, nil)
			old := dial(t, b)
			old.send(connect)
			old.expectKind(typeConnack)
			old.write(publishFrame(name == "v5", 2, 7, "dev/1", []byte("x")))
			eventually(t, "journalled", func() bool { return b.Stats().HeldAcks == 1 })
			c := dial(t, b)
			c.send(connect)
			if p := c.expectKind(typeConnack); p[2] != 1 {
				t.Errorf("CONNACK % X, want session present", p)
			}
			if name == "v5" {
				if p := old.expectKind(typeDisconnect); p[2] != 0x8E {
					t.Errorf("DISCONNECT % X, want session taken over", p)
				}
			}
			old.expectClosed()
			again := publishFrame(name == "v5", 2, 7, "dev/1", []byte("x"))
			again[0] |= 8
			c.write(again)
			c.expectNothing(30 * time.Millisecond)
			j.commit()
			c.expect("50 02 00 07")
			c.send("62 02 00 07")
			c.expect("70 02 00 07")
			c.expectNothing(30 * time.Millisecond) // a second PUBCOMP could end another message of that id
			if n := len(j.received()); n != 1 {
				t.Errorf("journalled %d times, want once", n)
			}
		})
	}
}

func TestTakeover_HeldQoS1IsDroppedAndResentMessageAcknowledged(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, nil)
	old := dialV3(t, b, "s")
	old.write(publishFrame(false, 1, 7, "dev/1", []byte("x")))
	eventually(t, "journalled", func() bool { return b.Stats().HeldAcks == 1 })
	c := dialV3(t, b, "s")
	old.expectClosed()
	f := publishFrame(false, 1, 7, "dev/1", []byte("x"))
	f[0] |= 8
	c.write(f)
	eventually(t, "journalled", func() bool { return len(j.received()) == 2 })
	if m := j.received()[1]; !m.Dup || m.PacketID != 7 {
		t.Errorf("journalled %+v, want DUP and packet 7", m)
	}
	j.commit()
	c.expect("40 02 00 07")
	c.expectNothing(20 * time.Millisecond)
}

func TestMessage_HasWhatTheClientSent(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, func(c *Config) { c.Clock = func() int64 { return 1234 } })
	c := dialV5(t, b, "dev-5")
	f := publishFrame(true, 1, 513, "dev/a/b", []byte("payload"))
	f[0] |= 8
	c.write(f)
	c.expect("40 02 02 01")
	f = publishFrame(true, 2, 514, "dev/a/b", []byte("more"))
	f[0] |= 1
	c.write(f)
	c.expect("50 02 02 02")
	c.write(publishFrame(true, 0, 0, "dev/c", nil))
	eventually(t, "journalled", func() bool { return len(j.received()) == 3 })
	want := []string{
		`{ClientID:dev-5 Username: Topic:dev/a/b Payload:payload QoS:1 Retain:false Dup:true PacketID:513 Received:1234}`,
		`{ClientID:dev-5 Username: Topic:dev/a/b Payload:more QoS:2 Retain:true Dup:false PacketID:514 Received:1234}`,
		`{ClientID:dev-5 Username: Topic:dev/c Payload: QoS:0 Retain:false Dup:false PacketID:0 Received:1234}`,
	}
	for i, m := range j.received() {
		got := fmt.Sprintf("{ClientID:%s Username:%s Topic:%s Payload:%s QoS:%d Retain:%v Dup:%v PacketID:%d Received:%d}",
			m.ClientID, m.Username, m.Topic, m.Payload, m.QoS, m.Retain, m.Dup, m.PacketID, m.Received)
		if got != want[i] {
			t.Errorf("message %d\n got %s\nwant %s", i, got, want[i])
		}
	}
}

func TestUnacknowledged_ClientIsReadNoFurther(t *testing.T) {
	j := &stubJournal{}
	b := start(t, j, func(c *Config) { c.Limits.Unacknowledged = 10 })
	c, other := dialV3(t, b, "d"), dialV3(t, b, "o")
	for i := uint16(1); i <= 25; i++ {
		c.write(publishFrame(false, 1, i, "dev/1", []byte("x")))
	}
	eventually(t, "held", func() bool { return b.Stats().HeldAcks == 10 })
	other.send("C0 00")
	other.expect("D0 00")
	if n := len(j.received()); n != 10 {
		t.Errorf("journalled %d, want 10", n)
	}
	next := uint16(1)
	for next <= 25 {
		j.commit()
		for b.Stats().HeldAcks == 0 && next <= 25 {
			p, err := c.packet(50 * time.Millisecond)
			if err != nil {
				break
			}
			if p[3] != byte(next) {
				t.Fatalf("acknowledged %d, want %d", p[3], next)
			}
			next++
		}
	}
}
