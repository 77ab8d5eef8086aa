//go:build unix

package broker

import (
	"net"
	"syscall"
)

// noWaiter writes what the socket's buffer takes at once; nothing is not an error.
type noWaiter interface {
	writeNoWait(p []byte) (int, error)
}

// noWaitOf is nc's way to write without waiting; nil when it has none, as TLS and WebSocket.
func noWaitOf(nc net.Conn) noWaiter {
	switch nc := nc.(type) {
	case noWaiter:
		return nc
	case syscall.Conn:
		if raw, err := nc.SyscallConn(); err == nil {
			return rawWriter{raw}
		}
	}
	return nil
}

// rawWriter writes to a socket of the runtime's poller. It fails once a write deadline has passed.
type rawWriter struct{ syscall.RawConn }

func (w rawWriter) writeNoWait(p []byte) (n int, err error) {
	waitErr := w.RawConn.Write(func(fd uintptr) bool {
		for {
			n, err = syscall.Write(int(fd), p)
			switch err {
			case syscall.EINTR:
				continue
			case syscall.EAGAIN:
				n, err = 0, nil
			}
			return true
		}
	})
	if err == nil {
		err = waitErr
	}
	return max(n, 0), err
}
