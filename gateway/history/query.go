package history

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/util/annotations"
)

// Bounds of what queries may take.
const (
	queryTimeout  = 20 * time.Second
	maxSamples    = 2_000_000 // in memory at a time, of one query: 32 MB
	maxConcurrent = 4
	lookback      = 5 * time.Minute // a value counts for as long, Prometheus' default
)

// Bounds of a query's text, since the engine trusts it: it walks an expression recursively, and it allocates for every step of a
// subquery before it looks at any sample, so that x[100y:1ms] would end the process for want of memory.
const (
	maxQueryBytes     = 32 << 10
	maxSubquerySteps  = 100_000
	defaultResolution = time.Minute // of a subquery that does not say
)

var errTooLong = fmt.Errorf("longer than %d bytes", maxQueryBytes)

// bounded refuses what the engine should not even begin with. span is the time a range query covers. What does not parse is left to
// the engine, which says so better.
func (w *web) bounded(text string, span time.Duration) error {
	if len(text) > maxQueryBytes {
		return errTooLong
	}
	e, err := w.parser.ParseExpr(text)
	if err != nil {
		return nil
	}
	return boundedSubqueries(e, float64(span))
}

// boundedSubqueries bounds the steps of each subquery, which covers its own range and those around it.
func boundedSubqueries(n parser.Node, span float64) error {
	if s, ok := n.(*parser.SubqueryExpr); ok {
		step := s.Step
		if step <= 0 {
			step = defaultResolution
		}
		span += float64(s.Range)
		if span/float64(step) > maxSubquerySteps {
			return fmt.Errorf("subquery %s has more than %d steps; try a longer resolution", s, maxSubquerySteps)
		}
	}
	for child := range parser.ChildrenIter(n) {
		if err := boundedSubqueries(child, span); err != nil {
			return err
		}
	}
	return nil
}

// errNotOpen is what queries get while there is nothing to ask.
var errNotOpen = errors.New("the history is not open yet")

func newEngine(p parser.Parser) *promql.Engine {
	return promql.NewEngine(promql.EngineOpts{
		MaxSamples: maxSamples, Timeout: queryTimeout, LookbackDelta: lookback, EnableAtModifier: true, EnableNegativeOffset: true,
		NoStepSubqueryIntervalFn: func(int64) int64 { return defaultResolution.Milliseconds() }, Parser: p,
	})
}

// WithScope returns a context in which queries see nothing but series with these labels: tenants stay apart. Label names are those
// of the device, as in the configuration; a label that only becomes the same name in PromQL is another one.
func WithScope(ctx context.Context, own map[string]string) context.Context {
	var ms []*labels.Matcher
	for name, value := range own {
		ms = append(ms, confined(name, value)...)
	}
	return context.WithValue(ctx, scopeKey{}, scope{labels: own, matchers: ms})
}

type scopeKey struct{}

type scope struct {
	labels   map[string]string // of the device
	matchers []*labels.Matcher
}

func scoped(ctx context.Context, ms []*labels.Matcher) []*labels.Matcher {
	s, _ := ctx.Value(scopeKey{}).(scope)
	return append(ms[:len(ms):len(ms)], s.matchers...)
}

// within tells whether a device with these labels is within a context's scope.
func within(ctx context.Context, device map[string]string) bool {
	s, _ := ctx.Value(scopeKey{}).(scope)
	for name, value := range s.labels {
		if device[name] != value {
			return false
		}
	}
	return true
}

// Querier implements storage.Queryable for the readings as they were counted; times in ms.
func (h *History) Querier(from, to int64) (storage.Querier, error) {
	h.storeMu.RLock()
	if h.store == nil {
		h.storeMu.RUnlock()
		return nil, errNotOpen
	}
	q, err := h.store.db.Querier(from, to)
	if err != nil {
		h.storeMu.RUnlock()
		return nil, err
	}
	return &querier{Querier: q, release: h.storeMu.RUnlock}, nil
}

// querier gives back what was packed, within its context's scope, and keeps the store open.
type querier struct {
	storage.Querier
	release func()
}

// Close implements storage.Querier.
func (q *querier) Close() error {
	err := q.Querier.Close()
	if q.release != nil {
		q.release()
		q.release = nil
	}
	return err
}

// Select implements storage.Querier.
func (q *querier) Select(ctx context.Context, sorted bool, hints *storage.SelectHints, ms ...*labels.Matcher) storage.SeriesSet {
	return seriesSet{q.visible(ctx, sorted, q.Querier.Select(ctx, sorted, hints, scoped(ctx, ms)...))}
}

// LabelValues implements storage.Querier.
func (q *querier) LabelValues(ctx context.Context, name string, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	if name == renamedLabel {
		return nil, nil, nil
	}
	return q.Querier.LabelValues(ctx, name, hints, scoped(ctx, ms)...)
}

// LabelNames implements storage.Querier.
func (q *querier) LabelNames(ctx context.Context, hints *storage.LabelHints, ms ...*labels.Matcher) ([]string, annotations.Annotations, error) {
	names, notes, err := q.Querier.LabelNames(ctx, hints, scoped(ctx, ms)...)
	return slices.DeleteFunc(names, func(n string) bool { return n == renamedLabel }), notes, err
}

type seriesSet struct{ storage.SeriesSet }

// At implements storage.SeriesSet.
func (s seriesSet) At() storage.Series { return unpacked{s.SeriesSet.At()} }

type unpacked struct{ storage.Series }

// Iterator implements storage.Series.
func (s unpacked) Iterator(it chunkenc.Iterator) chunkenc.Iterator {
	reuse, ok := it.(*iterator)
	if !ok {
		reuse = &iterator{}
	}
	reuse.Iterator = s.Series.Iterator(reuse.Iterator)
	return reuse
}

type iterator struct{ chunkenc.Iterator }

// At implements chunkenc.Iterator.
func (it *iterator) At() (int64, float64) {
	t, v := it.Iterator.At()
	return t, unpack(v)
}
