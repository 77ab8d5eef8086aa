package broker

import (
	"net"
	"time"
)

// outbound is what waits to be sent to a client. It is guarded by its connection's mutex, except that batch belongs to
// the one writer while writing is set.
type outbound struct {
	queue   []byte
	batch   []byte // being written
	spare   []byte // to be the next queue
	pending int    // of batch, not written yet
	writing bool
	failed  bool
	idle    chan struct{} // closed by the writer when it stops, when not nil
}

// size is how many bytes wait.
func (o *outbound) size() int { return len(o.queue) + o.pending }

const writeChunk = 64 << 10 // to be taken within Limits.WriteTimeout

// Write takes whole frames from mochi, in its order, and never waits: acknowledgements of what is not durable yet are
// held, everything else is queued and sent as far as the socket takes it at once.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.closing {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	for rest := p; len(rest) > 0; {
		_, size, err := frameSize(rest)
		if err != nil || size == 0 || size > len(rest) {
			size = len(rest)
		}
		frame := rest[:size]
		rest = rest[size:]
		switch frame[0] >> 4 {
		case typePuback, typePubrec:
			if !c.hold(frame) {
				c.mu.Unlock()
				c.disconnect(reasonQuota)
				return 0, net.ErrClosed
			}
			continue
		case typePubcomp:
			if c.stored > c.b.sessions.durable() {
				if !c.hold(frame) {
					c.mu.Unlock()
					c.disconnect(reasonQuota)
					return 0, net.ErrClosed
				}
				continue
			}
		case typeConnack:
			if c.connacked {
				continue // mochi's second thoughts about a client that was already refused
			}
			c.greet()
			c.ended = c.ended || refusal(frame)
		case typeDisconnect:
			c.ended = true
			if c.version != 5 {
				continue // MQTT 3 knows no DISCONNECT from a server
			}
		}
		c.out.queue = append(c.out.queue, frame...)
	}
	c.flush(true)
	return len(p), nil
}

// greet does what is due when CONNACK goes out. c.mu is held.
func (c *conn) greet() {
	c.connacked = true
	if p := c.previous; p != nil {
		// What the client sends again is answered when what the old connection accepted is durable.
		p.mu.Lock()
		c.pos, c.epoch, c.stored = p.pos, p.epoch, p.stored
		p.mu.Unlock()
		c.previous = nil
	}
	if c.idLock != nil {
		c.idLock.Unlock()
		c.idLock = nil
	}
}

// refusal tells whether a CONNACK says no.
func refusal(connack []byte) bool {
	header, size, err := frameSize(connack)
	return err == nil && size >= header+2 && connack[header+1] != 0
}

// flush sends what is queued and releases c.mu, which is held. With now, it tries the socket in this goroutine; else, and
// for what the socket does not take, it leaves it to a goroutine that ends with the queue.
func (c *conn) flush(now bool) {
	o := &c.out
	if o.size() > c.b.limits.QueueBytes && !c.closing {
		c.b.count.slowClosed.Add(1)
		o.queue = o.queue[:0]
		c.close()
	}
	if o.writing || o.failed || len(o.queue) == 0 {
		c.mu.Unlock()
		return
	}
	o.writing = true
	if !now || c.noWait == nil {
		c.mu.Unlock()
		c.b.writers.Add(1)
		go c.drain()
		return
	}
	for len(o.queue) > 0 {
		batch := o.next()
		c.mu.Unlock()
		n, err := c.noWait.writeNoWait(batch)
		c.mu.Lock()
		if o.failed = err != nil; o.failed {
			c.close()
			break
		}
		if n < len(batch) {
			o.batch, o.pending = batch[n:], len(batch)-n
			c.mu.Unlock()
			c.b.writers.Add(1)
			go c.drain()
			return
		}
		o.done(batch)
	}
	c.stopWriting()
	c.mu.Unlock()
}

// drain writes until nothing is queued. It may wait for the peer, Limits.WriteTimeout at a time.
func (c *conn) drain() {
	defer c.b.writers.Done()
	o := &c.out
	c.mu.Lock()
	batch := o.batch
	whole := batch
	o.batch = nil
	for {
		if len(batch) == 0 {
			if len(o.queue) == 0 {
				break
			}
			batch = o.next()
			whole, o.pending = batch, len(batch)
		}
		if !c.closing {
			_ = c.nc.SetWriteDeadline(time.Now().Add(c.b.limits.WriteTimeout))
		}
		c.mu.Unlock()
		n, err := c.nc.Write(batch[:min(len(batch), writeChunk)])
		c.mu.Lock()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() && !c.closing {
				c.b.count.slowClosed.Add(1)
			}
			o.failed = true
			c.close()
			break
		}
		o.pending -= n
		if batch = batch[n:]; len(batch) == 0 {
			o.done(whole)
		}
	}
	if !c.closing && c.noWait != nil {
		_ = c.nc.SetWriteDeadline(time.Time{}) // it would fail the next write that does not wait
	}
	c.stopWriting()
	c.mu.Unlock()
}

// next takes the queue as a batch. The connection's mutex is held.
func (o *outbound) next() []byte {
	batch := o.queue
	o.queue, o.spare = o.spare[:0], nil
	return batch
}

// done keeps a written batch's memory for the next queue, unless it is large. The connection's mutex is held.
func (o *outbound) done(batch []byte) {
	const keep = 4 << 10
	if cap(batch) <= keep {
		o.spare = batch[:0]
	}
}

func (c *conn) stopWriting() {
	o := &c.out
	o.writing, o.pending, o.batch = false, 0, nil
	if o.failed {
		o.queue = nil
	}
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// waitSent sends what is queued and waits until it is gone or the socket failed. The connection is closing: its write
// deadline bounds this.
func (c *conn) waitSent() {
	c.mu.Lock()
	for c.out.writing || len(c.out.queue) > 0 && !c.out.failed {
		if !c.out.writing {
			c.flush(false)
			c.mu.Lock()
			continue
		}
		if c.out.idle == nil {
			c.out.idle = make(chan struct{})
		}
		idle := c.out.idle
		c.mu.Unlock()
		<-idle
		c.mu.Lock()
	}
	c.mu.Unlock()
}
