package sim

import (
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// delivery is one message on its way to the server. A duplicate fault makes two of one message.
type delivery struct {
	id     uint64
	msg    *message
	packet *packets.PublishPacket // nil until the client has it; QoS 0 never has one here
	since  time.Time              // of the first publish
	done   bool
}

// unacked holds the messages of one connection that the server has not acknowledged. It is the Store of the paho
// clients that follow each other on the connection, and by that the only reliable witness of an acknowledgement: paho
// deletes a message from its store when it reads PUBACK or PUBCOMP, while it also completes the token of a publish,
// without an error, when it resends the message (messageids.go, claimID).
//
// Safe for concurrent use. The callbacks are made without the lock.
type unacked struct {
	published func(*delivery) // before the first byte is sent
	resent    func(*delivery)
	acked     func(*delivery)

	mu    sync.Mutex // guards what follows
	next  *delivery  // being published
	byKey map[string]*delivery
	order []*delivery // oldest first; done ones are trimmed at the front
}

func newUnacked(published, resent, acked func(*delivery)) *unacked {
	return &unacked{published: published, resent: resent, acked: acked, byKey: map[string]*delivery{}}
}

// expect announces the delivery that the next Put belongs to.
func (u *unacked) expect(d *delivery) {
	u.mu.Lock()
	u.next = d
	u.mu.Unlock()
}

// taken reports whether Put came since expect, and ends the expectation.
func (u *unacked) taken() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	took := u.next == nil
	u.next = nil
	return took
}

func (u *unacked) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.byKey)
}

// takeAll empties the store and returns what was in it, oldest first.
func (u *unacked) takeAll() []*delivery {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []*delivery
	for _, d := range u.order {
		if !d.done {
			all = append(all, d)
		}
	}
	clear(u.byKey)
	u.order = nil
	return all
}

// takeOlder removes and returns the messages first published before t.
func (u *unacked) takeOlder(t time.Time) []*delivery {
	u.mu.Lock()
	defer u.mu.Unlock()
	var old []*delivery
	for _, d := range u.order {
		if !d.done && d.since.Before(t) {
			d.done = true
			old = append(old, d)
		}
	}
	for key, d := range u.byKey {
		if d.done {
			delete(u.byKey, key)
		}
	}
	u.trim()
	return old
}

func (u *unacked) trim() {
	n := 0
	for n < len(u.order) && u.order[n].done {
		u.order[n] = nil
		n++
	}
	u.order = u.order[n:]
}

// What follows is paho's Store. A client opens, closes and resets its store as it likes; the messages outlive it.

func (u *unacked) Open()  {}
func (u *unacked) Close() {}
func (u *unacked) Reset() {}

// Put keeps an outbound PUBLISH. Nothing else needs keeping: a repeated PUBREC makes paho send PUBREL again.
func (u *unacked) Put(key string, packet packets.ControlPacket) {
	p, ok := packet.(*packets.PublishPacket)
	if !ok || key[:2] != "o." {
		return
	}
	u.mu.Lock()
	d := u.next
	if d == nil {
		u.mu.Unlock()
		return
	}
	first := d.since.IsZero()
	if first {
		d.since = time.Now()
	}
	kept := *p // paho goes on writing to its own
	d.packet = &kept
	u.next = nil
	u.byKey[key] = d
	u.order = append(u.order, d)
	u.mu.Unlock()
	if first {
		u.published(d)
	} else {
		u.resent(d)
	}
}

// All returns the keys in the order in which the messages were first published; paho resends in that order. Its own
// memory store forgets the order.
func (u *unacked) All() []string {
	u.mu.Lock()
	defer u.mu.Unlock()
	keyOf := make(map[*delivery]string, len(u.byKey))
	for key, d := range u.byKey {
		keyOf[d] = key
	}
	keys := make([]string, 0, len(u.byKey))
	for _, d := range u.order {
		if key, ok := keyOf[d]; ok {
			keys = append(keys, key)
		}
	}
	return keys
}

// Get is called by paho for each message it is about to resend. The caller gets its own copy, because it sets DUP and
// the client of the lost connection may still be writing its own.
func (u *unacked) Get(key string) packets.ControlPacket {
	u.mu.Lock()
	d, ok := u.byKey[key]
	if !ok {
		u.mu.Unlock()
		return nil
	}
	p := *d.packet
	u.mu.Unlock()
	u.resent(d)
	return &p
}

// Del is called by paho when it has read PUBACK or PUBCOMP.
func (u *unacked) Del(key string) {
	u.mu.Lock()
	d, ok := u.byKey[key]
	if ok {
		delete(u.byKey, key)
		d.done = true
		u.trim()
	}
	u.mu.Unlock()
	if ok {
		u.acked(d)
	}
}
