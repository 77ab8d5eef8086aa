package console

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Desk is what a Gateway offers to those who look after alerts. Its methods are safe for concurrent use. Those that change something
// return once it survives power loss and shows in the lists: nil, ErrNotFound, ErrInvalid, or why it could not be written.
type Desk interface {
	AlertList() AlertList
	RuleList(ctx context.Context) (RuleList, error)
	SilenceList() SilenceList
	Acknowledge(ctx context.Context, fingerprint string, a Acknowledgement) error
	Unacknowledge(ctx context.Context, fingerprint, by string) error
	AddSilence(ctx context.Context, s NewSilence) (id string, err error)
	ExpireSilence(ctx context.Context, id, by string) error
	// ReloadRules reads the rule files again; ErrInvalid says what is wrong with them, and the old ones stay in force.
	ReloadRules(ctx context.Context) error
}

// What a Desk may answer; wrapped, with words for people.
var (
	ErrNotFound = errors.New("not found")
	ErrInvalid  = errors.New("invalid")
)

// AlertList is /api/v1/alerts.
type AlertList struct {
	Alerts []AlertDetail `json:"alerts"` // pending and firing, by name and labels
	Recent []AlertDetail `json:"recent"` // resolved, newest first; the last 200
}

// AlertDetail is one alert.
type AlertDetail struct {
	Fingerprint   string            `json:"fingerprint"`
	Name          string            `json:"name"`
	Group         string            `json:"group"`              // of the rule; "" of one that is over
	State         string            `json:"state"`              // pending firing resolved
	Since         time.Time         `json:"since,omitzero"`     // of State
	StartsAt      time.Time         `json:"starts_at,omitzero"` // when it fired
	EndsAt        time.Time         `json:"ends_at,omitzero"`
	Value         *float64          `json:"value"` // null where it is not finite
	Score         float64           `json:"score"` // of an anomaly rule
	Labels        map[string]string `json:"labels"`
	Annotations   map[string]string `json:"annotations"`
	SilencedBy    string            `json:"silenced_by"` // id of a silence
	Inhibited     bool              `json:"inhibited"`
	Acknowledged  *AckDetail        `json:"acknowledged"` // null: nobody did
	Flapping      bool              `json:"flapping"`
	Firings       int               `json:"firings"`       // within the last ten minutes
	Escalated     int               `json:"escalated"`     // steps taken
	Notifications []SentDetail      `json:"notifications"` // the last ten, oldest first
}

// AckDetail is an acknowledgement.
type AckDetail struct {
	Author  string    `json:"author"`
	Comment string    `json:"comment"`
	At      time.Time `json:"at"`
}

// SentDetail is one notification put into a webhook's outbox.
type SentDetail struct {
	Time    time.Time `json:"time"`
	Webhook string    `json:"webhook"`
	Reason  string    `json:"reason"` // changed repeated escalated
	Status  string    `json:"status"` // firing or resolved
}

// RuleList is /api/v1/rules.
type RuleList struct {
	Rules       []RuleDetail `json:"rules"`        // in the order in which they are evaluated
	ReloadError string       `json:"reload_error"` // why the last reload left the old rules in force; ""
}

