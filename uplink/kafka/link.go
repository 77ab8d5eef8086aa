package kafka

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// link makes the client's connections. The library waits for a broker's first words whatever its caller's context says, so the
// connections can be cut here; and it forgets why the latest one did not come about, which is remembered here for errors of
// requests that only ran out of time.
type link struct {
	tls     *tls.Config // nil: none
	timeout time.Duration
	wrap    func(net.Conn) net.Conn // below TLS; nil: nothing

	mu    sync.Mutex
	off   bool // nothing is to be dialled
	conns map[net.Conn]struct{}
	why   string // "" when the latest connection came about
}

// dial has the signature that kgo.Dialer wants.
func (l *link) dial(ctx context.Context, network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	d := &net.Dialer{KeepAlive: 30 * time.Second}
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if l.wrap != nil {
		conn = l.wrap(conn)
	}
	if l.tls != nil {
		if conn, err = l.secure(ctx, conn, address); err != nil {
			return nil, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.off {
		conn.Close()
		return nil, net.ErrClosed
	}
	if l.conns == nil {
		l.conns = make(map[net.Conn]struct{})
	}
	c := &tracked{conn, l}
	l.conns[c] = struct{}{}
	return c, nil
}

// secure puts TLS over conn.
func (l *link) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	c := l.tls
	if c.ServerName == "" {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			host = address
		}
		c = c.Clone()
		c.ServerName = host
	}
	t := tls.Client(conn, c)
	if err := t.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return t, nil
}

// open lets connections be made.
func (l *link) open() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off, l.why = false, ""
}

// cut closes every connection; there will be no other until open.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.off = true
	for c := range l.conns {
		c.(*tracked).Conn.Close()
	}
	clear(l.conns)
}

// OnBrokerConnect implements kgo.HookBrokerConnect.
func (l *link) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.why = ""
	case !l.off:
		l.why = err.Error()
	}
}

func (l *link) reason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

// tracked is a connection that its link knows until it is closed.
type tracked struct {
	net.Conn
	link *link
}

// Close implements net.Conn.
func (c *tracked) Close() error {
	c.link.mu.Lock()
	delete(c.link.conns, c)
	c.link.mu.Unlock()
	return c.Conn.Close()
}
