// Package broker is the gateway's MQTT broker: mochi-mqtt behind our own listeners, connections and hook. Its one
// addition to a plain broker is the promise: a PUBLISH on a topic the Journal covers is appended to it, and its PUBACK or
// PUBREC is held in the connection until the journal says that the message survives power loss.
//
// It never looks into payloads, knows nothing of readings or rules, and never makes one client wait for another: what a
// client does not take is queued up to a bound, then the client is closed.
//
// A plain PUBLISH (QoS 0 or 1, not retained, no properties) is dealt with in the connection; everything else goes through
// the library, and its acknowledgements are held on their way out. Delivery is our own in any case: sessions queue what
// subscribers have not acknowledged, in order, and with a Store they, their subscriptions and retained messages outlive
// the process. The library keeps the index of subscriptions, what clients have of QoS 2 on their way in, and $SYS.
//
// Goroutines: New and Listen start none. Run starts and joins one for each listener, one or two for each connection (its
// reader and, while the peer is slower than we are, a writer; the library adds one of its own), one that releases
// acknowledgements, and on Linux, with a commit interval, one that watches the sockets. The Journal's committer calls
// Committed and Faulted, which only take notes.
package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	mqtt "github.com/mochi-mqtt/server/v2"
)

var idSeed = maphash.MakeSeed()

// Message is a PUBLISH as received. Topic and Payload alias the packet and must be copied to be kept.
type Message struct {
	ClientID, Username, Topic string
	Payload                   []byte
	QoS                       byte
	Retain, Dup               bool
	PacketID                  uint16 // 0 with QoS 0
	Received                  int64  // ns since the Unix epoch
}

// Journal takes the messages the promise covers before they are acknowledged. Its methods are called from many goroutines.
type Journal interface {
	// Covers tells whether the promise holds for topic. It is asked for every publish and must be cheap; topic must not be
	// kept.
	Covers(topic string) bool
	// Append queues m and returns its position; positions rise with each call, but those lost in a fault are given again
	// after Faulted was called. It may wait, as back-pressure, and copies what it keeps. An error means that m was not
	// accepted.
	Append(m *Message) (pos uint64, err error)
	// Durable is the position up to which everything survives power loss.
	Durable() uint64
}

// Broker serves MQTT. Its methods are safe for concurrent use.
type Broker struct {
	cfg     Config
	limits  Limits
	journal Journal
	log     *slog.Logger
	clock   func() int64 // ns since the Unix epoch
	started time.Time
	poller  *poller // nil: the runtime's
	workers *workers
	apart   bool // without poller, as on other systems than Linux; for tests

	server    *mqtt.Server
	sessions  *sessions
	listeners []*listener
	admission *admission
	count     counters
	logins    *logins        // nil: there are no users
	idLocks   [64]sync.Mutex // by hash of the client id
	// Raised with each subscription made, so that what connections remember of topics is looked up again.
	subscriptions atomic.Uint64
	refusing      atomic.Bool // the journal took nothing lately; its first refusal was logged

	committed atomic.Uint64
	faults    atomic.Pointer[faults]
	due       chan struct{} // 1 slot: acknowledgements may be due; dropped when full
	dirtyMu   sync.Mutex
	dirty     []*conn // with acknowledgements held
	released  []*conn // the memory of the list before; the releaser's

	stopping    chan struct{} // closed when Run begins to drain
	draining    atomic.Bool
	parked      atomic.Int64   // connections that no longer read
	left        atomic.Int64   // connections that ended since giveMemoryBack looked
	connections sync.WaitGroup // their goroutines
	writers     sync.WaitGroup // the goroutines that write for them
	mu          sync.Mutex
	conns       map[*conn]struct{}
}

// maxPace bounds what gathering may add to the answer to a ping.
const maxPace = 10 * time.Millisecond

