package sim

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// session is one network connection with a paho client of its own. The client's reconnecting is not used: it
// completes tokens at a resend, holds Publish for 30 s when the connection goes at the wrong moment, sends new messages
// before old ones, and backs off for up to ten minutes. A new session on the same unacked store resends what the last
// one left, in order and with DUP, before its first new message.
type session struct {
	client  mqtt.Client
	conn    *gatedConn    // nil when the dial failed
	since   time.Time     // of the CONNACK
	stopped chan struct{} // closed when paho has noticed the loss and ended its goroutines

	// gate is held while the client publishes. The connection's loss is kept from paho until nobody does, because
	// a Publish that meets a stopping client waits for its time-out.
	gate sync.Mutex
	dead bool          // guarded by gate
	lost chan struct{} // closed when the connection is gone
}

// linkOptions is what a session needs to know of its connection.
type linkOptions struct {
	cfg       *Config
	clientID  string
	store     mqtt.Store
	connected func(sessionPresent bool) // before anything is resent
}

// connect opens a session and returns when everything left from the last one was handed to the connection, which may
// be lost again by then. Cancelling ctx cuts the connection, at any time of the session.
func connect(ctx context.Context, lo linkOptions) (*session, error) {
	s := &session{stopped: make(chan struct{}), lost: make(chan struct{})}
	o := mqtt.NewClientOptions()
	o.AddBroker(lo.cfg.Server)
	o.SetClientID(lo.clientID)
	if lo.cfg.Username != "" {
		o.SetUsername(lo.cfg.Username)
		o.SetPassword(lo.cfg.Password)
	}
	o.SetCleanSession(lo.cfg.CleanSession)
	o.SetStore(lo.store)
	o.SetProtocolVersion(4) // else paho tries 3.1 after every refusal
	o.SetAutoReconnect(false)
	o.SetConnectTimeout(lo.cfg.ConnectTimeout)
	o.SetKeepAlive(lo.cfg.KeepAlive)
	o.SetPingTimeout(365 * 24 * time.Hour) // gatedConn finds a silent server, and does it through the gate
	o.SetConnectionLostHandler(func(mqtt.Client, error) { close(s.stopped) })
	o.SetCustomOpenConnectionFn(func(u *url.URL, opts mqtt.ClientOptions) (net.Conn, error) {
		raw, err := dial(ctx, u, lo.cfg)
		if err != nil {
			return nil, err
		}
		s.conn = newGatedConn(raw, s, silence(lo.cfg.KeepAlive), lo.connected)
		s.conn.unwatch = context.AfterFunc(ctx, func() { s.conn.cut(context.Cause(ctx)) })
		return s.conn, nil
	})
	s.client = mqtt.NewClient(o)
	token := s.client.Connect()
	<-token.Done() // ends: the dial and the handshake have a time-out, and a resend ends with the connection
	if err := token.Error(); err != nil {
		if s.conn != nil {
			s.conn.unwatch()
		}
		return nil, err
	}
	return s, nil
}

// publish hands d to the client. False: the session is lost and the client has not taken it. At QoS 0 true means only
// that the connection was up. It may block as long as the server does not read.
func (s *session) publish(d *delivery, qos byte, store *unacked) bool {
	s.gate.Lock()
	defer s.gate.Unlock()
	if s.dead {
		return false
	}
	store.expect(d)
	token := s.client.Publish(d.msg.device.topic, qos, false, d.msg.payload)
	took := store.taken()
	if qos > 0 {
		return took
	}
	return token.Error() == nil
}

// close says DISCONNECT and ends the session. Acknowledgements that arrive until then are counted.
func (s *session) close() {
	s.client.Disconnect(1000)
	s.conn.cut(errors.New("closed"))
	s.conn.unwatch()
}

// abandon ends a session whose connection is lost, and waits for paho to end its goroutines.
func (s *session) abandon() {
	<-s.stopped
	s.conn.unwatch()
}

// errLost is what paho is told of every lost connection. It must not read "use of closed network connection": paho
// takes that for its own doing and would never report the loss.
var errLost = errors.New("connection lost")

// writeTimeout is how long a server may refuse to read before the connection counts as lost. It is below the 30 s
// after which paho gives up a Publish on its own and leaves the message unsent on a connection that stays up.
const writeTimeout = 20 * time.Second

