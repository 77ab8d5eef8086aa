package broker

import (
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stubJournal covers everything below "dev/" and whatever has no slash, and commits when told to.
type stubJournal struct {
	b *Broker

	mu       sync.Mutex
	next     uint64
	durable  atomic.Uint64
	auto     bool  // commit with each append
	err      error // of Append
	errOnce  bool  // for one message only
	messages []Message
}

func (j *stubJournal) Covers(topic string) bool {
	return strings.HasPrefix(topic, "dev/") || !strings.Contains(topic, "/")
}

func (j *stubJournal) Append(m *Message) (uint64, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.err; err != nil {
		if j.errOnce {
			j.err = nil
		}
		return 0, err
	}
	c := *m
	c.Payload, c.Topic = append([]byte(nil), m.Payload...), strings.Clone(m.Topic)
	j.messages = append(j.messages, c)
	j.next++
	if j.auto {
		j.durable.Store(j.next)
	}
	return j.next, nil
}

func (j *stubJournal) Durable() uint64 { return j.durable.Load() }

func (j *stubJournal) commit() {
	j.mu.Lock()
	pos := j.next
	j.durable.Store(pos)
	j.mu.Unlock()
	j.b.Committed(pos)
}

// fault loses what is not durable and gives its positions again, as the log does.
func (j *stubJournal) fault() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.next = j.durable.Load()
	j.messages = j.messages[:j.next]
	j.b.Faulted(errors.New("device failed"))
}

func (j *stubJournal) fail(err error) {
	j.mu.Lock()
	j.err = err
	j.mu.Unlock()
}

func (j *stubJournal) received() []Message {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]Message(nil), j.messages...)
}

// fileJournal is a log with group commit and a real fdatasync, as small as can be.
type fileJournal struct {
	b        *Broker
	f        *os.File
	interval time.Duration
	mu       sync.Mutex
	buf      []byte
	spare    []byte
	next     uint64
	offset   int64
	durable  atomic.Uint64
	wake     chan struct{}
	done     chan struct{}
}

const fileJournalBytes = 64 << 20

func newFileJournal(t testing.TB, interval time.Duration) *fileJournal {
	f, err := os.CreateTemp(t.TempDir(), "journal")
	if err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range fileJournalBytes / len(zeros) {
		if _, err := f.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	return &fileJournal{f: f, interval: interval, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

func (j *fileJournal) Covers(topic string) bool { return true }
func (j *fileJournal) Durable() uint64          { return j.durable.Load() }

func (j *fileJournal) Append(m *Message) (uint64, error) {
	j.mu.Lock()
	j.buf = append(append(append(j.buf, m.ClientID...), m.Topic...), m.Payload...)
	j.next++
	pos := j.next
	first := len(j.buf) == len(m.ClientID)+len(m.Topic)+len(m.Payload)
	j.mu.Unlock()
	if first {
		select {
		case j.wake <- struct{}{}:
		default:
		}
	}
	return pos, nil
}

func (j *fileJournal) commit() {
	j.mu.Lock()
	buf, pos := j.buf, j.next
	j.buf = j.spare[:0]
	j.mu.Unlock()
	if len(buf) > 0 && j.f != nil {
		if j.offset+int64(len(buf)) > fileJournalBytes {
			j.offset = 0
		}
		if _, err := j.f.WriteAt(buf, j.offset); err != nil {
			panic(err)
		}
		j.offset += int64(len(buf))
		if err := unix.Fdatasync(int(j.f.Fd())); err != nil {
			panic(err)
		}
	}
	j.spare = buf
	j.durable.Store(pos)
	j.b.Committed(pos)
}

func (j *fileJournal) run(stop <-chan struct{}) {
	defer close(j.done)
	for {
		select {
		case <-j.wake:
			if j.interval > 0 {
				time.Sleep(j.interval)
			}
			j.commit()
		case <-stop:
			j.commit()
			return
		}
	}
}
