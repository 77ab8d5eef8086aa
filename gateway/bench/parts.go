package main

import (
	"fmt"
	"io"
	"time"

	"sluice/gateway/e2e/store"
)

// ingestRow is one round of the flat-out load.
type ingestRow struct {
	Server       string  `json:"server"`
	Rate         float64 `json:"messages_per_second"`
	MicrosPerMsg float64 `json:"cpu_us_per_message"`
	Ack          latency `json:"ack"`
	RSS          float64 `json:"rss_mib"`
	Behind       uint64  `json:"messages_behind"` // acknowledged, not yet through the pipeline at the end of the measured time
	CatchUp      millis  `json:"catch_up_ms"`
}

// ingest: QoS 1, 20 connections with 100 in flight, 120 bytes of JSON, in turn on our broker with the journal and real
// fdatasyncs, on mosquitto without persistence, and on the whole gateway, which decodes and aggregates meanwhile.
func (b *bench) ingest(w io.Writer) error {
	l := load{Connections: 20, Window: 100, Devices: 20, Warmup: 2 * time.Second, Measure: b.measure}
	starters := []func() (*server, error){
		b.startJournalled,
		b.startMosquitto,
		func() (*server, error) { return b.startSluice(sluiceOptions{}) },
	}
	var rows [][]string
	defer func() {
		table(w, "Ingest: QoS 1, 20 connections x 100 in flight, 120 B; mosquitto is not durable, the others are", "|msg/s|CPU µs/msg|ack p50 ms|p99 ms|RSS MiB|behind|catch-up ms", rows)
	}()
	byServer := map[string][]ingestRow{}
	for round := range b.rounds {
		for _, start := range starters {
			s, err := start()
			if err != nil {
				return err
			}
			m, err := b.apply(s, l)
			stopErr := s.stop()
			if err != nil {
				return err
			}
			if stopErr != nil {
				return stopErr
			}
			row := ingestRow{s.name, m.rate(), m.perMessage(), m.Ack, mib(m.RSS), m.Behind, millis(m.CatchUp)}
			b.report.Ingest = append(b.report.Ingest, row)
			byServer[s.name] = append(byServer[s.name], row)
			rows = append(rows, []string{fmt.Sprintf("%s %d", s.name, round+1), fmt.Sprintf("%.0f", row.Rate), fmt.Sprintf("%.2f", row.MicrosPerMsg),
				fmt.Sprintf("%.2f", row.Ack.P50.ms()), fmt.Sprintf("%.2f", row.Ack.P99.ms()), fmt.Sprintf("%.1f", row.RSS), fmt.Sprint(row.Behind), fmt.Sprintf("%.0f", row.CatchUp.ms())})
		}
	}
	for _, name := range []string{"broker+journal", "mosquitto", "sluice"} {
		var rate, micros, p50, p99, rss []float64
		for _, r := range byServer[name] {
			rate, micros, rss = append(rate, r.Rate), append(micros, r.MicrosPerMsg), append(rss, r.RSS)
			p50, p99 = append(p50, r.Ack.P50.ms()), append(p99, r.Ack.P99.ms())
		}
		rows = append(rows, []string{name + " median", fmt.Sprintf("%.0f", median(rate)), fmt.Sprintf("%.2f", median(micros)),
			fmt.Sprintf("%.2f", median(p50)), fmt.Sprintf("%.2f", median(p99)), fmt.Sprintf("%.1f", median(rss)), "", ""})
	}
	return nil
}

// pipelineRow is one paced load.
type pipelineRow struct {
	Server        string  `json:"server"`
	Offered       int     `json:"offered_per_second"`
	Rate          float64 `json:"messages_per_second"`
	CPUPerMillion float64 `json:"cpu_seconds_per_million"`
	RSS           float64 `json:"rss_mib"`
	PeakRSS       float64 `json:"peak_rss_mib"`
	Ack           latency `json:"ack"`
	Points        int     `json:"points_stored"`
	Behind        uint64  `json:"messages_behind"`
}

