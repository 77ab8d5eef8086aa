package detect

import (
	"encoding/binary"
	"math"

	"sluice/gateway/telemetry"
)

// model turns points into scores. The series around it sees to order, warm-up and alarms.
type model interface {
	// judge says how unusual p is by what came before, in [0, MaxScore], and then learns it.
	judge(p point) float64
	append(b []byte) []byte
	// restore reads what append wrote into a new model; what cannot be a state of the model fails d.
	restore(d *telemetry.Decoder)
}

// point is a value on its way into a model. |v| is at most hugeValue.
type point struct {
	t     int64 // as given, for the hour of the day
	v     float64
	pace  float64 // share of what a point counts for where there is one in usualInterval seconds; at most 1
	first bool
	gap   bool    // none came for much longer than usual
	floor float64 // of standard deviations
}

// Squares of what is beyond would not be finite.
const hugeValue = 1e150

// series is the Detector: one model, and when its scores make an alarm.
type series struct {
	method           *method
	sensitivity      float64
	warmup, cooldown int64 // ns; 0: in points
	model            model

	points   uint32  // seen; stays at its maximum
	start    int64   // time of the first
	last     int64   // latest time
	interval float64 // usual seconds between points
	value    float64 // last
	grain    float64 // smallest change, slowly forgotten; 0 before the first
	score    float64 // last answer
	alarm    bool
	calm     uint8 // points in a row that were nearly ordinary, while alarm

	fired       bool // an anomaly began, at:
	raisedAt    int64
	raisedPoint uint32  // points since, unless there are too many to count
	peak        float64 // highest score since
}

func (s *series) Observe(t int64, v float64) (float64, bool) {
	if v-v != 0 {
		return s.score, s.alarm
	}
	p := point{t: t, v: max(-hugeValue, min(hugeValue, v)), first: s.points == 0}
	s.step(&p)
	p.floor, p.pace = s.floor(), s.pace()
	score := s.model.judge(p)
	s.refine(p.v)
	if s.points < math.MaxUint32 {
		s.points++
	}
	if s.points <= s.method.warmup || !elapsed(s.start, s.last, s.warmup) {
		return 0, false
	}
	s.score = s.fair(score)
	s.decide()
	return s.score, s.alarm
}

// step moves the time on.
func (s *series) step(p *point) {
	if p.first {
		s.start, s.last = p.t, p.t
		return
	}
	if p.t <= s.last {
		return
	}
	since := float64(uint64(p.t)-uint64(s.last)) / 1e9
	s.last = p.t
	if s.interval == 0 {
		s.interval = since
	}
	p.gap = since > gapFactor*s.interval
	s.interval += 0.02 * (min(since, 4*s.interval) - s.interval)
}

// pace is the share of a usual interval that a point stands for: memories that should span days do so at any rate of sampling.
func (s *series) pace() float64 {
	if s.interval <= 0 {
		return 1
	}
	return max(1e-5, min(1, s.interval/usualInterval))
}

// fair makes scores mean the same false alarms a day, however often a series is sampled: of n points where there is usually one, the
// most unusual is so by chance n times as often, which takes 2 ln n off the square of its standard deviations.
func (s *series) fair(score float64) float64 {
	return math.Sqrt(max(0, score*score+2*math.Log(s.pace())))
}

// floor is what standard deviations are taken for at least. Values that come in steps, as those of any digital sensor do, move by one
// without meaning anything. Before the first change the step is not known: 0.2 % of the value. The digits that single
// precision gets wrong are no steps.
func (s *series) floor() float64 {
	if s.grain > 0 {
		return max(s.grain, 1e-6*math.Abs(s.value))
	}
	return 0.002 * math.Abs(s.value)
}

// refine learns the smallest step from v.
func (s *series) refine(v float64) {
	if change := math.Abs(v - s.value); change > 0 && s.points > 0 {
		if s.grain *= 1.0005; s.grain == 0 || change < s.grain {
			s.grain = change
		}
	}
	s.value = v
}

// elapsed tells whether d ns lie between two times, also when their difference overflows.
func elapsed(from, to, d int64) bool {
	return to >= from && uint64(to)-uint64(from) >= uint64(d)
}

