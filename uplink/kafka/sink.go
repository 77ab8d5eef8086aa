// Package kafka delivers points to an Apache Kafka topic: a Sink on franz-go's idempotent producer, acknowledged by every in-sync
// replica, keyed by the device's labels so that what one device measured stays in order in one partition. Between calls it keeps a client
// whose goroutines are the library's; Close ends them.
package kafka

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"sluice/gateway/telemetry"
	"sluice/uplink"
	"sluice/uplink/stream"
)

// Config of a Sink; zero values are defaults where one is given.
type Config struct {
	Brokers         []string // host:port; one that answers is enough, it names the others
	Topic           string   // exists; it is not created
	ClientID        string   // "sluice": for the brokers' logs and quotas
	Username        string   // empty: no SASL
	Password        string   // never shown in errors or logs
	SASL            string   // with Username: plain (default), scram-sha-256, scram-sha-512
	TLS             *tls.Config
	Timeout         time.Duration           // 30 s for one Deliver
	MaxMessageBytes int                     // 1,000,012: Kafka's default of max.message.bytes, before compression
	Wrap            func(net.Conn) net.Conn // what every connection goes through, below TLS; nil: nothing
}

// recordOverhead is more than what a batch, the headers and the key's length take beside key and value.
const recordOverhead = 512

// mechanisms are the ways to log in.
var mechanisms = map[string]func(user, password string) sasl.Mechanism{
	"plain": func(u, p string) sasl.Mechanism { return plain.Auth{User: u, Pass: p}.AsMechanism() },
	"scram-sha-256": func(u, p string) sasl.Mechanism {
		return scram.Auth{User: u, Pass: p}.AsSha256Mechanism()
	},
	"scram-sha-512": func(u, p string) sasl.Mechanism {
		return scram.Auth{User: u, Pass: p}.AsSha512Mechanism()
	},
}

// Sink is one topic. Deliver may be called by several goroutines; they take turns.
type Sink struct {
	topic    string
	timeout  time.Duration
	maxBytes int
	options  []kgo.Opt
	link     link

	mu      sync.Mutex
	client  *kgo.Client // nil: to be made
	queue   stream.Queue
	records []kgo.Record
}

