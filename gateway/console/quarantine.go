package console

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Quarantined is what a Gateway offers that keeps what was refused. Safe for concurrent use.
type Quarantined interface {
	QuarantineList(q QuarantineQuery) (QuarantineList, error)
	// QuarantineItem is one item, whole, or ErrNotFound.
	QuarantineItem(id uint64) (QuarantineItem, error)
	// ReplayQuarantine starts a job that puts items back on their way; its result is a QuarantineReplayed. ErrInvalid, ErrBusy.
	ReplayQuarantine(ctx context.Context, q QuarantineReplay) (id string, err error)
	// DeleteQuarantine removes items for good, and returns how many, once that survives power loss.
	DeleteQuarantine(ctx context.Context, q QuarantineSelection) (removed int, err error)
}

// ItemID is an item's id in JSON: a string of digits. A number is read, too.
type ItemID uint64

// MarshalJSON writes it as a string.
func (id ItemID) MarshalJSON() ([]byte, error) {
	return strconv.AppendQuote(nil, strconv.FormatUint(uint64(id), 10)), nil
}

// UnmarshalJSON reads a string or a number.
func (id *ItemID) UnmarshalJSON(b []byte) error {
	n, err := strconv.ParseUint(strings.Trim(string(b), `"`), 10, 64)
	if err != nil {
		return fmt.Errorf("id: want digits such as \"17\", got %s", b)
	}
	*id = ItemID(n)
	return nil
}

// QuarantineFilter picks items; "" matches all.
type QuarantineFilter struct {
	Stage       string `json:"stage"`
	Reason      string `json:"reason"`
	Source      string `json:"source"`
	Destination string `json:"destination"`
	Search      string `json:"search"`
}

// QuarantineQuery is what a page of the list asks for.
type QuarantineQuery struct {
	QuarantineFilter
	Limit  int
	Before uint64 // the id of the last item of the page before; 0: the newest first
}

// QuarantineList is /api/v1/quarantine.
type QuarantineList struct {
	Items    []QuarantineItem  `json:"items"`  // newest first
	Groups   []QuarantineGroup `json:"groups"` // all that is held, whatever was asked for, the largest first
	Next     string            `json:"next"`
	Total    uint64            `json:"total"` // items that match
	Held     uint64            `json:"held"`  // items held
	Bytes    int64             `json:"bytes"`
	MaxBytes int64             `json:"max_bytes"` // beyond it the oldest items are lost
}

// QuarantineItem is one item.
type QuarantineItem struct {
	ID           ItemID    `json:"id"`
	Time         time.Time `json:"time"`  // when it was refused
	Stage        string    `json:"stage"` // decode time sink
	Reason       string    `json:"reason"`
	Detail       string    `json:"detail"` // the decoder's or the server's words
	Source       string    `json:"source"` // the source, or the destination that refused
	Destination  string    `json:"destination"`
	Topic        string    `json:"topic"`
	Payload      []byte    `json:"payload"`       // base64; in the list at most 1 KiB of it
	PayloadBytes int       `json:"payload_bytes"` // of the whole
	Points       string    `json:"points"`        // with stage sink: the record as the destination saw it
	Count        uint64    `json:"count"`         // readings, or records, that it stands for
}

// QuarantineGroup is what is held of one stage, reason and source.
type QuarantineGroup struct {
	Stage   string    `json:"stage"`
	Reason  string    `json:"reason"`
	Source  string    `json:"source"`
	Items   uint64    `json:"items"`
	Count   uint64    `json:"count"` // readings, or records
	Oldest  time.Time `json:"oldest"`
	Newest  time.Time `json:"newest"`
	Example string    `json:"example"` // the newest one's detail
}

// QuarantineSelection is which items a change is about: those with these ids, or those that match; and the body of
// POST /api/v1/quarantine/delete.
type QuarantineSelection struct {
	IDs    []ItemID          `json:"ids"`
	Filter *QuarantineFilter `json:"filter"`
	By     string            `json:"-"`
}

// QuarantineReplay is the body of POST /api/v1/quarantine/replay.
type QuarantineReplay struct {
	QuarantineSelection
	Type string `json:"type"` // of stage sink: write the fields as float, int, string or bool; "": as they are
}

