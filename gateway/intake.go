package main

import (
	"encoding/binary"
	"sync"
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

	// scale is held for reading while a record is stamped and appended, and for writing while time moves by a step, so that the record of
	// the step stands between the times of the old scale and those of the new one.
	scale  sync.RWMutex
	stepAt int64 // time of the last step's record; 0: none
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
	i.scale.RLock()
	defer i.scale.RUnlock()
	lsn, err := i.journal.Append(pipeline.RecordMessage, i.received(m.Received), head, m.Payload)
	return uint64(lsn), err
}

// received is a message's time of arrival. One that was taken before the last step is on the scale from before, and is now: it
// arrived within this moment.
func (i *intake) received(t int64) int64 {
	if i.stepAt != 0 {
		if now := i.clock.now(); t < i.stepAt || t > now {
			return now
		}
	}
	return t
}

// append journals a record of this moment, ahead of what waits for the next commit.
func (i *intake) append(typ byte, parts ...[]byte) (seglog.LSN, error) {
	i.scale.RLock()
	defer i.scale.RUnlock()
	return i.journal.AppendUrgent(typ, i.clock.now(), parts...)
}

// appendLast is append for what leaves the last room on disk to ticks and operators.
func (i *intake) appendLast(typ byte, body []byte) (seglog.LSN, error) {
	i.scale.RLock()
	defer i.scale.RUnlock()
	return i.journal.Append(typ, i.clock.now(), body)
}

// Durable implements broker.Journal.
func (i *intake) Durable() uint64 { return uint64(i.journal.Durable()) }

func (i *intake) tick() error {
	_, err := i.append(pipeline.RecordTick)
	return err
}

// boot journals that the process starts; b says what the clock is worth.
func (i *intake) boot(id, version string, b pipeline.Boot) error {
	b.ID, b.Version = id, version
	b.Uptime = int64(i.clock.uptime())
	_, err := i.append(pipeline.RecordBoot, b.Encode())
	return err
}

func (i *intake) configure(raw []byte) error {
	_, err := i.append(pipeline.RecordConfigure, raw)
	return err
}

// operate journals what an operator asked for. It survives power loss before the caller is told so.
func (i *intake) operate(c *policy.Command) (seglog.LSN, error) {
	body, err := c.Encode()
	if err != nil {
		return 0, err
	}
	return i.append(pipeline.RecordOperator, body)
}

// audit journals what an operator did besides.
func (i *intake) audit(a *pipeline.Audit) (seglog.LSN, error) {
	body, err := a.Encode()
	if err != nil {
		return 0, err
	}
	return i.append(pipeline.RecordAudit, body)
}

// requeue journals that what was quarantined is put back on its way.
func (i *intake) requeue(q *pipeline.Requeue) (seglog.LSN, error) {
	return i.appendLast(pipeline.RecordRequeue, q.Append(nil))
}

// clockStep journals a jump of the wall clock and lets the gateway's time follow; with an error it does not.
func (i *intake) clockStep(step time.Duration) error {
	i.scale.Lock()
	defer i.scale.Unlock()
	unset := i.clock.unset.Load()
	i.clock.take(step)
	at := i.clock.now()
	if _, err := i.journal.AppendUrgent(pipeline.RecordClockStep, at, binary.AppendVarint(nil, int64(step))); err != nil {
		i.clock.takeBack(step, unset)
		return err
	}
	i.stepAt = at
	return nil
}
