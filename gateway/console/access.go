package console

import (
	"context"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Role is what somebody may do: a role may do what those before it may.
type Role uint8

// The roles. Nobody is who has not logged in where one must.
const (
	Nobody   Role = iota
	Viewer        // reads
	Operator      // acknowledges, silences, reloads, replays what was set aside
	Admin         // purges, deletes, copies the data directory, makes tokens
)

// String is the role's name in files and answers.
func (r Role) String() string {
	return [...]string{"nobody", "viewer", "operator", "admin"}[min(r, Admin)]
}

// Who is somebody who asks.
type Who struct {
	Name  string // "" where nobody logs in: then a request's own author stands
	Role  Role
	Scope map[string]string // labels of what they may see; none: everything

	program bool      // showed something that no browser sends by itself
	until   time.Time // when what they showed expires; zero: not
}

// Asking is who asks, in what a handler hands on.
func Asking(ctx context.Context) Who {
	w, _ := ctx.Value(whoKey{}).(Who)
	return w
}

type whoKey struct{}

// who is who asks. Every handler behind the table has one.
func who(r *http.Request) Who { return Asking(r.Context()) }

// anonymous is who asks where nobody logs in and nobody gives a name.
const anonymous = "anonymous"

// author is whose name an operation goes under: who logged in, or else whoever the request names.
func author(r *http.Request, given string) string {
	if name := who(r).Name; name != "" {
		return name
	}
	if given == "" {
		return anonymous
	}
	return given
}

// admit lets a request through to its row: it knows who asks, may be asked by them, comes from a page of the gateway's own, and brings
// what the row takes. Else it answers, and the result is nil. end must be called after the answer.
func (s *site) admit(w http.ResponseWriter, r *http.Request, row *route) (_ *http.Request, end func()) {
	as, ends, no := s.door.identify(r, time.Now())
	if no == nil || row.least == Nobody {
		no = s.mayAsk(as, r, row)
	}
	if no != nil {
		if no.code == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
		}
		problem(w, no.code, no.detail)
		return nil, nil
	}
	switch row.body {
	case noBody, smallJSON:
		r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
	case largeJSON:
		r.Body = http.MaxBytesReader(w, r.Body, maxLargeBody)
	case form: // the handler's
	}
	ctx, cancel := context.WithCancel(context.WithValue(r.Context(), whoKey{}, as))
	if !as.until.IsZero() {
		ctx, cancel = withDeadline(ctx, cancel, as.until)
	}
	if ends == nil {
		return r.WithContext(ctx), cancel
	}
	stop := context.AfterFunc(ends, cancel)
	return r.WithContext(ctx), func() { stop(); cancel() }
}

func withDeadline(ctx context.Context, outer context.CancelFunc, at time.Time) (context.Context, context.CancelFunc) {
	ctx, inner := context.WithDeadline(ctx, at)
	return ctx, func() { inner(); outer() }
}

// mayAsk is nil where somebody may ask for what a row answers, in the way they do.
func (s *site) mayAsk(as Who, r *http.Request, row *route) *refusal {
	switch {
	case (row.method != http.MethodGet || row.least >= Operator) && row.body != form && !as.program && !ownOrigin(r):
		return &refusal{http.StatusForbidden, "a page of another origin asked for this"}
	case as.Role == Nobody && row.least > Nobody:
		return &refusal{http.StatusUnauthorized, "log in first, or show a bearer token"}
	case as.Role < row.least:
		return &refusal{http.StatusForbidden, "this takes the role " + row.least.String() + "; you are " + as.Role.String()}
	case len(as.Scope) > 0 && row.scope == unscoped:
		return &refusal{http.StatusForbidden, "this is of the whole site, and you may see a part of it"}
	case row.method == http.MethodPost && row.body != form && !isJSON(r):
		return &refusal{http.StatusUnsupportedMediaType, "want Content-Type: application/json"}
	}
	return nil
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
