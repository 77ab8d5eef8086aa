package history

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// metadata says of every metric that it is a gauge, since readings are not counters as far as anybody knows, and its unit; of one whose
// devices have several units there are as many entries.
func (r *request) metadata() (any, *apiError) {
	type entry struct {
		Type string `json:"type"`
		Help string `json:"help"`
		Unit string `json:"unit"`
	}
	limit, err := r.limit()
	if err != nil {
		return nil, badParam("limit", err)
	}
	perMetric, err := r.number("limit_per_metric")
	if err != nil {
		return nil, badParam("limit_per_metric", err)
	}
	q, err := r.h.Querier(minTime.UnixMilli(), maxTime.UnixMilli())
	if err != nil {
		return nil, failure(err)
	}
	r.later(func() { q.Close() })
	var only []*labels.Matcher
	if name := r.FormValue("metric"); name != "" {
		only = append(only, labels.MustNewMatcher(labels.MatchEqual, model.MetricNameLabel, name)) // equality cannot fail
	}
	names, _, err := q.LabelValues(r.Context(), model.MetricNameLabel, nil, only...)
	if err != nil {
		return nil, failure(err)
	}
	all := map[string][]entry{}
	for _, n := range names {
		if limit > 0 && len(all) == limit {
			break
		}
		all[n] = []entry{}
	}
	if r.h.o.Units != nil {
		err := r.h.o.Units(r.Context(), func(device map[string]string, name, unit string) {
			one := entry{Type: "gauge", Unit: unit}
			if list, asked := all[name]; asked && within(r.Context(), device) && !slices.Contains(list, one) {
				all[name] = append(list, one)
			}
		})
		if err != nil {
			r.notes.Add(fmt.Errorf("units are not known: %w", err))
		}
	}
	for n, list := range all {
		if len(list) == 0 {
			list = []entry{{Type: "gauge"}}
		}
		slices.SortFunc(list, func(a, b entry) int { return cmp.Compare(a.Unit, b.Unit) })
		if perMetric > 0 && len(list) > perMetric {
			list = list[:perMetric]
		}
		all[n] = list
	}
	return all, nil
}
