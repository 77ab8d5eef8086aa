package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Resend says how a device repeats what was not acknowledged before its connection ended.
type Resend int

const (
	// SameSession keeps the session and repeats with DUP=1 and the packet id first used, in the first order.
	SameSession Resend = iota
	// FreshSession starts a clean session and repeats without DUP under new packet ids, as a device does that lost its
	// memory of the session but not its data. Only a sequence in the payload can then tell the copy from a new message.
	FreshSession
)

// Message is one message a device wants delivered, with what became of it. Times are zero until it happened.
type Message struct {
	Topic   string
	Payload []byte
	Tag     any // the caller's; not sent

	ID       uint16
	Sends    int // how often it went onto a wire
	SentAt   time.Time
	AckedAt  time.Time // when the PUBACK, or at QoS 2 the PUBREC, was read
	received bool      // QoS 2: PUBREC read, PUBREL next
}

// Device publishes through crashes of its broker: it keeps a window of messages in flight, reconnects for ever, and
// resends in order what was not acknowledged. Set the fields before Run; Offer and the counters are safe for concurrent use.
type Device struct {
	Address string
	Connect Connect // Clean is set by Resend
	QoS     byte    // 1 or 2
	Window  int     // messages in flight; 0 means 1
	Resend  Resend
	OnAck   func(*Message) // called in ack order from the reader; may be nil
	OnError func(error)    // called for each connection that ended, and each refused dial; may be nil

	mu       sync.Mutex // guards all below
	wake     chan struct{}
	queue    []*Message // offered, not yet sent in this or any connection
	inflight []*Message // sent, not yet complete; oldest first
	byID     map[uint16]*Message
	nextID   uint16
	acked    int
	connects int
	resent   int
}

// Offer queues m behind all earlier messages.
func (d *Device) Offer(m *Message) {
	d.mu.Lock()
	d.queue = append(d.queue, m)
	d.mu.Unlock()
	d.signal()
}

// Pending returns how many offered messages are not complete.
func (d *Device) Pending() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue) + len(d.inflight)
}

// Acked returns how many messages are complete.
func (d *Device) Acked() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.acked
}

// Connects returns how many connections were accepted.
func (d *Device) Connects() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.connects
}

// Resent returns how many messages went onto a wire again.
func (d *Device) Resent() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.resent
}

func (d *Device) signal() {
	select {
	case d.wakeup() <- struct{}{}:
	default:
	}
}

func (d *Device) wakeup() chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wake == nil {
		d.wake = make(chan struct{}, 1) // capacity 1: a full channel already says "look again"
	}
	return d.wake
}

// idNotFound answers a PUBREL whose id the broker forgot in a crash; the delivery is complete (MQTT 5 section 4.3.3).
const idNotFound = 0x92

// reconnectDelay is short: the tests kill the broker many times a second and want the device back at once.
const reconnectDelay = 2 * time.Millisecond

// Run publishes until ctx ends, then closes the connection without DISCONNECT. It returns nil when ctx ended, else the
// protocol violation that no reconnect would cure (an acknowledgement for a message never sent, a refusal reason).
func (d *Device) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		err := d.connection(ctx)
		var violation *ViolationError
		if errors.As(err, &violation) {
			return fmt.Errorf("device %s: %w", d.Connect.ClientID, err)
		}
		if err != nil && d.OnError != nil && ctx.Err() == nil {
			d.OnError(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectDelay):
		}
	}
	return nil
}

// ViolationError is an answer the protocol does not allow.
type ViolationError struct{ What string }

func (e *ViolationError) Error() string { return e.What }

func (d *Device) connection(ctx context.Context) error {
	connect := d.Connect
	connect.Clean = d.Resend == FreshSession
	if connect.Version == V5 && d.Resend == SameSession && connect.SessionExpiry == 0 {
		connect.SessionExpiry = 3600
	}
	c, err := Dial(ctx, d.Address, connect)
	if err != nil {
		return err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()

	resend := d.begin()
	readErr := make(chan error, 1) // capacity 1: the reader never waits for us
	go func() { readErr <- d.readAcks(c) }()
	writeErr := d.write(ctx, c, resend, readErr)
	c.Close()
	if writeErr != nil {
		err = <-readErr
		var violation *ViolationError
		if errors.As(err, &violation) {
			return err
		}
		return writeErr
	}
	return <-readErr
}

// begin prepares the frames to repeat on a new connection.
func (d *Device) begin() []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.connects++
	if d.byID == nil {
		d.byID = map[uint16]*Message{}
	}
	if d.Resend == FreshSession {
		clear(d.byID)
		d.nextID = 0
		for _, m := range d.inflight {
			m.ID, m.received = d.allocateID(m), false
		}
	}
	var frames []byte
	for _, m := range d.inflight {
		m.Sends++
		d.resent++
		if m.received {
			frames = AppendAck(frames, PUBREL, m.ID)
			continue
		}
		frames = AppendPublish(frames, d.Connect.Version, Publish{Topic: m.Topic, Payload: m.Payload, ID: m.ID, QoS: d.QoS,
			DUP: d.Resend == SameSession})
	}
	return frames
}

