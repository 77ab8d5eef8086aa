package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"sluice/gateway/e2e/proc"
	"sluice/gateway/e2e/store"
	"sluice/gateway/e2e/wire"
	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// backlogRow is a gateway that starts with many points in an outbox, and a store that costs next to nothing.
type backlogRow struct {
	Points  int     `json:"points"`
	DiskMiB float64 `json:"disk_mib"`
	Start   millis  `json:"start_ms"`
	Drain   float64 `json:"points_per_second"`
	CPU     float64 `json:"cpu_us_per_point"`
	PeakRSS float64 `json:"peak_rss_mib"`
}

// backlog writes b.points points into an outbox as the gateway would have left it, starts the gateway and lets it drain.
func (b *bench) backlog(w io.Writer) error {
	null, err := store.NewStandIn(true)
	if err != nil {
		return err
	}
	defer null.Close()
	s, config, err := b.prepare(sluiceOptions{store: null.URL(), more: ", disk: { max_bytes: 1TiB, when_full: drop_oldest }", noHistory: true})
	if err != nil {
		return err
	}
	defer os.RemoveAll(s.dir)
	row := backlogRow{Points: b.points}
	if row.DiskMiB, err = fillOutbox(filepath.Join(s.dir, "data", "outbox", "cloud"), b.points); err != nil {
		return err
	}
	if s.proc, err = proc.Start("sluice", nil, b.binary, "run", "--config", config); err != nil {
		return err
	}
	defer s.proc.Kill()
	if err := s.waitReady(); err != nil {
		return err
	}
	row.Start = millis(s.ready)
	began := time.Now()
	before, _ := s.proc.CPU()
	_, first, _ := null.Totals()
	lines := first
	for lines < b.points {
		if time.Since(began) > 30*time.Minute || !s.proc.Alive() {
			return fmt.Errorf("%d of %d points arrived:\n%s", lines, b.points, lastLines(s.proc.Log.String(), 10))
		}
		time.Sleep(20 * time.Millisecond)
		_, lines, _ = null.Totals()
	}
	took := time.Since(began)
	cpu, err := s.proc.CPU()
	if err != nil {
		return err
	}
	_, peak, err := s.proc.Memory()
	if err != nil {
		return err
	}
	row.Drain = float64(lines-first) / took.Seconds()
	row.CPU = float64((cpu - before).Microseconds()) / float64(lines-first)
	row.PeakRSS = mib(peak)
	b.report.Backlog = append(b.report.Backlog, row)
	table(w, "Backlog on disk, drained into a store that counts and forgets, in this process", "points|on disk MiB|start ms|points/s|CPU us/point|peak RSS MiB",
		[][]string{{fmt.Sprint(row.Points), fmt.Sprintf("%.0f", row.DiskMiB), fmt.Sprintf("%.0f", row.Start.ms()), fmt.Sprintf("%.0f", row.Drain),
			fmt.Sprintf("%.2f", row.CPU), fmt.Sprintf("%.1f", row.PeakRSS)}})
	return nil
}

// fillOutbox puts windows of 100 devices with three fields of count, mean, min, max and last.
func fillOutbox(dir string, points int) (mebibytes float64, err error) {
	out, err := uplink.OpenOutbox(dir, uplink.OutboxOptions{SegmentBytes: 4 << 20})
	if err != nil {
		return 0, err
	}
	began := time.Now().Add(-7 * 24 * time.Hour).Truncate(10 * time.Second)
	var body []byte
	p := telemetry.Point{Measurement: "telemetry", Window: 10 * time.Second,
		Stats: []telemetry.Stat{telemetry.StatCount, telemetry.StatMean, telemetry.StatMin, telemetry.StatMax, telemetry.StatLast}}
	var labels []telemetry.Labels
	for d := range 100 {
		labels = append(labels, telemetry.LabelsFromMap(map[string]string{"site": "bench", "gateway": "bench", "device": fmt.Sprintf("d%d", d)}))
	}
	for n := range points {
		at := began.Add(time.Duration(n/len(labels)) * 10 * time.Second)
		p.Labels, p.Time, p.Aggregates = labels[n%len(labels)], at.UnixNano(), p.Aggregates[:0]
		for i, m := range []string{"temperature", "humidity", "vibration"} {
			a := telemetry.MetricAggregate{Metric: m}
			a.Add(p.Time, float64(n%1000)/10+float64(i))
			a.Add(p.Time+1e9, float64(n%777)/10)
			p.Aggregates = append(p.Aggregates, a)
		}
		body = telemetry.MarshalPoint(body[:0], &p)
		if err := out.Put(uplink.Cause{LSN: uint64(n + 1), Time: at.UnixNano()}, uplink.TypePoint, body); err != nil {
			return 0, err
		}
	}
	if err := out.Sync(); err != nil {
		return 0, err
	}
	mebibytes = mib(out.Bytes())
	return mebibytes, out.Close()
}

