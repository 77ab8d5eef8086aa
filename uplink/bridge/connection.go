package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// connection is one network connection and a Paho client of its own. What Paho does over several connections of a client makes its tokens no
// evidence of an acknowledgement, so there is only one, and the evidence is taken where the library acts on the PUBACK packet:
// when it deletes the message from its store.
type connection struct {
	client  mqtt.Client
	store   *acks
	gone    chan struct{} // closed when the connection is lost
	timeout time.Duration
	window  int

	mu  sync.Mutex
	why error // of gone
}

// errLost is the error of a connection that went.
var errLost = errors.New("the broker closed the connection")

// writeTimeout bounds one packet: a publish to a connection that takes nothing is stuck that long.
const writeTimeout = 10 * time.Second

// dial connects and logs in.
func dial(ctx context.Context, c *Config) (*connection, error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout) // Paho has none for a TLS handshake through a proxy
	defer cancel()
	n := &connection{store: &acks{}, gone: make(chan struct{}), timeout: c.Timeout, window: c.InFlight}
	o := mqtt.NewClientOptions().AddBroker(c.URL).SetClientID(c.ClientID).SetUsername(c.Username).SetPassword(c.Password).
		SetTLSConfig(c.TLS).SetProtocolVersion(4).SetCleanSession(true).SetStore(n.store).
		SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(min(10*time.Second, c.Timeout)).
		SetWriteTimeout(writeTimeout).SetKeepAlive(30 * time.Second).SetPingTimeout(10 * time.Second).SetOrderMatters(false).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { n.lose(err) })
	if c.Wrap != nil {
		o.SetCustomOpenConnectionFn(func(u *url.URL, o mqtt.ClientOptions) (net.Conn, error) { return openWrapped(ctx, u, &o, c.Wrap) })
	}
	n.client = mqtt.NewClient(o)
	t := n.client.Connect()
	select {
	case <-t.Done():
	case <-ctx.Done():
		go func() { // over within ConnectTimeout where nothing is in between
			<-t.Done()
			n.client.Disconnect(0)
		}()
		return nil, ctx.Err()
	}
	if err := t.Error(); err != nil {
		return nil, err
	}
	return n, nil
}

func (n *connection) lose(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.why == nil {
		n.why = fmt.Errorf("%w: %w", errLost, err)
		close(n.gone)
	}
}

// lost tells whether the connection went by itself.
func (n *connection) lost() bool {
	select {
	case <-n.gone:
		return true
	default:
		return false
	}
}

// close ends the connection without waiting for anything.
func (n *connection) close() {
	go n.client.Disconnect(0) // may take as long as a write that is stuck
}

// publish sends messages and returns which of them were acknowledged; err is nil when all are. Nothing acknowledged for n.timeout
// ends it. The first careful messages are sent one at a time.
func (n *connection) publish(ctx context.Context, messages []message, careful int) (acked []bool, err error) {
	round := newRound(len(messages), n.window)
	n.store.begin(round)
	defer n.store.begin(nil)
	stop := make(chan struct{})
	sent := make(chan error, 1)
	go func() { sent <- n.send(messages, careful, round, stop) }()
	defer close(stop)
	patience := time.NewTimer(n.timeout)
	defer patience.Stop()
	for {
		select {
		case <-round.all:
			return round.snapshot(), nil
		case <-round.progress:
			patience.Reset(n.timeout)
			continue
		case err := <-sent:
			if err == nil {
				sent = nil
				continue
			}
			return n.ended(round, err)
		case <-n.gone:
			return n.ended(round, n.why)
		case <-ctx.Done():
			return n.ended(round, ctx.Err())
		case <-patience.C:
			return n.ended(round, fmt.Errorf("no acknowledgement within %s: %w", n.timeout, context.DeadlineExceeded))
		}
	}
}

// ended is the end of a round that did not go well, unless the last acknowledgement came with it.
func (n *connection) ended(r *round, err error) ([]bool, error) {
	acked := r.snapshot()
	for _, ok := range acked {
		if !ok {
			return acked, err
		}
	}
	return acked, nil
}

// send publishes in order, never more than the window without an acknowledgement.
func (n *connection) send(messages []message, careful int, r *round, stop <-chan struct{}) error {
	for i := range messages {
		select {
		case r.room <- struct{}{}:
		case <-stop:
			return nil
		case <-n.gone:
			return nil
		}
		n.store.next(r, i)
		t := n.client.Publish(messages[i].topic, 1, false, messages[i].body)
		if i < careful {
			select {
			case <-t.Done(): // acknowledged or not, no other is in flight
			case <-stop:
				return nil
			case <-n.gone:
				return nil
			}
		}
		select {
		case <-t.Done():
			if err := t.Error(); err != nil && !n.lost() {
				return err
			}
		default:
		}
	}
	return nil
}

// round is one publish.
type round struct {
	room     chan struct{} // holds one for each message in flight
	all      chan struct{} // closed when every message is acknowledged
	progress chan struct{} // 1: an acknowledgement came; more signals merge

	mu    sync.Mutex
	acked []bool
	left  int
}

func newRound(n, window int) *round {
	return &round{
		room: make(chan struct{}, window), all: make(chan struct{}), progress: make(chan struct{}, 1),
		acked: make([]bool, n), left: n,
	}
}

func (r *round) ack(i int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.acked[i] {
		return
	}
	r.acked[i] = true
	if r.left--; r.left == 0 {
		close(r.all)
	}
	<-r.room
	select {
	case r.progress <- struct{}{}:
	default:
	}
}

func (r *round) snapshot() []bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]bool(nil), r.acked...)
}

// acks is the store that Paho writes its messages to, of which it only keeps whose they are: Put comes from Publish, Del from PUBACK.
type acks struct {
	mu      sync.Mutex
	round   *round
	current int            // the message being published
	open    map[string]int // key in the store > message
}

func (a *acks) begin(r *round) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.round, a.current, a.open = r, -1, make(map[string]int)
}

// next says that message i of r is about to be published.
func (a *acks) next(r *round, i int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.round == r {
		a.current = i
	}
}

// Put implements mqtt.Store.
func (a *acks) Put(key string, p packets.ControlPacket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, ok := p.(*packets.PublishPacket); ok && a.round != nil && a.current >= 0 {
		a.open[key] = a.current
		a.current = -1
	}
}

// Del implements mqtt.Store.
func (a *acks) Del(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if i, ok := a.open[key]; ok {
		delete(a.open, key)
		a.round.ack(i)
	}
}

// Open implements mqtt.Store.
func (a *acks) Open() {}

// Get implements mqtt.Store.
func (a *acks) Get(string) packets.ControlPacket { return nil }

// All implements mqtt.Store.
func (a *acks) All() []string { return nil }

// Close implements mqtt.Store.
func (a *acks) Close() {}

// Reset implements mqtt.Store.
func (a *acks) Reset() {}
