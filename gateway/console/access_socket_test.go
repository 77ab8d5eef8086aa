package console

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
}

// shortDir is a folder whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func TestSocket_IsTheAdministratorsAlone(t *testing.T) {
	path := filepath.Join(shortDir(t), "s.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"}) // what a killed process leaves behind
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	g := guardedPlant(t, func(c *Config) { c.Socket = path })
	stop := start(t, g.Server)
	if info, err := os.Lstat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v, want mode 0600", info, err)
	}
	client := unixClient(path)
	r, err := client.Post("http://any.name/api/v1/alerts/0123456789abcdef/ack", "application/json", strings.NewReader(`{"author":"mallory"}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	want := "ack 0123456789abcdef by " + userName(uint32(os.Geteuid())) + ": "
	if got := strings.Join(g.plant.asked, "; "); r.StatusCode != 204 || got != want {
		t.Errorf("ack over the socket = %s, asked %q, want %q", r.Status, got, want)
	}
	if r, err = client.Get("http://x/api/v1/session"); err != nil {
		t.Fatal(err)
	}
	text, _ := io.ReadAll(r.Body)
	r.Body.Close()
	if !strings.Contains(string(text), `"role":"admin"`) {
		t.Errorf("the session over the socket is %s", text)
	}
	// Nobody becomes a peer by saying so.
	if r := g.ask("GET", "/api/v1/status", "", "Peer: root", "X-Forwarded-For: 127.0.0.1"); r.StatusCode != 401 {
		t.Errorf("a request over TCP = %s", r.Status)
	}
	if err := stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("the socket is left behind after a clean stop")
	}
}

func TestSocket_AloneServesToo(t *testing.T) {
	path := filepath.Join(shortDir(t), "s.sock")
	s := newServer(t, Config{Socket: path}, &plant{})
	start(t, s)
	r, err := unixClient(path).Get("http://x/healthz")
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || s.Addr() != nil {
		t.Errorf("healthz = %s, Addr = %v", r.Status, s.Addr())
	}
}

func TestSocket_TakesNothingElsesPlace(t *testing.T) {
	dir := shortDir(t)
	file := filepath.Join(dir, "file")
	writeUsers(t, file, "precious")
	if err := newServer(t, Config{Socket: file}, &plant{}).Listen(); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("Listen on a file = %v", err)
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious\n" {
		t.Errorf("the file is now %q, %v", b, err)
	}
	long := filepath.Join(dir, strings.Repeat("x", 200))
	if err := newServer(t, Config{Socket: long}, &plant{}).Listen(); err == nil || !strings.Contains(err.Error(), "set http.socket") {
		t.Errorf("Listen on a long path = %v", err)
	}
	// A port in use leaves no socket behind.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	path := filepath.Join(dir, "s.sock")
	if err := newServer(t, Config{Address: taken.Addr().String(), Socket: path}, &plant{}).Listen(); err == nil {
		t.Errorf("Listen = nil")
	}
	if _, err := os.Lstat(path); err == nil {
		t.Errorf("the socket is left behind")
	}
}
