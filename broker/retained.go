package broker

import (
	"sort"
	"strings"
	"sync/atomic"
)

// retained are the messages kept for later subscribers, by topic. It is guarded by sessions.mu.
type retained struct {
	topics map[string]*message
	bytes  int
}

func (r *retained) set(m *message) {
	if old := r.topics[m.topic]; old != nil {
		r.bytes -= old.size()
	}
	r.topics[m.topic] = m
	r.bytes += m.size()
}

func (r *retained) clear(topic string) {
	if old := r.topics[topic]; old != nil {
		r.bytes -= old.size()
		delete(r.topics, topic)
	}
}

// match returns the messages whose topic the filter matches, in the order of their topics.
func (r *retained) match(filter string) []*message {
	if !strings.ContainsAny(filter, "+#") {
		if m := r.topics[filter]; m != nil {
			return []*message{m}
		}
		return nil
	}
	var list []*message
	for topic, m := range r.topics {
		if matches(filter, topic) {
			list = append(list, m)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].topic < list[j].topic })
	return list
}

// matches tells whether topic matches a filter with wildcards: MQTT 5, 4.7.
func matches(filter, topic string) bool {
	if topic[0] == '$' && (filter[0] == '+' || filter[0] == '#') {
		return false
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		if f == "#" {
			return true
		}
		t, trest, tmore := strings.Cut(topic, "/")
		if f != "+" && f != t {
			return false
		}
		if !tmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		filter, topic = frest, trest
	}
}

// retain keeps m for later subscribers or, when it is empty, forgets its topic. It returns whether the store has to know.
func (x *sessions) retain(m *message) bool {
	r := &x.retained
	old := r.topics[m.topic]
	if len(m.payload) == 0 {
		r.clear(m.topic)
		x.countRetained()
		return old != nil
	}
	bytes := m.size()
	if old != nil {
		bytes -= old.size()
	}
	l := &x.b.limits
	if old == nil && l.Retained >= 0 && len(r.topics) >= l.Retained || bytes > 0 && l.RetainedBytes >= 0 && int64(r.bytes+bytes) > l.RetainedBytes {
		x.b.count.retainedRefused.Add(1)
		return false
	}
	r.set(m)
	x.countRetained()
	return true
}

// countRetained brings $SYS up to date.
func (x *sessions) countRetained() {
	atomic.StoreInt64(&x.b.server.Info.Retained, int64(len(x.retained.topics)))
}

// granted is a subscription a client just made.
type granted struct {
	sub     subscription
	existed bool
}

// sendRetained gives a client the retained messages its new subscriptions ask for. It is called by the client's own
// goroutine, and makes only that wait.
func (x *sessions) sendRetained(c *conn, subs []granted) {
	for _, g := range subs {
		f := &g.sub
		if isShared(f.Filter) || f.RetainHandling == 2 || f.RetainHandling == 1 && g.existed {
			continue
		}
		x.mu.Lock()
		list := append(x.retained.match(f.Filter), x.sys.match(f.Filter)...)
		x.mu.Unlock()
		t := targetOf(c.clientID, *f)
		for _, m := range list {
			if !c.hasRoom(x.b.limits.QueueBytes / 2) {
				c.waiting(func() { c.waitQueue(x.b.limits.QueueBytes / 2) })
			}
			if !x.sendOneRetained(c, m, &t) {
				return
			}
		}
	}
}

func isShared(filter string) bool {
	const prefix = "$share/"
	return len(filter) >= len(prefix) && strings.EqualFold(filter[:len(prefix)], prefix)
}

// sendOneRetained returns false when the client is gone.
func (x *sessions) sendOneRetained(c *conn, m *message, t *target) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	s := c.session
	if s == nil || s.conn != c || c.over.Load() {
		return false
	}
	if m.expired(x.b.clock()) || t.noLocal && m.origin == s.id || !x.mayRead(s, m.topic) {
		return true
	}
	flags := min(m.qos, t.qos)<<1 | flagRetain
	if flags&0x06 == 0 {
		s.deliver(m, flags, t.ids)
		return true
	}
	const most = 60_000
	if s.live() >= most || s.bytes+m.size() > x.limits.QueuedBytes || x.queued+m.size() > x.limits.TotalBytes {
		x.b.count.queueRefused.Add(1)
		return true
	}
	e := x.push(s, m, flags, t.ids, true)
	if e != nil && s.stored() {
		_, _ = x.recordMessage(m, false, []delivery{{s, e}})
	}
	x.pump(s, e)
	return true
}

// expireRetained forgets what has expired.
func (x *sessions) expireRetained(now int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for topic, m := range x.retained.topics {
		if m.expired(now) {
			x.retained.clear(topic)
			if x.store != nil {
				x.recordClear(topic)
			}
		}
	}
	x.countRetained()
}
