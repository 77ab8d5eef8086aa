package history

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"sluice/gateway/telemetry"
)

func (r *rig) complete() (int64, bool) { return r.h.Complete() }

func TestHistory_BegunWithTheJournalItIsComplete(t *testing.T) {
	r := newRig(t)
	if _, ok := (&History{}).Complete(); ok {
		t.Error("a history that is not open knows what it holds")
	}
	r.journal(device("a"), t0, temperature(1))
	for range 2 { // a restart changes nothing
		r.start()
		r.awaitLive()
		if from, ok := r.complete(); !ok || from != math.MinInt64 {
			t.Errorf("complete from %d, %v", from, ok)
		}
		r.stop()
	}
}

func TestHistory_WhatTheJournalNoLongerHeldIsNotClaimed(t *testing.T) {
	r := newRig(t)
	for i := range int64(10) {
		r.journal(device("a"), t0+i*second, temperature(1))
	}
	r.first = 5
	before := time.Now().UnixNano()
	r.start()
	r.awaitLive()
	if from, ok := r.complete(); !ok || from < before {
		t.Errorf("complete from %d, %v; want from now on, %d", from, ok, before)
	}
	r.stop()
	r.first = 0
	r.start()
	r.awaitLive()
	if from, _ := r.complete(); from < before {
		t.Error("a restart forgot the gap")
	}
	r.stop()
}

func TestHistory_OfAnEarlierVersionIsCompleteFromNowOn(t *testing.T) {
	r := newRig(t)
	r.journal(device("a"), t0, temperature(1))
	r.start()
	r.awaitLive()
	r.stop()
	if err := os.Remove(filepath.Join(r.o.Dir, completeName)); err != nil {
		t.Fatal(err)
	}
	before := time.Now().UnixNano()
	r.start()
	r.awaitLive()
	if from, ok := r.complete(); !ok || from < before {
		t.Errorf("complete from %d, %v", from, ok)
	}
	r.stop()
}

func TestHistory_DeletedBlocksAreNotClaimed(t *testing.T) {
	r := newRig(t)
	r.o.Keep = 2 * time.Hour
	r.fill(8)
	r.reload()
	r.reload()
	from, ok := r.complete()
	if oldest := r.h.Status().OldestTime; !ok || from <= t0 || from > oldest+3600*second {
		t.Errorf("complete from %d s, the oldest reading is at %d s", (from-t0)/second, (oldest-t0)/second)
	}
}

func TestHistory_EachGivesWhatWasCountedInAWindow(t *testing.T) {
	r := newRig(t)
	a, more := device("a"), &telemetry.Device{Measurement: "telemetry", Labels: device("a").Labels.With(telemetry.Label{Name: "line", Value: "1"})}
	a.Measurement = "telemetry"
	for i := range int64(30) {
		r.journal(a, t0+i*second, telemetry.Reading{Metric: "x", Value: float64(i)}, telemetry.Reading{Metric: "y", Value: -float64(i) / 10})
		r.journal(more, t0+i*second, telemetry.Reading{Metric: "x", Value: 1000})
	}
	r.journal(a, t0+10*second+second/2, telemetry.Reading{Metric: "x", Value: 10.5}) // late
	r.start()
	r.awaitLive()
	got := map[int][]float64{}
	err := r.h.Each(context.Background(), a, []string{"x", "y", "z"}, t0+10*second, t0+13*second, func(metric int, at int64, v float64) {
		if at < t0+10*second || at >= t0+13*second {
			t.Errorf("a reading at %d s", (at-t0)/second)
		}
		got[metric] = append(got[metric], v)
	})
	if want := map[int][]float64{0: {10, 10.5, 11, 12}, 1: {-1, -1.1, -1.2}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	err = r.h.Each(context.Background(), a, []string{"a.b", "a_b"}, t0, t0+1, func(int, int64, float64) {})
	if !errors.Is(err, ErrShared) {
		t.Errorf("two metrics of one name: %v", err)
	}
	r.stop()
}
