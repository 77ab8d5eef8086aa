package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// defaultAddress is where a gateway with the default configuration answers.
const defaultAddress = "http://127.0.0.1:8080"

// client asks a running gateway over its HTTP API.
type client struct {
	address string // http://host:port
	http    http.Client
}

// clientFlags adds --address to a command and returns the client it sets up.
func clientFlags(cmd *cobra.Command) *client {
	c := &client{http: http.Client{Timeout: 15 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	cmd.Flags().StringVar(&c.address, "address", defaultAddress, "where the gateway's HTTP API answers")
	return c
}

// maxAnswer bounds what is read of an answer: a list of 10,000 alerts is a few megabytes.
const maxAnswer = 64 << 20

// do makes one request. body nil sends none, into nil drops the answer. A problem document becomes an error in its words.
func (c *client) do(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(c.address, "/")+path, content)
	if err != nil {
		return fmt.Errorf("--address: %w: %w", err, errUsage)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("ask the gateway: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		var p struct{ Detail string }
		if json.Unmarshal(b, &p) == nil && p.Detail != "" {
			return errors.New(p.Detail)
		}
		return fmt.Errorf("ask the gateway: %s answers %s", c.address, resp.Status)
	}
	if into == nil {
		return nil
	}
	if err := json.Unmarshal(b, into); err != nil {
		return fmt.Errorf("ask the gateway: %s does not answer as a gateway does: %w", c.address, err)
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
