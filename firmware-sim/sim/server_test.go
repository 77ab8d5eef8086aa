package sim

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/gorilla/websocket"
)

// testServer is an MQTT server of a hundred lines that does what a test tells it to: it keeps what it received and
// answers, or not.
type testServer struct {
	ln net.Listener

	mu       sync.Mutex // guards what follows
	conns    map[net.Conn]bool
	sessions map[string]bool
	got      []received
	refuse   bool           // answer CONNECT with "not authorized"
	mute     bool           // read, answer nothing but CONNACK
	ackFrom  int            // answer PUBLISH only after so many on this connection (0: all)
	onGot    func(received) // called for each PUBLISH

	wg sync.WaitGroup
}

type received struct {
	client   string
	conn     int // of the server, 1 upwards
	packetID uint16
	dup      bool
	qos      byte
	topic    string
	payload  string
	at       time.Time
}

func newTestServer(t *testing.T) *testServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &testServer{ln: ln, conns: map[net.Conn]bool{}, sessions: map[string]bool{}}
	s.wg.Go(func() {
		for n := 1; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.wg.Go(func() { s.serve(c, n) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		s.cutAll()
		s.wg.Wait()
	})
	return s
}

// websocketURL serves the same over WebSocket.
func (s *testServer) websocketURL(t *testing.T) string {
	up := websocket.Upgrader{Subprotocols: []string{"mqtt"}}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &websocketConn{Conn: ws.NetConn(), ws: ws}
		s.mu.Lock()
		s.conns[c] = true
		s.mu.Unlock()
		s.serve(c, 0)
	}))
	t.Cleanup(h.Close)
	t.Cleanup(s.cutAll)
	return "ws" + strings.TrimPrefix(h.URL, "http") + "/mqtt"
}

// websocketConn reads and writes the bytes within binary messages.
type websocketConn struct {
	net.Conn
	ws *websocket.Conn
	in io.Reader
}

func (c *websocketConn) Read(p []byte) (int, error) {
	for {
		if c.in == nil {
			_, in, err := c.ws.NextReader()
			if err != nil {
				return 0, err
			}
			c.in = in
		}
		n, err := c.in.Read(p)
		if err == io.EOF {
			c.in = nil
			if n == 0 {
				continue
			}
			err = nil
		}
		return n, err
	}
}

func (c *websocketConn) Write(p []byte) (int, error) {
	return len(p), c.ws.WriteMessage(websocket.BinaryMessage, p)
}

func (s *testServer) url() string { return "tcp://" + s.ln.Addr().String() }

func (s *testServer) set(change func(*testServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *testServer) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.Close()
	}
}

func (s *testServer) received() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.got...)
}

func (s *testServer) serve(c net.Conn, n int) {
	defer func() {
		_ = c.Close()
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	client := ""
	publishes := 0
	for {
		p, err := packets.ReadPacket(c)
		if err != nil {
			return
		}
		s.mu.Lock()
		mute, refuse, ackFrom, onGot := s.mute, s.refuse, s.ackFrom, s.onGot
		s.mu.Unlock()
		switch p := p.(type) {
		case *packets.ConnectPacket:
			client = p.ClientIdentifier
			a := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
			s.mu.Lock()
			a.SessionPresent = s.sessions[client] && !p.CleanSession
			s.sessions[client] = true
			s.mu.Unlock()
			if refuse {
				a.ReturnCode, a.SessionPresent = packets.ErrRefusedNotAuthorised, false
			}
			_ = a.Write(c)
		case *packets.PublishPacket:
			publishes++
			r := received{client, n, p.MessageID, p.Dup, p.Qos, p.TopicName, string(p.Payload), time.Now()}
			s.mu.Lock()
			s.got = append(s.got, r)
			s.mu.Unlock()
			if onGot != nil {
				onGot(r)
			}
			if mute || publishes <= ackFrom {
				continue
			}
			switch p.Qos {
			case 1:
				a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				a.MessageID = p.MessageID
				_ = a.Write(c)
			case 2:
				a := packets.NewControlPacket(packets.Pubrec).(*packets.PubrecPacket)
				a.MessageID = p.MessageID
				_ = a.Write(c)
			}
		case *packets.PubrelPacket:
			a := packets.NewControlPacket(packets.Pubcomp).(*packets.PubcompPacket)
			a.MessageID = p.MessageID
			if !mute {
				_ = a.Write(c)
			}
		case *packets.PingreqPacket:
			if !mute {
				_ = packets.NewControlPacket(packets.Pingresp).(*packets.PingrespPacket).Write(c)
			}
		case *packets.DisconnectPacket:
			return
		}
	}
}
