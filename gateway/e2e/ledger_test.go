package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/gateway/e2e/oracle"
	"sluice/gateway/e2e/store"
	"sluice/gateway/e2e/wire"
)

// post makes a request that changes something.
func (g *gateway) post(path, body string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Post("http://"+g.http+path, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, string(b), err
}

// accounts is what a test reads of /api/v1/ledger.
type accounts struct {
	Imbalance    int64
	Lost         uint64
	Sources      []struct{ Received, Aggregated, Duplicate, Quarantined, Late, Requeued uint64 }
	Destinations []struct {
		Name                                                 string
		Points, Delivered, Pending, Degraded, Shed, Rejected uint64
		Imbalance                                            int64
	}
}

// ledger reads the ledger, which must balance: of sources and of destinations.
func (g *gateway) ledger() (a accounts, err error) {
	code, body, err := g.get("/api/v1/ledger")
	if err != nil || code != http.StatusOK {
		return a, fmt.Errorf("GET /api/v1/ledger: %d %v", code, err)
	}
	if err := json.Unmarshal([]byte(body), &a); err != nil {
		return a, err
	}
	for _, s := range a.Sources {
		if s.Received != s.Aggregated+s.Duplicate+s.Quarantined+s.Late {
			return a, fmt.Errorf("source out of balance: %+v", s)
		}
	}
	for _, d := range a.Destinations {
		if d.Points != d.Delivered+d.Pending+d.Degraded+d.Shed+d.Rejected || d.Imbalance != 0 {
			return a, fmt.Errorf("destination out of balance: %+v", d)
		}
	}
	if a.Imbalance != 0 {
		return a, fmt.Errorf("imbalance %d", a.Imbalance)
	}
	return a, nil
}

// wantLedger wants a ledger that balances, with nothing lost.
func (g *gateway) wantLedger() accounts {
	g.t.Helper()
	a, err := g.ledger()
	if err != nil {
		g.t.Error(err)
	}
	if a.Lost != 0 {
		g.t.Errorf("%d lost", a.Lost)
	}
	return a
}

// edit replaces text in the config file.
func (g *gateway) edit(old, text string) {
	g.t.Helper()
	b, err := os.ReadFile(g.configFile)
	if err != nil || !bytes.Contains(b, []byte(old)) {
		g.t.Fatalf("edit config: %v, %q is not in it", err, old)
	}
	g.write("sluice.yaml", strings.ReplaceAll(string(b), old, text), 0o644)
}

// Devices sent their stamps in another unit than the configuration said, so all was refused. Once the configuration is right everything is
// put back, and the gateway is killed again and again while it is: each reading counts once in the end.
func TestGateway_KilledWhileQuarantineIsPutBackCountsEachReadingOnce(t *testing.T) {
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL()})
	g.start()
	const messages = 3000
	var readings []oracle.Reading
	c, err := wire.Dial(t.Context(), g.mqtt, wire.Connect{ClientID: "d", Clean: true, KeepAlive: 60})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now().UnixMilli()
	var out []byte
	for i := range messages {
		r := reading{Seq: uint64(i + 1), TS: start + int64(i), Temperature: float64(i % 50), Humidity: float64(i % 7), Vibration: 1}
		p := r.payload()
		r.TS *= 1000
		readings = append(readings, oracleReadings("d", r)...)
		out = wire.AppendPublish(out[:0], c.Version, wire.Publish{Topic: "lab/d/seq", Payload: p, ID: uint16(i + 1), QoS: 1})
		if _, err := c.Net.Write(out); err != nil {
			t.Fatal(err)
		}
	}
	for range messages {
		if p, err := c.Read(5 * time.Second); err != nil || p.Type != wire.PUBACK {
			t.Fatalf("answer %+v, %v; want a PUBACK", p, err)
		}
	}
	c.Close()
	g.wantMetric(3*messages, "sluice_quarantined_total", `reason="past"`)
	g.stop()
	g.edit("time: { field: ts, unit: us }", "time: { field: ts, unit: ms }")
	kills := 0
	for life := time.Duration(1); ; life++ {
		g.start()
		eventually(t, 5*time.Second, "a job puts items back", func() error {
			code, body, err := g.post("/api/v1/quarantine/replay", `{"filter":{"reason":"past"}}`)
			if err == nil && code != http.StatusAccepted {
				err = fmt.Errorf("replay: %d %s", code, body)
			}
			return err
		})
		if kills == 8 {
			break
		}
		time.Sleep(life * 4 * time.Millisecond) // wherever that is: before, during and after
		g.proc.Kill()
		kills++
	}
	eventually(t, 20*time.Second, "everything is put back", func() error {
		a, err := g.ledger()
		if err == nil && (a.Sources[0].Aggregated != 3*messages || a.Sources[0].Received != 3*messages || a.Sources[0].Requeued != 3*messages) {
			err = fmt.Errorf("got %+v, want %d received and aggregated", a.Sources[0], 3*messages)
		}
		return err
	})
	wantStored(t, s, readings, time.Second, 20*time.Second)
	eventually(t, 5*time.Second, "quarantine is empty", func() error {
		_, body, err := g.get("/api/v1/quarantine")
		if err == nil && !strings.Contains(body, `"held":0`) {
			err = fmt.Errorf("quarantine: %.300s", body)
		}
		return err
	})
	g.wantLedger()
	g.stop()
	g.start() // and nothing is put back again
	wantStored(t, s, readings, time.Second, 10*time.Second)
	if a := g.wantLedger(); len(a.Sources) == 0 || a.Sources[0].Aggregated != 3*messages {
		t.Errorf("after another start: %+v", a.Sources)
	}
	g.stop()
}

