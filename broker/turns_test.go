package broker

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
)

// goroutines counts those that run code of this package or of the library.
func goroutines() (n int) {
	buf := make([]byte, 4<<20)
	for _, g := range strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "sluice/broker.(*") || strings.Contains(g, "mochi-mqtt") {
			n++
		}
	}
	return n
}

func TestIdle_ConnectionCostsNoGoroutineAndNoBuffer(t *testing.T) {
	if commitInterval == 0 || runtime.GOOS != "linux" {
		t.Skip("for connections that are watched")
	}
	const many = 200
	b := start(t, &stubJournal{auto: true}, nil)
	first := dialV3(t, b, "first")
	first.send("C0 00")
	first.expect("D0 00")
	before := goroutines()
	for i := range many {
		c := dialV3(t, b, fmt.Sprintf("d%d", i))
		c.send("82 06 00 01 00 01 61 01") // a
		c.expectKind(9)
		c.write(publishFrame(false, 1, 1, "dev/1", []byte("x")))
		c.expect("40 02 00 01")
		c.send("30") // and the first byte of something more
	}
	eventually(t, "idle", func() bool { return goroutines() <= before+2 })
	big := 0
	for _, c := range b.all() {
		inTurn(t, c, func() {
			if cap(c.in) > 256 || c.shared != nil {
				big++
			}
		})
	}
	if big > 0 {
		t.Errorf("%d of %d idle connections hold on to a buffer", big, many)
	}
}

func TestIdle_GivesBackWhatMadeItFast(t *testing.T) {
	if commitInterval == 0 || runtime.GOOS != "linux" {
		t.Skip("for connections that are watched")
	}
	b := start(t, &stubJournal{auto: true}, nil)
	c := dialV3(t, b, "d")
	for i := range 100 {
		c.write(publishFrame(false, 1, uint16(i+1), fmt.Sprint("dev/", i), make([]byte, 200)))
	}
	for range 100 {
		c.expectKind(typePuback)
	}
	k := b.all()[0]
	k.wantTrim.Store(true) // as the poller asks, some seconds later
	inTurn(t, k, func() {})
	if k.wants() {
		b.workers.add(k)
	}
	eventually(t, "asked", func() bool { return !k.wantTrim.Load() })
	inTurn(t, k, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.topics != nil || k.staged != nil || k.out.spare != nil || k.held.frames != nil {
			t.Errorf("still there: %d topics, room for %d acknowledgements, %d and %d bytes", len(k.topics), cap(k.staged), cap(k.out.spare), cap(k.held.frames))
		}
	})
}

// inTurn calls f when nobody else may touch c.
func inTurn(t *testing.T, c *conn, f func()) {
	t.Helper()
	eventually(t, "nobody has its turn", func() bool { return c.turn.CompareAndSwap(turnNone, turnTaken) })
	f()
	if c.passTurn() {
		c.b.workers.add(c)
	}
}

func TestTurns_OneThatStandsStillDelaysNoOther(t *testing.T) {
	j := &stuckJournal{stubJournal: stubJournal{auto: true}, stuck: make(chan struct{})}
	b := start(t, j, nil)
	j.b = b
	defer close(j.stuck)
	// More clients than there are workers wait in the journal.
	for i := range 2*runtime.GOMAXPROCS(0) + 1 {
		dialV3(t, b, fmt.Sprint("stuck", i)).write(publishFrame(false, 1, 1, "stuck", []byte("x")))
	}
	for i := range 3 {
		c := dialV3(t, b, fmt.Sprint("free", i))
		c.write(publishFrame(false, 1, 1, "free", []byte("x")))
		c.expect("40 02 00 01")
	}
}

// stuckJournal does not return from Append of one topic.
type stuckJournal struct {
	stubJournal
	stuck chan struct{}
}

func (j *stuckJournal) Append(m *Message) (uint64, error) {
	if m.Topic == "stuck" {
		<-j.stuck
	}
	return j.stubJournal.Append(m)
}

func TestTurns_WhoSendsWithoutEndLetsOthersHaveTheirs(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	stop := make(chan struct{})
	defer close(stop)
	for i := range 2 * runtime.GOMAXPROCS(0) {
		c := dialV3(t, b, fmt.Sprint("flood", i))
		go func() {
			frames := make([]byte, 0, 64<<10)
			for len(frames) < 60<<10 {
				frames = append(frames, publishFrame(false, 0, 0, "flood", make([]byte, 100))...)
			}
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := c.Conn.Write(frames); err != nil {
					return
				}
			}
		}()
	}
	c := dialV3(t, b, "quiet")
	for range 20 {
		c.send("C0 00")
		c.expect("D0 00")
	}
}

