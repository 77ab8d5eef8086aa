package sim

import (
	"bytes"
	"math/rand/v2"
)

// breakage is one way to spoil a payload; in is well formed and must not be changed.
type breakage struct {
	name  string
	spoil func(in []byte, r *rand.Rand) []byte
}

var breakages = []breakage{
	{"truncated", func(in []byte, r *rand.Rand) []byte {
		return bytes.Clone(in[:1+r.IntN(len(in)-1)]) // never whole, never empty
	}},
	{"nan", func(in []byte, r *rand.Rand) []byte { return replaceNumber(in, "temperature", "NaN") }},
	{"infinity", func(in []byte, r *rand.Rand) []byte { return replaceNumber(in, "temperature", "-Infinity") }},
	{"huge", func(in []byte, r *rand.Rand) []byte { return replaceNumber(in, "temperature", "1e999") }},
	{"string", func(in []byte, r *rand.Rand) []byte { return quoteNumbers(in) }},
	{"invalid_utf8", func(in []byte, r *rand.Rand) []byte {
		out := bytes.Clone(in)
		if i := bytes.Index(out, []byte(`"line":"`)); i >= 0 {
			out[i+len(`"line":"`)] = 0xff // inside a string, so that only the encoding is wrong
		}
		return out
	}},
	{"deep", func(in []byte, r *rand.Rand) []byte {
		const depth = 2000
		out := bytes.Repeat([]byte(`{"a":`), depth)
		out = append(out, in...)
		return append(out, bytes.Repeat([]byte{'}'}, depth)...)
	}},
	{"empty", func(in []byte, r *rand.Rand) []byte { return []byte{} }},
	{"garbage", func(in []byte, r *rand.Rand) []byte {
		out := make([]byte, 16+r.IntN(64))
		for i := range out {
			out[i] = byte(r.Uint32())
		}
		return out
	}},
}

// MalformedKinds lists the ways a malformed payload may be broken.
func MalformedKinds() []string { return malformedNames() }

func malformedNames() []string {
	names := make([]string, len(breakages))
	for i, b := range breakages {
		names[i] = b.name
	}
	return names
}

// breakPayload spoils a payload in the named way, or in one drawn from r for "any", and says which it was.
func breakPayload(in []byte, how string, r *rand.Rand) ([]byte, string) {
	b := breakages[r.IntN(len(breakages))]
	for _, row := range breakages {
		if row.name == how {
			b = row
		}
	}
	return b.spoil(in, r), b.name
}

// replaceNumber puts text in place of the value of a top-level number of a payload written by device.payload.
func replaceNumber(in []byte, key, text string) []byte {
	k := []byte(`"` + key + `":`)
	i := bytes.Index(in, k)
	if i < 0 {
		return in
	}
	i += len(k)
	j := i + bytes.IndexAny(in[i:], ",}")
	out := append(bytes.Clone(in[:i]), text...)
	return append(out, in[j:]...)
}

// quoteNumbers turns every measured number into a string with a decimal comma, as in "temperature":"21,5"; ts and seq
// stay numbers, so that only the values are wrong.
func quoteNumbers(in []byte) []byte {
	start := bytes.Index(in, []byte(`"temperature":`))
	if start < 0 {
		return in
	}
	out := bytes.Clone(in[:start])
	for i := start; i < len(in); {
		c := in[i]
		if c != '-' && (c < '0' || c > '9') {
			out = append(out, c)
			i++
			continue
		}
		end := i + bytes.IndexAny(in[i:], ",}")
		out = append(out, '"')
		out = append(out, bytes.ReplaceAll(in[i:end], []byte("."), []byte(","))...)
		out = append(out, '"')
		i = end
	}
	return out
}
