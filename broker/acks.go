package broker

import (
	"encoding/binary"
	"sync/atomic"
	"time"
)

// hold queues an acknowledgement mochi wrote: behind those still held, or until the last message journalled through mochi
// is durable. It returns false when that message was lost. c.mu is held.
func (c *conn) hold(frame []byte) bool {
	if frame[0]>>4 == typePubrec && len(frame) > 4 && frame[4] == reasonPacketIDInUse {
		// A resend of a QoS 2 message that was accepted. To an MQTT 5 client this code would mean that it was not.
		frame = []byte{frame[0], 2, frame[2], frame[3]}
	}
	m := mark{pos: c.pos, epoch: c.epoch, stored: c.stored}
	if c.unwritten > 0 {
		c.unwritten--
		m.received = c.posTime
	}
	if c.held.len() == 0 {
		due := m.pos == 0 && m.stored == 0
		if !due {
			var lost bool
			durable := c.b.durable()
			if due, lost = c.b.state(m, durable, c.b.faults.Load()); lost {
				c.forget([]mark{m}, frame)
				return false
			}
		}
		if due {
			c.out.queue = append(c.out.queue, frame...)
			c.b.answered(m, c.b.now())
			return true
		}
	}
	c.held.push(frame, m)
	c.heldCount.Add(1)
	c.b.count.held.Add(1)
	c.list()
	if c.b.durable() >= m.pos && c.b.sessions.durable() >= m.stored {
		c.b.wake() // committed since we looked; whoever released then did not see this one
	}
	return true
}

// list enters the connection for release, once. c.mu is held.
func (c *conn) list() {
	if !c.listed {
		c.listed = true
		c.b.toRelease(c)
	}
}

// settle moves what this goroutine staged to held, and its counts to the shared counters.
func (c *conn) settle() {
	c.tally.settle(c.b)
	if len(c.staged) == 0 {
		return
	}
	c.mu.Lock()
	first := c.staged[0]
	frames := c.stagedFrames
	for _, m := range c.staged {
		c.held.push(frames[:m.size], m)
		frames = frames[m.size:]
	}
	n := len(c.staged)
	c.staged, c.stagedFrames = c.staged[:0], c.stagedFrames[:0]
	c.heldCount.Add(int32(n))
	c.b.count.held.Add(int64(n))
	c.list()
	c.mu.Unlock()
	// Listed first, looked up second: a commit in between is seen here or by the releaser.
	if durable := c.b.durable(); durable >= first.pos && c.b.sessions.durable() >= first.stored {
		c.release(durable, c.b.faults.Load(), c.b.now())
	}
}

// settle adds t to the shared counters and to those of $SYS.
func (t *tally) settle(b *Broker) {
	if *t == (tally{}) {
		return
	}
	add := func(to *atomic.Int64, v int64) {
		if v != 0 {
			to.Add(v)
		}
	}
	n := &b.count
	add(&n.journalled, t.journalled)
	add(&n.qos0, t.qos0)
	add(&n.uncovered, t.uncovered)
	add(&n.refused, t.refused)
	add(&n.dropped, t.dropped)
	if t.messages+t.packets+t.bytes > 0 {
		info := b.server.Info
		atomic.AddInt64(&info.BytesReceived, t.bytes)
		atomic.AddInt64(&info.PacketsReceived, t.messages+t.packets)
		atomic.AddInt64(&info.MessagesReceived, t.messages)
	}
	*t = tally{}
}

// release sends the acknowledgements that are due.
func (c *conn) release(durable uint64, f *faults, now int64) {
	c.mu.Lock()
	c.releaseLocked(durable, f, now)
}

