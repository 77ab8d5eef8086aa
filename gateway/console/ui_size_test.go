package console

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// How one script of the build names another: at once, or when a view is opened.
var (
	atOnce = regexp.MustCompile(`(?:from|import)\s*["'` + "`" + `]\./([\w.-]+\.js)`)
	onOpen = regexp.MustCompile(`import\(\s*["'` + "`" + `]\./([\w.-]+\.js)`)
)

// needed adds to seen every script that name cannot do without, and with later those that are fetched while it shows.
func needed(files map[string]*uiFile, seen map[string]bool, name string, later bool) {
	if seen[name] {
		return
	}
	seen[name] = true
	for _, m := range atOnce.FindAllSubmatch(files["assets/"+name].raw, -1) {
		needed(files, seen, string(m[1]), later)
	}
	if later {
		for _, m := range onOpen.FindAllSubmatch(files["assets/"+name].raw, -1) {
			needed(files, seen, string(m[1]), later)
		}
	}
}

// The script of a page stays small enough for a slow link: 60 kB is the budget, and the first page, which is what somebody waits for, takes half.
func TestDashboard_ScriptIsSmall(t *testing.T) {
	if !uiBuilt() {
		missing(t, "the dashboard is not built: make ui")
	}
	files := dashboard()
	entry := regexp.MustCompile(`src="\./assets/([\w.-]+\.js)"`).FindSubmatch(files["index.html"].raw)
	if entry == nil {
		t.Fatalf("the page names no script: %s", files["index.html"].raw)
	}
	kB := func(seen map[string]bool) (n int) {
		for name := range seen {
			f, ok := files["assets/"+name]
			if !ok || f.gzip == nil && len(f.raw) >= 512 || len(f.raw) == 0 {
				t.Fatalf("%s is not there, or not in gzip", name)
			}
			n += max(len(f.gzip), min(len(f.raw), 512))
		}
		return n
	}
	first := map[string]bool{}
	needed(files, first, string(entry[1]), false)
	if n := kB(first); n >= 30_000 || n < 5_000 {
		t.Errorf("the first page's script is %d bytes in gzip, want less than 30000", n)
	} else {
		t.Logf("first page: %d bytes in gzip", n)
	}
	all := map[string]bool{}
	for name := range first {
		all[name] = true
		for _, m := range onOpen.FindAllSubmatch(files["assets/"+name].raw, -1) {
			page := map[string]bool{}
			for other := range first {
				page[other] = true
			}
			needed(files, page, string(m[1]), true)
			n := kB(page)
			if n >= 60_000 {
				t.Errorf("the page of %s loads %d bytes of script in gzip, want less than 60000", m[1], n)
			}
			t.Logf("page of %s: %d bytes in gzip", m[1], n)
			for other := range page {
				all[other] = true
			}
		}
	}
	for name := range files {
		if short, is := strings.CutPrefix(name, "assets/"); is && strings.HasSuffix(name, ".js") && !all[short] {
			t.Errorf("nothing loads %s", name)
		}
	}
	if len(all) < 8 || !slices.ContainsFunc(sortedKeys(all), func(n string) bool { return strings.HasPrefix(n, "plot-") }) {
		t.Errorf("the scripts found are %v: this test no longer reads the build", sortedKeys(all))
	}
	t.Logf("all of it: %d bytes in gzip", kB(all))
}