// New checks c and returns a Sink. It does not connect.
func New(c Config) (*Sink, error) {
	switch {
	case len(c.Brokers) == 0:
		return nil, errors.New("kafka: brokers: want at least one host:port")
	case c.Topic == "":
		return nil, errors.New("kafka: topic is missing")
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.MaxMessageBytes == 0 {
		c.MaxMessageBytes = 1_000_012
	}
	if c.ClientID == "" {
		c.ClientID = "sluice"
	}
	s := &Sink{topic: c.Topic, timeout: c.Timeout, maxBytes: c.MaxMessageBytes - recordOverhead}
	s.link.tls, s.link.timeout, s.link.wrap = c.TLS, min(10*time.Second, c.Timeout), c.Wrap
	s.options = []kgo.Opt{
		kgo.SeedBrokers(c.Brokers...),
		kgo.ClientID(c.ClientID),
		kgo.SoftwareNameAndVersion("sluice", "1"),
		kgo.DefaultProduceTopic(c.Topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchMaxBytes(int32(c.MaxMessageBytes)),
		kgo.ProducerBatchCompression(kgo.ZstdCompression(), kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ManualFlushing(),
		kgo.MaxBufferedRecords(1 << 20), // Deliver has an end of its own
		// The Forwarder waits and tries again, and says what the brokers said: a few tries of the library's are enough. A Deliver that
		// was given up may have been stored all the same: ids tell.
		kgo.RecordRetries(3),
		kgo.UnknownTopicRetries(1),
		kgo.MetadataMinAge(500 * time.Millisecond), // each of those tries waits for new metadata
		kgo.RequestRetries(2),
		kgo.AllowIdempotentProduceCancellation(),
		kgo.DisableClientMetrics(),
		kgo.Dialer(s.link.dial),
		kgo.WithHooks(&s.link),
	}
	if c.Username != "" {
		mechanism, ok := mechanisms[c.SASL]
		if c.SASL == "" {
			mechanism, ok = mechanisms["plain"], true
		}
		if !ok {
			return nil, fmt.Errorf("kafka: sasl: want plain, scram-sha-256 or scram-sha-512, got %q", c.SASL)
		}
		s.options = append(s.options, kgo.SASL(mechanism(c.Username, c.Password)))
	}
	if err := kgo.ValidateOpts(s.options...); err != nil {
		return nil, fmt.Errorf("kafka: %w", err)
	}
	return s, nil
}

// Deliver implements uplink.Sink.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refused := s.queue.Fill(recs, s.maxBytes, appendKey); len(refused) > 0 {
		return &uplink.Error{Kind: uplink.KindRejected, Detail: refused[0].Detail, Refused: refused}
	}
	if len(s.queue.Messages) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if err := s.connect(ctx); err != nil {
		return err
	}
	messages := s.queue.Messages
	return s.judge(messages, s.produce(ctx))
}

// Close ends the client. Deliver makes a new one.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}

// drop closes the client: what it had in flight is given up, and its buffers are left to it.
func (s *Sink) drop() {
	if s.client != nil {
		s.link.cut()
		s.client.Close()
		s.client = nil
	}
	s.queue.Release()
	s.records = nil
}

// connect makes a client and proves that one broker answers and lets us in; a client that is there looks after itself.
func (s *Sink) connect(ctx context.Context) error {
	if s.client != nil {
		return nil
	}
	s.link.open()
	client, err := kgo.NewClient(s.options...)
	if err != nil {
		return &uplink.Error{Kind: uplink.KindConfig, Detail: err.Error(), Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	stop := context.AfterFunc(ctx, s.link.cut)
	defer stop()
	if err := client.Ping(ctx); err != nil {
		s.link.cut()
		client.Close()
		return s.explain(err)
	}
	s.client = client
	return nil
}

// outcome gathers what became of the messages of one Deliver, from the library's goroutines.
type outcome struct {
	all chan struct{} // closed when every message has its end

	mu   sync.Mutex
	errs []error
	left int
}

// errPending stands for a message whose end is not known.
var errPending = errors.New("given up unacknowledged")

func (o *outcome) settle(i int, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.errs[i] = err
	if o.left--; o.left == 0 {
		close(o.all)
	}
}

func (o *outcome) snapshot() []error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.errs)
}

// produce sends the queue and returns what became of each message.
func (s *Sink) produce(ctx context.Context) []error {
	n := len(s.queue.Messages)
	if cap(s.records) < n {
		s.records = make([]kgo.Record, n)
	}
	s.records = s.records[:n]
	o := &outcome{all: make(chan struct{}), errs: make([]error, n), left: n}
	for i := range o.errs {
		o.errs[i] = errPending
	}
	for i := range s.queue.Messages {
		m := &s.queue.Messages[i]
		r := &s.records[i]
		*r = kgo.Record{
			Key: m.Address, Value: m.Body, Timestamp: time.Unix(0, m.Time),
			Headers: []kgo.RecordHeader{{Key: "id", Value: m.ID}, {Key: "content-type", Value: contentType}},
		}
		s.client.Produce(ctx, r, func(_ *kgo.Record, err error) { o.settle(i, err) })
	}
	if s.client.Flush(ctx) != nil {
		// Nobody knows what becomes of the rest. Closing the client makes an end of it.
		s.drop()
	}
	settled := time.NewTimer(time.Second)
	defer settled.Stop()
	select {
	case <-o.all:
	case <-settled.C: // a client that was closed ends its records, but from goroutines of its own
	}
	return o.snapshot()
}

var contentType = []byte("application/json")

// judge makes one error of what became of the messages; nil when all are stored.
func (s *Sink) judge(messages []stream.Message, errs []error) error {
	var worst *uplink.Error
	failed, last := 0, 0
	for i, err := range errs {
		if err == nil {
			continue
		}
		failed, last = failed+1, i
		if e := s.explain(err); worst == nil || severity[e.Kind] > severity[worst.Kind] {
			worst = e
		}
	}
	if worst == nil {
		return nil
	}
	for i, err := range errs {
		if err == nil {
			s.queue.Delivered(&messages[i])
		}
	}
	if failed == 1 && worst.Kind == uplink.KindRejected {
		worst.Refused = []uplink.Refused{{Index: messages[last].Record, Reason: "rejected", Detail: worst.Detail}}
	}
	if worst.Kind != uplink.KindRejected && worst.Kind != uplink.KindTooLarge {
		s.drop()
	}
	return worst
}

// severity orders kinds where messages of one Deliver fail in different ways: nothing is quarantined while the topic is
// not in order.
var severity = map[uplink.Kind]int{uplink.KindRejected: 1, uplink.KindTooLarge: 2, uplink.KindRetry: 3, uplink.KindConfig: 4}

// kinds are the brokers' answers that are not to be tried again as they are.
var kinds = []struct {
	err  *kerr.Error
	kind uplink.Kind
}{
	{kerr.MessageTooLarge, uplink.KindTooLarge},
	{kerr.RecordListTooLarge, uplink.KindTooLarge},
	{kerr.InvalidRecord, uplink.KindRejected},
	{kerr.InvalidTimestamp, uplink.KindRejected},
	{kerr.UnknownTopicOrPartition, uplink.KindConfig},
	{kerr.UnknownTopicID, uplink.KindConfig},
	{kerr.InvalidTopicException, uplink.KindConfig},
	{kerr.TopicAuthorizationFailed, uplink.KindConfig},
	{kerr.ClusterAuthorizationFailed, uplink.KindConfig},
	{kerr.TransactionalIDAuthorizationFailed, uplink.KindConfig},
	{kerr.SaslAuthenticationFailed, uplink.KindConfig},
	{kerr.UnsupportedSaslMechanism, uplink.KindConfig},
	{kerr.IllegalSaslState, uplink.KindConfig},
	{kerr.UnsupportedVersion, uplink.KindConfig},
	{kerr.UnsupportedForMessageFormat, uplink.KindConfig},
}

// explain turns an error of the library into what the Forwarder knows.
func (s *Sink) explain(err error) *uplink.Error {
	var answer *kerr.Error
	if errors.As(err, &answer) {
		kind := uplink.KindRetry
		for _, k := range kinds {
			if k.err.Code == answer.Code {
				kind = k.kind
			}
		}
		detail := answer.Message + ": " + answer.Description
		if kind == uplink.KindConfig && strings.Contains(answer.Message, "TOPIC") {
			detail = "topic " + s.topic + ": " + detail
		}
		return &uplink.Error{Kind: kind, Detail: detail, Err: err}
	}
	if errors.Is(err, kgo.ErrClientClosed) || errors.Is(err, errPending) {
		err = context.DeadlineExceeded // the client was closed because time was up, see produce
	}
	e := uplink.TransportError(err)
	if errors.Is(err, io.EOF) {
		e.Detail = "the broker closed the connection without a word: another protocol, TLS expected, or a login refused"
	}
	if why := s.link.reason(); why != "" && e.Kind == uplink.KindRetry && !strings.Contains(e.Detail, why) && !errors.Is(err, context.Canceled) {
		e.Detail += "; the latest connection: " + why
	}
	return e
}

// appendKey writes the labels of a point, without its window, as name=value pairs in order. Commas, equals signs and
// backslashes inside are escaped by a backslash, so that different labels have different keys.
func appendKey(b []byte, p *telemetry.Point) []byte {
	for i := range p.Labels {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendEscaped(b, p.Labels[i].Name)
		b = append(b, '=')
		b = appendEscaped(b, p.Labels[i].Value)
	}
	return b
}

func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c == ',' || c == '=' || c == '\\' {
			b = append(b, '\\')
		}
		b = append(b, s[i])
	}
	return b
}
