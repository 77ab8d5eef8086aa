package bridge

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
	"golang.org/x/net/proxy"
)

// openWrapped makes the connection that Paho would make, with wrap around what is on the wire.
func openWrapped(ctx context.Context, u *url.URL, o *mqtt.ClientOptions, wrap func(net.Conn) net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.ConnectTimeout)
	defer cancel()
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{Timeout: o.ConnectTimeout}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(c), nil
	}
	if u.Scheme == "ws" || u.Scheme == "wss" {
		return openWebSocket(ctx, u, o, dial)
	}
	c, err := proxy.FromEnvironmentUsing(direct(func(network, address string) (net.Conn, error) { return dial(ctx, network, address) })).Dial("tcp", u.Host)
	if err != nil || u.Scheme != "ssl" {
		return c, err
	}
	config := o.TLSConfig
	if config.ServerName == "" {
		config = config.Clone()
		config.ServerName = u.Hostname()
	}
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// direct is a proxy.Dialer.
type direct func(network, address string) (net.Conn, error)

func (d direct) Dial(network, address string) (net.Conn, error) { return d(network, address) }

func openWebSocket(ctx context.Context, u *url.URL, o *mqtt.ClientOptions, dial func(context.Context, string, string) (net.Conn, error)) (net.Conn, error) {
	d := &websocket.Dialer{
		Proxy: http.ProxyFromEnvironment, NetDialContext: dial, TLSClientConfig: o.TLSConfig, HandshakeTimeout: o.ConnectTimeout,
		Subprotocols: []string{"mqtt"},
	}
	c, _, err := d.DialContext(ctx, u.String(), o.HTTPHeaders)
	if err != nil {
		return nil, err
	}
	return &socket{Conn: c}, nil
}

// socket makes a WebSocket a stream of bytes.
type socket struct {
	*websocket.Conn
	reading sync.Mutex
	message io.Reader // nil: the next one is to come
	writing sync.Mutex
}

// Read implements net.Conn.
func (s *socket) Read(b []byte) (int, error) {
	s.reading.Lock()
	defer s.reading.Unlock()
	for {
		if s.message == nil {
			_, m, err := s.NextReader()
			if err != nil {
				return 0, err
			}
			s.message = m
		}
		n, err := s.message.Read(b)
		if err == io.EOF {
			s.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn.
func (s *socket) Write(b []byte) (int, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.WriteMessage(websocket.BinaryMessage, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// SetDeadline implements net.Conn.
func (s *socket) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}
