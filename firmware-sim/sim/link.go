package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// link is one connection of the fleet with its devices: it takes their readings when they are due, publishes, and
// reconnects. While it is offline or its window of unacknowledged messages is full, readings wait to be taken and then
// carry the time at which they were due, as from a device that stores and forwards; so an outage of any length costs
// no memory here. One goroutine runs it.
type link struct {
	fleet    *Fleet
	index    int
	clientID string
	devices  []*device
	schedule schedule
	store    *unacked
	again    []*delivery // with a clean session: to be published anew, oldest first

	room chan struct{} // capacity 1: something was acknowledged; a full one says so already
	cuts chan cut      // capacity 1: a storm is told once; dropped when one is already waiting

	up      atomic.Bool
	nextDue atomic.Int64 // time.Duration since the start of the earliest task; done: none left
	unsent  int          // readings and held messages never published; after run
}

// cut drops a connection and keeps it down until a common moment.
type cut struct {
	at    time.Time // when it was told
	until time.Time
	fault string
}

// rampUp brings a fleet up at 5,000 connections a second.
const rampUp = 200 * time.Microsecond

const done = int64(1<<63 - 1)

func newLink(f *Fleet, index int, clientID string, devices []*device) *link {
	l := &link{
		fleet: f, index: index, clientID: clientID, devices: devices,
		room: make(chan struct{}, 1), cuts: make(chan cut, 1),
	}
	l.store = newUnacked(
		func(d *delivery) { f.tell(Publish, l, d, ""); f.stats.published.Add(1) },
		func(d *delivery) { f.tell(Resent, l, d, ""); f.stats.resent.Add(1) },
		func(d *delivery) {
			f.stats.acked.Add(1)
			f.stats.latency.add(time.Since(d.since))
			f.tell(Acked, l, d, "")
			l.wake()
		})
	for _, d := range devices {
		if at, ok := d.nextDue(); ok {
			l.schedule.add(task{at: at, device: d})
		}
	}
	l.noteNext()
	return l
}

func (l *link) wake() {
	select {
	case l.room <- struct{}{}:
	default:
	}
}

// run returns when every reading was taken, published and acknowledged, or given up. Cancelling soft ends the
// readings; cancelling hard ends everything.
func (l *link) run(soft, hard context.Context) {
	defer l.up.Store(false)
	l.pause(soft, hard, time.Duration(l.index)*rampUp)
	failures := 0
	for hard.Err() == nil && !l.finished() {
		if soft.Err() != nil {
			l.stop()
			if l.finished() {
				break
			}
		}
		began := time.Now()
		s, err := connect(hard, linkOptions{cfg: &l.fleet.cfg, clientID: l.clientID, store: l.store, connected: l.connected})
		if err != nil {
			l.fleet.connectFailed(err)
			failures++
			l.pause(soft, hard, backoff(failures, l.fleet.cfg.ReconnectMax))
			continue
		}
		if l.fleet.cfg.CleanSession {
			l.again = append(l.store.takeAll(), l.again...)
		}
		c := l.serve(soft, hard, s)
		l.up.Store(false)
		select {
		case <-s.lost:
		default:
			s.close()
			l.fleet.disconnected(l, "finished")
			continue
		}
		s.abandon()
		l.fleet.disconnected(l, s.conn.reason())
		l.fleet.stats.lostConnections.Add(1)
		if !c.until.IsZero() {
			failures = 0
			l.pause(soft, hard, time.Until(c.until))
			continue
		}
		if time.Since(began) > time.Second {
			failures = 0
		}
		failures++
		l.pause(soft, hard, backoff(failures, l.fleet.cfg.ReconnectMax))
	}
	l.end()
}

func (l *link) connected(sessionPresent bool) {
	l.up.Store(true)
	l.fleet.connected(l, sessionPresent)
}

// serve publishes what is due until the session is lost (with the cut that did it, if one did), everything is finished,
// or hard is cancelled.
func (l *link) serve(soft, hard context.Context, s *session) cut {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	stopped := soft.Done()
	for {
		wait := l.work(s)
		if l.finished() {
			return cut{}
		}
		if after := l.fleet.cfg.GiveUpAfter; after > 0 {
			l.giveUp(l.store.takeOlder(time.Now().Add(-after)), "gave up")
			wait = min(wait, after/4+time.Millisecond)
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.room:
		case <-s.lost:
			return cut{}
		case c := <-l.cuts:
			if s.since.After(c.at) {
				continue // told while this connection was not up yet
			}
			s.conn.cut(errors.New(c.fault))
			<-s.lost
			return c
		case <-stopped:
			stopped = nil
			l.stop()
		case <-hard.Done():
			return cut{}
		}
	}
}

