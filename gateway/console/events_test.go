package console

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// newsroom is a plant whose alerts and readings change.
type newsroom struct {
	plant
	mu       sync.Mutex
	alerts   AlertList
	pending  []LiveReading
	watching bool
}

func (n *newsroom) AlertList() AlertList {
	n.mu.Lock()
	defer n.mu.Unlock()
	return AlertList{slices.Clone(n.alerts.Alerts), slices.Clone(n.alerts.Recent)}
}
func (n *newsroom) RuleList(context.Context) (RuleList, error)                    { return RuleList{}, nil }
func (n *newsroom) SilenceList() SilenceList                                      { return SilenceList{} }
func (n *newsroom) Acknowledge(context.Context, string, Acknowledgement) error    { return nil }
func (n *newsroom) Unacknowledge(context.Context, string, string) error           { return nil }
func (n *newsroom) AddSilence(context.Context, NewSilence) (id string, err error) { return "", nil }
func (n *newsroom) ExpireSilence(context.Context, string, string) error           { return nil }
func (n *newsroom) ReloadRules(context.Context) error                             { return nil }
func (n *newsroom) WatchReadings(on bool)                                         { n.mu.Lock(); n.watching = on; n.mu.Unlock() }
func (n *newsroom) TakeReadings(into []LiveReading) []LiveReading {
	n.mu.Lock()
	defer n.mu.Unlock()
	into = append(into, n.pending...)
	n.pending = nil
	return into
}

func (n *newsroom) fire(name, state string, labels map[string]string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.alerts.Alerts = slices.DeleteFunc(n.alerts.Alerts, func(a AlertDetail) bool { return a.Name == name })
	a := AlertDetail{Fingerprint: name, Name: name, State: state, Labels: labels}
	if state == "resolved" {
		a.EndsAt = time.Unix(1_700_000_000, 0)
		n.alerts.Recent = append([]AlertDetail{a}, n.alerts.Recent...)
		return
	}
	n.alerts.Alerts = append(n.alerts.Alerts, a)
}

func (n *newsroom) read(s *LiveSeries, v float64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watching {
		n.pending = append(n.pending, LiveReading{s, 1_700_000_000_123_000_000, v})
	}
}

func (n *newsroom) isWatched() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.watching
}

// sse is one event as a browser reads it.
type sse struct{ id, kind, data string }

// stream is an open connection.
type stream struct {
	t      *testing.T
	events chan sse
	close  func()
}

func watch(t *testing.T, s *Server, query, last string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r, err := http.NewRequestWithContext(ctx, "GET", "http://"+s.Addr().String()+"/api/v1/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	if last != "" {
		r.Header.Set("Last-Event-ID", last)
	}
	client := &http.Client{Transport: &http.Transport{}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("GET events%s = %s %v", query, resp.Status, resp.Header)
	}
	w := &stream{t: t, events: make(chan sse, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(w.events)
		var e sse
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch name {
			case "id":
				e.id = value
			case "event":
				e.kind = value
			case "data":
				e.data = value
			case "":
				if e.kind != "" {
					w.events <- e
				}
				e = sse{}
			}
		}
	}()
	w.close = func() { cancel(); resp.Body.Close(); <-done; client.CloseIdleConnections() }
	t.Cleanup(w.close)
	return w
}

// next is the next event of one of these kinds.
func (w *stream) next(kinds ...string) sse {
	w.t.Helper()
	after := time.After(10 * time.Second)
	for {
		select {
		case e, ok := <-w.events:
			if !ok {
				w.t.Fatal("the stream ended")
			}
			if slices.Contains(kinds, e.kind) {
				return e
			}
		case <-after:
			w.t.Fatalf("no event of %v within 10 s", kinds)
		}
	}
}

func numberOf(t *testing.T, id string) (boot string, n uint64) {
	t.Helper()
	boot, text, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("id %q: %v", id, err)
	}
	return boot, n
}

func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited for " + what)
		}
	}
}

