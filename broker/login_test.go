package broker

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"sort"
	"sync/atomic"
	"testing"
	"time"

	"sluice/broker/passwd"
)

func TestLogins_ThousandReconnectsHashOnce(t *testing.T) {
	var hashed atomic.Int64
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.Authenticate = func(user string, password []byte) bool { hashed.Add(1); return string(password) == "pw" }
	})
	for i := range 50 {
		c, code := connectAs(t, b, fmt.Sprintf("dev%d", i), "fleet", "pw")
		if code != 0 {
			t.Fatalf("CONNACK %d", code)
		}
		c.Close()
	}
	if n := hashed.Load(); n != 1 {
		t.Errorf("hashed %d times, want once", n)
	}
	if s := b.Stats().Logins; s.Hashed != 1 || s.Remembered != 49 {
		t.Errorf("Logins = %+v", s)
	}
	if _, code := connectAs(t, b, "dev", "fleet", "pw2"); code != 5 {
		t.Errorf("another password of a remembered user: CONNACK %d, want 5", code)
	}
	if _, code := connectAs(t, b, "dev", "flee", "tpw"); code != 0 && hashed.Load() != 3 {
		t.Error("name and password are confused")
	}
}

func TestLogins_FailuresOfAnAddressAreLimitedAndAskedNoMore(t *testing.T) {
	var asked atomic.Int64
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.Limits.FailedLogins = 12 // 2 for one name
		c.Authenticate = func(user string, password []byte) bool { asked.Add(1); return string(password) == "right" }
	})
	var codes []byte
	for range 4 {
		_, code := connectAs(t, b, "a", "broken", "wrong")
		codes = append(codes, code)
	}
	if string(codes) != "\x05\x05\x03\x03" || asked.Load() != 2 {
		t.Errorf("one name: CONNACKs % X with %d checks, want 05 05 03 03 with 2", codes, asked.Load())
	}
	if _, code := connectAs(t, b, "b", "good", "right"); code != 0 {
		t.Errorf("a neighbour of a broken device: CONNACK %d", code)
	}
	for i := range 12 {
		connectAs(t, b, "a", fmt.Sprintf("guess%d", i), "wrong")
	}
	before := asked.Load()
	if _, code := connectAs(t, b, "c", "good", "right"); code != 3 || asked.Load() != before {
		t.Errorf("from an address beyond its failures: CONNACK %d, want 3 and no check", code)
	}
	c := dial(t, b) // MQTT 5 gets a reason of its own
	c.send("10 14 00 04 4D 51 54 54 05 C2 00 3C 00 00 01 78 00 01 75 00 01 70")
	if p := c.expectKind(typeConnack); p[3] != 0x9F {
		t.Errorf("CONNACK % X, want connection rate exceeded", p)
	}
	if s := b.Stats(); s.Rejected.LoginsThrottled < 4 || s.AuthFailures < 10 {
		t.Errorf("Stats() = %+v", s)
	}
}

func TestLogins_RecoverWithTimeAndForgetUnderPressure(t *testing.T) {
	l := newLogins(func(string, []byte) bool { return false }, 6, 2)
	from := netip.MustParseAddr("192.0.2.1")
	now := int64(1)
	check := func(user string) loginResult {
		r, _ := l.check(from, user, nil, now, time.Second)
		return r
	}
	if check("a") != loginWrong || check("a") != loginTooMany {
		t.Error("a name's share of 6 is 1")
	}
	now += int64(61 * time.Second)
	if check("a") != loginWrong {
		t.Error("after a minute: still blocked")
	}
	for i := range failuresKept + 10 {
		from = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		check("x")
	}
	if n := len(l.failures); n > failuresKept+1 {
		t.Errorf("%d failures kept", n)
	}
	if network(netip.MustParseAddr("2001:db8::1")) != network(netip.MustParseAddr("2001:db8::ffff")) {
		t.Error("one customer's IPv6 addresses count each on their own")
	}
}

// Known and unknown users, over the wire.
func TestLogins_TakeAsLongForUnknownUsers(t *testing.T) {
	f := passwd.New()
	for i := range 20 {
		if err := f.Set(fmt.Sprintf("dev%d", i), []byte("right")); err != nil {
			t.Fatal(err)
		}
	}
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Authenticate, c.Limits.FailedLogins = f.Verify, -1 })
	took := func(user string) time.Duration {
		nc, err := net.Dial("tcp", b.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		c := &rawClient{t: t, Conn: nc, in: bufio.NewReader(nc)}
		body := "\x00\x04MQTT\x04\xC2\x00\x3C\x00\x01x\x00" + string([]byte{byte(len(user))}) + user + "\x00\x05wrong"
		began := time.Now()
		c.write(append([]byte{0x10, byte(len(body))}, body...))
		if p := c.expectKind(typeConnack); p[3] != 5 {
			t.Fatalf("CONNACK % X", p)
		}
		return time.Since(began)
	}
	var known, unknown []time.Duration
	for i := range 150 {
		known = append(known, took(fmt.Sprintf("dev%d", i%20)))
		unknown = append(unknown, took(fmt.Sprintf("dex%d", i%20)))
	}
	lower := func(d []time.Duration) time.Duration { // the lower quartile: the machine's noise is above it
		sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
		return d[len(d)/4]
	}
	k, u := lower(known), lower(unknown)
	t.Logf("known %v, unknown %v", k, u)
	if ratio := float64(u) / float64(k); ratio < 0.7 || ratio > 1.4 {
		t.Errorf("unknown users take %.2f times as long (%v, known %v)", ratio, u, k)
	}
}

func TestReload_DisconnectsWhoLostTheUserAndNobodyElse(t *testing.T) {
	var right atomic.Value
	right.Store("pw")
	var mayWrite atomic.Bool
	mayWrite.Store(true)
	b := start(t, &stubJournal{auto: true}, func(c *Config) {
		c.AllowAnonymous = true
		c.Authenticate = func(user string, password []byte) bool { return string(password) == right.Load() }
		c.Rights = rights(func(id, user, topic string, write bool) bool { return !write || mayWrite.Load() })
	})
	ann, _ := connectAs(t, b, "a", "ann", "pw")
	ben, _ := connectAs(t, b, "b", "ben", "pw")
	nobody := dialV3(t, b, "n")
	l := dialV3(t, b, "l")
	l.subscribe("#")
	ben.write(publishFrame(false, 0, 0, "dev/1", []byte("x")))
	l.expectKind(typePublish)
	right.Store("new")
	mayWrite.Store(false)
	if err := b.Reload(func(user string) bool { return user == "ben" }); err != nil {
		t.Fatal(err)
	}
	ann.expectClosed()
	for _, c := range []*rawClient{ben, nobody} {
		c.write(publishFrame(false, 1, 1, "dev/1", []byte("no longer")))
		c.expect("40 02 00 01")
	}
	l.expectNothing(50 * time.Millisecond)
	if _, code := connectAs(t, b, "a", "ann", "pw"); code != 5 {
		t.Errorf("the old password after Reload: CONNACK %d, want 5", code)
	}
	if _, code := connectAs(t, b, "a", "ann", "new"); code != 0 {
		t.Errorf("the new password after Reload: CONNACK %d", code)
	}
	if s := b.Stats(); s.Revoked != 1 || s.Denied.Publishes != 2 {
		t.Errorf("Revoked %d, Denied %+v; want 1 and 2 publishes", s.Revoked, s.Denied)
	}
}