func TestChurn_LeavesNothingBehind(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, nil)
	round := func(n int) {
		for i := range n {
			c := dialV3(t, b, fmt.Sprint("churn", i%50))
			c.write(publishFrame(false, 1, 1, "dev/1", []byte("x")))
			c.expect("40 02 00 01")
			if i%2 == 0 {
				c.send("E0 00")
			}
			_ = c.Close()
		}
		eventually(t, "gone", func() bool {
			return b.Stats().Connections == 0 && b.server.Clients.Len() == 0 && b.Stats().Sessions.Sessions == 0
		})
	}
	round(50)
	before := goroutines()
	round(500)
	eventually(t, "as few goroutines as before", func() bool { return goroutines() <= before+runtime.GOMAXPROCS(0) })
	if n := b.server.Info.ClientsConnected; n != 0 {
		t.Errorf("$SYS counts %d clients, want none", n)
	}
}

func TestConnect_WhoSaysNothingIsClosedInTime(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.Limits.ConnectTimeout = 150 * time.Millisecond })
	silent := dial(t, b)
	half := dial(t, b)
	half.send("10 0D 00 04")
	var gone []net.Conn
	for _, c := range []*rawClient{silent, half} {
		c.expectClosed()
		gone = append(gone, c)
	}
	if n := b.Stats().Rejected.ConnectTimeout; n != int64(len(gone)) {
		t.Errorf("%d connections counted, want %d", n, len(gone))
	}
}

// The standard promises nothing here, but people, and test suites, expect it.
func TestTurns_WhoSubscribesBeforeAnotherPublishesGetsTheMessage(t *testing.T) {
	if commitInterval == 0 || runtime.GOOS != "linux" {
		t.Skip("for connections that are watched")
	}
	b := start(t, &stubJournal{auto: true}, nil)
	const rounds = 40
	missed := 0
	for i := range rounds {
		s, p := dialV3(t, b, fmt.Sprint("s", i)), dialV3(t, b, fmt.Sprint("p", i))
		s.send("82 06 00 01 00 01 61 00") // a
		p.write(publishFrame(false, 0, 0, "a", []byte("x")))
		got := false
		for range 2 { // SUBACK and PUBLISH, in any order
			if p, err := s.packet(200 * time.Millisecond); err == nil {
				got = got || p[0]>>4 == typePublish
			}
		}
		if !got {
			missed++
		}
		_, _ = s.Close(), p.Close()
	}
	if missed > rounds/10 { // a machine that stands still may let one worker overtake another
		t.Errorf("%d of %d messages missed", missed, rounds)
	}
}

func TestTurns_WithoutGathering(t *testing.T) {
	b := start(t, &stubJournal{auto: true}, func(c *Config) { c.CommitInterval = 0 })
	s := dialV3(t, b, "s")
	s.send("82 06 00 01 00 01 61 01") // a
	s.expectKind(9)
	c := dialV3(t, b, "c")
	for i := range 200 {
		c.write(publishFrame(false, 1, uint16(i+1), "a", []byte("x")))
		if i%20 == 0 {
			c.expectKind(typePuback)
			p := s.expectKind(typePublish)
			s.write([]byte{typePuback << 4, 2, p[5], p[6]})
		}
	}
}

func TestDrain_TakesWhatHasComeIn(t *testing.T) {
	if commitInterval == 0 || runtime.GOOS != "linux" {
		t.Skip("for connections that are watched")
	}
	j := &stubJournal{auto: true}
	b, err := New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: commitInterval}, j)
	if err != nil {
		t.Fatal(err)
	}
	j.b = b
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	var clients []*rawClient
	for i := range 20 {
		clients = append(clients, dialV5(t, b, fmt.Sprint("c", i)))
	}
	for _, c := range clients {
		c.write(publishFrame(true, 1, 1, "dev/1", []byte("x")))
	}
	cancel()
	for _, c := range clients {
		c.expect("40 02 00 01")
		c.expect("E0 02 8B 00")
		c.expectClosed()
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
