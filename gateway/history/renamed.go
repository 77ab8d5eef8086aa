package history

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/annotations"

	"sluice/gateway/telemetry"
)

// Names become one: a device's si-te and another's si_te are both si_te in PromQL, and a tenant confined to the one must not see the
// other. So series of a device whose labels were renamed have one more label, which says what they were called and which no
// answer shows. Its value is made of an entry for each name in PromQL that is not, or not only, its own:
//
//	a_b="a-b"+"a.b",si_te="si-te"
//
// A quotation mark within a name is escaped, so that no name can pass for another entry.
const renamedLabel = "__renamed__"

// renamed is the value of renamedLabel, "" for a device whose labels have their own names.
func renamed(d *telemetry.Device) string {
	var changed []string
	for _, l := range d.Labels {
		if name := LabelName(l.Name); name != l.Name && !slices.Contains(changed, name) {
			changed = append(changed, name)
		}
	}
	slices.Sort(changed)
	for i, name := range changed {
		var own []string
		for _, l := range d.Labels {
			if LabelName(l.Name) == name {
				own = append(own, strconv.Quote(l.Name))
			}
		}
		changed[i] = name + "=" + strings.Join(own, "+")
	}
	return strings.Join(changed, ",")
}

// confined matches the series of devices that have this label, by the name it has there. A value that several labels share is nobody's.
func confined(name, value string) []*labels.Matcher {
	plain := LabelName(name)
	ms := []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, plain, value)} // equality cannot fail
	switch {
	case plain != name:
		ms = append(ms, labels.MustNewMatcher(labels.MatchRegexp, renamedLabel, `(.*,)?`+plain+`=`+regexp.QuoteMeta(strconv.Quote(name))+`(,.*)?`))
	case strings.Contains(name, "_"): // without one, no other name becomes this one
		ms = append(ms, labels.MustNewMatcher(labels.MatchNotRegexp, renamedLabel, `(.*,)?`+plain+`=".*`))
	}
	return ms
}

// visible takes renamedLabel away, and puts together what is the same without.
func (q *querier) visible(ctx context.Context, sorted bool, set storage.SeriesSet) storage.SeriesSet {
	if names, _, err := q.Querier.LabelValues(ctx, renamedLabel, nil); err == nil && len(names) == 0 {
		return set
	}
	same := map[string][]storage.Series{}
	var order []labels.Labels
	b := labels.NewBuilder(labels.EmptyLabels())
	for set.Next() {
		s := set.At()
		b.Reset(s.Labels())
		l := b.Del(renamedLabel).Labels()
		key := string(l.Bytes(nil))
		if same[key] == nil {
			order = append(order, l)
		}
		same[key] = append(same[key], s)
	}
	if sorted {
		slices.SortFunc(order, labels.Compare)
	}
	list := make([]storage.Series, len(order))
	for i, l := range order {
		list[i] = shown{storage.ChainedSeriesMerge(same[string(l.Bytes(nil))]...), l}
	}
	return &listed{list: list, err: set.Err(), notes: set.Warnings()}
}

// shown is a series under other labels.
type shown struct {
	storage.Series
	labels labels.Labels
}

// Labels implements storage.Labels.
func (s shown) Labels() labels.Labels { return s.labels }

// listed is a storage.SeriesSet of what was read already.
type listed struct {
	list  []storage.Series
	at    int // of the next
	err   error
	notes annotations.Annotations
}

// Next implements storage.SeriesSet.
func (l *listed) Next() bool { l.at++; return l.err == nil && l.at <= len(l.list) }

// At implements storage.SeriesSet.
func (l *listed) At() storage.Series { return l.list[l.at-1] }

// Err implements storage.SeriesSet.
func (l *listed) Err() error { return l.err }

// Warnings implements storage.SeriesSet.
func (l *listed) Warnings() annotations.Annotations { return l.notes }