// allocateID registers m under a packet id no message in flight uses. The caller holds mu.
func (d *Device) allocateID(m *Message) uint16 {
	for {
		if d.nextID++; d.nextID == 0 {
			d.nextID = 1
		}
		if d.byID[d.nextID] == nil {
			d.byID[d.nextID] = m
			return d.nextID
		}
	}
}

// write sends first, then queued messages as the window allows, until the reader ends. It returns nil when the reader's
// error is the one to report (which it puts back), else the write error.
func (d *Device) write(ctx context.Context, c *Conn, first []byte, readErr chan error) error {
	if len(first) > 0 {
		if _, err := c.Net.Write(first); err != nil {
			return err
		}
	}
	wake := d.wakeup()
	var frames []byte
	for {
		if frames = d.take(frames[:0]); len(frames) > 0 {
			if _, err := c.Net.Write(frames); err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-readErr:
			readErr <- err
			return nil
		case <-wake:
		}
	}
}

// take moves what the window allows from the queue into flight and appends the frames, with the PUBRELs that are due.
func (d *Device) take(frames []byte) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for len(d.queue) > 0 && len(d.inflight) < max(d.Window, 1) {
		m := d.queue[0]
		d.queue = d.queue[1:]
		m.ID, m.SentAt = d.allocateID(m), now
		m.Sends++
		d.inflight = append(d.inflight, m)
		frames = AppendPublish(frames, d.Connect.Version, Publish{Topic: m.Topic, Payload: m.Payload, ID: m.ID, QoS: d.QoS})
	}
	return frames
}

func (d *Device) readAcks(c *Conn) error {
	for {
		p, err := ReadPacket(c.R, c.Version)
		if err != nil {
			return err
		}
		switch p.Type {
		case PUBACK, PUBREC, PUBCOMP:
			if p.Reason >= 0x80 && !(p.Type == PUBCOMP && p.Reason == idNotFound) {
				return &ViolationError{fmt.Sprintf("packet type %d refuses message %d with reason %#02x: the delivery has ended for good", p.Type, p.ID, p.Reason)}
			}
			if err := d.acknowledge(c.Net, p); err != nil {
				return err
			}
		case DISCONNECT:
			return &DisconnectError{p.Reason}
		case PINGRESP:
		default:
			return &ViolationError{fmt.Sprintf("packet type %d at a device that only publishes", p.Type)}
		}
	}
}

// DisconnectError is a DISCONNECT from the broker (MQTT 5).
type DisconnectError struct{ Reason byte }

func (e *DisconnectError) Error() string {
	return fmt.Sprintf("broker disconnects with reason %#02x", e.Reason)
}

func (d *Device) acknowledge(w net.Conn, p Packet) error {
	d.mu.Lock()
	m := d.byID[p.ID]
	want := byte(PUBACK)
	if d.QoS == 2 {
		want = PUBREC
		if m != nil && m.received {
			want = PUBCOMP
		}
	}
	if m == nil || p.Type != want {
		d.mu.Unlock()
		if d.QoS == 2 && p.Type == PUBREC && m != nil { // a second PUBREC is answered like the first
			_, err := w.Write(AppendAck(nil, PUBREL, p.ID))
			return err
		}
		return &ViolationError{fmt.Sprintf("packet type %d for id %d, which waits for no such answer", p.Type, p.ID)}
	}
	if p.Type != PUBCOMP {
		m.AckedAt = time.Now()
	}
	if p.Type == PUBREC {
		m.received = true
		d.mu.Unlock()
		if d.OnAck != nil {
			d.OnAck(m)
		}
		_, err := w.Write(AppendAck(nil, PUBREL, p.ID)) // net.Conn allows a writer beside write's
		return err
	}
	delete(d.byID, p.ID)
	for i, in := range d.inflight {
		if in == m {
			d.inflight = append(d.inflight[:i], d.inflight[i+1:]...)
			break
		}
	}
	d.acked++
	d.mu.Unlock()
	if d.OnAck != nil && p.Type == PUBACK {
		d.OnAck(m)
	}
	d.signal()
	return nil
}
