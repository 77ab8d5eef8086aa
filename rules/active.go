package rules

import (
	"fmt"
	"strings"
	"time"
)

// Active is when a rule is in force, by wall clock: outside, its condition counts as false.
type Active struct {
	Days     [7]bool // from Sunday; the day on which the hours begin
	From, To int     // minutes of the day; To at or before From ends on the next day
	Zone     *time.Location
}

var dayNames = [7]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const dayMinutes = 24 * 60

// everyDay has the rule in force on all days.
var everyDay = [7]bool{true, true, true, true, true, true, true}

// open tells whether the rule is in force at wall, ns since the Unix epoch. local is the gateway's zone, for rules without one.
func (a *Active) open(wall int64, local *time.Location) bool {
	zone := a.Zone
	if zone == nil {
		zone = local
	}
	t := time.Unix(0, wall).In(zone)
	minute, today := t.Hour()*60+t.Minute(), t.Weekday()
	if a.From < a.To {
		return a.Days[today] && minute >= a.From && minute < a.To
	}
	return a.Days[today] && minute >= a.From || a.Days[(today+6)%7] && minute < a.To
}

// every is how often to look whether the hours begin or end.
func (a *Active) every() time.Duration {
	if a.From%15 == 0 && a.To%15 == 0 {
		return 15 * time.Minute // zones are whole quarters of an hour off
	}
	return time.Minute
}

// String renders the days, the hours and the zone: mon,tue 06:00-22:00 Europe/Berlin.
func (a *Active) String() string {
	var days []string
	for i, on := range a.Days {
		if on {
			days = append(days, dayNames[i])
		}
	}
	s := fmt.Sprintf("%s %02d:%02d-%02d:%02d", strings.Join(days, ","), a.From/60, a.From%60, a.To/60, a.To%60)
	if a.Zone != nil {
		s += " " + a.Zone.String()
	}
	return s
}

// parseDays reads one day or a range of days: mon, mon-fri, fri-mon.
func parseDays(s string, days *[7]bool) error {
	first, last, isRange := strings.Cut(strings.ToLower(s), "-")
	from, to := dayNumber(strings.TrimSpace(first)), dayNumber(strings.TrimSpace(last))
	if !isRange {
		to = from
	}
	if from < 0 || to < 0 {
		return fmt.Errorf("want days such as mon or mon-fri, got %s", quote(s))
	}
	for d := from; ; d = (d + 1) % 7 {
		days[d] = true
		if d == to {
			return nil
		}
	}
}

// dayNumber takes names in full, too.
func dayNumber(s string) int {
	for i, name := range dayNames {
		if s == name || s == strings.ToLower(time.Weekday(i).String()) {
			return i
		}
	}
	return -1
}

// parseHours reads 06:00-22:00; 22:00-06:00 ends on the next day, 00:00-24:00 is the whole day.
func parseHours(s string) (from, to int, err error) {
	first, last, _ := strings.Cut(s, "-")
	from, to = clockMinute(strings.TrimSpace(first)), clockMinute(strings.TrimSpace(last))
	switch {
	case from < 0 || to < 0 || from == dayMinutes:
		return 0, 0, fmt.Errorf("want hours such as \"06:00-22:00\", got %s", quote(s))
	case from == to:
		return 0, 0, fmt.Errorf("%s is no time at all; the whole day is 00:00-24:00", quote(s))
	}
	return from, to, nil
}

// clockMinute reads hh:mm up to 24:00; -1 when it is none.
func clockMinute(s string) int {
	if len(s) == 4 {
		s = "0" + s
	}
	if len(s) != 5 || s[2] != ':' {
		return -1
	}
	digit := func(i int) int {
		if s[i] < '0' || s[i] > '9' {
			return 1000
		}
		return int(s[i] - '0')
	}
	h, m := digit(0)*10+digit(1), digit(3)*10+digit(4)
	if h > 24 || m > 59 || h == 24 && m > 0 {
		return -1
	}
	return h*60 + m
}
