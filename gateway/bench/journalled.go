package main

import (
	"context"
	"flag"
	"fmt"
	"os/signal"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"sluice/broker"
	"sluice/gateway/e2e/proc"
	"sluice/gateway/seglog"
)

// journalled is the gateway's way from the socket to the PUBACK and nothing else: broker and journal without the pipeline
// behind them. It shows what durability costs, where the whole gateway shows what everything costs.
type journalled struct{ log *seglog.Log }

// recordMessage is any type: nobody reads the records.
const recordMessage = 1

// Covers implements broker.Journal.
func (j journalled) Covers(string) bool { return true }

// Append implements broker.Journal.
func (j journalled) Append(m *broker.Message) (uint64, error) {
	var head [256]byte
	h := append(append(head[:0], m.ClientID...), 0)
	h = append(append(h, m.Topic...), 0, m.QoS, byte(m.PacketID>>8), byte(m.PacketID))
	lsn, err := j.log.Append(recordMessage, m.Received, h, m.Payload)
	return uint64(lsn), err
}

// Durable implements broker.Journal.
func (j journalled) Durable() uint64 { return uint64(j.log.Durable()) }

// journalledMain is the process: it serves until SIGTERM.
func journalledMain(args []string) error {
	fs := flag.NewFlagSet("journalled", flag.ContinueOnError)
	address := fs.String("address", "", "where to listen")
	dir := fs.String("dir", "", "the journal's directory")
	commit := fs.Duration("commit", 5*time.Millisecond, "commit interval")
	if err := fs.Parse(args); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	var b *broker.Broker
	log, _, err := seglog.Open(*dir, seglog.Options{
		CommitInterval: *commit,
		OnCommit:       func(c seglog.CommitInfo) { b.Committed(uint64(c.Durable)) },
		OnFault:        func(err error, _ seglog.LSN) { b.Faulted(err) },
	})
	if err != nil {
		return err
	}
	b, err = broker.New(broker.Config{AllowAnonymous: true, CommitInterval: *commit, Commit: func() { log.Commit() },
		Listeners: []broker.ListenerConfig{{Address: *address}}}, journalled{log})
	if err != nil {
		return err
	}
	if err := b.Listen(); err != nil {
		return err
	}
	journal, stopJournal := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { log.Run(journal) })
	err = b.Run(ctx)
	stopJournal()
	wg.Wait()
	log.Close()
	return err
}

// startJournalled runs this program as journalledMain.
func (b *bench) startJournalled() (*server, error) {
	s, port, err := b.newServer("broker+journal")
	if err != nil {
		return nil, err
	}
	s.address = fmt.Sprintf("127.0.0.1:%d", port)
	s.proc, err = proc.Start(s.name, nil, "/proc/self/exe", "journalled", "-address", s.address, "-dir", filepath.Join(s.dir, "journal"), "-commit", b.commit.String())
	if err != nil {
		return nil, err
	}
	return s, s.waitReady()
}
