package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"sluice/broker"
	"sluice/broker/acl"
	"sluice/broker/passwd"
	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	"sluice/uplink"
)

// gateway is one wired gateway. openGateway builds it from what the data directory holds; run serves until its context ends.
type gateway struct {
	cfg     *config.Config
	log     *slog.Logger
	started time.Time
	clock   *clock

	dir        *dataDir
	reserve    *reserve
	slots      *seglog.Slots
	journal    *seglog.Log
	intake     *intake
	outlet     *outlet
	topics     *alertTopics
	history    *history.History // nil: none
	runner     *pipeline.Runner
	forwarders []*forwarder
	kept       []io.Closer // what sinks share
	broker     *broker.Broker
	sessions   *broker.Store
	console    *console.Server
	live       *live
	fleet      fleet
	jobs       *jobs
	requeuing  requeuing
	backing    backing
	stage      console.Demo // nil: no demonstration

	users     atomic.Pointer[passwd.File]
	rights    acl.Live
	commits   commitHistogram
	rate      rateMeter
	recovered seglog.Recovery
	spec      []byte // the config's, encoded
	ready     atomic.Bool
	reloadErr atomic.Pointer[string] // why the last reload left the old rules in force
	stopWait  context.CancelFunc     // ends the outlet's waiting
	reloading sync.Mutex
}

// forwarder is one destination's way out.
type forwarder struct {
	*uplink.Forwarder
	name, kind string // kind: a destination's type, or webhook
	outbox     *uplink.Outbox
	sink       uplink.Sink
}

// openGateway opens every part; it starts nothing, listens nowhere, and leaves the replay of the journal to run. seglog.ErrLocked
// when another process has the data directory.
func openGateway(cfg *config.Config, log *slog.Logger) (*gateway, error) {
	return openStaged(cfg, log, nil)
}

// openStaged is openGateway for a demonstration; stage is nil for any other gateway.
func openStaged(cfg *config.Config, log *slog.Logger, stage console.Demo) (g *gateway, err error) {
	g = &gateway{cfg: cfg, log: log, started: time.Now(), clock: newMachineClock(), live: newLive(), jobs: newJobs(log), stage: stage}
	defer func() {
		if err != nil {
			g.close()
		}
	}()
	files, err := readRuleFiles(cfg)
	if err != nil {
		return g, err
	}
	spec := buildSpec(cfg, files)
	if g.spec, err = spec.Encode(); err != nil {
		return g, err
	}
	if err := spec.Check(); err != nil {
		return g, err
	}
	if g.dir, err = openDataDir(cfg.Gateway.DataDir, cfg.Gateway.ID); err != nil {
		return g, err
	}
	g.reserve = newReserve(g.dir.path, log)
	if err := g.openJournal(); err != nil {
		return g, err
	}
	topics, err := spec.Topics()
	if err != nil {
		return g, err
	}
	g.intake.topics.Store(topics)
	if err := g.openBroker(); err != nil {
		return g, err
	}
	if err := g.openConsole(); err != nil {
		return g, err
	}
	g.outlet.publish = g.command
	return g, nil
}

func (g *gateway) openJournal() (err error) {
	for _, d := range []string{"journal", "outbox", "state", "quarantine"} {
		if err := g.dir.fs.MkdirAll(g.dir.join(d)); err != nil {
			return fmt.Errorf("create %s: %w", d, err)
		}
	}
	if g.slots, err = seglog.OpenSlots(g.dir.fs, g.dir.join("state"), "checkpoint"); err != nil {
		return err
	}
	fold, err := pipeline.Recover(g.slots, g.log)
	if err != nil {
		return err
	}
	j := g.cfg.Journal
	g.journal, g.recovered, err = seglog.Open(g.dir.join("journal"), seglog.Options{
		SegmentBytes: int64(j.SegmentBytes), MaxBytes: int64(j.MaxBytes), CommitInterval: j.CommitInterval,
		MinNext: fold.LSN() + 1, Log: g.log, OnCommit: g.committed, OnFault: g.faulted,
	})
	if err != nil {
		return err
	}
	for _, d := range g.recovered.Damaged {
		g.log.Error("journal was damaged; the range is set aside", "segment", d.Segment, "offset", d.Offset, "bytes", d.Bytes, "saved", d.SavedAs)
	}
	g.intake = &intake{journal: g.journal, clock: g.clock}
	ctx, cancel := context.WithCancel(context.Background())
	g.stopWait = cancel
	g.topics = newAlertTopics(func(topic string, payload []byte, qos byte, retain bool) error {
		return g.broker.Publish(topic, payload, qos, retain)
	}, g.log)
	g.outlet = &outlet{ctx: ctx, instanceOf: g.dir.meta.instanceOf, gateway: g.cfg.Gateway.ID, topics: g.topics, live: g.live, log: g.log}
	if err := g.openUplink(); err != nil {
		return err
	}
	g.openHistory()
	g.runner = pipeline.NewRunner(fold, g.journal, g.slots, g.outlet, pipeline.Options{
		CheckpointBytes: min(2*int64(j.SegmentBytes), 32<<20), KeepBytes: int64(j.KeepBytes), Log: g.log,
	})
	return nil
}

