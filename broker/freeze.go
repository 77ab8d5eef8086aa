package broker

import (
	"fmt"

	"sluice/gateway/seglog"
)

// Freeze takes the store as a crash at this moment would leave it: the value of the slots "snapshot", nil for none, and the log in the folder
// "log", to be closed after use. Safe for concurrent use.
func (st *Store) Freeze() (snapshot []byte, log *seglog.Frozen, err error) {
	// In this order: the log reaches back to the snapshot before the newest.
	if snapshot, _, err = st.slots.Load(); err == nil {
		log, err = st.log.Freeze()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("freeze store of sessions: %w", err)
	}
	return snapshot, log, nil
}
