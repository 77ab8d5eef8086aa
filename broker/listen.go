package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"runtime/debug"
	"time"
)

// listener is one bound address.
type listener struct {
	cfg      ListenerConfig
	tls      *certificates // nil: plain
	loopback bool
	net.Listener
}

// accept takes connections until the listener is closed. An error of Accept is waited out: running out of file
// descriptors must not end a listener.
func (b *Broker) accept(l *listener) {
	const shortest, longest = 5 * time.Millisecond, time.Second
	pause := shortest
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			if pause == shortest {
				b.log.Warn("cannot accept connections", "address", l.Addr(), "err", err)
			}
			b.count.acceptErrors.Add(1)
			select {
			case <-time.After(pause):
			case <-b.stopping:
				return
			}
			pause = min(2*pause, longest)
			continue
		}
		pause = shortest
		address := addressOf(nc.RemoteAddr())
		if ok, addressFull := b.admission.enter(address); !ok {
			if addressFull {
				b.count.tooManyOneAddress.Add(1)
			} else {
				b.count.tooMany.Add(1)
			}
			_ = nc.Close()
			continue
		}
		c := newConn(b, nc, address, l.loopback && address.IsLoopback())
		b.enter(c)
		if l.tls == nil && l.cfg.Protocol != "websocket" {
			b.watch(c)
		} else {
			go b.serve(l, c)
		}
	}
}

// watch leaves a plain connection to the poller and the workers; without them it is served like any other.
func (b *Broker) watch(c *conn) {
	if b.poller == nil {
		go b.serve(nil, c)
		return
	}
	nc, err := b.poller.adopt(c.nc, c)
	if err != nil {
		b.cannotWatch(err)
		b.leave(c)
		return
	}
	c.turn.Store(turnTaken) // by us
	c.mu.Lock()
	c.nc, c.watched, c.noWait = nc, nc, nc
	if c.closing {
		_ = nc.SetReadDeadline(past)
	} else {
		c.armed = c.connectBy
		_ = nc.SetReadDeadline(b.started.Add(time.Duration(c.connectBy)))
	}
	c.mu.Unlock()
	if c.passTurn() {
		b.workers.add(c)
	}
	if err := nc.start(); err != nil {
		b.cannotWatch(err)
		_ = c.Close()
	}
}

// cannotWatch counts what is, as a rule, one file descriptor too many.
func (b *Broker) cannotWatch(err error) {
	if b.count.acceptErrors.Add(1) == 1 {
		b.log.Warn("cannot watch a connection; further cases are only counted", "err", err)
	}
}

// serve runs one connection to its end; l is nil for a plain one.
func (b *Broker) serve(l *listener, c *conn) {
	defer b.leave(c)
	defer c.finish()
	defer b.recovered("connection")
	if l == nil {
		c.noWait = noWaitOf(c.nc)
	} else if !b.handshake(l, c) {
		return
	}
	for c.step() == nil {
	}
}

// handshake turns c.nc into what MQTT is spoken over, before the deadline for CONNECT.
func (b *Broker) handshake(l *listener, c *conn) bool {
	by := b.started.Add(time.Duration(c.connectBy))
	nc := c.nc
	_ = nc.SetDeadline(by)
	err := func() error {
		if l.tls != nil {
			ctx, cancel := context.WithDeadline(context.Background(), by)
			defer cancel()
			b.refreshTLS(l, false)
			set := l.tls.inUse.Load()
			t := tls.Server(nc, set.config)
			if err := t.HandshakeContext(ctx); err != nil {
				return err
			}
			if set.config.ClientCAs != nil {
				s := t.ConnectionState()
				if c.certUser = s.PeerCertificates[0].Subject.CommonName; c.certUser == "" {
					return errors.New("client certificate has no common name")
				}
				c.certificate = certificateOf(l.tls, s.VerifiedChains)
			}
			nc = t
		}
		if l.cfg.Protocol == "websocket" {
			ws, err := b.upgrade(nc)
			if err != nil {
				return err
			}
			nc = ws
		}
		return nil
	}()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || c.closing {
		b.count.handshake.Add(1)
		return false
	}
	c.nc = nc
	_ = nc.SetDeadline(time.Time{})
	return true
}

// finish ends the connection, however it came to its end.
func (c *conn) finish() {
	c.mu.Lock()
	if c.idLock != nil {
		c.idLock.Unlock()
		c.idLock = nil
	}
	c.previous = nil
	c.close()
	c.mu.Unlock()
	c.tidy()
	c.tally.settle(c.b)
	c.waitSent()
	c.linger()
	c.trim() // mochi keeps it for as long as the session
}

// recovered is deferred by goroutines of ours: whatever a packet makes the library do ends that connection only.
func (b *Broker) recovered(where string) {
	if r := recover(); r != nil {
		b.panicked(where, r)
	}
}

func (b *Broker) panicked(where string, r any) {
	if b.count.panics.Add(1) == 1 {
		b.log.Error("recovered from a panic; further ones are only counted", "in", where, "panic", r, "stack", string(debug.Stack()))
	}
}

func (b *Broker) enter(c *conn) {
	b.mu.Lock()
	b.conns[c] = struct{}{}
	b.mu.Unlock()
	b.connections.Add(1)
}

func (b *Broker) leave(c *conn) {
	b.mu.Lock()
	delete(b.conns, c)
	b.mu.Unlock()
	b.admission.leave(c.address)
	b.left.Add(1)
	b.wake() // it may be listed for release, and should not be kept in memory by that until the next commit
	b.connections.Done()
}

// giveMemoryBack returns the memory of many ended connections to the system, some seconds after the last of them. The
// runtime would keep their stacks until its next collection, which in a quiet process is minutes away, and a site whose
// devices come back together meanwhile would find both in memory.
func (b *Broker) giveMemoryBack(stop <-chan struct{}) {
	const many = 1000
	t := time.NewTicker(3 * time.Second)
	defer t.Stop()
	ended := int64(0)
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		lately := b.left.Swap(0)
		if ended += lately; ended >= many && lately == 0 {
			debug.FreeOSMemory()
			ended = 0
		}
	}
}

// all is a copy of the open connections.
func (b *Broker) all() []*conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	list := make([]*conn, 0, len(b.conns))
	for c := range b.conns {
		list = append(list, c)
	}
	return list
}

// addressOf is the IP address of a, without port and zone; the zero Addr when a has none.
func addressOf(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap().WithZone("")
}