// recover replays what the last checkpoint does not hold.
func (g *gateway) recover() error {
	start := time.Now()
	n, err := g.runner.Replay()
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	g.log.Info("recovered", "records", n, "journal_first", g.recovered.First, "journal_last", g.recovered.Last,
		"torn_bytes", g.recovered.TornBytes, "damaged", len(g.recovered.Damaged), "took", time.Since(start).Round(time.Millisecond))
	return nil
}

// begin journals the start and, where it differs from what is in force, the config's spec. The journal runs already. A full disk
// is no reason not to serve: what is stored can drain, and there may be room again.
func (g *gateway) begin() error {
	var boot [8]byte
	rand.Read(boot[:])
	state := g.clock.begin(g.runner.ClockState())
	if state.Unset {
		g.log.Warn("the clock is not set: messages are held until it is, alerts are not", "clock", g.clock.wall().UTC())
	}
	err := g.intake.boot(hex.EncodeToString(boot[:]), readBuildInfo().Version, state)
	if err == nil && !bytes.Equal(g.spec, g.runner.SpecInForce()) {
		err = g.intake.configure(g.spec)
	}
	if err != nil && !errors.Is(err, seglog.ErrFull) && !errors.Is(err, seglog.ErrFailed) {
		return fmt.Errorf("journal the start: %w", err)
	}
	for last := g.journal.Next() - 1; g.journal.Durable() < last && g.journal.Err() == nil; {
		time.Sleep(100 * time.Microsecond)
	}
	if _, err := g.runner.Replay(); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	return nil
}

// committed runs in the committer's goroutine after each commit.
func (g *gateway) committed(c seglog.CommitInfo) {
	g.commits.observe(c.Duration)
	if c.Records <= fewRecords {
		runtime.Gosched() // the pipeline was just woken: an alert is out before the acknowledgements are written, not after
	}
	if g.broker != nil {
		g.broker.Committed(uint64(c.Durable))
	}
}

// fewRecords in a commit are taken in by the pipeline in less time than it takes to wake another processor.
const fewRecords = 4

// faulted runs in the committer's goroutine when a commit failed for good.
func (g *gateway) faulted(err error, _ seglog.LSN) {
	g.log.Error("journal takes no messages; nothing is acknowledged until it does", "err", err)
	if g.broker != nil {
		g.broker.Faulted(err)
	}
}

