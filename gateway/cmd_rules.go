package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sluice/rules"
	"sluice/rules/ruletest"
)

func newRulesCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rules",
		Short: "Test rules offline, backtest them on the journal, describe their files to editors",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRulesTestCommand(), newBacktestCommand(), newRulesSchemaCommand())
	return cmd
}

func newRulesSchemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of rule files, for editors",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(rules.Schema())
			return err
		},
	}
}

func newRulesTestCommand() *cobra.Command {
	var verbose bool
	var configFile string
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Run rule tests on a virtual clock; exit 0 when all hold, 1 when not",
		Long: "Run rule tests on a virtual clock. FILE may be a pattern such as 'rules.d/*_test.yaml'. With --config, webhooks group, repeat and render\n" +
			"as they are configured; without it as a webhook without settings does, but for what the test file says.\nExit codes: 0 all hold, 1 some do not or a file is broken, 2 usage.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			names, err := expand(args)
			if err != nil {
				return err
			}
			o, err := testOptions(configFile)
			if err != nil {
				return err
			}
			return testRules(cmd.OutOrStdout(), names, verbose, o)
		},
	}
	cmd.Flags().StringVar(&configFile, "config", "", "configuration whose webhooks the tests speak of; default: none")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "name the tests that hold, too")
	return cmd
}

// expand turns patterns into the names of files; one that matches nothing is an error of usage.
func expand(patterns []string) ([]string, error) {
	var names []string
	for _, p := range patterns {
		matches, err := filepath.Glob(p)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w: %w", p, err, errUsage)
		}
		if len(matches) == 0 {
			return nil, fmt.Errorf("%s: no such file: %w", p, errUsage)
		}
		names = append(names, matches...)
	}
	return names, nil
}

// errTests is the outcome of tests that ran and do not hold; the details are printed already.
var errTests = errors.New("rule tests failed")

// testRules runs test files and prints what does not hold.
func testRules(w io.Writer, names []string, verbose bool, o ruletest.Options) error {
	failed, ran := 0, 0
	var broken []error
	for _, name := range names {
		file, set, err := readTests(name)
		if err != nil {
			broken = append(broken, err)
			continue
		}
		for _, r := range ruletest.Run(file, set, o) {
			ran++
			if len(r.Failures) == 0 {
				if verbose {
					fmt.Fprintf(w, "ok   %s: %s\n", name, r.Name)
				}
				continue
			}
			failed++
			fmt.Fprintf(w, "FAIL %s:%d: %s\n", name, r.Line, r.Name)
			for _, f := range r.Failures {
				fmt.Fprintf(w, "  %s:%d: %s", name, f.Line, indent(f.Text))
			}
		}
	}
	switch {
	case len(broken) > 0:
		return errors.Join(broken...)
	case failed > 0:
		fmt.Fprintf(w, "%d of %d tests failed\n", failed, ran)
		return errTests
	}
	fmt.Fprintf(w, "ok: %s\n", count(ran, "test"))
	return nil
}

func count(n int, word string) string {
	if n != 1 {
		word += "s"
	}
	return fmt.Sprintf("%d %s", n, word)
}

// indent moves all lines but the first to the right.
func indent(text string) string {
	return strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}

// readTests reads a test file and the rules it names.
func readTests(name string) (*rules.TestFile, *rules.Set, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, err
	}
	file, err := rules.ParseTests(rules.File{Name: name, Data: data})
	if err != nil {
		return nil, nil, withDetail(err)
	}
	var patterns []string
	for _, p := range file.Rules {
		if !filepath.IsAbs(p) {
			p = filepath.Join(filepath.Dir(name), p)
		}
		patterns = append(patterns, p)
	}
	set, err := readRules(patterns)
	if err != nil {
		return nil, nil, fmt.Errorf("rules of %s:\n%w", name, err)
	}
	return file, set, nil
}

// readRules reads and compiles rule files.
func readRules(patterns []string) (*rules.Set, error) {
	files, err := readFiles(patterns)
	if err != nil {
		return nil, err
	}
	set, err := rules.Parse(files)
	if err != nil {
		return nil, withDetail(err)
	}
	return set, nil
}

func readFiles(patterns []string) ([]rules.File, error) {
	names, err := expand(patterns)
	if err != nil {
		return nil, err
	}
	var files []rules.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, rules.File{Name: name, Data: data})
	}
	return files, nil
}

// detailed is an error that shows each fault of rule files with its line and a caret.
type detailed struct{ rules.Errors }

func (d detailed) Error() string { return strings.TrimSuffix(d.Detail(), "\n") }
func (d detailed) Unwrap() error { return d.Errors }

// withDetail has an error show the lines at fault, where it knows them.
func withDetail(err error) error {
	var errs rules.Errors
	if errors.As(err, &errs) {
		return detailed{errs}
	}
	return err
}
