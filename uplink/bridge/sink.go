// Package bridge delivers points to another MQTT broker with QoS 1: a Sink on the Paho client that takes nothing for delivered but the
// broker's PUBACK. It has a clean session of its own and keeps no messages: what is not acknowledged is still in the outbox. Between
// calls it keeps a connection whose goroutines are the library's; Close ends them.
//
// MQTT 3.1.1 has no way to refuse a message: a broker drops what its access list forbids and acknowledges it all the same, or closes the
// connection. A message that closes it again and again is refused here, on proof: see suspect.
package bridge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"sluice/gateway/telemetry"
	"sluice/uplink"
	"sluice/uplink/stream"
)

// Config of a Sink; zero values are defaults where one is given.
type Config struct {
	URL             string // mqtt://host:1883, mqtts://host:8883 (also tcp, ssl), ws://host:port/path, wss://
	Topic           string // with labels: edge/{site}/{device}
	ClientID        string // this destination's own: two clients of one name throw each other out
	Username        string
	Password        string                  // never shown in errors or logs
	TLS             *tls.Config             // nil: the system's roots, TLS 1.2 or later
	Timeout         time.Duration           // 30 s without an acknowledgement end a Deliver
	MaxMessageBytes int                     // 128 KiB: what the large cloud brokers take
	InFlight        int                     // 100: unacknowledged messages; some brokers close the connection beyond that
	Wrap            func(net.Conn) net.Conn // what every connection goes through, below TLS; nil: nothing
}

// Sink is one broker. Deliver may be called by several goroutines; they take turns.
type Sink struct {
	c     Config
	topic *stream.Template

	mu      sync.Mutex
	conn    *connection // nil: to be made
	queue   stream.Queue
	suspect suspect
	probe   *message // for proof: the last one acknowledged or, before there is any, the last of a batch
}

// schemes are those of URLs, as Paho knows them.
var schemes = map[string]string{
	"mqtt": "tcp", "tcp": "tcp", "mqtts": "ssl", "ssl": "ssl", "tls": "ssl", "ws": "ws", "wss": "wss",
}

// New checks c and returns a Sink. It does not connect.
func New(c Config) (*Sink, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || schemes[u.Scheme] == "" {
		return nil, errors.New(`mqtt: url: want "mqtt://host:1883", "mqtts://host:8883", "ws://" or "wss://", without credentials`)
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), defaultPort[schemes[u.Scheme]])
	}
	u.Scheme = schemes[u.Scheme]
	c.URL = u.String()
	if c.ClientID == "" {
		return nil, errors.New("mqtt: client_id is missing")
	}
	topic, err := stream.ParseTemplate(c.Topic, appendLevel)
	if err != nil {
		return nil, fmt.Errorf("mqtt: topic: %w", err)
	}
	if s := topic.Sample(); strings.ContainsFunc(s, func(r rune) bool { return r != '/' && unfit(r) }) || s[0] == '$' {
		return nil, fmt.Errorf("mqtt: topic: %q: want levels with slashes between, without wildcards, not beginning with $", c.Topic)
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 128 << 10
	}
	if c.InFlight == 0 {
		c.InFlight = 100
	}
	if c.TLS == nil {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	return &Sink{c: c, topic: topic}, nil
}

var defaultPort = map[string]string{"tcp": "1883", "ssl": "8883", "ws": "80", "wss": "443"}

// unfit tells whether r cannot stand in a level of a topic (MQTT 3.1.1, 4.7.1 and 1.5.3).
func unfit(r rune) bool { return r == '/' || r == '+' || r == '#' || r < ' ' || r == 0x7f }

