package broker

import (
	"math"
	"sync/atomic"
	"time"
)

// Stats is a reading of the broker's counters. Apart from Connections, HeldAcks and Subscriptions they only grow.
type Stats struct {
	Connections   int64 // accepted and not yet closed
	Subscriptions int64

	// Messages received, each counted once, except that Acked counts acknowledgements of Journalled ones.
	Journalled int64 // QoS 1 and 2, taken by the journal
	QoS0       int64 // QoS 0, taken by the journal: nothing was promised
	Uncovered  int64 // routed only: the promise does not cover their topic
	Refused    int64 // QoS 1 and 2 the journal did not take: not acknowledged, the client was disconnected
	Dropped    int64 // QoS 0 the journal did not take
	Acked      int64 // PUBACK and PUBREC sent after the commit
	Unacked    int64 // acknowledgements that were never sent: the client went, or the journal failed

	HeldAcks int64 // acknowledgements waiting for a commit

	Delivered         int64 // PUBLISH packets to subscribers
	DeliveriesDropped int64 // not queued to a subscriber that was too slow

	Rejected     RejectedConnections
	AuthFailures int64
	Logins       Logins
	Denied       Denied
	Revoked      int64 // connections closed because Reload took their user or certificate away
	OverLimits   int64 // topics, filters and subscriptions beyond Limits
	TLSReloads   int64 // certificates read again
	TLSFailures  int64 // that could not be; those before stayed in force
	Malformed    int64 // connections closed because of bytes that are not MQTT
	Panics       int64 // recovered
	SlowClosed   int64 // connections closed because they did not take what was sent to them
	AcceptErrors int64

	Sessions SessionStats

	AckDuration Histogram // received to acknowledgement handed to the socket
}

// RejectedConnections counts connections closed before a session, by reason.
type RejectedConnections struct {
	TooMany           int64 // Limits.Connections
	TooManyOneAddress int64 // Limits.ConnectionsPerAddress
	Handshake         int64 // TLS or WebSocket
	ConnectTimeout    int64 // no complete CONNECT in time
	NotConnect        int64 // the first packet was something else
	TooManySessions   int64 // Limits.Sessions
	Takeover          int64 // Limits.Takeovers
	LoginsThrottled   int64 // Limits.FailedLogins
}

// Logins counts accepted passwords by how they were checked.
type Logins struct {
	Hashed     int64
	Remembered int64
}

// Denied counts what Rights did not allow.
type Denied struct {
	Publishes, Subscriptions, Wills int64
}

// Histogram is cumulative, as Prometheus wants it: Counts[i] observations took at most Bounds[i] seconds.
type Histogram struct {
	Bounds []float64 // seconds, ascending; +Inf is not listed
	Counts []uint64  // as many as Bounds
	Count  uint64    // all
	Sum    float64   // seconds
}

// ackBounds are the upper bounds of the buckets, in ns: 100 us to 10 s in steps of 1, 2.5, 5.
var ackBounds = [...]int64{100e3, 250e3, 500e3, 1e6, 2.5e6, 5e6, 10e6, 25e6, 50e6, 100e6, 250e6, 500e6, 1e9, 2.5e9, 5e9, 10e9}

