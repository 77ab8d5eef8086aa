package rules

import (
	"container/heap"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// Absent is the condition that a device sent a metric and then fell silent, or is expected and never came.
type Absent struct {
	Metric string
	After  time.Duration // how long a silence is allowed; 0: Factor
	Factor float64       // the same as a multiple of the device's usual interval; see cadence
	Expect []string      // devices, by their label device, that are to be there from the start
}

// DeviceLabel is the label that Expect names devices by.
const DeviceLabel = "device"

// Bounds of a silence that is a multiple of what is learned, and what is allowed while nothing is.
const (
	minSilence     = 2 * time.Second
	maxSilence     = 30 * 24 * time.Hour
	unknownSilence = 24 * time.Hour // of a device that came, but less than four times
	missingSilence = time.Hour      // of an expected one that never came
)

// watch follows the life signs of one device for one rule with Absent. It begins with the metric's first reading; that of a
// device that is only expected begins with the rule.
type watch struct {
	subject  *Subject
	place    int // of the rule
	last     int64
	offline  bool // the device, its will or its gateway said so
	fresh    bool // since last the gateway was down: the next gap says nothing
	retained bool // the last message was retained
	arrived  bool // an expected device came: its own watch goes on
	cadence  cadence

	scheduled int64 // when to look, at or before the end of the silence allowed; the engine's clock
	heap      int   // place in Engine.watches; -1: silent already
}

// allowed is how long the silence may be now.
func (w *watch) allowed() time.Duration {
	a := w.subject.plan.rules[w.place].Absent
	if a.Factor == 0 {
		return a.After
	}
	usual := w.cadence.usual()
	switch {
	case usual > 0:
		return time.Duration(min(max(float64(usual)*a.Factor, float64(minSilence)), float64(maxSilence)))
	case w.subject.expects != nil:
		return missingSilence
	}
	return unknownSilence
}

func (w *watch) due() int64 { return later(w.last, w.allowed()) }

func (w *watch) silent(now int64) expr.Tri {
	if !w.arrived && (w.offline || now >= w.due()) {
		return expr.True
	}
	return expr.False
}

// silence is the time since the last life sign in seconds.
func (w *watch) silence(now int64) float64 { return float64(max(now-w.last, 0)) / 1e9 }

// evidence says how much a message shows that its device lives.
type evidence uint8

const (
	live            evidence = iota // the device sent it just now
	retainedStamped                 // a broker may have repeated it from its store; it has a device time
	retainedPlain                   // the same without a time
)

// ObserveRetained is Observe for a message with the retain flag, which a bridge may have repeated from a store: its values count,
// but it is a life sign only when its device time (stamped) is newer than that of the last reading, or, without one, when the message
// before was retained as well, because then the device sends all its messages so.
func (e *Engine) ObserveRetained(s *Subject, now, t int64, stamped bool, readings []telemetry.Reading, emit func(*Event)) {
	if stamped {
		e.observe(s, now, t, readings, retainedStamped, emit)
	} else {
		e.observe(s, now, t, readings, retainedPlain, emit)
	}
}

// sign takes a reading of a watched metric in, before its value. k is the metric's place.
func (e *Engine) sign(s *Subject, which []int32, k int32, now, t int64, ev evidence, emit func(*Event)) {
	for _, i := range which {
		w := s.parts.watches[i]
		if w == nil {
			w = &watch{subject: s, place: s.plan.watches[i].place, last: now, fresh: true, retained: ev != live, heap: -1}
			s.parts.watches[i] = w
			e.watchUntil(w, w.due())
			if ev == live {
				w.fresh = false
				e.arrive(w, now, emit)
			}
			continue
		}
		alive := ev == live || ev == retainedStamped && t > s.times[k] || ev == retainedPlain && w.retained
		w.retained = ev != live
		if alive {
			e.alive(w, now, true, emit)
		}
	}
}

// alive notes a life sign; learn is false for those that say nothing about the device's interval.
func (e *Engine) alive(w *watch, now int64, learn bool, emit func(*Event)) {
	if gap := now - w.last; learn && !w.fresh && gap > 0 {
		w.cadence.learn(time.Duration(gap), gap > int64(w.allowed()))
	}
	if learn {
		w.fresh = false
	}
	w.last, w.offline = now, false
	if due := w.due(); w.heap < 0 || due < w.scheduled {
		e.watchUntil(w, due)
	}
	e.arrive(w, now, emit)
}

// arrive ends the waiting for an expected device.
func (e *Engine) arrive(w *watch, now int64, emit func(*Event)) {
	r := w.subject.plan.rules[w.place]
	if r.Absent.Expect == nil || w.subject.expects != nil {
		return
	}
	x := e.expected[expectedKey(r, w.subject.labels.Get(DeviceLabel))]
	if x == nil || x.parts.watches[0].arrived {
		return
	}
	x.parts.watches[0].arrived = true
	e.evaluate(x, 0, now, emit)
}

// watchUntil has the engine look at w at due.
func (e *Engine) watchUntil(w *watch, due int64) {
	w.scheduled = due
	if w.heap < 0 {
		heap.Push(&e.watches, w)
	} else {
		heap.Fix(&e.watches, w.heap)
	}
}

// runWatches looks at the devices whose silence may be over the limit.
func (e *Engine) runWatches(now int64, emit func(*Event)) {
	for len(e.watches) > 0 && e.watches[0].scheduled <= now {
		w := e.watches[0]
		if due := w.due(); due > now && !w.arrived {
			e.watchUntil(w, due)
			continue
		}
		heap.Pop(&e.watches)
		e.evaluate(w.subject, w.place, now, emit)
	}
}

// Resume says that the gateway listens again after it was down: every device that is not called silent yet has its whole time anew.
func (e *Engine) Resume(now int64) {
	now = e.advance(now)
	for _, s := range e.active {
		if s.parts == nil {
			continue
		}
		for _, w := range s.parts.watches {
			if w == nil || w.offline || w.heap < 0 {
				continue
			}
			w.last, w.fresh = now, true
			if due := w.due(); due < w.scheduled {
				e.watchUntil(w, due)
			}
		}
	}
}

// Availability takes in what a device, its will or its gateway said about its being there: offline ends the patience of every rule
// with Absent that watches the device, online is a life sign. It concerns all devices that have labels, whatever their measurement and
// further labels.
func (e *Engine) Availability(labels telemetry.Labels, online bool, now int64, emit func(*Event)) {
	now = e.advance(now)
	concerned := e.active
	if device := labels.Get(DeviceLabel); device != "" { // not all of them: after a restart everybody says that he is there
		concerned = e.watched[device]
	}
	for _, s := range concerned {
		if s.parts == nil || s.expects != nil || !contains(s.labels, labels) {
			continue
		}
		for _, w := range s.parts.watches {
			switch {
			case w == nil:
			case online:
				e.alive(w, now, false, emit)
				e.evaluate(s, w.place, now, emit)
			case !w.offline:
				w.offline = true
				e.evaluate(s, w.place, now, emit)
			}
		}
	}
	e.notifyFreed(emit)
}

// nameWatched lets Availability find the device.
func (e *Engine) nameWatched(s *Subject) {
	if len(s.plan.watches) > 0 {
		device := s.labels.Get(DeviceLabel)
		e.watched[device] = append(e.watched[device], s)
	}
}

// contains tells whether every label of part is one of l.
func contains(l, part telemetry.Labels) bool {
	return !slices.ContainsFunc(part, func(p telemetry.Label) bool { return l.Get(p.Name) != p.Value })
}

// expectedKey names the stand-in of an expected device.
func expectedKey(r *Rule, device string) string {
	return string(telemetry.AppendString(telemetry.AppendString(nil, r.Alert), device))
}

// expect makes a stand-in for each device that rules expect and that has not sent the metric yet. It has the label device and those
// labels that the rule's match spells out.
func (e *Engine) expect(now int64) {
	for i, r := range e.set.rules {
		if r.Absent == nil || len(r.Absent.Expect) == 0 {
			continue
		}
		known := map[string]bool{}
		for _, s := range e.active {
			if at := slices.Index(s.plan.rules, r); at >= 0 && s.expects == nil && s.parts != nil && s.parts.watches[s.plan.watchOf(at)] != nil {
				known[s.labels.Get(DeviceLabel)] = true
			}
		}
		for _, device := range r.Absent.Expect {
			if !known[device] && e.expected[expectedKey(r, device)] == nil {
				s := e.standIn(i, device)
				w := &watch{subject: s, last: now, fresh: true, heap: -1}
				s.parts.watches[0] = w
				e.watchUntil(w, w.due())
			}
		}
	}
}

// standIn makes the subject of an expected device, without its watch.
func (e *Engine) standIn(rule int, device string) *Subject {
	r := e.set.rules[rule]
	pairs := []telemetry.Label{{Name: DeviceLabel, Value: device}}
	for _, m := range r.Match {
		if m.literal && m.label != MeasurementLabel && m.label != DeviceLabel {
			pairs = append(pairs, telemetry.Label{Name: m.label, Value: m.pattern})
		}
	}
	s := &Subject{labels: telemetry.NewLabels(pairs...), plan: e.planOf([]*Rule{r}, nil), expects: r, order: -1}
	e.expected[expectedKey(r, device)] = s
	e.wake(s)
	return s
}

// watches is a heap by time, then in the order of devices and rules.
type watches []*watch

func (h watches) Len() int { return len(h) }

func (h watches) Less(i, j int) bool {
	a, b := h[i], h[j]
	switch {
	case a.scheduled != b.scheduled:
		return a.scheduled < b.scheduled
	case a.subject != b.subject:
		return a.subject.order < b.subject.order
	}
	return a.place < b.place
}

func (h watches) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = i, j
}

