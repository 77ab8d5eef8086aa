package uplink

import (
	"fmt"
	"path/filepath"
)

// urgentName is the folder of the records that overtake all others.
const urgentName = "alerts"

// openUrgent opens the log of urgent records beside the tiers. It has a small bound of its own, so that a full outbox does not hold an alert
// back.
func (b *Outbox) openUrgent() error {
	if !b.o.Urgent {
		return nil
	}
	o := b.o
	if o.WhenFull == Degrade {
		o.WhenFull = DropOldest
	}
	if o.MaxBytes > 0 {
		o.MaxBytes = max(o.MaxBytes/16, minOutbox)
		o.SegmentBytes = min(o.SegmentBytes, o.MaxBytes/8)
	}
	u, err := openOutbox(filepath.Join(b.dir, urgentName), o)
	if err != nil {
		return err
	}
	u.root, u.name = b, urgentName
	b.urgent = u
	b.measure()
	return nil
}

// PutUrgent is Put for records that go out before all others, in order among themselves. Causes grow among urgent records, and among
// the others. Without Options.Urgent it is Put.
func (b *Outbox) PutUrgent(cause Cause, typ byte, body []byte) error {
	if b.urgent == nil {
		return b.Put(cause, typ, body)
	}
	if err := b.urgent.Put(cause, typ, body); err != nil {
		return fmt.Errorf("urgent: %w", err)
	}
	return nil
}

// all are the tiers and the log of urgent records.
func (b *Outbox) all() []*Outbox {
	if b.urgent == nil {
		return b.tiers
	}
	return append(b.tiers[:len(b.tiers):len(b.tiers)], b.urgent)
}
