//go:build !linux

package broker

import (
	"errors"
	"net"
	"time"
)

// poller exists on Linux only; elsewhere each connection has a goroutine of its own, and the runtime's poller.
type poller struct{}

type polledConn struct{ net.Conn }

func newPoller(time.Duration, *workers, func() int64) (*poller, error) {
	return nil, errors.ErrUnsupported
}
func (*poller) run()                                       {}
func (*poller) look()                                      {}
func (*poller) close()                                     {}
func (*poller) adopt(net.Conn, *conn) (*polledConn, error) { return nil, errors.ErrUnsupported }
func (*polledConn) start() error                           { return errors.ErrUnsupported }
func (*polledConn) readNoWait([]byte) (int, error)         { return 0, errors.ErrUnsupported }
func (*polledConn) writeNoWait([]byte) (int, error)        { return 0, errors.ErrUnsupported }
