package config

import "strings"

// noEffect lists keys that the schema has and this version ignores without harm.
var noEffect = []string{}

// withoutEffect names every written key that does nothing in this version.
func (k *checker) withoutEffect() {
	for key := range k.places {
		if matchesKey(noEffect, key) && k.isLeaf(key) {
			k.warn(key, "has no effect in this version")
		}
	}
}

// isLeaf is false for sections, for entries of lists, and for the names inside a map.
func (k *checker) isLeaf(key string) bool {
	return !k.sections[key] && !strings.HasSuffix(key, "]")
}

// matchesKey tells whether key is one of patterns or below one.
func matchesKey(patterns []string, key string) bool {
	plain := plainKey(key)
	for _, p := range patterns {
		if plain == p || strings.HasPrefix(plain, p+".") {
			return true
		}
	}
	return false
}

// plainKey leaves the indexes out: uplink.destinations[].disk.
func plainKey(key string) string {
	var plain strings.Builder
	inside := false
	for _, r := range key {
		switch {
		case r == ']':
			inside = false
		case inside:
			continue
		case r == '[':
			inside = true
		}
		plain.WriteRune(r)
	}
	return plain.String()
}
