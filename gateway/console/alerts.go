package console

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strings"
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

// deskRoutes adds the paths of alerts, silences and rules.
func deskRoutes(mux *http.ServeMux, d Desk, log *slog.Logger) {
	k := desk{api{log: log}, d}
	handle := func(path string, methods map[string]http.HandlerFunc) { mux.Handle(path, byMethod(methods)) }
	handle("/api/v1/alerts", map[string]http.HandlerFunc{http.MethodGet: k.alerts})
	handle("/api/v1/alerts/{fingerprint}/ack", map[string]http.HandlerFunc{http.MethodPost: k.acknowledge, http.MethodDelete: k.unacknowledge})
	handle("/api/v1/silences", map[string]http.HandlerFunc{http.MethodGet: k.silences, http.MethodPost: k.silence})
	handle("/api/v1/silences/{id}", map[string]http.HandlerFunc{http.MethodDelete: k.expire})
	handle("/api/v1/rules", map[string]http.HandlerFunc{http.MethodGet: k.rules})
	handle("/api/v1/rules/reload", map[string]http.HandlerFunc{http.MethodPost: k.reload})
}

// byMethod answers each method with its handler, HEAD as GET, and holds those that change something to ownOrigin.
func byMethod(methods map[string]http.HandlerFunc) http.Handler {
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if methods[m] != nil || m == http.MethodHead && methods[http.MethodGet] != nil {
			allow = append(allow, m)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		h := methods[method]
		switch {
		case h == nil:
			w.Header().Set("Allow", strings.Join(allow, ", "))
			problem(w, http.StatusMethodNotAllowed, "this path takes "+strings.Join(allow, ", "))
		case method != http.MethodGet && !ownOrigin(r):
			problem(w, http.StatusForbidden, "a page of another origin asked for this")
		case method == http.MethodPost && !isJSON(r):
			problem(w, http.StatusUnsupportedMediaType, "want Content-Type: application/json")
		default:
			h(w, r)
		}
	})
}

// ownOrigin refuses what a browser sends on behalf of a page from elsewhere. Programs send neither header.
func ownOrigin(r *http.Request) bool {
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" {
		return false
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	return err == nil && strings.EqualFold(u.Host, r.Host)
}

func isJSON(r *http.Request) bool {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	return err == nil && t == "application/json"
}

type desk struct {
	api
	d Desk
}

// anonymous is who asks where nobody logs in and nobody gives a name.
const anonymous = "anonymous"

func author(given string) string {
	if given == "" {
		return anonymous
	}
	return given
}

func (k desk) alerts(w http.ResponseWriter, _ *http.Request) {
	l := k.d.AlertList()
	l.Alerts, l.Recent = list(l.Alerts), list(l.Recent)
	for _, part := range [][]AlertDetail{l.Alerts, l.Recent} {
		for i := range part {
			part[i].Notifications = list(part[i].Notifications)
		}
	}
	k.answer(w, http.StatusOK, l)
}

func (k desk) rules(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	l, err := k.d.RuleList(ctx)
	if err != nil {
		k.fail(w, err)
		return
	}
	l.Rules = list(l.Rules)
	for i := range l.Rules {
		l.Rules[i].Series = list(l.Rules[i].Series)
	}
	k.answer(w, http.StatusOK, l)
}

func (k desk) silences(w http.ResponseWriter, _ *http.Request) {
	l := k.d.SilenceList()
	l.Silences = list(l.Silences)
	k.answer(w, http.StatusOK, l)
}

func (k desk) acknowledge(w http.ResponseWriter, r *http.Request) {
	var a Acknowledgement
	if k.read(w, r, &a) {
		a.Author = author(a.Author)
		k.change(w, r, func(ctx context.Context) error { return k.d.Acknowledge(ctx, r.PathValue("fingerprint"), a) })
	}
}

func (k desk) unacknowledge(w http.ResponseWriter, r *http.Request) {
	k.change(w, r, func(ctx context.Context) error {
		return k.d.Unacknowledge(ctx, r.PathValue("fingerprint"), author(r.URL.Query().Get("author")))
	})
}

func (k desk) silence(w http.ResponseWriter, r *http.Request) {
	var s NewSilence
	if !k.read(w, r, &s) {
		return
	}
	s.Author = author(s.Author)
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	id, err := k.d.AddSilence(ctx, s)
	if err != nil {
		k.fail(w, err)
		return
	}
	k.answer(w, http.StatusCreated, Created{id})
}

func (k desk) expire(w http.ResponseWriter, r *http.Request) {
	k.change(w, r, func(ctx context.Context) error {
		return k.d.ExpireSilence(ctx, r.PathValue("id"), author(r.URL.Query().Get("author")))
	})
}

func (k desk) reload(w http.ResponseWriter, r *http.Request) { k.change(w, r, k.d.ReloadRules) }

// operateTimeout bounds how long a change may take to be written and to show.
const operateTimeout = 10 * time.Second

func (k desk) change(w http.ResponseWriter, r *http.Request, do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	if err := do(ctx); err != nil {
		k.fail(w, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// fail answers with what went wrong. What is not the caller's fault is a 503: the journal may take it again later.
func (k desk) fail(w http.ResponseWriter, err error) {
	code, detail := http.StatusServiceUnavailable, err.Error()
	switch {
	case errors.Is(err, ErrNotFound):
		code, detail = http.StatusNotFound, strings.TrimPrefix(detail, ErrNotFound.Error()+": ")
	case errors.Is(err, ErrInvalid):
		code, detail = http.StatusUnprocessableEntity, strings.TrimPrefix(detail, ErrInvalid.Error()+": ")
	default:
		k.log.Error("operator's command not carried out", "err", err)
	}
	problem(w, code, detail)
}

// read decodes a JSON body with known names only, or answers with what is wrong with it.
func (k desk) read(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return true
		}
		err = errors.New("more than one JSON value")
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		problem(w, http.StatusRequestEntityTooLarge, "the body is larger than any command")
	case err == io.EOF:
		problem(w, http.StatusBadRequest, "the body is empty: want a JSON object")
	default:
		problem(w, http.StatusBadRequest, "the body cannot be read: "+strings.TrimPrefix(err.Error(), "json: "))
	}
	return false
}
