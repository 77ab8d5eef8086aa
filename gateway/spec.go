package main

import (
	"sluice/broker/decode"
	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/rules"
)

// buildSpec is what the fold needs of the config, with the text of the rule files.
func buildSpec(cfg *config.Config, files []rules.File) *pipeline.Spec {
	s := &pipeline.Spec{
		Gateway: cfg.Gateway.ID,
		Labels:  cfg.Gateway.Labels,
		Limits:  pipeline.Limits{Series: cfg.Limits.Series, Future: cfg.Limits.Future, Past: cfg.Limits.Past},
	}
	for i := range cfg.Sources {
		s.Sources = append(s.Sources, sourceSpec(&cfg.Sources[i]))
	}
	for _, f := range files {
		s.Rules = append(s.Rules, pipeline.RuleFile{Name: f.Name, Text: string(f.Data)})
	}
	return s
}

func sourceSpec(c *config.Source) pipeline.SourceSpec {
	s := pipeline.SourceSpec{
		Name: c.Name, Topic: c.Topic, Measurement: c.Measurement,
		Decode: decode.Spec{
			Format: c.Format, TimeField: c.Time.Field, TimeUnit: c.Time.Unit, Sequence: c.Sequence, Fields: c.Fields, Labels: c.Labels,
		},
		Send: pipeline.Send(c.Send), Window: c.Window, Grace: c.Grace, Lateness: c.Lateness,
	}
	if s.Measurement == "" {
		s.Measurement = c.Name
	}
	for _, st := range c.Stats {
		s.Stats = append(s.Stats, telemetry.Stat(st))
	}
	return s
}
