// Package streamtest holds what the tests of the streaming destinations share: points as the pipeline makes them, records
// as a stranger reads them, and an outbox with its forwarder in front of a sink under test.
package streamtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// Start is the time of window 0, ns since the Unix epoch.
const Start = 1_795_367_000_000_000_000

// Point is window n of one of three devices; version tells how many readings have come in for it.
func Point(n, version int) *telemetry.Point {
	p := &telemetry.Point{
		Measurement: "telemetry", Time: Start + int64(n/3)*10e9, Window: 10 * time.Second, Stats: []telemetry.Stat{telemetry.StatCount, telemetry.StatMean},
		Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: fmt.Sprintf("d%d", n%3)}, telemetry.Label{Name: "gateway", Value: "g1"},
			telemetry.Label{Name: "site", Value: "plant 7"}),
	}
	m := telemetry.MetricAggregate{Metric: "temperature"}
	for i := range version {
		m.Add(p.Time+int64(i)*1e9, float64(n)+float64(i)/4)
	}
	p.Aggregates = append(p.Aggregates, m)
	return p
}

// Record is p as output lsn of the pipeline.
func Record(p *telemetry.Point, lsn uint64) uplink.Record {
	return uplink.Record{LSN: lsn, Cause: uplink.Cause{LSN: lsn, Time: p.Time}, Type: uplink.TypePoint, Body: telemetry.MarshalPoint(nil, p)}
}

// Records are the first versions of windows from..to-1.
func Records(from, to int) []uplink.Record {
	var out []uplink.Record
	for n := from; n < to; n++ {
		out = append(out, Record(Point(n, 1), uint64(n+1)))
	}
	return out
}

// Big is a point that takes about bytes as JSON.
func Big(n, bytes int) *telemetry.Point {
	p := Point(n, 1)
	note := make([]byte, bytes)
	for i := range note {
		note[i] = "0123456789abcdef"[(i*i+i/7)%16]
	}
	p.Labels = p.Labels.With(telemetry.Label{Name: "note", Value: string(note)})
	return p
}

// Read is a record as a stranger reads it.
type Read struct {
	ID, Version string
	Tags        map[string]string
	Time        int64
	Fields      map[string]float64
}

// Window is the n that Point was given.
func (r *Read) Window() int { return int((r.Time-Start)/10e9)*3 + int(r.Tags["device"][1]-'0') }

// Parse reads one record.
func Parse(t testing.TB, b []byte) *Read {
	t.Helper()
	r := new(Read)
	if err := json.Unmarshal(b, r); err != nil || r.ID == "" || r.Version == "" || len(r.Tags["device"]) < 2 {
		t.Fatalf("%q is no record: %v", b, err)
	}
	return r
}

// Rig is an outbox and its forwarder in front of a sink.
type Rig struct {
	Outbox     *uplink.Outbox
	Forwarder  *uplink.Forwarder
	Quarantine *uplink.Quarantine
}

// NewRig runs a forwarder in front of sink until the test ends.
func NewRig(t *testing.T, sink uplink.Sink, o uplink.ForwarderOptions) *Rig {
	t.Helper()
	r := &Rig{}
	var err error
	if r.Quarantine, err = uplink.OpenQuarantine(t.TempDir(), uplink.QuarantineOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Quarantine.Close() })
	if r.Outbox, err = uplink.OpenOutbox(t.TempDir(), uplink.OutboxOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Outbox.Close() })
	o.Name, o.Quarantine = "cloud", r.Quarantine
	if o.MinBackoff == 0 {
		o.MinBackoff, o.MaxBackoff = 50*time.Millisecond, 200*time.Millisecond
	}
	if r.Forwarder, err = uplink.NewForwarder(r.Outbox, sink, o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Forwarder.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

// Put queues points; lsn is that of the first one's cause.
func (r *Rig) Put(t *testing.T, lsn uint64, points ...*telemetry.Point) {
	t.Helper()
	for i, p := range points {
		if err := r.Outbox.Put(uplink.Cause{LSN: lsn + uint64(i), Time: time.Now().UnixNano()}, uplink.TypePoint, telemetry.MarshalPoint(nil, p)); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Outbox.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Drained waits until nothing is pending.
func (r *Rig) Drained(t *testing.T, within time.Duration) {
	t.Helper()
	Eventually(t, within, "the outbox is empty", func() bool { return r.Outbox.Counters().Pending == 0 })
}

// Quarantined lists what was refused.
func (r *Rig) Quarantined(t *testing.T) (items []uplink.Item) {
	t.Helper()
	if err := r.Quarantine.Each(1, func(it uplink.Item) bool { items = append(items, it); return true }); err != nil {
		t.Fatal(err)
	}
	return items
}

// Eventually polls until ok holds.
func Eventually(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// Program finds an external program, or skips the test; with CI=true it fails.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if _, serr := os.Stat("/usr/sbin/" + name); serr == nil {
			return "/usr/sbin/" + name
		}
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed (Debian: %s)", name, name)
	}
	return path
}

// FreePort is a port of this machine that nobody listens on at the moment.
func FreePort(t testing.TB) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// Mute is the address of a listener that takes connections and never says anything.
func Mute(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			c, err := ln.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}
