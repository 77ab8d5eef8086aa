package console

import (
	lru "container/list"
	"net/netip"
	"sync"
	"time"
)

// attempts bounds how often somebody may fail within a time. A key that fails has so many failures at once, and then one each interval;
// success gives the failure back. Memory is bounded: of more keys than it keeps the one not heard of for longest is forgotten.
type attempts struct {
	burst int
	every time.Duration // one more each
	keep  int           // keys

	mu    sync.Mutex
	byKey map[string]*lru.Element
	order *lru.List // of *attempt, the latest first
}

type attempt struct {
	key  string
	left float64
	at   time.Time
}

func newAttempts(burst int, every time.Duration, keep int) *attempts {
	return &attempts{burst: burst, every: every, keep: keep, byKey: map[string]*lru.Element{}, order: lru.New()}
}

// take takes one attempt, or says how long to wait for one.
func (a *attempts) take(key string, now time.Time) (wait time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.byKey[key]
	if e == nil {
		if a.order.Len() == a.keep {
			oldest := a.order.Remove(a.order.Back()).(*attempt)
			delete(a.byKey, oldest.key)
		}
		e = a.order.PushFront(&attempt{key: key, left: float64(a.burst), at: now})
		a.byKey[key] = e
	}
	a.order.MoveToFront(e)
	one := e.Value.(*attempt)
	one.left = min(float64(a.burst), one.left+float64(max(0, now.Sub(one.at)))/float64(a.every))
	one.at = now
	if one.left < 1 {
		return max(time.Millisecond, time.Duration((1-one.left)*float64(a.every)))
	}
	one.left--
	return 0
}

// giveBack takes back what take took.
func (a *attempts) giveBack(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.byKey[key]; e != nil {
		one := e.Value.(*attempt)
		one.left = min(float64(a.burst), one.left+1)
	}
}

// addressKey is whose attempts count together: an IPv4 address, or the /64 that a site with IPv6 has at least.
func addressKey(remote string) string {
	at, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	addr := at.Addr().Unmap().WithZone("")
	if addr.Is6() {
		if p, err := addr.Prefix(64); err == nil {
			return p.String()
		}
	}
	return addr.String()
}

// recent is a bounded set: of more than it keeps the oldest is forgotten.
type recent struct {
	mu    sync.Mutex
	keep  int
	has   map[string]bool
	order []string
}

func (r *recent) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.has[key] {
		return
	}
	if r.has == nil {
		r.has = map[string]bool{}
	}
	if len(r.order) == r.keep {
		delete(r.has, r.order[0])
		r.order = r.order[1:]
	}
	r.has[key] = true
	r.order = append(r.order, key)
}

func (r *recent) holds(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.has[key]
}
