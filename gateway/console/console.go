// Package console is the gateway's HTTP side: a status page, health, metrics and the JSON API. It shows, and passes on what operators
// ask for; it holds no state of its own and asks a Gateway for everything, at most once a request.
//
// A Server runs its connections inside Run and has joined them, or cut them off, when Run returns.
package console

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// Config says where the console listens.
type Config struct {
	Address  string // host:port; port 0 takes a free one
	Insecure bool   // serve plain HTTP, without login, beyond loopback too

	// PromQL answers what lies below /prometheus/api/v1/, with GET and POST; it bounds bodies itself. nil: nothing is there.
	PromQL http.Handler
}

// Validate refuses what New would refuse, in the words of the configuration.
func (c Config) Validate() error {
	host, _, err := net.SplitHostPort(c.Address)
	if err != nil {
		return fmt.Errorf("http.address: want host:port such as 127.0.0.1:8080, got %q", c.Address)
	}
	if !loopbackName(host) && !c.Insecure {
		return fmt.Errorf("http.address: %s can be reached from other machines, and this version has no users, tokens or TLS on it: "+
			"listen on 127.0.0.1, or set http.insecure: true to show the gateway to everyone who can connect", c.Address)
	}
	return nil
}

// Gateway is what the console shows. Its methods are safe for concurrent use and answer from memory.
type Gateway interface {
	Status() Status
	Ready() Readiness
}

// Limits of one connection. Nothing here takes a body, and every answer is small.
const (
	headerTimeout   = 5 * time.Second
	readTimeout     = 10 * time.Second
	writeTimeout    = 30 * time.Second
	idleTimeout     = 60 * time.Second
	shutdownTimeout = 3 * time.Second
	maxHeaderBytes  = 16 << 10
	maxBodyBytes    = 4 << 10
	maxConnections  = 256 // further ones wait in the kernel's queue
)

// Server serves one Gateway on one address.
type Server struct {
	cfg      Config
	log      *slog.Logger
	http     http.Server
	listener net.Listener
}

// New returns a server that is not listening yet. metrics answers /metrics; it may be nil. The error is cfg.Validate's.
func New(cfg Config, g Gateway, metrics http.Handler, log *slog.Logger) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	host, _, _ := net.SplitHostPort(cfg.Address)
	s := &Server{cfg: cfg, log: log}
	s.http = http.Server{
		Handler:           guard(withPromQL(routes(g, metrics, log), cfg.PromQL), loopbackName(host)),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
	return s, nil
}

// Listen takes the address, so that the caller learns of a port in use before anything runs.
func (s *Server) Listen() error {
	l, err := net.Listen("tcp", s.cfg.Address)
	if err != nil {
		return fmt.Errorf("listen for http: %w", err)
	}
	local, ok := l.Addr().(*net.TCPAddr)
	switch {
	case !s.cfg.Insecure && (!ok || !local.IP.IsLoopback()):
		// "localhost" that the machine resolves to something else.
		l.Close()
		return fmt.Errorf("listen for http: %s is %s here, which is not loopback", s.cfg.Address, l.Addr())
	case ok && !local.IP.IsLoopback():
		s.log.Warn("console is open to the network without login or TLS", "address", l.Addr().String())
	}
	s.listener = netutil.LimitListener(l, maxConnections)
	return nil
}

// Addr is the address taken by Listen, nil before.
func (s *Server) Addr() net.Addr {
	if s.listener == nil {
		return nil
	}
	return s.listener.Addr()
}

// Run serves until ctx ends, then lets requests end for 3 s at most, and returns nil. It listens first where Listen was not
// called. Any other end is an error.
func (s *Server) Run(ctx context.Context) error {
	if s.listener == nil {
		if err := s.Listen(); err != nil {
			return err
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- s.http.Serve(s.listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve http on %s: %w", s.listener.Addr(), err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := s.http.Shutdown(grace); err != nil {
		s.log.Warn("console connections cut off", "err", err)
		s.http.Close()
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve http on %s: %w", s.listener.Addr(), err)
	}
	return nil
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
