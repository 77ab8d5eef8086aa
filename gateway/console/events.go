package console

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Bounds of the live events.
const (
	maxViewers    = 100
	eventsEvery   = 250 * time.Millisecond // readings are told as the newest value within it
	statusEvery   = 4                      // of these
	lingerFor     = 30 * time.Second       // after the last viewer left, so that one who comes back can go on where they were
	ringBytes     = 2 << 20                // of alerts, and as much of readings, kept for those who come back
	viewerBytes   = 2 << 20                // waiting for one viewer; beyond it they start anew with resync
	idSeparator   = "-"
	statusEvent   = "status"
	alertEvent    = "alert"
	readingEvent  = "reading"
	resyncEvent   = "resync"
	everyReading  = "all"
	eventNewlines = "\n\n"
)

// events tells viewers what happens. Each event is encoded once, whoever watches; viewers who want to see the same share the bytes.
// Nothing is looked at while nobody watches.
type events struct {
	status func(context.Context, Who) Status
	desk   Desk // nil: no alerts
	live   Live // nil: no readings
	log    *slog.Logger
	boot   string        // first part of every id; an id of another process is answered with resync
	kick   chan struct{} // capacity 1: a viewer came

	sent, dropped atomic.Uint64 // texts of one or more events put into viewers' queues, and thrown away there

	order sync.Mutex // held from the moment an event takes its number until it is queued: every viewer sees numbers rise

	mu       sync.Mutex
	closed   bool
	viewers  map[*viewer]struct{}
	seq      uint64 // of the last event
	alerts   ring
	readings ring
	watching bool // readings are collected

	// For the goroutine of run.
	watch  alertWatch
	taken  []LiveReading
	ticks  int
	wanted time.Time // when readings were last wanted
}

// viewer is one stream of events.
type viewer struct {
	filter
	who  Who
	wake chan struct{} // capacity 1: there is something, or it ended

	mu     sync.Mutex
	queue  [][]byte
	bytes  int
	resync bool   // events are missing
	resume uint64 // where it goes on then
	ended  bool
}

// filter is what a viewer wants to see.
type filter struct {
	status, alerts bool
	readings       string // "": none; all; or a device's id
	scope          string // of the viewer, spelled out; "": everything
}

func newEvents(g Gateway, status func(context.Context, Who) Status, log *slog.Logger) *events {
	var raw [4]byte
	rand.Read(raw[:])
	e := &events{status: status, log: log, boot: hex.EncodeToString(raw[:]), kick: make(chan struct{}, 1), viewers: map[*viewer]struct{}{}}
	e.desk, _ = g.(Desk)
	e.live, _ = g.(Live)
	return e
}

// run tells until ctx ends; then every stream ends.
func (e *events) run(ctx context.Context) {
	defer e.close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-e.kick:
		}
		e.serve(ctx)
	}
}

// serve looks at the gateway every so often until nobody has watched for a while.
func (e *events) serve(ctx context.Context) {
	t := time.NewTicker(eventsEvery)
	defer t.Stop()
	defer e.rest()
	for last := time.Now(); time.Since(last) < lingerFor; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if e.tick(ctx) {
			last = time.Now()
		}
	}
}

// rest ends a time of looking: whoever comes back from here on has missed something.
func (e *events) rest() {
	e.watch.forget()
	e.collect(false)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq++
	e.alerts.forget(e.seq)
	if len(e.viewers) > 0 { // one came at the last moment
		wake(e.kick)
	}
}

// collect switches the collection of readings.
func (e *events) collect(on bool) {
	if e.live == nil || e.watching == on {
		return
	}
	e.live.WatchReadings(on)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watching = on
	e.seq++
	e.readings.forget(e.seq)
}

// tick tells what changed; false: nobody watches.
func (e *events) tick(ctx context.Context) bool {
	e.mu.Lock()
	n, readers := len(e.viewers), false
	for v := range e.viewers {
		readers = readers || v.readings != ""
	}
	e.mu.Unlock()
	now := time.Now()
	e.order.Lock()
	defer e.order.Unlock()
	if readers {
		e.wanted = now
	}
	e.collect(readers || e.watching && now.Sub(e.wanted) < lingerFor)
	if e.desk != nil {
		e.tell(&e.alerts, e.alertFrame(e.watch.look(e.desk.AlertList())), func(f *filter) bool { return f.alerts })
	}
	if e.watching {
		e.taken = e.live.TakeReadings(e.taken[:0])
		e.tell(&e.readings, e.readingFrame(e.taken), func(f *filter) bool { return f.readings != "" })
	}
	if e.ticks++; e.ticks%statusEvery == 0 && n > 0 {
		e.tellStatus(ctx)
	}
	return n > 0
}

