package e2e

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"sluice/gateway/e2e/wire"
)

// historySamples asks the gateway, as Grafana would, for every stored sample of a device's metric: event time in ms to value.
func (g *gateway) historySamples(device, metric string) (map[int64]float64, error) {
	query := url.Values{"query": {fmt.Sprintf(`telemetry_%s{device=%q,site="lab",gateway="e2e"}[2h]`, metric, device)}}
	code, body, err := g.get("/prometheus/api/v1/query?" + query.Encode())
	if err != nil || code != 200 {
		return nil, fmt.Errorf("status %d, %v: %s", code, err, body)
	}
	var answer struct {
		Data struct {
			Result []struct{ Values [][2]json.RawMessage }
		}
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil {
		return nil, err
	}
	samples := map[int64]float64{}
	for _, r := range answer.Data.Result {
		for _, v := range r.Values {
			seconds, err := strconv.ParseFloat(string(v[0]), 64)
			if err != nil {
				return nil, err
			}
			value, err := strconv.ParseFloat(string(v[1][1:len(v[1])-1]), 64)
			if err != nil {
				return nil, err
			}
			samples[int64(seconds*1000+0.5)] = value
		}
	}
	return samples, nil
}

// historyFleet publishes readings that are a millisecond apart or more, and remembers them.
type historyFleet struct {
	*fleet
	at   int64 // µs, of the next reading
	want map[string]map[int64]float64
}

func (f *historyFleet) offer(n int) {
	for range n {
		for _, d := range f.devices {
			r := reading{Temperature: float64(f.rng.IntN(10_000)) / 100, Humidity: f.rng.Float64(), Vibration: float64(f.rng.IntN(3))}
			d.seq++
			r.Seq, r.TS = d.seq, f.at
			for metric, v := range map[string]float64{"temperature": r.Temperature, "humidity": r.Humidity, "vibration": r.Vibration} {
				key := d.name + " " + metric
				if f.want[key] == nil {
					f.want[key] = map[int64]float64{}
				}
				f.want[key][f.at/1000] = v
			}
			d.Offer(&wire.Message{Topic: d.topic, Payload: r.payload()})
		}
		f.at += 1000
	}
}

func (f *historyFleet) awaitHistory(t *testing.T, g *gateway) {
	t.Helper()
	eventually(t, 60*time.Second, "the history holds every acknowledged reading", func() error {
		for _, d := range f.devices {
			for _, metric := range metrics {
				want := f.want[d.name+" "+metric]
				got, err := g.historySamples(d.name, metric)
				if err != nil {
					return err
				}
				if len(got) != len(want) {
					return fmt.Errorf("%s %s: %d samples, want %d", d.name, metric, len(got), len(want))
				}
				for at, v := range want {
					// A real number may be off in its sixteenth digit: see docs/history.md.
					if w, ok := got[at]; !ok || w != v && (metric != "humidity" || w < v-1e-14 || w > v+1e-14) {
						return fmt.Errorf("%s %s at %d: %v (%v), want %v", d.name, metric, at, w, ok, v)
					}
				}
			}
		}
		return nil
	})
}

func newHistoryFleet(g *gateway, t *testing.T) *historyFleet {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := &historyFleet{fleet: &fleet{g: g, rng: rand.New(rand.NewPCG(seed, 9))}, at: time.Now().Add(-5 * time.Minute).UnixMicro(), want: map[string]map[int64]float64{}}
	f.add(2, sequencedSameSession)
	f.add(1, sequencedFresh)
	f.add(1, plainSameSession)
	f.run(t)
	return f
}

// However often the process is killed, the history ends with every acknowledged reading in it, once.
func TestHistory_KilledAtAnyMomentHoldsEveryAcknowledgedReading(t *testing.T) {
	g := newGateway(t, options{})
	f := newHistoryFleet(g, t)
	for range 8 {
		g.start()
		f.offer(150)
		time.Sleep(time.Duration(f.rng.IntN(900)) * time.Millisecond) // the moment of the kill, not a wait for something
		g.proc.Kill()
		g.proc.Wait(5 * time.Second)
	}
	g.start()
	f.offer(10)
	eventually(t, 30*time.Second, "all acknowledged", f.idle)
	f.awaitHistory(t, g)
	g.stop()
	g.start()
	f.awaitHistory(t, g)
}

// A history that is gone, or damaged, comes back from the journal while the gateway serves.
func TestHistory_DamagedOrGoneItIsRebuiltFromTheJournal(t *testing.T) {
	g := newGateway(t, options{})
	f := newHistoryFleet(g, t)
	g.start()
	f.offer(300)
	eventually(t, 30*time.Second, "all acknowledged", f.idle)
	f.awaitHistory(t, g)
	folder := filepath.Join(g.options.DataDir, "history")
	for _, harm := range []func() error{
		func() error { return os.RemoveAll(folder) },
		func() error {
			return filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					err = os.WriteFile(path, []byte("this is not what it was"), 0o600)
				}
				return err
			})
		},
	} {
		g.proc.Kill()
		g.proc.Wait(5 * time.Second)
		if err := harm(); err != nil {
			t.Fatal(err)
		}
		g.start()
		f.offer(20)
		eventually(t, 30*time.Second, "all acknowledged", f.idle)
		f.awaitHistory(t, g)
	}
}

func (f *fleet) idle() error {
	for _, d := range f.devices {
		if n := d.Pending(); n > 0 {
			return fmt.Errorf("%s waits for %d acknowledgements", d.name, n)
		}
	}
	return nil
}
