package broker

import (
	"net/netip"
	"sync"
)

// admission counts connections, in total and by address, and says no to the one too many.
type admission struct {
	max, maxPerAddress int // maxPerAddress negative: none

	mu        sync.Mutex
	total     int
	byAddress map[netip.Addr]int
}

func newAdmission(l Limits) *admission {
	return &admission{max: l.Connections, maxPerAddress: l.ConnectionsPerAddress, byAddress: map[netip.Addr]int{}}
}

// enter reports which limit, if any, keeps a connection from addr out. Who was let in must leave.
func (a *admission) enter(addr netip.Addr) (ok, addressFull bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.total >= a.max {
		return false, false
	}
	if a.maxPerAddress >= 0 && a.byAddress[addr] >= a.maxPerAddress {
		return false, true
	}
	a.total++
	a.byAddress[addr]++
	return true, false
}

func (a *admission) leave(addr netip.Addr) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total--
	if a.byAddress[addr]--; a.byAddress[addr] <= 0 {
		delete(a.byAddress, addr)
	}
}

func (a *admission) open() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.total
}