// frame is events of one kind, in order, each encoded once.
type frame struct {
	from, to uint64 // sequence numbers
	text     []byte
	parts    []part
}

type part struct {
	end    int    // in text; it begins where the one before ends
	device string // of a reading
	labels map[string]string
}

// begin starts an event.
func (e *events) begin(b []byte, seq uint64, kind string) []byte {
	b = append(append(append(b, "id: "...), e.boot...), idSeparator...)
	b = strconv.AppendUint(b, seq, 10)
	return append(append(append(b, "\nevent: "...), kind...), "\ndata: "...)
}

// number takes n numbers and returns the first.
func (e *events) number(n int) uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seq += uint64(n)
	return e.seq - uint64(n) + 1
}

func (e *events) alertFrame(list []AlertDetail) *frame {
	if len(list) == 0 {
		return nil
	}
	first := e.number(len(list))
	f := &frame{from: first, to: first + uint64(len(list)) - 1}
	for i := range list {
		a := &list[i]
		if a.Notifications == nil {
			a.Notifications = []SentDetail{}
		}
		body, err := json.Marshal(a)
		if err != nil {
			e.log.Error("alert not encodable", "alert", a.Name, "err", err)
			body = []byte("{}")
		}
		f.text = append(append(e.begin(f.text, first+uint64(i), alertEvent), body...), eventNewlines...)
		f.parts = append(f.parts, part{end: len(f.text), labels: a.Labels})
	}
	return f
}

func (e *events) readingFrame(list []LiveReading) *frame {
	if len(list) == 0 {
		return nil
	}
	first := e.number(len(list))
	f := &frame{from: first, to: first + uint64(len(list)) - 1, parts: make([]part, len(list)), text: make([]byte, 0, 200*len(list))}
	for i := range list {
		s := list[i].Series
		if s.wire == nil {
			s.wire = wireOf(s)
		}
		f.text = append(e.begin(f.text, first+uint64(i), readingEvent), `{"time":"`...)
		f.text = time.Unix(0, list[i].Time).UTC().AppendFormat(f.text, time.RFC3339Nano)
		f.text = strconv.AppendFloat(append(append(f.text, `",`...), s.wire...), list[i].Value, 'g', -1, 64)
		f.text = append(f.text, "}\n\n"...)
		f.parts[i] = part{len(f.text), s.Device, s.Scope}
	}
	return f
}

// wireOf is the middle of a reading's event.
func wireOf(s *LiveSeries) []byte {
	b, err := json.Marshal(struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	}{s.Name, s.Labels})
	if err != nil {
		panic("console: " + err.Error()) // strings are always encodable
	}
	return append(b[1:len(b)-1], `,"value":`...)
}

// choose is what of a frame's events after seen a viewer sees, nil for nothing.
func (f *frame) choose(v *viewer, seen uint64) []byte {
	if seen < f.from && v.scope == "" && (len(f.parts) == 0 || f.parts[0].device == "" || v.readings == everyReading) {
		return f.text
	}
	var b []byte
	begin := 0
	for i := range f.parts {
		p := &f.parts[i]
		if f.from+uint64(i) > seen && (p.device == "" || v.readings == everyReading || v.readings == p.device) && v.who.sees(p.labels) {
			b = append(b, f.text[begin:p.end]...)
		}
		begin = p.end
	}
	return b
}

// tell keeps a frame for those who come back and gives it to those who want its kind.
func (e *events) tell(r *ring, f *frame, wants func(*filter) bool) {
	if f == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	r.keep(f)
	shared := map[filter][]byte{}
	for v := range e.viewers {
		if !wants(&v.filter) {
			continue
		}
		text, ok := shared[v.filter]
		if !ok {
			text = f.choose(v, 0)
			shared[v.filter] = text
		}
		e.give(v, text)
	}
}

// tellStatus gives everybody the status as they may see it.
func (e *events) tellStatus(ctx context.Context) {
	e.mu.Lock()
	wanted := map[string]Who{}
	for v := range e.viewers {
		if v.status {
			wanted[v.scope] = v.who
		}
	}
	e.mu.Unlock()
	for scope, who := range wanted {
		text := e.statusText(ctx, who)
		e.mu.Lock()
		for v := range e.viewers {
			if v.status && v.scope == scope {
				e.give(v, text)
			}
		}
		e.mu.Unlock()
	}
}

func (e *events) statusText(ctx context.Context, who Who) []byte {
	body, err := json.Marshal(e.status(ctx, who))
	if err != nil {
		e.log.Error("status not encodable", "err", err)
		return nil
	}
	return append(append(e.begin(nil, e.number(1), statusEvent), body...), eventNewlines...)
}

