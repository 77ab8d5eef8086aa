package webhook

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	"sluice/uplink"
)

// digester turns the backlog of a receiver that was away for long into what it needs to know now: the ends of what it had been
// told of and what fires now, one digest of what began and ended meanwhile, and what fires again after an end in the digest, in this
// order. For each alert that is the order in which things happened.
//
// A notification that goes out whole keeps its id. The ids of digests and of parts follow from what is in them, so that one id never
// stands for two bodies: a retry repeats the id, and a batch cut differently after a crash makes another digest.
type digester struct {
	after time.Duration // 0: never

	mu    sync.Mutex
	sent  map[string]bool // of the batch at hand: confirmed by the receiver
	last  uint64          // the batch's last record; it is not cut anew while something of it was sent
	limit int64           // and what was old enough for it
	past  uint64          // records up to this one are delivered one by one: the receiver refused their digest
}

// digestNote tells people what a digest is.
const digestNote = "fired and resolved while this receiver could not be reached"

// maxDigest bounds the alerts in one digest; more make several.
const maxDigest = 500

// fates of an alert in a notification
type fate byte

const (
	before    fate = iota // told by itself, before the digest
	digested              // in the digest, or left out because its end is
	afterward             // told by itself, after the digest
)

// place is one alert in one notification.
type place struct{ record, alert int }

// of returns what to send in place of the first n of recs, or nil when they go out one by one.
func (d *digester) of(recs []uplink.Record, now time.Time) (out []*Notification, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	limit := now.Add(-d.after).UnixNano()
	if len(d.sent) > 0 {
		limit = d.limit
		recs = recs[:sort.Search(len(recs), func(i int) bool { return recs[i].LSN > d.last })]
	}
	if d.after == 0 || len(recs) < 2 || recs[0].Cause.Time > limit || recs[0].LSN <= d.past {
		return nil, 0
	}
	d.limit = limit
	list := make([]*Notification, len(recs))
	fates := make([][]fate, len(recs))
	byAlert, order := map[string][]place{}, []string(nil)
	for i := range recs {
		n, err := parse(&recs[i])
		if err != nil {
			return nil, 0
		}
		list[i], fates[i] = n, make([]fate, len(n.Alerts))
		for k := range n.Alerts {
			fp := n.Alerts[k].Fingerprint
			if byAlert[fp] == nil {
				order = append(order, fp)
			}
			byAlert[fp] = append(byAlert[fp], place{i, k})
		}
	}
	var ends []place
	for _, fp := range order {
		ends = append(ends, decide(list, recs, byAlert[fp], limit, fates)...)
	}
	if len(ends) == 0 {
		return nil, 0
	}
	out = parts(list, fates, before)
	out = append(out, digests(list, ends)...)
	return append(out, parts(list, fates, afterward)...), len(recs)
}

// decide sets the fates of one alert and returns the ends that belong into the digest.
func decide(list []*Notification, recs []uplink.Record, places []place, limit int64, fates [][]fate) (ends []place) {
	var open []place // since the alert began
	began := int64(0)
	now := before
	for _, p := range places {
		a := &list[p.record].Alerts[p.alert]
		fates[p.record][p.alert] = now
		switch {
		case a.Status == "firing":
			if len(open) > 0 || list[p.record].Reason != "repeated" {
				if len(open) == 0 {
					began = recs[p.record].Cause.Time
				}
				open = append(open, p)
			}
		case len(open) > 0:
			if began <= limit {
				for _, o := range append(open, p) {
					fates[o.record][o.alert] = digested
				}
				ends = append(ends, p)
				now = afterward
			}
			open = nil
		}
	}
	return ends
}

// parts are the notifications, or what is left of them, with the alerts of one fate.
func parts(list []*Notification, fates [][]fate, want fate) (out []*Notification) {
	for i, n := range list {
		part := *n
		part.Alerts, part.Status = nil, ""
		for k := range n.Alerts {
			if fates[i][k] == want {
				part.Alerts = append(part.Alerts, n.Alerts[k])
			}
		}
		switch len(part.Alerts) {
		case 0:
			continue
		case len(n.Alerts):
			part = *n
		default:
			part.ID = contentID(part.Alerts, n.ID)
			part.complete()
		}
		out = append(out, &part)
	}
	return out
}

// digests are made of the ends of alerts.
func digests(list []*Notification, ends []place) (out []*Notification) {
	for len(ends) > 0 {
		k := min(len(ends), maxDigest)
		first := list[ends[0].record]
		n := &Notification{Receiver: first.Receiver, Gateway: first.Gateway, ExternalURL: first.ExternalURL, Reason: "digest", GroupKey: `{}/{digest="true"}:{}`}
		ids := make([]string, 0, k)
		for _, p := range ends[:k] {
			a := list[p.record].Alerts[p.alert]
			notes := map[string]string{"digest": digestNote}
			for name, v := range a.Annotations {
				notes[name] = v
			}
			a.Annotations = notes
			n.Alerts = append(n.Alerts, a)
			ids = append(ids, list[p.record].ID)
		}
		n.ID = contentID(n.Alerts, ids...)
		n.complete()
		out = append(out, n)
		ends = ends[k:]
	}
	return out
}

// contentID identifies a notification that was put together from others.
func contentID(alerts []Alert, ids ...string) string {
	h := sha256.New()
	for _, id := range ids {
		fmt.Fprintf(h, "%s\x00", id)
	}
	for i := range alerts {
		fmt.Fprintf(h, "%s\x00%s\x00%d\x00", alerts[i].Fingerprint, alerts[i].Status, alerts[i].StartsAt.UnixNano())
	}
	return "msg_" + hex.EncodeToString(h.Sum(nil)[:16])
}

// deliver sends list. What was confirmed before a failure is not sent again by this process.
func (d *digester) deliver(recs []uplink.Record, list []*Notification, send func(*Notification) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sent == nil {
		d.sent, d.last = map[string]bool{}, recs[len(recs)-1].LSN
	}
	for _, n := range list {
		if d.sent[n.ID] {
			continue
		}
		err := send(n)
		if e := (*uplink.Error)(nil); errors.As(err, &e) && e.Kind == uplink.KindRejected {
			// Which record is at fault cannot be told from here: they are tried one by one.
			d.past, d.sent = recs[len(recs)-1].LSN, nil
			return &uplink.Error{Kind: uplink.KindRetry, Status: e.Status, Detail: "a digest was refused: " + e.Detail, Err: err}
		}
		if err != nil {
			return err
		}
		d.sent[n.ID] = true
	}
	d.sent = nil
	return nil
}
