package uplink

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/rand/v2"
	"time"

	"sluice/gateway/seglog"
)

// ForwarderOptions configure NewForwarder; zero values are defaults.
type ForwarderOptions struct {
	Name       string      // the destination's, for logs
	Quarantine *Quarantine // where refused records go; required
	// Describe renders a refused record for people, such as line protocol; nil: not rendered.
	Describe func(Record) string

	BatchRecords int           // 5,000: the most that every InfluxDB takes well
	BatchBytes   int           // 4 MiB of record bodies
	Linger       time.Duration // how long a batch that is not full waits for more; 0: not at all
	RetryFor     time.Duration // older records are shed instead of tried again; 0: tried for ever
	MinBackoff   time.Duration // 500 ms: the first wait after a failure; it doubles
	MaxBackoff   time.Duration // 60 s
	// ParkAfter equal answers of 500 for one batch begin the search for the record that the destination chokes on. 0: 8, or never when
	// BatchRecords is 1, where order counts more than progress. Negative: never.
	ParkAfter int
	// SearchRequests bounds the requests spent on one batch to find refused records; what is still refused then goes to the
	// quarantine together. 1,000.
	SearchRequests int

	// Whole hands the sink as many records as there are, up to the batch: a batch that failed takes in what was put since and is
	// never made smaller because the way is slow. For sinks that take records one by one, see KindPartial.
	Whole bool

	// InFlight is how many batches may be under way at once; of one point there is never more than one version among them. 1.
	InFlight int
	// NewestFirst lets live records overtake a backlog that is older than overtakeAfter. Only records go that way of which the backlog holds no
	// earlier version.
	NewestFirst bool
	// Meter holds the traffic within bounds; nil: none. The sink's connections must be the meter's.
	Meter *Meter
	// Rebuild makes the sink again when the present one does not come back from a Deliver within Patience, or has failed without an answer for
	// rebuildAfter attempts in a row; nil: never.
	Rebuild  func() (Sink, error)
	Patience time.Duration // 2 min, more than any sink's own timeout
	// Canary checks now and then that what is sent arrives; nil: not.
	Canary *Canary

	Rand func() float64 // [0, 1), for jitter; nil: the runtime's
	Log  *slog.Logger   // nil: none
}

// Forwarder drains one outbox into one sink. Urgent records go first; each tier of the outbox is drained in order, but for a lane that lets
// live records overtake a long backlog; live records take turns with the deepest tier that holds anything, so that live data flows
// while a backlog drains.
type Forwarder struct {
	o    ForwarderOptions
	root *Outbox
	sink Sink
	kick chan struct{} // 1: try now; more signals merge

	// Run's own.
	lanes    []*reader // of the outbox's tiers, the live one first
	urgent   *reader   // nil: none
	fresh    *reader   // of live records that overtake older ones; nil: nothing does
	out      *Outbox   // the tier that the hand is from
	read     *reader   // its reader
	backlog  bool      // the last hand was not from the live tier
	recall   bool      // the hand must be given back, so that records can be merged
	rest     time.Time // after that: when to try again
	stuck    bool      // records could not be merged last time
	storing  bool      // something is on its way into the quarantine
	hand     []Record  // read and not acknowledged, in order
	base     []Record  // the hand as it was read
	fate     []fate    // what became of each
	work     []piece   // what is still to be delivered, the next one last
	limit    int       // records per request at the moment; shrinks when requests fail for their size or slowness
	grow     int       // successes at the limit until it doubles
	growEach int       // how many that takes
	failures int       // in a row
	searched int       // requests spent on this hand's refusals
	unsynced bool      // the quarantine holds items that are not durable yet
	most     int       // records the hand may hold
	level    int       // of the ladder: points of the tiers before it wait to be merged, see plan
	planned  time.Time
	inflow   inflow
	wire     float64 // bytes on the wire of one record, lately; 0: not known
	proven   bool    // something was delivered since Run began
	tellAt   time.Time
	asked    chan *purge
	todo     *purge
	wedge    time.Duration // wedgedAfter
	hash     maphash.Seed
	seen     map[uint64]int

	status statusKeeper
}

// fate is what became of a record in hand.
type fate byte

const (
	waiting fate = iota
	delivered
	rejected
	expired
)

// piece is part of the hand that is tried as one request.
type piece struct {
	recs   []Record
	same   int    // equal answers of 500 in a row
	answer string // that answer
}