// Push implements heap.Interface.
func (h *watches) Push(x any) {
	w := x.(*watch)
	w.heap = len(*h)
	*h = append(*h, w)
}

// Pop implements heap.Interface.
func (h *watches) Pop() any {
	last := len(*h) - 1
	w := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	w.heap = -1
	return w
}

const (
	watchOffline byte = 1 << iota
	watchFresh
	watchRetained
	watchArrived
	watchScheduled
	watchThere // there is a watch at all
)

// snapshot appends flags and, when there is a watch: last (zigzag) | cadence | when scheduled: scheduled (zigzag)
func (w *watch) snapshot(b []byte) []byte {
	if w == nil {
		return append(b, 0)
	}
	flags := watchThere
	for _, f := range [...]struct {
		set bool
		bit byte
	}{{w.offline, watchOffline}, {w.fresh, watchFresh}, {w.retained, watchRetained}, {w.arrived, watchArrived}, {w.heap >= 0, watchScheduled}} {
		if f.set {
			flags |= f.bit
		}
	}
	b = binary.AppendVarint(append(b, flags), w.last)
	b = w.cadence.snapshot(b)
	if w.heap >= 0 {
		b = binary.AppendVarint(b, w.scheduled)
	}
	return b
}

func (e *Engine) restoreWatch(d *telemetry.Decoder, s *Subject, i int) bool {
	flags := d.Byte()
	if flags == 0 {
		return d.Err() == nil && s.expects == nil
	}
	if flags&watchThere == 0 || flags >= watchThere<<1 {
		return false
	}
	w := &watch{subject: s, place: s.plan.watches[i].place, last: d.Varint(), heap: -1, offline: flags&watchOffline != 0,
		fresh: flags&watchFresh != 0, retained: flags&watchRetained != 0, arrived: flags&watchArrived != 0}
	if !w.cadence.restore(d) {
		return false
	}
	if flags&watchScheduled != 0 {
		e.watchUntil(w, d.Varint())
	}
	s.parts.watches[i] = w
	return d.Err() == nil
}

func (e *Engine) watchDue() int64 {
	if len(e.watches) == 0 {
		return math.MaxInt64
	}
	return e.watches[0].scheduled
}
