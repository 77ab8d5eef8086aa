//go:build !linux

package broker

import (
	"errors"
	"net"
	"time"
)

// poller exists on Linux only; elsewhere the runtime's is used.
type poller struct{}

func newPoller(time.Duration) (*poller, error)      { return nil, errors.ErrUnsupported }
func (*poller) run()                                {}
func (*poller) look()                               {}
func (*poller) close()                              {}
func (*poller) adopt(nc net.Conn) (net.Conn, error) { return nc, nil }
