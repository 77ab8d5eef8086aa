package main

import (
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sluice/broker"
	"sluice/broker/decode"
	"sluice/gateway/history"
	"sluice/gateway/pipeline"
	"sluice/rules"
	"sluice/uplink"
)

// metrics serves /metrics. Everything is read from the parts' own counters at the scrape.
func (g *gateway) metrics() http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(&collector{g}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_"+name, help, labels, nil)
}

// Names in DESIGN order; labels are bounded by the configuration, never by devices.
var (
	descBuild           = desc("build_info", "Which build this is.", "version", "goversion")
	descMessages        = desc("mqtt_messages_total", "PUBLISH packets received.", "outcome")
	descConnections     = desc("mqtt_connections", "MQTT connections open.")
	descRejected        = desc("mqtt_connections_rejected_total", "Connections closed before a session.", "reason")
	descAuth            = desc("mqtt_auth_failures_total", "Logins refused.")
	descLogins          = desc("mqtt_logins_total", "Passwords accepted, by how they were checked.", "check")
	descDenied          = desc("mqtt_denied_total", "What the access list did not allow.", "what")
	descRevoked         = desc("mqtt_revoked_clients_total", "Connections closed because a reload took their user or certificate away.")
	descOverLimits      = desc("mqtt_over_limits_total", "Topics, filters and subscriptions beyond mqtt.limits.")
	descTLSReloads      = desc("mqtt_tls_reloads_total", "Certificates read again.", "outcome")
	descSubs            = desc("mqtt_subscriptions", "Subscriptions made.")
	descLimit           = desc("mqtt_limit", "The limits in force; -1: none.", "limit")
	descMalformed       = desc("mqtt_malformed_total", "Connections closed because of bytes that are not MQTT.")
	descPanics          = desc("mqtt_panics_total", "Panics recovered in the broker.")
	descSlow            = desc("mqtt_slow_clients_closed_total", "Connections closed because they did not take what was sent.")
	descAcceptErrors    = desc("mqtt_accept_errors_total", "Connections that could not be accepted, for want of file descriptors as a rule.")
	descDeliveries      = desc("mqtt_deliveries_total", "PUBLISH packets to subscribers.", "outcome")
	descHeld            = desc("mqtt_held_acks", "Acknowledgements that wait for a commit.")
	descSessions        = desc("mqtt_sessions", "MQTT sessions.", "state")
	descQueued          = desc("mqtt_queued_bytes", "Messages that wait for subscribers or their acknowledgements.")
	descQueueLost       = desc("mqtt_queue_lost_total", "Messages that left a subscriber's queue undelivered, or did not get into it.", "reason")
	descRetained        = desc("mqtt_retained_messages", "Retained messages.")
	descRetainedBytes   = desc("mqtt_retained_bytes", "Retained messages, in bytes.")
	descNotRetained     = desc("mqtt_retained_refused_total", "Messages not retained because of a limit.")
	descStore           = desc("mqtt_store_bytes", "Log of sessions on disk.")
	descStoreFaults     = desc("mqtt_store_faults_total", "Times the store of sessions began to fail.")
	descStoreRefused    = desc("mqtt_store_refused_total", "Messages not accepted because the store of sessions could not keep them.")
	descSessionsExpired = desc("mqtt_sessions_expired_total", "Sessions ended because their clients stayed away.")
	descReadings        = desc("readings_total", "Readings by where they went.", "outcome")
	descWithoutReadings = desc("messages_without_readings_total", "Messages that said a device came or went, or that carry no readings by their format.", "kind")
	descAck             = desc("ack_duration_seconds", "From reading a PUBLISH to its acknowledgement, after the commit.")
	descEndToEnd        = desc("end_to_end_duration_seconds", "From the journal record that caused it to confirmed delivery.", "destination")
	descCommit          = desc("journal_commit_duration_seconds", "Write and sync of one group.")
	descJournal         = desc("journal_bytes", "Journal on disk.")
	descDurable         = desc("journal_durable_lsn", "Last journal record that survives power loss.")
	descApplied         = desc("pipeline_applied_lsn", "Last journal record the pipeline has taken in.")
	descBackfilled      = desc("readings_backfilled_total", "Of the readings accepted, those that came late and whose windows are recomputed from the local history.")
	descBackfills       = desc("backfill_windows", "Windows that wait to be recomputed from the local history.")
	descClockSet        = desc("clock_set", "1 while the clock shows a time; without one messages are held.")
	descClockHeld       = desc("clock_held_messages", "Messages that wait for the clock to be set.")
	descJournalOK       = desc("journal_writable", "1 while the journal takes messages.")
	descPoints          = desc("outbox_points", "Points, or notifications, not delivered yet.", "destination")
	descBytes           = desc("outbox_bytes", "Outbox on disk.", "destination")
	descOldest          = desc("outbox_oldest_timestamp_seconds", "When what waits longest was caused; 0: nothing waits.", "destination")
	descDelivered       = desc("points_delivered_total", "Points the destination has confirmed.", "destination")
	descShed            = desc("points_shed_total", "Points that will never be delivered.", "destination", "reason")
	descDegraded        = desc("points_degraded", "Points merged into longer windows before they were sent, less those made of them.", "destination")
	descSinkRefused     = desc("points_rejected_total", "Points the destination refused, in quarantine.", "destination")
	descAttempts        = desc("sink_attempts_total", "Requests by outcome.", "destination", "outcome")
	descHeadMoved       = desc("outbox_head_moved_timestamp_seconds", "When the oldest record last left, or began to wait; 0: nothing ever did.", "destination")
	descDrain           = desc("outbox_drain_rate", "Points delivered a second, over the last half minute.", "destination")
	descETA             = desc("outbox_eta_seconds", "Until the backlog is gone at that rate; 0: none or not known.", "destination")
	descRebuilds        = desc("sink_rebuilds_total", "Times a client was torn down and made again because it made no progress.", "destination")
	descInFlight        = desc("sink_requests_in_flight", "Requests under way.", "destination")
	descSentToday       = desc("bandwidth_bytes_today", "Bytes of the destination's connections since midnight, both directions, TLS included.", "destination")
	descSentMonth       = desc("bandwidth_bytes_this_month", "The same since the month began.", "destination")
	descPaused          = desc("bandwidth_paused", "1 while quiet hours or a budget let nothing but alerts go.", "destination")
	descLevel           = desc("bandwidth_level", "From which step of the ladder on points are sent so that the budget holds; 0: all.", "destination")
	descCanary          = desc("canary_age_seconds", "Since the newest end-to-end check point that arrived, or since the start.", "destination")
	descQuarantined     = desc("quarantined_total", "Readings quarantined by the pipeline.", "reason")
	descQuarantineItems = desc("quarantine_items", "Messages and points held in the quarantine.")
	descQuarantineBytes = desc("quarantine_bytes", "Quarantine on disk.")
	descAlerts          = desc("alerts", "Alerts by state.", "state")
	descNotified        = desc("notifications_total", "Notifications by outcome.", "webhook", "outcome")
	descImbalance       = desc("ledger_imbalance", "Readings and points not accounted for; anything but 0 is a bug.")
	descWritten         = desc("device_bytes_written_total", "Bytes written to files.")
	descDiskFree        = desc("disk_available_bytes", "Room for the data directory on its disk.")
	descDiskSize        = desc("disk_size_bytes", "Size of the disk that the data directory is on.")
	descViewers         = desc("console_viewers", "Streams of live events open.")
	descEvents          = desc("console_event_batches_total", "Live events of a quarter of a second put into a viewer's queue, and thrown away there because the viewer was too slow.", "outcome")
	descDevices         = desc("devices", "Devices known.")
	descSeries          = desc("series", "Series known.")
	descHistoryReadings = desc("history_readings_total", "Readings by what the local history made of them.", "outcome")
	descHistoryMissed   = desc("history_missed_records_total", "Journal records trimmed before the history could read them.")
	descHistoryOverflow = desc("history_overflows_total", "Times the history fell behind and read the journal again.")
	descHistoryAside    = desc("history_set_aside_total", "Times damaged parts of the history were set aside.")
	descHistoryApplied  = desc("history_applied_lsn", "Last journal record whose readings the history holds.")
	descHistoryLive     = desc("history_live", "1 while the history is fed by the pipeline, 0 while it opens or catches up.")
	descHistorySeries   = desc("history_series", "Series in the history's memory.")
	descHistoryBytes    = desc("history_bytes", "History on disk.")
	descHistoryNewest   = desc("history_newest_timestamp_seconds", "Time of the newest reading in the history; 0: there is none.")
)

