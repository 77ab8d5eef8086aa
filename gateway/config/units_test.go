package config

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	day := 24 * time.Hour
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "5ms": 5 * time.Millisecond, "1h30m": 90 * time.Minute, "15d": 15 * day, "1.5d": 36 * time.Hour,
		"72h": 72 * time.Hour, "10us": 10 * time.Microsecond, "10µs": 10 * time.Microsecond, "7d12h": 7*day + 12*time.Hour, "1ns": 1,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "5", "5.", ".", "s", "-5s", "+5s", "5 s", "5S", "5w", "1e3s", "1..5s", "5s ", "999999d", "0x5s", "NaN"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %v, want an error", text, got)
		}
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "1024": 1024, "256KiB": 256 << 10, "16MiB": 16 << 20, "1GiB": 1 << 30, "2TiB": 2 << 40, "1.5KiB": 1536,
		"10kB": 10_000, "10KB": 10_000, "200MB": 200_000_000, "1GB": 1e9, "1TB": 1e12, "7B": 7, "16 MiB": 16 << 20,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "1G", "1M", "1k", "1e9", "0x10", "010", "1.5", "1_000", "9999999TiB", "1 2", "NaN", "1,5MiB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("ParseBytes(%q) = %d, want an error", text, got)
		}
	}
}

// What Format and String render is what Parse reads.
func TestUnits_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, 1<<42).Draw(t, "ms")) * time.Millisecond / 1000 * 1000
		if d < 0 {
			d = -d
		}
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got.Round(time.Microsecond) != d.Round(time.Microsecond) {
			t.Errorf("ParseDuration(FormatDuration(%v) = %q) = %v, %v", d, FormatDuration(d), got, err)
		}
		b := Bytes(rapid.Int64Range(0, 1<<52).Draw(t, "bytes"))
		if got, err := ParseBytes(b.String()); err != nil || got != b {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", b.String(), got, err, b)
		}
	})
}