// New checks cfg and reads its certificates. It binds nothing and starts nothing.
func New(cfg Config, j Journal) (*Broker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Limits.setDefaults()
	b := &Broker{
		cfg: cfg, limits: cfg.Limits, journal: j, log: cfg.Log, clock: cfg.Clock, started: time.Now(),
		admission: newAdmission(cfg.Limits),
		workers:   newWorkers(),
		due:       make(chan struct{}, 1),
		stopping:  make(chan struct{}),
		conns:     map[*conn]struct{}{},
	}
	if b.log == nil {
		b.log = slog.New(slog.DiscardHandler)
	}
	if b.clock == nil {
		b.clock = func() int64 { return time.Now().UnixNano() }
	}
	b.faults.Store(&faults{})
	if cfg.Authenticate != nil {
		b.logins = newLogins(cfg.Authenticate, cfg.Limits.FailedLogins, runtime.GOMAXPROCS(0))
	}
	for i, l := range cfg.Listeners {
		t, err := loadTLS(l.TLS)
		if err != nil {
			return nil, fmt.Errorf("listeners[%d]: tls: %w", i, err)
		}
		host, _, _ := net.SplitHostPort(l.Address)
		b.listeners = append(b.listeners, &listener{cfg: l, tls: t, loopback: isLoopback(host)})
	}
	b.server = mqtt.New(b.options())
	b.sessions = newSessions(b, cfg.Sessions, cfg.Store)
	b.sessions.restore()
	if err := b.server.AddHook(&hook{b: b}, nil); err != nil {
		return nil, fmt.Errorf("add hook: %w", err)
	}
	return b, nil
}

// options are mochi's, away from its defaults where those lose messages or cost memory.
func (b *Broker) options() *mqtt.Options {
	c := mqtt.NewDefaultServerCapabilities()
	c.MaximumPacketSize = uint32(b.limits.PacketBytes)
	c.MaximumMessageExpiryInterval = 0 // else it adds an expiry to every message, and deletes retained ones after a day
	l := b.cfg.Sessions
	l.setDefaults()
	c.MaximumSessionExpiryInterval = uint32(l.Expiry / time.Second)
	c.MaximumClientWritesPending = 0 // it delivers nothing
	c.MaximumInflight = 1000
	c.ReceiveMaximum = uint16(min(b.limits.Unacknowledged, math.MaxUint16))
	c.TopicAliasMaximum = 64 // told to clients; resolveAlias holds it
	c.Compatibilities.ObscureNotAuthorized = true
	c.Compatibilities.NoInheritedPropertiesOnAck = true
	return &mqtt.Options{
		Capabilities:             c,
		ClientNetWriteBufferSize: 1, // whole frames at once: the connection gathers them, and keeps their order
		Logger:                   slog.New(errorsOnly{b.log.Handler()}),
	}
}

// errorsOnly keeps the library's warnings, which carry whole packets, out of the log.
type errorsOnly struct{ slog.Handler }

func (h errorsOnly) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelError && h.Handler.Enabled(ctx, l)
}
func (h errorsOnly) WithAttrs(a []slog.Attr) slog.Handler { return errorsOnly{h.Handler.WithAttrs(a)} }
func (h errorsOnly) WithGroup(g string) slog.Handler      { return errorsOnly{h.Handler.WithGroup(g)} }

// Listen binds the sockets, so that addresses are known and privileges can be dropped before Run.
func (b *Broker) Listen() error {
	for i, l := range b.listeners {
		if l.Listener != nil {
			continue
		}
		s, err := net.Listen("tcp", l.cfg.Address)
		if err != nil {
			for _, l := range b.listeners[:i] {
				_ = l.Close()
				l.Listener = nil
			}
			return fmt.Errorf("listen on %s: %w", l.cfg.Address, err)
		}
		l.Listener = s
	}
	return nil
}

// Addrs returns the addresses bound by Listen, in the order of Config.Listeners.
func (b *Broker) Addrs() []net.Addr {
	var a []net.Addr
	for _, l := range b.listeners {
		if l.Listener != nil {
			a = append(a, l.Addr())
		}
	}
	return a
}

// Run serves until ctx ends, then drains: it stops accepting, stops reading, lets the journal commit, sends the
// acknowledgements that became due, says goodbye to MQTT 5 clients and closes, in little more than Limits.DrainTimeout.
// It listens first if Listen was not called. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	if err := b.Listen(); err != nil {
		return err
	}
	if !b.apart {
		// A little longer than a commit takes to come round: as a rule the poller looks when one has just released something.
		pace := min(b.cfg.CommitInterval*6/5, maxPace).Truncate(time.Millisecond)
		p, err := newPoller(pace, b.workers, b.now)
		switch {
		case err == nil:
			b.poller = p
			go p.run()
		case !errors.Is(err, errors.ErrUnsupported):
			b.log.Warn("connections are watched one by one", "err", err)
		}
	}
	released := make(chan struct{})
	stopReleasing := make(chan struct{})
	var keeping sync.WaitGroup
	stopKeeping, stopStoring := make(chan struct{}), make(chan struct{})
	keeping.Go(func() { b.sessions.housekeeping(stopKeeping) })
	if st := b.cfg.Store; st != nil {
		keeping.Go(func() { st.commitUntil(stopStoring, b.sessions.committed) })
	}
	// Last of all: what the end of connections leaves behind is stored, too.
	defer keeping.Wait()
	defer close(stopStoring)
	go func() {
		defer close(released)
		b.releaseUntil(stopReleasing)
	}()
	go b.giveMemoryBack(stopReleasing)
	var accepting sync.WaitGroup
	for _, l := range b.listeners {
		accepting.Go(func() { b.accept(l) })
	}
	<-ctx.Done()

	deadline := time.Now().Add(b.limits.DrainTimeout)
	close(b.stopping)
	close(stopKeeping)
	for _, l := range b.listeners {
		_ = l.Close()
	}
	accepting.Wait()
	b.stopReading(time.Until(deadline) / 2)
	b.lastCommit(time.Until(deadline))
	close(stopReleasing)
	<-released
	b.releaseDue()
	if n := b.closeAll(time.Until(deadline)); n > 0 {
		return fmt.Errorf("stop broker: %d connections still wait for the journal", n)
	}
	if b.poller != nil {
		b.poller.close()
	}
	b.workers.end()
	return nil
}

