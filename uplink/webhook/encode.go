package webhook

import (
	"encoding/json"
	"slices"
	"strconv"
	"time"
)

// Bodies are written by hand: an alert's way out is short enough for reflection to be a visible part of it. The bytes are
// those of encoding/json.

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			text, _ := json.Marshal(s) // strings always can
			return append(b, text...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendKey appends the key of a member; before is what stands before it.
func appendKey(b []byte, before byte, name string) []byte {
	return append(append(append(b, before, '"'), name...), '"', ':')
}

func appendMember(b []byte, before byte, name, value string) []byte {
	return appendText(appendKey(b, before, name), value)
}

func appendIfSet(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendMember(b, ',', name, value)
}

// appendMap appends an object, an empty one for nil, with its keys in order.
func appendMap(b []byte, m map[string]string) []byte {
	var room [24]string
	names := room[:0]
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	b = append(b, '{')
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, name), ':')
		b = appendText(b, m[name])
	}
	return append(b, '}')
}

func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}

func appendNumber(b []byte, before byte, name string, n int64) []byte {
	return strconv.AppendInt(appendKey(b, before, name), n, 10)
}
