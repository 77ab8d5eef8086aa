package rules

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"sluice/gateway/telemetry"
	"sluice/rules/expr"
)

// feedSource says whose values a feed takes: those of one metric of all devices that a selector matches. Of these, the feed is the
// newest by event time; of equal times the one that came last. It is kept up to date as values come in, so reading it costs nothing
// however many devices there are.
type feedSource struct {
	match  Matchers
	metric string
	key    string
}

// parseSelector reads label=pattern pairs: site=plant-7,device=pump-*. The error's offset is in s.
func parseSelector(s string) (Matchers, *templateError) {
	var m Matchers
	at := 0
	for pair := range strings.SplitSeq(s, ",") {
		start := at
		at += len(pair) + 1
		name, pattern, ok := strings.Cut(pair, "=")
		name, pattern = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(pattern), `'`)
		switch {
		case !ok:
			return nil, &templateError{start, fmt.Sprintf("a selector is label=pattern, as in site=plant-7,device=pump-*, got %s", quote(pair))}
		case !labelName(name) || len(name) > maxName:
			return nil, &templateError{start, quote(name) + " is no label name"}
		case slices.ContainsFunc(m, func(o matcher) bool { return o.label == name }):
			return nil, &templateError{start, "the label " + name + " is here twice"}
		}
		one, err := newMatcher(name, pattern)
		if err != nil {
			return nil, &templateError{start, name + ": " + err.Error()}
		}
		m = append(m, one)
	}
	slices.SortFunc(m, func(a, b matcher) int { return strings.Compare(a.label, b.label) })
	return m, nil
}

// feedsOf lists what the rules of a set read of other devices, each once.
func feedsOf(set *Set) []feedSource {
	var list []feedSource
	for _, r := range set.rules {
		i := 0
		for _, p := range r.programs() {
			for _, f := range p.Feeds() {
				src := feedSource{match: r.selectors[i], metric: f.Metric}
				src.key = string(appendLabels(telemetry.AppendString(nil, f.Metric), src.match.Patterns()))
				if feedIndex(list, src.key) < 0 {
					list = append(list, src)
				}
				i++
			}
		}
	}
	return list
}

func feedIndex(list []feedSource, key string) int {
	return slices.IndexFunc(list, func(f feedSource) bool { return f.key == key })
}

// feedSlots finds a program's feeds among the engine's; from is where the program's begin among the rule's selectors.
func (e *Engine) feedSlots(r *Rule, p *expr.Program, from int) []int32 {
	var slots []int32
	for i, f := range p.Feeds() {
		key := string(appendLabels(telemetry.AppendString(nil, f.Metric), r.selectors[from+i].Patterns()))
		slots = append(slots, int32(feedIndex(e.sources, key)))
	}
	return slots
}

// useFeeds puts a set's feeds in force; those it shares with the last set keep their values.
func (e *Engine) useFeeds(set *Set) {
	sources := feedsOf(set)
	feeds := make([]expr.Feed, len(sources))
	for i := range sources {
		feeds[i] = expr.Feed{Value: math.NaN()}
		if old := feedIndex(e.sources, sources[i].key); old >= 0 {
			feeds[i] = e.feeds[old]
		}
	}
	e.sources, e.feeds = sources, feeds
}

// feed takes a value in for feeds.
func (e *Engine) feed(to []int32, now, t int64, v float64) {
	for _, i := range to {
		f := &e.feeds[i]
		if f.Value == f.Value && t < f.Time {
			continue
		}
		if f.Value != v {
			e.armFed(now)
		}
		f.Value, f.Time = v, t
	}
}
