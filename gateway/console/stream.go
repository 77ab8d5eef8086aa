package console

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	heartbeatEvery = 15 * time.Second
	streamTimeout  = 30 * time.Second // a viewer who takes nothing for so long is gone
)

// events streams what happens, as server-sent events, until the viewer leaves, may not see it any more, or the gateway stops.
func (s *site) events(w http.ResponseWriter, r *http.Request) {
	v, ok := s.newViewer(w, r)
	if !ok {
		return
	}
	c := http.NewResponseController(w)
	// Deadlines are those of one write, not of the answer; what cannot set them has none.
	if err := c.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	last := r.Header.Get("Last-Event-ID")
	if last == "" {
		last = r.URL.Query().Get("last_event_id")
	}
	if r.Method != http.MethodHead {
		if !s.stream.join(v, last) {
			w.Header().Set("Retry-After", "5")
			problem(w, http.StatusServiceUnavailable, "as many watch as may; try again in a moment")
			return
		}
		defer s.stream.leave(v)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // proxies of nginx's kind pass it on at once
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if s.write(w, c, [][]byte{[]byte("retry: 2000\n\n")}) != nil {
		return
	}
	if v.status {
		s.stream.welcome(r.Context(), v)
	}
	s.pump(w, r, c, v)
}

// newViewer reads what a request wants to see, or answers what is wrong with it.
func (s *site) newViewer(w http.ResponseWriter, r *http.Request) (*viewer, bool) {
	q := newQuery(r)
	v := &viewer{who: who(r), wake: make(chan struct{}, 1)}
	v.readings, v.scope = q.text("readings"), scopeKey(v.who.Scope)
	types := []string{statusEvent, alertEvent, readingEvent}
	if given := q.text("types"); given != "" {
		types = strings.Split(given, ",")
		for _, t := range types {
			if t != statusEvent && t != alertEvent && t != readingEvent {
				q.fail("types: want some of status,alert,reading, got %q", t)
			}
		}
	}
	v.status, v.alerts = slices.Contains(types, statusEvent), slices.Contains(types, alertEvent)
	if !slices.Contains(types, readingEvent) {
		v.readings = ""
	}
	return v, q.ok(w)
}

// pump writes what is queued until there is nobody to write to.
func (s *site) pump(w http.ResponseWriter, r *http.Request, c *http.ResponseController, v *viewer) {
	heartbeat := time.NewTicker(heartbeatEvery)
	defer heartbeat.Stop()
	var buffer [][]byte
	for {
		silent := false
		select {
		case <-r.Context().Done():
			return
		case <-heartbeat.C:
			silent = true
		case <-v.wake:
		}
		texts, resync, resume, ended := v.take(buffer)
		if ended {
			return
		}
		if resync {
			texts = slices.Insert(texts, 0, s.stream.resyncText(resume))
		}
		if len(texts) > 0 {
			heartbeat.Reset(heartbeatEvery)
		} else if silent {
			texts = append(texts, []byte(": still here\n\n"))
		}
		if s.write(w, c, texts) != nil {
			return
		}
		clear(texts)
		buffer = texts
	}
}

func (s *site) write(w http.ResponseWriter, c *http.ResponseController, texts [][]byte) error {
	if len(texts) == 0 {
		return nil
	}
	if err := c.SetWriteDeadline(time.Now().Add(streamTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	for _, text := range texts {
		if _, err := w.Write(text); err != nil {
			return err
		}
	}
	return c.Flush()
}
