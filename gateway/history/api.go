package history

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"
)

// APIPrefix is where Handler answers.
const APIPrefix = "/prometheus/api/v1/"

// promVersion is the release of Prometheus whose engine answers; Grafana decides by it what to ask for.
const promVersion = "3.16.0"

const (
	maxFormBytes = 1 << 20
	maxPoints    = 11_000 // of one series in a range query, as Prometheus has it
)

// web is the HTTP API's own state.
type web struct {
	parser parser.Parser
	engine *promql.Engine
	slots  chan struct{} // one for each query that runs
}

func (w *web) init() {
	w.parser = parser.NewParser(parser.Options{})
	w.engine = newEngine(w.parser)
	w.slots = make(chan struct{}, maxConcurrent)
}

// Handler answers Prometheus' HTTP API below APIPrefix, as far as it reads. Who may ask, and within which scope, is decided before.
func (h *History) Handler() http.Handler {
	mux := http.NewServeMux()
	both := func(path string, f func(*request) (any, *apiError)) {
		mux.Handle("GET "+APIPrefix+path, h.endpoint(f)) // and HEAD
		mux.Handle("POST "+APIPrefix+path, h.endpoint(f))
	}
	get := func(path string, f func(*request) (any, *apiError)) { mux.Handle("GET "+APIPrefix+path, h.endpoint(f)) }
	both("query", (*request).query)
	both("query_range", (*request).queryRange)
	both("series", (*request).series)
	both("labels", (*request).labelNames)
	both("format_query", (*request).formatQuery)
	both("query_exemplars", func(*request) (any, *apiError) { return []any{}, nil })
	get("label/{name}/values", (*request).labelValues)
	get("metadata", (*request).metadata)
	get("status/buildinfo", func(*request) (any, *apiError) {
		return map[string]string{
			"version": promVersion, "revision": "", "branch": "", "buildUser": "", "buildDate": "", "goVersion": "",
		}, nil
	})
	// Grafana asks for these whatever there is.
	get("rules", func(*request) (any, *apiError) { return map[string]any{"groups": []any{}}, nil })
	get("alerts", func(*request) (any, *apiError) { return map[string]any{"alerts": []any{}}, nil })
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		_, pattern := mux.Handler(&http.Request{Method: http.MethodGet, URL: r.URL, Host: r.Host})
		if pattern != "/" {
			w.Header().Set("Allow", "GET, HEAD, POST")
			writeError(w, &apiError{http.StatusMethodNotAllowed, "bad_data", errors.New("this path is read with GET or POST")})
			return
		}
		writeError(w, &apiError{http.StatusNotFound, "not_found", errors.New("there is nothing at this path")})
	})
	return mux
}

// apiError is an answer of Prometheus' API that says what was wrong.
type apiError struct {
	code int
	kind string
	err  error
}

func badData(err error) *apiError { return &apiError{http.StatusBadRequest, "bad_data", err} }

func badParam(name string, err error) *apiError {
	return badData(fmt.Errorf("invalid parameter %q: %w", name, err))
}

// failure is the answer to an error of the engine or the storage.
func failure(err error) *apiError {
	var canceled promql.ErrQueryCanceled
	var timeout promql.ErrQueryTimeout
	var stored promql.ErrStorage
	switch {
	case errors.Is(err, errNotOpen):
		return &apiError{http.StatusServiceUnavailable, "unavailable", errNotOpen}
	case errors.As(err, &timeout), errors.Is(err, context.DeadlineExceeded):
		return &apiError{http.StatusServiceUnavailable, "timeout", err}
	case errors.As(err, &canceled), errors.Is(err, context.Canceled):
		return &apiError{499, "canceled", err} // the client closed the connection
	case errors.As(err, &stored):
		return &apiError{http.StatusInternalServerError, "internal", err}
	}
	return &apiError{http.StatusUnprocessableEntity, "execution", err}
}

// request is one call.
type request struct {
	*http.Request
	h        *History
	notes    annotations.Annotations
	release  []func() // once the answer is written
	answered string   // the query, which annotations point into
}

func (r *request) later(f func()) { r.release = append(r.release, f) }

