package main

import (
	"time"
	_ "time/tzdata" // zones, where the machine has no database of its own

	"sluice/broker/decode"
	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/rules"
	policy "sluice/rules/notify"
)

// buildSpec is what the fold needs of the config, with the text of the rule files. The config has been checked.
func buildSpec(cfg *config.Config, files []rules.File) *pipeline.Spec {
	s := &pipeline.Spec{
		Gateway: cfg.Gateway.ID,
		Labels:  cfg.Gateway.Labels,
		Zone:    gatewayZone(cfg.Gateway.Zone),
		Limits:  pipeline.Limits{Series: cfg.Limits.Series, Future: cfg.Limits.Future, Past: cfg.Limits.Past},
	}
	for i := range cfg.Sources {
		s.Sources = append(s.Sources, sourceSpec(&cfg.Sources[i], cfg.Gateway.Zone))
	}
	for i := range cfg.Webhooks {
		s.Receivers = append(s.Receivers, receiverSpec(&cfg.Webhooks[i]))
	}
	for _, f := range files {
		s.Rules = append(s.Rules, pipeline.RuleFile{Name: f.Name, Text: string(f.Data)})
	}
	return s
}

func sourceSpec(c *config.Source, gatewayZone string) pipeline.SourceSpec {
	s := pipeline.SourceSpec{
		Name: c.Name, Topic: c.Topic, Measurement: c.Measurement,
		Decode: decode.Spec{
			Format: c.Format, TimeField: c.Time.Field, TimeUnit: c.Time.Unit, Sequence: c.Sequence, Fields: c.Fields, Labels: c.Labels,
			Zone: zone(c, gatewayZone),
		},
		Send: pipeline.Send(c.Send), Window: c.Window, Grace: c.Grace, Lateness: c.Lateness,
		Expect: expectation(&c.Expect),
	}
	if s.Topic == "" {
		s.Topics = decode.Topics(c.Format)
	}
	if c.Retained != string(pipeline.RetainedFresh) {
		s.Retained = pipeline.Retained(c.Retained)
	}
	if s.Measurement == "" {
		s.Measurement = c.Name
	}
	if c.Late != string(pipeline.LateQuarantine) {
		s.Late = pipeline.Late(c.Late)
	}
	for _, st := range c.Stats {
		s.Stats = append(s.Stats, telemetry.Stat(st))
	}
	return s
}

// zone is the zone of a source's local times: the configured one, or the gateway's where the format's devices send local
// times by nature. It is resolved here, once: the spec holds the zone's offsets, not its name alone.
func zone(c *config.Source, gatewayZone string) *decode.Zone {
	name := c.Zone
	switch {
	case name != "":
	case !decode.Local(c.Format):
		return nil
	case gatewayZone != "":
		name = gatewayZone
	default:
		name = "Local"
	}
	loc, err := time.LoadLocation(name)
	if err != nil {
		return nil // refused by config
	}
	return decode.NewZone(name, loc)
}

// receiverSpec is how a webhook wants to be told; where it is and what it is sent is the outbox's side.
func receiverSpec(w *config.Webhook) policy.Receiver {
	return policy.Receiver{
		Name: w.Name, GroupBy: w.GroupBy, GroupWait: w.GroupWait, GroupInterval: w.GroupInterval, RepeatInterval: w.RepeatInterval,
		FlapFloor: w.FlapFloor, WholeGroup: w.Include == "group",
	}
}

func expectation(c *config.Expect) *pipeline.Expect {
	if len(c.Require) == 0 && len(c.Ranges) == 0 && len(c.Units) == 0 {
		return nil
	}
	e := &pipeline.Expect{Require: c.Require, Units: c.Units, Ranges: make(map[string]pipeline.Range, len(c.Ranges))}
	for metric, r := range c.Ranges {
		e.Ranges[metric] = pipeline.Range{Min: r.Min, Max: r.Max}
	}
	return e
}
