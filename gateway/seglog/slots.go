package seglog

import "sluice/gateway/seglog/fsys"

// Slots is one value kept durably in two files, <name>.a and <name>.b, written in turn: whatever happens during a Store,
// the older value stays readable. Checkpoints and cursors live in slots.
type Slots struct{ _ int }

// OpenSlots opens or creates the two files in dir.
func OpenSlots(fs fsys.FS, dir, name string) (*Slots, error) { panic("stub") }

// Load returns the newest valid value and its generation, or nil and 0 when there is none.
func (s *Slots) Load() (value []byte, generation uint64, err error) { panic("stub") }

// Both returns the two slots' valid values, newest first; fewer when one or both are damaged or empty.
func (s *Slots) Both() ([][]byte, error) { panic("stub") }

// Store writes value into the older slot; with sync it survives power loss when Store returns nil. Without, it survives a
// process crash. After an error the older value stands.
func (s *Slots) Store(value []byte, sync bool) error { panic("stub") }

// Close closes both files.
func (s *Slots) Close() error { panic("stub") }
