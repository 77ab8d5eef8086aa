package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"sluice/gateway/console"
	"sluice/gateway/seglog"
	"sluice/rules"
	"sluice/rules/expr"
	policy "sluice/rules/notify"
)

// The desk is where operators look after alerts: what they ask for becomes a journal record, and shows once the pipeline has taken
// it in.

// operate journals a command and waits until it shows.
func (g *gateway) operate(ctx context.Context, c *policy.Command) error {
	c.Role = roleOf(ctx)
	if err := c.Validate(); err != nil {
		return fmt.Errorf("%w: %w", console.ErrInvalid, err)
	}
	lsn, err := g.intake.operate(c)
	if err != nil {
		return fmt.Errorf("journal the command: %w", err)
	}
	g.log.Info("operator", "op", string(c.Op), "by", c.By, "id", c.ID, "fingerprint", c.Fingerprint, "match", c.Match, "comment", c.Comment)
	return g.awaitView(ctx, lsn)
}

// awaitView waits until the view is at least that of a record.
func (g *gateway) awaitView(ctx context.Context, lsn seglog.LSN) error {
	t := time.NewTicker(5 * time.Millisecond)
	defer t.Stop()
	for g.runner.View().LSN < lsn {
		if err := g.journal.Err(); err != nil && g.journal.Durable() < lsn {
			return fmt.Errorf("the journal did not take it: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not in force yet: %w", ctx.Err())
		case <-t.C:
		}
	}
	return nil
}

// firing is nil when an alert with that fingerprint fires.
func (g *gateway) firing(fingerprint string) error {
	fp, err := policy.ParseFingerprint(fingerprint)
	if err != nil {
		return fmt.Errorf("%w: %w", console.ErrInvalid, err)
	}
	if s := g.runner.View().Notify.Alerts[fp]; s == nil || !s.Firing {
		return fmt.Errorf("%w: no alert with the fingerprint %s fires", console.ErrNotFound, fingerprint)
	}
	return nil
}

// Acknowledge implements console.Desk.
func (g *gateway) Acknowledge(ctx context.Context, fingerprint string, a console.Acknowledgement) error {
	if err := g.firing(fingerprint); err != nil {
		return err
	}
	return g.operate(ctx, &policy.Command{Op: policy.Acknowledge, By: a.Author, Comment: a.Comment, Fingerprint: fingerprint})
}

// Unacknowledge implements console.Desk.
func (g *gateway) Unacknowledge(ctx context.Context, fingerprint, by string) error {
	if err := g.firing(fingerprint); err != nil {
		return err
	}
	return g.operate(ctx, &policy.Command{Op: policy.Unacknowledge, By: by, Fingerprint: fingerprint})
}

// AddSilence implements console.Desk.
func (g *gateway) AddSilence(ctx context.Context, s console.NewSilence) (string, error) {
	c := &policy.Command{Op: policy.AddSilence, By: s.Author, Comment: s.Comment, ID: s.ID, Match: s.Match}
	now := g.clock.now()
	start := now
	if !s.StartsAt.IsZero() {
		start = max(s.StartsAt.UnixNano(), now)
	}
	c.StartsAt = start
	switch {
	case s.Duration != "" && !s.EndsAt.IsZero():
		return "", fmt.Errorf("%w: ends_at and duration: want one of both", console.ErrInvalid)
	case s.Duration != "":
		d, err := expr.ParseDuration(s.Duration)
		if err != nil {
			return "", fmt.Errorf("%w: duration: %w", console.ErrInvalid, err)
		}
		c.EndsAt = start + int64(min(d, policy.MaxSilence))
	case s.EndsAt.IsZero():
		return "", fmt.Errorf("%w: ends_at: want a time, or a duration", console.ErrInvalid)
	default:
		c.EndsAt = s.EndsAt.UnixNano()
	}
	known := g.runner.View().Notify.Silences
	switch {
	case c.ID == "":
		var id [8]byte
		rand.Read(id[:])
		c.ID = hex.EncodeToString(id[:])
		if active(known) >= policy.MaxSilences {
			return "", fmt.Errorf("%w: there are %d silences already", console.ErrInvalid, policy.MaxSilences)
		}
	case !hasSilence(known, c.ID):
		return "", fmt.Errorf("%w: no silence has the id %q; leave id out for a new one", console.ErrNotFound, c.ID)
	}
	return c.ID, g.operate(ctx, c)
}

func active(list []policy.Silence) (n int) {
	for i := range list {
		if list[i].State != policy.SilenceExpired {
			n++
		}
	}
	return n
}

func hasSilence(list []policy.Silence, id string) bool {
	for i := range list {
		if list[i].ID == id && list[i].State != policy.SilenceExpired {
			return true
		}
	}
	return false
}

// ExpireSilence implements console.Desk.
func (g *gateway) ExpireSilence(ctx context.Context, id, by string) error {
	if !hasSilence(g.runner.View().Notify.Silences, id) {
		return fmt.Errorf("%w: no silence in force or to come has the id %q", console.ErrNotFound, id)
	}
	return g.operate(ctx, &policy.Command{Op: policy.ExpireSilence, By: by, ID: id})
}

// ReloadRules implements console.Desk.
func (g *gateway) ReloadRules(ctx context.Context) error {
	if err := g.reload(); err != nil {
		g.log.Error("reload refused; the old ones stay in force", "err", err)
		var list rules.Errors
		if errors.As(err, &list) {
			return fmt.Errorf("%w: %w", console.ErrInvalid, err)
		}
		return err
	}
	g.log.Info("reloaded")
	return g.awaitView(ctx, g.journal.Next()-1)
}