// quarantineReasons are what the pipeline and the payload formats refuse for.
var quarantineReasons = []string{
	decode.ReasonEmpty, decode.ReasonSyntax, decode.ReasonDepth, decode.ReasonUTF8, decode.ReasonDuplicateKey, decode.ReasonTooManyFields,
	decode.ReasonKeyTooLong, decode.ReasonName, decode.ReasonType, decode.ReasonNotFinite, decode.ReasonNoReadings, decode.ReasonTime,
	decode.ReasonSequence, decode.ReasonLabel, decode.ReasonBirth,
	pipeline.ReasonLate, pipeline.ReasonFuture, pipeline.ReasonPast, pipeline.ReasonSeries, pipeline.ReasonNoSource, pipeline.ReasonRetained,
	pipeline.ReasonMissing, pipeline.ReasonRange, pipeline.ReasonUnit, pipeline.ReasonNoClock, pipeline.ReasonGone,
}

// attemptOutcomes are how a request to a destination ends; one of which only a part was taken counts as ok.
var attemptOutcomes = []string{
	"ok", uplink.KindRetry.String(), uplink.KindConfig.String(), uplink.KindRejected.String(), uplink.KindTooLarge.String(), uplink.KindGone.String(),
}

type collector struct{ g *gateway }

// Describe implements prometheus.Collector as unchecked: which labels there are depends on the configuration.
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c *collector) Collect(out chan<- prometheus.Metric) {
	m := emitter{out}
	b := readBuildInfo()
	m.gauge(descBuild, 1, b.Version, b.Go)
	c.broker(m)
	c.pipeline(m)
	c.uplink(m)
	c.history(m)
	c.surroundings(m)
}

