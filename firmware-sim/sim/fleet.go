// Package sim simulates a fleet of MQTT devices: realistic signals, injected faults, and a ground truth of what was
// published and acknowledged that is exact enough to judge the receiving side by.
//
// It speaks MQTT 3.1.1 through the Eclipse Paho client and knows nothing of the gateway it tests. It never reorders,
// changes or forgets a message on its own: only a configured fault or GiveUpAfter does.
//
// A Fleet is made by New, which starts nothing, and run once by Fleet.Run, which blocks and owns every goroutine: one
// for each connection, beside those of its Paho client, and one for the fleet. What the devices say depends on the
// seed alone; when they can say it depends on the server.
package sim

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// Fleet is a set of simulated devices. All methods are safe for concurrent use.
type Fleet struct {
	cfg      Config
	switches []*faultSwitch
	links    []*link
	planned  int64         // readings to take; 0: no end
	lastDue  time.Duration // of the last planned task; 0: no end
	record   *record
	stats    counters
	nextID   atomic.Uint64
	stopRun  context.CancelCauseFunc // ends the run at once, with a reason; set by Run before anything else runs

	ran     atomic.Bool
	start   time.Time // set by Run
	startNS atomic.Int64
	endNS   atomic.Int64

	mu             sync.Mutex // guards lastConnectErr
	lastConnectErr string
}

// New checks cfg and builds the fleet; it connects nothing. The error lists everything that is wrong with cfg.
func New(cfg Config) (*Fleet, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	f := &Fleet{cfg: cfg}
	var held time.Duration // longest any message may be held back
	for _, fault := range cfg.Faults {
		s := &faultSwitch{Fault: fault.withDefaults()}
		f.switches = append(f.switches, s)
		held += s.Delay
	}
	devices := newDevices(cfg, f.switches)
	for _, d := range devices {
		if d.limit < 0 {
			f.planned, f.lastDue = 0, 0
			break
		}
		f.planned += d.limit
		if float64(d.limit)*float64(d.interval) > float64(math.MaxInt64/4) {
			f.lastDue = math.MaxInt64 // in centuries
			continue
		}
		f.lastDue = max(f.lastDue, d.phase+time.Duration(d.limit)*d.interval+held)
	}
	f.record = newRecord(cfg.Truth, cfg.OnEvent, func(err error) { f.stopRun(err) })
	for k := range cfg.Connections {
		var mine []*device
		for i := k; i < len(devices); i += cfg.Connections {
			mine = append(mine, devices[i])
		}
		f.links = append(f.links, newLink(f, k, fmt.Sprintf("%s-%d", cfg.ClientIDPrefix, k+1), mine))
	}
	return f, nil
}

// ErrIncomplete is in the error of a Run that ended with messages unacknowledged or planned readings unpublished.
var ErrIncomplete = errors.New("incomplete")

// Run simulates until the planned readings are acknowledged, or until ctx is cancelled; then it takes no more readings
// and waits up to Config.StopDrain for acknowledgements. It returns nil when every published message was acknowledged
// (at QoS 0: handed to a connection) and, unless cancelled, every planned reading published. It may be called once.
func (f *Fleet) Run(ctx context.Context) error {
	if f.ran.Swap(true) {
		return errors.New("fleet ran already")
	}
	hard, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	f.stopRun = cancel
	f.start = time.Now()
	f.startNS.Store(f.start.UnixNano())

	var links sync.WaitGroup
	for _, l := range f.links {
		links.Go(func() { l.run(ctx, hard) })
	}
	finished := make(chan struct{})
	var conductor sync.WaitGroup
	conductor.Go(func() { f.conduct(ctx, finished, cancel) })
	links.Wait()
	close(finished)
	conductor.Wait()
	f.endNS.Store(time.Now().UnixNano())

	if err := f.record.flush(); err != nil {
		return err
	}
	unsent := 0
	for _, l := range f.links {
		unsent += l.unsent
	}
	if lost := f.stats.lost.Load(); lost > 0 || (unsent > 0 && ctx.Err() == nil) {
		return fmt.Errorf("%w: %d messages were never acknowledged, %d planned messages never published", ErrIncomplete, lost, unsent)
	}
	return nil
}

