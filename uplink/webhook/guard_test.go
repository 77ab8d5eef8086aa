package webhook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/uplink"
)

func TestGuard_SpecialAddressesAreCalledOnlyWhenListed(t *testing.T) {
	for addr, ok := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1:248:1893:25c8:1946": true, "8.8.8.8": true, "172.15.255.255": true, "172.32.0.1": true, "100.128.0.1": true,
		"127.0.0.1": false, "127.255.255.254": false, "::1": false, "0.0.0.0": false, "::": false, "0.1.2.3": false,
		"10.0.0.1": false, "172.16.0.1": false, "172.31.255.255": false, "192.168.1.1": false, "fd00::1": false, "fc00::1": false, "fec0::1": false,
		"169.254.169.254": false, "fe80::1": false, "fe80::1%lo": false, "100.64.0.1": false, "192.0.0.8": false, "198.18.0.1": false,
		"224.0.0.1": false, "239.255.255.250": false, "ff02::1": false, "255.255.255.255": false, "240.0.0.1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::ffff:93.184.216.34": true, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "64:ff9b::a00:1": false, "64:ff9b::5db8:d822": true, "64:ff9b:1::1": false, "2002:7f00:1::": false, "2002:a00:1::1": false, "2002:5db8:d822::1": true,
	} {
		a := netip.MustParseAddr(addr)
		none := func() []netip.Addr { return nil }
		if err := check(a, nil, none); (err == nil) != ok {
			t.Errorf("check(%s) = %v, want allowed %v", addr, err, ok)
		}
		if listed := []netip.Prefix{netip.PrefixFrom(a.WithZone("").Unmap(), a.WithZone("").Unmap().BitLen())}; check(a, listed, none) != nil {
			t.Errorf("check(%s) refuses although it is listed", addr)
		}
		if check(a, nil, func() []netip.Addr { return []netip.Addr{a.WithZone("").Unmap()} }) == nil {
			t.Errorf("check(%s) allows an address of this machine", addr)
		}
	}
}

func deliverTo(t *testing.T, s *Sink) *uplink.Error {
	t.Helper()
	err := s.Deliver(t.Context(), []uplink.Record{record(t, example())})
	if err == nil {
		return nil
	}
	var e *uplink.Error
	if !errors.As(err, &e) {
		t.Fatalf("Deliver = %v", err)
	}
	return e
}

func TestGuard_LoopbackByNumberOrNameIsRefusedWithoutAConnection(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "0"} {
		s, err := New(Config{URL: "http://" + host + ":" + port, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		e := deliverTo(t, s)
		if e == nil || (e.Kind != uplink.KindConfig && host != "0") {
			t.Errorf("%s: %v", host, e)
		}
	}
	ln.(*net.TCPListener).SetDeadline(time.Now())
	if c, err := ln.Accept(); err == nil {
		t.Errorf("a connection from %v arrived", c.RemoteAddr())
	}
}

// A name that is public when it is checked and private when it is called: the guard sees what is called.
func TestGuard_DNSRebindingGainsNothing(t *testing.T) {
	rc := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	_, port, _ := net.SplitHostPort(rc.Listener.Addr().String())
	ns := newNameServer(t, netip.MustParseAddr("127.0.0.1"))
	s, err := New(Config{URL: "http://rebind.example.:" + port, Timeout: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s.dialer.Resolver = ns.resolver()
	if e := deliverTo(t, s); e == nil || e.Kind != uplink.KindConfig {
		t.Errorf("Deliver = %v", e)
	}
	if ns.asked() == 0 || len(rc.bodies) != 0 {
		t.Errorf("%d look-ups, %d requests arrived", ns.asked(), len(rc.bodies))
	}
	s, err = New(Config{URL: "http://rebind.example.:" + port, Timeout: 2 * time.Second, Allow: loopback})
	if err != nil {
		t.Fatal(err)
	}
	s.dialer.Resolver = ns.resolver()
	if e := deliverTo(t, s); e != nil || len(rc.bodies) != 1 {
		t.Errorf("with loopback listed: %v, %d requests arrived", e, len(rc.bodies))
	}
}

func TestSink_ProxyVariablesAreIgnored(t *testing.T) {
	proxy := newReceiver(t, func(int, http.ResponseWriter, *http.Request) {})
	t.Setenv("HTTP_PROXY", proxy.URL)
	t.Setenv("http_proxy", proxy.URL)
	s := newSink(t, Config{URL: "http://receiver.invalid", Timeout: time.Second})
	if e := deliverTo(t, s); e == nil || len(proxy.bodies) != 0 {
		t.Errorf("Deliver = %v, %d requests went to the proxy", e, len(proxy.bodies))
	}
}

// nameServer answers every question about an IPv4 address with one address, on the loopback.
type nameServer struct {
	conn net.PacketConn
	addr netip.Addr
	mu   sync.Mutex
	n    int
}

func newNameServer(t *testing.T, addr netip.Addr) *nameServer {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ns := &nameServer{conn: conn, addr: addr}
	done := make(chan struct{})
	go func() { defer close(done); ns.serve() }()
	t.Cleanup(func() { conn.Close(); <-done })
	return ns
}

func (s *nameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		s.mu.Lock()
		s.n++
		s.mu.Unlock()
		m.Response, m.Additionals = true, nil
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: s.addr.As4()}}}
		}
		if b, err := m.Pack(); err == nil {
			s.conn.WriteTo(b, from)
		}
	}
}

func (s *nameServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}

func (s *nameServer) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", s.conn.LocalAddr().String())
	}}
}