// emitter turns numbers into metrics.
type emitter struct{ out chan<- prometheus.Metric }

func (m emitter) gauge(d *prometheus.Desc, v float64, labels ...string) {
	m.out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (m emitter) counter(d *prometheus.Desc, v float64, labels ...string) {
	m.out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
}

func (m emitter) histogram(d *prometheus.Desc, count uint64, sum float64, cumulative map[float64]uint64, labels ...string) {
	m.out <- prometheus.MustNewConstHistogram(d, count, sum, cumulative, labels...)
}

func (c *collector) broker(m emitter) {
	s := c.g.broker.Stats()
	for outcome, n := range map[string]int64{
		"acked": s.Acked, "unacked": s.Unacked, "qos0": s.QoS0, "uncovered": s.Uncovered, "refused": s.Refused, "dropped": s.Dropped,
	} {
		m.counter(descMessages, float64(n), outcome)
	}
	m.gauge(descConnections, float64(s.Connections))
	for reason, n := range map[string]int64{
		"connections": s.Rejected.TooMany, "connections_per_address": s.Rejected.TooManyOneAddress, "handshake": s.Rejected.Handshake,
		"connect_timeout": s.Rejected.ConnectTimeout, "not_connect": s.Rejected.NotConnect,
		"sessions": s.Rejected.TooManySessions, "takeovers": s.Rejected.Takeover, "failed_logins": s.Rejected.LoginsThrottled,
	} {
		m.counter(descRejected, float64(n), reason)
	}
	m.counter(descAuth, float64(s.AuthFailures))
	m.counter(descLogins, float64(s.Logins.Hashed), "hashed")
	m.counter(descLogins, float64(s.Logins.Remembered), "remembered")
	m.counter(descDenied, float64(s.Denied.Publishes), "publish")
	m.counter(descDenied, float64(s.Denied.Subscriptions), "subscribe")
	m.counter(descDenied, float64(s.Denied.Wills), "will")
	m.counter(descRevoked, float64(s.Revoked))
	m.counter(descOverLimits, float64(s.OverLimits))
	m.counter(descTLSReloads, float64(s.TLSReloads), "ok")
	m.counter(descTLSReloads, float64(s.TLSFailures), "failed")
	m.gauge(descSubs, float64(s.Subscriptions))
	for limit, n := range c.g.broker.Limits() {
		m.gauge(descLimit, n, limit)
	}
	m.counter(descMalformed, float64(s.Malformed))
	m.counter(descPanics, float64(s.Panics))
	m.counter(descSlow, float64(s.SlowClosed))
	m.counter(descAcceptErrors, float64(s.AcceptErrors))
	m.counter(descDeliveries, float64(s.Delivered), "queued")
	m.counter(descDeliveries, float64(s.DeliveriesDropped), "dropped")
	m.gauge(descHeld, float64(s.HeldAcks))
	c.sessions(m, &s.Sessions)
	ack := map[float64]uint64{}
	for i, bound := range s.AckDuration.Bounds {
		ack[bound] = s.AckDuration.Counts[i]
	}
	m.histogram(descAck, s.AckDuration.Count, s.AckDuration.Sum, ack)
}

func (c *collector) sessions(m emitter, s *broker.SessionStats) {
	m.gauge(descSessions, float64(s.Sessions-s.Away), "connected")
	m.gauge(descSessions, float64(s.Away), "away")
	m.gauge(descQueued, float64(s.QueuedBytes))
	m.gauge(descRetained, float64(s.Retained))
	m.gauge(descRetainedBytes, float64(s.RetainedBytes))
	m.gauge(descStore, float64(s.StoreBytes))
	m.counter(descSessionsExpired, float64(s.Expired))
	m.counter(descStoreFaults, float64(s.StoreFaults))
	for reason, n := range map[string]int64{
		"queue_full": s.QueueDropped, "queues_full": s.QueueRefused, "expired": s.QueueExpired, "denied": s.QueueDenied,
	} {
		m.counter(descQueueLost, float64(n), reason)
	}
	m.counter(descNotRetained, float64(s.RetainedRefused))
	m.counter(descStoreRefused, float64(s.StoreRefused))
}

func (c *collector) pipeline(m emitter) {
	g := c.g
	v := g.runner.View()
	for outcome, n := range map[string]uint64{
		"accepted": v.Total.Aggregated, "duplicate": v.Total.Duplicate, "late": v.Total.Late, "quarantined": v.Total.Quarantined,
	} {
		m.counter(descReadings, float64(n), outcome)
	}
	m.counter(descWithoutReadings, float64(v.Total.States), "state")
	m.counter(descWithoutReadings, float64(v.Total.Ignored), "ignored")
	for _, reason := range quarantineReasons { // from 0 on, so that increase() sees the first
		m.counter(descQuarantined, float64(v.ByReason[reason]), reason)
	}
	for reason, n := range v.ByReason { // one that an earlier version gave
		if !slices.Contains(quarantineReasons, reason) {
			m.counter(descQuarantined, float64(n), reason)
		}
	}
	if q, err := g.outlet.quarantine.Stats(); err == nil {
		m.gauge(descQuarantineItems, float64(q.Items))
		m.gauge(descQuarantineBytes, float64(q.Bytes))
	}
	states := map[rules.State]int{rules.Pending: 0, rules.Firing: 0}
	for i := range v.Alerts {
		states[v.Alerts[i].State]++
	}
	for state, n := range states {
		m.gauge(descAlerts, float64(n), state.String())
	}
	m.gauge(descImbalance, float64(g.imbalance(v)))
	m.gauge(descDevices, float64(v.Devices))
	m.gauge(descSeries, float64(v.Series))

	count, sum, buckets := g.commits.snapshot()
	m.histogram(descCommit, count, sum, buckets)
	m.gauge(descJournal, float64(g.journal.Bytes()))
	m.gauge(descDurable, float64(g.journal.Durable()))
	m.gauge(descApplied, float64(g.runner.Applied()))
	m.counter(descBackfilled, float64(v.Total.Backfilled))
	m.gauge(descBackfills, float64(v.Waiting))
	set := 1.0
	if v.Unset {
		set = 0
	}
	m.gauge(descClockSet, set)
	m.gauge(descClockHeld, float64(v.Held))
	writable := 1.0
	if g.journal.Err() != nil {
		writable = 0
	}
	m.gauge(descJournalOK, writable)
	written := g.journal.DeviceBytes() + g.broker.Stats().Sessions.StoreWritten
	for _, f := range g.forwarders {
		written += f.outbox.DeviceBytes()
	}
	m.counter(descWritten, float64(written))
}

// surroundings are the disk, and those who look on.
func (c *collector) surroundings(m emitter) {
	if free, size, err := diskRoom(c.g.dir.path); err == nil {
		m.gauge(descDiskFree, float64(free))
		m.gauge(descDiskSize, float64(size))
	}
	if c.g.console == nil {
		return
	}
	v := c.g.console.Viewers()
	m.gauge(descViewers, float64(v.Watching))
	m.counter(descEvents, float64(v.Sent), "sent")
	m.counter(descEvents, float64(v.Dropped), "dropped")
}

func (c *collector) history(m emitter) {
	if c.g.history == nil {
		return
	}
	s := c.g.history.Status()
	m.counter(descHistoryReadings, float64(s.Stored), "stored")
	m.counter(descHistoryReadings, float64(s.Conflicts), "conflict")
	m.counter(descHistoryReadings, float64(s.TooOld), "too_old")
	m.counter(descHistoryMissed, float64(s.Missed))
	m.counter(descHistoryOverflow, float64(s.Overflows))
	m.counter(descHistoryAside, float64(s.SetAside))
	m.gauge(descHistoryApplied, float64(s.Applied))
	live := 0.0
	if s.State == history.Live {
		live = 1
	}
	m.gauge(descHistoryLive, live)
	m.gauge(descHistorySeries, float64(s.Series))
	m.gauge(descHistoryBytes, float64(s.Bytes))
	m.gauge(descHistoryNewest, float64(s.NewestTime)/1e9)
}

func (c *collector) uplink(m emitter) {
	for _, f := range c.g.forwarders {
		s := f.Status()
		m.gauge(descPoints, float64(s.Pending), f.name)
		m.gauge(descBytes, float64(s.Bytes), f.name)
		m.gauge(descOldest, float64(s.OldestTime)/1e9, f.name)
		m.gauge(descDegraded, float64(s.Degraded), f.name) // a counter but for a batch under way
		for reason, n := range s.Shed {
			m.counter(descShed, float64(n), f.name, uplink.ShedReason(reason).String())
		}
		for _, outcome := range attemptOutcomes {
			m.counter(descAttempts, float64(s.Attempts[outcome]), f.name, outcome)
		}
		c.progress(m, f, &s)
		cumulative, total := map[float64]uint64{}, uint64(0)
		for i, bound := range uplink.DurationBuckets {
			total += s.EndToEnd.Counts[i]
			cumulative[bound] = total
		}
		m.histogram(descEndToEnd, s.EndToEnd.Count, s.EndToEnd.Sum, cumulative, f.name)
		if f.kind == "webhook" {
			m.counter(descNotified, float64(s.Delivered), f.name, "delivered")
			m.counter(descNotified, float64(s.Rejected), f.name, "rejected")
			continue
		}
		m.counter(descDelivered, float64(s.Delivered), f.name)
		m.counter(descSinkRefused, float64(s.Rejected), f.name)
	}
}

func (c *collector) progress(m emitter, f *forwarder, s *uplink.Status) {
	moved := 0.0
	if !s.HeadMovedAt.IsZero() {
		moved = float64(s.HeadMovedAt.UnixNano()) / 1e9
	}
	m.gauge(descHeadMoved, moved, f.name)
	m.gauge(descDrain, s.Rate, f.name)
	m.gauge(descETA, s.ETA.Seconds(), f.name)
	m.counter(descRebuilds, float64(s.Rebuilds), f.name)
	m.gauge(descInFlight, float64(s.InFlight), f.name)
	if b := s.Bandwidth; b != nil {
		paused := 0.0
		if b.PausedReason != "" {
			paused = 1
		}
		m.gauge(descSentToday, float64(b.SentToday), f.name)
		m.gauge(descSentMonth, float64(b.SentThisMonth), f.name)
		m.gauge(descPaused, paused, f.name)
		m.gauge(descLevel, float64(b.Level), f.name)
	}
	if s.Canary != nil {
		seen := s.Canary.LastSeen
		if seen.IsZero() {
			seen = c.g.started
		}
		m.gauge(descCanary, time.Since(seen).Seconds(), f.name)
	}
}

// commitBounds are the upper bounds of the commit histogram.
var commitBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond, time.Millisecond, 2500 * time.Microsecond,
	5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond,
	250 * time.Millisecond, 500 * time.Millisecond, time.Second, 5 * time.Second,
}

