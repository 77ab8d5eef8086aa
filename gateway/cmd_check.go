package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"sluice/broker/acl"
	"sluice/broker/passwd"
	"sluice/gateway/config"
	"sluice/gateway/console"
	"sluice/rules"
	"sluice/uplink/webhook"
)

func newCheckCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check-config",
		Short: "Check the configuration, its rule files, password file and access list, and report every error at once",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := loadConfig(path)
			if err != nil {
				return err
			}
			printWarnings(cmd.OutOrStdout(), cfg)
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok: %s\n", path, summary(cfg))
			return nil
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func printWarnings(w io.Writer, cfg *config.Config) {
	for _, warning := range cfg.Warnings {
		fmt.Fprintf(w, "warning: %s\n", warning)
	}
	for _, e := range metricWarnings(cfg) {
		fmt.Fprintf(w, "warning: %s\n%s", e, e.Snippet())
	}
}

// metricWarnings are metrics in rules that no source sends. It is no error: one set of rules may serve many gateways.
func metricWarnings(cfg *config.Config) rules.Errors {
	files, err := readRuleFiles(cfg)
	if err != nil {
		return nil // reported already
	}
	set, err := rules.Parse(files)
	if err != nil {
		return nil
	}
	var errs rules.Errors
	errors.As(set.CheckMetrics(declared(cfg)), &errs)
	return errs
}

// declared are the metrics of the sources that list theirs.
func declared(cfg *config.Config) []rules.Declared {
	var list []rules.Declared
	for i := range cfg.Sources {
		s := &cfg.Sources[i]
		d := rules.Declared{Measurement: s.Measurement}
		if d.Measurement == "" {
			d.Measurement = s.Name
		}
		if s.Format == "json" {
			for _, f := range s.Fields {
				d.Metrics = append(d.Metrics, strings.ReplaceAll(f, ".", "_"))
			}
		}
		list = append(list, d)
	}
	return list
}

// summary counts what the configuration sets up.
func summary(cfg *config.Config) string {
	n := func(n int, word string) string {
		if n != 1 {
			word += "s"
		}
		return fmt.Sprintf("%d %s", n, word)
	}
	files, _ := config.RuleFiles(cfg) // checkFiles has reported what is wrong with them
	return fmt.Sprintf("gateway %s, %s, %s, %s, %s, %s", cfg.Gateway.ID, n(len(cfg.MQTT.Listeners), "listener"),
		n(len(cfg.Sources), "source"), n(len(files), "rule file"), n(len(cfg.Webhooks), "webhook"),
		n(len(cfg.Uplink.Destinations), "destination"))
}

// checkFiles reads the rule files, the password file, the access list and the secrets that cfg names. What config.Load has reported about them
// already, such as their absence or who else can read them, it leaves out.
func checkFiles(cfg *config.Config) error {
	var errs []error
	files, err := readRuleFiles(cfg)
	if err == nil {
		err = withDetail(checkRules(files, cfg))
	}
	errs = append(errs, err)
	if f := cfg.MQTT.PasswordFile; f != "" && canOpen(f) {
		_, err := passwd.Load(f)
		errs = append(errs, err)
	}
	if f := cfg.MQTT.ACLFile; f != "" && canOpen(f) {
		_, err := acl.Load(f)
		errs = append(errs, err)
	}
	if f := cfg.HTTP.UsersFile; f != "" && canOpen(f) {
		_, err := console.LoadUsers(f)
		errs = append(errs, err)
	}
	for i := range cfg.Webhooks {
		if w := &cfg.Webhooks[i]; w.Format != "template" || canOpen(w.TemplateFile) {
			if _, err := webhookFormat(w); err != nil {
				errs = append(errs, fmt.Errorf("%s: webhooks[%d].template_file: %w", cfg.File, i, err))
			}
		}
		if secret, err := readSecret(cfg.Webhooks[i].SecretFile); err == nil {
			if err := new(webhook.Sink).SetSecrets([]string{secret}); err != nil {
				errs = append(errs, fmt.Errorf("%s: webhooks[%d].secret_file: %w", cfg.File, i, err))
			}
		}
	}
	for i, d := range cfg.Uplink.Destinations {
		if _, err := rules.ParseMatchers(d.Match); err != nil {
			errs = append(errs, fmt.Errorf("%s: uplink.destinations[%d].match: %w", cfg.File, i, err))
		}
	}
	for _, f := range secretFiles(cfg) {
		if info, err := os.Stat(f); err == nil && info.Mode().Perm()&0o004 == 0 && canOpen(f) {
			_, err := config.ReadSecret(f)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// checkSinks makes every destination's sink, which does not connect, for what only the sink itself refuses.
func checkSinks(cfg *config.Config) error {
	var errs []error
	for i := range cfg.Uplink.Destinations {
		sink, _, err := openSink(&cfg.Uplink.Destinations[i], cfg.Gateway.ID, shared{})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: uplink.destinations[%d]: %w", cfg.File, i, err))
		} else if c, ok := sink.(io.Closer); ok {
			c.Close()
		}
	}
	return errors.Join(errs...)
}

func canOpen(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	return f.Close() == nil
}

// secretFiles lists what is sent to other machines: it must be readable and not empty before the first use at night.
func secretFiles(cfg *config.Config) []string {
	var files []string
	for _, w := range cfg.Webhooks {
		if w.SecretFile != "" {
			files = append(files, w.SecretFile)
		}
	}
	for _, d := range cfg.Uplink.Destinations {
		for _, f := range []string{d.TokenFile, d.PasswordFile} {
			if f != "" {
				files = append(files, f)
			}
		}
	}
	return files
}

func readRuleFiles(cfg *config.Config) ([]rules.File, error) {
	names, err := config.RuleFiles(cfg)
	if err != nil {
		return nil, err
	}
	var files []rules.File
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read rules: %w", err)
		}
		files = append(files, rules.File{Name: name, Data: data})
	}
	return files, nil
}

// checkRules compiles the rule files as the gateway will, and holds their webhooks to those of cfg.
func checkRules(files []rules.File, cfg *config.Config) error {
	set, err := rules.Parse(files)
	if err != nil {
		return err
	}
	names := make([]string, len(cfg.Webhooks))
	for i, w := range cfg.Webhooks {
		names[i] = w.Name
	}
	return set.CheckWebhooks(names)
}
