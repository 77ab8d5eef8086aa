package history

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"

	"sluice/gateway/telemetry"
)

// served is a history of two devices over ten minutes, one reading every ten seconds, behind HTTP.
func served(t *testing.T) (*rig, *httptest.Server) {
	t.Helper()
	r := newRig(t)
	r.start()
	r.awaitLive()
	for i := range int64(61) {
		r.publish(device("a"), t0+i*10*second, temperature(20+float64(i)/100), telemetry.Reading{Metric: "door", Value: float64(i % 2)})
		r.publish(device(`b"\<script>é`), t0+i*10*second, temperature(-18))
	}
	other := &telemetry.Device{Measurement: "telemetry", Labels: telemetry.NewLabels(telemetry.Label{Name: "device", Value: "x"}, telemetry.Label{Name: "site", Value: "plant-8"})}
	r.publish(other, t0+600*second, temperature(99))
	r.awaitApplied()
	s := httptest.NewServer(r.h.Handler())
	t.Cleanup(s.Close)
	return r, s
}

func call(t *testing.T, h http.Handler, method, path string, form url.Values) (int, map[string]any) {
	t.Helper()
	target, body := APIPrefix+path, io.Reader(nil)
	if method == http.MethodPost {
		body = strings.NewReader(form.Encode())
	} else if len(form) > 0 {
		target += "?" + form.Encode()
	}
	r := httptest.NewRequest(method, target, body)
	if method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	var v map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s %s: %v in %q", method, target, err, w.Body.String())
	}
	return w.Code, v
}

