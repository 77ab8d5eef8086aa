package uplink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRetryAfter_ReadsSecondsAndDates(t *testing.T) {
	now := time.Date(2026, 11, 22, 17, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "0": 0, "-1": 0, "30": 30 * time.Second, " 30 ": 30 * time.Second, "0.5": 500 * time.Millisecond, "3600": MaxRetryAfter, "Inf": MaxRetryAfter, "NaN": 0,
		"Sun, 22 Nov 2026 17:00:30 GMT": 30 * time.Second, "Sunday, 22-Nov-26 17:00:30 GMT": 30 * time.Second, "Sun Nov 22 17:00:30 2026": 30 * time.Second,
		"Sun, 22 Nov 2026 16:00:00 GMT": 0, "Mon, 23 Nov 2026 17:00:00 GMT": MaxRetryAfter, "later": 0,
	} {
		if got := RetryAfter(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("RetryAfter(%q) = %v, want %v", v, got, want)
		}
	}
}

func TestClip_IsOneCleanLine(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a\nb\tc": "a b c", "esc\x1b[31m": "esc?[31m", strings.Repeat("x", 20): strings.Repeat("x", 10) + "...",
		"123456789ä": "123456789...", "\xff\xfe": "??", "": ""} {
		if got := Clip(in, 10); got != want {
			t.Errorf("Clip(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzClip(f *testing.F) {
	f.Add("a\x00b\u2028c", 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		if n < 0 || n > 1<<16 {
			return
		}
		got := Clip(s, n)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\x00\u2028") {
			t.Errorf("Clip(%q, %d) = %q", s, n, got)
		}
	})
}

func TestTransportError_LeavesTheAddressOut(t *testing.T) {
	const secret = "https://hooks.example/services/T000/secret"
	for _, tt := range []struct {
		err  error
		want string
	}{
		{&net.DNSError{Err: "no such host", Name: "hooks.example"}, "look up hooks.example: no such host"},
		{context.DeadlineExceeded, "no answer in time"},
		{errors.New("broken"), "broken"},
	} {
		e := TransportError(&url.Error{Op: "Post", URL: secret, Err: tt.err})
		if e.Kind != KindRetry || !strings.Contains(e.Error(), tt.want) || strings.Contains(e.Error(), "secret") || !errors.Is(e, tt.err) {
			t.Errorf("TransportError(%v) = %v", tt.err, e)
		}
	}
	own := &Error{Kind: KindGone}
	if got := TransportError(fmt.Errorf("post: %w", own)); got != own {
		t.Errorf("an error of ours became %v", got)
	}
}
