// Package nats delivers points to a NATS JetStream stream: a Sink that publishes asynchronously and takes nothing for delivered but the
// stream's own acknowledgement. The record's id is the Nats-Msg-Id, so that within the stream's duplicate window a repeated
// record is stored once. Between calls it keeps a connection whose goroutines are the library's; Close ends them.
package nats

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/gateway/telemetry"
	"sluice/uplink"
	"sluice/uplink/stream"
)

// Config of a Sink; zero values are defaults where one is given.
type Config struct {
	URL             string // nats://host:4222, tls://host:4222, or several with commas between; others of the cluster are learned
	Stream          string // exists; it is not created
	Subject         string // with labels: edge.{site}
	Username        string
	Password        string        // never shown in errors or logs
	Token           string        // instead of a user
	CredentialsFile string        // a .creds file: JWT and seed, read at every connect
	Name            string        // "sluice": for the server's logs
	TLS             *tls.Config   // never without; nil: the system's roots, TLS 1.2 or later, where the address or the server asks for it
	Timeout         time.Duration // 30 s for one Deliver
	Dial            nats.CustomDialer
}

// inFlight bounds what is published and not acknowledged: more fills the server's buffers, less wastes a long way's round trips.
const inFlight = 512

// Sink is one stream. Deliver may be called by several goroutines; they take turns.
type Sink struct {
	url, stream string
	subject     *stream.Template
	timeout     time.Duration
	options     []nats.Option

	mu    sync.Mutex
	conn  *connection // nil: to be made
	queue stream.Queue
}

// connection is used until its first fault.
type connection struct {
	nc       *nats.Conn
	js       jetstream.JetStream
	subjects []string      // of the stream
	fault    chan error    // 1: what the server said outside of answers; more are dropped
	closed   chan struct{} // closed when the connection is
}