func TestAPI_PrometheusOwnClientUnderstandsEveryAnswer(t *testing.T) {
	_, s := served(t)
	c, err := api.NewClient(api.Config{Address: s.URL + "/prometheus"})
	if err != nil {
		t.Fatal(err)
	}
	a, ctx := promv1.NewAPI(c), context.Background()
	start, end := time.Unix(0, t0), time.Unix(0, t0+600*second)

	v, warn, _, err := a.Query(ctx, `telemetry_temperature{device="a"}`, end)
	if err != nil || len(warn) > 0 {
		t.Fatal(err, warn)
	}
	if vec := v.(model.Vector); len(vec) != 1 || vec[0].Value != 20.6 || vec[0].Timestamp != model.TimeFromUnixNano(t0+600*second) ||
		vec[0].Metric.String() != `telemetry_temperature{device="a", gateway="gw", site="plant-7"}` {
		t.Errorf("query: %v", v)
	}
	v, _, _, err = a.QueryRange(ctx, `avg_over_time(telemetry_temperature{device="a"}[1m])`, promv1.Range{Start: start, End: end, Step: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if m := v.(model.Matrix); len(m) != 1 || len(m[0].Values) != 11 || math.Abs(float64(m[0].Values[10].Value)-20.575) > 1e-9 {
		t.Errorf("query_range: %v", v)
	}
	if v, _, _, err = a.Query(ctx, `scalar(telemetry_door)`, end); err != nil || v.(*model.Scalar).Value != 0 {
		t.Errorf("scalar: %v, %v", v, err)
	}
	if v, _, _, err = a.Query(ctx, `1/0`, end); err != nil || !math.IsInf(float64(v.(*model.Scalar).Value), 1) {
		t.Errorf("infinity: %v, %v", v, err)
	}
	if v, _, _, err = a.Query(ctx, `telemetry_temperature{device="a"}[30s]`, end); err != nil || len(v.(model.Matrix)[0].Values) != 3 {
		t.Errorf("range selector: %v, %v", v, err)
	}
	sets, _, _, err := a.Series(ctx, []string{`telemetry_temperature{site="plant-7"}`, `telemetry_door`}, start, end)
	if err != nil || len(sets) != 3 {
		t.Errorf("series: %v, %v", sets, err)
	}
	names, _, _, err := a.LabelNames(ctx, nil, start, end)
	if err != nil || names.String() != "__name__, device, gateway, site" {
		t.Errorf("labels: %v, %v", names, err)
	}
	values, _, _, err := a.LabelValues(ctx, "device", []string{"telemetry_temperature"}, start, end)
	if err != nil || fmt.Sprint(values) != `[a b"\<script>é x]` {
		t.Errorf("label values: %v, %v", values, err)
	}
	metadata, err := a.Metadata(ctx, "", "")
	if err != nil || len(metadata) != 2 || metadata["telemetry_door"][0].Type != promv1.MetricTypeGauge {
		t.Errorf("metadata: %v, %v", metadata, err)
	}
	if b, err := a.Buildinfo(ctx); err != nil || b.Version != promVersion {
		t.Errorf("buildinfo: %v, %v", b, err)
	}
	if _, err := a.Rules(ctx, nil); err != nil {
		t.Errorf("rules: %v", err)
	}
	if _, err := a.Alerts(ctx); err != nil {
		t.Errorf("alerts: %v", err)
	}
	if _, err := a.QueryExemplars(ctx, "x", start, end); err != nil {
		t.Errorf("exemplars: %v", err)
	}
	_, _, _, err = a.Query(ctx, `sum(`, end)
	if e, ok := err.(*promv1.Error); !ok || e.Type != promv1.ErrBadData {
		t.Errorf("bad query: %v", err)
	}
}

// What Grafana's Prometheus data source sends: test of the source, metric and label browser, explore, panels.
func TestAPI_GrafanasRequests(t *testing.T) {
	r, _ := served(t)
	h := r.h.Handler()
	from, to := fmt.Sprint(t0/second), fmt.Sprint(t0/second+600)
	v := func(kv ...string) url.Values {
		out := url.Values{}
		for i := 0; i < len(kv); i += 2 {
			out.Add(kv[i], kv[i+1])
		}
		return out
	}
	for _, tc := range []struct {
		name, method, path string
		form               url.Values
		want               string // within the answer
	}{
		{"save and test", "POST", "query", v("query", "1+1", "time", to), `"result":[1800000600,"2"]`},
		{"build info", "GET", "status/buildinfo", nil, `"version":"` + promVersion},
		{"metric names", "GET", "label/__name__/values", v("start", from, "end", to), `["telemetry_door","telemetry_temperature"]`},
		{"label names of a metric", "POST", "labels", v("match[]", "telemetry_door", "start", from, "end", to), `["__name__","device","gateway","site"]`},
		{"label values of a metric", "GET", "label/device/values", v("match[]", `telemetry_temperature{site="plant-8"}`, "start", from, "end", to), `["x"]`},
		{"label values under other labels", "GET", "label/device/values", v("match[]", `{site="plant-7"}`), `["a",`},
		{"a name in UTF-8, escaped", "GET", "label/U__site/values", nil, `["plant-7","plant-8"]`},
		{"series browser", "POST", "series", v("match[]", `{__name__="telemetry_door"}`, "start", from, "end", to), `"__name__":"telemetry_door"`},
		{"metric metadata", "GET", "metadata", v("limit", "10000"), `"telemetry_door":[{"type":"gauge"`},
		{"metadata of one", "GET", "metadata", v("metric", "telemetry_door"), `"telemetry_door"`},
		{"panel", "POST", "query_range", v("query", `telemetry_temperature{device=~"a|x"}`, "start", from, "end", to, "step", "15"), `[1800000000,"20"],[1800000015,"20.01"]`},
		{"panel with fractions", "POST", "query_range", v("query", "telemetry_door", "start", from+".5", "end", to+".5", "step", "150"), `[1800000000.500,"0"]`},
		{"panel with rate interval", "GET", "query_range", v("query", "sum by (site) (rate(telemetry_temperature[1m0s]))", "start", from, "end", to, "step", "1m"), `"site":"plant-7"`},
		{"table", "POST", "query", v("query", "topk(1, telemetry_temperature)", "time", to), `"99"`},
		{"by name in the selector", "GET", "query", v("query", `{__name__="telemetry_temperature", device="a"}`, "time", "2027-01-15T08:10:00.000Z"), `"20.6"`},
		{"exemplars", "GET", "query_exemplars", v("query", "x", "start", from, "end", to), `"data":[]`},
		{"nothing there", "GET", "query", v("query", "none_such"), `"result":[]`},
		{"limit", "GET", "series", v("match[]", "telemetry_temperature", "limit", "1"), `results truncated due to limit`},
		{"format", "GET", "format_query", v("query", "sum( x)by(y)"), `"sum by (y) (x)"`},
		{"annotations of the engine", "GET", "query", v("query", "quantile(7, telemetry_door)", "time", to), `"warnings":["PromQL warning: quantile value should be between 0 and 1`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			target := APIPrefix + tc.path
			var body io.Reader
			if tc.method == "POST" {
				body = strings.NewReader(tc.form.Encode())
			} else if tc.form != nil {
				target += "?" + tc.form.Encode()
			}
			req := httptest.NewRequest(tc.method, target, body)
			if tc.method == "POST" {
				req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, req)
			if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), tc.want) || !strings.HasPrefix(w.Body.String(), `{"status":"success"`) {
				t.Errorf("%d %s, want %s in it", w.Code, w.Body, tc.want)
			}
		})
	}
}