func TestEvents_WhoComesBackGetsWhatTheyMissed(t *testing.T) {
	n := &newsroom{}
	s := newServer(t, Config{Address: "127.0.0.1:0"}, n)
	stop := start(t, s)
	w := watch(t, s, "", "")
	first := w.next(statusEvent)
	boot, seq := numberOf(t, first.id)
	second := w.next(statusEvent) // the alerts were looked at meanwhile
	n.fire("FreezerWarm", "firing", map[string]string{"device": "freezer-1"})
	fired := w.next(alertEvent)
	if !strings.Contains(fired.data, `"state":"firing"`) || !strings.Contains(fired.data, `"notifications":[]`) {
		t.Errorf("alert event: %s", fired.data)
	}
	for _, e := range []sse{second, fired} {
		b, k := numberOf(t, e.id)
		if b != boot || k <= seq {
			t.Errorf("id %s after %s-%d", e.id, boot, seq)
		}
		seq = k
	}
	w.close()
	n.fire("FreezerWarm", "resolved", map[string]string{"device": "freezer-1"})
	n.fire("PumpShakes", "pending", map[string]string{"device": "pump-1"})
	other := watch(t, s, "?types=alert", "")
	if e := other.next(alertEvent); !strings.Contains(e.data, `"state":"resolved"`) {
		t.Errorf("what ended comes first: %s", e.data)
	}
	other.next(alertEvent)
	n.fire("PumpShakes", "gone", nil)
	n.mu.Lock()
	n.alerts.Alerts = nil
	n.mu.Unlock()
	if e := other.next(alertEvent); !strings.Contains(e.data, `"state":"inactive"`) {
		t.Errorf("a pending alert that went away: %s", e.data)
	}

	back := watch(t, s, "?types=alert", fired.id)
	for i, want := range []string{"resolved", "pending", "inactive"} {
		if e := back.next(alertEvent, resyncEvent); !strings.Contains(e.data, `"state":"`+want+`"`) {
			t.Errorf("missed event %d: %+v, want %s", i, e, want)
		}
	}
	// Events are kept in batches; a connection may break in the middle of one.
	n.mu.Lock()
	for _, name := range []string{"A", "B", "C"} {
		n.alerts.Alerts = append(n.alerts.Alerts, AlertDetail{Fingerprint: name, Name: name, State: "firing"})
	}
	n.mu.Unlock()
	a, b, c := back.next(alertEvent), back.next(alertEvent), back.next(alertEvent)
	rest := watch(t, s, "?types=alert", a.id)
	if x, y := rest.next(alertEvent, resyncEvent), rest.next(alertEvent, resyncEvent); x != b || y != c {
		t.Errorf("after the first of three that came at once: %+v and %+v, want %+v and %+v", x, y, b, c)
	}
	for _, last := range []string{"00000000-1", boot + "-999999999", "garbage", boot + "-x", "-"} {
		if e := watch(t, s, "?types=alert", last).next(alertEvent, resyncEvent); e.kind != resyncEvent || e.data != "{}" {
			t.Errorf("Last-Event-ID %s: %+v, want resync", last, e)
		}
	}
	began := time.Now()
	if err := stop(); err != nil || time.Since(began) > shutdownTimeout {
		t.Errorf("stop with streams open: %v after %s", err, time.Since(began))
	}
}

func TestEvents_ReadingsAreThoseAskedForAndOutliveTheServersDeadlines(t *testing.T) {
	n := &newsroom{}
	s := newServer(t, Config{Address: "127.0.0.1:0"}, n)
	s.http.ReadTimeout, s.http.WriteTimeout = 50*time.Millisecond, 50*time.Millisecond
	start(t, s)
	one := &LiveSeries{Name: "telemetry_temperature", Labels: map[string]string{"device": `a"b`}, Device: "d1"}
	two := &LiveSeries{Name: "telemetry_humidity", Labels: map[string]string{"device": "c"}, Device: "d2"}
	all, mine, none := watch(t, s, "?readings=all&types=reading", ""), watch(t, s, "?readings=d2", ""), watch(t, s, "", "")
	await(t, "the collection of readings", n.isWatched)
	for range 8 { // 2 s: far beyond the deadlines
		n.read(one, 20.5)
		n.read(two, 1e21)
		if e := all.next(readingEvent); e.data != `{"time":"2023-11-14T22:13:20.123Z","name":"telemetry_temperature","labels":{"device":"a\"b"},"value":20.5}` {
			t.Fatalf("reading: %s", e.data)
		}
		if e := all.next(readingEvent); !strings.Contains(e.data, `"value":1e+21}`) {
			t.Fatalf("reading: %s", e.data)
		}
		if e := mine.next(readingEvent); !strings.Contains(e.data, "telemetry_humidity") {
			t.Fatalf("reading of another device: %s", e.data)
		}
	}
	select {
	case e := <-none.events:
		for e.kind != readingEvent && len(none.events) > 0 {
			e = <-none.events
		}
		if e.kind == readingEvent {
			t.Errorf("readings for one who did not ask: %+v", e)
		}
	default:
	}
}

