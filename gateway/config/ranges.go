package config

import (
	"math"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// decodeRanges reads names and their ranges, each a list of two numbers of which one may be null.
func (d *decoder) decodeRanges(file string, n *yaml.Node, key string) map[string]Range {
	m := map[string]Range{}
	if isNull(n) {
		return m
	}
	if n.Kind != yaml.MappingNode {
		d.errorAt(at(file, n), "%s: want metrics and ranges, got %s", key, describe(n))
		return m
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := deref(n.Content[i]), deref(n.Content[i+1])
		if d.budget--; d.budget < 0 {
			return m
		}
		if k.Kind != yaml.ScalarNode {
			d.errorAt(at(file, k), "%s: a name must be a word", key)
			continue
		}
		if _, ok := m[k.Value]; ok {
			d.errorAt(at(file, k), "duplicate key %q", join(key, k.Value))
		}
		d.places[join(key, k.Value)] = at(file, k)
		m[k.Value] = d.decodeRange(file, v, join(key, k.Value))
	}
	return m
}

func (d *decoder) decodeRange(file string, n *yaml.Node, key string) (r Range) {
	if n.Kind != yaml.SequenceNode || len(n.Content) != 2 {
		d.errorAt(at(file, n), "%s: want a range such as [-40, 85], got %s", key, describe(n))
		return r
	}
	for i, bound := range [...]**float64{&r.Min, &r.Max} {
		item := deref(n.Content[i])
		if isNull(item) {
			continue
		}
		v, err := strconv.ParseFloat(item.Value, 64)
		if item.Kind != yaml.ScalarNode || err != nil || math.IsNaN(v) || math.IsInf(v, 0) || octalLooking(item.Value) {
			d.errorAt(at(file, item), "%s: want a number or null, got %s", key, describe(item))
			continue
		}
		*bound = &v
	}
	return r
}