func TestAPI_SaysWhatIsWrongAsPrometheusDoes(t *testing.T) {
	r, _ := served(t)
	h := r.h.Handler()
	q := func(s string) url.Values { v, _ := url.ParseQuery(s); return v }
	for _, tc := range []struct {
		path string
		form url.Values
		code int
		kind string
		text string
	}{
		{"query", q(""), 400, "bad_data", `invalid parameter "query"`},
		{"query", q("query=up&time=now"), 400, "bad_data", `cannot parse "now" to a valid timestamp`},
		{"query", q("query=up&time=NaN"), 400, "bad_data", "timestamp"},
		{"query", q("query=up&timeout=x"), 400, "bad_data", `invalid parameter "timeout"`},
		{"query", q("query=up&lookback_delta=-1"), 400, "bad_data", "lookback_delta"},
		{"query", q("query=up&limit=-1"), 400, "bad_data", "limit must be non-negative"},
		{"query_range", q("query=up&start=10&end=5&step=1"), 400, "bad_data", "end timestamp must not be before start time"},
		{"query_range", q("query=up&start=1&end=5&step=0"), 400, "bad_data", "zero or negative"},
		{"query_range", q("query=up&start=0&end=100000&step=1"), 400, "bad_data", "exceeded maximum resolution of 11,000 points"},
		{"query_range", q("query=up&start=-9223309901257974&end=9223309901257974&step=9000000000"), 400, "bad_data", "exceeded maximum resolution"},
		{"query_range", q(`query="x"&start=1&end=2&step=1`), 400, "bad_data", "invalid expression type"},
		{"query", q("query=telemetry_temperature%2bon(site)telemetry_temperature&time=1800000600"), 422, "execution", "many-to-many"},
		{"series", q(""), 400, "bad_data", "no match[] parameter provided"},
		{"series", q("match[]={a=~%22.*%22}"), 400, "bad_data", "at least one non-empty matcher"},
		{"series", q("match[]=x%5B5m%5D"), 400, "bad_data", "match[]"},
		{"labels", q("start=x"), 400, "bad_data", "start"},
		{"label/%ff/values", nil, 400, "bad_data", "invalid label name"},
		{"nothing", nil, 404, "not_found", ""},
		{"query", q("query=sum_over_time(telemetry_temperature[100y:1ms])&time=1800000600"), 400, "bad_data", "more than 100000 steps"},
		{"query_range", q("query=max_over_time(max_over_time(x[1d:1h])[1y:10s])&start=1&end=2&step=1"), 400, "bad_data", "more than 100000 steps"},
		{"query", q("query=sum_over_time(vector(1)[20d:20s] offset 5y)%2bquantile_over_time(1,(telemetry_temperature)[20d:20s])&time=1800000600&timeout=5s"), 200, "", ""},
		{"format_query", q("query=" + strings.Repeat("(", maxQueryBytes+1)), 400, "bad_data", "longer than"},
	} {
		code, v := call(t, h, http.MethodGet, tc.path, tc.form)
		if tc.code == 200 {
			if code != 200 {
				t.Errorf("%s?%s: %d %v", tc.path, tc.form.Encode(), code, v)
			}
			continue
		}
		if code != tc.code || v["status"] != "error" || v["errorType"] != tc.kind || !strings.Contains(fmt.Sprint(v["error"]), tc.text) {
			t.Errorf("%s?%s: %d %v, want %d %s with %q", tc.path, tc.form.Encode(), code, v, tc.code, tc.kind, tc.text)
		}
	}
	if code, v := call(t, h, http.MethodPut, "query", nil); code != http.StatusMethodNotAllowed || v["status"] != "error" {
		t.Errorf("PUT: %d %v", code, v)
	}
	if code, v := call(t, h, http.MethodPost, "query", url.Values{"query": {strings.Repeat("x", maxFormBytes)}}); code != http.StatusBadRequest {
		t.Errorf("a body without end: %d %v", code, v)
	}
	r.stop()
	if code, v := call(t, h, http.MethodGet, "query", q("query=telemetry_door")); code != http.StatusServiceUnavailable || v["errorType"] != "unavailable" {
		t.Errorf("after the end: %d %v", code, v)
	}
}