// pipeline: 100 devices on 4 connections, three fields, three rules, ten-second windows, uplink to a null store. The
// measured time spans at least one emission of every window.
func (b *bench) pipeline(w io.Writer) error {
	null, err := store.NewStandIn(true)
	if err != nil {
		return err
	}
	defer null.Close()
	var rows [][]string
	for _, rate := range []int{5_000, 20_000} {
		l := load{Connections: 4, Devices: 100, Rate: rate, Warmup: 5 * time.Second, Measure: max(b.measure, 12*time.Second)}
		for _, start := range []func() (*server, error){
			func() (*server, error) { return b.startSluice(sluiceOptions{store: null.URL(), rules: benchRules}) },
			b.startMosquitto,
		} {
			_, before, _ := null.Totals()
			s, err := start()
			if err != nil {
				return err
			}
			m, err := b.apply(s, l)
			_, after, _ := null.Totals()
			stopErr := s.stop()
			if err != nil {
				return err
			}
			if stopErr != nil {
				return stopErr
			}
			row := pipelineRow{s.name, rate, m.rate(), m.perMessage(), mib(m.RSS), mib(m.PeakRSS), m.Ack, after - before, m.Behind}
			b.report.Pipeline = append(b.report.Pipeline, row)
			rows = append(rows, []string{s.name, fmt.Sprint(rate), fmt.Sprintf("%.0f", row.Rate), fmt.Sprintf("%.1f", row.CPUPerMillion), fmt.Sprintf("%.1f", row.RSS),
				fmt.Sprintf("%.1f", row.PeakRSS), fmt.Sprintf("%.2f", row.Ack.P50.ms()), fmt.Sprintf("%.2f", row.Ack.P99.ms()), fmt.Sprint(row.Points), fmt.Sprint(row.Behind)})
		}
	}
	table(w, "Whole pipeline: 100 devices on 4 connections, 3 fields, 3 rules, 10 s windows, null store; mosquitto alone for comparison",
		"|offered/s|msg/s|CPU s/million|RSS MiB|peak MiB|ack p50 ms|p99 ms|points|behind", rows)
	return nil
}

// startRow is the best, median and worst of several starts with an empty data directory.
type startRow struct {
	Server string  `json:"server"`
	Best   millis  `json:"best_ms"`
	Median millis  `json:"median_ms"`
	Worst  millis  `json:"worst_ms"`
	RSS    float64 `json:"rss_idle_mib"`
}

func (b *bench) start(w io.Writer) error {
	const starts = 7
	var rows [][]string
	for _, start := range []func() (*server, error){
		func() (*server, error) {
			return b.startSluice(sluiceOptions{store: "http://127.0.0.1:9", hook: "http://127.0.0.1:9/", rules: benchRules})
		},
		b.startMosquitto,
	} {
		var took []float64
		row := startRow{}
		for i := range starts {
			s, err := start()
			if err != nil {
				return err
			}
			took = append(took, float64(s.ready))
			row.Server = s.name
			if i == starts-1 {
				time.Sleep(2 * time.Second) // idle: what it takes once the start is over
				rss, _, err := s.proc.Memory()
				if err != nil {
					return err
				}
				row.RSS = mib(rss)
			}
			time.Sleep(200 * time.Millisecond) // mosquitto forgets a SIGTERM of its first moments
			if err := s.stop(); err != nil {
				return err
			}
		}
		best, worst := took[0], took[0]
		for _, t := range took {
			best, worst = min(best, t), max(worst, t)
		}
		row.Best, row.Median, row.Worst = millis(best), millis(median(took)), millis(worst)
		b.report.Start = append(b.report.Start, row)
		rows = append(rows, []string{row.Server, fmt.Sprintf("%.1f", row.Best.ms()), fmt.Sprintf("%.1f", row.Median.ms()), fmt.Sprintf("%.1f", row.Worst.ms()), fmt.Sprintf("%.1f", row.RSS)})
	}
	table(w, fmt.Sprintf("Start to first accepted connection, empty data directory, %d starts", starts), "|best ms|median ms|worst ms|RSS idle MiB", rows)
	return nil
}
