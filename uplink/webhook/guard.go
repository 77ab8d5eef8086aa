package webhook

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// blockedError says that an address must not be called.
type blockedError struct {
	addr netip.Addr
	why  string
}

func (e *blockedError) Error() string {
	return fmt.Sprintf("%s is %s: not called unless it is listed under allow", e.addr, e.why)
}

// guard returns a check for net.Dialer. It sees the address that is about to be dialled, after the name was resolved: a name that changes its
// address between two look-ups gains nothing.
func guard(allow []netip.Prefix) func(ctx context.Context, network, address string, _ syscall.RawConn) error {
	return func(_ context.Context, network, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("dial %s: %w", network, err)
		}
		return check(ap.Addr(), allow, ownAddresses)
	}
}

func check(addr netip.Addr, allow []netip.Prefix, own func() []netip.Addr) error {
	addr = addr.WithZone("").Unmap()
	for _, p := range allow {
		if p.Contains(addr) {
			return nil
		}
	}
	if why := special(addr); why != "" {
		return &blockedError{addr, why}
	}
	for _, a := range own() {
		if a == addr {
			return &blockedError{addr, "an address of this machine"}
		}
	}
	return nil
}

// specialRanges are those of the IANA special-purpose registries that netip has no word for.
var specialRanges = []struct {
	prefix netip.Prefix
	why    string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "an address of this network"},
	{netip.MustParsePrefix("100.64.0.0/10"), "an address of a provider's own network"},
	{netip.MustParsePrefix("192.0.0.0/24"), "a reserved address"},
	{netip.MustParsePrefix("198.18.0.0/15"), "an address for benchmarks"},
	{netip.MustParsePrefix("240.0.0.0/4"), "a reserved address"},
	{netip.MustParsePrefix("fec0::/10"), "a private address"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "a private address"},
}

// carriers hold an IPv4 address that is called in the end: NAT64 (RFC 6052), 6to4 (RFC 3056), and the old compatible form.
var carriers = []struct {
	prefix netip.Prefix
	at     int // its first byte
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("::/96"), 12},
}

// special tells why an address is not an ordinary public one, "" when it is.
func special(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsPrivate():
		return "a private address"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsMulticast():
		return "a multicast address"
	}
	for _, r := range specialRanges {
		if r.prefix.Contains(a) {
			return r.why
		}
	}
	for _, c := range carriers {
		if c.prefix.Contains(a) {
			b := a.As16()
			return special(netip.AddrFrom4([4]byte(b[c.at : c.at+4])))
		}
	}
	return ""
}

// ownAddresses lists the machine's addresses; an error leaves the list empty, and special still holds.
func ownAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var own []netip.Addr
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				own = append(own, addr.Unmap())
			}
		}
	}
	return own
}