func TestAPI_AQueryBeyondItsTimeoutEnds(t *testing.T) {
	r, _ := served(t)
	code, v := call(t, r.h.Handler(), http.MethodGet, "query", url.Values{
		"query": {"count_over_time(telemetry_temperature[20h:1s])"}, "time": {"1800000600"}, "timeout": {"0.000001"}})
	if code != http.StatusServiceUnavailable || v["errorType"] != "timeout" {
		t.Errorf("%d %v", code, v)
	}
}

func TestAPI_NoMoreThanAFewQueriesRunAtATime(t *testing.T) {
	r, _ := served(t)
	for range maxConcurrent {
		r.h.web.slots <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	w := httptest.NewRecorder()
	r.h.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, APIPrefix+"query?query=1", nil).WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable || !strings.Contains(w.Body.String(), "waiting for 4 other queries") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// A tenant sees its own, in every kind of answer.
func TestAPI_AScopeHidesTheRest(t *testing.T) {
	r, _ := served(t)
	inner := r.h.Handler()
	h := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		inner.ServeHTTP(w, q.WithContext(WithScope(q.Context(), map[string]string{"site": "plant-8"})))
	})
	for path, tc := range map[string]struct {
		form url.Values
		want string
	}{
		"query": {url.Values{"query": {`{__name__=~".+"}`}, "time": {"1800000600"}}, `"99"`},
		"query_range": {url.Values{"query": {`telemetry_temperature or telemetry_door or telemetry_temperature{site="plant-7"}`},
			"start": {"1800000000"}, "end": {"1800000600"}, "step": {"10"}}, `"99"`},
		"series":                {url.Values{"match[]": {`{__name__=~".+"}`, `{site="plant-7"}`}}, "plant-8"},
		"label/site/values":     {nil, "plant-8"},
		"label/device/values":   {url.Values{"match[]": {`{site="plant-7"}`, "telemetry_temperature"}}, `["x"]`},
		"label/__name__/values": {nil, "telemetry_temperature"},
		"labels":                {url.Values{"match[]": {"telemetry_temperature"}}, `"site"`},
		"metadata":              {nil, "telemetry_temperature"},
	} {
		code, v := call(t, h, http.MethodGet, path, tc.form)
		b, _ := json.Marshal(v)
		if code != http.StatusOK || bytes.Contains(b, []byte("plant-7")) || bytes.Contains(b, []byte("door")) || bytes.Contains(b, []byte("gateway")) || !bytes.Contains(b, []byte(tc.want)) {
			t.Errorf("%s: %d %s", path, code, b)
		}
	}
}

