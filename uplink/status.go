package uplink

import (
	"math"
	"sync"
	"time"
)

// State is what a forwarder is doing.
type State int

const (
	Idle        State = iota // nothing to send
	Sending                  // records flow
	BackingOff               // the destination or the way there is in trouble; tried again by itself
	ConfigError              // someone must act: credentials, address, a portal in between
	Disabled                 // the destination asked not to be called again
	Paused                   // the bounds on traffic let nothing but alerts go
)

var stateNames = [...]string{"idle", "sending", "backing_off", "config_error", "disabled", "paused"}

// String is the state as it stands in the API.
func (s State) String() string { return stateNames[s] }

// DurationBuckets are the upper bounds, in seconds, of the end-to-end histogram; a last bucket without bound follows.
var DurationBuckets = [...]float64{0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800}

// Histogram counts durations from journal record to confirmed delivery.
type Histogram struct {
	Counts [len(DurationBuckets) + 1]uint64 // not cumulative
	Count  uint64
	Sum    float64 // seconds
}

func (h *Histogram) observe(seconds float64) {
	seconds = max(seconds, 0)
	i := 0
	for i < len(DurationBuckets) && seconds > DurationBuckets[i] {
		i++
	}
	h.Counts[i]++
	h.Count++
	h.Sum += seconds
}

// Status is a snapshot of a forwarder and its outbox.
type Status struct {
	Name  string
	State State
	Since time.Time // of State
	Counters
	Bytes       int64
	OldestTime  int64             // journal time, ns, of the oldest record not delivered; 0: none
	Skipped     uint64            // puts that were replays, since start
	Attempts    map[string]uint64 // by outcome: ok, or a Kind's name; since start
	LastError   string            // "" once a delivery has succeeded after it
	LastErrorAt time.Time
	LastSuccess time.Time
	NextAttempt time.Time     // while backing off
	Rate        float64       // records delivered a second, over the last half minute or so
	ETA         time.Duration // until the backlog is gone at that rate if nothing is added; 0: none or not known
	EndToEnd    Histogram
	Requests    time.Duration // spent waiting for answers, since start
	Tiers       []TierStatus  // the live records and those merged into longer windows

	MaxBytes    int64            // the outbox's bound; 0: none but the disk
	WhenFull    WhenFull         // what happens there
	HeadMovedAt time.Time        // when the oldest record last left, or began to wait with nothing before it; zero: nothing ever did
	InFlight    int              // requests under way
	Batch       int              // records in one request at the moment
	Rebuilds    uint64           // times the sink was torn down because it made no progress, since start
	Bandwidth   *BandwidthStatus // nil: no bound is configured
	Forecast    Forecast
	Canary      *CanaryStatus // nil: none is configured
	Losses      LossTotals    // what was shed, in the log of losses; see Outbox.Losses
}

// BandwidthStatus is what a destination's bounds on traffic are and how much of them is used. Bytes are those of its connections, TLS
// included, in both directions; 0 bounds are none.
type BandwidthStatus struct {
	BytesPerSecond, BytesPerDay, BytesPerMonth int64
	SentToday, SentThisMonth                   int64
	Quiet                                      bool      // quiet hours: nothing but alerts goes
	QuietUntil                                 time.Time // while Quiet
	Level                                      int       // only points merged by so many steps of the ladder are sent, so that the budget holds; 0: all
	PausedReason                               string    // why nothing but alerts is sent: "", quiet_hours, day_budget or month_budget
	PausedUntil                                time.Time // while PausedReason
}

// CanaryStatus is the end-to-end check of a destination.
type CanaryStatus struct {
	LastSeen  time.Time // of the newest canary point that was confirmed; zero: none yet
	LastError string    // why the last one was not
	ReadBack  bool      // it was read back; else only the write was confirmed
}

// LossTotals counts what the log of losses holds.
type LossTotals struct {
	Points, Readings uint64
}

// rateWindow is the time constant of the delivery rate.
const rateWindow = 30 * time.Second

// statusKeeper is the part of a forwarder that others look at.
type statusKeeper struct {
	mu     sync.Mutex
	s      Status
	recent float64 // deliveries, each fading with rateWindow
	at     time.Time
	took   time.Duration // the last attempt
	inflow inflow
	limit  int
	level  int
}

func (k *statusKeeper) init() {
	k.s.Attempts = make(map[string]uint64)
	k.s.Since = time.Now()
	k.at = k.s.Since
}

