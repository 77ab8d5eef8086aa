package broker

import (
	"bytes"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestLimits_TopicsTooDeepOrTooLongAreRefused(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.TopicLevels, c.Limits.TopicBytes = 4, 20 })
	for _, topic := range []string{"a/b/c/d", "dev/5678901234567890"} {
		p := dialV5(t, b, "p")
		p.write(publishFrame(true, 1, 1, topic, nil))
		p.expect("40 02 00 01")
		p.Close()
	}
	for _, topic := range []string{"a/b/c/d/e", "dev/56789012345678901", "////"} {
		for _, qos := range []byte{0, 1, 2} {
			p := dialV5(t, b, "p")
			p.write(publishFrame(true, qos, uint16(qos), topic, nil))
			p.expect("E0 02 90 00")
			p.expectClosed()
		}
	}
	s := dialV5(t, b, "s")
	s.send("82 13 00 01 00 00 03 61 2F 62 00 00 07 2B 2F 2B 2F 2B 2F 2B 00") // a/b and +/+/+/+
	s.expect("90 05 00 01 00 00 00")
	s.send("82 0F 00 01 00 00 09 2B 2F 2B 2F 2B 2F 2B 2F 23 00") // five levels
	if p := s.expectKind(9); p[len(p)-1] != 0x8F {
		t.Errorf("SUBACK % X, want filter invalid", p)
	}
	w := dial(t, b)
	will := "a/b/c/d/e"
	body := append(unhex("00 04 4D 51 54 54 05 06 00 3C 00 00 01 77 00 00"), byte(len(will)))
	body = append(append(body, will...), 0, 1, 'x')
	w.write(append([]byte{0x10, byte(len(body))}, body...))
	if p := w.expectKind(typeConnack); p[3] != 0x90 {
		t.Errorf("CONNACK % X, want topic name invalid", p)
	}
	if n := b.Stats().OverLimits; n < 10 {
		t.Errorf("OverLimits = %d", n)
	}
}

func TestLimits_SubscriptionsOfAClient(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Subscriptions = 2 })
	for _, v5 := range []bool{false, true} {
		c, quota := dialV3(t, b, "c3"), byte(0x80)
		if v5 {
			c, quota = dialV5(t, b, "c5"), 0x97
		}
		subscribe := func(filters ...string) []byte {
			body := []byte{0, 1}
			if v5 {
				body = append(body, 0)
			}
			for _, f := range filters {
				body = append(append(append(body, 0, byte(len(f))), f...), 0)
			}
			c.write(append([]byte{0x82, byte(len(body))}, body...))
			p := c.expectKind(9)
			return p[len(p)-len(filters):]
		}
		if got := subscribe("a", "b", "c"); !bytes.Equal(got, []byte{0, 0, quota}) {
			t.Errorf("v5 %v: codes % X", v5, got)
		}
		if got := subscribe("a", "d"); !bytes.Equal(got, []byte{0, quota}) {
			t.Errorf("v5 %v, a again and d: codes % X", v5, got)
		}
		body := "\x00\x02"
		if v5 {
			body += "\x00"
		}
		body += "\x00\x01a"
		c.write(append([]byte{0xA2, byte(len(body))}, body...))
		c.expectKind(11)
		if got := subscribe("d"); !bytes.Equal(got, []byte{0}) {
			t.Errorf("v5 %v, after one went: codes % X", v5, got)
		}
		c.Close()
	}
}

func TestLimits_Sessions(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Sessions = 2 })
	for _, id := range []byte("ab") { // not clean, and away
		c := dial(t, b)
		c.write(append(unhex("10 0D 00 04 4D 51 54 54 04 00 00 3C 00 01"), id))
		c.expectKind(typeConnack)
		c.Close()
	}
	eventually(t, "away", func() bool { return b.Stats().Connections == 0 })
	c := dial(t, b)
	c.send("10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 63")
	c.expect("20 02 00 03")
	c = dial(t, b)
	c.send("10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 61") // one of those that are there
	c.expect("20 02 00 00")
	if n := b.Stats().Rejected.TooManySessions; n != 1 {
		t.Errorf("TooManySessions = %d, want 1", n)
	}
}

func TestTakeover_OfOneIDIsLimited(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Takeovers = 3 })
	last := dialV3(t, b, "x")
	for range 3 {
		next := dialV3(t, b, "x")
		last.expectClosed()
		last = next
	}
	c := dial(t, b)
	c.send("10 0D 00 04 4D 51 54 54 04 02 00 3C 00 01 78")
	c.expect("20 02 00 03")
	c.expectClosed()
	last.send("C0 00") // who has it keeps it
	last.expect("D0 00")
	last.Close()
	eventually(t, "gone", func() bool { return atomic.LoadInt64(&b.server.Info.ClientsConnected) == 0 })
	dialV3(t, b, "x") // and when it goes the next may come
	if n := b.Stats().Rejected.Takeover; n != 1 {
		t.Errorf("Takeover = %d, want 1", n)
	}
}

func TestRetained_IsBoundedByCountAndBytes(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.Retained, c.Limits.RetainedBytes = 3, 4096 })
	p := dialV3(t, b, "p")
	retain := func(topic string, size int) {
		f := publishFrame(false, 1, 1, topic, bytes.Repeat([]byte{'x'}, size))
		f[0] |= flagRetain
		p.write(f)
		p.expect("40 02 00 01")
	}
	for _, topic := range []string{"dev/a", "dev/b", "dev/c", "dev/d"} {
		retain(topic, 10)
	}
	retain("dev/a", 5000) // too many bytes: the old one stays
	retain("dev/b", 0)    // cleared
	retain("dev/e", 10)
	s := dialV3(t, b, "s")
	s.subscribe("dev/+")
	var topics []string
	for range 3 {
		m := s.expectKind(typePublish)
		topics = append(topics, string(m[4:9]))
	}
	s.expectNothing(30 * time.Millisecond)
	if got := strings.Join(topics, " "); got != "dev/a dev/c dev/e" {
		t.Errorf("retained %s", got)
	}
}

func TestConnections_AreForgottenWithoutAnotherCommit(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil) // durable at once, and the releaser is never told
	for range 20 {
		c := dialV3(t, b, "c")
		c.write(publishFrame(false, 1, 1, "dev/1", nil))
		c.expect("40 02 00 01")
		c.Close()
		eventually(t, "gone", func() bool { return b.Stats().Connections == 0 })
	}
	eventually(t, "no ended connection is listed for release", func() bool {
		b.dirtyMu.Lock()
		defer b.dirtyMu.Unlock()
		return len(b.dirty) == 0
	})
}
