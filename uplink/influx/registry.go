package influx

import (
	"encoding/json"
	"fmt"
	"regexp"
	"sync"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
	"sluice/gateway/telemetry"
)

// Types is the registry of fields that a store holds as another type than ours, which is always float: one type for each measurement and
// field. It learns from the store's own words, so that the first conflict is the only one that is sent: later points with that field
// are refused here, by name, and wait in the quarantine to be replayed as another type. After forget the store is asked again: types are
// kept by shard, and somebody may have mended it. Safe for concurrent use.
type Types struct {
	slots *seglog.Slots // nil: in memory alone

	mu    sync.Mutex
	known map[string]map[string]fieldType // measurement > field
	n     int
}

type fieldType struct {
	Type  string    `json:"type"` // as the store calls it
	Since time.Time `json:"since"`
}

const (
	forget   = time.Hour
	maxTypes = 1000 // a store that invents conflicts fills no memory
)

// OpenTypes reads the registry in dir, which is the outbox's.
func OpenTypes(fs fsys.FS, dir string) (*Types, error) {
	t := &Types{known: make(map[string]map[string]fieldType)}
	var err error
	if t.slots, err = seglog.OpenSlots(fs, dir, "types"); err != nil {
		return nil, fmt.Errorf("open field types: %w", err)
	}
	value, _, err := t.slots.Load()
	if err == nil && value != nil {
		err = json.Unmarshal(value, &t.known)
	}
	if err != nil {
		t.slots.Close()
		return nil, fmt.Errorf("read field types: %w", err)
	}
	for _, fields := range t.known {
		t.n += len(fields)
	}
	return t, nil
}

// Close closes the files.
func (t *Types) Close() error {
	if t == nil || t.slots == nil {
		return nil
	}
	return t.slots.Close()
}

// conflict is how InfluxDB 1 and 2 name the field; recorded from 2.7.12.
var conflict = regexp.MustCompile(`input field "((?:[^"\\]|\\.)*)" on measurement "((?:[^"\\]|\\.)*)" is type float, already exists as type (\w+)`)

// learn takes in a refusal's words.
func (t *Types) learn(words string, now time.Time) {
	if t == nil {
		return
	}
	found := conflict.FindAllStringSubmatch(words, 16)
	if len(found) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range found {
		field, measurement := m[1], m[2]
		if _, old := t.known[measurement][field]; !old {
			if t.n >= maxTypes {
				t.known, t.n = make(map[string]map[string]fieldType), 0
			}
			t.n++
		}
		if t.known[measurement] == nil {
			t.known[measurement] = make(map[string]fieldType)
		}
		t.known[measurement][field] = fieldType{m[3], now}
	}
	if t.slots == nil {
		return
	}
	if text, err := json.Marshal(t.known); err == nil {
		t.slots.Store(text, true) // where it fails the store is asked once more after a restart
	}
}

// any tells whether a conflict is known.
func (t *Types) any() bool {
	if t == nil {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n > 0
}

// check names a field of p that the store is known to hold as another type.
func (t *Types) check(p *telemetry.Point, now time.Time) *unwritable {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	fields := t.known[p.Measurement]
	if len(fields) == 0 {
		return nil
	}
	var bad *unwritable
	p.EachField(func(name []byte, _ float64) {
		f, known := fields[string(name)]
		if !known || bad != nil {
			return
		}
		if now.Sub(f.Since) > forget || now.Before(f.Since) {
			delete(fields, string(name))
			t.n--
			return
		}
		bad = &unwritable{reasonConflict, fmt.Sprintf("field %q of measurement %q is %s in the store, said at %s; it was not sent",
			name, p.Measurement, f.Type, f.Since.UTC().Format(time.RFC3339))}
	})
	return bad
}
