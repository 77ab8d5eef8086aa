package config

import (
	"fmt"
	"path/filepath"
	"slices"
)

// RuleFiles expands rules.files: pattern by pattern, each in lexical order, every file once.
func RuleFiles(c *Config) ([]string, error) {
	var files []string
	for _, pattern := range c.Rules.Files {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			return nil, fmt.Errorf("expand rule files %s: %w", pattern, err)
		}
		slices.Sort(matches)
		for _, m := range matches {
			if !slices.Contains(files, m) {
				files = append(files, m)
			}
		}
	}
	return files, nil
}
