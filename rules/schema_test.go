package rules

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

func compiledSchema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()
	if err := c.AddResource("rules.json", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("rules.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, text []byte) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

// Every rule file that is shipped or stands in the documentation is valid by the schema and by the parser.
func TestSchema_AcceptsEveryShippedRuleFile(t *testing.T) {
	s := compiledSchema(t)
	seen := 0
	check := func(name string, text []byte) {
		seen++
		if _, err := Parse([]File{{Name: name, Data: text}}); err != nil {
			t.Errorf("%v", err)
		}
		if err := validate(t, s, text); err != nil {
			t.Errorf("%s: %v\n%s", name, err, text)
		}
	}
	files, _ := filepath.Glob("../configs/rules.d/*.yaml")
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.yaml") {
			check(name, text)
		}
	}
	doc, err := os.ReadFile("../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	for block := range strings.SplitSeq(string(doc), "```yaml\n") {
		if text, _, _ := strings.Cut(block, "```"); strings.HasPrefix(text, "groups:") {
			check("docs/rules.md", []byte(text))
		}
	}
	scenarios, _ := filepath.Glob("testdata/*.txtar")
	for _, name := range scenarios {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for part, body := range readScenario(string(text)).files {
			if strings.HasSuffix(part, ".yaml") {
				check(name+" "+part, []byte(body))
			}
		}
	}
	if seen < 20 {
		t.Errorf("only %d rule files were found", seen)
	}
}

func TestSchema_RefusesWhatTheParserRefuses(t *testing.T) {
	s := compiledSchema(t)
	for _, rule := range []string{
		`{ expr: t > 1 }`,
		`{ alert: A }`,
		`{ alert: "A/B", expr: t > 1 }`,
		`{ alert: A, expr: t > 1, for: 30 }`,
		`{ alert: A, expr: t > 1, for: soon }`,
		`{ alert: A, exp: t > 1 }`,
		`{ alert: A, expr: t > 1, interval: 5m }`,
		`{ alert: A, expr: t > 1, absent: { metric: t, after: 3x } }`,
		`{ alert: A, absent: { metric: t } }`,
		`{ alert: A, absent: { metric: t, after: x3 } }`,
		`{ alert: A, absent: { metric: t, after: 3x }, clear: t > 1 }`,
		`{ alert: A, anomaly: { metric: t, method: magic } }`,
		`{ alert: A, anomaly: { metric: t, sensitivity: 0 } }`,
		`{ alert: A, expr: t > 1, active: { hours: always } }`,
		`{ alert: A, expr: t > 1, active: { day: mon } }`,
		`{ alert: A, expr: t > 1, inhibit: { equal: [device] } }`,
		`{ alert: A, expr: t > 1, labels: { "a b": x } }`,
		`{ alert: A, expr: t > 1, webhooks: [] }`,
		`{ alert: A, expr: t > 1, webhooks: [ops, ops] }`,
	} {
		text := []byte(oneRule(rule))
		if err := validate(t, s, text); err == nil {
			t.Errorf("the schema accepts %s", rule)
		}
		if _, err := Parse([]File{{Name: "r.yaml", Data: text}}); err == nil {
			t.Errorf("the parser accepts %s", rule)
		}
	}
}
