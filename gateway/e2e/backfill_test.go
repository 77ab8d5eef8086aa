package e2e

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"sluice/gateway/e2e/oracle"
	"sluice/gateway/e2e/store"
	"sluice/gateway/e2e/wire"
)

// backfillFleet sends what is measured now and, in between, what was stored hours ago while out of reach. Times are whole
// milliseconds: the local history knows no others.
type backfillFleet struct {
	*fleet
	now, old map[*device]int64 // ms, of the last reading
}

func (f *backfillFleet) send(d *device, at map[*device]int64, ms int64) {
	at[d] = max(at[d]+1, ms)
	d.seq++
	r := reading{Seq: d.seq, TS: at[d] * 1000, Temperature: float64(f.rng.IntN(1000)) / 10, Humidity: float64(f.rng.IntN(100)), Vibration: -1}
	d.readings = append(d.readings, oracleReadings(d.name, r)...)
	d.Offer(&wire.Message{Topic: d.topic, Payload: r.payload()})
}

func (f *backfillFleet) live(n int) {
	for range n {
		for _, d := range f.devices {
			f.send(d, f.now, time.Now().UnixMilli())
		}
		time.Sleep(2 * time.Millisecond) // the pace of the devices, not a wait for something
	}
}

// store sends n readings from three hours ago, and on from there.
func (f *backfillFleet) store(d *device, n int) {
	for range n {
		f.send(d, f.old, max(f.old[d]+f.rng.Int64N(300), time.Now().Add(-3*time.Hour).UnixMilli()))
	}
}

// Devices come back into reach and send hours of readings at once, in whatever order with the live ones; the gateway is killed at random
// moments, also while windows are being recomputed. Every window ends in the store whole, and nothing is late.
func TestBackfill_HoursOfStoredReadingsEndInWholeWindowsOverKills(t *testing.T) {
	seed := uint64(envInt(t, "SLUICE_CRASH_SEED", int(time.Now().UnixNano()%1e9)+1))
	t.Logf("SLUICE_CRASH_SEED=%d", seed)
	s, err := store.NewStandIn(false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g := newGateway(t, options{Store: s.URL(), Lateness: "1s", Late: "backfill"})
	f := &backfillFleet{fleet: &fleet{g: g, rng: rand.New(rand.NewPCG(seed, 4))}, now: map[*device]int64{}, old: map[*device]int64{}}
	f.add(2, sequencedSameSession)
	f.add(1, sequencedFresh)
	f.run(t)
	for range 6 {
		g.start()
		f.live(20)
		for _, d := range f.devices {
			f.store(d, f.rng.IntN(60))
		}
		f.live(10)
		time.Sleep(time.Duration(f.rng.IntN(2500)) * time.Millisecond) // the moment of the kill, not a wait for something
		g.proc.Kill()
		g.proc.Wait(5 * time.Second)
	}
	g.start()
	f.store(f.devices[0], 30)
	f.live(5)
	eventually(t, 30*time.Second, "all acknowledged", f.idle)
	f.end()
	var all []oracle.Reading
	for _, d := range f.devices {
		all = append(all, d.readings...)
	}
	want := oracle.Windows(all, time.Second)
	eventually(t, 40*time.Second, "the store holds every window whole", func() error {
		diffs := oracle.Compare(want, s.Points("telemetry"), oracle.Schema{Window: time.Second, Device: "device", Metrics: metrics, Stats: stats})
		if len(diffs) > 0 {
			return fmt.Errorf("%d differences, the first: %s", len(diffs), diffs[0])
		}
		return nil
	})
	g.wantMetric(0, "sluice_ledger_imbalance")
	g.wantMetric(0, "sluice_readings_total", `outcome="late"`)
	g.wantMetric(0, "sluice_backfill_windows")
	g.wantMetric(float64(len(all)), "sluice_readings_total", `outcome="accepted"`)
	g.stop()
}