// histogram counts durations; observe is called by few goroutines and cheap, snapshot by any.
type histogram struct {
	buckets [len(ackBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // ns
}

// observe adds n durations of d ns.
func (h *histogram) observe(d int64, n uint64) {
	if d < 0 {
		d = 0 // the clock was set back
	}
	i := 0
	for i < len(ackBounds) && d > ackBounds[i] {
		i++
	}
	h.buckets[i].Add(n)
	if n < math.MaxInt32 && d < int64(time.Hour) {
		h.sum.Add(d * int64(n))
	}
}

func (h *histogram) snapshot() Histogram {
	s := Histogram{Bounds: make([]float64, len(ackBounds)), Counts: make([]uint64, len(ackBounds))}
	for i, b := range ackBounds {
		s.Count += h.buckets[i].Load()
		s.Bounds[i], s.Counts[i] = float64(b)/1e9, s.Count
	}
	s.Count += h.buckets[len(ackBounds)].Load()
	s.Sum = float64(h.sum.Load()) / 1e9
	return s
}

// counters are what Stats reads.
type counters struct {
	journalled, qos0, uncovered, refused, dropped, acked, unacked, held atomic.Int64
	delivered, deliveriesDropped                                        atomic.Int64
	tooMany, tooManyOneAddress, handshake, connectTimeout, notConnect   atomic.Int64
	loginsHashed, loginsRemembered, loginsThrottled                     atomic.Int64
	tooManySessions, takeoversRefused, revoked, overLimits              atomic.Int64
	deniedPublishes, deniedSubscriptions, deniedWills                   atomic.Int64
	tlsReloads, tlsFailures                                             atomic.Int64
	authFailures, malformed, panics, slowClosed, acceptErrors           atomic.Int64
	sessionCounters
	ackDuration histogram
}

// Limits names the limits in force, for metrics; -1: none.
func (b *Broker) Limits() map[string]float64 {
	l, x := &b.limits, &b.sessions.limits
	return map[string]float64{
		"connections": float64(l.Connections), "connections_per_address": float64(l.ConnectionsPerAddress),
		"sessions": float64(l.Sessions), "packet_bytes": float64(l.PacketBytes), "connect_timeout": l.ConnectTimeout.Seconds(),
		"publish_rate": l.PublishRate, "failed_logins": float64(l.FailedLogins), "takeovers": float64(l.Takeovers),
		"topic_levels": float64(l.TopicLevels), "topic_bytes": float64(l.TopicBytes), "subscriptions": float64(l.Subscriptions),
		"retained": float64(l.Retained), "retained_bytes": float64(l.RetainedBytes), "queue_bytes": float64(l.QueueBytes),
		"session_expiry": x.Expiry.Seconds(), "queued_messages": float64(x.QueuedMessages), "queued_bytes": float64(x.QueuedBytes),
		"queued_total_bytes": float64(x.TotalBytes), "unacknowledged": float64(l.Unacknowledged), "write_timeout": l.WriteTimeout.Seconds(),
	}
}

// Stats reads the counters. Safe for concurrent use.
func (b *Broker) Stats() Stats {
	n := &b.count
	return Stats{
		Connections:   int64(b.admission.open()),
		Subscriptions: max(0, atomic.LoadInt64(&b.server.Info.Subscriptions)),
		Journalled:    n.journalled.Load(), QoS0: n.qos0.Load(), Uncovered: n.uncovered.Load(),
		Refused: n.refused.Load(), Dropped: n.dropped.Load(), Acked: n.acked.Load(), Unacked: n.unacked.Load(),
		HeldAcks:          n.held.Load(),
		Delivered:         n.delivered.Load(),
		DeliveriesDropped: n.deliveriesDropped.Load() + atomic.LoadInt64(&b.server.Info.InflightDropped),
		Rejected: RejectedConnections{
			TooMany: n.tooMany.Load(), TooManyOneAddress: n.tooManyOneAddress.Load(), Handshake: n.handshake.Load(),
			ConnectTimeout: n.connectTimeout.Load(), NotConnect: n.notConnect.Load(),
			TooManySessions: n.tooManySessions.Load(), Takeover: n.takeoversRefused.Load(), LoginsThrottled: n.loginsThrottled.Load(),
		},
		Logins:  Logins{Hashed: n.loginsHashed.Load(), Remembered: n.loginsRemembered.Load()},
		Denied:  Denied{Publishes: n.deniedPublishes.Load(), Subscriptions: n.deniedSubscriptions.Load(), Wills: n.deniedWills.Load()},
		Revoked: n.revoked.Load(), OverLimits: n.overLimits.Load(),
		TLSReloads: n.tlsReloads.Load(), TLSFailures: n.tlsFailures.Load(),
		AuthFailures: n.authFailures.Load(), Malformed: n.malformed.Load(), Panics: n.panics.Load(),
		SlowClosed: n.slowClosed.Load(), AcceptErrors: n.acceptErrors.Load(),
		Sessions:    b.sessions.stats(),
		AckDuration: n.ackDuration.snapshot(),
	}
}