// RuleDetail is one rule.
type RuleDetail struct {
	Name        string            `json:"name"`
	Group       string            `json:"group"`
	File        string            `json:"file"`
	Line        int               `json:"line"`
	Condition   string            `json:"condition"` // as written: expr, or what absent or anomaly says
	Match       map[string]string `json:"match"`     // labels and patterns of the devices it looks at; empty: all
	Clear       string            `json:"clear"`     // as written; "": the alert ends when the condition does not hold
	For         float64           `json:"for_seconds"`
	KeepFor     float64           `json:"keep_firing_for_seconds"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
	Webhooks    []string          `json:"webhooks"` // null: all
	State       string            `json:"state"`    // inactive pending firing: the worst of its series
	Pending     int               `json:"pending"`
	Firing      int               `json:"firing"`
	Matched     int               `json:"matched"` // series it looks at
	Series      []SeriesDetail    `json:"series"`  // those pending and firing first; at most 200
}

// SeriesDetail is where one rule stands for one device.
type SeriesDetail struct {
	Labels        map[string]string `json:"labels"`
	State         string            `json:"state"` // inactive pending firing
	Fingerprint   string            `json:"fingerprint"`
	Since         time.Time         `json:"since,omitzero"`           // of State, where it is pending or firing
	LastEvaluated time.Time         `json:"last_evaluation,omitzero"` // when a reading last moved it
	Why           string            `json:"why"`                      // the values the condition saw
	Score         *float64          `json:"score,omitempty"`          // of an anomaly rule: how unusual the last value is, firing or not
}

// SilenceList is /api/v1/silences.
type SilenceList struct {
	Silences []SilenceDetail `json:"silences"` // by creation; ended ones for a day
}

// SilenceDetail is one silence.
type SilenceDetail struct {
	ID        string            `json:"id"`
	State     string            `json:"state"` // pending active expired
	Match     map[string]string `json:"match"`
	StartsAt  time.Time         `json:"starts_at"`
	EndsAt    time.Time         `json:"ends_at"`
	CreatedAt time.Time         `json:"created_at"`
	Author    string            `json:"author"`
	Comment   string            `json:"comment"`
	EndedBy   string            `json:"ended_by"` // who ended it before its time
}

// NewSilence is the body of POST /api/v1/silences.
type NewSilence struct {
	ID       string            `json:"id"`    // of one to replace; "": a new one
	Match    map[string]string `json:"match"` // label names and patterns
	StartsAt time.Time         `json:"starts_at"`
	EndsAt   time.Time         `json:"ends_at"`  // one of both
	Duration string            `json:"duration"` // such as 2h
	Author   string            `json:"author"`
	Comment  string            `json:"comment"`
}

// Acknowledgement is the body of POST /api/v1/alerts/{fingerprint}/ack.
type Acknowledgement struct {
	Author  string `json:"author"`
	Comment string `json:"comment"`
}

// Created is the answer to POST /api/v1/silences.
type Created struct {
	ID string `json:"id"`
}

func (s *site) alerts(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, s.alertsFor(who(r)))
}

func (s *site) rules(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	l, err := s.desk.RuleList(ctx)
	if err != nil {
		s.fail(w, err)
		return
	}
	l.Rules = list(l.Rules)
	for i := range l.Rules {
		l.Rules[i].Series = list(l.Rules[i].Series)
	}
	s.answer(w, http.StatusOK, l)
}

func (s *site) silences(w http.ResponseWriter, r *http.Request) {
	s.answer(w, http.StatusOK, s.silencesFor(who(r)))
}

func (s *site) acknowledge(w http.ResponseWriter, r *http.Request) {
	var a Acknowledgement
	if !s.read(w, r, &a) {
		return
	}
	a.Author = author(r, a.Author)
	s.command(w, r, func(ctx context.Context) error {
		fingerprint := r.PathValue("fingerprint")
		if err := s.mayTouch(who(r), fingerprint); err != nil {
			return err
		}
		return s.desk.Acknowledge(ctx, fingerprint, a)
	})
}

func (s *site) unacknowledge(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(ctx context.Context) error {
		fingerprint := r.PathValue("fingerprint")
		if err := s.mayTouch(who(r), fingerprint); err != nil {
			return err
		}
		return s.desk.Unacknowledge(ctx, fingerprint, author(r, r.URL.Query().Get("author")))
	})
}

func (s *site) silence(w http.ResponseWriter, r *http.Request) {
	var n NewSilence
	if !s.read(w, r, &n) {
		return
	}
	n.Author = author(r, n.Author)
	if err := s.confine(who(r), &n); err != nil {
		s.fail(w, err)
		return
	}
	journalled(r)
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	id, err := s.desk.AddSilence(ctx, n)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusCreated, Created{id})
}

func (s *site) expire(w http.ResponseWriter, r *http.Request) {
	s.command(w, r, func(ctx context.Context) error {
		id := r.PathValue("id")
		if err := s.mayEnd(who(r), id); err != nil {
			return err
		}
		return s.desk.ExpireSilence(ctx, id, author(r, r.URL.Query().Get("author")))
	})
}

func (s *site) reload(w http.ResponseWriter, r *http.Request) {
	if s.audited(w, r, "reload", "") {
		s.change(w, r, s.desk.ReloadRules)
	}
}

// operateTimeout bounds how long a change may take to be written and to show.
const operateTimeout = 10 * time.Second

// command is a change whose journal record says who asked for it.
func (s *site) command(w http.ResponseWriter, r *http.Request, do func(context.Context) error) {
	journalled(r)
	s.change(w, r, do)
}

func (s *site) change(w http.ResponseWriter, r *http.Request, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	if err := do(ctx); err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}
