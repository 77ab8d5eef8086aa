package main

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"sluice/broker"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
)

// intake is the way into the journal: what the broker accepts, and the records that move time and settings.
type intake struct {
	journal *seglog.Log
	topics  atomic.Pointer[pipeline.Topics]
	clock   *clock
}

// Covers implements broker.Journal.
func (i *intake) Covers(topic string) bool { return i.topics.Load().Covers(topic) }

// Append implements broker.Journal.
func (i *intake) Append(m *broker.Message) (uint64, error) {
	var buf [256]byte
	head := pipeline.AppendMessageHead(buf[:0], &pipeline.Message{
		ClientID: m.ClientID, Username: m.Username, Topic: m.Topic,
		QoS: m.QoS, Retain: m.Retain, Dup: m.Dup, PacketID: m.PacketID,
	})
	lsn, err := i.journal.Append(pipeline.RecordMessage, m.Received, head, m.Payload)
	return uint64(lsn), err
}

// Durable implements broker.Journal.
func (i *intake) Durable() uint64 { return uint64(i.journal.Durable()) }

func (i *intake) tick() error {
	_, err := i.journal.AppendUrgent(pipeline.RecordTick, i.clock.now())
	return err
}

func (i *intake) boot(id, version string) error {
	body := append(append([]byte(id), ' '), version...)
	_, err := i.journal.AppendUrgent(pipeline.RecordBoot, i.clock.now(), body)
	return err
}

func (i *intake) configure(raw []byte) error {
	_, err := i.journal.AppendUrgent(pipeline.RecordConfigure, i.clock.now(), raw)
	return err
}

// clockStep journals a jump of the wall clock and lets the gateway's time follow.
func (i *intake) clockStep(step time.Duration) error {
	i.clock.take(step)
	_, err := i.journal.AppendUrgent(pipeline.RecordClockStep, i.clock.now(), binary.AppendVarint(nil, int64(step)))
	return err
}