func (h *History) endpoint(f func(*request) (any, *apiError)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, hr *http.Request) {
		ctx, cancel := context.WithTimeout(hr.Context(), queryTimeout)
		defer cancel()
		r := &request{Request: hr.WithContext(ctx), h: h}
		defer func() {
			for _, f := range slices.Backward(r.release) {
				f()
			}
		}()
		hr.Body = http.MaxBytesReader(w, hr.Body, maxFormBytes)
		r.Body = hr.Body
		if err := r.ParseForm(); err != nil {
			writeError(w, badData(fmt.Errorf("error parsing form values: %w", err)))
			return
		}
		select {
		case h.web.slots <- struct{}{}:
			defer func() { <-h.web.slots }()
		case <-ctx.Done():
			writeError(w, failure(fmt.Errorf("waiting for %d other queries: %w", maxConcurrent, ctx.Err())))
			return
		}
		data, aerr := f(r)
		if aerr != nil {
			writeError(w, aerr)
			return
		}
		warnings, infos := r.notes.AsStrings(r.answered, 10, 10)
		writeAnswer(w, data, warnings, infos)
	})
}

func (r *request) queryOptions() (ctx context.Context, o promql.QueryOpts, aerr *apiError) {
	back, ok, err := r.duration("lookback_delta")
	if err != nil {
		return nil, nil, badParam("lookback_delta", err)
	}
	if ok && back <= 0 {
		return nil, nil, badParam("lookback_delta", errors.New("must be positive"))
	}
	timeout, ok, err := r.duration("timeout")
	if err != nil {
		return nil, nil, badParam("timeout", err)
	}
	ctx = r.Context()
	if ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, min(timeout, queryTimeout))
		r.later(cancel)
	}
	return ctx, promql.NewPrometheusQueryOpts(false, back, nil), nil
}

func (r *request) query() (any, *apiError) {
	limit, err := r.limit()
	if err != nil {
		return nil, badParam("limit", err)
	}
	at, err := r.time("time", time.Now())
	if err != nil {
		return nil, badParam("time", err)
	}
	ctx, o, aerr := r.queryOptions()
	if aerr != nil {
		return nil, aerr
	}
	text := r.FormValue("query")
	if err := r.h.web.bounded(text, 0); err != nil {
		return nil, badParam("query", err)
	}
	q, err := r.h.web.engine.NewInstantQuery(ctx, r.h, o, text, at)
	return r.run(ctx, q, err, limit)
}

func (r *request) queryRange() (any, *apiError) {
	limit, err := r.limit()
	if err != nil {
		return nil, badParam("limit", err)
	}
	start, err := parseTime(r.FormValue("start"))
	if err != nil {
		return nil, badParam("start", err)
	}
	end, err := parseTime(r.FormValue("end"))
	if err != nil {
		return nil, badParam("end", err)
	}
	if end.Before(start) {
		return nil, badParam("end", errors.New("end timestamp must not be before start time"))
	}
	step, err := parseDuration(r.FormValue("step"))
	if err != nil {
		return nil, badParam("step", err)
	}
	if step < time.Millisecond {
		return nil, badParam("step", errors.New("zero or negative query resolution step widths are not accepted. Try a positive integer"))
	}
	if uint64(end.UnixMilli())-uint64(start.UnixMilli()) > maxPoints*uint64(step.Milliseconds()) { // their difference may exceed int64
		return nil, badData(errors.New("exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)"))
	}
	ctx, o, aerr := r.queryOptions()
	if aerr != nil {
		return nil, aerr
	}
	text := r.FormValue("query")
	if err := r.h.web.bounded(text, end.Sub(start)); err != nil {
		return nil, badParam("query", err)
	}
	q, err := r.h.web.engine.NewRangeQuery(ctx, r.h, o, text, start, end, step)
	return r.run(ctx, q, err, limit)
}

func (r *request) run(ctx context.Context, q promql.Query, err error, limit int) (any, *apiError) {
	if err != nil {
		return nil, badParam("query", err)
	}
	r.later(q.Close)
	r.answered = q.String()
	res := q.Exec(ctx)
	if res.Err != nil {
		return nil, failure(res.Err)
	}
	r.notes = res.Warnings
	value := res.Value
	if limit > 0 {
		var cut bool
		switch v := value.(type) {
		case promql.Vector:
			if cut = len(v) > limit; cut {
				value = v[:limit]
			}
		case promql.Matrix:
			if cut = len(v) > limit; cut {
				value = v[:limit]
			}
		}
		if cut {
			r.notes.Add(errors.New("results truncated due to limit"))
		}
	}
	return value, nil
}

