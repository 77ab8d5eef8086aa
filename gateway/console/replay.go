package console

import (
	"context"
	"net/http"
	"time"
)

// Replayer is what a Gateway offers that can send a part of its journal again.
type Replayer interface {
	// Replay starts a job that does; ErrInvalid, ErrNotFound, ErrBusy.
	Replay(ctx context.Context, r Replay) (id string, err error)
}

// Replay is the body of POST /api/v1/replay.
type Replay struct {
	From time.Time `json:"from"` // times of points; windows by their start
	To   time.Time `json:"to"`   // zero: now
	Sink string    `json:"sink"`
	By   string    `json:"-"`
}

// replayBody is Replay as it is read: "" is no time.
type replayBody struct {
	From string `json:"from"`
	To   string `json:"to"`
	Sink string `json:"sink"`
}

func hasReplayer(s *site) bool { return s.replayer != nil }

func (s *site) replay(w http.ResponseWriter, r *http.Request) {
	var b replayBody
	if !s.read(w, r, &b) {
		return
	}
	v := Replay{Sink: b.Sink, To: time.Now(), By: author(r, "")}
	var err error
	if v.From, err = time.Parse(time.RFC3339, b.From); err == nil && b.To != "" {
		v.To, err = time.Parse(time.RFC3339, b.To)
	}
	switch {
	case err != nil:
		problem(w, http.StatusUnprocessableEntity, "from, to: want times such as 2026-05-01T00:00:00Z")
		return
	case b.Sink == "":
		problem(w, http.StatusUnprocessableEntity, "sink: want the name of a destination")
		return
	}
	if !s.audited(w, r, "replay", "to "+b.Sink+" from "+b.From+" to "+v.To.UTC().Format(time.RFC3339)) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	id, err := s.replayer.Replay(ctx, v)
	s.started(w, id, err)
}
