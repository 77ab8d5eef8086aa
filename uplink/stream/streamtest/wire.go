package streamtest

import (
	"net"
	"sync/atomic"
)

// Wire counts what goes over connections, both ways.
type Wire struct{ n atomic.Int64 }

// Bytes is how much that was.
func (w *Wire) Bytes() int64 { return w.n.Load() }

// Wrap counts what goes over c.
func (w *Wire) Wrap(c net.Conn) net.Conn { return &wiredConn{c, w} }

type wiredConn struct {
	net.Conn
	w *Wire
}

// Read implements net.Conn.
func (c *wiredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.n.Add(int64(n))
	return n, err
}

// Write implements net.Conn.
func (c *wiredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.w.n.Add(int64(n))
	return n, err
}
