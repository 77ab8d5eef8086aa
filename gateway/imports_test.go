package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "sluice"

// arrows says which of our packages each package may import, tests aside: DESIGN's
// main > console > {pipeline, history, uplink} > {rules, rollup, decode} > {telemetry, seglog}, spelled out. A package that is
// not listed belongs to the closest listed folder above it; a package may import what lies below its own listed folder.
var arrows = map[string][]string{
	"gateway":           {"*"},
	"gateway/telemetry": {},
	"gateway/seglog":    {},
	"gateway/config":    {"gateway/telemetry"},
	"gateway/pipeline":  {"gateway/telemetry", "gateway/seglog", "broker/decode", "rules", "uplink/rollup"},
	"gateway/history":   {"gateway/telemetry", "gateway/seglog"},
	"gateway/console":   {"gateway/telemetry", "gateway/seglog", "gateway/pipeline", "gateway/history", "uplink", "rules"},
	"gateway/bench":     {"*"},
	"gateway/e2e":       {"*"},
	"broker":            {"gateway/telemetry", "gateway/seglog", "broker/passwd"},
	"broker/decode":     {"gateway/telemetry"},
	"broker/passwd":     {},
	"rules":             {"gateway/telemetry"},
	"uplink":            {"gateway/telemetry", "gateway/seglog", "uplink/condense"},
	"uplink/condense":   {"gateway/telemetry"},
	"uplink/rollup":     {"gateway/telemetry"},
	"firmware-sim":      {},
	"configs":           {},
	"systemd":           {},
	"docs":              {},
}

// sinkArrows are for uplink/influx, uplink/webhook and their kin: what they deliver for, and what they deliver.
var sinkArrows = []string{"uplink", "gateway/telemetry", "gateway/seglog"}

// sinksShare is what several sinks are built on.
const sinksShare = "uplink/stream"

// topLevel is what may stand at the repository's root.
var topLevel = []string{
	"gateway", "broker", "rules", "uplink", "configs", "firmware-sim", "systemd", "docs",
	"go.mod", "go.sum", "README.md", "LICENSE", "Makefile",
	"bin", // what make build makes; not in the repository
}

// sourceFile is one Go file of the repository.
type sourceFile struct {
	path string // from the root, with slashes
	ast  *ast.File
	test bool
}

func (f *sourceFile) pkg() string { return filepath.ToSlash(filepath.Dir(f.path)) }

// imports lists the file's imports of our own packages, without the module's name.
func (f *sourceFile) imports() []string {
	var own []string
	for _, spec := range f.ast.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if rest, ok := strings.CutPrefix(path, module+"/"); err == nil && ok {
			own = append(own, rest)
		}
	}
	return own
}

