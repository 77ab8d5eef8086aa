package main

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"sluice/broker"
	"sluice/gateway/pipeline"
	"sluice/gateway/seglog"
	policy "sluice/rules/notify"
)

// intake is the way into the journal: what the broker accepts, and the records that move time and settings.
type intake struct {
	journal *seglog.Log
	topics  atomic.Pointer[pipeline.Topics]
	clock   *clock
}

// Covers implements broker.Journal. What is published on the gateway's own topics is never taken for readings, even by a source
// of "#".
func (i *intake) Covers(topic string) bool {
	return !isOwnTopic(topic) && i.topics.Load().Covers(topic)
}

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

// operate journals what an operator asked for. It survives power loss before the caller is told so.
func (i *intake) operate(c *policy.Command) (seglog.LSN, error) {
	body, err := c.Encode()
	if err != nil {
		return 0, err
	}
	return i.journal.AppendUrgent(pipeline.RecordOperator, i.clock.now(), body)
}

// clockStep journals a jump of the wall clock and lets the gateway's time follow.
func (i *intake) clockStep(step time.Duration) error {
	i.clock.take(step)
	_, err := i.journal.AppendUrgent(pipeline.RecordClockStep, i.clock.now(), binary.AppendVarint(nil, int64(step)))
	return err
}
