package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sluice/gateway/config"
)

// defaultAddress is where a gateway with the default configuration answers.
const defaultAddress = "http://127.0.0.1:8080"

// client asks a running gateway over its HTTP API.
type client struct {
	address, config, tokenFile, caFile string // as the flags say

	base  string // http://host:port, once it is known where to ask
	token string
	http  *http.Client
}

// clientFlags adds to a command where and as whom it asks, and returns the client that this sets up.
func clientFlags(cmd *cobra.Command) *client {
	c := &client{}
	f := cmd.Flags()
	f.StringVar(&c.address, "address", "", "where the gateway answers: http://..., https://... or unix:PATH\n"+
		"(default $SLUICE_ADDRESS, else the unix socket of "+defaultConfig+", else "+defaultAddress+")")
	f.StringVar(&c.config, "config", "", "ask the gateway of this configuration file, over its unix socket")
	f.StringVar(&c.tokenFile, "token-file", "", "file with a bearer token")
	f.StringVar(&c.caFile, "ca-file", "", "file with the certificate authority of an https address, instead of the system's")
	cmd.MarkFlagsMutuallyExclusive("address", "config")
	return c
}

// where is the address to ask.
func (c *client) where() (string, error) {
	switch {
	case c.address != "":
		return c.address, nil
	case c.config != "":
		cfg, err := config.Load(c.config)
		if cfg == nil {
			return "", &configError{err}
		}
		return gatewayAddress(cfg), nil // what is wrong in it is the gateway's to say
	case os.Getenv("SLUICE_ADDRESS") != "":
		return os.Getenv("SLUICE_ADDRESS"), nil
	}
	if _, err := os.Stat(defaultConfig); err == nil {
		if cfg, _ := config.Load(defaultConfig); cfg != nil {
			return gatewayAddress(cfg), nil
		}
	}
	return defaultAddress, nil
}

// gatewayAddress is the unix socket of a gateway where it is there, else its HTTP address.
func gatewayAddress(cfg *config.Config) string {
	socket := cfg.SocketPath()
	if _, err := os.Lstat(socket); err == nil && socket != "" {
		return "unix:" + socket
	}
	host, port, err := net.SplitHostPort(cfg.HTTP.Address)
	if err != nil {
		return "unix:" + socket
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http://"
	if cfg.HTTP.TLS.Enabled() {
		scheme = "https://"
	}
	return scheme + net.JoinHostPort(host, port)
}

// connect sets up what a request needs, once.
func (c *client) connect() error {
	if c.http != nil {
		return nil
	}
	address, err := c.where()
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSHandshakeTimeout: 10 * time.Second, DisableKeepAlives: true}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		c.base = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	} else {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("--address: want http://host:port, https://host:port or unix:PATH, got %q: %w", address, errUsage)
		}
		c.base = strings.TrimRight(address, "/")
	}
	if c.tokenFile != "" {
		if c.token, err = readSecret(c.tokenFile); err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
	}
	if c.caFile != "" {
		pem, err := os.ReadFile(c.caFile)
		if err != nil {
			return fmt.Errorf("--ca-file: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return fmt.Errorf("--ca-file: no certificate in %s", c.caFile)
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	}
	c.http = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return nil
}

// send makes one request and returns an answer of 2xx, whose body the caller closes. A problem document becomes an error in its words.
// It takes as long as ctx lets it.
func (c *client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	if err := c.connect(); err != nil {
		return nil, err
	}
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, content)
	if err != nil {
		return nil, fmt.Errorf("--address: %w: %w", err, errUsage)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("ask the gateway: is it running? %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("ask the gateway: %w", err)
	}
	var p struct{ Detail string }
	switch {
	case json.Unmarshal(b, &p) != nil || p.Detail == "":
		return nil, fmt.Errorf("ask the gateway: it answers %s", resp.Status)
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s (--token-file, or its unix socket)", plain(p.Detail))
	}
	return nil, errors.New(p.Detail)
}

// Bounds of a short answer: a list of 10,000 alerts is a few megabytes.
const (
	maxAnswer     = 64 << 20
	answerTimeout = 15 * time.Second
)

// do makes one request with a short answer. body nil sends none, into nil drops the answer. A problem document becomes an error in its
// words.
func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("ask the gateway: it does not answer as a gateway does: %w", err)
	}
	return nil
}

// whoAmI is the default of --author.
func whoAmI() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	return os.Getenv("USER")
}

// printJSON writes v indented, for --json.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