// welcome queues the status for somebody who just came.
func (e *events) welcome(ctx context.Context, v *viewer) {
	e.order.Lock()
	defer e.order.Unlock()
	text := e.statusText(ctx, v.who)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.give(v, text)
}

// give puts text into a viewer's queue; e.mu is held. One who does not take what is there loses it, and is told so.
func (e *events) give(v *viewer, text []byte) {
	if len(text) == 0 {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e.sent.Add(1)
	if v.bytes > 0 && v.bytes+len(text) > viewerBytes {
		e.dropped.Add(uint64(len(v.queue)) + 1)
		clear(v.queue)
		v.queue, v.bytes, v.resync, v.resume = v.queue[:0], 0, true, e.seq
	} else {
		v.queue, v.bytes = append(v.queue, text), v.bytes+len(text)
	}
	wake(v.wake)
}

// take empties a viewer's queue into into; resync tells that events up to resume were lost before.
func (v *viewer) take(into [][]byte) (texts [][]byte, resync bool, resume uint64, ended bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	texts = append(into[:0], v.queue...)
	clear(v.queue)
	v.queue, v.bytes = v.queue[:0], 0
	resync, v.resync = v.resync, false
	return texts, resync, v.resume, v.ended
}

// join adds a viewer and queues what they missed since the event last, "" when they have seen none. false: there are too many, or the
// gateway stops.
func (e *events) join(v *viewer, last string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed || len(e.viewers) >= maxViewers {
		return false
	}
	if last != "" {
		if texts, ok := e.missed(v, last); ok {
			for _, text := range texts {
				e.give(v, text)
			}
		} else {
			v.resync, v.resume = true, e.seq
			wake(v.wake)
		}
	}
	e.viewers[v] = struct{}{}
	wake(e.kick)
	return true
}

// missed returns what a viewer has not seen since an event; false when not all of it is there any more.
func (e *events) missed(v *viewer, last string) (texts [][]byte, ok bool) {
	boot, text, _ := strings.Cut(last, idSeparator)
	seen, err := strconv.ParseUint(text, 10, 64)
	if err != nil || boot != e.boot || seen > e.seq ||
		v.alerts && seen < e.alerts.lost || v.readings != "" && (seen < e.readings.lost || !e.watching) {
		return nil, false
	}
	var frames []*frame
	if v.alerts {
		frames = append(frames, e.alerts.after(seen)...)
	}
	if v.readings != "" {
		frames = append(frames, e.readings.after(seen)...)
	}
	slices.SortFunc(frames, func(a, b *frame) int { return int(a.from) - int(b.from) })
	for _, f := range frames {
		texts = append(texts, f.choose(v, seen))
	}
	return texts, true
}

func (e *events) leave(v *viewer) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.viewers, v)
}

// close ends every stream and lets nobody in any more.
func (e *events) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for v := range e.viewers {
		v.mu.Lock()
		v.ended = true
		v.mu.Unlock()
		wake(v.wake)
	}
}

// resyncText tells a viewer that events up to a number are missing: they had better read everything again.
func (e *events) resyncText(upTo uint64) []byte {
	return append(e.begin(nil, upTo, resyncEvent), "{}\n\n"...)
}

// Viewers is how many watch live events, and what became of those.
type Viewers struct {
	Watching      int
	Sent, Dropped uint64
}

// Viewers is safe for concurrent use.
func (s *Server) Viewers() Viewers {
	e := s.site.stream
	e.mu.Lock()
	defer e.mu.Unlock()
	return Viewers{len(e.viewers), e.sent.Load(), e.dropped.Load()}
}

// scopeKey spells a scope out; equal scopes have equal keys.
func scopeKey(scope map[string]string) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(scope)) {
		b.WriteString(strconv.Quote(name) + "=" + strconv.Quote(scope[name]) + ",")
	}
	return b.String()
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// ring is the last frames of one kind.
type ring struct {
	frames []*frame // oldest first
	bytes  int
	lost   uint64 // frames up to this number are not held
}

func (r *ring) keep(f *frame) {
	r.frames = append(r.frames, f)
	r.bytes += len(f.text)
	n := 0
	for ; n < len(r.frames) && r.bytes > ringBytes; n++ {
		r.bytes -= len(r.frames[n].text)
		r.lost = r.frames[n].to
	}
	r.frames = slices.Delete(r.frames, 0, n)
}

func (r *ring) forget(lost uint64) { *r = ring{lost: lost} }

// after returns the frames with something after seen.
func (r *ring) after(seen uint64) []*frame {
	i, _ := slices.BinarySearchFunc(r.frames, seen, func(f *frame, seen uint64) int {
		if f.to <= seen {
			return -1
		}
		return 1
	})
	return r.frames[i:]
}
