package main

import (
	"strings"
	"testing"
	"time"

	"sluice/uplink"
)

func TestStandsStill_SpeaksOnlyOfAHeadThatHasNoOtherReasonToStay(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	stuck := uplink.Status{State: uplink.Sending, Counters: uplink.Counters{Pending: 7}, HeadMovedAt: now.Add(-headStuckAfter), Rebuilds: 2}
	for _, tc := range []struct {
		name   string
		change func(*uplink.Status)
		told   bool
	}{
		{"sends for ever", func(*uplink.Status) {}, true},
		{"idle with records", func(s *uplink.Status) { s.State = uplink.Idle }, true},
		{"held by no budget", func(s *uplink.Status) { s.Bandwidth = &uplink.BandwidthStatus{} }, true},
		{"moved a nanosecond later", func(s *uplink.Status) { s.HeadMovedAt = s.HeadMovedAt.Add(1) }, false},
		{"nothing pending", func(s *uplink.Status) { s.Pending = 0 }, false},
		{"never had anything", func(s *uplink.Status) { s.HeadMovedAt = time.Time{} }, false},
		{"backing off tells its own error", func(s *uplink.Status) { s.State = uplink.BackingOff }, false},
		{"so does a configuration error", func(s *uplink.Status) { s.State = uplink.ConfigError }, false},
		{"held back by a budget", func(s *uplink.Status) { s.Bandwidth = &uplink.BandwidthStatus{Level: 1} }, false},
	} {
		s := stuck
		tc.change(&s)
		got := standsStill(&s, now)
		if tc.told != (got != "") {
			t.Errorf("%s: %q", tc.name, got)
		}
		if want := "the oldest of 7 has not moved for " + headStuckAfter.String(); tc.told && (!strings.HasPrefix(got, want) || !strings.HasSuffix(got, "made again 2 times")) {
			t.Errorf("%s: %q, want it to begin with %q and to tell of 2 rebuilds", tc.name, got, want)
		}
	}
}
