package main

import (
	"time"

	"sluice/gateway/config"
	"sluice/gateway/pipeline"
	"sluice/gateway/telemetry"
	"sluice/uplink/condense"
)

// horizon is how long after a window was sent first a corrected version of it may follow: the longest of all sources, and some
// seconds for the ticks in between. Readings are not corrected: 0 where nothing else is sent.
func horizon(sources []config.Source) time.Duration {
	var longest time.Duration
	for i := range sources {
		s := &sources[i]
		if pipeline.Send(s.Send) == pipeline.SendReadings {
			continue
		}
		longest = max(longest, s.Window+s.Grace+s.Lateness)
	}
	if longest == 0 {
		return 0
	}
	return longest + 15*time.Second
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

// liveWindow is the shortest window of points that are put, 0 where readings are.
func liveWindow(sources []config.Source) time.Duration {
	var shortest time.Duration
	for i := range sources {
		s := &sources[i]
		if pipeline.Send(s.Send) != pipeline.SendAggregates {
			return 0
		}
		if shortest == 0 || s.Window < shortest {
			shortest = s.Window
		}
	}
	return shortest
}

// ownLabels are on the points that the gateway makes of itself.
func ownLabels(cfg *config.Config) telemetry.Labels {
	return telemetry.LabelsFromMap(cfg.Gateway.Labels).With(telemetry.Label{Name: "gateway", Value: cfg.Gateway.ID})
}

// sourceOf names the source that sends a measurement; where several do, the measurement stands for them.
func sourceOf(sources []config.Source) func(string) string {
	by := make(map[string]string)
	for i := range sources {
		s := &sources[i]
		m := s.Measurement
		if m == "" {
			m = s.Name
		}
		if _, taken := by[m]; taken {
			by[m] = m
			continue
		}
		by[m] = s.Name
	}
	return func(measurement string) string {
		if name, ok := by[measurement]; ok {
			return name
		}
		return measurement
	}
}
