package console

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// Jobs is what a Gateway offers that takes on long work. Safe for concurrent use.
type Jobs interface {
	// JobList is the jobs that run and the last that ended, newest first; at most 20.
	JobList() []Job
	// Job is one of them, or ErrNotFound.
	Job(id string) (Job, error)
	// CancelJob ends a job and returns once it has ended; ErrNotFound when none with that id runs.
	CancelJob(ctx context.Context, id, by string) error
	// Backtest starts a job that replays the journal through rules; ErrInvalid says what is wrong with them, ErrBusy that as
	// many jobs run as may.
	Backtest(ctx context.Context, b Backtest) (id string, err error)
}

// ErrBusy is what Jobs answer when as many run as may.
var ErrBusy = errors.New("busy")

// Job is one long piece of work.
type Job struct {
	ID      string    `json:"id"`
	Kind    string    `json:"kind"`  // backtest, replay, quarantine_replay, ...
	State   string    `json:"state"` // running done failed
	Author  string    `json:"author"`
	Done    uint64    `json:"done"`  // of Total
	Total   uint64    `json:"total"` // 0: not known yet
	Unit    string    `json:"unit"`  // what is counted: records, messages, items
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`
	Error   string    `json:"error"`  // why it failed, or who cancelled it
	Result  any       `json:"result"` // null until it is done; what it holds depends on Kind
}

// JobList is /api/v1/jobs.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// Backtest is the body of POST /api/v1/rules/backtest.
type Backtest struct {
	Rules string `json:"rules"` // a rule file; "": the rules in force
	Since string `json:"since"` // how far to go back, such as 7d; "": all that the journal holds
	For   string `json:"for"`   // "": as written; else what else for might be, such as 2m, for all rules: both outcomes are told
	By    string `json:"-"`     // who asks
}

func (s *site) jobList(w http.ResponseWriter, _ *http.Request) {
	s.answer(w, http.StatusOK, JobList{list(s.jobs.JobList())})
}

func (s *site) job(w http.ResponseWriter, r *http.Request) {
	j, err := s.jobs.Job(r.PathValue("id"))
	if err != nil {
		s.fail(w, err)
		return
	}
	s.answer(w, http.StatusOK, j)
}

func (s *site) cancelJob(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, func(ctx context.Context) error {
		return s.jobs.CancelJob(ctx, r.PathValue("id"), author(r, r.URL.Query().Get("author")))
	})
}

func (s *site) backtest(w http.ResponseWriter, r *http.Request) {
	var b Backtest
	if !s.read(w, r, &b) {
		return
	}
	b.By = author(r, "")
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	id, err := s.jobs.Backtest(ctx, b)
	s.started(w, id, err)
}

// started answers that a job began, or why it did not.
func (s *site) started(w http.ResponseWriter, id string, err error) {
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Location", "/api/v1/jobs/"+id)
	s.answer(w, http.StatusAccepted, Created{id})
}