// run serves until ctx ends, then stops in order: no new messages, last commit, last acknowledgements, the pipeline to the
// journal's end, outboxes synced. A crash at any moment of it is recovered from in the same way as any other.
func (g *gateway) run(ctx context.Context) error {
	defer g.close()
	// Stages end in this order; each has its own context so that an earlier one can still use a later one.
	var tail, serve errgroup.Group
	failed, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	part := func(group *errgroup.Group, name string, run func() error) {
		group.Go(func() error {
			if err := run(); err != nil {
				err = fmt.Errorf("%s: %w", name, err)
				fail(err)
				return err
			}
			return nil
		})
	}
	journalCtx, stopJournal := context.WithCancel(context.Background())
	defer stopJournal()
	forwardCtx, stopForward := context.WithCancel(context.Background())
	defer stopForward()
	var journal, forward errgroup.Group
	part(&journal, "journal", func() error { return g.journal.Run(journalCtx) })
	for _, f := range g.forwarders { // before the recovery: it may need room that only deliveries make
		forward.Go(func() error { g.keepRunning(forwardCtx, f); return nil })
	}
	showing := false
	show := func() error {
		if g.console == nil || showing {
			return nil
		}
		if err := g.console.Listen(); err != nil {
			return err
		}
		showing = true
		part(&forward, "http", func() error { return g.console.Run(forwardCtx) })
		return nil
	}
	err := g.open(failed, show)
	if err == nil {
		err = show()
	}
	if err != nil {
		stopForward()
		stopJournal()
		err = errors.Join(err, forward.Wait(), journal.Wait())
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped before it served
		}
		return err
	}
	pipelineCtx, stopPipeline := context.WithCancel(context.Background())
	defer stopPipeline()
	part(&tail, "pipeline", func() error { return g.runner.Run(pipelineCtx) })
	historyCtx, stopHistory := context.WithCancel(context.Background())
	defer stopHistory()
	historyEnded := g.runHistory(historyCtx)
	part(&serve, "ticks", func() error { return g.tickLoop(failed) })
	part(&serve, "backfill", func() error { return g.runBackfill(failed) })
	part(&serve, "disk", func() error { return g.watchDisk(failed) })
	part(&serve, "watchdog", func() error { return watchdog(failed, g.log, g.alive) })
	part(&serve, "broker", func() error { return g.broker.Run(failed) })
	part(&serve, "alert topics", func() error { return g.publishAlerts(failed) })

	g.ready.Store(true)
	notify(g.log, "READY=1")
	g.log.Info("serving", "mqtt", g.broker.Addrs(), "http", g.consoleAddr(), "start", time.Since(g.started).Round(time.Millisecond))

	<-failed.Done()
	g.ready.Store(false)
	notify(g.log, "STOPPING=1")
	g.log.Info("stopping")
	g.jobs.stop()
	err = serve.Wait()
	stopJournal()
	err = errors.Join(err, journal.Wait())
	caughtUp := g.awaitPipeline(stopGrace)
	if !caughtUp {
		g.stopWait() // it may be waiting for room in an outbox
	}
	stopPipeline()
	if perr := tail.Wait(); !errors.Is(perr, context.Canceled) {
		err = errors.Join(err, perr)
	}
	stopForward()
	err = errors.Join(err, forward.Wait())
	stopHistory()
	g.awaitHistory(historyEnded)
	if err == nil && caughtUp {
		if cerr := g.runner.Checkpoint(); cerr != nil {
			g.log.Warn("no checkpoint at the end; the next start replays more", "err", cerr)
		}
	}
	if cause := context.Cause(failed); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// command publishes a message to a device. What a replay puts out again before the gateway serves goes nowhere: it was published
// before, or its device will be asked again.
func (g *gateway) command(topic string, payload []byte) error {
	if !g.ready.Load() {
		return nil
	}
	return g.broker.Publish(topic, payload, 0, false)
}

// open takes the last steps before serving: it replays the journal, and lets devices in last. While an output has no room (an
// outbox that is full, with when_full: refuse) nobody can know when that ends: show opens the console, so that one sees why.
func (g *gateway) open(ctx context.Context, show func() error) error {
	recovered := make(chan error, 1)
	go func() {
		err := g.recover()
		if err == nil {
			err = g.begin()
		}
		recovered <- err
	}()
	t := time.NewTicker(waitShown)
	defer t.Stop()
	for waited := false; ; {
		select {
		case err := <-recovered:
			if err == nil {
				err = show() // before MQTT: who can publish can also ask
			}
			if err != nil {
				return err
			}
			return g.broker.Listen()
		case <-ctx.Done():
			g.stopWait()
			return errors.Join(<-recovered, context.Cause(ctx))
		case <-t.C:
		}
		switch now := g.outlet.waiting() != ""; {
		case now && waited:
			if err := show(); err != nil {
				g.stopWait()
				return errors.Join(err, <-recovered)
			}
			notify(g.log, "READY=1") // else systemd takes the wait for a start that failed
			notify(g.log, "WATCHDOG=1")
		default:
			waited = now
		}
	}
}

// waitShown is how long a recovery waits for room before the console opens, and how often it is looked at.
const waitShown = 500 * time.Millisecond

