package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// truthLine is what another program reads from the ground truth.
type truthLine struct {
	T              time.Time          `json:"t"`
	Event          string             `json:"event"`
	ID             uint64             `json:"id"`
	Device         string             `json:"device"`
	Topic          string             `json:"topic"`
	Line           string             `json:"line"`
	QoS            int                `json:"qos"`
	Seq            uint64             `json:"seq"`
	TS             int64              `json:"ts"`
	TrueTS         int64              `json:"true_ts"`
	Values         map[string]float64 `json:"values"`
	Fault          string             `json:"fault"`
	Malformed      string             `json:"malformed"`
	AckedAt        time.Time          `json:"acked_at"`
	Client         string             `json:"client"`
	SessionPresent bool               `json:"session_present"`
	Reason         string             `json:"reason"`
}

// lockedBuffer is a truth writer that a test may read while the fleet runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) lines(t testing.TB) []truthLine {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []truthLine
	for text := range strings.Lines(l.b.String()) {
		var line truthLine
		dec := json.NewDecoder(strings.NewReader(text))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&line); err != nil {
			t.Fatalf("truth line %q: %v", text, err)
		}
		lines = append(lines, line)
	}
	return lines
}

// checkTruth fails unless every message has one publish first, exactly one outcome, and the same facts in each of its
// lines, and each device's sequence has no hole. It returns the lines by event.
func checkTruth(t testing.TB, lines []truthLine) map[string][]truthLine {
	t.Helper()
	byEvent := map[string][]truthLine{}
	published := map[uint64]truthLine{}
	outcome := map[uint64]string{}
	seqs := map[string]map[uint64]bool{}
	for _, l := range lines {
		byEvent[l.Event] = append(byEvent[l.Event], l)
		if l.ID == 0 {
			continue
		}
		if l.Event == "publish" {
			if _, ok := published[l.ID]; ok {
				t.Errorf("message %d published twice", l.ID)
			}
			published[l.ID] = l
			if seqs[l.Device] == nil {
				seqs[l.Device] = map[uint64]bool{}
			}
			seqs[l.Device][l.Seq] = true
			continue
		}
		p, ok := published[l.ID]
		if !ok {
			t.Errorf("message %d: %s before publish", l.ID, l.Event)
		}
		if l.Device != p.Device || l.Seq != p.Seq || l.TS != p.TS || !maps.Equal(l.Values, p.Values) || l.Topic != p.Topic {
			t.Errorf("message %d: %s says %+v, publish said %+v", l.ID, l.Event, l, p)
		}
		if was := outcome[l.ID]; was != "" {
			t.Errorf("message %d: %s after %s", l.ID, l.Event, was)
		}
		switch l.Event {
		case "acked":
			if l.AckedAt.Before(p.T) {
				t.Errorf("message %d acknowledged at %s, published at %s", l.ID, l.AckedAt, p.T)
			}
			outcome[l.ID] = l.Event
		case "sent", "lost":
			outcome[l.ID] = l.Event
		case "resent":
		default:
			t.Errorf("unexpected event %q", l.Event)
		}
	}
	for id := range published {
		if outcome[id] == "" {
			t.Errorf("message %d has no outcome", id)
		}
	}
	for device, seen := range seqs {
		for seq := range uint64(len(seen)) {
			if !seen[seq+1] {
				t.Errorf("%s: no message with seq %d of %d", device, seq+1, len(seen))
			}
		}
	}
	return byEvent
}

func TestEvent_JSONHoldsEveryFactAndEscapes(t *testing.T) {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123456000, time.UTC)
	e := Event{
		T: at, Kind: Acked, ID: 7, Device: "a\"\\\x01\xff", Topic: "s/ü", Line: "line-1", Seq: 3, TS: 5, TrueTS: 6, QoS: 1,
		Values: []Value{{"temperature", -0.05}, {"power", 1e6}}, Fault: "spike+drift", AckedAt: at,
	}
	var got truthLine
	if err := json.Unmarshal(e.AppendJSON(nil), &got); err != nil {
		t.Fatalf("AppendJSON wrote %s: %v", e.AppendJSON(nil), err)
	}
	if got.Device != "a\"\\\x01\uFFFD" || got.Topic != "s/ü" || got.TrueTS != 6 || got.TS != 5 || got.Values["temperature"] != -0.05 ||
		got.Values["power"] != 1e6 || !got.AckedAt.Equal(at) || got.Fault != "spike+drift" || got.QoS != 1 {
		t.Errorf("AppendJSON(%+v) reads back as %+v", e, got)
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("no space") }

func TestRecord_FirstWriteErrorIsKeptAndReportedOnce(t *testing.T) {
	calls := 0
	r := newRecord(failingWriter{}, nil, func(error) { calls++ })
	for range 3000 {
		r.put(&Event{Kind: Connect, Client: "c"})
	}
	err1, err2 := r.flush(), r.flush()
	if err1 == nil || err1 != err2 || !strings.Contains(err1.Error(), "no space") {
		t.Errorf("flush() = %v, then %v; want the write error twice", err1, err2)
	}
	if calls != 1 {
		t.Errorf("failure reported %d times, want 1", calls)
	}
}

// lineWriter fails a test when it is given anything but whole lines.
type lineWriter struct {
	t *testing.T
	n int
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.n++
	if !bytes.HasPrefix(p, []byte("{")) || !bytes.HasSuffix(p, []byte("}\n")) {
		w.t.Errorf("write %d of %d bytes cuts a line", w.n, len(p))
	}
	return len(p), nil
}

func TestRecord_WritesWholeLines(t *testing.T) {
	w := &lineWriter{t: t}
	r := newRecord(w, nil, nil)
	for i := range 5000 {
		r.put(&Event{Kind: Publish, ID: uint64(i + 1), Device: strings.Repeat("d", i%300), Reason: "x"})
	}
	if err := r.flush(); err != nil || w.n < 10 {
		t.Errorf("%d writes, %v", w.n, err)
	}
}
