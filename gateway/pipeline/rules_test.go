package pipeline

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"sluice/broker/decode"
	"sluice/gateway/telemetry"
)

// ruleDriver feeds a fold with one source for readings, one for what devices say about being there, and one rule.
func ruleDriver(t *testing.T, rule string) *driver {
	spec := testSpec()
	spec.Sources = append(spec.Sources, SourceSpec{
		Name: "status", Topic: "d/{device}/status", Measurement: "status", Decode: decode.Spec{Format: "availability"}, Send: SendAggregates,
		Window: 10 * time.Second, Grace: time.Second, Lateness: time.Minute, Stats: []telemetry.Stat{"count"},
	})
	spec.Rules = []RuleFile{{Name: "r.yaml", Text: "groups:\n  - name: g\n    rules:\n      - " + rule + "\n"}}
	return newDriver(t, spec)
}

// alerts returns the alert transitions put out since the last call, without their causes.
func (d *driver) alerts() string {
	var list []string
	for line := range strings.Lines(d.out.take()) {
		if _, alert, ok := strings.Cut(line, " alert "); ok {
			list = append(list, strings.TrimSpace(alert))
		}
	}
	return strings.Join(list, "; ")
}

// until ticks whenever the fold wants it.
func (d *driver) until(at int64) {
	d.Helper()
	for d.f.Due() <= at {
		d.apply(RecordTick, max(d.f.Due(), d.f.now), nil)
	}
	d.apply(RecordTick, at, nil)
}

func (d *driver) wants(what, alerts string) {
	d.Helper()
	if got := d.alerts(); !strings.Contains(got, alerts) || alerts == "" && got != "" {
		d.Errorf("%s: %q, want %q", what, got, alerts)
	}
}

func TestFold_SilenceDoesNotCountWhileTheGatewayIsDown(t *testing.T) {
	d := ruleDriver(t, `{ alert: Silent, absent: { metric: temperature, after: 1m } }`)
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	d.apply(RecordBoot, t0+3600*sec, []byte("b v"))
	d.wants("after an hour of downtime", "")
	d.until(t0 + 3659*sec)
	d.wants("59 s after the start", "")
	d.until(t0 + 3660*sec)
	d.wants("a minute after the start", "Silent firing")
}

func TestFold_AWillEndsThePatienceAndABirthTheAlert(t *testing.T) {
	d := ruleDriver(t, `{ alert: Silent, absent: { metric: temperature, after: 1h } }`)
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	d.publish(t0+1*sec, "d/b/t", msg(1, t0+sec, 5))
	d.publish(t0+2*sec, "d/a/status", "offline")
	d.wants("the will", `Silent firing {alertname="Silent", device="a"`)
	d.publish(t0+3*sec, "d/a/status", "online")
	d.wants("the birth", `Silent resolved {alertname="Silent", device="a"`)
	d.publish(t0+4*sec, "d/b/status", "offline")
	d.publish(t0+5*sec, "d/b/t", msg(2, t0+5*sec, 5))
	d.wants("a reading", `Silent resolved {alertname="Silent", device="b"`)
}

func TestFold_WhatABridgeRepeatsIsNoSignOfLife(t *testing.T) {
	d := ruleDriver(t, `{ alert: Silent, absent: { metric: temperature, after: 1m } }`)
	d.publish(t0, "d/a/t", msg(1, t0, 5))
	d.apply(RecordMessage, t0+50*sec, messageBody(Message{ClientID: "bridge", Topic: "d/a/t", QoS: 1, PacketID: 9, Retain: true, Payload: []byte(msg(0, t0, 5))}))
	d.until(t0 + 61*sec)
	d.wants("the bridge repeated the last message", "Silent firing")
	d.apply(RecordMessage, t0+70*sec, messageBody(Message{ClientID: "a", Topic: "d/a/t", QoS: 1, PacketID: 10, Retain: true, Payload: []byte(msg(7, t0+70*sec, 5))}))
	d.wants("the device sends a retained message with a new time", "Silent resolved")
}

func TestFold_HoursAreThoseOfTheWallClockAlsoAfterItWasSet(t *testing.T) {
	d := ruleDriver(t, `{ alert: Night, expr: "temperature > 0 and hour() == 3", zone: UTC }`)
	at := time.Unix(0, t0).UTC().Truncate(24 * time.Hour).Add(26*time.Hour + 50*time.Minute).UnixNano() // 2:50 next day
	d.publish(at, "d/a/t", msg(1, at, 5))
	d.wants("at 2:50", "")
	step := int64(-time.Hour)
	d.apply(RecordClockStep, at+step, binary.AppendVarint(nil, step)) // it is 1:50
	d.until(at + step + int64(30*time.Minute))
	d.wants("at 2:20", "")
	d.until(at + int64(10*time.Minute))
	d.wants("at 3:00", "Night firing")
	d.until(at + int64(70*time.Minute))
	d.wants("at 4:00", "Night resolved")
}

func TestFold_HistoryOfADeviceMovesNoRule(t *testing.T) {
	d := ruleDriver(t, `{ alert: Hot, expr: "max(temperature, 1m) > 50" }`)
	d.publish(t0+100*sec, "d/a/t", msg(9, t0+100*sec, 5))
	d.publish(t0+101*sec, "d/a/t", msg(3, t0+90*sec, 99))
	d.wants("a late reading", "")
	d.publish(t0+102*sec, "d/a/t", msg(10, t0+102*sec, 51))
	d.wants("a live one", "Hot firing")
}