func parseRepository(t *testing.T) []*sourceFile {
	t.Helper()
	var files []*sourceFile
	fset := token.NewFileSet()
	root := os.DirFS("..")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(fset, filepath.Join("..", path), nil, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, &sourceFile{path, parsed, strings.HasSuffix(path, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// room is the listed folder that pkg belongs to.
func room(pkg string) string {
	for p := pkg; p != "."; p = filepath.ToSlash(filepath.Dir(p)) {
		if _, ok := arrows[p]; ok {
			return p
		}
	}
	return ""
}

// within tells whether pkg is folder or below it.
func within(pkg, folder string) bool { return pkg == folder || strings.HasPrefix(pkg, folder+"/") }

// mayImport tells whether a file of package from may import package to.
func mayImport(from, to string) bool {
	home := room(from)
	allowed := arrows[home]
	if home == "uplink" && from != "uplink" {
		allowed = sinkArrows
	}
	if home == "uplink" && room(to) == "uplink" {
		// Sinks know the uplink, not it them, nor one another.
		return from != "uplink" && (to == "uplink" || to == sinksShare || within(to, from))
	}
	if home == "gateway" && from != "gateway" {
		return false // a new room under gateway needs a line in the table
	}
	if home != "gateway" && home != "" && within(to, home) && room(to) == home {
		return true
	}
	for _, a := range allowed {
		if a == "*" || within(to, a) && room(to) == a {
			return true
		}
	}
	return false
}

func TestImports_RunOneWay(t *testing.T) {
	checked := 0
	for _, f := range parseRepository(t) {
		if room(f.pkg()) == "" {
			t.Errorf("%s: package %s is not in the table of arrows", f.path, f.pkg())
			continue
		}
		if f.test {
			continue
		}
		for _, to := range f.imports() {
			checked++
			if !mayImport(f.pkg(), to) {
				t.Errorf("%s: %s must not import %s", f.path, f.pkg(), to)
			}
		}
	}
	if checked == 0 {
		t.Fatal("no import was checked")
	}
}

// The table itself: what it must forbid, and that it forbids it.
func TestImports_TheTableKeepsTheWalls(t *testing.T) {
	for _, tc := range []struct {
		from, to string
		want     bool
	}{
		{"rules", "uplink", false}, {"uplink", "rules", false}, {"rules", "gateway/telemetry", true},
		{"gateway/pipeline", "uplink", false}, {"uplink", "gateway/pipeline", false}, {"gateway/pipeline", "uplink/rollup", true},
		{"gateway/pipeline", "broker", false}, {"broker", "gateway/pipeline", false}, {"gateway/pipeline", "broker/decode", true},
		{"gateway/telemetry", "gateway/seglog", false}, {"gateway/seglog", "gateway/telemetry", false},
		{"gateway/seglog", "gateway/seglog/fsys", true}, {"uplink", "gateway/seglog/fsys", true},
		{"uplink/influx", "uplink", true}, {"uplink", "uplink/influx", false}, {"uplink/webhook", "rules", false},
		{"uplink/influx", "uplink/webhook", false}, {"uplink/kafka", "uplink/stream", true}, {"uplink/stream", "uplink/kafka", false},
		{"uplink/kafka", "uplink/nats", false}, {"rules", "rules/expr", true}, {"rules/expr", "rules", true},
		{"broker", "broker/passwd", true}, {"broker", "broker/decode", false}, {"gateway/config", "broker/passwd", false},
		{"gateway/pipeline", "gateway", false}, {"gateway/newroom", "gateway/telemetry", false},
		{"gateway", "uplink/influx", true}, {"firmware-sim", "gateway/telemetry", false}, {"firmware-sim", "firmware-sim/sim", true},
		{"gateway/telemetry", "firmware-sim/sim", false},
	} {
		if got := mayImport(tc.from, tc.to); got != tc.want {
			t.Errorf("mayImport(%s, %s) = %v, want %v", tc.from, tc.to, got, tc.want)
		}
	}
}

// The simulator knows nothing of the gateway, in its tests neither: it must be able to find our faults.
func TestImports_SimulatorStandsAlone(t *testing.T) {
	for _, f := range parseRepository(t) {
		if !within(f.pkg(), "firmware-sim") {
			continue
		}
		for _, to := range f.imports() {
			if !within(to, "firmware-sim") {
				t.Errorf("%s imports %s", f.path, to)
			}
		}
	}
}

// Nothing registers itself: a kind is a row in a literal table.
func TestSource_HasNoInitFunctions(t *testing.T) {
	for _, f := range parseRepository(t) {
		if f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s has an init function", f.path)
			}
		}
	}
}

// Every package says what it is for.
func TestSource_EveryPackageHasADocComment(t *testing.T) {
	documented := map[string]bool{}
	for _, f := range parseRepository(t) {
		documented[f.pkg()] = documented[f.pkg()] || f.ast.Doc != nil
	}
	for pkg, ok := range documented {
		if !ok {
			t.Errorf("package %s has no doc comment", pkg)
		}
	}
}

// No util, common, types, manager, impl, helper: a name says what a thing is.
func TestSource_NamesSayWhatThingsAre(t *testing.T) {
	for _, f := range parseRepository(t) {
		for _, part := range strings.Split(strings.TrimSuffix(f.path, ".go"), "/") {
			for _, word := range strings.Split(part, "_") {
				if slices.Contains([]string{"util", "utils", "common", "types", "manager", "impl", "helper", "helpers", "misc"}, word) {
					t.Errorf("%s: %q says nothing", f.path, word)
				}
			}
		}
	}
}

func TestRepository_TopLevelIsFixed(t *testing.T) {
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(topLevel, e.Name()) {
			t.Errorf("%s does not belong at the top level", e.Name())
		}
	}
}

func TestDocs_LinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^):#]+)(#[^)]*)?\)`)
	files, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			found++
			if _, err := os.Stat(filepath.Join(filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", file, m[1], err)
			}
		}
	}
	if found == 0 {
		t.Error("no link was checked")
	}
}

// The configuration's document names every key of the schema.
func TestDocs_ConfigNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile("../docs/config.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("config/config.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("`yaml:\"([a-z_0-9]+)").FindAllStringSubmatch(string(source), -1) {
		switch m[1] {
		case "bytes_per_second", "bytes_per_day", "uplink", "destinations", "mqtt":
			continue // of types that this version does not have, or sections
		}
		if !strings.Contains(string(text), m[1]) {
			t.Errorf("docs/config.md does not mention %s", m[1])
		}
	}
}