// work does what is due and returns how long to wait for the next task at most. It returns early after some hundred
// tasks, so that its caller hears of other things in between.
func (l *link) work(s *session) time.Duration {
	defer l.noteNext()
	for range 256 {
		if l.store.len() >= l.fleet.cfg.Inflight {
			return time.Hour // until an acknowledgement makes room
		}
		if len(l.again) > 0 {
			if !s.publish(l.again[0], l.fleet.cfg.QoS, l.store) {
				return time.Hour // until the loss is told
			}
			l.again = l.again[1:]
			continue
		}
		t, ok := l.schedule.next()
		if !ok {
			return time.Hour
		}
		if early := t.at - l.fleet.elapsed(); early > 0 {
			return early
		}
		l.schedule.pop()
		if m := l.due(t); m != nil && !l.publish(s, m) {
			l.schedule.add(task{at: t.at, held: m})
			return time.Hour
		}
	}
	return 0
}

// due turns a task into the message to publish now, if any, and plans what follows from it.
func (l *link) due(t task) *message {
	if t.held != nil {
		return t.held
	}
	o := t.device.take(l.fleet.start)
	l.fleet.stats.readings.Add(1)
	if at, ok := t.device.nextDue(); ok {
		l.schedule.add(task{at: at, device: t.device})
	}
	if o.msg == nil {
		l.fleet.stats.dropped.Add(1)
		return nil
	}
	if o.twice {
		l.schedule.add(task{at: t.at + o.delay + o.again, held: o.msg})
	}
	if o.delay > 0 {
		l.schedule.add(task{at: t.at + o.delay, held: o.msg})
		return nil
	}
	return o.msg
}

// publish hands a message to the session for the first time.
func (l *link) publish(s *session, m *message) bool {
	d := &delivery{id: l.fleet.nextID.Add(1), msg: m}
	if l.fleet.cfg.QoS > 0 {
		return s.publish(d, l.fleet.cfg.QoS, l.store)
	}
	d.since = time.Now()
	if !s.publish(d, 0, l.store) {
		return false
	}
	l.fleet.tell(Publish, l, d, "")
	l.fleet.stats.published.Add(1)
	l.fleet.tell(Sent, l, d, "")
	l.fleet.stats.sent.Add(1)
	return true
}

// stop ends the readings and forgets what was held back.
func (l *link) stop() {
	l.schedule.stop()
	l.noteNext()
}

func (l *link) finished() bool {
	_, more := l.schedule.next()
	return !more && len(l.again) == 0 && l.store.len() == 0
}

// end gives up what is left when the run ends without it.
func (l *link) end() {
	l.giveUp(l.store.takeAll(), "unacknowledged at the end")
	l.giveUp(l.again, "unacknowledged at the end")
	l.again = nil
	for _, t := range l.schedule.tasks {
		switch {
		case t.held != nil:
			l.unsent++
		case t.device.limit >= 0:
			l.unsent += int(t.device.limit - t.device.taken)
		}
	}
	l.schedule.stop()
	l.nextDue.Store(done)
}

func (l *link) giveUp(ds []*delivery, reason string) {
	for _, d := range ds {
		l.fleet.stats.lost.Add(1)
		l.fleet.tell(Lost, l, d, reason)
	}
}

func (l *link) noteNext() {
	if t, ok := l.schedule.next(); ok {
		l.nextDue.Store(int64(t.at))
		return
	}
	l.nextDue.Store(done)
}

// pause waits for d, until hard is cancelled, or until soft is and nothing is left to acknowledge. A storm that comes meanwhile finds the connection down
// already and prolongs the pause to its end.
func (l *link) pause(soft, hard context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		select {
		case c := <-l.cuts:
			timer.Reset(max(0, time.Until(c.until)))
		case <-timer.C:
			return
		case <-soft.Done():
			l.stop()
			if l.finished() {
				return
			}
			soft = hard // unacknowledged messages still need the connection
		case <-hard.Done():
			return
		}
	}
}

// backoff is the pause before attempt n+1: 100 ms doubled n-1 times, at most limit, less up to half by chance so that
// a fleet does not come back in step.
func backoff(n int, limit time.Duration) time.Duration {
	d := min(100*time.Millisecond<<min(n-1, 16), limit)
	return d - time.Duration(rand.Int64N(int64(d)/2+1))
}
