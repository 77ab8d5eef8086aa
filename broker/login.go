package broker

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"sync"
	"time"
)

// logins checks passwords. What was verified once is remembered as an HMAC under a key of this process, so that a site's
// devices do not cost a password hash each whenever they come back; failures are counted by address, and by address and
// name, and beyond their allowance nothing is checked. Whether a name exists shows in neither answer nor time: the check
// takes as long for an unknown one, and its failures are counted alike.
type logins struct {
	verify    func(user string, password []byte) bool
	perMinute int           // failures of one address; negative: no limit
	slots     chan struct{} // as many as processors: verify is running
	key       [sha256.Size]byte

	mu         sync.Mutex
	generation uint64 // of the users
	verified   map[[sha256.Size]byte]struct{}
	failures   map[attempt]*allowance
}

// attempt is where failures come from: an address, or an address and a name.
type attempt struct {
	address netip.Addr
	name    [8]byte // of an HMAC of it; zero: any name
}

const (
	verifiedKept = 1 << 16 // 32 bytes each
	failuresKept = 1 << 16
	namesShare   = 6 // one name may fail this much less often than its address
)

type loginResult byte

const (
	loginRight loginResult = iota
	loginRemembered
	loginWrong
	loginTooMany // failures; the password was not looked at
	loginBusy    // too many others are being checked
)

func newLogins(verify func(string, []byte) bool, perMinute, slots int) *logins {
	l := &logins{verify: verify, perMinute: perMinute, slots: make(chan struct{}, slots),
		verified: map[[sha256.Size]byte]struct{}{}, failures: map[attempt]*allowance{}}
	_, _ = rand.Read(l.key[:]) // never fails
	return l
}

// sum is an HMAC of user, and of password unless it is nil.
func (l *logins) sum(user string, password []byte) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, l.key[:])
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(user)))
	h.Write(n[:])
	h.Write([]byte(user))
	h.Write(password)
	h.Sum(sum[:0])
	return sum
}

// check takes no longer than patience to get its turn. generation is that of the users it asked.
func (l *logins) check(from netip.Addr, user string, password []byte, now int64, patience time.Duration) (r loginResult, generation uint64) {
	key, name := l.sum(user, password), l.sum(user, nil)
	byAddress := attempt{address: network(from)}
	byName := byAddress
	copy(byName.name[:], name[:])
	byName.name[0] |= 1 // not zero

	l.mu.Lock()
	generation = l.generation
	blocked := l.perMinute >= 0 && (!l.allowed(byName, now, l.namesAllowance()) || !l.allowed(byAddress, now, l.perMinute))
	_, known := l.verified[key]
	l.mu.Unlock()
	switch {
	case blocked:
		return loginTooMany, generation
	case known:
		return loginRemembered, generation
	}
	if !l.enter(patience) {
		return loginBusy, generation
	}
	ok := func() bool {
		defer func() { <-l.slots }()
		return l.verify(user, password)
	}()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !ok {
		if l.perMinute >= 0 {
			l.fail(byName, now, l.namesAllowance())
			l.fail(byAddress, now, l.perMinute)
		}
		return loginWrong, generation
	}
	if generation == l.generation {
		if len(l.verified) >= verifiedKept {
			clear(l.verified)
		}
		l.verified[key] = struct{}{}
	}
	return loginRight, generation
}

func (l *logins) namesAllowance() int { return max(1, l.perMinute/namesShare) }

// enter takes a slot; false: none came free in time.
func (l *logins) enter(patience time.Duration) bool {
	select {
	case l.slots <- struct{}{}:
		return true
	default:
	}
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case l.slots <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

// allowed tells whether a may fail once more. l.mu is held.
func (l *logins) allowed(a attempt, now int64, perMinute int) bool {
	f := l.failures[a]
	return f == nil || f.left(now, perMinute) >= 1
}

// fail counts a failure. l.mu is held.
func (l *logins) fail(a attempt, now int64, perMinute int) {
	f := l.failures[a]
	if f == nil {
		if len(l.failures) >= failuresKept {
			l.forgive(now)
		}
		f = &allowance{tokens: float64(perMinute), last: now}
		l.failures[a] = f
	}
	f.spend(now, perMinute)
}

// forgive makes room: whoever failed least lately is forgotten. l.mu is held.
func (l *logins) forgive(now int64) {
	for a, f := range l.failures {
		if now-f.last > int64(time.Minute) {
			delete(l.failures, a)
		}
	}
	for a := range l.failures {
		if len(l.failures) < failuresKept/2 {
			break
		}
		delete(l.failures, a)
	}
}

// changed forgets what was verified: the users changed.
func (l *logins) changed() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	clear(l.verified)
}

func (l *logins) current(generation uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.generation == generation
}

// network is what one customer usually has: an IPv4 address, or 64 bits of IPv6.
func network(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// allowance is a token bucket of one minute's tokens.
type allowance struct {
	tokens float64
	last   int64 // broker time
}

// left refills and returns what may still be spent.
func (a *allowance) left(now int64, perMinute int) float64 {
	most := float64(perMinute)
	a.tokens = min(most, a.tokens+float64(now-a.last)/float64(time.Minute)*most)
	a.last = now
	return a.tokens
}

// spend takes one and tells whether there was one.
func (a *allowance) spend(now int64, perMinute int) bool {
	ok := a.left(now, perMinute) >= 1
	if ok {
		a.tokens--
	}
	return ok
}
