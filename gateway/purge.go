package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/telemetry"
	"sluice/uplink"
)

// OutboxList implements console.Outboxes.
func (g *gateway) OutboxList() (list []console.Destination) {
	for _, f := range g.forwarders {
		list = append(list, destinationStatus(f))
	}
	return list
}

func destinationStatus(f *forwarder) console.Destination {
	s := f.Status()
	d := console.Destination{
		Name: f.name, Type: f.kind, State: s.State.String(), Pending: s.Pending, Bytes: s.Bytes, Oldest: unixTime(s.OldestTime),
		Delivered: s.Delivered, Quarantined: s.Rejected, Rate: s.Rate, ETA: s.ETA.Seconds(), LastError: s.LastError,
		LastErrorAt: s.LastErrorAt, LastSuccess: s.LastSuccess,
		Kind: "destination", MaxBytes: s.MaxBytes, WhenFull: string(s.WhenFull), HeadMovedAt: s.HeadMovedAt, Degraded: s.Degraded,
		InFlight: s.InFlight, Batch: s.Batch, Rebuilds: s.Rebuilds, Forecast: forecast(&s.Forecast),
	}
	if f.kind == "webhook" {
		d.Kind = "webhook"
	}
	for _, n := range s.Shed {
		d.Shed += n
	}
	for _, t := range s.Tiers {
		tier := console.OutboxTier{Bytes: t.Bytes, Points: t.Pending}
		if t.Step > 0 {
			tier.Window = telemetry.WindowLabel(t.Step)
		}
		d.Tiers = append(d.Tiers, tier)
	}
	if b := s.Bandwidth; b != nil {
		d.Bandwidth = &console.OutboxBandwidth{
			BytesPerSecond: b.BytesPerSecond, BytesPerDay: b.BytesPerDay, BytesPerMonth: b.BytesPerMonth, SentToday: b.SentToday,
			SentThisMonth: b.SentThisMonth, Quiet: b.Quiet, QuietUntil: b.QuietUntil, Level: b.Level, PausedReason: b.PausedReason,
			PausedUntil: b.PausedUntil,
		}
	}
	if c := s.Canary; c != nil {
		d.Canary = &console.OutboxCanary{LastSeen: c.LastSeen, LastError: c.LastError, ReadBack: c.ReadBack}
	}
	return d
}

func forecast(f *uplink.Forecast) console.OutboxForecast {
	v := console.OutboxForecast{
		BytesPerDayIn: f.BytesPerDayIn, DaysUntilDegrade: console.Days(f.DaysUntilDegrade), DaysUntilFull: console.Days(f.DaysUntilFull),
		DaysAtCoarsest: console.Days(f.DaysAtCoarsest), MeasuredOver: f.MeasuredOver.Seconds(),
	}
	if f.Coarsest > 0 {
		v.Coarsest = telemetry.WindowLabel(f.Coarsest)
	}
	return v
}

// Purge implements console.Outboxes.
func (g *gateway) Purge(ctx context.Context, name string, p console.Purge) (uint64, error) {
	for _, f := range g.forwarders {
		if f.name != name {
			continue
		}
		before := int64(0)
		if !p.Before.IsZero() {
			before = p.Before.UnixNano()
		}
		n, err := f.Purge(ctx, before)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("a request to it is under way and has not ended in time; the purge may still happen when it does: %w", err)
			}
			return n, fmt.Errorf("purge %s: %w", name, err)
		}
		g.log.Warn("outbox purged", "destination", name, "points", n, "before", p.Before.Format(time.RFC3339), "by", p.By, "reason", p.Reason)
		return n, nil
	}
	return 0, fmt.Errorf("%w: there is no destination or webhook %q", console.ErrNotFound, name)
}

var _ console.Outboxes = (*gateway)(nil)
