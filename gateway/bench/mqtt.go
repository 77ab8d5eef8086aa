package main

import (
	"fmt"
	"io"
	"time"
)

// both starts a gateway and a mosquitto in turn.
func (b *bench) both() []func() (*server, error) {
	return []func() (*server, error){func() (*server, error) { return b.startSluice(sluiceOptions{}) }, b.startMosquitto}
}

// sparseRow is one round of sparse traffic.
type sparseRow struct {
	Server       string  `json:"server"`
	Rate         float64 `json:"messages_per_second"`
	MicrosPerMsg float64 `json:"cpu_us_per_message"`
	Ratio        float64 `json:"times_mosquitto,omitempty"` // of the same round
	Ack          latency `json:"ack"`
	RSS          float64 `json:"rss_mib"`
}

// sparse: 10,000 messages a second over 1,000 connections, each with a write of its own: what many small devices do, and
// where a broker's cost is system calls and wake-ups.
func (b *bench) sparse(w io.Writer) error {
	l := load{Connections: 1_000, Devices: 1_000, Rate: 10_000, Warmup: 3 * time.Second, Measure: b.measure}
	var rows [][]string
	var ratios []float64
	for round := range b.rounds {
		var micros []float64
		for _, start := range b.both() {
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
			micros = append(micros, m.perMessage())
			b.report.Sparse = append(b.report.Sparse, sparseRow{Server: s.name, Rate: m.rate(), MicrosPerMsg: m.perMessage(), Ack: m.Ack, RSS: mib(m.RSS)})
			rows = append(rows, []string{fmt.Sprintf("%s %d", s.name, round+1), fmt.Sprintf("%.0f", m.rate()), fmt.Sprintf("%.2f", m.perMessage()),
				fmt.Sprintf("%.2f", m.Ack.P50.ms()), fmt.Sprintf("%.2f", m.Ack.P99.ms()), fmt.Sprintf("%.1f", mib(m.RSS)), ""})
		}
		ratio := micros[0] / micros[1]
		ratios = append(ratios, ratio)
		b.report.Sparse[len(b.report.Sparse)-2].Ratio = ratio
		rows[len(rows)-2][6] = fmt.Sprintf("%.2f", ratio)
	}
	rows = append(rows, []string{"median", "", "", "", "", "", fmt.Sprintf("%.2f", median(ratios))})
	table(w, "Sparse: 10,000 QoS 1 messages/s over 1,000 connections, one write each; mosquitto is not durable, sluice is",
		"|msg/s|CPU µs/msg|ack p50 ms|p99 ms|RSS MiB|x mosquitto", rows)
	return nil
}

// fanoutRow is one round of fan-out.
type fanoutRow struct {
	Server       string  `json:"server"`
	Published    uint64  `json:"published"`
	Delivered    uint64  `json:"delivered"`
	Rate         float64 `json:"delivered_per_second"`
	MicrosPerMsg float64 `json:"cpu_us_per_message"`
	Latency      latency `json:"latency"` // publish to delivery
	RSS          float64 `json:"rss_mib"`
}

// fanout: one subscriber with QoS 1 to 50,000 messages a second.
func (b *bench) fanout(w io.Writer) error {
	var rows [][]string
	for round := range b.rounds {
		for _, start := range b.both() {
			s, err := start()
			if err != nil {
				return err
			}
			m, err := b.fan(s)
			stopErr := s.stop()
			if err != nil {
				return err
			}
			if stopErr != nil {
				return stopErr
			}
			row := fanoutRow{s.name, m.Published, m.Delivered, float64(m.Delivered) / m.Seconds, float64(m.cpu.Microseconds()) / float64(max(1, m.Delivered)), m.Latency, mib(m.rss)}
			b.report.Fanout = append(b.report.Fanout, row)
			rows = append(rows, []string{fmt.Sprintf("%s %d", s.name, round+1), fmt.Sprint(row.Published), fmt.Sprint(row.Published - row.Delivered), fmt.Sprintf("%.0f", row.Rate),
				fmt.Sprintf("%.2f", row.MicrosPerMsg), fmt.Sprintf("%.2f", row.Latency.P50.ms()), fmt.Sprintf("%.2f", row.Latency.P99.ms()), fmt.Sprintf("%.1f", row.RSS)})
		}
	}
	table(w, "Fan-out: 50,000 QoS 1 messages/s from 10 connections to one QoS 1 subscriber",
		"|published|lost|delivered/s|CPU µs/msg|latency p50 ms|p99 ms|RSS MiB", rows)
	return nil
}

// idleRow is what idle connections cost.
type idleRow struct {
	Server      string    `json:"server"`
	Connections int       `json:"connections"`
	Before      float64   `json:"rss_before_mib"`
	Rounds      []float64 `json:"rss_by_round_mib"` // connected, reconnected, reconnected again
	AfterChurn  float64   `json:"rss_after_churn_mib"`
	Churned     int       `json:"churned"`
	CPU         float64   `json:"idle_cpu_percent"`
}

// idle: 10,000 connections that have subscribed and published once, and then say nothing; they reconnect twice, and in the
// end a hundred thousand come and go.
func (b *bench) idle(w io.Writer) error {
	const connections, churned = 10_000, 100_000
	starters := []func() (*server, error){
		func() (*server, error) { return b.startSluice(sluiceOptions{noHistory: true}) },
		func() (*server, error) { return b.startSluice(sluiceOptions{}) },
		b.startMosquitto,
	}
	var rows [][]string
	for i, start := range starters {
		s, err := start()
		if err != nil {
			return err
		}
		row, err := b.rest(s, connections, churned)
		stopErr := s.stop()
		if err != nil {
			return err
		}
		if stopErr != nil {
			return stopErr
		}
		if row.Server = s.name; i == 1 {
			row.Server += " + history"
		}
		b.report.Idle = append(b.report.Idle, *row)
		cells := []string{row.Server, fmt.Sprintf("%.1f", row.Before)}
		for _, r := range row.Rounds {
			cells = append(cells, fmt.Sprintf("%.1f", r))
		}
		rows = append(rows, append(cells, fmt.Sprintf("%.2f", (row.Rounds[0]-row.Before)/connections*1000), fmt.Sprintf("%.1f", row.CPU), fmt.Sprintf("%.1f", row.AfterChurn)))
	}
	table(w, "Idle: 10,000 connections, RSS in MiB; then 100,000 connect and go",
		"|before|connected|again|again|a thousand|CPU %|after churn", rows)
	return nil
}
