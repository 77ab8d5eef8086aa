package wire

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"
)

// Conn is one MQTT connection after its CONNACK. Reads and writes may run at the same time, each from one goroutine.
type Conn struct {
	Net            net.Conn
	R              *bufio.Reader
	Version        byte
	SessionPresent bool
}

// Dial connects, sends CONNECT and waits for the CONNACK, all within ctx and five seconds. A refusal is a *RefusedError.
func Dial(ctx context.Context, address string, c Connect) (*Conn, error) {
	if c.Version == 0 {
		c.Version = V311
	}
	d := net.Dialer{Timeout: 5 * time.Second}
	nc, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	defer stop()
	nc.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := nc.Write(AppendConnect(nil, c)); err != nil {
		nc.Close()
		return nil, fmt.Errorf("send CONNECT: %w", err)
	}
	r := bufio.NewReaderSize(nc, 16<<10)
	p, err := ReadPacket(r, c.Version)
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("wait for CONNACK: %w", err)
	}
	if p.Type != CONNACK {
		nc.Close()
		return nil, fmt.Errorf("wait for CONNACK: got packet type %d", p.Type)
	}
	if p.Reason != 0 {
		nc.Close()
		return nil, &RefusedError{p.Reason}
	}
	nc.SetDeadline(time.Time{})
	return &Conn{Net: nc, R: r, Version: c.Version, SessionPresent: p.SessionPresent}, nil
}

// RefusedError is a CONNACK with a reason other than success.
type RefusedError struct{ Reason byte }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("connection refused with reason %#02x", e.Reason)
}

// Read reads the next packet within timeout.
func (c *Conn) Read(timeout time.Duration) (Packet, error) {
	c.Net.SetReadDeadline(time.Now().Add(timeout))
	return ReadPacket(c.R, c.Version)
}

// Close closes the socket without DISCONNECT, as a crash of the device would.
func (c *Conn) Close() error { return c.Net.Close() }
