package influx

import (
	"bufio"
	"compress/gzip"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// reply is what the scripted server does with one request.
type reply struct {
	raw   string   // written as it stands; empty: the connection is closed without a word
	store []string // lines that the database holds from now on
	reset bool     // close with RST instead of FIN
	hang  bool     // say nothing until the client goes away
	drip  bool     // raw comes a byte at a time, and never to its end
}

// request is what it saw.
type request struct {
	*http.Request
	lines  []string
	packed bool
}

// scriptServer answers raw bytes, so that nothing of net/http's own manners stands between a recorded answer and the sink.
type scriptServer struct {
	t      *testing.T
	ln     net.Listener
	answer func(call int, r request) reply

	mu     sync.Mutex
	calls  []request
	stored map[string]int // line to how often it was written
	wg     sync.WaitGroup
	quit   chan struct{}
}

func newServer(t *testing.T, config *tls.Config, answer func(call int, r request) reply) *scriptServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	s := &scriptServer{t: t, ln: ln, answer: answer, stored: make(map[string]int), quit: make(chan struct{})}
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		close(s.quit)
		ln.Close()
		s.wg.Wait()
	})
	return s
}

func (s *scriptServer) url() string { return "http://" + s.ln.Addr().String() }

func (s *scriptServer) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		s.wg.Go(func() {
			stop := make(chan struct{})
			s.wg.Go(func() { // ends idle connections with the test
				select {
				case <-s.quit:
				case <-stop:
				}
				c.Close()
			})
			s.serve(c)
			close(stop)
		})
	}
}

func (s *scriptServer) serve(c net.Conn) {
	br := bufio.NewReader(c)
	for {
		hr, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		r := request{Request: hr, packed: hr.Header.Get("Content-Encoding") == "gzip"}
		var body io.Reader = hr.Body
		if r.packed {
			z, err := gzip.NewReader(body)
			if err != nil {
				s.t.Errorf("body is not gzip: %v", err)
				return
			}
			body = z
		}
		b, err := io.ReadAll(body)
		if err != nil {
			return
		}
		r.lines = strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		s.mu.Lock()
		a := s.answer(len(s.calls), r)
		s.calls = append(s.calls, r)
		for _, line := range a.store {
			s.stored[line]++
		}
		s.mu.Unlock()
		switch {
		case a.drip:
			for i := 0; ; i++ {
				if _, err := io.WriteString(c, a.raw[i%len(a.raw):i%len(a.raw)+1]); err != nil {
					return
				}
				select {
				case <-s.quit:
					return
				case <-time.After(10 * time.Millisecond):
				}
			}
		case a.hang:
			io.Copy(io.Discard, br)
			return
		case a.reset:
			if t, ok := c.(*net.TCPConn); ok {
				t.SetLinger(0)
			}
			return
		}
		if _, err := io.WriteString(c, a.raw); err != nil || a.raw == "" || !complete(a.raw) {
			return
		}
	}
}

// complete tells whether raw is a whole answer after which the connection can go on.
func complete(raw string) bool {
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		return false
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && !resp.Close
}

func (s *scriptServer) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scriptServer) lines() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]int)
	for k, v := range s.stored {
		m[k] = v
	}
	return m
}

// The answers of influxd 2.7.12, with the headers it sends.
const (
	build   = "X-Influxdb-Build: OSS\r\nX-Influxdb-Version: v2.7.12\r\nDate: Sun, 22 Nov 2026 17:00:00 GMT\r\n"
	answer4 = "HTTP/1.1 204 No Content\r\n" + build + "\r\n"
)

// oss is an error as OSS 2.7 words it.
func oss(status int, code, message string) string {
	body := fmt.Sprintf(`{"code":%q,"message":%q}`, code, message)
	return fmt.Sprintf("HTTP/1.1 %d %s\r\nContent-Type: application/json; charset=utf-8\r\n%sX-Platform-Error-Code: %s\r\nContent-Length: %d\r\n\r\n%s",
		status, http.StatusText(status), build, code, len(body), body)
}

// bare is an answer with headers of one's own.
func bare(status int, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %d %s\r\n%sContent-Length: %d\r\n\r\n%s", status, http.StatusText(status), headers, len(body), body)
}