// AlertList implements console.Desk.
func (g *gateway) AlertList() console.AlertList {
	v := g.runner.View()
	var l console.AlertList
	for i := range v.Alerts {
		l.Alerts = append(l.Alerts, alertDetail(&v.Alerts[i], v.Notify.Alerts[v.Alerts[i].Fingerprint]))
	}
	for i := range v.Notify.Recent {
		p := &v.Notify.Recent[i]
		d := console.AlertDetail{
			Fingerprint: policy.FormatFingerprint(p.Fingerprint), Name: p.Alert, State: "resolved", Since: unixTime(p.EndsAt), StartsAt: unixTime(p.StartsAt),
			EndsAt: unixTime(p.EndsAt), Value: finite(p.Value), Labels: p.Labels.Map(), Annotations: p.Annotations.Map(), SilencedBy: p.Silence,
			Inhibited: p.Inhibited, Acknowledged: ackDetail(p.Ack), Notifications: sentDetails(p.Log),
		}
		if s := v.Notify.Alerts[p.Fingerprint]; s != nil {
			d.Firings, d.Flapping = s.Flaps, policy.Flapping(s.Flaps)
		}
		l.Recent = append(l.Recent, d)
	}
	return l
}

func alertDetail(a *rules.AlertView, s *policy.Status) console.AlertDetail {
	d := console.AlertDetail{
		Fingerprint: policy.FormatFingerprint(a.Fingerprint), Name: a.Alert, Group: a.Group, State: a.State.String(), Since: unixTime(a.ActiveAt),
		Value: finite(a.Value), Score: orZero(a.Score), Labels: a.Labels.Map(), Annotations: a.Annotations.Map(), Inhibited: a.Inhibited,
	}
	if a.State == rules.Firing {
		d.StartsAt = unixTime(a.StartsAt)
		d.Since = d.StartsAt
	}
	if s == nil || a.State != rules.Firing {
		return d
	}
	d.SilencedBy, d.Acknowledged, d.Escalated, d.Notifications = s.Silence, ackDetail(s.Ack), s.Escalated, sentDetails(s.Log)
	d.Firings, d.Flapping = s.Flaps, policy.Flapping(s.Flaps)
	return d
}

func finite(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

func orZero(v float64) float64 {
	if p := finite(v); p != nil {
		return *p
	}
	return 0
}

func ackDetail(a *policy.Ack) *console.AckDetail {
	if a == nil {
		return nil
	}
	return &console.AckDetail{Author: a.By, Comment: a.Comment, At: unixTime(a.At)}
}

func sentDetails(log []policy.Sent) []console.SentDetail {
	list := make([]console.SentDetail, len(log))
	for i, s := range log {
		status := "resolved"
		if s.Firing {
			status = "firing"
		}
		list[i] = console.SentDetail{Time: unixTime(s.Time), Webhook: s.Receiver, Reason: s.Reason.String(), Status: status}
	}
	return list
}

// SilenceList implements console.Desk.
func (g *gateway) SilenceList() console.SilenceList {
	v := g.runner.View()
	var l console.SilenceList
	for i := range v.Notify.Silences {
		s := &v.Notify.Silences[i]
		l.Silences = append(l.Silences, console.SilenceDetail{
			ID: s.ID, State: s.State.String(), Match: s.Match, StartsAt: unixTime(s.StartsAt), EndsAt: unixTime(s.EndsAt),
			CreatedAt: unixTime(s.CreatedAt), Author: s.By, Comment: s.Comment, EndedBy: s.EndedBy,
		})
	}
	return l
}

// seriesShown bounds the series of one rule in an answer.
const seriesShown = 200

// RuleList implements console.Desk.
func (g *gateway) RuleList(ctx context.Context) (console.RuleList, error) {
	states, err := g.runner.RuleStates(ctx, seriesShown)
	if err != nil {
		return console.RuleList{}, fmt.Errorf("ask the pipeline: %w", err)
	}
	var l console.RuleList
	if why := g.reloadErr.Load(); why != nil {
		l.ReloadError = *why
	}
	for i := range states {
		l.Rules = append(l.Rules, ruleDetail(&states[i]))
	}
	return l, nil
}

func ruleDetail(s *rules.RuleState) console.RuleDetail {
	r := s.Rule
	d := console.RuleDetail{
		Name: r.Alert, Group: r.Group, File: r.File, Line: r.Line, Condition: condition(r), Match: r.Match.Patterns().Map(), Clear: r.Clear, For: r.For.Seconds(), KeepFor: r.KeepFiringFor.Seconds(),
		Labels: r.Labels.Map(), Annotations: r.Annotations.Map(), Webhooks: r.Webhooks, State: "inactive", Pending: s.Pending, Firing: s.Firing,
		Matched: s.Matched,
	}
	switch {
	case s.Firing > 0:
		d.State = rules.Firing.String()
	case s.Pending > 0:
		d.State = rules.Pending.String()
	}
	for i := range s.Series {
		one := &s.Series[i]
		series := console.SeriesDetail{Labels: one.Labels.Map(), State: "inactive", Since: unixTime(one.Since), LastEvaluated: unixTime(one.Evaluated), Why: one.Why}
		if one.Scored {
			series.Score = finite(one.Score)
		}
		if one.State != 0 {
			series.State, series.Fingerprint = one.State.String(), policy.FormatFingerprint(one.Fingerprint)
		}
		d.Series = append(d.Series, series)
	}
	return d
}

// condition puts what a rule looks for into words.
func condition(r *rules.Rule) string {
	switch {
	case r.Absent != nil:
		return "absent: " + r.Absent.Metric
	case r.Anomaly != nil:
		return "anomaly: " + r.Anomaly.Metric + " (" + r.Anomaly.Method + ")"
	}
	return r.Expr
}

var _ console.Desk = (*gateway)(nil)
