package main

import (
	"cmp"
	"slices"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/pipeline"
)

func ledgerSources(v *pipeline.View) (list []console.LedgerSource) {
	for i := range v.Sources {
		l := v.Sources[i].Net()
		list = append(list, console.LedgerSource{
			Source: v.Sources[i].Source, Messages: l.Messages, Received: l.Received, Duplicate: l.Duplicate, Quarantined: l.Quarantined,
			Late: l.Late, Aggregated: l.Aggregated, Backfilled: l.Backfilled, Requeued: l.Requeued + l.RequeuedLate, Imbalance: l.Imbalance(),
		})
	}
	return list
}

// ledgerDestination counts each point once, where it is now: one that was refused and put back on its way is pending, delivered or refused
// again, and no longer refused the first time.
func (g *gateway) ledgerDestination(f *forwarder) console.LedgerDestination {
	c := f.outbox.Counters()
	back := min(g.outlet.quarantine.Requeued(f.name), c.Rejected)
	d := console.LedgerDestination{
		Name: f.name, Delivered: c.Delivered, Pending: c.Pending, Degraded: c.Degraded, Rejected: c.Rejected - back, Requeued: back,
		Points: c.Enqueued - back, Imbalance: f.outbox.Imbalance(),
	}
	for _, n := range c.Shed {
		d.Shed += n
	}
	return d
}

// imbalance is what no ledger explains, of sources and destinations.
func (g *gateway) imbalance(v *pipeline.View) int64 {
	n := v.Total.Imbalance()
	for _, f := range g.forwarders {
		n += f.outbox.Imbalance()
	}
	return n
}

// Ledger implements console.Accounts.
func (g *gateway) Ledger(since time.Time) console.LedgerReport {
	v := g.runner.View()
	r := console.LedgerReport{Imbalance: g.imbalance(v), Now: unixTime(g.clock.now()), Since: since, Sources: ledgerSources(v)}
	for _, f := range g.forwarders {
		r.Destinations = append(r.Destinations, g.ledgerDestination(f))
	}
	for _, l := range g.losses() {
		if !l.Noted.Before(since) {
			r.Losses = append(r.Losses, l)
			r.Lost += l.Count
		}
	}
	return r
}

// losses lists all that is nowhere any more, by when that was noted.
func (g *gateway) losses() (list []console.Loss) {
	for _, f := range g.forwarders {
		losses, _ := f.outbox.Losses()
		for _, l := range losses {
			list = append(list, console.Loss{
				From: unixTime(l.From), To: unixTime(l.To), Noted: unixTime(l.Noted), Source: l.Source, Destination: f.name, Reason: l.Reason,
				Count: l.Points, Readings: l.Readings,
			})
		}
	}
	for _, l := range g.outlet.quarantine.Losses() {
		readings := l.Count
		if l.Destination != "" {
			readings = 0
		}
		list = append(list, console.Loss{
			From: unixTime(l.From), To: unixTime(l.To), Noted: unixTime(l.Noted), Source: l.Source, Destination: l.Destination, Reason: l.Reason,
			Count: l.Count, Readings: readings,
		})
	}
	slices.SortStableFunc(list, func(a, b console.Loss) int {
		return cmp.Or(a.Noted.Compare(b.Noted), cmp.Compare(a.Destination, b.Destination), cmp.Compare(a.Source, b.Source))
	})
	return list
}

// lost counts what is nowhere any more.
func (g *gateway) lost() (n uint64) {
	for _, f := range g.forwarders {
		for _, shed := range f.outbox.Counters().Shed {
			n += shed
		}
	}
	for _, l := range g.outlet.quarantine.Losses() {
		n += l.Count
	}
	return n
}

var _ console.Accounts = (*gateway)(nil)