// keepRunning runs a forwarder again when it fails: one destination's trouble ends neither the gateway nor another's.
func (g *gateway) keepRunning(ctx context.Context, f *forwarder) {
	for wait := time.Second; ; wait = min(2*wait, time.Minute) {
		err := f.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		g.log.Error("forwarder ended; starting it again", "destination", f.name, "in", wait, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// stopGrace bounds how long a stop waits for the pipeline; what it leaves is replayed at the next start.
const stopGrace = 2 * time.Second

// awaitPipeline tells whether the pipeline got to the journal's end in time.
func (g *gateway) awaitPipeline(most time.Duration) bool {
	for end := time.Now().Add(most); !g.caughtUp(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			return false
		}
	}
	return true
}

// tickEvery is the least time between two ticks.
const tickEvery = 100 * time.Millisecond

// tickLoop journals a tick whenever the fold is due, and follows the wall clock.
func (g *gateway) tickLoop(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	asked := int64(math.MinInt64)
	for settle := 0; ; settle++ {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		if settle%10 == 0 {
			ignored := g.clock.ignored
			step, set := g.clock.settle()
			if g.clock.ignored && !ignored {
				g.log.Warn("the wall clock shows no time; going on without it", "clock", g.clock.wall().UTC())
			}
			if step != 0 || set {
				g.log.Warn("the wall clock was set", "by", step)
				if err := g.intake.clockStep(step); err != nil {
					g.log.Error("clock step not journalled", "err", err)
				}
				asked = math.MinInt64
			}
		}
		now := g.clock.now()
		due := g.runner.Due()
		// One tick answers one due time; until the pipeline has seen it, a second would change nothing.
		if due > now || due == asked && !g.caughtUp() {
			continue
		}
		asked = due
		if err := g.intake.tick(); err != nil && !errors.Is(err, seglog.ErrFull) && !errors.Is(err, seglog.ErrFailed) {
			return fmt.Errorf("journal a tick: %w", err)
		}
	}
}

func (g *gateway) caughtUp() bool { return g.runner.Applied() >= g.journal.Durable() }

// watchDisk gives the reserve up when the journal is full, and takes it back when there is room again.
func (g *gateway) watchDisk(ctx context.Context) error {
	t := time.NewTicker(time.Second)
	defer t.Stop()
	g.reserve.keep()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		switch err := g.journal.Err(); {
		case err != nil || g.outlet.waiting() != "":
			g.reserve.release()
		case g.reserve.plenty():
			g.reserve.keep()
		}
	}
}

// alive tells the watchdog whether the pipeline moves on while there is something to do.
func (g *gateway) alive() bool {
	return g.caughtUp() || g.outlet.waiting() != "" || time.Since(g.runner.Moved()) < stuckAfter
}

// stuckAfter is how long the pipeline may stand still with records before it.
const stuckAfter = time.Minute

// reload reads rules, users, access list and certificates again. What is broken leaves the old ones in force.
func (g *gateway) reload() error {
	g.reloading.Lock()
	defer g.reloading.Unlock()
	err := errors.Join(g.reloadRules(), g.reloadAccess(), g.reloadWebhooks())
	if err != nil {
		why := err.Error()
		g.reloadErr.Store(&why)
		return err
	}
	g.reloadErr.Store(nil)
	return nil
}

func (g *gateway) reloadRules() error {
	files, err := readRuleFiles(g.cfg)
	if err != nil {
		return err
	}
	if err := checkRules(files, g.cfg); err != nil {
		return err
	}
	spec := buildSpec(g.cfg, files)
	raw, err := spec.Encode()
	if err != nil {
		return err
	}
	return g.intake.configure(raw)
}

// close releases what openGateway took; safe on a half-built gateway.
func (g *gateway) close() {
	if g.stopWait != nil {
		g.stopWait()
	}
	if g.journal != nil {
		g.journal.Close()
	}
	for _, f := range g.forwarders {
		f.CloseSink()
		f.outbox.Close()
	}
	for _, k := range g.kept {
		k.Close()
	}
	if g.outlet != nil && g.outlet.quarantine != nil {
		g.outlet.quarantine.Close()
	}
	if g.slots != nil {
		g.slots.Close()
	}
	if g.sessions != nil {
		g.sessions.Close()
	}
	if g.dir != nil {
		g.dir.Close()
	}
}

func (g *gateway) consoleAddr() string {
	if g.console == nil || g.console.Addr() == nil {
		return ""
	}
	return g.console.Addr().String()
}
