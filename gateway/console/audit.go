package console

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// Auditor is what a Gateway offers that keeps what operators did.
type Auditor interface {
	// Audit keeps an entry; nil once it survives power loss. Its Time and LSN are not read.
	Audit(ctx context.Context, e AuditEntry) error
	// Audits is what was kept, newest first.
	Audits(ctx context.Context) ([]AuditEntry, error)
}

// AuditEntry is one thing somebody did.
type AuditEntry struct {
	Time   time.Time `json:"time"`
	Author string    `json:"author"`
	Role   string    `json:"role"`   // viewer operator admin; "" where it is not known
	Op     string    `json:"op"`     // a word such as silence, login, purge
	Detail string    `json:"detail"` // of what, for people
	LSN    uint64    `json:"lsn"`    // of the journal record
}

// AuditList is /api/v1/audit.
type AuditList struct {
	Entries []AuditEntry `json:"entries"` // newest first
	Next    string       `json:"next"`
	Total   int          `json:"total"`
}

func (s *site) audits(w http.ResponseWriter, r *http.Request) {
	q := newQuery(r)
	page := q.page()
	if !q.ok(w) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	all, err := s.auditor.Audits(ctx)
	if err != nil {
		s.fail(w, err)
		return
	}
	found := make([]keyed[AuditEntry], len(all))
	for i := range all {
		// Descending by LSN, as text of one length.
		found[i] = keyed[AuditEntry]{strconv.FormatUint(1<<63+(1<<62-all[i].LSN), 36), "", &all[i]}
	}
	sortKeyed(found)
	l := AuditList{Total: len(all)}
	l.Entries, l.Next = cut(found, page)
	s.answer(w, http.StatusOK, l)
}

// told is whether a request's doing stands in the journal.
type told struct{ already bool }

type toldKey struct{}

// journalled says that the handler's own journal record tells what was done, and by whom.
func journalled(r *http.Request) {
	if t, ok := r.Context().Value(toldKey{}).(*told); ok {
		t.already = true
	}
}

// audited keeps what a request is about to do, before it is done: what nobody could write down is not done. It answers where that
// failed, and ok is false.
func (s *site) audited(w http.ResponseWriter, r *http.Request, op, detail string) (ok bool) {
	journalled(r)
	if s.auditor == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(r.Context(), operateTimeout)
	defer cancel()
	if err := s.auditor.Audit(ctx, entryOf(who(r), op, detail)); err != nil {
		s.fail(w, err)
		return false
	}
	return true
}

func entryOf(as Who, op, detail string) AuditEntry {
	name := as.Name
	if name == "" {
		name = anonymous
	}
	role := as.Role.String()
	if as.Role == Nobody {
		role = ""
	}
	return AuditEntry{Author: name, Role: role, Op: op, Detail: detail}
}

// tellTimeout bounds how long an answer waits for the journal where it does not depend on it.
const tellTimeout = 2 * time.Second

// tell keeps what has happened. A journal that takes nothing keeps nobody from looking at why.
func (s *site) tell(r *http.Request, as Who, op, detail string) {
	journalled(r)
	if s.auditor == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), tellTimeout)
	defer cancel()
	if err := s.auditor.Audit(ctx, entryOf(as, op, detail)); err != nil {
		s.log.Error("not in the audit", "author", as.Name, "op", op, "detail", detail, "err", err)
	}
}

// failuresEvery is how often failed logins are summed up.
const failuresEvery = time.Minute

// watchLogins keeps a summary of failed logins each minute in which there were any, until ctx ends.
func (s *site) watchLogins(ctx context.Context) {
	t := time.NewTicker(failuresEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		text := s.door.failures.take()
		if text == "" {
			continue
		}
		s.log.Warn("failed logins", "summary", text)
		if s.auditor == nil {
			continue
		}
		within, cancel := context.WithTimeout(ctx, tellTimeout)
		err := s.auditor.Audit(within, AuditEntry{Author: "gateway", Op: "login_failed", Detail: text})
		cancel()
		if err != nil {
			s.log.Error("not in the audit", "op", "login_failed", "detail", text, "err", err)
		}
	}
}
