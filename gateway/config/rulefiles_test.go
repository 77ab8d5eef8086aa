package config

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRuleFiles_LeavesRuleTestsOutUnlessNamed(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{"b.yaml", "a.yaml", "a_test.yaml", "b_test.yml", "test.yaml"} {
		if err := os.WriteFile(path(name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ patterns, want []string }{
		{[]string{path("*.yaml"), path("*.yml"), path("a.yaml")}, []string{path("a.yaml"), path("b.yaml"), path("test.yaml")}},
		{[]string{path("a_test.yaml")}, []string{path("a_test.yaml")}},
	} {
		got, err := RuleFiles(&Config{Rules: Rules{Files: c.patterns}})
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("RuleFiles(%v) = %v, %v; want %v", c.patterns, got, err, c.want)
		}
	}
}
