package console

import (
	"strconv"
	"time"
)

// store is what a Gateway keeps of what passed through it; each part that is nil has no routes.
type store struct {
	outboxes    Outboxes
	quarantined Quarantined
	accounts    Accounts
	replayer    Replayer
	copier      Copier
}

func storeOf(g Gateway) (s store) {
	s.outboxes, _ = g.(Outboxes)
	s.quarantined, _ = g.(Quarantined)
	s.accounts, _ = g.(Accounts)
	s.replayer, _ = g.(Replayer)
	s.copier, _ = g.(Copier)
	return s
}

// limit is how many entries a page may have.
func (q *query) limit() int {
	v := q.values.Get("limit")
	if v == "" {
		return defaultLimit
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxLimit {
		q.fail("limit: want 1 to %d, got %q", maxLimit, v)
		return defaultLimit
	}
	return n
}

// since is a time, or how long before now; the zero time where nothing is said.
func (q *query) since(name string, now time.Time) time.Time {
	v := q.values.Get(name)
	if v == "" {
		return time.Time{}
	}
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t
	}
	text, day := v, time.Duration(1)
	if n := len(v); v[n-1] == 'd' || v[n-1] == 'w' {
		text, day = v[:n-1]+"h", map[byte]time.Duration{'d': 24, 'w': 168}[v[n-1]]
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 || d > 100*365*24*time.Hour/day {
		q.fail("%s: want a time such as 2026-05-01T00:00:00Z, or how far back such as 24h or 7d, got %q", name, v)
		return time.Time{}
	}
	return now.Add(-d * day)
}