// A copy taken while devices publish holds all that was acknowledged before; a gateway started on it goes on from there.
func TestGateway_BackupUnderLoadHoldsEverythingAcknowledged(t *testing.T) {
	down, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer down.Close()
	if err := down.Set(store.Down); err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, options{Store: down.URL()})
	g.start()
	f := newFleet(g, 7)
	f.add(3, sequencedSameSession)
	f.run(t)
	g.publish("bad", "lab/bad/seq", []byte("no json"))
	f.publish(t, time.Second)
	backup := filepath.Join(t.TempDir(), "b.tar")
	acked := map[string]int{}
	taken := make(chan error, 1)
	go func() {
		out, err := exec.Command(binary, "backup", "--out", backup, "--address", "http://"+g.http).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("sluice backup: %w: %s", err, out)
		}
		taken <- err
	}()
	for _, d := range f.devices {
		acked[d.name] = d.Acked()
	}
	f.publish(t, time.Second)
	if err := <-taken; err != nil {
		t.Fatal(err)
	}
	f.publish(t, 200*time.Millisecond)
	f.finish(t, 20*time.Second)
	offered := map[string]int{}
	for _, d := range f.devices {
		offered[d.name] = int(d.seq)
	}

	up, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer up.Close()
	if err := up.Set(store.Up); err != nil {
		t.Fatal(err)
	}
	copied := newGateway(t, options{Store: up.URL()})
	data := filepath.Join(copied.dir, "data")
	if out, err := exec.Command(binary, "restore", "--from", backup, "--data-dir", data).CombinedOutput(); err != nil {
		t.Fatalf("sluice restore: %v: %s", err, out)
	}
	if out, err := exec.Command(binary, "restore", "--from", backup, "--data-dir", data).CombinedOutput(); err == nil || !strings.Contains(string(out), "--force") {
		t.Errorf("a second restore into it: %v: %s", err, out)
	}
	copied.start()
	eventually(t, 20*time.Second, "everything acknowledged before the backup is at the copy's store", func() error {
		counts := map[string]int{}
		for _, p := range up.Points("telemetry") {
			counts[p.Tag("device")] += int(p.Fields["temperature_count"])
		}
		for name, n := range acked {
			if counts[name] < n || counts[name] > offered[name] {
				return fmt.Errorf("%s: %d messages counted, want %d acknowledged before to %d offered", name, counts[name], n, offered[name])
			}
		}
		a, err := copied.ledger()
		if err != nil {
			return err
		}
		total := 0
		for _, n := range counts {
			total += n
		}
		if len(a.Sources) == 0 || a.Sources[0].Aggregated != 3*uint64(total) || a.Sources[0].Quarantined != 1 {
			return fmt.Errorf("the ledger says %+v, the store counts %d messages", a.Sources, total)
		}
		return nil
	})
	if _, body, err := copied.get("/api/v1/quarantine"); err != nil || !strings.Contains(body, `"topic":"lab/bad/seq"`) {
		t.Errorf("the copy's quarantine: %.300s, %v", body, err)
	}
	// A device that turns to the copy and sends again what it had sent is recognised.
	d := f.devices[0]
	before := copied.wantLedger().Sources[0].Duplicate
	r := reading{Seq: 1, TS: d.readings[0].Time.UnixMicro(), Temperature: 20}
	copied.publish("again", d.topic, r.payload())
	eventually(t, 5*time.Second, "a resend is a duplicate", func() error {
		a, err := copied.ledger()
		if err == nil && a.Sources[0].Duplicate != before+3 {
			err = fmt.Errorf("%+v", a.Sources[0])
		}
		return err
	})
	copied.stop()
	g.stop()
}