// commitHistogram counts commits by duration; observe is called by the committer alone.
type commitHistogram struct {
	counts [len(commitBounds) + 1]atomic.Uint64
	sum    atomic.Int64
}

func (h *commitHistogram) observe(d time.Duration) {
	i := 0
	for i < len(commitBounds) && d > commitBounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *commitHistogram) snapshot() (count uint64, sum float64, cumulative map[float64]uint64) {
	cumulative = map[float64]uint64{}
	for i := range h.counts {
		count += h.counts[i].Load()
		if i < len(commitBounds) {
			cumulative[commitBounds[i].Seconds()] = count
		}
	}
	return count, time.Duration(h.sum.Load()).Seconds(), cumulative
}

// rateMeter is a counter's rate over the last ten seconds or so, whoever asks and however often.
type rateMeter struct {
	mu      sync.Mutex
	samples []rateSample // oldest first
}

type rateSample struct {
	at int64 // ns
	n  int64
}

func (r *rateMeter) per(now, n int64) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if k := len(r.samples); k == 0 || now-r.samples[k-1].at >= int64(500*time.Millisecond) {
		r.samples = append(r.samples, rateSample{now, n})
	}
	for len(r.samples) > 2 && now-r.samples[1].at >= int64(10*time.Second) {
		r.samples = r.samples[1:]
	}
	first := r.samples[0]
	if now <= first.at {
		return 0
	}
	return float64(n-first.n) / (float64(now-first.at) / 1e9)
}
