package broker

import (
	"strings"
	"testing"
	"time"
)

func TestSys_PublishByAClientIsAnsweredAndGoesNowhere(t *testing.T) {
	j := &stubJournal{auto: true}
	b := start(t, j, nil)
	l := dialV3(t, b, "l")
	l.send("82 0B 00 01 00 06 24 53 59 53 2F 78 02") // $SYS/x
	l.expectKind(9)
	for _, retain := range []byte{0, 1} {
		for qos := byte(0); qos <= 2; qos++ {
			c := dialV3(t, b, "c3")
			f := publishFrame(false, qos, 7, "$SYS/x", []byte("x"))
			f[0] |= retain
			c.write(f)
			switch qos {
			case 1:
				c.expect("40 02 00 07")
			case 2:
				c.expect("50 02 00 07")
				c.send("62 02 00 07")
				c.expect("70 02 00 07")
			}
			c.send("C0 00")
			c.expect("D0 00")

			c = dialV5(t, b, "c5")
			f = publishFrame(true, qos, 7, "$SYS/x", []byte("x"))
			f[0] |= retain
			c.write(f)
			switch qos {
			case 1:
				c.expect("40 03 00 07 87")
			case 2:
				c.expect("50 03 00 07 87")
			}
			c.send("C0 00")
			c.expect("D0 00")
		}
	}
	l.expectNothing(30 * time.Millisecond)
	if s := b.Stats(); s.Denied.Publishes != 12 || s.Sessions.Retained != 0 || len(j.received()) != 0 {
		t.Errorf("%+v, %d journalled; want 12 denied, and nothing else", s, len(j.received()))
	}
}

func TestSys_IsKeptForWhoSubscribesAndOnlyForThem(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	eventually(t, "published", func() bool {
		b.sessions.mu.Lock()
		defer b.sessions.mu.Unlock()
		return len(b.sessions.sys.topics) >= 20
	})
	all := dialV3(t, b, "all")
	all.send("82 06 00 01 00 01 23 00") // #
	all.expectKind(9)
	c := dialV3(t, b, "c")
	c.send("82 18 00 01 00 13 24 53 59 53 2F 62 72 6F 6B 65 72 2F 76 65 72 73 69 6F 6E 02") // $SYS/broker/version
	c.expectKind(9)
	if p := c.expectKind(typePublish); p[0] != 0x31 || !strings.Contains(string(p), "$SYS/broker/version2.") {
		t.Errorf("received % X, want the retained version", p)
	}
	b.publishSys()
	if p := c.expectKind(typePublish); p[0] != 0x30 {
		t.Errorf("received % X, want it as published", p)
	}
	all.expectNothing(30 * time.Millisecond)
	if s := b.Stats(); s.Sessions.Retained != 0 {
		t.Errorf("%d retained messages, want none of clients", s.Sessions.Retained)
	}
}
