package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"time"
)

// Config is what New needs. Its zero value serves nobody: name at least one listener.
type Config struct {
	Listeners []ListenerConfig
	// AllowAnonymous admits clients without a name on every listener. Without it, and without Authenticate, a listener
	// that is not loopback is refused by New, and a loopback listener admits clients from this machine.
	AllowAnonymous bool
	// Authenticate tells whether password is user's; nil: there are no users. It may be slow: it runs in the connection's
	// goroutine, and no more than one a processor at a time. What it accepted is not asked again until Broker.Reload is
	// called. password must not be kept.
	Authenticate func(user string, password []byte) bool
	// Rights tells what clients may do; nil: everything.
	Rights Rights
	Limits Limits
	// Store keeps sessions over a restart; nil: they end with the process. It is not closed by the broker.
	Store    *Store
	Sessions SessionLimits
	// CommitInterval is how long the journal gathers messages before a commit. Acknowledgements wait for that anyway, so
	// reads of busy connections are gathered over a part of it; 0: every message is read at once.
	CommitInterval time.Duration
	// Commit makes everything appended to the journal durable before it returns; it is called once, by Run, when nothing
	// is read any more. nil: whatever is not committed by then stays without its acknowledgement.
	Commit func()
	Clock  func() int64 // ns since the Unix epoch; nil: the system's clock
	Log    *slog.Logger // nil: none
}

// ListenerConfig is one address to listen on.
type ListenerConfig struct {
	Address  string // host:port
	Protocol string // "tcp", the default, or "websocket"
	TLS      TLS
}

// TLS is on when CertFile is set. With ClientCAFile clients need a certificate of that authority, whose common name is
// then their user name, and which CRLFile, a list of that authority in PEM or DER, does not revoke. Files are read again
// when they change, at the next handshake.
type TLS struct {
	CertFile, KeyFile, ClientCAFile, CRLFile string
}

// Rights decides what a client may publish and read. It is asked for every publish, subscription, delivery and will, from
// many goroutines. topic is a filter when a subscription is asked about. When its answers change, Broker.Reload is due.
type Rights interface {
	Allowed(clientID, username, topic string, write bool) bool
}

// Limits bound what clients can cost. A zero field is its default; a negative one, where it says so, is no limit.
type Limits struct {
	Connections           int           // 10,000
	ConnectionsPerAddress int           // 1,000; negative: none
	Sessions              int           // 20,000, those whose client is away included; negative: none
	PacketBytes           int           // 256 KiB
	ConnectTimeout        time.Duration // 5 s, from accept to CONNECT, TLS and WebSocket handshakes included
	PublishRate           float64       // messages a second and client, held back by not reading; 0: none
	FailedLogins          int           // 60 a minute and address, a sixth of it for one name; negative: no limit
	Takeovers             int           // 10 a minute and client id; beyond, who has the session keeps it; negative: no limit
	TopicLevels           int           // 32, of topics and filters
	TopicBytes            int           // 1,024, of topics and filters
	Subscriptions         int           // 1,000 a client; negative: none
	Retained              int           // 20,000 messages; negative: none
	RetainedBytes         int64         // 64 MiB, topics and payloads; negative: none
	QueueBytes            int           // 1 MiB waiting for a slow client; beyond it is disconnected
	WriteTimeout          time.Duration // 30 s in which a client takes not one byte; then it is disconnected
	Unacknowledged        int           // 4,096 messages of a client waiting for their commit, then it is not read
	DrainTimeout          time.Duration // 5 s for Run to end once its context has
}

const maxPacketBytes = 268_435_455 // MQTT 5, 1.5.5: the largest remaining length

func (l *Limits) setDefaults() {
	set := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	set(&l.Connections, 10_000)
	set(&l.ConnectionsPerAddress, 1_000)
	set(&l.PacketBytes, 256<<10)
	set(&l.Sessions, 2*max(l.Connections, 10_000))
	set(&l.FailedLogins, 60)
	set(&l.Takeovers, 10)
	set(&l.TopicLevels, 32)
	set(&l.TopicBytes, 1024)
	set(&l.Subscriptions, 1_000)
	set(&l.Retained, 20_000)
	if l.RetainedBytes == 0 {
		l.RetainedBytes = 64 << 20
	}
	set(&l.QueueBytes, 1<<20)
	set(&l.Unacknowledged, 4_096)
	if l.ConnectTimeout == 0 {
		l.ConnectTimeout = 5 * time.Second
	}
	if l.WriteTimeout == 0 {
		l.WriteTimeout = 30 * time.Second
	}
	if l.DrainTimeout == 0 {
		l.DrainTimeout = 5 * time.Second
	}
}

// Validate reports everything that is wrong with c, joined.
func (c *Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(c.Listeners) == 0 {
		bad("listeners: want at least one")
	}
	for i, l := range c.Listeners {
		host, _, err := net.SplitHostPort(l.Address)
		if err != nil {
			bad("listeners[%d]: address %q: want host:port", i, l.Address)
			continue
		}
		switch l.Protocol {
		case "", "tcp", "websocket":
		default:
			bad("listeners[%d]: protocol %q: want tcp or websocket", i, l.Protocol)
		}
		if (l.TLS.CertFile == "") != (l.TLS.KeyFile == "") {
			bad("listeners[%d]: tls: cert_file and key_file belong together", i)
		}
		if l.TLS.ClientCAFile != "" && l.TLS.CertFile == "" {
			bad("listeners[%d]: tls: client_ca_file needs cert_file and key_file", i)
		}
		if l.TLS.CRLFile != "" && l.TLS.ClientCAFile == "" {
			bad("listeners[%d]: tls: crl_file needs client_ca_file", i)
		}
		if !c.AllowAnonymous && c.Authenticate == nil && l.TLS.ClientCAFile == "" && !isLoopback(host) {
			bad("listeners[%d]: %s is reachable from other machines and no users are configured: "+
				"set password_file, client_ca_file or allow_anonymous: true", i, l.Address)
		}
	}
	l := &c.Limits
	if l.PacketBytes < 0 || l.PacketBytes > maxPacketBytes {
		bad("limits: packet_bytes %d: want 1 to %d", l.PacketBytes, maxPacketBytes)
	}
	if l.Connections < 0 || l.QueueBytes < 0 || l.Unacknowledged < 0 || l.PublishRate < 0 || l.TopicLevels < 0 || l.TopicBytes < 0 ||
		l.ConnectTimeout < 0 || l.WriteTimeout < 0 || l.DrainTimeout < 0 || c.CommitInterval < 0 {
		bad("limits: want no negative values")
	}
	return errors.Join(errs...)
}

// isLoopback tells whether only this machine can reach a listener on host.
func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}
