package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// documents are the README and every page of docs/, by path.
func documents(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("../docs/*.md")
	if err != nil || len(files) == 0 {
		t.Fatalf("docs/*.md: %v, %v", files, err)
	}
	texts := map[string]string{}
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		texts[file] = string(text)
	}
	return texts
}

// What a document tells the reader to type is a command of the program, with flags that it has.
func TestDocs_CommandsAndFlagsExist(t *testing.T) {
	call := regexp.MustCompile("(?m)(?:^|`|-- |\\(|\\$ |&& |; |bin/|: +)sluice ([a-z][^`\n#|>&]*)")
	found := 0
	for file, text := range documents(t) {
		for _, m := range call.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1])
			cmd, _, err := newRoot(new(bool)).Find(words[:1])
			if err != nil || cmd.Parent() == nil {
				if strings.HasPrefix(m[0], "`") {
					t.Errorf("%s: %q: there is no command %s", file, m[0], words[0])
				}
				continue // prose
			}
			found++
			cmd, _, _ = newRoot(new(bool)).Find(words)
			for _, w := range words {
				w = strings.Trim(w, "[](),.;'\"")
				name, _, _ := strings.Cut(w, "=")
				known := true
				switch {
				case name == "--help":
				case strings.HasPrefix(name, "--") && len(name) > 2:
					known = cmd.Flags().Lookup(name[2:]) != nil
				case len(name) == 2 && name[0] == '-' && name[1] != '-':
					known = cmd.Flags().ShorthandLookup(name[1:]) != nil
				}
				if !known {
					t.Errorf("%s: sluice %s: %s has no flag %s", file, strings.TrimSpace(m[1]), cmd.CommandPath(), name)
				}
			}
		}
	}
	if found < 30 {
		t.Errorf("found %d calls of sluice in the documents: the pattern misses them", found)
	}
}

// A link's part behind the # is a heading of the page that it leads to.
func TestDocs_AnchorsAreHeadings(t *testing.T) {
	texts := documents(t)
	heading := regexp.MustCompile(`(?m)^#+ (.+)$`)
	dropped := regexp.MustCompile("[^a-z0-9 _-]")
	anchors := map[string]map[string]bool{}
	for file, text := range texts {
		anchors[file] = map[string]bool{}
		for _, m := range heading.FindAllStringSubmatch(text, -1) {
			anchors[file][strings.ReplaceAll(dropped.ReplaceAllString(strings.ToLower(m[1]), ""), " ", "-")] = true
		}
	}
	link := regexp.MustCompile(`\]\(([^):#]*)#([^)]+)\)`)
	for file, text := range texts {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := file
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			if known, ok := anchors[to]; ok && !known[m[2]] {
				t.Errorf("%s: %s has no heading %q", file, m[1], m[2])
			}
		}
	}
}