func TestEvents_WhoDoesNotKeepUpStartsAnewAndDelaysNobody(t *testing.T) {
	e := newEvents(&newsroom{}, func(context.Context, Who) Status { return Status{} }, quiet)
	slow, quick := &viewer{wake: make(chan struct{}, 1)}, &viewer{wake: make(chan struct{}, 1)}
	for _, v := range []*viewer{slow, quick} {
		v.readings = everyReading
		e.join(v, "")
	}
	series := &LiveSeries{Name: "m", Labels: map[string]string{"device": strings.Repeat("x", 1000)}}
	want, got := 0, 0
	for range 100 {
		var list []LiveReading
		for range 100 {
			list = append(list, LiveReading{series, 1, 2})
		}
		f := e.readingFrame(list)
		e.tell(&e.readings, f, func(f *filter) bool { return f.readings != "" })
		texts, resync, _, _ := quick.take(nil)
		for _, text := range texts {
			got += strings.Count(string(text), "event: reading")
		}
		if want += 100; resync {
			t.Fatal("the quick one is told to start anew")
		}
	}
	if got != want {
		t.Errorf("the quick one got %d events, want %d", got, want)
	}
	texts, resync, resume, _ := slow.take(nil)
	held := 0
	for _, text := range texts {
		held += len(text)
	}
	if !resync || held > viewerBytes || e.dropped.Load() == 0 {
		t.Errorf("the slow one: resync %v, %d bytes held, %d dropped", resync, held, e.dropped.Load())
	}
	if len(texts) > 0 {
		id, _, _ := strings.Cut(strings.TrimPrefix(string(texts[0]), "id: "), "\n")
		if _, first := numberOf(t, id); first != resume+1 {
			t.Errorf("resync at %d, then %d", resume, first)
		}
	}
	if e.readings.bytes > ringBytes {
		t.Errorf("%d bytes kept for those who come back", e.readings.bytes)
	}
}

func TestEvents_AreWithinTheScopeOfWhoWatches(t *testing.T) {
	n := &newsroom{}
	e := newEvents(n, func(context.Context, Who) Status { return Status{} }, quiet)
	e.watching = true
	var viewers []*viewer
	for _, scope := range []map[string]string{nil, {"site": "a"}, {"site": "b"}} {
		v := &viewer{who: Who{Scope: scope}, wake: make(chan struct{}, 1)}
		v.readings, v.alerts, v.scope = everyReading, true, scopeKey(scope)
		e.join(v, "")
		viewers = append(viewers, v)
	}
	var list []LiveReading
	for _, site := range []string{"a", "b", "b"} {
		labels := map[string]string{"site": site}
		list = append(list, LiveReading{&LiveSeries{Name: "m", Labels: labels, Scope: labels}, 1, 2})
	}
	e.tell(&e.readings, e.readingFrame(list), func(f *filter) bool { return f.readings != "" })
	e.tell(&e.alerts, e.alertFrame([]AlertDetail{{Labels: map[string]string{"site": "a"}}, {Labels: map[string]string{}}}), func(f *filter) bool { return f.alerts })
	for i, want := range []int{5, 2, 2} {
		texts, _, _, _ := viewers[i].take(nil)
		all := ""
		for _, text := range texts {
			all += string(text)
		}
		if got := strings.Count(all, "id: "); got != want {
			t.Errorf("viewer %d sees %d events, want %d: %s", i, got, want, all)
		}
		if other := []string{"nothing", `"site":"b"`, `"site":"a"`}[i]; strings.Contains(all, other) {
			t.Errorf("viewer %d sees %s", i, other)
		}
	}
	back := &viewer{who: Who{Scope: map[string]string{"site": "b"}}, wake: make(chan struct{}, 1)}
	back.readings, back.scope = everyReading, "b"
	e.join(back, e.boot+"-1")
	if texts, resync, _, _ := back.take(nil); resync || len(texts) != 1 || strings.Count(string(texts[0]), "id: ") != 2 || strings.Contains(string(texts[0]), `"a"`) {
		t.Errorf("who comes back within a scope gets %q, resync %v", texts, resync)
	}
}

func TestEvents_OnlySoManyMayWatch(t *testing.T) {
	e := newEvents(&newsroom{}, func(context.Context, Who) Status { return Status{} }, quiet)
	for i := range maxViewers + 1 {
		if ok := e.join(&viewer{wake: make(chan struct{}, 1)}, ""); ok != (i < maxViewers) {
			t.Fatalf("viewer %d: %v", i, ok)
		}
	}
}

// BenchmarkEvents is one tick with 20 viewers who watch 1,000 series change; ns/op four times a second is the share of a core.
func BenchmarkEvents(b *testing.B) {
	n := &newsroom{}
	e := newEvents(n, func(context.Context, Who) Status { return Status{} }, quiet)
	for range 20 {
		v := &viewer{wake: make(chan struct{}, 1)}
		v.readings, v.alerts, v.status = everyReading, true, true
		e.join(v, "")
	}
	var all []LiveReading
	for i := range 1000 {
		labels := map[string]string{"device": fmt.Sprintf("freezer-%03d", i/3), "site": "plant-7", "line": "line-1", "gateway": "plant-7"}
		all = append(all, LiveReading{&LiveSeries{Name: "telemetry_temperature", Labels: labels, Device: "d"}, 1_700_000_000_123_000_000, 20.37})
	}
	b.ReportAllocs()
	for b.Loop() {
		n.mu.Lock()
		n.pending = all
		n.mu.Unlock()
		e.tick(context.Background())
		for v := range e.viewers {
			texts, _, _, _ := v.take(nil)
			for _, text := range texts {
				io.Discard.Write(text)
			}
		}
	}
}