// appendLevel writes value as one level of a topic.
func appendLevel(b []byte, value string) []byte {
	for i := 0; i < len(value); i++ {
		c := value[i]
		if unfit(rune(c)) || c == '$' && len(b) == 0 {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// message is what is published.
type message struct {
	topic string
	body  []byte
}

// Deliver implements uplink.Sink.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.queue.Fill(recs, s.c.MaxMessageBytes, s.appendTopic); len(refused) > 0 {
		return &uplink.Error{Kind: uplink.KindRejected, Detail: refused[0].Detail, Refused: refused}
	}
	messages := s.queue.Messages
	if len(messages) == 0 {
		return nil
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	if s.suspect.condemned(messages[0].ID) {
		return s.prove(ctx, &messages[0])
	}
	careful := 0
	if s.suspect.closed > 0 {
		careful = s.c.InFlight
	}
	acked, err := s.conn.publish(ctx, published(messages), careful)
	s.remember(messages, acked)
	if err == nil {
		s.suspect = suspect{}
		return nil
	}
	first := slices.Index(acked, false)
	if s.conn.lost() {
		s.suspect.note(messages[first].ID)
	}
	s.drop()
	return explain(err)
}

// appendTopic makes the topic of p. Its beginning is that of the buffer's free part, so that $ is seen there.
func (s *Sink) appendTopic(b []byte, p *telemetry.Point) []byte {
	return append(b, s.topic.Append(b[len(b):], p)...)
}

func published(messages []stream.Message) []message {
	out := make([]message, len(messages))
	for i := range messages {
		out[i] = message{string(messages[i].Address), messages[i].Body}
	}
	return out
}

// remember keeps what was acknowledged in a Deliver that broke off, and one message for a proof.
func (s *Sink) remember(messages []stream.Message, acked []bool) {
	broken, last := slices.Contains(acked, false), -1
	for i, ok := range acked {
		if !ok {
			continue
		}
		last = i
		if broken {
			s.queue.Delivered(&messages[i])
		}
	}
	if last < 0 && s.probe == nil && len(messages) > 1 {
		last = len(messages) - 1
	}
	if last >= 0 {
		s.probe = &message{string(messages[last].Address), slices.Clone(messages[last].Body)}
	}
}

// Close ends the connection. Deliver makes a new one.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}

func (s *Sink) drop() {
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
	s.queue.Release()
}

func (s *Sink) connect(ctx context.Context) error {
	if s.conn != nil && !s.conn.lost() {
		return nil
	}
	if s.conn != nil {
		s.conn.close()
		s.conn = nil
	}
	conn, err := dial(ctx, &s.c)
	if err != nil {
		return explain(err)
	}
	s.conn = conn
	return nil
}

// suspect is a message at which the broker closed the connection, while nothing says yet that the message is why. The next Deliver
// sends as many messages one at a time as may have been in flight, so that a second closing is at the right one.
type suspect struct {
	id     string
	closed int // connections in a row that went while it was the first without an acknowledgement
}

// closings of connections at the same message before the proof is attempted.
const closings = 3

func (w *suspect) note(id []byte) {
	if w.id != string(id) {
		*w = suspect{id: string(id)}
	}
	w.closed++
}

func (w *suspect) condemned(id []byte) bool { return w.closed >= closings && w.id == string(id) }

// prove finds out whether m is what the broker closes connections for: another message must pass on this connection, and then m,
// alone, must end it. Only then it is refused.
func (s *Sink) prove(ctx context.Context, m *stream.Message) error {
	if s.probe == nil {
		s.drop()
		s.suspect.closed = closings - 1
		// An unhealing 500 makes the Forwarder try another record, if there is one: that will be the probe.
		return &uplink.Error{Kind: uplink.KindRetry, Status: http.StatusInternalServerError,
			Detail: "the broker closes the connection at this message, and has taken no other yet"}
	}
	if _, err := s.conn.publish(ctx, []message{*s.probe}, 1); err != nil {
		s.drop()
		s.suspect.closed, s.probe = 1, nil
		return explain(err)
	}
	_, err := s.conn.publish(ctx, []message{{string(m.Address), m.Body}}, 1)
	if err == nil {
		s.queue.Delivered(m)
		s.suspect = suspect{}
		return &uplink.Error{Kind: uplink.KindRetry, Detail: "the broker took the message that it had closed connections at"}
	}
	lost := s.conn.lost()
	s.drop()
	if !lost {
		return explain(err)
	}
	s.suspect = suspect{}
	detail := fmt.Sprintf("the broker took another message and closed the connection at this one, the %d. time: %s", closings+1, explain(err).Detail)
	return &uplink.Error{Kind: uplink.KindRejected, Detail: detail,
		Refused: []uplink.Refused{{Index: m.Record, Reason: "rejected", Detail: detail}}}
}

// refusals are CONNACK's return codes that someone must act on.
var refusals = []error{
	packets.ErrorRefusedBadProtocolVersion, packets.ErrorRefusedIDRejected, packets.ErrorRefusedBadUsernameOrPassword,
	packets.ErrorRefusedNotAuthorised,
}

// explain turns an error of the library into what the Forwarder knows.
func explain(err error) *uplink.Error {
	for _, r := range refusals {
		if errors.Is(err, r) {
			return &uplink.Error{Kind: uplink.KindConfig, Detail: "the broker refused the connection: " + r.Error(), Err: err}
		}
	}
	return uplink.TransportError(err)
}
