package broker

import (
	"errors"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
)

// newSessions takes over what the store has read.
func newSessions(b *Broker, l SessionLimits, st *Store) *sessions {
	l.setDefaults()
	x := &sessions{b: b, limits: l, store: st, book: newBook(), sys: retained{topics: map[string]*message{}}, wills: map[string]*delayedWill{}}
	if st != nil {
		x.book, st.book = st.book, nil
	}
	return x
}

// restore makes the library know the sessions that were read. Before anybody connects.
func (x *sessions) restore() {
	now, broker := x.b.clock(), x.b.now()
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.byNumber {
		left := int64(s.expiry)*int64(time.Second) - max(0, now-s.closedAt)
		s.expiry = min(s.expiry, uint32(x.limits.Expiry/time.Second))
		s.endsAt = broker + max(0, min(left, int64(s.expiry)*int64(time.Second)))
		cl := x.b.server.NewClient(nil, "store", s.id, false)
		cl.Properties.Username = []byte(s.user)
		cl.Properties.ProtocolVersion = s.version
		cl.Properties.Props.SessionExpiryInterval = s.expiry
		cl.Properties.Props.SessionExpiryIntervalFlag = true
		cl.Stop(packets.ErrServerShuttingDown)
		for id := range s.received {
			cl.State.Inflight.Set(packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrec}, PacketID: id})
		}
		for _, f := range s.filters {
			x.b.server.Topics.Subscribe(s.id, f)
			cl.State.Subscriptions.Add(f.Filter, f)
			x.b.server.Info.Subscriptions++
		}
		x.b.server.Clients.Add(cl)
	}
	x.countRetained()
}

// housekeeping ends sessions and messages whose time has come, and keeps the store small, until stop.
func (x *sessions) housekeeping(stop <-chan struct{}) {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	alive, expired, said := int64(0), int64(0), -int64(sysInterval)
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		func() {
			defer x.b.recovered("housekeeping of sessions")
			now := x.b.now()
			if now-said >= int64(sysInterval) {
				said = now
				x.b.publishSys()
			}
			x.endExpired(now)
			x.sendDueWills()
			if now-expired >= int64(10*time.Second) {
				expired = now
				x.expireRetained(x.b.clock())
			}
			if x.store == nil {
				return
			}
			if now-alive >= int64(aliveEvery)*3/4 {
				alive = now
				x.sayAlive()
			}
			x.snapshotIfDue()
		}()
	}
}

// endExpired ends the sessions whose clients stayed away too long.
func (x *sessions) endExpired(now int64) {
	var over []*session
	x.mu.Lock()
	for _, s := range x.byID {
		if s.owner == nil && s.endsAt > 0 && s.endsAt <= now {
			over = append(over, s)
		}
	}
	x.mu.Unlock()
	for _, s := range over {
		x.endOne(s)
	}
}

func (x *sessions) endOne(s *session) {
	l := x.b.lockOf(s.id)
	l.Lock()
	defer l.Unlock()
	x.mu.Lock()
	over := x.byID[s.id] == s && s.owner == nil
	if over {
		x.end(s)
		x.b.count.sessionsExpired.Add(1)
	}
	x.mu.Unlock()
	if cl, ok := x.b.server.Clients.Get(s.id); over && ok && cl.Closed() {
		x.forget(cl)
	}
}

// forget makes the library forget a session. The client id's lock is held.
func (x *sessions) forget(cl *mqtt.Client) {
	x.b.server.UnsubscribeClient(cl)
	cl.ClearInflights()
	x.b.server.Clients.Delete(cl.ID)
}

// sayAlive bounds the error of a session's remaining time after a crash. Where no session is connected, it says nothing.
func (x *sessions) sayAlive() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.byNumber {
		if s.owner != nil {
			_, _ = x.record(recAlive, x.store.body[:0])
			return
		}
	}
}

// snapshotIfDue replaces the store's snapshot when the log has grown, or misses something. Clients wait only while the
// list of what there is to write is made.
func (x *sessions) snapshotIfDue() {
	st := x.store
	if !st.due() {
		return
	}
	x.mu.Lock()
	missed := st.missed.Load()
	p := x.plan()
	x.mu.Unlock()
	if err := st.save(p.encode(), p.lsn); err != nil {
		x.b.log.Error("snapshot of sessions failed", "err", err)
		return
	}
	st.caughtUp.Store(missed)
}

var errNotStored = errors.New("not durable")

// waitStored waits until pos is durable. Only c's own goroutine waits, and no longer than c lives.
func (x *sessions) waitStored(c *conn, pos uint64) error {
	if x.store == nil || pos == 0 {
		return nil
	}
	for x.store.durable.Load() < pos {
		if !x.store.works() {
			return errNotStored
		}
		w := x.nextCommit()
		if x.store.durable.Load() >= pos {
			return nil
		}
		select {
		case <-w:
		case <-c.closed:
			return errNotStored
		case <-time.After(time.Second):
		}
	}
	return nil
}

// nextCommit returns a channel that is closed at the store's next commit.
func (x *sessions) nextCommit() <-chan struct{} {
	x.waitMu.Lock()
	defer x.waitMu.Unlock()
	if x.waiters == nil {
		x.waiters = make(chan struct{})
	}
	return x.waiters
}

// committed is told of each commit of the store.
func (x *sessions) committed() {
	x.waitMu.Lock()
	if x.waiters != nil {
		close(x.waiters)
		x.waiters = nil
	}
	x.waitMu.Unlock()
	x.b.wake()
}
