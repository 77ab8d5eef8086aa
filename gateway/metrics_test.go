package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// scrape reads /metrics as Prometheus does.
func (s *testSite) scrape() map[string]*dto.MetricFamily {
	s.t.Helper()
	r, err := http.Get("http://" + s.g.console.Addr().String() + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	families, err := p.TextToMetricFamilies(r.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return families
}

// busySite is a gateway with which everything has happened that has a metric.
func busySite(t *testing.T) *testSite {
	t.Helper()
	s, _ := startSite(t, t.TempDir())
	s.publish("line/freezer-1", `{"temperature":-5}`)
	s.publish("line/freezer-1", `{"temperature":`)
	s.await("an attempt at the destination that is not there, and something in quarantine", func() bool {
		f := s.scrape()
		destinations := map[string]bool{}
		if a := f["sluice_sink_attempts_total"]; a != nil {
			for _, m := range a.Metric {
				destinations[label(m, "destination")] = true
			}
		}
		return destinations["cloud"] && sum(f["sluice_sink_attempts_total"]) > 0 && sum(f["sluice_quarantined_total"]) > 0
	})
	return s
}

// sum adds up a family of counters.
func sum(f *dto.MetricFamily) (total float64) {
	for _, m := range f.GetMetric() {
		total += m.GetCounter().GetValue()
	}
	return total
}

func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestMetrics_NamesTypesAndLabelsAreTheContract(t *testing.T) {
	s := busySite(t)
	f := s.scrape()
	counter, gauge, histogram := dto.MetricType_COUNTER, dto.MetricType_GAUGE, dto.MetricType_HISTOGRAM
	for _, c := range []struct {
		name   string
		kind   dto.MetricType
		labels string // names, sorted
	}{
		{"sluice_mqtt_messages_total", counter, "outcome"},
		{"sluice_readings_total", counter, "outcome"},
		{"sluice_ack_duration_seconds", histogram, ""},
		{"sluice_end_to_end_duration_seconds", histogram, "destination"},
		{"sluice_journal_commit_duration_seconds", histogram, ""},
		{"sluice_journal_bytes", gauge, ""},
		{"sluice_outbox_points", gauge, "destination"},
		{"sluice_outbox_bytes", gauge, "destination"},
		{"sluice_outbox_oldest_timestamp_seconds", gauge, "destination"},
		{"sluice_points_delivered_total", counter, "destination"},
		{"sluice_sink_attempts_total", counter, "destination outcome"},
		{"sluice_quarantined_total", counter, "reason"},
		{"sluice_alerts", gauge, "state"},
		{"sluice_notifications_total", counter, "outcome webhook"},
		{"sluice_ledger_imbalance", gauge, ""},
		{"sluice_device_bytes_written_total", counter, ""},
		{"sluice_mqtt_connections", gauge, ""},
		{"sluice_build_info", gauge, "goversion version"},
	} {
		family := f[c.name]
		if family == nil {
			t.Errorf("/metrics has no %s", c.name)
			continue
		}
		if family.GetType() != c.kind {
			t.Errorf("%s is a %s, want %s", c.name, family.GetType(), c.kind)
		}
		for _, m := range family.Metric {
			var names []string
			for _, l := range m.Label {
				names = append(names, l.GetName())
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != c.labels {
				t.Errorf("%s has the labels %q, want %q", c.name, got, c.labels)
			}
		}
	}
	var outcomes []string
	for _, m := range f["sluice_readings_total"].GetMetric() {
		outcomes = append(outcomes, label(m, "outcome"))
	}
	slices.Sort(outcomes)
	if fmt.Sprint(outcomes) != "[accepted duplicate late quarantined]" {
		t.Errorf("outcomes of readings: %v", outcomes)
	}
	name := regexp.MustCompile(`^sluice_[a-z0-9_]+$`)
	for _, family := range f {
		if !strings.HasPrefix(family.GetName(), "sluice_") {
			continue
		}
		if !name.MatchString(family.GetName()) || family.GetHelp() == "" ||
			(family.GetType() == counter) != strings.HasSuffix(family.GetName(), "_total") {
			t.Errorf("%s, a %s: %q", family.GetName(), family.GetType(), family.GetHelp())
		}
		for _, m := range family.Metric {
			for _, l := range m.Label {
				if strings.HasPrefix(l.GetValue(), "freezer") {
					t.Errorf("%s has a device in its labels", family.GetName())
				}
			}
		}
	}
}

// A counter that appears with its first event already counted has no increase.
func TestMetrics_CountersAreThereBeforeTheirFirstEvent(t *testing.T) {
	s, _ := startSite(t, t.TempDir())
	f := s.scrape()
	for name, want := range map[string]struct {
		label  string
		values []string
	}{
		"sluice_quarantined_total":      {"reason", quarantineReasons},
		"sluice_sink_attempts_total":    {"outcome", attemptOutcomes},
		"sluice_mqtt_messages_total":    {"outcome", []string{"acked", "unacked", "qos0", "uncovered", "refused", "dropped"}},
		"sluice_readings_total":         {"outcome", []string{"accepted", "duplicate", "late", "quarantined"}},
		"sluice_points_shed_total":      {"reason", []string{"outbox_full", "expired", "damaged", "purged"}},
		"sluice_notifications_total":    {"outcome", []string{"delivered", "rejected"}},
		"sluice_history_readings_total": {"outcome", []string{"stored", "conflict", "too_old"}},
	} {
		for _, value := range want.values {
			if !slices.ContainsFunc(f[name].GetMetric(), func(m *dto.Metric) bool { return label(m, want.label) == value }) {
				t.Errorf("no %s{%s=%q} at the start", name, want.label, value)
			}
		}
	}
}

// Every reason there is for a refusal is one of those that are counted from the start.
func TestMetrics_KnowEveryReason(t *testing.T) {
	for _, dir := range []string{filepath.Join("..", "broker", "decode"), "pipeline"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		found := 0
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`(?m)^(?:const |\s)\s*(Reason\w+)\s*= "(\w+)"`).FindAllSubmatch(b, -1) {
				found++
				if !slices.Contains(quarantineReasons, string(m[2])) {
					t.Errorf("%s: %s is not in quarantineReasons", file, m[1])
				}
			}
		}
		if found < 10 {
			t.Errorf("%d reasons in %s", found, dir)
		}
	}
}

// docs/metrics.md lists what a gateway has to show, and nothing else.
func TestMetrics_StandInTheDocs(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "docs", "metrics.md"))
	if err != nil {
		t.Fatal(err)
	}
	described := map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(sluice_[a-z0-9_]+)` \\| ([a-z]+) \\| ([a-z, ]*) \\| .+ \\|$").FindAllStringSubmatch(string(b), -1) {
		described[m[1]] = m[2:]
	}
	for name, family := range busySite(t).scrape() {
		if !strings.HasPrefix(name, "sluice_") {
			continue
		}
		row := described[name]
		if row == nil {
			t.Errorf("docs/metrics.md lacks %s", name)
			continue
		}
		var names []string
		for _, l := range family.Metric[0].Label {
			names = append(names, l.GetName())
		}
		want := strings.Split(row[1], ", ")
		slices.Sort(want)
		slices.Sort(names)
		if got := strings.ToLower(family.GetType().String()); got != row[0] || strings.Join(names, ", ") != strings.Join(want, ", ") {
			t.Errorf("docs/metrics.md has %s as a %s with the labels %q; it is a %s with %q", name, row[0], row[1], got, names)
		}
	}
	source, err := os.ReadFile("metrics.go")
	if err != nil {
		t.Fatal(err)
	}
	for name := range described {
		if !strings.Contains(string(source), `desc("`+strings.TrimPrefix(name, "sluice_")+`"`) {
			t.Errorf("docs/metrics.md describes %s, which does not exist", name)
		}
	}
}

// known tells whether a selector can match something on /metrics, label names and, where it asks for equality, values included.
func known(f map[string]*dto.MetricFamily, sel *parser.VectorSelector) error {
	name := sel.Name
	family := f[name]
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		if base, ok := strings.CutSuffix(name, suffix); ok && family == nil && f[base] != nil && f[base].GetType() == dto.MetricType_HISTOGRAM {
			family = f[base]
		}
	}
	if family == nil {
		return fmt.Errorf("nothing on /metrics is called %s", name)
	}
	for _, m := range sel.LabelMatchers {
		if m.Name == model.MetricNameLabel || m.Name == "instance" || m.Name == "job" || m.Type != labels.MatchEqual {
			continue
		}
		if !slices.ContainsFunc(family.Metric, func(one *dto.Metric) bool { return label(one, m.Name) == m.Value }) {
			return fmt.Errorf("no %s has %s=%q", name, m.Name, m.Value)
		}
	}
	return nil
}

func checkExpr(t *testing.T, f map[string]*dto.MetricFamily, where, text string) {
	t.Helper()
	e, err := parser.NewParser(parser.Options{}).ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	parser.Inspect(e, func(n parser.Node, _ []parser.Node) error {
		if sel, ok := n.(*parser.VectorSelector); ok && sel.Name != "up" { // of the Prometheus that scrapes
			if err := known(f, sel); err != nil {
				t.Errorf("%s: %v", where, err)
			}
		}
		return nil
	})
}

func TestShippedPrometheusAlerts_AreRulesOnMetricsThatExist(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "configs", "prometheus-alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	groups, errs := rulefmt.Parse(b, false, model.UTF8Validation, parser.NewParser(parser.Options{}), slog.New(slog.DiscardHandler))
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	f := busySite(t).scrape()
	seen := map[string]bool{}
	for _, group := range groups.Groups {
		for _, r := range group.Rules {
			if r.Alert == "" || seen[r.Alert] || r.Labels["severity"] == "" || r.Annotations["summary"] == "" || r.Annotations["description"] == "" {
				t.Errorf("%+v: want a name of its own, a severity, a summary and a description", r)
			}
			seen[r.Alert] = true
			checkExpr(t, f, r.Alert, r.Expr)
		}
	}
	if len(seen) < 8 {
		t.Errorf("%d alerts", len(seen))
	}
}

func TestShippedGrafanaDashboard_AsksForMetricsThatExist(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "configs", "grafana-dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Title, UID string
		Templating struct {
			List []struct{ Name, Type, Definition string }
		}
		Panels []struct {
			ID      int
			Type    string
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct {
				Expr       string
				Datasource struct{ Type, UID string }
			}
		}
	}
	if err := json.Unmarshal(b, &d); err != nil || d.Title == "" || d.UID == "" {
		t.Fatalf("%v: %+v", err, d)
	}
	f := busySite(t).scrape()
	ids, queries := map[int]bool{}, 0
	taken := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 {
			t.Errorf("panel %d %q at %+v: want an id and a place of its own", p.ID, p.Title, p.GridPos)
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if taken[at] != "" {
					t.Fatalf("%q lies on %q", p.Title, taken[at])
				}
				taken[at] = p.Title
			}
		}
		for _, q := range p.Targets {
			queries++
			if q.Datasource.Type != "prometheus" || q.Datasource.UID != "${datasource}" {
				t.Errorf("%q asks %+v", p.Title, q.Datasource)
			}
			checkExpr(t, f, p.Title, strings.NewReplacer("$__rate_interval", "5m", "$instance", ".*", "$job", ".*").Replace(q.Expr))
		}
	}
	if queries < 25 {
		t.Errorf("%d queries", queries)
	}
	for _, v := range d.Templating.List {
		if v.Type == "query" && !strings.Contains(v.Definition, "sluice_build_info") {
			t.Errorf("variable %s: %s", v.Name, v.Definition)
		}
	}
}
