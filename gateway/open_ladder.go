package main

import (
	"time"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/uplink/condense"
)

// horizon is how long after a window was sent first a corrected version of it may follow: the longest of all sources, and a
// minute for the ticks in between.
func horizon(sources []config.Source) time.Duration {
	var longest time.Duration
	for i := range sources {
		s := &sources[i]
		longest = max(longest, s.Window+s.Grace+s.Lateness)
	}
	return longest + time.Minute
}

// readings tells an outbox that merges points which of them are readings: those of measurements that a source sends. Where every source of a
// measurement sends aggregates of its readings as well, these hold them; where only some do, readings stay as they are.
func readings(sources []config.Source) condense.Policy {
	type plain struct {
		alone, both bool
		stats       []telemetry.Stat
	}
	byName := make(map[string]plain)
	for i := range sources {
		s := &sources[i]
		send := pipeline.Send(s.Send)
		if send == pipeline.SendAggregates {
			continue
		}
		name := s.Measurement
		if name == "" {
			name = s.Name
		}
		p := byName[name]
		p.alone, p.both = p.alone || send != pipeline.SendBoth, p.both || send == pipeline.SendBoth
		for _, stat := range s.Stats {
			p.stats = append(p.stats, telemetry.Stat(stat))
		}
		byName[name] = p
	}
	return func(measurement string) (condense.Readings, []telemetry.Stat) {
		switch p := byName[measurement]; {
		case p.alone && !p.both:
			return condense.Merge, p.stats
		case p.both && !p.alone:
			return condense.Covered, nil
		}
		return condense.Keep, nil
	}
}
