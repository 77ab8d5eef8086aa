package webhook

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"sluice/uplink"
)

// backlog makes records of lines such as "60m changed aa=firing bb=resolved": their age, reason and alerts.
func backlog(t *testing.T, now time.Time, lines ...string) []uplink.Record {
	t.Helper()
	var recs []uplink.Record
	for i, line := range lines {
		words := strings.Fields(line)
		age, err := time.ParseDuration(words[0])
		if err != nil {
			t.Fatal(err)
		}
		var alerts []Alert
		for _, w := range words[2:] {
			device, status, _ := strings.Cut(w, "=")
			a := hot(device, status)
			a.StartsAt = a.StartsAt.Add(time.Duration(i) * time.Second)
			if status == "resolved" {
				a.EndsAt = a.StartsAt.Add(time.Second)
			}
			alerts = append(alerts, a)
		}
		r := record(t, group(fmt.Sprintf("msg_%d", i), words[1], alerts...))
		r.LSN, r.Cause = uint64(i+1), uplink.Cause{LSN: uint64(i + 1), Time: now.Add(-age).UnixNano()}
		recs = append(recs, r)
	}
	return recs
}

// told is what a list of notifications says, one line each.
func told(list []*Notification) string {
	var lines []string
	for _, n := range list {
		line := n.Reason
		for _, a := range n.Alerts {
			line += " " + a.Labels["device"] + "=" + a.Status
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func TestDigest_WhatBeganAndEndedMeanwhileIsToldTogether(t *testing.T) {
	now := time.Now()
	d := &digester{after: 5 * time.Minute}
	for name, tt := range map[string]struct{ in, want []string }{
		"a pair":                    {[]string{"60m changed aa=firing", "59m changed aa=resolved"}, []string{"digest aa=resolved"}},
		"a pair too young":          {[]string{"3m changed aa=firing", "2m changed aa=resolved"}, nil},
		"nothing to collapse":       {[]string{"60m changed aa=resolved", "59m changed bb=firing"}, nil},
		"known before, ended, then": {[]string{"60m changed aa=resolved", "50m changed aa=firing", "40m changed aa=resolved", "30m changed aa=firing"}, []string{"changed aa=resolved", "digest aa=resolved", "changed aa=firing"}},
		"repeats belong to a pair":  {[]string{"60m changed aa=firing", "50m repeated aa=firing", "40m changed aa=resolved"}, []string{"digest aa=resolved"}},
		"a repeat of what was told": {[]string{"60m repeated aa=firing", "50m changed aa=resolved", "40m changed bb=firing", "30m changed bb=resolved"}, []string{"repeated aa=firing", "changed aa=resolved", "digest bb=resolved"}},
		"notifications are divided": {[]string{"60m changed aa=firing bb=firing", "50m changed aa=resolved", "40m changed cc=firing"}, []string{"changed bb=firing", "changed cc=firing", "digest aa=resolved"}},
		"young pairs follow":        {[]string{"60m changed aa=firing", "59m changed aa=resolved", "2m changed aa=firing", "1m changed aa=resolved"}, []string{"digest aa=resolved", "changed aa=firing", "changed aa=resolved"}},
	} {
		recs := backlog(t, now, tt.in...)
		list, n := d.of(recs, now)
		if got := told(list); got != strings.Join(tt.want, "\n") || tt.want != nil && n != len(recs) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, strings.Join(tt.want, "\n"))
		}
		again, _ := d.of(recs, now)
		for i := range list {
			if list[i].ID != again[i].ID {
				t.Errorf("%s: notification %d is %s, then %s", name, i, list[i].ID, again[i].ID)
			}
			body, err := Alertmanager.render(list[i])
			if err != nil {
				t.Fatal(err)
			}
			wantStock(t, body)
		}
	}
}

// For each alert, what a receiver is told in the end is what happened last, and nothing is told out of order.
func TestDigest_KeepsTheOrderOfEachAlert(t *testing.T) {
	now := time.Now()
	lines := []string{}
	firing := map[string]bool{}
	for i := range 200 {
		device := fmt.Sprintf("d%d", i*7%5)
		firing[device] = !firing[device]
		status := map[bool]string{true: "firing", false: "resolved"}[firing[device]]
		lines = append(lines, fmt.Sprintf("%dm changed %s=%s", 300-i, device, status))
	}
	list, _ := (&digester{after: 150 * time.Minute}).of(backlog(t, now, lines...), now)
	if len(list) == 0 || len(list) > 120 {
		t.Fatalf("%d notifications instead of 200", len(list))
	}
	ids := map[string]bool{}
	last := map[string]Alert{}
	for _, n := range list {
		if ids[n.ID] {
			t.Errorf("id %s twice", n.ID)
		}
		ids[n.ID] = true
		for _, a := range n.Alerts {
			device := a.Labels["device"]
			if was, ok := last[device]; ok && a.StartsAt.Before(was.StartsAt) {
				t.Errorf("%s: told of %v after %v", device, a.StartsAt, was.StartsAt)
			}
			last[device] = a
		}
	}
	for device, on := range firing {
		if (last[device].Status == "firing") != on {
			t.Errorf("%s: told that it is %s in the end", device, last[device].Status)
		}
	}
}

func TestDigest_ARetrySendsWhatWasNotConfirmedAndNothingElse(t *testing.T) {
	now := time.Now()
	d := &digester{after: time.Minute}
	recs := backlog(t, now, "60m changed bb=resolved", "50m changed aa=firing", "40m changed aa=resolved", "30m changed cc=firing")
	var sent []string
	fail := "digest"
	send := func(n *Notification) error {
		if n.Reason == fail {
			return &uplink.Error{Kind: uplink.KindRetry}
		}
		sent = append(sent, told([]*Notification{n}))
		return nil
	}
	list, n := d.of(recs, now)
	if err := d.deliver(recs[:n], list, send); err == nil {
		t.Fatal("a failure is taken for a success")
	}
	fail = ""
	more := append(recs, backlog(t, now, "1h x", "1h x", "1h x", "1h x", "20m changed cc=resolved")[4]) // put meanwhile
	list, n = d.of(more, now.Add(time.Hour))
	if err := d.deliver(more[:n], list, send); err != nil || n != 4 {
		t.Fatalf("deliver = %v, %d records", err, n)
	}
	if got := strings.Join(sent, "; "); got != "changed bb=resolved; changed cc=firing; digest aa=resolved" && got != "changed bb=resolved; digest aa=resolved; changed cc=firing" {
		t.Errorf("sent %s", got)
	}
	// The end of cc comes next, by itself.
	if list, _ := d.of(more[4:], now); list != nil {
		t.Errorf("one record makes a digest: %s", told(list))
	}
}

func TestDigest_ThatIsRefusedIsToldOneByOne(t *testing.T) {
	now := time.Now()
	d := &digester{after: time.Minute}
	recs := backlog(t, now, "50m changed aa=firing", "40m changed aa=resolved")
	list, n := d.of(recs, now)
	err := d.deliver(recs[:n], list, func(*Notification) error { return &uplink.Error{Kind: uplink.KindRejected, Status: 400} })
	var e *uplink.Error
	if !errors.As(err, &e) || e.Kind != uplink.KindRetry {
		t.Errorf("deliver = %v, want a retry", err)
	}
	if list, _ := d.of(recs, now); list != nil {
		t.Errorf("the refused digest is tried again: %s", told(list))
	}
}