// releaseLocked is release with c.mu held; it unlocks.
func (c *conn) releaseLocked(durable uint64, f *faults, now int64) {
	n, anyLost := 0, false
	for _, m := range c.held.marks[c.held.marksGone:] {
		due, lost := c.b.state(m, durable, f)
		if lost {
			anyLost = true
			break
		}
		if !due {
			break
		}
		n++
	}
	if n > 0 {
		frames, marks := c.held.pop(n)
		c.heldCount.Add(int32(-n))
		c.b.count.held.Add(int64(-n))
		if c.closing {
			c.b.count.unacked.Add(int64(n))
		} else {
			c.out.queue = append(c.out.queue, frames...)
			c.b.answeredAll(marks, now)
		}
	}
	if anyLost {
		n := c.held.len()
		frames, marks := c.held.pop(n)
		c.heldCount.Add(int32(-n))
		c.b.count.held.Add(int64(-n))
		c.b.count.unacked.Add(int64(n))
		c.forget(marks, frames)
	}
	c.flush(true)
	select {
	case c.room <- struct{}{}:
	default:
	}
	if anyLost {
		c.disconnect(reasonQuota)
	}
}

// forget makes mochi forget that it accepted the QoS 2 messages behind lost PUBRECs: a resend must be journalled again.
// c.mu is held.
func (c *conn) forget(marks []mark, frames []byte) {
	for _, m := range marks {
		frame := frames[:m.size]
		frames = frames[m.size:]
		if m.size >= 4 && frame[0]>>4 == typePubrec && c.cl != nil {
			id := binary.BigEndian.Uint16(frame[2:])
			c.cl.State.Inflight.Delete(id)
			c.lost = append(c.lost, id)
		}
	}
}

// waitRoom waits until fewer acknowledgements are held than a client may have open.
func (c *conn) waitRoom() {
	for int(c.heldCount.Load()) >= c.b.limits.Unacknowledged {
		select {
		case <-c.room:
		case <-c.closed:
			return
		}
	}
}

// answered counts one acknowledgement handed to the socket.
func (b *Broker) answered(m mark, now int64) {
	if m.received != 0 {
		b.count.acked.Add(1)
		b.count.ackDuration.observe(now-m.received, 1)
	}
}

func (b *Broker) answeredAll(marks []mark, now int64) {
	for i := 0; i < len(marks); {
		j := i + 1
		for j < len(marks) && marks[j].received == marks[i].received {
			j++
		}
		if marks[i].received != 0 {
			b.count.acked.Add(int64(j - i))
			b.count.ackDuration.observe(now-marks[i].received, uint64(j-i))
		}
		i = j
	}
}

// durable is the last position known to survive power loss.
func (b *Broker) durable() uint64 { return max(b.committed.Load(), b.journal.Durable()) }

// state is faults.state, and asks the store, too.
func (b *Broker) state(m mark, durable uint64, f *faults) (due, lost bool) {
	due, lost = f.state(m, durable)
	return due && b.sessions.durable() >= m.stored, lost
}

// now is the broker's own time: ns since it was made, monotonic.
func (b *Broker) now() int64 { return int64(time.Since(b.started)) + 1 }

// toRelease lists c for the next release.
func (b *Broker) toRelease(c *conn) {
	b.dirtyMu.Lock()
	b.dirty = append(b.dirty, c)
	b.dirtyMu.Unlock()
}

// wake makes the releaser look at the listed connections. It never waits.
func (b *Broker) wake() {
	select {
	case b.due <- struct{}{}:
	default:
	}
}

// releaseDue sends what is due on every listed connection. One goroutine at a time.
func (b *Broker) releaseDue() {
	durable := b.durable() // before faults: see faults.state
	f := b.faults.Load()
	b.dirtyMu.Lock()
	list := b.dirty
	b.dirty = b.released[:0]
	b.dirtyMu.Unlock()
	now := b.now()
	for _, c := range list {
		c.mu.Lock()
		c.listed = false
		if c.held.len() > 0 {
			if due, lost := b.state(c.held.first(), durable, f); due || lost {
				c.releaseLocked(durable, f, now)
				c.mu.Lock()
			}
			if c.held.len() > 0 {
				c.list()
			}
		}
		c.mu.Unlock()
	}
	clear(list)
	b.released = list
}
