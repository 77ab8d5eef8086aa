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
		Ledger: console.Ledger{Imbalance: g.imbalance(v), Lost: g.lost(), Sources: ledgerSources(v)},
	}
	if free, total, err := diskRoom(g.dir.path); err == nil {
		s.Disk = console.Disk{Free: free, Total: total}
	}
	if err := g.journal.Err(); err != nil {
		s.Journal.Error = err.Error()
	}
	for i := range v.Alerts {
		s.Alerts = append(s.Alerts, alertStatus(&v.Alerts[i]))
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

	if v := g.runner.View(); v.Unset { // alerts go on, and that it is right some day is not ours to see to
		part("clock", "", fmt.Sprintf("not set: %d messages are held until it is", v.Held))
	}

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
		well := fmt.Sprintf("%s, %d records behind", h.State, max(0, int64(g.runner.Applied())-int64(h.Applied))) // it reads the journal, and may be ahead
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
		if why := standsStill(&s, time.Now()); why != "" {
			trouble = why
		}
		detail := fmt.Sprintf("%s, %d pending", s.State, s.Pending)
		if s.LastError != "" {
			detail += ", last error: " + s.LastError
		}
		part("destination "+f.name, trouble, detail)
	}
	return r
}

// headStuckAfter is how long the oldest record of a destination that answers may stay the oldest.
const headStuckAfter = 10 * time.Minute

// standsStill explains a destination that should make progress and does not: nothing is wrong with the way there, and nothing holds it back.
func standsStill(s *uplink.Status, now time.Time) string {
	if s.Pending == 0 || s.State != uplink.Sending && s.State != uplink.Idle || s.HeadMovedAt.IsZero() || s.Bandwidth != nil && s.Bandwidth.Level > 0 {
		return ""
	}
	still := now.Sub(s.HeadMovedAt)
	if still < headStuckAfter {
		return ""
	}
	return fmt.Sprintf("the oldest of %d has not moved for %s although the destination reports no error; the client was made again %d times",
		s.Pending, still.Round(time.Second), s.Rebuilds)
}
