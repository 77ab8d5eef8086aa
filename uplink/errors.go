package uplink

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Kind says what a Forwarder does about a failed delivery.
type Kind int

const (
	KindRetry    Kind = iota // try the same again later: transport, timeouts, 429, 5xx
	KindConfig               // someone must act: keep everything, raise an alarm, try again at long intervals
	KindRejected             // the destination will never take some of these records: find them, quarantine them
	KindTooLarge             // fewer records at once
	KindGone                 // the destination asked not to be called again
	KindPartial              // no failure: the destination holds the first Taken records, the others were not tried
)

var kindNames = [...]string{"retry", "config", "rejected", "too_large", "gone", "partial"}

// String is the kind as it stands in metrics.
func (k Kind) String() string {
	if k < 0 || int(k) >= len(kindNames) {
		return "kind(" + strconv.Itoa(int(k)) + ")"
	}
	return kindNames[k]
}

// Refused is a record that a sink knows to be bad without asking the destination.
type Refused struct {
	Index  int    // into recs of that Deliver
	Reason string // a word for counters, from a fixed set
	Detail string // for people
}

// Error is what Deliver returns.
type Error struct {
	Kind       Kind
	Status     int           // HTTP status, 0 when there was no answer
	Detail     string        // the destination's own words where it spoke; without secrets, at most a few hundred bytes in logs
	RetryAfter time.Duration // what the destination asked for, 0 when nothing
	// Refused, with KindRejected, names the records at fault: those are quarantined and the others delivered again, without
	// a search. Empty when only the destination knows.
	Refused []Refused
	Taken   int   // with KindPartial: how many of the first records are delivered, at least 1
	Err     error // cause, may be nil
}

// Error describes e in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.String())
	if e.Status != 0 {
		fmt.Fprintf(&b, " (HTTP %d)", e.Status)
	}
	if e.Detail != "" {
		b.WriteString(": ")
		b.WriteString(Clip(e.Detail, 300))
	} else if e.Err != nil {
		b.WriteString(": ")
		b.WriteString(Clip(e.Err.Error(), 300))
	}
	return b.String()
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// Clip shortens s to at most n bytes on one line, marks the cut, and replaces what a terminal or a log should not see.
func Clip(s string, n int) string {
	cut := false
	if len(s) > n {
		s, cut = s[:n], true
		for range utf8.UTFMax - 1 { // a character cut in two
			if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
				break
			}
			s = s[:len(s)-1]
		}
	}
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if cut {
		s += "..."
	}
	return s
}

// MaxRetryAfter bounds what a destination may ask for.
const MaxRetryAfter = 10 * time.Minute

// RetryAfter reads the header of that name in both forms of RFC 9110, 10.2.3: seconds, or an HTTP date compared with now.
// Fractions of seconds, which some servers send, are taken too. It returns 0 for nothing, nonsense, or a moment that is past, and at most
// MaxRetryAfter.
func RetryAfter(h http.Header, now time.Time) time.Duration {
	v := strings.TrimSpace(h.Get("Retry-After"))
	if v == "" {
		return 0
	}
	if s, err := strconv.ParseFloat(v, 64); err == nil {
		if !(s > 0) {
			return 0
		}
		return time.Duration(math.Min(s, MaxRetryAfter.Seconds()) * float64(time.Second))
	}
	if t, err := http.ParseTime(v); err == nil {
		return min(max(t.Sub(now), 0), MaxRetryAfter)
	}
	return 0
}

// MaxErrorBody bounds what is read of an answer that is not a success.
const MaxErrorBody = 64 << 10

// ReadErrorBody returns the first MaxErrorBody bytes of an answer and closes it. A connection with more to say is not
// worth draining.
func ReadErrorBody(resp *http.Response) string {
	b, _ := io.ReadAll(io.LimitReader(resp.Body, MaxErrorBody))
	resp.Body.Close()
	return strings.ToValidUTF8(string(b), "\uFFFD")
}

// clockPlausible is before any build of this program: a clock that says less has not been set.
var clockPlausible = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// TransportError explains an exchange that brought no answer. The URL, which may hold secrets, is left out.
func TransportError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	cause := err
	if u := (*url.Error)(nil); errors.As(err, &u) {
		cause = u.Err
	}
	detail := cause.Error()
	var (
		expired x509.CertificateInvalidError
		host    x509.HostnameError
		unknown x509.UnknownAuthorityError
		dns     *net.DNSError
		timeout interface{ Timeout() bool }
	)
	switch {
	case errors.As(cause, &expired) && expired.Reason == x509.Expired:
		detail = "the server's certificate is not valid at this machine's time: " + detail
		if time.Now().Before(clockPlausible) {
			detail = "this machine's clock is not set, so the server's certificate cannot be checked: " + cause.Error()
		}
		return &Error{Kind: KindConfig, Detail: detail, Err: cause}
	case errors.As(cause, &expired), errors.As(cause, &host), errors.As(cause, &unknown):
		return &Error{Kind: KindConfig, Detail: detail, Err: cause}
	case errors.As(cause, &dns):
		detail = "look up " + dns.Name + ": " + dns.Err
	case errors.Is(cause, context.Canceled):
		detail = "stopped"
	case errors.As(cause, &timeout) && timeout.Timeout():
		detail = "no answer in time: " + detail
	}
	return &Error{Kind: KindRetry, Detail: detail, Err: cause}
}
