package main

import (
	"context"
	"fmt"
	"time"

	"sluice/gateway/config"
	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// openMeter opens what bounds a destination's traffic, nil where nothing does.
func (g *gateway) openMeter(d *config.Destination) (*uplink.Meter, error) {
	c := &d.Bandwidth
	b := uplink.Bandwidth{BytesPerSecond: int64(c.BytesPerSecond), BytesPerDay: int64(c.BytesPerDay), BytesPerMonth: int64(c.BytesPerMonth)}
	b.QuietFrom, b.QuietTo, _ = c.Quiet() // it was checked
	if !b.Any() {
		return nil, nil
	}
	name := c.Zone
	if name == "" {
		name = gatewayZone(g.cfg.Gateway.Zone)
	}
	var err error
	if b.Zone, err = time.LoadLocation(name); err != nil {
		return nil, &configError{fmt.Errorf("destination %s: bandwidth: %w", d.Name, err)}
	}
	m, err := uplink.OpenMeter(g.dir.fs, g.dir.join("outbox", d.Name), b)
	if err != nil {
		return nil, fmt.Errorf("destination %s: %w", d.Name, err)
	}
	g.kept = append(g.kept, m)
	return m, nil
}

// canaryMeasurement is what end-to-end checks write.
const canaryMeasurement = "sluice_canary"

// canary is the end-to-end check of d, nil where none is configured. It has connections of its own, under the same bounds.
func (g *gateway) canary(d *config.Destination, m *uplink.Meter) (*uplink.Canary, error) {
	if d.Canary.Every == 0 {
		return nil, nil
	}
	sink, _, err := openSink(d, g.cfg.Gateway.ID, shared{meter: m})
	if err != nil {
		return nil, &configError{fmt.Errorf("destination %s: canary: %w", d.Name, err)}
	}
	checker, ok := sink.(interface {
		Check(ctx context.Context, p *telemetry.Point) (readBack bool, err error)
	})
	if !ok {
		return nil, &configError{fmt.Errorf("destination %s: canary: type %s has none", d.Name, d.Type)}
	}
	labels := ownLabels(g.cfg).With(telemetry.Label{Name: "destination", Value: d.Name})
	return uplink.NewCanary(d.Canary.Every, func(ctx context.Context, at time.Time) (bool, error) {
		at = at.Truncate(time.Millisecond)
		return checker.Check(ctx, &telemetry.Point{Measurement: canaryMeasurement, Labels: labels, Time: at.UnixNano(),
			Fields: []telemetry.Field{{Name: "sent", Value: float64(at.UnixMilli()) / 1e3}}})
	}), nil
}