func TestAPI_ValuesAndTimesReadAsPrometheusWritesThem(t *testing.T) {
	for v, want := range map[float64]string{
		0.1: "0.1", 1e-7: "1e-07", 1e21: "1e+21", 123456789012345680000: "123456789012345680000", math.Inf(1): "+Inf", math.Inf(-1): "-Inf", -0.5: "-0.5",
	} {
		if got := string(appendValue(nil, v)); got != want {
			t.Errorf("appendValue(%v) = %s, want %s", v, got, want)
		}
	}
	for s, want := range map[string]int64{
		"0": 0, "1.5": 1500, "-1.5": -1500, "1700000000.123": 1700000000123, "2026-11-22T10:00:00Z": 1795341600000, "2026-11-22T10:00:00.5+01:00": 1795338000500,
		minTime.Format(time.RFC3339Nano): minTime.UnixMilli(),
	} {
		if got, err := parseTime(s); err != nil || got.UnixMilli() != want {
			t.Errorf("parseTime(%q) = %v, %v, want %d", s, got.UnixMilli(), err, want)
		}
	}
	for s, want := range map[string]time.Duration{"15": 15 * time.Second, "0.5": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "5m": 5 * time.Minute} {
		if got, err := parseDuration(s); err != nil || got != want {
			t.Errorf("parseDuration(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
}

// Whatever the parameters are, the answer is JSON with a status, in time.
func FuzzAPI(f *testing.F) {
	h := New(Options{Dir: f.TempDir(), Keep: time.Hour, Journal: &fakeJournal{}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { h.Run(ctx); close(ended) }()
	f.Cleanup(func() { cancel(); <-ended })
	for end := time.Now().Add(10 * time.Second); h.Status().State != Live; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.Fatal("never live")
		}
	}
	for i := range int64(50) {
		h.Readings(seqLSN(uint64(i+1)), device("a"), t0+i*second, []telemetry.Reading{temperature(float64(i))})
	}
	web := h.Handler()
	for _, s := range []string{
		"query?query=rate(telemetry_temperature[5m])&time=1800000000", "query_range?query=x&start=1&end=2&step=1s", "series?match[]=x&start=-1&limit=1",
		"label/device/values?match[]={a!=\"\"}", "labels?end=9e99", "metadata?limit=x", "query?query=x @ 1e30 offset -9y&lookback_delta=1e9",
		"query_range?query=x[1y:1s]&start=0&end=99999999999&step=1e7&timeout=1ms", "format_query?query=(((", "status/buildinfo", "label/U__a_20_/values",
	} {
		path, query, _ := strings.Cut(s, "?")
		f.Add(path, query, false)
		f.Add(path, query, true)
	}
	f.Fuzz(func(t *testing.T, path, query string, post bool) {
		u := &url.URL{Path: APIPrefix + path, RawQuery: query}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		if post {
			r = httptest.NewRequest(http.MethodPost, "/", strings.NewReader(query))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			u.RawQuery = ""
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r = r.WithContext(ctx)
		r.URL = u
		w := httptest.NewRecorder()
		began := time.Now()
		web.ServeHTTP(w, r)
		if took := time.Since(began); took > 5*time.Second {
			t.Fatalf("%s?%s took %v", path, query, took)
		}
		if w.Code >= 300 && w.Code < 400 {
			return // the mux cleans paths
		}
		var v struct{ Status string }
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || (v.Status == "success") != (w.Code == http.StatusOK) {
			t.Fatalf("%s?%s: %d %s: %v", path, query, w.Code, w.Body, err)
		}
	})
}
