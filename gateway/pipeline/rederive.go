package pipeline

import (
	"math"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/telemetry"
	"sluice/rules"
	"sluice/rules/notify"
)

// Rederive folds journal records a second time, for the points of a time range alone: each window once and whole, when nothing can
// correct it any more, so that it never competes with a correction of the live fold; readings sent as such as they come. A point
// belongs to the range by its time, which for a window is its start. It belongs to one goroutine.
type Rederive struct {
	fold      *Fold
	from, to  int64 // ns, [from, to)
	alerts    bool
	complete  int64 // times before this may lack readings that came before the first record
	begun     bool
	put       func(*telemetry.Point)
	leftOut   uint64
	damaged   uint64
	unstarted bool // the fold began in the middle of a journal
}

// NewRederive continues f, which must be the caller's own: a restored checkpoint, or a fold that knows nothing. fromStart tells
// that f has seen everything there ever was; else what lies before its own beginning is not complete, see Covered. put takes the points,
// valid during the call.
func NewRederive(f *Fold, fromStart bool, from, to time.Time, put func(*telemetry.Point)) *Rederive {
	r := &Rederive{fold: f, from: from.UnixNano(), to: to.UnixNano(), put: put, alerts: fromStart, complete: math.MinInt64, unstarted: !fromStart}
	f.setFinal()
	return r
}

// setFinal makes the fold emit each window once only, at its end.
func (f *Fold) setFinal() {
	f.final = true
	for _, st := range f.streams {
		f.adopt(st)
		st.rollup.Reemit()
	}
}

// Holds tells whether a fold that goes on from here sees every reading with a time from t on: none can have come before.
func (f *Fold) Holds(t time.Time) bool { return f.now+int64(f.c.spec.Limits.Future) <= t.UnixNano() }

// Apply takes one record in; those that the live fold could not apply are counted and passed over.
func (r *Rederive) Apply(rec *seglog.Record) {
	if !r.begun {
		r.begun = true
		if r.unstarted {
			r.complete = rec.Time + int64(r.fold.c.spec.Limits.Future)
		}
	}
	known := r.fold.hold.on // then times are right once the clock is set
	if r.fold.Apply(rec, r) != nil {
		r.damaged++
	}
	if rec.Type == RecordClockStep && r.unstarted && !known { // it may have set a clock whose boot was trimmed: times before it were none
		r.complete = max(r.complete, rec.Time+int64(r.fold.c.spec.Limits.Future))
	}
}

// Finish puts out the windows that are closed by the time of the last record, but for which no tick came: where nothing was due any
// more none is journalled. Call it after the last record, before Covered.
func (r *Rederive) Finish() {
	if f := r.fold; !f.hold.on {
		f.out = r
		f.tickWindows()
	}
}

// Covered is the part of the range that was put out in full: from it on, and up to where every window is closed. Damaged is how many
// records could not be applied, and leftOut how many points of alerts were left out because what the rules knew before is not known.
func (r *Rederive) Covered() (from, to time.Time, damaged, leftOut uint64) {
	lo, hi := max(r.from, r.complete), r.to
	f := r.fold
	for _, s := range f.c.sources {
		if s.Send != SendReadings {
			hi = min(hi, f.now-int64(2*s.Window+s.Grace+s.Lateness)+1) // as rollup.Late says of a window's last nanosecond
		}
	}
	hi = min(hi, f.now)
	return time.Unix(0, lo).UTC(), time.Unix(0, max(lo, hi)).UTC(), r.damaged, r.leftOut
}

// Point implements Outputs.
func (r *Rederive) Point(_ Cause, p *telemetry.Point) {
	if p.Time < r.from || p.Time >= r.to || p.Time < r.complete {
		return
	}
	if p.Measurement == alertMeasurement && !r.alerts {
		r.leftOut++
		return
	}
	r.put(p)
}

// Alerts implements Outputs.
func (r *Rederive) Alerts(Cause, []rules.Event) {}

// Notify implements Outputs.
func (r *Rederive) Notify(Cause, *notify.Notification) {}

// Refuse implements Outputs.
func (r *Rederive) Refuse(Cause, *Refused) {}

var _ Outputs = (*Rederive)(nil)
