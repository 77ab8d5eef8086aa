package main

import (
	"fmt"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/history"
	"sluice/rules"
	"sluice/uplink"
)

func unixTime(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// Status implements console.Gateway.
func (g *gateway) Status() console.Status {
	v, b, now := g.runner.View(), g.broker.Stats(), g.clock.now()
	s := console.Status{
		Gateway: g.cfg.Gateway.ID, Version: readBuildInfo().Version, Started: g.started.UTC(), Now: unixTime(now),
		Uptime: time.Since(g.started).Seconds(),
		Messages: console.Messages{
			Received: uint64(b.Journalled + b.QoS0 + b.Uncovered), Rate: g.rate.per(now, b.Journalled+b.QoS0+b.Uncovered),
			Refused: uint64(b.Refused + b.Dropped), Uncovered: uint64(b.Uncovered),
		},
		Connections: b.Connections, Devices: v.Devices, Series: v.Series,
		Journal: console.Journal{
			First: uint64(g.journal.First()), Last: uint64(g.journal.Next() - 1), Durable: uint64(g.journal.Durable()),
			Bytes: g.journal.Bytes(),
		},
		Ledger: console.Ledger{Imbalance: v.Total.Imbalance()},
	}
	if err := g.journal.Err(); err != nil {
		s.Journal.Error = err.Error()
	}
	for i := range v.Alerts {
		s.Alerts = append(s.Alerts, alertStatus(&v.Alerts[i]))
	}
	for i := range v.Sources {
		l := &v.Sources[i]
		s.Ledger.Sources = append(s.Ledger.Sources, console.LedgerSource{
			Source: l.Source, Messages: l.Messages, Received: l.Received, Duplicate: l.Duplicate, Quarantined: l.Quarantined,
			Late: l.Late, Aggregated: l.Aggregated, Imbalance: l.Imbalance(),
		})
	}
	for _, f := range g.forwarders {
		d := destinationStatus(f)
		if f.kind == "webhook" {
			s.Webhooks = append(s.Webhooks, d)
		} else {
			s.Destinations = append(s.Destinations, d)
		}
	}
	return s
}

func alertStatus(a *rules.AlertView) console.Alert {
	since := a.StartsAt
	if since == 0 {
		since = a.ActiveAt
	}
	return console.Alert{
		Name: a.Alert, State: a.State.String(), Since: unixTime(since), Value: a.Value, Labels: a.Labels.Map(),
		Summary: a.Annotations.Get("summary"),
	}
}

func destinationStatus(f *forwarder) console.Destination {
	s := f.Status()
	return console.Destination{
		Name: f.name, Type: f.kind, State: s.State.String(), Pending: s.Pending, Bytes: s.Bytes, Oldest: unixTime(s.OldestTime),
		Delivered: s.Delivered, Quarantined: s.Rejected, Rate: s.Rate, ETA: s.ETA.Seconds(), LastError: s.LastError,
		LastErrorAt: s.LastErrorAt, LastSuccess: s.LastSuccess,
	}
}

// Ready implements console.Gateway: a part is well when it makes progress.
func (g *gateway) Ready() console.Readiness {
	r := console.Readiness{Ready: true}
	part := func(name, trouble, well string) {
		p := console.Part{Name: name, OK: trouble == "", Detail: well}
		if !p.OK {
			p.Detail, r.Ready = trouble, false
		}
		r.Parts = append(r.Parts, p)
	}
	trouble := ""
	if !g.ready.Load() {
		trouble = "not serving"
	}
	part("broker", trouble, fmt.Sprintf("%d connections", g.broker.Stats().Connections))

	trouble = ""
	if err := g.journal.Err(); err != nil {
		trouble = "takes no messages, nothing is acknowledged: " + err.Error()
	}
	part("journal", trouble, fmt.Sprintf("durable to %d", g.journal.Durable()))

	behind := int64(g.journal.Durable()) - int64(g.runner.Applied())
	trouble = ""
	switch {
	case g.outlet.waiting() != "":
		trouble = "waits for " + g.outlet.waiting()
	case !g.alive():
		trouble = fmt.Sprintf("stands still, %d records behind", behind)
	}
	part("pipeline", trouble, fmt.Sprintf("%d records behind", behind))

	trouble = ""
	if why := g.reloadErr.Load(); why != nil {
		trouble = "the last reload failed, the old ones are in force: " + *why
	}
	part("rules", trouble, fmt.Sprintf("%d alerts", len(g.runner.View().Alerts)))

	if g.history != nil {
		h := g.history.Status()
		trouble = ""
		if h.LastError != "" && h.LastError != history.ErrNoRoom.Error() { // a small disk is no fault
			trouble = "stands still, its readings wait in the journal: " + h.LastError
		}
		well := fmt.Sprintf("%s, %d records behind", h.State, int64(g.runner.Applied())-int64(h.Applied))
		if h.LastError != "" {
			well += ": " + h.LastError
		}
		part("history", trouble, well)
	}

	for _, f := range g.forwarders {
		s := f.Status()
		// A destination that is away for a while is what outboxes are for; what needs a person is not.
		trouble = ""
		if s.State == uplink.ConfigError || s.State == uplink.Disabled {
			trouble = s.State.String() + ": " + s.LastError
		}
		detail := fmt.Sprintf("%s, %d pending", s.State, s.Pending)
		if s.LastError != "" {
			detail += ", last error: " + s.LastError
		}
		part("destination "+f.name, trouble, detail)
	}
	return r
}
