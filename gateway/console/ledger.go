package console

import (
	"net/http"
	"time"
)

// Accounts is what a Gateway offers that keeps a ledger. Safe for concurrent use.
type Accounts interface {
	// Ledger is where everything went; of its losses, those noted at or after since.
	Ledger(since time.Time) LedgerReport
}

// LedgerReport is /api/v1/ledger. Its counters are of the data directory's whole life.
type LedgerReport struct {
	Imbalance    int64               `json:"imbalance"` // of all below; anything but 0 is a bug
	Now          time.Time           `json:"now"`
	Since        time.Time           `json:"since,omitzero"` // of the losses listed
	Sources      []LedgerSource      `json:"sources"`
	Destinations []LedgerDestination `json:"destinations"` // with the webhooks
	Lost         uint64              `json:"lost"`         // sum of the losses listed
	Losses       []Loss              `json:"losses"`       // oldest first
}

// LedgerDestination counts the points, or notifications, of one outbox: Points is the sum of the five below it and Imbalance.
type LedgerDestination struct {
	Name      string `json:"name"`
	Points    uint64 `json:"points"` // put into the outbox
	Delivered uint64 `json:"delivered"`
	Pending   uint64 `json:"pending"`
	Degraded  uint64 `json:"degraded"` // merged into others that are counted here
	Shed      uint64 `json:"shed"`
	Rejected  uint64 `json:"rejected"` // by the destination: in quarantine, or lost from there
	Requeued  uint64 `json:"requeued"` // put back from quarantine: not counted in Points and Rejected again
	Imbalance int64  `json:"imbalance"`
}

// Loss is readings, or points of a destination, that are nowhere any more.
type Loss struct {
	From        time.Time `json:"time_from,omitzero"` // what they are of
	To          time.Time `json:"time_to,omitzero"`
	Noted       time.Time `json:"noted,omitzero"` // when the last of them were lost
	Source      string    `json:"source"`
	Destination string    `json:"destination"` // "" where no destination has them
	Reason      string    `json:"reason"`
	Count       uint64    `json:"count"`    // readings, or points where Destination is one
	Readings    uint64    `json:"readings"` // in these points
}

func hasAccounts(s *site) bool { return s.accounts != nil }

func (s *site) ledger(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	since := q.since("since", time.Now())
	if !q.ok(w) {
		return
	}
	l := s.accounts.Ledger(since)
	l.Sources, l.Destinations, l.Losses = list(l.Sources), list(l.Destinations), list(l.Losses)
	s.answer(w, http.StatusOK, l)
}
