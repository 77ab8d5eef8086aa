package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"sluice/gateway/seglog"
	"sluice/gateway/seglog/fsys"
)

// Bandwidth bounds the traffic of one destination; 0 is no bound.
type Bandwidth struct {
	BytesPerSecond, BytesPerDay, BytesPerMonth int64
	// In quiet hours nothing but alerts goes. From and To are times of day since midnight; they may wrap, and equal ones are none.
	QuietFrom, QuietTo time.Duration
	Zone               *time.Location // of days, months and quiet hours; nil: UTC
}

// Any tells whether there is a bound at all.
func (b *Bandwidth) Any() bool {
	return b.BytesPerSecond > 0 || b.BytesPerDay > 0 || b.BytesPerMonth > 0 || b.QuietFrom != b.QuietTo
}

// Reasons of a Pause.
const (
	PauseQuiet = "quiet_hours"
	PauseDay   = "day_budget"
	PauseMonth = "month_budget"
)

// Pause says that nothing but alerts may be sent.
type Pause struct {
	Reason string // "": there is none
	Until  time.Time
	// Alerts may not go either: their share of the budget is used up, too.
	Alerts bool
}

// Meter counts the bytes of a destination's connections in both directions, as they are on the wire above TCP, and holds them within
// a Bandwidth: writes wait for the rate, and fail where a budget is used up. Counts of the day and the month survive a crash: what is
// stored is ahead of what was used, so a kill -9 forgets nothing and may count up to slack bytes too many. Safe for concurrent use.
type Meter struct {
	b     Bandwidth
	slots *seglog.Slots // nil: no budget, nothing to keep

	mu     sync.Mutex
	tokens float64 // of BytesPerSecond; negative: owed
	at     time.Time
	used   meterValue
	stored meterValue // what the slots hold
	total  int64      // since it was opened
	fault  error
}

// meterValue is what the slots hold, as JSON.
type meterValue struct {
	Day       string `json:"day"` // 2006-01-02
	Month     string `json:"month"`
	DayUsed   int64  `json:"day_used"`
	MonthUsed int64  `json:"month_used"`
}

var errBudget = errors.New("the budget of bytes is used up")

// minBurst lets a TLS handshake through at once, however low the rate.
const minBurst = 4 << 10

// OpenMeter opens the counts in dir, which is the outbox's.
func OpenMeter(fs fsys.FS, dir string, b Bandwidth) (*Meter, error) {
	if b.Zone == nil {
		b.Zone = time.UTC
	}
	m := &Meter{b: b, at: time.Now()}
	m.tokens = m.burst()
	if b.BytesPerDay <= 0 && b.BytesPerMonth <= 0 {
		return m, nil
	}
	var err error
	if m.slots, err = seglog.OpenSlots(fs, dir, "bandwidth"); err != nil {
		return nil, fmt.Errorf("open counts of %s: %w", filepath.Base(dir), err)
	}
	value, _, err := m.slots.Load()
	if err == nil && value != nil {
		err = json.Unmarshal(value, &m.used)
	}
	if err != nil {
		m.slots.Close()
		return nil, fmt.Errorf("read counts of %s: %w", filepath.Base(dir), err)
	}
	m.stored = m.used
	return m, nil
}

// Close stores the counts as they are.
func (m *Meter) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.slots == nil {
		return nil
	}
	err := m.store(0)
	return errors.Join(err, m.slots.Close())
}

func (m *Meter) burst() float64 { return float64(max(m.b.BytesPerSecond, minBurst)) }

// slack is how far what is stored is ahead of what was used.
func (m *Meter) slack() int64 {
	least := m.b.BytesPerDay
	if least == 0 || m.b.BytesPerMonth > 0 && m.b.BytesPerMonth < least {
		least = m.b.BytesPerMonth
	}
	return min(max(least/200, 1<<10), 1<<20)
}