// conduct switches faults by the clock, calls storms, writes the ground truth out and ends a drain that gets nowhere.
func (f *Fleet) conduct(ctx context.Context, finished <-chan struct{}, cancel context.CancelCauseFunc) {
	const tick = 20 * time.Millisecond
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	was := make([]bool, len(f.switches))
	lastCut := make([]time.Time, len(f.switches))
	chance := rand.New(rand.NewPCG(f.cfg.Seed, 1<<63))
	var flushed, stopAt time.Time
	progress, progressAt := int64(-1), time.Now()
	for {
		now := time.Now()
		for i, s := range f.switches {
			on := s.active(now.Sub(f.start))
			if on != was[i] {
				f.fault(s, on)
			}
			if on && s.Kind == "reconnect_storm" && (!was[i] || s.Every > 0 && now.Sub(lastCut[i]) >= s.Every) {
				lastCut[i] = now
				f.storm(s, chance)
			}
			was[i] = on
		}
		if now.Sub(flushed) > 200*time.Millisecond {
			flushed = now
			_ = f.record.flush() // Run reports the error
		}
		if p := f.stats.progress(); p != progress || f.lastDue == 0 || f.elapsed() < f.lastDue {
			progress, progressAt = p, now
		} else if now.Sub(progressAt) > f.cfg.Drain {
			cancel(errors.New("no acknowledgement for " + f.cfg.Drain.String()))
		}
		if ctx.Err() != nil {
			if stopAt.IsZero() {
				stopAt = now.Add(f.cfg.StopDrain)
			} else if now.After(stopAt) {
				cancel(errors.New("stopped"))
			}
		}
		select {
		case <-finished:
			for i, s := range f.switches {
				if was[i] {
					f.fault(s, false)
				}
			}
			return
		case <-ticker.C:
		}
	}
}

func (f *Fleet) fault(s *faultSwitch, on bool) {
	e := &Event{Kind: FaultEnd, Fault: s.Name, Reason: s.Kind}
	if on {
		e.Kind = FaultStart
	}
	f.record.put(e)
}

// storm cuts the connections that carry a matching device.
func (f *Fleet) storm(s *faultSwitch, chance *rand.Rand) {
	now := time.Now()
	for _, l := range f.links {
		hit := chance.Float64() < s.Probability
		if !hit || !l.carries(s.Devices) {
			continue
		}
		select {
		case l.cuts <- cut{at: now, until: now.Add(s.Offline), fault: s.Name}:
		default:
		}
	}
}

func (l *link) carries(glob string) bool {
	for _, d := range l.devices {
		if matches(glob, d.name) {
			return true
		}
	}
	return false
}

// SetFault switches a configured fault on or off by hand; its schedule no longer counts. It acts on the next readings,
// a reconnect_storm within 20 ms. The error says that no fault has that name.
func (f *Fleet) SetFault(name string, on bool) error {
	for _, s := range f.switches {
		if s.Name == name {
			s.manual.Store(-1)
			if on {
				s.manual.Store(1)
			}
			return nil
		}
	}
	return fmt.Errorf("no fault named %q", name)
}

// FaultState is a fault and whether it acts now.
type FaultState struct {
	Fault
	Active bool
}

// Faults lists the configured faults in the order of Config.Faults, with their defaults filled in.
func (f *Fleet) Faults() []FaultState {
	states := make([]FaultState, len(f.switches))
	for i, s := range f.switches {
		states[i] = FaultState{s.Fault, f.startNS.Load() != 0 && s.active(f.elapsed())}
	}
	return states
}

// Devices lists the names of the simulated devices.
func (f *Fleet) Devices() []string {
	var names []string
	for i := range f.cfg.Devices {
		l := f.links[i%len(f.links)]
		names = append(names, l.devices[i/len(f.links)].name)
	}
	return names
}

// elapsed is the time since Run began; 0 before.
func (f *Fleet) elapsed() time.Duration {
	if f.startNS.Load() == 0 {
		return 0
	}
	return time.Since(f.start)
}

// tell records what happened to a message.
func (f *Fleet) tell(kind EventKind, l *link, d *delivery, reason string) {
	m := d.msg
	f.record.put(&Event{
		Kind: kind, ID: d.id, Device: m.device.name, Topic: m.device.topic, Line: m.device.line, Seq: m.seq,
		TS: m.ts, TrueTS: m.trueTS, Values: m.values, Fault: m.fault, Malformed: m.malformed, QoS: f.cfg.QoS,
		Payload: m.payload, Reason: reason,
	})
}

func (f *Fleet) connected(l *link, sessionPresent bool) {
	f.stats.connects.Add(1)
	f.record.put(&Event{Kind: Connect, Client: l.clientID, SessionPresent: sessionPresent})
	f.mu.Lock()
	was := f.lastConnectErr
	f.lastConnectErr = ""
	f.mu.Unlock()
	if was != "" {
		f.cfg.Log.Info("connected again", "server", f.cfg.Server)
	}
}

func (f *Fleet) disconnected(l *link, reason string) {
	f.record.put(&Event{Kind: Disconnect, Client: l.clientID, Reason: reason})
}

// connectFailed logs a reason once, not for every connection and attempt.
func (f *Fleet) connectFailed(err error) {
	f.stats.connectFailures.Add(1)
	f.mu.Lock()
	was := f.lastConnectErr
	f.lastConnectErr = err.Error()
	f.mu.Unlock()
	if was != err.Error() {
		f.cfg.Log.Warn("connect failed, trying on", "server", f.cfg.Server, "err", err)
	}
}