// outageRow is a store that is away for a while under load.
type outageRow struct {
	Killed    bool    `json:"killed"`
	Offered   int     `json:"readings"`
	Lost      int     `json:"lost"`
	RSSBefore float64 `json:"rss_before_mib"`
	PeakRSS   float64 `json:"peak_rss_mib"`
	Drain     float64 `json:"drain_points_per_second"`
}

// outage publishes messages of one reading at 5,000 a second with `send: readings` while the store answers 503 for b.away, once with a
// kill -9 in the middle.
func (b *bench) outage(w io.Writer) error {
	var rows [][]string
	for _, kill := range []bool{false, true} {
		row, err := b.oneOutage(kill)
		if err != nil {
			return err
		}
		b.report.Outage = append(b.report.Outage, *row)
		rows = append(rows, []string{fmt.Sprint(row.Killed), fmt.Sprint(row.Offered), fmt.Sprint(row.Lost), fmt.Sprintf("%.1f", row.RSSBefore),
			fmt.Sprintf("%.1f", row.PeakRSS), fmt.Sprintf("%.0f", row.Drain)})
	}
	table(w, fmt.Sprintf("Outage of %s at 5,000 readings/s, each sent as a point of its own", b.away), "kill -9|readings|lost|RSS before MiB|peak RSS MiB|drain points/s", rows)
	return nil
}

func (b *bench) oneOutage(kill bool) (*outageRow, error) {
	const rate, connections = 5000, 4
	null, err := store.NewStandIn(true)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	s, config, err := b.prepare(sluiceOptions{store: null.URL(), readings: true})
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(s.dir)
	start := func() error {
		if s.proc, err = proc.Start("sluice", nil, b.binary, "run", "--config", config); err != nil {
			return err
		}
		return s.waitReady()
	}
	if err := start(); err != nil {
		return nil, err
	}
	defer func() { s.proc.Kill() }()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var devices []*wire.Device
	for c := range connections {
		d := &wire.Device{Address: s.address, QoS: 1, Window: 500, Connect: wire.Connect{ClientID: fmt.Sprintf("c%d", c), Version: wire.V311, KeepAlive: 60}}
		devices = append(devices, d)
		wg.Go(func() { d.Run(ctx) })
	}
	row := &outageRow{Killed: kill}
	publish := func(during time.Duration) {
		began, sent := time.Now(), 0
		for time.Since(began) < during {
			for due := int(time.Since(began).Seconds() * rate); sent < due; sent++ {
				row.Offered++
				payload := fmt.Appendf(nil, `{"ts":%d,"temperature":%d.5}`, time.Now().UnixMilli(), row.Offered%50)
				devices[row.Offered%connections].Offer(&wire.Message{Topic: fmt.Sprintf("bench/d%d/telemetry", row.Offered%100), Payload: payload})
			}
			time.Sleep(2 * time.Millisecond)
		}
	}
	publish(10 * time.Second)
	rss, _, err := s.proc.Memory()
	if err != nil {
		return nil, err
	}
	row.RSSBefore = mib(rss)
	if err := null.Set(store.Unavailable); err != nil {
		return nil, err
	}
	publish(b.away / 2)
	if kill {
		s.proc.Kill()
		if err := start(); err != nil {
			return nil, err
		}
	}
	publish(b.away / 2)
	_, peakAway, err := s.proc.Memory()
	if err != nil {
		return nil, err
	}
	if err := null.Set(store.Up); err != nil {
		return nil, err
	}
	for _, d := range devices {
		for d.Pending() > 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	_, lines, _ := null.Totals()
	var began time.Time
	for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(5 * time.Millisecond) {
		_, n, _ := null.Totals()
		if n > lines && began.IsZero() {
			began = time.Now()
			lines = n
		}
		var o struct {
			Pending, Delivered uint64
		}
		if err := getJSON("http://"+s.http+"/api/v1/outboxes/cloud", &o); err != nil {
			return nil, err
		}
		if o.Pending == 0 && !began.IsZero() {
			row.Drain = float64(n-lines) / time.Since(began).Seconds()
			accepted, err := s.accepted()
			if err != nil {
				return nil, err
			}
			if accepted >= uint64(row.Offered) {
				row.Lost = row.Offered - int(min(o.Delivered, uint64(row.Offered)))
				break
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("%d points pending after five minutes", o.Pending)
		}
	}
	_, peak, err := s.proc.Memory()
	if err != nil {
		return nil, err
	}
	row.PeakRSS = mib(max(peak, peakAway))
	return row, nil
}

func getJSON(url string, v any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	return json.NewDecoder(resp.Body).Decode(v)
}