// NewForwarder returns a forwarder that does nothing until Run. Run may be called again after it returned.
func NewForwarder(out *Outbox, sink Sink, o ForwarderOptions) (*Forwarder, error) {
	if o.Quarantine == nil {
		return nil, fmt.Errorf("forwarder %s: without a quarantine refused records would be lost", o.Name)
	}
	def(&o.BatchRecords, 5000)
	def(&o.BatchBytes, 4<<20)
	def(&o.MinBackoff, 500*time.Millisecond)
	def(&o.MaxBackoff, time.Minute)
	def(&o.SearchRequests, 1000)
	if o.ParkAfter == 0 && o.BatchRecords > 1 {
		o.ParkAfter = 8
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def(&o.InFlight, 1)
	def(&o.Patience, 2*time.Minute)
	f := &Forwarder{o: o, root: out, out: out, sink: sink, kick: make(chan struct{}, 1), asked: make(chan *purge), wedge: wedgedAfter,
		hash: maphash.MakeSeed(), seen: make(map[uint64]int)}
	f.status.init()
	return f, nil
}

func def[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Retry ends a wait: the next attempt follows at once, also after KindGone. For an operator's button and after a reload.
func (f *Forwarder) Retry() {
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// Run forwards until ctx ends, then returns nil; a delivery under way is cut off and repeated after the next start. It
// returns an error only when the outbox was closed under it.
func (f *Forwarder) Run(ctx context.Context) error {
	f.begin()
	defer f.end()
	defer f.status.set(Idle)
	for {
		f.serve()
		if err := f.degrade(ctx); err != nil {
			return f.stopped(ctx, err)
		}
		f.tellLosses(ctx)
		if c := f.o.Canary; c != nil && f.failures == 0 {
			c.turn(ctx)
		}
		err := f.fill(ctx)
		if err != nil && ctx.Err() == nil && !errors.Is(err, seglog.ErrClosed) {
			// A device error may go away; what is behind it stays where it is.
			f.failures++
			err = f.wait(ctx, BackingOff, &Error{Detail: err.Error(), Err: err}, f.backoff(&Error{}))
			if err == nil {
				continue
			}
		}
		if err != nil {
			return f.stopped(ctx, err)
		}
		if err := f.deliver(ctx); err != nil {
			return f.stopped(ctx, err)
		}
	}
}

// deliver works until every record of the hand has found its place, or the hand is wanted back.
func (f *Forwarder) deliver(ctx context.Context) error {
	if len(f.hand) == 0 {
		return nil
	}
	if f.failures == 0 {
		f.status.set(Sending)
	}
	f.searched = 0
	f.work = append(f.work[:0], piece{recs: f.hand})
	n, before := len(f.hand), int64(0)
	if m := f.o.Meter; m != nil {
		before = m.Total()
	}
	if err := f.burst(ctx); err != nil {
		return err
	}
	for len(f.work) > 0 && !f.recall {
		if err := f.step(ctx); err != nil {
			return err
		}
	}
	if m := f.o.Meter; m != nil && f.failures == 0 && !f.recall {
		f.weigh(n, m.Total()-before)
	}
	return nil
}

func (f *Forwarder) begin() {
	f.root.hands.Lock()
	f.lanes = f.lanes[:0]
	for _, t := range f.root.tiers {
		f.lanes = append(f.lanes, t.reader())
	}
	f.read, f.out = f.lanes[0], f.root
	f.urgent, f.fresh = nil, nil
	if f.root.urgent != nil {
		f.urgent = f.root.urgent.reader()
	}
	f.proven, f.most = false, f.o.BatchRecords
	f.hand, f.base, f.fate, f.work = nil, nil, nil, nil
	f.limit, f.failures, f.unsynced = f.o.BatchRecords, 0, false
	f.backlog, f.recall, f.rest, f.stuck = false, false, time.Time{}, false
	f.root.merges.Store(f.root.below != nil)
}

func (f *Forwarder) end() {
	f.root.merges.Store(false)
	defer f.root.hands.Unlock()
	f.out.dropHand(f.hand)
	f.hand = nil
	f.endLane()
	for _, r := range f.readers() {
		r.close()
	}
}

// readers are all there are but for the lane's.
func (f *Forwarder) readers() []*reader {
	if f.urgent == nil {
		return f.lanes
	}
	return append(f.lanes[:len(f.lanes):len(f.lanes)], f.urgent)
}

func (f *Forwarder) idle() {
	for _, r := range f.readers() {
		r.out.idle()
	}
}

func (f *Forwarder) stopped(ctx context.Context, err error) error {
	f.idle()
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return fmt.Errorf("forwarder %s: %w", f.o.Name, err)
}

// fill reads the next batch into the empty hand, waiting for its first record.
func (f *Forwarder) fill(ctx context.Context) error {
	f.hand, f.fate = f.base[:0], f.fate[:0]
	var linger <-chan time.Time
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, size := len(f.hand), 0
		for i := range f.hand {
			size += len(f.hand[i].Body)
		}
		if err := f.next(n, size); err != nil {
			return err
		}
		full := len(f.hand) >= f.most || f.read.ahead.Body != nil
		if len(f.hand) > 0 && (full || f.o.Linger == 0) {
			break
		}
		if len(f.hand) == 0 {
			f.resting()
			f.idle()
		} else if n == 0 {
			t := time.NewTimer(f.o.Linger)
			defer t.Stop()
			linger = t.C
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-f.root.wake:
			continue
		case <-linger:
		case f.todo = <-f.asked:
			f.giveBack()
			return nil
		case <-f.look():
			if len(f.hand) == 0 {
				return nil
			}
			continue
		}
		break
	}
	f.base = f.hand
	f.cutHand()
	f.fate = append(f.fate, make([]fate, len(f.hand))...)
	return nil
}
