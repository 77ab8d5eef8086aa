package console

import (
	"context"
	"net/http"
	"slices"
	"strings"
)

// route is one method of one path: who may use it, and what answers. Mux, access control and the OpenAPI document come from the same
// rows, so that none of them knows a path that the others do not.
type route struct {
	method, pattern string // GET is HEAD as well; patterns are those of http.ServeMux without a method
	least           Role
	scope           scopeRule
	body            bodyRule
	in, out         any // of the JSON types of the body and of the answer, nil: none, or not JSON
	serve           func(*site, http.ResponseWriter, *http.Request)
	part            func(*site) bool // whether this gateway has what the route shows; nil: always
}

// scopeRule says what a route is to somebody who may see certain labels only. The zero value is the safe one.
type scopeRule uint8

const (
	unscoped scopeRule = iota // what it shows has no labels: refused
	scoped                    // the handler shows what lies in who(r).Scope, and nothing else
	noData                    // it shows nothing of the site's data
)

// bodyRule says what a request may bring.
type bodyRule uint8

const (
	noBody    bodyRule = iota // of a POST: anything JSON of at most maxBodyBytes, which nobody reads
	smallJSON                 // JSON of at most maxBodyBytes
	largeJSON                 // JSON of at most maxLargeBody: rule files, lists of ids
	form                      // the handler bounds and checks it; a POST that only reads
)

// table is every path there is. A new one is a row here and a method of site in the file of its subject.
func table() []route {
	const get, post, del = http.MethodGet, http.MethodPost, http.MethodDelete
	return []route{
		{get, "/{$}", Nobody, noData, noBody, nil, nil, (*site).home, nil},
		{get, "/assets/{name}", Nobody, noData, noBody, nil, nil, (*site).asset, nil},
		{get, "/plain", Nobody, noData, noBody, nil, nil, (*site).plain, nil},
		{get, "/status.js", Nobody, noData, noBody, nil, nil, file("status.js", "text/javascript; charset=utf-8"), nil},
		{get, "/status.css", Nobody, noData, noBody, nil, nil, file("status.css", "text/css; charset=utf-8"), nil},
		{get, "/icon.svg", Nobody, noData, noBody, nil, nil, file("icon.svg", "image/svg+xml"), nil},

		{get, "/healthz", Nobody, noData, noBody, nil, nil, (*site).alive, nil},
		{get, "/readyz", Nobody, noData, noBody, nil, Readiness{}, (*site).ready, nil},
		{get, "/metrics", Viewer, unscoped, noBody, nil, nil, (*site).showMetrics, hasMetrics},
		{get, promQLPrefix, Viewer, scoped, noBody, nil, nil, (*site).query, hasPromQL},
		{post, promQLPrefix, Viewer, scoped, form, nil, nil, (*site).query, hasPromQL},

		{get, "/api/openapi.json", Viewer, noData, noBody, nil, nil, (*site).openAPI, nil},
		{get, "/api/v1/session", Nobody, noData, noBody, nil, Session{}, (*site).session, nil},
		{post, "/api/v1/login", Nobody, noData, smallJSON, Login{}, Session{}, (*site).login, nil},
		{post, "/api/v1/logout", Nobody, noData, noBody, nil, nil, (*site).logout, nil},
		{post, "/api/v1/setup", Nobody, noData, smallJSON, Setup{}, Session{}, (*site).setup, nil},
		{get, "/api/v1/tokens", Admin, unscoped, noBody, nil, TokenList{}, (*site).tokens, nil},
		{post, "/api/v1/tokens", Admin, unscoped, smallJSON, NewToken{}, CreatedToken{}, (*site).addToken, nil},
		{del, "/api/v1/tokens/{id}", Admin, unscoped, noBody, nil, nil, (*site).removeToken, nil},
		{get, "/api/v1/audit", Viewer, unscoped, noBody, nil, AuditList{}, (*site).audits, hasAudit},

		{get, "/api/v1/status", Viewer, scoped, noBody, nil, Status{}, (*site).status, nil},

		{get, "/api/v1/devices", Viewer, scoped, noBody, nil, DeviceList{}, (*site).devices, hasFleet},
		{get, "/api/v1/devices/{id}", Viewer, scoped, noBody, nil, DeviceDetail{}, (*site).device, hasFleet},
		{get, "/api/v1/series", Viewer, scoped, noBody, nil, SeriesList{}, (*site).series, hasFleet},

		{get, "/api/v1/alerts", Viewer, scoped, noBody, nil, AlertList{}, (*site).alerts, hasDesk},
		{post, "/api/v1/alerts/{fingerprint}/ack", Operator, scoped, smallJSON, Acknowledgement{}, nil, (*site).acknowledge, hasDesk},
		{del, "/api/v1/alerts/{fingerprint}/ack", Operator, scoped, noBody, nil, nil, (*site).unacknowledge, hasDesk},
		{get, "/api/v1/silences", Viewer, scoped, noBody, nil, SilenceList{}, (*site).silences, hasDesk},
		{post, "/api/v1/silences", Operator, scoped, smallJSON, NewSilence{}, Created{}, (*site).silence, hasDesk},
		{del, "/api/v1/silences/{id}", Operator, scoped, noBody, nil, nil, (*site).expire, hasDesk},
		{get, "/api/v1/rules", Viewer, unscoped, noBody, nil, RuleList{}, (*site).rules, hasDesk},
		{post, "/api/v1/rules/reload", Operator, unscoped, noBody, nil, nil, (*site).reload, hasDesk},
		{post, "/api/v1/rules/backtest", Operator, unscoped, largeJSON, Backtest{}, Created{}, (*site).backtest, hasJobs},

		{get, "/api/v1/outboxes", Viewer, unscoped, noBody, nil, OutboxList{}, (*site).outboxList, hasOutboxes},
		{get, "/api/v1/outboxes/{name}", Viewer, unscoped, noBody, nil, Destination{}, (*site).outbox, hasOutboxes},
		{post, "/api/v1/outboxes/{name}/purge", Admin, unscoped, smallJSON, purgeBody{}, Purged{}, (*site).purge, hasOutboxes},
		{get, "/api/v1/quarantine", Viewer, unscoped, noBody, nil, QuarantineList{}, (*site).quarantine, hasQuarantine},
		{get, "/api/v1/quarantine/{id}", Viewer, unscoped, noBody, nil, QuarantineItem{}, (*site).quarantineItem, hasQuarantine},
		{post, "/api/v1/quarantine/replay", Operator, unscoped, largeJSON, QuarantineReplay{}, Created{}, (*site).replayQuarantine, hasQuarantine},
		{post, "/api/v1/quarantine/delete", Admin, unscoped, largeJSON, QuarantineSelection{}, Removed{}, (*site).deleteQuarantine, hasQuarantine},
		{get, "/api/v1/ledger", Viewer, unscoped, noBody, nil, LedgerReport{}, (*site).ledger, hasAccounts},
		{post, "/api/v1/replay", Admin, unscoped, smallJSON, replayBody{}, Created{}, (*site).replay, hasReplayer},
		{get, "/api/v1/backup", Admin, unscoped, noBody, nil, nil, (*site).backup, hasCopier},

		{get, "/api/v1/events", Viewer, scoped, noBody, nil, nil, (*site).events, nil},

		{get, "/api/v1/demo", Viewer, noData, noBody, nil, DemoState{}, (*site).demoState, hasDemo},
		{post, "/api/v1/demo", Operator, noData, smallJSON, DemoChange{}, nil, (*site).changeDemo, hasDemo},

		{get, "/api/v1/jobs", Viewer, unscoped, noBody, nil, JobList{}, (*site).jobList, hasJobs},
		{get, "/api/v1/jobs/{id}", Viewer, unscoped, noBody, nil, Job{}, (*site).job, hasJobs},
		{del, "/api/v1/jobs/{id}", Operator, unscoped, noBody, nil, nil, (*site).cancelJob, hasJobs},
	}
}

