package uplink

import (
	"encoding/binary"
	"fmt"

	"sluice/gateway/seglog"
)

// Resend queues one more copy of an output that the outbox was given before: for a store that lost it. It stands behind everything
// put so far and has the cause of the last record put, so what a replay after a crash skips stays the same. It never makes another
// record be shed or merged: ErrFull as soon as half of the bound is used, until that was delivered. Unlike Put it may be called
// from any goroutine. The record is visible after Flush; a crash before the next Sync may lose it.
func (b *Outbox) Resend(typ byte, body []byte) error {
	b.mu.Lock()
	err := b.resend(typ, body)
	b.unlock()
	if err != nil {
		return fmt.Errorf("put into outbox %s again: %w", b.dir, err)
	}
	return nil
}

func (b *Outbox) resend(typ byte, body []byte) error {
	size := recordOnDisk + len(body)
	if b.o.MaxBytes > 0 {
		if int64(size) > b.o.MaxBytes/2 {
			return seglog.ErrTooLarge
		}
		used := func() bool { return b.diskBytes+b.deep.Load()+b.onDisk(b.unflushed+size) > b.o.MaxBytes/2 }
		if used() && b.pos.next > b.trimmedTo {
			if err := b.flush(); err != nil {
				return err
			}
			if _, err := b.trim(); err != nil {
				return err
			}
		}
		if used() {
			return ErrFull
		}
	}
	var head [recordHead]byte
	binary.LittleEndian.PutUint64(head[:], b.held.LSN)
	binary.LittleEndian.PutUint32(head[8:], b.held.Ordinal)
	if b.unflushed+size > flushBytes {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if _, err := b.log.Append(typ, b.held.Time, head[:], body); err != nil {
		return asFull(err)
	}
	if b.pending() == 1 {
		b.oldest = b.held.Time
	}
	b.unflushed += size
	return nil
}
