package history

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

func TestAPI_MetadataTellsUnitsWithinTheScope(t *testing.T) {
	r, _ := served(t)
	tell := func(_ context.Context, f func(labels map[string]string, name, unit string)) error {
		f(map[string]string{"site": "plant-7"}, "telemetry_temperature", "K")
		f(map[string]string{"site": "plant-8"}, "telemetry_temperature", "Cel")
		f(map[string]string{"site": "plant-8"}, "telemetry_temperature", "Cel")
		f(map[string]string{"site": "plant-8"}, "telemetry_secret", "m")
		return nil
	}
	for _, tc := range []struct {
		scope map[string]string
		units Units
		form  url.Values
		want  string
	}{
		{nil, tell, nil, `{"telemetry_door":[{"help":"","type":"gauge","unit":""}],"telemetry_temperature":[{"help":"","type":"gauge","unit":"Cel"},{"help":"","type":"gauge","unit":"K"}]}`},
		{nil, tell, url.Values{"limit_per_metric": {"1"}, "metric": {"telemetry_temperature"}}, `{"telemetry_temperature":[{"help":"","type":"gauge","unit":"Cel"}]}`},
		{map[string]string{"site": "plant-8"}, tell, nil, `{"telemetry_temperature":[{"help":"","type":"gauge","unit":"Cel"}]}`},
		{map[string]string{"site": "plant-8"}, tell, url.Values{"metric": {"telemetry_door"}}, `{}`},
		{nil, func(context.Context, func(map[string]string, string, string)) error { return errors.New("busy") }, url.Values{"metric": {"telemetry_door"}},
			`{"telemetry_door":[{"help":"","type":"gauge","unit":""}]}`},
	} {
		r.h.o.Units = tc.units
		inner := r.h.Handler()
		h := http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			inner.ServeHTTP(w, q.WithContext(WithScope(q.Context(), tc.scope)))
		})
		code, v := call(t, h, http.MethodGet, "metadata", tc.form)
		b, _ := json.Marshal(v["data"])
		if code != http.StatusOK || strings.TrimSpace(string(b)) != tc.want {
			t.Errorf("metadata?%s within %v = %d %s, want %s", tc.form.Encode(), tc.scope, code, b, tc.want)
		}
	}
}
