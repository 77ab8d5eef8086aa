package broker

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"
)

// upgrade answers the HTTP request that opens a WebSocket on nc. The caller has set a deadline.
func (b *Broker) upgrade(nc net.Conn) (net.Conn, error) {
	const maxRequest = 16 << 10
	in := bufio.NewReaderSize(io.LimitReader(nc, maxRequest), 4<<10)
	r, err := http.ReadRequest(in)
	if err != nil {
		return nil, err
	}
	if in.Buffered() > 0 {
		return nil, errors.New("client spoke before the handshake was over")
	}
	w := &hijacked{nc: nc, header: http.Header{}}
	u := websocket.Upgrader{Subprotocols: []string{"mqtt", "mqttv3.1"}, CheckOrigin: b.originAllowed}
	ws, err := u.Upgrade(w, r, nil)
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(int64(b.limits.PacketBytes))
	return &wsConn{ws: ws, nc: nc}, nil
}

// originAllowed keeps web pages of other sites away from a broker that admits clients without a password: a browser on
// this machine would reach it for them.
func (b *Broker) originAllowed(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if origin == "" || b.hasUsers() && !b.cfg.AllowAnonymous {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

// hijacked is the http.ResponseWriter of a connection that is already ours.
type hijacked struct {
	nc     net.Conn
	header http.Header
	status int
}

func (h *hijacked) Header() http.Header { return h.header }

func (h *hijacked) WriteHeader(status int) {
	if h.status != 0 {
		return
	}
	h.status = status
	r := http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: h.header, Close: true, ContentLength: -1}
	_ = r.Write(h.nc)
}

func (h *hijacked) Write(p []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	return h.nc.Write(p)
}

func (h *hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.nc, bufio.NewReadWriter(bufio.NewReaderSize(h.nc, 4<<10), bufio.NewWriterSize(h.nc, 4<<10)), nil
}

// wsConn is the byte stream inside a WebSocket's binary messages; MQTT packets need not be aligned with them.
type wsConn struct {
	ws      *websocket.Conn
	nc      net.Conn
	message io.Reader // being read; nil between messages
	writeBy atomic.Pointer[time.Time]
}

func (w *wsConn) Read(p []byte) (int, error) {
	for {
		if w.message == nil {
			kind, r, err := w.ws.NextReader()
			if err != nil {
				return 0, cleanEnd(err)
			}
			if kind != websocket.BinaryMessage {
				return 0, errMalformed // MQTT 5, 6.0-1
			}
			w.message = r
		}
		n, err := w.message.Read(p)
		if err == io.EOF {
			w.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// cleanEnd makes a clean close look like TCP's.
func cleanEnd(err error) error {
	if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway) {
		return io.EOF
	}
	return err
}

func (w *wsConn) Write(p []byte) (int, error) {
	if t := w.writeBy.Load(); t != nil {
		_ = w.ws.SetWriteDeadline(*t) // gorilla sets its own again for each message, and does not lock it
	}
	if err := w.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (w *wsConn) CloseWrite() error {
	return w.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""),
		time.Now().Add(farewell/2))
}

func (w *wsConn) Close() error                      { return w.ws.Close() }
func (w *wsConn) LocalAddr() net.Addr               { return w.nc.LocalAddr() }
func (w *wsConn) RemoteAddr() net.Addr              { return w.nc.RemoteAddr() }
func (w *wsConn) SetReadDeadline(t time.Time) error { return w.nc.SetReadDeadline(t) }

func (w *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

// SetWriteDeadline holds for a Write under way and for later ones.
func (w *wsConn) SetWriteDeadline(t time.Time) error {
	w.writeBy.Store(&t)
	return w.nc.SetWriteDeadline(t)
}