// QuarantineReplayed is the result of that job.
type QuarantineReplayed struct {
	Replayed uint64 `json:"replayed"` // items put back on their way
	Again    uint64 `json:"again"`    // of them, messages that were refused again by the time the job ended
	Failed   uint64 `json:"failed"`   // items that could not be: they stay
	Error    string `json:"error"`    // why the first of these could not
}

// Removed is the answer to POST /api/v1/quarantine/delete.
type Removed struct {
	Removed int `json:"removed"`
}

func hasQuarantine(s *site) bool { return s.quarantined != nil }

// maxListPayload is what a list shows of a payload.
const maxListPayload = 1 << 10

func (s *site) quarantine(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	want := QuarantineQuery{QuarantineFilter: QuarantineFilter{
		Stage: q.oneOf("stage", "", "decode", "time", "sink"), Reason: q.text("reason"), Source: q.text("source"),
		Destination: q.text("destination"), Search: q.text("search"),
	}, Limit: q.limit()}
	if c := q.values.Get("cursor"); c != "" {
		var err error
		if want.Before, err = strconv.ParseUint(c, 10, 64); err != nil || want.Before == 0 {
			q.fail("cursor: want what next said in the answer before")
		}
	}
	if !q.ok(w) {
		return
	}
	l, err := s.quarantined.QuarantineList(want)
	if err != nil {
		s.fail(w, err)
		return
	}
	l.Items, l.Groups = list(l.Items), list(l.Groups)
	for i := range l.Items {
		it := &l.Items[i]
		it.Payload = it.Payload[:min(len(it.Payload), maxListPayload)]
		if len(it.Points) > maxListPayload {
			it.Points = strings.ToValidUTF8(it.Points[:maxListPayload], "")
		}
	}
	if len(l.Items) == want.Limit {
		l.Next = strconv.FormatUint(uint64(l.Items[len(l.Items)-1].ID), 10)
	}
	s.answer(w, http.StatusOK, l)
}

func (s *site) quarantineItem(w http.ResponseWriter, r *http.Request) {
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		problem(w, http.StatusNotFound, "no item has the id "+strconv.Quote(r.PathValue("id")))
		return
	}
	it, err := s.quarantined.QuarantineItem(id)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, it)
}

// words names what a filter picks, for the audit.
func (f *QuarantineFilter) words() string {
	text := "all items"
	for _, key := range [...]struct{ name, value string }{
		{"stage", f.Stage}, {"reason", f.Reason}, {"source", f.Source}, {"destination", f.Destination}, {"search", f.Search},
	} {
		if key.value != "" {
			text += " " + key.name + "=" + strconv.Quote(key.value)
		}
	}
	return text
}

// selects tells whether a selection makes sense, in words for the audit, and answers where it does not.
func (q *QuarantineSelection) selects(w http.ResponseWriter) (what string, ok bool) {
	switch {
	case (len(q.IDs) > 0) == (q.Filter != nil):
		problem(w, http.StatusUnprocessableEntity, "want ids, or a filter; an empty filter stands for everything")
		return "", false
	case q.Filter == nil && len(q.IDs) == 1:
		return "item " + strconv.FormatUint(uint64(q.IDs[0]), 10), true
	case q.Filter == nil:
		return strconv.Itoa(len(q.IDs)) + " items", true
	}
	return q.Filter.words(), true
}

func (s *site) replayQuarantine(w http.ResponseWriter, r *http.Request) {
	var q QuarantineReplay
	if !s.read(w, r, &q) {
		return
	}
	what, ok := q.selects(w)
	if !ok {
		return
	}
	if q.Type != "" {
		what += " as " + q.Type
	}
	if !s.audited(w, r, "quarantine_replay", what) {
		return
	}
	q.By = author(r, "")
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	id, err := s.quarantined.ReplayQuarantine(ctx, q)
	s.started(w, id, err)
}

func (s *site) deleteQuarantine(w http.ResponseWriter, r *http.Request) {
	var q QuarantineSelection
	if !s.read(w, r, &q) {
		return
	}
	what, ok := q.selects(w)
	if !ok || !s.audited(w, r, "quarantine_delete", what) {
		return
	}
	q.By = author(r, "")
	n, err := s.quarantined.DeleteQuarantine(r.Context(), q)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, Removed{n})
}