// turn begins a new day or month; the caller holds mu. A clock that was a day ahead does not freeze the counts: they go on under the date
// of now.
func (m *Meter) turn(now time.Time) {
	t := now.In(m.b.Zone)
	day, month := t.Format(time.DateOnly), t.Format("2006-01")
	u := &m.used
	switch {
	case day > u.Day:
		u.Day, u.DayUsed = day, 0
	case t.AddDate(0, 0, 2).Format(time.DateOnly) < u.Day:
		u.Day = day
	}
	switch {
	case month > u.Month:
		u.Month, u.MonthUsed = month, 0
	case t.AddDate(0, 0, 2).Format("2006-01") < u.Month:
		u.Month = month
	}
}

// count notes n bytes on the wire.
func (m *Meter) count(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.add(time.Now(), int64(n))
}

func (m *Meter) add(now time.Time, n int64) {
	m.turn(now)
	m.total += n
	m.used.DayUsed += n
	m.used.MonthUsed += n
	m.refill(now)
	m.tokens -= float64(n)
	if m.slots != nil && (m.used.Day != m.stored.Day || m.used.DayUsed > m.stored.DayUsed || m.used.MonthUsed > m.stored.MonthUsed) {
		m.fault = m.store(m.slack())
	}
}

func (m *Meter) store(ahead int64) error {
	v := m.used
	v.DayUsed += ahead
	v.MonthUsed += ahead
	text, err := json.Marshal(&v)
	if err == nil {
		err = m.slots.Store(text, true)
	}
	m.stored = v // also after a fault: it is not tried with every byte
	return err
}

func (m *Meter) refill(now time.Time) {
	if d := now.Sub(m.at); d > 0 {
		m.tokens = min(m.tokens+d.Seconds()*float64(m.b.BytesPerSecond), m.burst())
	}
	m.at = now
}

// take asks for n bytes to write. Then wait is how long the write must hold back; an error says that the budget is used up.
func (m *Meter) take(n int) (wait time.Duration, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	m.turn(now)
	if !m.has(int64(n)) {
		return 0, errBudget
	}
	m.add(now, int64(n))
	if m.b.BytesPerSecond > 0 && m.tokens < 0 {
		wait = time.Duration(-m.tokens / float64(m.b.BytesPerSecond) * float64(time.Second))
	}
	return wait, nil
}

// has tells whether n bytes more fit into the budgets; the caller holds mu.
func (m *Meter) has(n int64) bool {
	return (m.b.BytesPerDay <= 0 || m.used.DayUsed+n <= m.b.BytesPerDay) && (m.b.BytesPerMonth <= 0 || m.used.MonthUsed+n <= m.b.BytesPerMonth)
}

// room is has for now.
func (m *Meter) room(n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(time.Now())
	return m.has(n)
}

// alertShare is the part of a budget that only alerts may use.
const alertShare = 20

// Pause tells what may be sent at the moment.
func (m *Meter) Pause(now time.Time) Pause {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now)
	t := now.In(m.b.Zone)
	var p Pause
	if b := m.b.BytesPerMonth; b > 0 && m.used.MonthUsed >= b-b/alertShare {
		p = Pause{Reason: PauseMonth, Until: time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, m.b.Zone), Alerts: m.used.MonthUsed >= b-minBurst/4}
	} else if b := m.b.BytesPerDay; b > 0 && m.used.DayUsed >= b-b/alertShare {
		p = Pause{Reason: PauseDay, Until: nextMidnight(t), Alerts: m.used.DayUsed >= b-minBurst/4}
	}
	if until, quiet := m.b.quiet(t); quiet && p.Reason == "" {
		p = Pause{Reason: PauseQuiet, Until: until}
	}
	return p
}

func nextMidnight(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
}

