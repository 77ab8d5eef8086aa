package broker

import (
	"math"
	"sync/atomic"
)

// SessionStats is a reading of what is kept for clients. The first group goes up and down, the others only grow.
type SessionStats struct {
	Sessions      int64 // connected or not
	Away          int64 // of them, those whose client is away
	QueuedBytes   int64 // of messages that are not acknowledged by their subscribers
	Retained      int64 // messages
	RetainedBytes int64
	StoreBytes    int64 // the store's log on disk, without its snapshots

	Expired         int64 // sessions whose clients stayed away too long
	QueueDropped    int64 // messages that had to go because their session's queue was full
	QueueRefused    int64 // messages not queued because all queues together were full
	QueueExpired    int64 // messages whose expiry came before their subscriber
	QueueDenied     int64 // messages whose subscriber had lost the right to them
	RetainedRefused int64 // messages not retained: Limits.Retained, Limits.RetainedBytes
	StoreRefused    int64 // messages not accepted because the store could not keep them

	StoreRecords   int64 // changes written
	StoreSnapshots int64
	StoreWritten   int64 // bytes written to files of the store's log
	StoreFaults    int64 // times it began to fail
}

type sessionCounters struct {
	sessionsExpired, queueDropped, queueRefused, queueExpired, queueDenied, retainedRefused, storeRefused atomic.Int64
}

func (x *sessions) stats() SessionStats {
	n := &x.b.count
	s := SessionStats{
		Expired: n.sessionsExpired.Load(), QueueDropped: n.queueDropped.Load(), QueueRefused: n.queueRefused.Load(),
		QueueExpired: n.queueExpired.Load(), QueueDenied: n.queueDenied.Load(), RetainedRefused: n.retainedRefused.Load(),
		StoreRefused: n.storeRefused.Load(),
	}
	x.mu.Lock()
	s.Sessions, s.QueuedBytes = int64(len(x.byID)), int64(x.queued)
	s.Retained, s.RetainedBytes = int64(len(x.retained.topics)), int64(x.retained.bytes)
	for _, v := range x.byID {
		if v.owner == nil {
			s.Away++
		}
	}
	x.mu.Unlock()
	if st := x.store; st != nil {
		s.StoreBytes, s.StoreWritten = st.log.DiskBytes(), st.log.DeviceBytes()
		s.StoreRecords, s.StoreSnapshots, s.StoreFaults = st.records.Load(), st.snapshots.Load(), st.faults.Load()
	}
	return s
}

// durable is the position up to which the store survives power loss.
func (x *sessions) durable() uint64 {
	if x.store == nil {
		return math.MaxUint64
	}
	return x.store.durable.Load()
}

// delivered counts a PUBLISH of so many bytes to a subscriber.
func (b *Broker) delivered(bytes int) {
	b.count.delivered.Add(1)
	info := b.server.Info
	atomic.AddInt64(&info.MessagesSent, 1)
	atomic.AddInt64(&info.PacketsSent, 1)
	atomic.AddInt64(&info.BytesSent, int64(bytes))
}
