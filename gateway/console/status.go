package console

import (
	"encoding/json"
	"math"
	"time"
)

// Status is /api/v1/status. Its JSON names are a contract (docs/http.md): names may be added, none changes its meaning. A time
// that is not known is left out; lists are never null.
type Status struct {
	Gateway      string        `json:"gateway"` // the gateway's id
	Version      string        `json:"version"`
	Started      time.Time     `json:"started"`
	Now          time.Time     `json:"now"`
	Uptime       float64       `json:"uptime_seconds"`
	Ready        bool          `json:"ready"` // Ready and Parts are filled in from Gateway.Ready
	Parts        []Part        `json:"parts"`
	Messages     Messages      `json:"messages"`
	Connections  int64         `json:"connections"` // MQTT clients
	Devices      int           `json:"devices"`
	Series       int           `json:"series"`
	Alerts       []Alert       `json:"alerts"` // pending and firing
	Destinations []Destination `json:"destinations"`
	Webhooks     []Destination `json:"webhooks"`
	Journal      Journal       `json:"journal"`
	Disk         Disk          `json:"disk"`
	Ledger       Ledger        `json:"ledger"`
}

// Messages counts what devices published, since the start of the process.
type Messages struct {
	Received  uint64  `json:"received"`
	Rate      float64 `json:"rate_per_second"` // over the last ten seconds or so
	Refused   uint64  `json:"refused"`         // not acknowledged, because the journal did not take them
	Uncovered uint64  `json:"uncovered"`       // routed only: no source matches their topic
}

// Alert is one alert that is pending or firing.
type Alert struct {
	Name    string            `json:"name"` // the rule's
	State   string            `json:"state"`
	Since   time.Time         `json:"since,omitzero"` // of State
	Value   float64           `json:"value"`          // null where it is not finite: expressions may divide by zero
	Labels  map[string]string `json:"labels"`
	Summary string            `json:"summary"`
}

// Destination is one outbox and the forwarder that empties it. Its counters are kept over restarts.
type Destination struct {
	Name        string    `json:"name"`
	Type        string    `json:"type"`
	State       string    `json:"state"`           // idle sending backing_off config_error disabled
	Pending     uint64    `json:"pending"`         // points, or notifications, not delivered yet
	Bytes       int64     `json:"bytes"`           // the outbox on disk
	Oldest      time.Time `json:"oldest,omitzero"` // when what is pending longest was caused
	Delivered   uint64    `json:"delivered"`
	Quarantined uint64    `json:"quarantined"` // refused by the destination and set aside
	Rate        float64   `json:"rate_per_second"`
	ETA         float64   `json:"eta_seconds"` // until pending is 0 at that rate; 0: none or not known
	LastError   string    `json:"last_error"`  // "" once something was delivered after it
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
	LastSuccess time.Time `json:"last_success,omitzero"`

	Kind        string           `json:"kind"`      // destination or webhook
	MaxBytes    int64            `json:"max_bytes"` // of the outbox; 0: none but the disk
	WhenFull    string           `json:"when_full"` // degrade drop_oldest refuse
	HeadMovedAt time.Time        `json:"head_moved_at,omitzero"`
	Tiers       []OutboxTier     `json:"tiers"`
	Shed        uint64           `json:"shed_points"`     // lost, see the ledger
	Degraded    uint64           `json:"degraded_points"` // merged into longer windows
	InFlight    int              `json:"in_flight"`       // requests under way
	Batch       int              `json:"batch"`           // points in one request at the moment
	Rebuilds    uint64           `json:"rebuilds"`        // times the connection was built anew because nothing moved
	Bandwidth   *OutboxBandwidth `json:"bandwidth"`       // null: no bound
	Forecast    OutboxForecast   `json:"forecast"`
	Canary      *OutboxCanary    `json:"canary"` // null: none
}

// Journal is the log of accepted messages. First to Last are the records it holds, those to Durable survive power loss.
type Journal struct {
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Durable uint64 `json:"durable"`
	Bytes   int64  `json:"bytes"`
	Error   string `json:"error"` // why it takes no messages; "" when it does
}

// Disk is the file system that the data directory is on; zeros where that is not known.
type Disk struct {
	Free  int64 `json:"free_bytes"` // for the gateway
	Total int64 `json:"total_bytes"`
}

// Ledger says where every reading went. Imbalance is what is not accounted for; anything but 0 is a bug.
type Ledger struct {
	Imbalance int64          `json:"imbalance"` // of sources and destinations
	Lost      uint64         `json:"lost"`      // readings and points that are nowhere any more
	Sources   []LedgerSource `json:"sources"`
}

// LedgerSource counts the readings of one source: Received is the sum of the four below it and Imbalance.
type LedgerSource struct {
	Source      string `json:"source"`
	Messages    uint64 `json:"messages"`
	Received    uint64 `json:"received"`
	Duplicate   uint64 `json:"duplicate"`
	Quarantined uint64 `json:"quarantined"`
	Late        uint64 `json:"late"`
	Aggregated  uint64 `json:"aggregated"`
	Backfilled  uint64 `json:"backfilled"` // of Aggregated: late, and their windows were recomputed from the local history
	Requeued    uint64 `json:"requeued"`   // put back from quarantine, and counted as what became of them
	Imbalance   int64  `json:"imbalance"`
}

// Readiness is /readyz: whether the gateway makes progress, and which part does not.
type Readiness struct {
	Ready bool   `json:"ready"`
	Parts []Part `json:"parts"`
}

// Part is the health of one part of the gateway.
type Part struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// MarshalJSON writes what JSON has no number for as null.
func (a Alert) MarshalJSON() ([]byte, error) {
	type fields Alert
	v := struct {
		fields
		Value *float64 `json:"value"`
	}{fields: fields(a)}
	if finite(a.Value) {
		v.Value = &a.Value
	}
	return json.Marshal(v)
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

// complete makes every list one that JSON writes as [].
func (s *Status) complete() {
	s.Parts = list(s.Parts)
	s.Alerts = list(s.Alerts)
	s.Destinations = list(s.Destinations)
	s.Webhooks = list(s.Webhooks)
	s.Ledger.Sources = list(s.Ledger.Sources)
	for _, part := range [...][]Destination{s.Destinations, s.Webhooks} {
		for i := range part {
			part[i].Tiers = list(part[i].Tiers)
		}
	}
	for i := range s.Alerts {
		if s.Alerts[i].Labels == nil {
			s.Alerts[i].Labels = map[string]string{}
		}
	}
}

func list[T any](l []T) []T {
	if l == nil {
		return []T{}
	}
	return l
}