// quiet tells whether t lies in the quiet hours, and when they end.
func (b *Bandwidth) quiet(t time.Time) (until time.Time, ok bool) {
	if b.QuietFrom == b.QuietTo {
		return until, false
	}
	at := func(days int, d time.Duration) time.Time {
		return time.Date(t.Year(), t.Month(), t.Day()+days, int(d/time.Hour), int(d%time.Hour/time.Minute), 0, 0, t.Location())
	}
	from, to := at(0, b.QuietFrom), at(0, b.QuietTo)
	switch {
	case b.QuietFrom < b.QuietTo:
		return to, !t.Before(from) && t.Before(to)
	case t.Before(to):
		return to, true
	}
	return at(1, b.QuietTo), !t.Before(from)
}

// Left is how many bytes points may still use before the budgets pause them, and for how long that must last; ok is false without
// a budget. Of a month's budget each day that is left has its part.
func (m *Meter) Left(now time.Time) (bytes int64, lasts time.Duration, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.turn(now)
	t := now.In(m.b.Zone)
	midnight := nextMidnight(t)
	lasts = midnight.Sub(now)
	if b := m.b.BytesPerDay; b > 0 {
		bytes, ok = b-b/alertShare-m.used.DayUsed, true
	}
	if b := m.b.BytesPerMonth; b > 0 {
		end := time.Date(t.Year(), t.Month()+1, 1, 0, 0, 0, 0, m.b.Zone)
		left := float64(b - b/alertShare - m.used.MonthUsed)
		if n := int64(left * lasts.Hours() / end.Sub(now).Hours()); !ok || n < bytes {
			bytes, ok = n, true
		}
	}
	return max(bytes, 0), lasts, ok
}

// Total is how many bytes went over the connections since the meter was opened.
func (m *Meter) Total() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// Status is for people.
func (m *Meter) Status(now time.Time) *BandwidthStatus {
	p := m.Pause(now)
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &BandwidthStatus{
		BytesPerSecond: m.b.BytesPerSecond, BytesPerDay: m.b.BytesPerDay, BytesPerMonth: m.b.BytesPerMonth,
		SentToday: m.used.DayUsed, SentThisMonth: m.used.MonthUsed, PausedReason: p.Reason, PausedUntil: p.Until,
	}
	s.QuietUntil, s.Quiet = m.b.quiet(now.In(m.b.Zone))
	if !s.Quiet {
		s.QuietUntil = time.Time{}
	}
	return s
}

// Conn counts and holds back what goes over c, which is the connection below TLS. A nil meter leaves it as it is.
func (m *Meter) Conn(c net.Conn) net.Conn {
	if m == nil || c == nil {
		return c
	}
	return &meteredConn{Conn: c, m: m, closed: make(chan struct{})}
}

// Dial wraps a dialer, so that every connection it makes is counted. It refuses to dial when the budget is used up.
func (m *Meter) Dial(dial func(ctx context.Context, network, address string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if m == nil {
		return dial
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if !m.room(minBurst / 4) { // for a request, or half a handshake
			return nil, errBudget
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return m.Conn(c), nil
	}
}

type meteredConn struct {
	net.Conn
	m      *Meter
	once   sync.Once
	closed chan struct{}
}

// Read implements net.Conn. What comes in is counted, and makes the next write wait.
func (c *meteredConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 {
		c.m.count(n)
	}
	return n, err
}

// Write implements net.Conn.
func (c *meteredConn) Write(b []byte) (n int, err error) {
	most := len(b)
	if r := c.m.b.BytesPerSecond; r > 0 {
		most = int(max(r/8, 512))
	}
	for n < len(b) || len(b) == 0 {
		part := b[n:min(len(b), n+most)]
		wait, err := c.m.take(len(part))
		if err != nil {
			return n, err
		}
		if wait > 0 {
			t := time.NewTimer(wait)
			select {
			case <-t.C:
			case <-c.closed:
				t.Stop()
				return n, net.ErrClosed
			}
		}
		k, err := c.Conn.Write(part)
		n += k
		if err != nil || len(b) == 0 {
			return n, err
		}
	}
	return n, nil
}

// Close implements net.Conn.
func (c *meteredConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}