func (r *request) formatQuery() (any, *apiError) {
	if err := r.h.web.bounded(r.FormValue("query"), 0); err != nil {
		return nil, badParam("query", err)
	}
	e, err := r.h.web.parser.ParseExpr(r.FormValue("query"))
	if err != nil {
		return nil, badParam("query", err)
	}
	return e.Pretty(0), nil
}

// selection is what series, labels and label values have in common.
func (r *request) selection() (q storage.Querier, sets [][]*labels.Matcher, limit int, aerr *apiError) {
	limit, err := r.limit()
	if err != nil {
		return nil, nil, 0, badParam("limit", err)
	}
	start, err := r.time("start", minTime)
	if err != nil {
		return nil, nil, 0, badParam("start", err)
	}
	end, err := r.time("end", maxTime)
	if err != nil {
		return nil, nil, 0, badParam("end", err)
	}
	for _, m := range r.Form["match[]"] {
		if len(m) > maxQueryBytes {
			return nil, nil, 0, badParam("match[]", errTooLong)
		}
	}
	sets, err = r.h.web.parser.ParseMetricSelectors(r.Form["match[]"])
	if err != nil {
		return nil, nil, 0, badParam("match[]", err)
	}
	for _, ms := range sets {
		if !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return m != nil && !m.Matches("") }) {
			return nil, nil, 0, badParam("match[]", errors.New("match[] must contain at least one non-empty matcher"))
		}
	}
	if q, err = r.h.Querier(start.UnixMilli(), end.UnixMilli()); err != nil {
		return nil, nil, 0, failure(err)
	}
	r.later(func() { q.Close() })
	return q, sets, limit, nil
}

func (r *request) series() (any, *apiError) {
	if len(r.Form["match[]"]) == 0 {
		return nil, badData(errors.New("no match[] parameter provided"))
	}
	q, sets, limit, aerr := r.selection()
	if aerr != nil {
		return nil, aerr
	}
	hints := &storage.SelectHints{Start: minTime.UnixMilli(), End: maxTime.UnixMilli(), Func: "series"} // no samples are needed
	if limit > 0 {
		hints.Limit = limit + 1
	}
	var found []storage.SeriesSet
	for _, ms := range sets {
		found = append(found, q.Select(r.Context(), true, hints, ms...))
	}
	set := storage.NewMergeSeriesSet(found, 0, storage.ChainedSeriesMerge)
	list := []labels.Labels{}
	for n := 0; set.Next(); n++ {
		if n%256 == 0 && r.Context().Err() != nil {
			return nil, failure(r.Context().Err())
		}
		if limit > 0 && len(list) == limit {
			r.notes.Add(errors.New("results truncated due to limit"))
			break
		}
		list = append(list, set.At().Labels())
	}
	if err := set.Err(); err != nil {
		return nil, failure(err)
	}
	r.notes.Merge(set.Warnings())
	return list, nil
}

func (r *request) labelNames() (any, *apiError) {
	return r.words(func(q storage.Querier, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelNames(r.Context(), hints, ms...)
	})
}

func (r *request) labelValues() (any, *apiError) {
	name := r.PathValue("name")
	if strings.HasPrefix(name, "U__") {
		name = model.UnescapeName(name, model.ValueEncodingEscaping)
	}
	if !model.UTF8Validation.IsValidLabelName(name) {
		return nil, badData(fmt.Errorf("invalid label name: %q", name))
	}
	return r.words(func(q storage.Querier, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
		return q.LabelValues(r.Context(), name, hints, ms...)
	})
}

// words collects label names or values over all selectors, sorted and each once.
func (r *request) words(ask func(storage.Querier, *storage.LabelHints, ...*labels.Matcher) ([]string, annotations.Annotations, error)) (any, *apiError) {
	q, sets, limit, aerr := r.selection()
	if aerr != nil {
		return nil, aerr
	}
	hints := &storage.LabelHints{}
	if limit > 0 {
		hints.Limit, hints.LimitSmallest = limit+1, true
	}
	if len(sets) == 0 {
		sets = [][]*labels.Matcher{nil}
	}
	var all []string
	for _, ms := range sets {
		list, notes, err := ask(q, hints, ms...)
		if err != nil {
			return nil, failure(err)
		}
		r.notes.Merge(notes)
		all = append(all, list...)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	if limit > 0 && len(all) > limit {
		all = all[:limit]
		r.notes.Add(errors.New("results truncated due to limit"))
	}
	// They may lie in a block's memory map, and must not outlive the querier; the answer is written before it is closed.
	if all == nil {
		all = []string{}
	}
	return all, nil
}
