package uplink

import (
	"encoding/json"
	"errors"
	"fmt"

	"sluice/gateway/seglog"
)

// Copy is one folder of an outbox or a quarantine as it was at one moment. Close its log after use.
type Copy struct {
	Folder string            // within the folder of the whole, "" for that itself
	Slots  map[string][]byte // values of slots by name
	Log    *seglog.Frozen
}

// Freeze takes the outbox as a crash at this moment would leave it, but for what is not visible yet: what Open makes of a copy delivers
// again what was delivered since, and loses nothing. Safe for concurrent use.
func (b *Outbox) Freeze() (copies []Copy, err error) {
	all := b.all()
	for _, t := range all { // records move from one to the next
		t.mu.Lock()
		defer t.mu.Unlock()
	}
	for _, t := range all {
		if t.closed {
			err = errors.Join(err, seglog.ErrClosed)
			break
		}
		f, ferr := t.log.Freeze()
		if ferr != nil {
			err = ferr
			break
		}
		copies = append(copies, Copy{Folder: t.name, Slots: map[string][]byte{"cursor": t.pos.append(nil)}, Log: f})
	}
	if err == nil {
		b.root.losses.mu.Lock()
		copies[0].Slots["losses"], err = json.Marshal(&b.root.losses.v)
		b.root.losses.mu.Unlock()
	}
	if err != nil {
		for i := range copies {
			copies[i].Log.Close()
		}
		return nil, fmt.Errorf("freeze outbox %s: %w", b.dir, err)
	}
	return copies, nil
}

// Freeze takes the quarantine as it is, everything put so far included. Safe for concurrent use.
func (q *Quarantine) Freeze() (Copy, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if err := q.commit(); err != nil {
		return Copy{}, fmt.Errorf("freeze quarantine: %w", err)
	}
	f, err := q.log.Freeze()
	if err != nil {
		return Copy{}, fmt.Errorf("freeze quarantine: %w", err)
	}
	return Copy{Slots: map[string][]byte{"held": q.state.append(q.log.Durable())}, Log: f}, nil
}