func (k *statusKeeper) set(s State) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.s.State != s {
		k.s.State, k.s.Since = s, time.Now()
	}
	k.s.NextAttempt = time.Time{}
}

// flying counts requests under way.
func (k *statusKeeper) flying(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s.InFlight += n
}

func (k *statusKeeper) rebuilt() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s.Rebuilds++
}

// lastTook is how long the last attempt took.
func (k *statusKeeper) lastTook() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.took
}

func (k *statusKeeper) attempt(outcome string, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.s.Attempts[outcome]++
	k.s.Requests += took
	k.took = took
}

func (k *statusKeeper) delivered(recs []Record, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fade(now)
	k.recent += float64(len(recs))
	if k.s.State != Sending {
		k.s.State, k.s.Since = Sending, now
	}
	k.s.LastError, k.s.LastSuccess, k.s.NextAttempt = "", now, time.Time{}
	t := now.UnixNano()
	for i := range recs {
		k.s.EndToEnd.observe(float64(t-recs[i].Cause.Time) / 1e9)
	}
}

// failed tells whether this is a change.
func (k *statusKeeper) failed(s State, e *Error, wait time.Duration) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	changed := k.s.State != s || k.s.LastError == ""
	if k.s.State != s {
		k.s.State, k.s.Since = s, now
	}
	k.s.LastError, k.s.LastErrorAt = e.Error(), now
	k.s.NextAttempt = time.Time{}
	if wait > 0 {
		k.s.NextAttempt = now.Add(wait)
	}
	return changed
}

func (k *statusKeeper) alarmed() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.s.LastError != ""
}

func (k *statusKeeper) fade(now time.Time) {
	k.recent *= math.Exp(-now.Sub(k.at).Seconds() / rateWindow.Seconds())
	k.at = now
}

// Status returns a snapshot. Safe for concurrent use.
func (f *Forwarder) Status() Status {
	f.status.mu.Lock()
	f.status.fade(time.Now())
	s := f.status.s
	s.Attempts = make(map[string]uint64, len(f.status.s.Attempts))
	for k, v := range f.status.s.Attempts {
		s.Attempts[k] = v
	}
	s.Rate = f.status.recent / rateWindow.Seconds()
	f.status.mu.Unlock()

	f.fillIn(&s)
	s.Name = f.o.Name
	s.Counters = f.root.Counters()
	s.Bytes = f.root.Bytes()
	s.OldestTime = f.root.OldestTime()
	s.Tiers = f.root.Tiers()
	s.Skipped = f.root.Skipped()
	if s.Pending > 0 && s.Rate > 0.01 {
		s.ETA = time.Duration(min(float64(s.Pending)/s.Rate, 1e9) * float64(time.Second))
	}
	return s
}

// fillIn adds what is not counted in passing.
func (f *Forwarder) fillIn(s *Status) {
	now := time.Now()
	s.MaxBytes, s.WhenFull = f.root.o.MaxBytes, f.root.o.WhenFull
	for _, t := range f.root.all() {
		t.mu.Lock()
		if t.movedAt.After(s.HeadMovedAt) {
			s.HeadMovedAt = t.movedAt
		}
		t.mu.Unlock()
	}
	_, s.Losses = f.root.Losses()
	put, bytes := f.root.inflowNow()
	f.status.mu.Lock()
	f.status.inflow.sample(now, put, bytes)
	_, perSecond, measured := f.status.inflow.rates()
	s.Batch = f.status.limit
	level := f.status.level
	f.status.mu.Unlock()
	if m := f.o.Meter; m != nil {
		s.Bandwidth = m.Status(now)
		s.Bandwidth.Level = level
	}
	if c := f.o.Canary; c != nil {
		s.Canary = c.status()
	}
	in := ForecastInput{BytesPerDayIn: perSecond * 86400, MeasuredOver: measured, MaxBytes: s.MaxBytes, Used: f.root.Bytes(), WhenFull: s.WhenFull}
	_, in.Shrink, in.Steps = f.root.shrinks()
	if n := len(in.Shrink); n > 0 {
		in.Shrink = in.Shrink[1:]
	}
	s.Forecast = NewForecast(in)
}

// inflowNow is what was put since the outbox was opened.
func (b *Outbox) inflowNow() (records, bytes uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.putRecords, b.putBytes
}