// New checks c and returns a Sink. It does not connect.
func New(c Config) (*Sink, error) {
	for _, one := range strings.Split(c.URL, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || u.User != nil || (u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss") {
			return nil, errors.New(`nats: url: want "nats://host:4222" or "tls://host:4222", without credentials`)
		}
	}
	if c.Stream == "" || strings.ContainsAny(c.Stream, " \t\r\n.*>/\\") {
		return nil, fmt.Errorf("nats: stream: want a stream's name, got %q", c.Stream)
	}
	subject, err := stream.ParseTemplate(c.Subject, appendToken)
	if err != nil {
		return nil, fmt.Errorf("nats: subject: %w", err)
	}
	for _, token := range strings.Split(subject.Sample(), ".") {
		if token == "" || strings.ContainsFunc(token, unfit) {
			return nil, fmt.Errorf("nats: subject: %q: want tokens with dots between, without spaces and wildcards", c.Subject)
		}
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Name == "" {
		c.Name = "sluice"
	}
	s := &Sink{url: c.URL, stream: c.Stream, subject: subject, timeout: c.Timeout}
	s.options = []nats.Option{
		nats.Name(c.Name),
		nats.NoReconnect(), // the Forwarder tries again, on a connection that carries nothing of the past
		nats.NoEcho(),
		nats.Timeout(min(10*time.Second, c.Timeout)),
		nats.PingInterval(20 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.FlusherTimeout(10 * time.Second),
	}
	secure := c.TLS != nil
	if !secure {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	s.options = append(s.options, func(o *nats.Options) error {
		o.TLSConfig, o.Secure = c.TLS, secure
		return nil
	})
	switch {
	case c.CredentialsFile != "":
		s.options = append(s.options, nats.UserCredentials(c.CredentialsFile))
	case c.Username != "":
		s.options = append(s.options, nats.UserInfo(c.Username, c.Password))
	case c.Token != "":
		s.options = append(s.options, nats.Token(c.Token))
	}
	if c.Dial != nil {
		s.options = append(s.options, nats.SetCustomDialer(c.Dial))
	}
	return s, nil
}

// unfit tells whether r cannot stand in a token.
func unfit(r rune) bool { return r <= ' ' || r == '.' || r == '*' || r == '>' || r == 0x7f }

// appendToken writes value as one token of a subject.
func appendToken(b []byte, value string) []byte {
	for i := 0; i < len(value); i++ {
		c := value[i]
		if unfit(rune(c)) {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// Deliver implements uplink.Sink.
func (s *Sink) Deliver(ctx context.Context, recs []uplink.Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	appendSubject := func(b []byte, p *telemetry.Point) []byte { return s.subject.Append(b, p) }
	if refused := s.queue.Fill(recs, int(c.nc.MaxPayload())-headerBytes, appendSubject); len(refused) > 0 {
		return &uplink.Error{Kind: uplink.KindRejected, Detail: refused[0].Detail, Refused: refused}
	}
	e := s.judge(c, c.publish(ctx, s.queue.Messages, s.stream))
	if e == nil {
		return nil
	}
	return e
}

// headerBytes is more than what the headers take, which count as payload.
const headerBytes = 512

// Close ends the connection. Deliver makes a new one.
func (s *Sink) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drop()
	return nil
}

func (s *Sink) drop() {
	if s.conn != nil {
		s.conn.nc.Close()
		s.conn = nil
	}
	s.queue.Release()
}

// connect returns a connection on which the stream was seen.
func (s *Sink) connect(ctx context.Context) (*connection, error) {
	if s.conn != nil && s.conn.nc.IsConnected() {
		return s.conn, nil
	}
	s.drop()
	c := &connection{fault: make(chan error, 1), closed: make(chan struct{})}
	options := append(s.options[:len(s.options):len(s.options)],
		nats.ClosedHandler(func(*nats.Conn) { close(c.closed) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			select {
			case c.fault <- err:
			default:
			}
		}))
	if d, ok := ctx.Deadline(); ok {
		options = append(options, nats.Timeout(max(time.Millisecond, min(10*time.Second, time.Until(d)))))
	}
	nc, err := s.dial(ctx, options)
	if err != nil {
		return nil, err
	}
	c.nc = nc
	if c.js, err = jetstream.New(nc, jetstream.WithPublishAsyncMaxPending(inFlight)); err == nil {
		err = s.look(ctx, c)
	}
	if err != nil {
		nc.Close()
		return nil, s.explain(c, err)
	}
	s.conn = c
	return c, nil
}

// dial connects, and returns when ctx ends although the library knows no context.
func (s *Sink) dial(ctx context.Context, options []nats.Option) (*nats.Conn, error) {
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := nats.Connect(s.url, options...)
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, s.explain(nil, r.err)
		}
		return r.nc, nil
	case <-ctx.Done():
		go func() { // over within the library's own time-out
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, uplink.TransportError(ctx.Err())
	}
}

// look finds the stream and learns its subjects. A missing right is said outside of the answer, which then never comes.
func (s *Sink) look(ctx context.Context, c *connection) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	type result struct {
		st  jetstream.Stream
		err error
	}
	done := make(chan result, 1)
	go func() {
		st, err := c.js.Stream(ctx, s.stream)
		done <- result{st, err}
	}()
	select {
	case err := <-c.fault:
		return err
	case r := <-done:
		if errors.Is(r.err, nats.ErrNoResponders) {
			return fmt.Errorf("%w: nobody answers its requests", jetstream.ErrJetStreamNotEnabled)
		}
		if r.err != nil {
			return r.err
		}
		c.subjects = r.st.CachedInfo().Config.Subjects
		return nil
	}
}

// publish sends the messages and returns what became of each: nil when the stream has it. Once the connection does not answer
// nothing more is sent on it: the library would hold every further message back for a while.
func (c *connection) publish(ctx context.Context, messages []stream.Message, name string) []error {
	errs := make([]error, len(messages))
	futures := make([]jetstream.PubAckFuture, len(messages))
	var over error
	settle := func(i int) {
		if errs[i] == nil {
			var answered bool
			if errs[i], answered = c.wait(ctx, futures[i]); !answered && over == nil {
				over = errs[i]
			}
		}
	}
	for i := range messages {
		if i >= inFlight {
			settle(i - inFlight)
		}
		if over == nil {
			futures[i], over = c.send(&messages[i], name)
		}
		if futures[i] == nil {
			errs[i] = over
		}
	}
	for i := max(0, len(messages)-inFlight); i < len(messages); i++ {
		settle(i)
	}
	return errs
}

func (c *connection) send(m *stream.Message, name string) (jetstream.PubAckFuture, error) {
	msg := &nats.Msg{Subject: string(m.Address), Data: m.Body, Header: nats.Header{
		jetstream.MsgIDHeader: {string(m.ID)}, jetstream.ExpectedStreamHeader: {name}, "Content-Type": contentType,
	}}
	return c.js.PublishMsgAsync(msg, jetstream.WithRetryAttempts(0))
}

var contentType = []string{"application/json"}

// wait returns the stream's answer, nil when it has the message; or, when there will be none, why.
func (c *connection) wait(ctx context.Context, f jetstream.PubAckFuture) (err error, answered bool) {
	select {
	case <-f.Ok():
		return nil, true
	case err := <-f.Err():
		return err, true
	default:
	}
	select {
	case <-f.Ok():
		return nil, true
	case err := <-f.Err():
		return err, true
	case err := <-c.fault:
		c.nc.Close() // the other messages have no answer to come either
		return err, false
	case <-c.closed:
		if err := c.nc.LastError(); err != nil {
			return err, false
		}
		return nats.ErrConnectionClosed, false
	case <-ctx.Done():
		return ctx.Err(), false
	}
}

// judge makes one error of what became of the messages; nil when all are stored.
func (s *Sink) judge(c *connection, errs []error) *uplink.Error {
	messages := s.queue.Messages
	var worst *uplink.Error
	var refused []uplink.Refused
	for i, err := range errs {
		if err == nil {
			continue
		}
		e := s.explain(c, err)
		if e.Kind == uplink.KindRejected {
			refused = append(refused, uplink.Refused{Index: messages[i].Record, Reason: "rejected", Detail: e.Detail})
		}
		if worst == nil || severity[e.Kind] > severity[worst.Kind] {
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
	if worst.Kind == uplink.KindRejected {
		worst.Refused = refused
		return worst
	}
	s.drop()
	return worst
}

// severity orders kinds where messages of one Deliver fail in different ways: nothing is quarantined while the stream is not in
// order.
var severity = map[uplink.Kind]int{uplink.KindRejected: 1, uplink.KindRetry: 2, uplink.KindConfig: 3}

// Error codes of JetStream that the library has no name for.
const (
	codeNotExpectedStream = 10060 // the subject belongs to another stream
	codeHeadersTooLarge   = 10097
	codeSealed            = 10109
)

// explain turns an error of the library into what the Forwarder knows; c may be nil.
func (s *Sink) explain(c *connection, err error) *uplink.Error {
	var e *uplink.Error
	if errors.As(err, &e) {
		return e
	}
	config := func(format string, args ...any) *uplink.Error {
		return &uplink.Error{Kind: uplink.KindConfig, Detail: fmt.Sprintf(format, args...), Err: err}
	}
	var answer *jetstream.APIError
	if errors.As(err, &answer) {
		words := fmt.Sprintf("%s (%d)", answer.Description, answer.ErrorCode)
		switch answer.ErrorCode {
		case jetstream.JSErrCodeStreamMessageExceedsMaximum, codeHeadersTooLarge:
			return &uplink.Error{Kind: uplink.KindRejected, Detail: words, Err: err}
		case jetstream.JSErrCodeStreamNotFound:
			return config("stream %s: %s", s.stream, words)
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount, codeSealed:
			return config("%s", words)
		case codeNotExpectedStream:
			return config("the subject is stored by another stream than %s: %s", s.stream, words)
		}
		return &uplink.Error{Kind: uplink.KindRetry, Detail: words, Err: err}
	}
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked),
		errors.Is(err, nats.ErrAccountAuthExpired), errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrNkeysNotSupported),
		errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted), errors.Is(err, nats.ErrNoUserCB):
		return config("%s", err.Error())
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission): // the credentials
		return config("%s", err.Error())
	case errors.Is(err, jetstream.ErrNoStreamResponse), errors.Is(err, nats.ErrNoResponders):
		if c != nil && len(c.subjects) > 0 && !covered(c.subjects, s.subject.Sample()) {
			return config("stream %s does not take the subject: it takes %s", s.stream, strings.Join(c.subjects, " "))
		}
		return &uplink.Error{Kind: uplink.KindRetry, Detail: "no stream answers: JetStream is off, or the stream has no leader", Err: err}
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return config("%s", err.Error())
	}
	if op := (*net.OpError)(nil); errors.Is(err, nats.ErrNoServers) && !errors.As(err, &op) {
		return &uplink.Error{Kind: uplink.KindRetry, Detail: "no server of " + s.url + " answers", Err: err}
	}
	return uplink.TransportError(err)
}

// covered tells whether one of a stream's subjects, which may hold wildcards, takes subject.
func covered(subjects []string, subject string) bool {
	for _, pattern := range subjects {
		if matches(strings.Split(pattern, "."), strings.Split(subject, ".")) {
			return true
		}
	}
	return false
}

func matches(pattern, subject []string) bool {
	for i, p := range pattern {
		if p == ">" {
			return len(subject) > i
		}
		if i >= len(subject) || p != "*" && p != subject[i] {
			return false
		}
	}
	return len(pattern) == len(subject)
}
