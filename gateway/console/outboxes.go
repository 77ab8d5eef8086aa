package console

import (
	"context"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// Outboxes is what a Gateway offers that has destinations and webhooks. Safe for concurrent use.
type Outboxes interface {
	OutboxList() []Destination
	// Purge gives up what waits for a destination: all that was caused before a time, or all where it is zero. It returns how many points
	// that were, once it survives power loss. ErrNotFound.
	Purge(ctx context.Context, outbox string, p Purge) (points uint64, err error)
}

// OutboxList is /api/v1/outboxes.
type OutboxList struct {
	Outboxes []Destination `json:"outboxes"` // destinations, then webhooks, as configured
}

// OutboxTier is what waits at one resolution.
type OutboxTier struct {
	Window string `json:"window"` // "" for points as they were put
	Bytes  int64  `json:"bytes"`
	Points uint64 `json:"points"`
}

// OutboxBandwidth is how much traffic is allowed, and used. Bounds of 0 are none.
type OutboxBandwidth struct {
	BytesPerSecond int64     `json:"bytes_per_second"`
	BytesPerDay    int64     `json:"bytes_per_day"`
	BytesPerMonth  int64     `json:"bytes_per_month"`
	SentToday      int64     `json:"sent_today"`
	SentThisMonth  int64     `json:"sent_this_month"`
	Quiet          bool      `json:"quiet"`
	QuietUntil     time.Time `json:"quiet_until,omitzero"`
	Level          int       `json:"level"`
	PausedReason   string    `json:"paused_reason"`
	PausedUntil    time.Time `json:"paused_until,omitzero"`
}

// OutboxForecast is how long the outbox lasts when nothing is delivered any more.
type OutboxForecast struct {
	BytesPerDayIn    float64  `json:"bytes_per_day_in"`
	DaysUntilDegrade *float64 `json:"days_until_degrade"` // null: never, or not known
	DaysUntilFull    *float64 `json:"days_until_full"`
	DaysAtCoarsest   *float64 `json:"days_at_coarsest"`
	Coarsest         string   `json:"coarsest"`
	MeasuredOver     float64  `json:"measured_over_seconds"`
}

// OutboxCanary is the end-to-end check of a destination.
type OutboxCanary struct {
	LastSeen  time.Time `json:"last_seen,omitzero"`
	LastError string    `json:"last_error"`
	ReadBack  bool      `json:"read_back"`
}

// Days is a number of days as JSON has it: nil where there is no end.
func Days(d float64) *float64 {
	if math.IsInf(d, 0) || math.IsNaN(d) {
		return nil
	}
	return &d
}

// Purge is the body of POST /api/v1/outboxes/{name}/purge.
type Purge struct {
	Before time.Time `json:"before"` // zero: everything
	Reason string    `json:"reason"`
	By     string    `json:"-"`
}

// purgeBody is Purge as it is read: "" is no time.
type purgeBody struct {
	Before string `json:"before"`
	Reason string `json:"reason"`
}

// Purged is the answer.
type Purged struct {
	Points uint64 `json:"points"`
}

func hasOutboxes(s *site) bool { return s.outboxes != nil }

func (s *site) outboxList(w http.ResponseWriter, _ *http.Request) {
	l := OutboxList{list(s.outboxes.OutboxList())}
	for i := range l.Outboxes {
		l.Outboxes[i].Tiers = list(l.Outboxes[i].Tiers)
	}
	s.answer(w, http.StatusOK, l)
}

func (s *site) outbox(w http.ResponseWriter, r *http.Request) {
	for _, o := range s.outboxes.OutboxList() {
		if o.Name == r.PathValue("name") {
			o.Tiers = list(o.Tiers)
			s.answer(w, http.StatusOK, o)
			return
		}
	}
	noOutbox(w, r.PathValue("name"))
}

func noOutbox(w http.ResponseWriter, name string) {
	problem(w, http.StatusNotFound, "there is no destination or webhook "+strconv.Quote(name))
}

func (s *site) purge(w http.ResponseWriter, r *http.Request) {
	var b purgeBody
	if !s.read(w, r, &b) {
		return
	}
	p := Purge{Reason: b.Reason, By: author(r, "")}
	what := r.PathValue("name")
	if !slices.ContainsFunc(s.outboxes.OutboxList(), func(o Destination) bool { return o.Name == what }) {
		noOutbox(w, what) // before the audit: nothing is done
		return
	}
	if b.Before != "" {
		var err error
		if p.Before, err = time.Parse(time.RFC3339, b.Before); err != nil {
			problem(w, http.StatusUnprocessableEntity, "before: want a time such as 2026-05-01T00:00:00Z")
			return
		}
		what += " before " + b.Before
	}
	if b.Reason != "" {
		what += ": " + b.Reason
	}
	if !s.audited(w, r, "purge", what) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	n, err := s.outboxes.Purge(ctx, r.PathValue("name"), p)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, Purged{n})
}
