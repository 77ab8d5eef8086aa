package history

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"sluice/gateway/telemetry"
)

func labelled(pairs ...string) *telemetry.Device {
	var l []telemetry.Label
	for i := 0; i < len(pairs); i += 2 {
		l = append(l, telemetry.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return &telemetry.Device{Measurement: "m", Labels: telemetry.NewLabels(l...)}
}

// Labels whose names become one in PromQL stay two for those who may see only one of them.
func TestScope_IsByTheNameALabelHadOnTheDevice(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	for i, d := range []*telemetry.Device{
		labelled("device", "plain", "si_te", "a"),
		labelled("device", "dashed", "si-te", "a"),
		labelled("device", "dotted", "si.te", "a"),
		labelled("device", "both", "si-te", "a", "si_te", "b"),
		labelled("device", "hostile", `x",si_te="si-te`, "1", "si.te", "a"),
		labelled("device", "sly", `si_te="si-te"`, "a"),
		labelled("device", "reserved", "__name__", "a"),
		labelled("device", "taken", "label__name__", "a"),
		labelled("device", "other", "site", "a"),
		labelled("device", "joined", "si_te", "a;b"),
	} {
		r.publish(d, t0+int64(i)*second, telemetry.Reading{Metric: "v", Value: float64(i)})
	}
	r.awaitApplied()
	inner := r.h.Handler()
	at := fmt.Sprint(t0/second + 60)
	for _, tc := range []struct{ name, value, want string }{
		{"si_te", "a", "plain"}, {"si-te", "a", "dashed"}, {"si.te", "a", "dotted hostile"}, {"si te", "a", ""}, {"si_te", "b", ""}, {"si-te", "a;b", ""}, {"si_te", "a;b", "joined"},
		{"__name__", "a", "reserved"}, {"label__name__", "a", "taken"}, {"__name__", "m_v", ""}, {renamedLabel, "", ""}, {"site", "a", "other"}, {`si_te="si-te"`, "a", "sly"},
	} {
		h := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			inner.ServeHTTP(w, q.WithContext(WithScope(q.Context(), map[string]string{tc.name: tc.value})))
		})
		ask := func(path string, form url.Values) string {
			code, v := call(t, h, http.MethodGet, path, form)
			b, _ := json.Marshal(v)
			if code != http.StatusOK || strings.Contains(string(b), "__renamed__") && !strings.Contains(form.Encode(), "__renamed__") {
				t.Errorf("%s=%s: %s %s: %d %s", tc.name, tc.value, path, form, code, b)
			}
			return string(b)
		}
		sees := func(what, answer string) {
			for _, d := range []string{"plain", "dashed", "dotted", "both", "hostile", "sly", "reserved", "taken", "other", "joined"} {
				if got, want := strings.Contains(answer, `"`+d+`"`), strings.Contains(" "+tc.want+" ", " "+d+" "); got != want {
					t.Errorf("scope %s=%s: %s sees %s: %v, want %v", tc.name, tc.value, what, d, got, want)
				}
			}
		}
		for _, q := range []string{
			`m_v`, `{__name__=~".+"}`, `{device!=""}`, `{__name__="m_v",si_te=~".*"}`, `m_v @ ` + at, `m_v @ end()`, `last_over_time(m_v[5m:10s])`, `max_over_time(m_v[1h] @ ` + at + `)`,
			`count by (device) (m_v)`, `label_replace(m_v, "__name__", "x_y", "", "")`, `{__renamed__=~".*",device=~".+"}`, `m_v and on (device) m_v offset -1s or m_v`, `topk(100, m_v)`,
		} {
			sees(q, ask("query", url.Values{"query": {q}, "time": {at}}))
		}
		all := `{__name__=~".+"}`
		sees("series", ask("series", url.Values{"match[]": {all, `{device="plain"}`, `m_v{si_te="a"}`}}))
		sees("values", ask("label/device/values", url.Values{"match[]": {all, `{device="dashed"}`}}))
		sees("all values", ask("label/device/values", nil))
		ask("labels", nil)
		ask("label/__renamed__/values", url.Values{"match[]": {`{__renamed__!=""}`}})
		if got := ask("query", url.Values{"query": {`absent(m_v{device="plain"})`}, "time": {at}}); strings.Contains(got, `"1"`) == strings.Contains(tc.want, "plain") {
			t.Errorf("scope %s=%s: absent() says %s", tc.name, tc.value, got)
		}
	}
}

// Two devices whose labels are the same in PromQL are one series to those who see both, and two to those who read by device.
func TestHistory_DevicesThatLookTheSameAreOneSeriesInAnswers(t *testing.T) {
	r := newRig(t)
	r.start()
	r.awaitLive()
	a, b := labelled("si_te", "a"), labelled("si-te", "a")
	for i := range int64(10) {
		r.publish(a, t0+2*i*second, telemetry.Reading{Metric: "v", Value: 1})
		r.publish(b, t0+(2*i+1)*second, telemetry.Reading{Metric: "v", Value: 2})
	}
	r.awaitApplied()
	r.expectJournal()
	_, v := call(t, r.h.Handler(), http.MethodGet, "query", url.Values{"query": {"sum_over_time(m_v[1h])"}, "time": {fmt.Sprint(t0/second + 60)}})
	if !containsValue(v, "30") {
		t.Errorf("sum_over_time(m_v[1h]) = %v, want 30", v)
	}
	n, sum := 0, 0.0
	if err := r.h.Each(t.Context(), b, []string{"v"}, t0, t0+minute, func(_ int, _ int64, v float64) { n++; sum += v }); err != nil || n != 10 || sum != 20 {
		t.Errorf("Each of the second: %d readings with the sum %v, %v; want 10 and 20", n, sum, err)
	}
}
