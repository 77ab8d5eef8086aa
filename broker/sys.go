package broker

import (
	"runtime"
	"runtime/metrics"
	"strconv"
	"sync/atomic"
	"time"
)

// sysInterval is how often $SYS is published.
const sysInterval = time.Minute

// publishSys publishes what the broker says of itself, to who subscribes to $SYS, and keeps it for who will. It is no part
// of what is retained for clients: neither stored nor limited.
func (b *Broker) publishSys() {
	x := b.sessions
	for topic, value := range b.sysValues() {
		m := &message{topic: topic, payload: []byte(value)}
		x.mu.Lock()
		x.sys.set(m)
		x.mu.Unlock()
		if targets := b.targets(topic); len(targets) > 0 {
			_, _ = x.route(m, targets) // QoS 0: there is no error
		}
	}
}

func (b *Broker) sysValues() map[string]string {
	heap := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(heap)
	info := b.server.Info.Clone()
	sessions := int64(b.server.Clients.Len())
	s := map[string]string{"$SYS/broker/version": info.Version}
	for name, v := range map[string]int64{
		"time":                 b.clock() / int64(time.Second),
		"uptime":               int64(time.Since(b.started) / time.Second),
		"started":              info.Started,
		"load/bytes/received":  info.BytesReceived,
		"load/bytes/sent":      info.BytesSent,
		"clients/connected":    info.ClientsConnected,
		"clients/disconnected": max(0, sessions-info.ClientsConnected),
		"clients/maximum":      info.ClientsMaximum,
		"clients/total":        sessions,
		"packets/received":     info.PacketsReceived,
		"packets/sent":         info.PacketsSent,
		"messages/received":    info.MessagesReceived,
		"messages/sent":        info.MessagesSent,
		"messages/dropped":     b.count.deliveriesDropped.Load() + b.count.queueDropped.Load(),
		"messages/inflight":    info.Inflight,
		"retained":             info.Retained,
		"subscriptions":        max(0, atomic.LoadInt64(&b.server.Info.Subscriptions)),
		"system/memory":        int64(heap[0].Value.Uint64()),
		"system/threads":       int64(runtime.NumGoroutine()),
	} {
		s["$SYS/broker/"+name] = strconv.FormatInt(v, 10)
	}
	return s
}
