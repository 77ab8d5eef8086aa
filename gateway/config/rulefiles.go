package config

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// RuleFiles expands rules.files: pattern by pattern, each in lexical order, every file once. Rule tests, whose names end in _test.yaml
// or _test.yml, stand beside the rules and are left out, unless a pattern names them outright.
func RuleFiles(c *Config) ([]string, error) {
	var files []string
	for _, pattern := range c.Rules.Files {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("expand rule files %s: %w", pattern, err)
		}
		slices.Sort(matches)
		for _, m := range matches {
			if test := m != pattern && IsRuleTest(m); !test && !slices.Contains(files, m) {
				files = append(files, m)
			}
		}
	}
	return files, nil
}

// IsRuleTest tells whether a file's name says that it holds rule tests.
func IsRuleTest(name string) bool {
	return strings.HasSuffix(name, "_test.yaml") || strings.HasSuffix(name, "_test.yml")
}
