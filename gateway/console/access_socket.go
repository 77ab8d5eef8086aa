package console

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	accounts "os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into the kernel's address of a unix socket, but for the end.
const maxSocketPath = 107

type peerKey struct{}

// listenSocket takes the unix socket. One that a process before left behind is replaced: the caller holds the data directory's lock, so
// that nobody listens on it. It can be opened by this user and root alone from its first moment at that name.
func (s *Server) listenSocket() error {
	path := s.cfg.Socket
	if path == "" {
		return nil
	}
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("listen on socket: %s exists and is no socket", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("listen on socket: %w", err)
	}
	fresh := path + ".new"
	if !SocketFits(path) {
		return fmt.Errorf("listen on socket: %s is longer than the %d bytes that the kernel takes: set http.socket", path, maxSocketPath-len(".new"))
	}
	if err := os.Remove(fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("listen on socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return fmt.Errorf("listen on socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		l.Close()
		os.Remove(fresh)
		return fmt.Errorf("listen on socket: %w", err)
	}
	s.socket = &peerListener{UnixListener: l, path: path}
	return nil
}

func (s *Server) closeSocket() {
	if s.socket != nil {
		s.socket.Close()
		s.socket = nil
	}
}

// peerListener accepts only this user and root, whatever the socket's mode came to be.
type peerListener struct {
	*net.UnixListener
	path string
}

// peerConn is a connection whose other end the kernel has named.
type peerConn struct {
	net.Conn
	name string
}

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUID(c)
		if err != nil || uid != 0 && int(uid) != os.Geteuid() {
			c.Close()
			continue
		}
		return &peerConn{c, userName(uid)}, nil
	}
}

// Close implements net.Listener.
func (l *peerListener) Close() error {
	err := l.UnixListener.Close()
	os.Remove(l.path)
	return err
}

func peerUID(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(cerr, err); err != nil {
		return 0, err
	}
	return cred.Uid, nil
}

// userName is the name of a user of this machine, or uid:<number>.
func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := accounts.LookupId(id); err == nil && u.Username != "" {
		return u.Username
	}
	return "uid:" + id
}

// withPeer tells handlers who is at the other end of the socket.
func withPeer(ctx context.Context, c net.Conn) context.Context {
	if p, ok := c.(*peerConn); ok {
		return context.WithValue(ctx, peerKey{}, p.name)
	}
	return ctx
}

// SocketFits tells whether a unix socket can have this path.
func SocketFits(path string) bool { return len(path)+len(".new") <= maxSocketPath }