func (b *Broker) releaseUntil(stop <-chan struct{}) {
	for {
		select {
		case <-b.due:
			func() {
				defer b.recovered("release of acknowledgements")
				b.releaseDue()
			}()
			if b.poller != nil {
				b.poller.look()
			}
		case <-stop:
			return
		}
	}
}

// stopReading lets each connection finish the frames it has, and waits for them, but no longer than patience.
func (b *Broker) stopReading(patience time.Duration) {
	b.draining.Store(true)
	conns := b.all()
	for _, c := range conns {
		c.mu.Lock()
		if !c.closing {
			_ = c.nc.SetReadDeadline(past)
		}
		c.mu.Unlock()
	}
	by := time.Now().Add(patience)
	for int(b.parked.Load()) < b.established(conns) && time.Now().Before(by) {
		time.Sleep(time.Millisecond)
	}
}

// established counts those of conns that are past CONNECT and not closing.
func (b *Broker) established(conns []*conn) (n int) {
	for _, c := range conns {
		c.mu.Lock()
		if c.cl != nil && c.connacked && !c.closing {
			n++
		}
		c.mu.Unlock()
	}
	return n
}

func (b *Broker) lastCommit(patience time.Duration) {
	if b.cfg.Commit == nil {
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.cfg.Commit()
	}()
	if !closedWithin(done, patience) {
		b.log.Warn("gave up waiting for the last commit", "after", patience)
	}
}

// closeAll says goodbye and waits for the connections to end, if need be by force. It returns how many did not: those
// that wait in Journal.Append, which nothing here can end.
func (b *Broker) closeAll(patience time.Duration) int {
	conns := b.all()
	for _, c := range conns {
		_ = c.disconnect(reasonShuttingDown)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.connections.Wait()
		b.writers.Wait()
	}()
	if closedWithin(done, max(patience, 100*time.Millisecond)) {
		return 0
	}
	for _, c := range conns {
		c.mu.Lock()
		_ = c.nc.Close()
		c.mu.Unlock()
	}
	if closedWithin(done, time.Second) {
		return 0
	}
	return b.admission.open()
}

func closedWithin(done <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return true
	case <-t.C:
		return false
	}
}

// Committed tells that everything up to pos survives power loss. Called by the journal's committer after each commit, in
// order; it never waits and touches no socket.
func (b *Broker) Committed(pos uint64) {
	b.committed.Store(pos)
	if b.refusing.Load() {
		b.refusing.Store(false)
	}
	b.wake()
}

// Faulted tells that the journal lost what was not durable, and may give those positions again once Faulted has
// returned. Acknowledgements beyond Durable are never sent: their MQTT 5 clients get DISCONNECT 0x97, others are closed,
// and resend. Called by the committer, like Committed; it never waits either.
func (b *Broker) Faulted(err error) {
	b.faults.Store(b.faults.Load().after(b.durable()))
	b.log.Error("journal failed: messages without acknowledgement have to be sent again", "err", err)
	b.wake()
}

// refusedBecause logs the first of a run of refusals.
func (b *Broker) refusedBecause(err error) {
	if !b.refusing.Load() && !b.refusing.Swap(true) {
		b.log.Error("journal takes no messages: nothing is acknowledged", "err", err)
	}
}

// lockOf is the lock of a client id's session.
func (b *Broker) lockOf(id string) *sync.Mutex {
	return &b.idLocks[maphash.String(idSeed, id)%uint64(len(b.idLocks))]
}
