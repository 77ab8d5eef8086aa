// Package console is the gateway's HTTP side: the dashboard, health, metrics and the JSON API, and who may ask for what. It shows, and
// passes on what operators ask for; of the site it holds no state and asks a Gateway for everything, at most once a request. Its own are
// the sessions of those who logged in, and the bearer tokens.
//
// A Server runs its connections inside Run and has joined them, or cut them off, when Run returns.
package console

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"
)

// Config says where the console listens, and who may ask.
type Config struct {
	Address  string      // host:port; port 0 takes a free one; "": the socket alone
	Socket   string      // path of a unix socket for this machine's administrators; "": none. Only one process may use it
	Insecure bool        // serve plain HTTP beyond loopback; without UsersFile, everyone who can connect
	Hosts    []string    // names besides loopback ones by which requests may call the gateway
	TLS      *tls.Config // nil: plain HTTP

	UsersFile  string // who may log in; "": nobody does. It need not exist yet
	TokensFile string // where bearer tokens are kept; "": there are none

	About About

	// Demo is the stage of a demonstration; nil: this is none.
	Demo Demo

	// PromQL answers what lies below /prometheus/api/v1/, with GET and POST; it bounds bodies itself. nil: nothing is there.
	PromQL http.Handler
}

// About is what the console tells of the gateway to those who may ask.
type About struct {
	Gateway, Version, TimeZone string
	Demo                       bool
}

// Validate refuses what New would refuse, in the words of the configuration.
func (c Config) Validate() error {
	if c.Address == "" && c.Socket != "" {
		return nil
	}
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return fmt.Errorf("http.address: want host:port such as 127.0.0.1:8080, got %q", c.Address)
	}
	switch {
	case loopbackName(host) || c.Insecure:
	case c.UsersFile == "":
		return fmt.Errorf("http.address: %s can be reached from other machines, and nobody has to log in: set http.users_file and http.tls, "+
			"listen on 127.0.0.1, or set http.insecure: true to show the gateway to everyone who can connect", c.Address)
	case c.TLS == nil:
		return fmt.Errorf("http.address: %s can be reached from other machines, and passwords would cross the network in the clear: set http.tls, "+
			"or http.insecure: true where the network itself is safe", c.Address)
	}
	return nil
}

// Gateway is what the console shows. Its methods are safe for concurrent use and answer from memory.
type Gateway interface {
	Status() Status
	Ready() Readiness
}

// Limits of one connection. Bodies are small; handlers that answer for longer move their own deadline.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 3 * time.Second
	maxHeaderBytes  = 16 << 10
	maxBodyBytes    = 4 << 10
	maxLargeBody    = 1 << 20
	maxConnections  = 256 // further ones wait in the kernel's queue
)

// Server serves one Gateway on one address and one unix socket.
type Server struct {
	cfg      Config
	log      *slog.Logger
	site     *site
	http     http.Server
	listener net.Listener
	local    http.Server // on the socket
	socket   net.Listener
}

// New returns a server that is not listening yet. metrics answers /metrics; it may be nil. The error is cfg.Validate's, or says what is
// wrong with the users file.
func New(cfg Config, g Gateway, metrics http.Handler, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d, err := newDoor(&cfg, log)
	if err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(cfg.Address)
	s := &Server{cfg: cfg, log: log, site: newSite(&cfg, g, d, metrics, log)}
	handler := s.site.handler()
	for _, h := range []*http.Server{&s.http, &s.local} {
		h.ReadHeaderTimeout, h.ReadTimeout, h.WriteTimeout, h.IdleTimeout = headerTimeout, readTimeout, writeTimeout, idleTimeout
		h.MaxHeaderBytes = maxHeaderBytes
		h.ErrorLog = slog.NewLogLogger(connectionErrors{log.Handler()}, slog.LevelWarn)
	}
	s.http.Handler = guard(handler, &hostRule{loopback: loopbackName(host), names: cfg.Hosts})
	s.local.Handler = guard(handler, &hostRule{})
	s.local.ConnContext = withPeer
	return s, nil
}

// Listen takes the address and the socket, so that the caller learns of a port in use before anything runs. Where nobody can log in
// yet, it prints a set-up token.
func (s *Server) Listen() error {
	if err := s.listenSocket(); err != nil {
		return err
	}
	if s.cfg.Address != "" {
		if err := s.listenTCP(); err != nil {
			s.closeSocket()
			return err
		}
	}
	s.site.door.offerSetup(time.Now())
	return nil
}

func (s *Server) listenTCP() error {
	l, err := net.Listen("tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen for http: %w", err)
	}
	local, ok := l.Addr().(*net.TCPAddr)
	loopback := ok && local.IP.IsLoopback()
	switch {
	case !loopback && !s.cfg.Insecure && (s.cfg.UsersFile == "" || s.cfg.TLS == nil):
		// "localhost" that the machine resolves to something else.
		l.Close()
		return fmt.Errorf("listen for http: %s is %s here, which is not loopback", s.cfg.Address, l.Addr())
	case !loopback && s.cfg.UsersFile == "":
		s.log.Warn("console is open to the network without login", "address", l.Addr().String())
	case !loopback && s.cfg.TLS == nil:
		s.log.Warn("console takes passwords over the network in the clear", "address", l.Addr().String())
	}
	s.listener = netutil.LimitListener(l, maxConnections)
	if s.cfg.TLS != nil {
		s.listener = tls.NewListener(s.listener, s.cfg.TLS)
	}
	return nil
}

// Addr is the address taken by Listen, nil before and where there is none.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Reload reads the users file again. Who lost the user, its password, role or scope is logged out; a file that cannot be read leaves
// everything as it was.
func (s *Server) Reload() error { return s.site.door.reload() }

// Run serves until ctx ends, then lets requests end for 3 s at most, and returns nil. It listens first where Listen was not
// called. Any other end is an error.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil && s.socket == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var parts errgroup.Group
	serve := func(h *http.Server, l net.Listener) {
		if l != nil {
			parts.Go(func() error {
				defer stop()
				return s.serve(ctx, h, l)
			})
		}
	}
	serve(&s.http, s.listener)
	serve(&s.local, s.socket)
	parts.Go(func() error {
		s.site.watchLogins(ctx)
		return nil
	})
	parts.Go(func() error {
		s.site.stream.run(ctx)
		return nil
	})
	return parts.Wait()
}

func (s *Server) serve(ctx context.Context, h *http.Server, l net.Listener) error {
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := h.Shutdown(grace); err != nil {
		s.log.Warn("console connections cut off", "err", err)
		h.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	}
	return nil
}

// connectionErrors keeps failed TLS handshakes, of which any passer-by can cause any number, out of the log.
type connectionErrors struct{ slog.Handler }

// Handle implements slog.Handler.
func (h connectionErrors) Handle(ctx context.Context, r slog.Record) error {
	if strings.HasPrefix(r.Message, "http: TLS handshake error") {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// loopbackName tells names and addresses that only this machine reaches. Any other name could be made to mean this machine by
// whoever runs its DNS.
func loopbackName(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Zone() == "" && addr.Unmap().IsLoopback()
}