func hasMetrics(s *site) bool { return s.metrics != nil }
func hasPromQL(s *site) bool  { return s.promQL != nil }
func hasAudit(s *site) bool   { return s.auditor != nil }
func hasDesk(s *site) bool    { return s.desk != nil }
func hasFleet(s *site) bool   { return s.fleet != nil }
func hasJobs(s *site) bool    { return s.jobs != nil }
func hasDemo(s *site) bool    { return s.demo != nil }

// promQLPrefix is where a Prometheus data source is found.
const promQLPrefix = "/prometheus/api/v1/"

// handler is the mux over the rows whose part is there.
func (s *site) handler() http.Handler {
	return s.mux(slices.DeleteFunc(table(), func(row route) bool { return row.part != nil && !row.part(s) }))
}

func (s *site) mux(rows []route) http.Handler {
	mux := http.NewServeMux()
	paths := map[string][]route{}
	for _, row := range rows {
		paths[row.pattern] = append(paths[row.pattern], row)
	}
	for pattern, rows := range paths {
		mux.Handle(pattern, s.path(rows))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		problem(w, http.StatusNotFound, "there is nothing at this path")
	})
	return mux
}

// serve answers a request that may be asked, and sees to it that what an operator changed stands in the journal.
func (s *site) serve(w http.ResponseWriter, r *http.Request, row *route) {
	r, end := s.admit(w, r, row)
	if r == nil {
		return
	}
	defer end()
	if row.method == http.MethodGet || row.least < Operator || row.body == form {
		row.serve(s, w, r)
		return
	}
	t := &told{}
	code := &codeWriter{ResponseWriter: w, code: http.StatusOK}
	r = r.WithContext(context.WithValue(r.Context(), toldKey{}, t))
	row.serve(s, code, r)
	if !t.already && code.code < 400 {
		s.tell(r, who(r), "request", row.method+" "+r.URL.Path)
	}
}

// codeWriter remembers the answer's code.
type codeWriter struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements http.ResponseWriter.
func (w *codeWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// Unwrap is for http.ResponseController.
func (w *codeWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// path answers each method of one path with its row, HEAD as GET.
func (s *site) path(rows []route) http.Handler {
	byMethod := map[string]*route{}
	for i := range rows {
		byMethod[rows[i].method] = &rows[i]
	}
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if byMethod[m] != nil || m == http.MethodHead && byMethod[http.MethodGet] != nil {
			allow = append(allow, m)
		}
	}
	allowed := strings.Join(allow, ", ")
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet
		}
		row := byMethod[method]
		if row == nil {
			w.Header().Set("Allow", allowed)
			problem(w, http.StatusMethodNotAllowed, "this path takes "+allowed)
			return
		}
		s.serve(w, r, row)
	})
}
