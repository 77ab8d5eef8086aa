package webhook

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"testing"
	"time"

	"sluice/uplink"
)

// stdBody is the Alertmanager body for encoding/json, written from the specification.
type stdBody struct {
	Receiver          string            `json:"receiver"`
	Status            string            `json:"status"`
	Alerts            []stdAlert        `json:"alerts"`
	GroupLabels       map[string]string `json:"groupLabels"`
	CommonLabels      map[string]string `json:"commonLabels"`
	CommonAnnotations map[string]string `json:"commonAnnotations"`
	ExternalURL       string            `json:"externalURL"`
	Version           string            `json:"version"`
	GroupKey          string            `json:"groupKey"`
	TruncatedAlerts   uint64            `json:"truncatedAlerts"`
}

type stdAlert struct {
	Status       string            `json:"status"`
	Labels       map[string]string `json:"labels"`
	Annotations  map[string]string `json:"annotations"`
	StartsAt     time.Time         `json:"startsAt"`
	EndsAt       time.Time         `json:"endsAt"`
	GeneratorURL string            `json:"generatorURL"`
	Fingerprint  string            `json:"fingerprint"`
}

// Whatever devices put into labels and rules into annotations: bodies have the bytes of encoding/json, an outbox record brings back
// what was put in, and what is sent at the first attempt, from memory, is what is sent at the next, from the record.
func FuzzNotification_BytesAreThoseOfTheStandardEncoder(f *testing.F) {
	f.Add("device", "freezer-1", "line \"one\"\n<&>\u2028 \xff é", int64(1_800_000_000_123_456_789), 3.5, true)
	f.Add("", "", "\\", int64(0), math.Inf(1), false)
	f.Add("a\x00b", "\ufffd", "plain", int64(-1), -1e-300, false)
	f.Fuzz(func(t *testing.T, name, label, text string, at int64, value float64, ended bool) {
		at = at>>2 | 1 // 0 is no time
		one := Alert{Status: "firing", Labels: map[string]string{name: label, "site": "lab"}, Annotations: map[string]string{"summary": text, label: name},
			StartsAt: moment(at), Value: value, Fingerprint: "0123456789abcdef", GeneratorURL: name}
		two := one
		two.Labels, two.Annotations = map[string]string{"site": "lab", "a": text}, nil
		if ended {
			one.Status, one.EndsAt = "resolved", moment(at).Add(time.Second)
		}
		n := &Notification{ID: "msg_" + name, Receiver: label, Gateway: text, Reason: "changed", GroupLabels: map[string]string{name: text}, Alerts: []Alert{one, two}}
		record, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		body, err := alertmanager(n)
		if err != nil {
			t.Fatal(err)
		}
		labels, annotations := n.common()
		std := stdBody{Receiver: n.Receiver, Status: n.Status, GroupLabels: n.GroupLabels, CommonLabels: labels, CommonAnnotations: annotations, Version: "4", GroupKey: n.GroupKey}
		for _, a := range n.Alerts {
			std.Alerts = append(std.Alerts, stdAlert{a.Status, a.Labels, present(a.Annotations), a.StartsAt, a.EndsAt, a.GeneratorURL, a.Fingerprint})
		}
		if want, err := json.Marshal(&std); err != nil || !bytes.Equal(body, want) {
			t.Errorf("got  %s\nwant %s, %v", body, want, err)
		}
		back, err := Parse(record)
		if err != nil {
			t.Fatalf("%v: %s", err, record)
		}
		s := &Sink{}
		s.Expect(record, n)
		first, err := s.read(&uplink.Record{Type: uplink.TypeNotification, Body: record})
		if err != nil {
			t.Fatal(err)
		}
		if (first == n) == bytes.Contains(record, notText) {
			t.Errorf("taken from memory %v: %s", first == n, record)
		}
		sent, _ := alertmanager(first)
		again, _ := alertmanager(back)
		if !bytes.Equal(sent, again) {
			t.Errorf("from memory   %s\nfrom the disk %s", sent, again)
		}
		if first == n && !reflect.DeepEqual(data(first), data(back)) && value == value {
			d := data(back)
			if math.IsInf(value, 0) { // not a value that rules put out
				return
			}
			t.Errorf("a template sees %+v\nthen %+v", data(first), d)
		}
	})
}

func BenchmarkNotification(b *testing.B) {
	n := group("msg_0123456789abcdef", "changed", hot("aa", "firing"))
	b.Run("record", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := n.Marshal(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("body", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := alertmanager(n); err != nil {
				b.Fatal(err)
			}
		}
	})
}