// gatedConn is the network connection below a paho client. It buffers what is read (paho reads a packet in three
// pieces), finds a silent server, and tells paho of a loss only through the gate of its session.
type gatedConn struct {
	net.Conn
	session     *session
	in          *bufio.Reader
	idle        time.Duration
	connected   func(sessionPresent bool)
	unwatch     func() bool
	established atomic.Bool

	handshake int  // bytes of the CONNACK seen; reader only
	present   bool // session present, from the CONNACK

	mu    sync.Mutex // guards cause
	cause error      // why we closed it; nil: we did not
}

func newGatedConn(raw net.Conn, s *session, idle time.Duration, connected func(bool)) *gatedConn {
	return &gatedConn{Conn: raw, session: s, in: bufio.NewReaderSize(raw, 4096), idle: idle, connected: connected}
}

// cut closes the connection without a DISCONNECT; over TCP with a reset, as when a device loses power or radio.
func (g *gatedConn) cut(cause error) {
	g.mu.Lock()
	if g.cause == nil {
		g.cause = cause
	}
	g.mu.Unlock()
	raw := g.Conn
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn() // without TLS's farewell
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = raw.Close()
}

// SetDeadline is called by paho before the handshake, and with the zero time when the CONNACK was good.
func (g *gatedConn) SetDeadline(t time.Time) error {
	err := g.Conn.SetDeadline(t)
	if t.IsZero() {
		g.session.since = time.Now()
		g.connected(g.present)
		g.established.Store(true)
	}
	return err
}

func (g *gatedConn) Read(p []byte) (int, error) {
	established := g.established.Load()
	if established && g.in.Buffered() == 0 {
		_ = g.Conn.SetReadDeadline(time.Now().Add(g.idle))
	}
	n, err := g.in.Read(p)
	if !established {
		const flags = 2 // of a CONNACK: 0x20 0x02 flags code
		if i := flags - g.handshake; i >= 0 && i < n {
			g.present = p[i]&1 == 1
		}
		g.handshake += n
		return n, err
	}
	if err == nil {
		return n, nil
	}
	g.lose(err)
	return n, fmt.Errorf("%w: %s", errLost, g.reason())
}

// lose marks the session lost and returns when nobody publishes in it any more.
func (g *gatedConn) lose(err error) {
	g.mu.Lock()
	if g.cause == nil {
		g.cause = err
	}
	g.mu.Unlock()
	_ = g.Conn.Close() // frees a Write that the publisher may be waiting for
	close(g.session.lost)
	g.session.gate.Lock()
	g.session.dead = true
	g.session.gate.Unlock()
}

// reason says why the connection was lost, in words that paho does not misread.
func (g *gatedConn) reason() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.cause == nil:
		return "unknown"
	case errors.Is(g.cause, net.ErrClosed):
		return "closed"
	case errors.Is(g.cause, context.DeadlineExceeded) || isTimeout(g.cause):
		return "the server was silent"
	}
	return g.cause.Error()
}

func isTimeout(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

// Write reports no error once the session is up: the reader reports the loss, through the gate, and the message is in
// the store.
func (g *gatedConn) Write(p []byte) (int, error) {
	if !g.established.Load() {
		return g.Conn.Write(p)
	}
	_ = g.Conn.SetWriteDeadline(time.Now().Add(writeTimeout))
	if _, err := g.Conn.Write(p); err != nil {
		if isTimeout(err) {
			err = errors.New("the server did not read")
		}
		g.cut(err)
	}
	return len(p), nil
}

// silence is how long a server may say nothing: paho pings after keepAlive, give or take its check interval of 5 s or
// a quarter of keepAlive, and the answer takes its time.
func silence(keepAlive time.Duration) time.Duration {
	return keepAlive + min(10*time.Second, 2*keepAlive)
}

// dial opens the transport of an MQTT server URL.
func dial(ctx context.Context, u *url.URL, cfg *Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, cfg.ConnectTimeout)
	defer cancel()
	var d net.Dialer
	switch u.Scheme {
	case "unix":
		return d.DialContext(ctx, "unix", u.Path)
	case "ws", "wss":
		return mqtt.NewWebsocket(u.String(), cfg.TLS, cfg.ConnectTimeout, nil, &mqtt.WebsocketOptions{})
	case "ssl", "tls", "mqtts":
		td := tls.Dialer{NetDialer: &d, Config: cfg.TLS}
		return td.DialContext(ctx, "tcp", hostPort(u, "8883"))
	}
	return d.DialContext(ctx, "tcp", hostPort(u, "1883"))
}

func hostPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}
