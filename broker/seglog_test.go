package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"sluice/gateway/seglog"
)

// logJournal is the gateway's own log.
type logJournal struct {
	*seglog.Log
	b *Broker
}

func (j *logJournal) Covers(topic string) bool { return true }
func (j *logJournal) Durable() uint64          { return uint64(j.Log.Durable()) }

func (j *logJournal) Append(m *Message) (uint64, error) {
	lsn, err := j.Log.Append(1, m.Received, []byte(m.ClientID), []byte{byte(m.PacketID >> 8), byte(m.PacketID)}, m.Payload)
	return uint64(lsn), err
}

// startWithLog runs a broker on a log in a new directory.
func startWithLog(t testing.TB, interval time.Duration) (*Broker, *logJournal) {
	j := &logJournal{}
	log, _, err := seglog.Open(t.TempDir(), seglog.Options{CommitInterval: interval,
		OnCommit: func(c seglog.CommitInfo) { j.b.Committed(uint64(c.Durable)) },
		OnFault:  func(err error, _ seglog.LSN) { j.b.Faulted(err) }})
	if err != nil {
		t.Fatal(err)
	}
	j.Log = log
	t.Cleanup(func() { _ = log.Close() })
	j.b, err = New(Config{Listeners: []ListenerConfig{{Address: "127.0.0.1:0"}}, CommitInterval: interval,
		Commit: func() { _ = log.Commit() }}, j)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.b.Listen(); err != nil {
		t.Fatal(err)
	}
	logCtx, stopLog := context.WithCancel(context.Background())
	logDone, done := make(chan error, 1), make(chan error, 1)
	go func() { logDone <- log.Run(logCtx) }()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- j.b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done); err != nil {
			t.Error(err)
		}
		stopLog()
		<-logDone
	})
	return j.b, j
}

func TestLog_HoldsEveryMessageBeforeItIsAcknowledged(t *testing.T) {
	b, j := startWithLog(t, commitInterval)
	c := dialV3(t, b, "d")
	const n = 2000
	go func() {
		for i := uint16(1); i <= n; i++ {
			_, _ = c.Write(publishFrame(false, 1, i, "dev/1", fmt.Appendf(nil, "message %d", i)))
		}
	}()
	cursor := j.Cursor(1)
	defer cursor.Close()
	for i := uint16(1); i <= n; i++ {
		c.expect(fmt.Sprintf("40 02 %04X", i))
		r, ok, err := cursor.TryNext()
		want := append([]byte{'d', byte(i >> 8), byte(i)}, fmt.Sprintf("message %d", i)...)
		if err != nil || !ok || !bytes.Equal(r.Body, want) {
			t.Fatalf("acknowledged %d, log has %q, %v, %v", i, r.Body, ok, err)
		}
	}
}
