package rules

import (
	"strings"
	"testing"
	"time"
)

// A rule file may come from an API. At its largest, whatever it holds, it is read or refused in bounded time: parsing it is linear, and
// seconds would mean it is not.
func TestParse_HostileFilesTakeBoundedTime(t *testing.T) {
	fill := func(s string) string { return strings.Repeat(s, MaxFile/len(s)) }
	rules := func(rule string) string {
		head := "groups:\n- name: g\n  rules:\n"
		return head + strings.Repeat(rule, (MaxFile-len(head))/len(rule))
	}
	for name, text := range map[string]string{
		"dashes":        fill("- "),
		"questions":     fill("? "),
		"brackets":      fill("["),
		"braces":        fill("{"),
		"flow keys":     "{" + fill("a:") + "}",
		"anchors":       fill("- &a a\n"),
		"aliases":       "a: &a [x]\nb: [" + strings.Repeat("*a,", 80_000) + "]",
		"keys":          fill("a: 1\n"),
		"quotes":        fill("'"),
		"block":         "a: |\n" + strings.Repeat(" x\n", 80_000),
		"comments":      fill("# x\n"),
		"blank lines":   fill("\n"),
		"tabs":          fill("\t"),
		"one long line": "groups: " + strings.Repeat("x", MaxFile-8),
		"braces open":   rules("  - { alert: A, annotations: { s: '" + strings.Repeat("{{ $value ", 200) + "' } }\n"),
		"nested ors":    rules("  - { alert: A, expr: '" + strings.Repeat("a > 1 or (", 60) + "a > 1" + strings.Repeat(")", 60) + "' }\n"),
		"bad exprs":     rules("  - { alert: A, expr: '" + strings.Repeat("a and ", 600) + "a' }\n"),
		"sums":          rules("  - { alert: A, expr: 'a > " + strings.Repeat("1+", 499) + "1' }\n"),
	} {
		start := time.Now()
		set, err := Parse([]File{{Name: "f.yaml", Data: []byte(text)}})
		if err == nil && set.Len() > 0 {
			t.Errorf("%s: accepted", name)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("%s: %v", name, took)
		} else {
			t.Logf("%s: %v", name, took)
		}
	}
}