func (s *series) decide() {
	if s.fired && s.raisedPoint < math.MaxUint32 {
		s.raisedPoint++
	}
	if s.alarm {
		s.peak = max(s.peak, s.score)
		if s.score >= s.sensitivity/2 {
			s.calm = 0
		} else if s.calm++; s.calm >= calmPoints {
			s.alarm, s.calm = false, 0
		}
		return
	}
	if s.score >= s.sensitivity && s.rested() {
		s.alarm, s.calm, s.fired, s.raisedAt, s.raisedPoint, s.peak = true, 0, true, s.last, 0, s.score
	}
}

// rested tells whether the cool-down of the last anomaly is over, or this one is stronger.
func (s *series) rested() bool {
	switch {
	case !s.fired, s.score >= strongerFactor*s.peak:
		return true
	case s.cooldown > 0:
		return elapsed(s.raisedAt, s.last, s.cooldown)
	default:
		return s.raisedPoint >= CooldownPoints && elapsed(s.raisedAt, s.last, int64(CooldownTime))
	}
}

// A snapshot, in the primitives of package telemetry; f64 are little-endian:
//
//	version 1 | flags: 1 alarm, 2 fired | calm | points (uvarint) | start, last (zigzag) | interval, value, grain, score (f64)
//	| if fired: raised at (zigzag), points since (uvarint), peak (f64) | the model's numbers
const snapshotVersion = 1

const (
	flagAlarm = 1 << iota
	flagFired
)

func (s *series) State() (float64, bool) { return s.score, s.alarm }

func (s *series) Snapshot(b []byte) []byte {
	var flags byte
	if s.alarm {
		flags |= flagAlarm
	}
	if s.fired {
		flags |= flagFired
	}
	b = append(b, snapshotVersion, flags, s.calm)
	b = binary.AppendUvarint(b, uint64(s.points))
	b = binary.AppendVarint(b, s.start)
	b = binary.AppendVarint(b, s.last)
	b = appendFloats(b, s.interval, s.value, s.grain, s.score)
	if s.fired {
		b = binary.AppendVarint(b, s.raisedAt)
		b = telemetry.AppendFloat(binary.AppendUvarint(b, uint64(s.raisedPoint)), s.peak)
	}
	return s.model.append(b)
}

func (s *series) Restore(d *telemetry.Decoder) error {
	n := series{method: s.method, sensitivity: s.sensitivity, warmup: s.warmup, cooldown: s.cooldown, model: s.method.model()}
	if d.Byte() != snapshotVersion {
		return d.Fail()
	}
	flags := d.Byte()
	n.alarm, n.fired = flags&flagAlarm != 0, flags&flagFired != 0
	n.calm = d.Byte()
	n.points = restoreCount(d)
	n.start, n.last = d.Varint(), d.Varint()
	n.interval, n.value = restoreAtLeast(d, 0), restoreFloat(d)
	n.grain, n.score = restoreAtLeast(d, 0), restoreAtLeast(d, 0)
	if n.fired {
		n.raisedAt, n.raisedPoint, n.peak = d.Varint(), restoreCount(d), restoreAtLeast(d, 0)
	}
	n.model.restore(d)
	switch {
	case d.Err() != nil:
		return d.Err()
	case flags > flagAlarm|flagFired, n.alarm && !n.fired, n.calm >= calmPoints, n.calm > 0 && !n.alarm,
		n.score > MaxScore, n.peak > MaxScore, n.last < n.start, n.fired && (n.raisedAt < n.start || n.raisedAt > n.last):
		return d.Fail()
	}
	*s = n
	return nil
}

func restoreCount(d *telemetry.Decoder) uint32 {
	n := d.Uvarint()
	if n > math.MaxUint32 {
		d.Fail()
		return 0
	}
	return uint32(n)
}

func appendFloats(b []byte, values ...float64) []byte {
	for _, v := range values {
		b = telemetry.AppendFloat(b, v)
	}
	return b
}

// restoreFloat reads a number of which the size, and that of its square, is finite.
func restoreFloat(d *telemetry.Decoder) float64 {
	v := d.Float()
	if !(math.Abs(v) <= 4*hugeValue) {
		d.Fail()
		return 0
	}
	return v
}

// restoreAtLeast reads a finite number of at least low.
func restoreAtLeast(d *telemetry.Decoder, low float64) float64 {
	v := d.Float()
	if !(v >= low) || v > math.MaxFloat64 {
		d.Fail()
		return low
	}
	return v
}
