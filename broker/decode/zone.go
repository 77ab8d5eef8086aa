package decode

import (
	"fmt"
	"sort"
	"time"
)

// Zone is a time zone as a table of its offsets. It holds the table and not only the name, so that a replay decides as the first
// run did, whatever time zone database the machine has by then.
type Zone struct {
	Name    string
	Offsets []Offset // ascending; the first one also holds before
}

// Offset holds from From on, in s since the Unix epoch.
type Offset struct{ From, Seconds int64 }

// The years a Zone's table covers; its last offset holds on. Devices' stamps outside are refused as implausible anyway.
const (
	zoneFrom  = 2000
	zoneUntil = 2070
)

// NewZone makes a table of loc. name is how loc is called in the configuration.
func NewZone(name string, loc *time.Location) *Zone {
	z := &Zone{Name: name}
	end := time.Date(zoneUntil, 1, 1, 0, 0, 0, 0, time.UTC)
	for t := time.Date(zoneFrom, 1, 1, 0, 0, 0, 0, time.UTC).In(loc); t.Before(end); {
		_, seconds := t.Zone()
		start, next := t.ZoneBounds()
		switch n := len(z.Offsets); {
		case n == 0:
			z.Offsets = append(z.Offsets, Offset{t.Unix(), int64(seconds)})
		case z.Offsets[n-1].Seconds != int64(seconds):
			z.Offsets = append(z.Offsets, Offset{start.Unix(), int64(seconds)})
		}
		if next.IsZero() {
			break
		}
		if !next.After(t) { // package time ends the bounds of a rule with the year, and at that instant does not get past it
			next = t.Add(time.Hour)
		}
		t = next
	}
	return z
}

// check refuses a table that utc could not use.
func (z *Zone) check() error {
	if len(z.Offsets) == 0 {
		return fmt.Errorf("zone: %q has no offsets", z.Name)
	}
	for i, o := range z.Offsets {
		if i > 0 && o.From <= z.Offsets[i-1].From || o.Seconds <= -86400 || o.Seconds >= 86400 {
			return fmt.Errorf("zone: %q is damaged", z.Name)
		}
	}
	return nil
}

const nsPerSecond = 1_000_000_000

// utc turns a local time, counted in ns as if it were UTC, into UTC. Of two instants with that local time it takes the one
// nearer to near; a local time that was skipped is read with the offset before the gap, as the device's clock still ran.
func (z *Zone) utc(local, near int64) int64 {
	seconds := local / nsPerSecond
	// The first offset that begins after every instant the local time can be.
	i := sort.Search(len(z.Offsets), func(i int) bool { return z.Offsets[i].From > seconds+86400 })
	best, found := int64(0), false
	for i--; i >= 0; i-- {
		o := z.Offsets[i]
		t := local - o.Seconds*nsPerSecond
		starts := i == 0 || t >= o.From*nsPerSecond
		ends := i+1 == len(z.Offsets) || t < z.Offsets[i+1].From*nsPerSecond
		if starts && ends && (!found || distance(t, near) < distance(best, near)) {
			best, found = t, true
		}
		if o.From < seconds-86400 { // what comes earlier ended before
			break
		}
	}
	if !found {
		return z.beforeGap(local)
	}
	return best
}

// beforeGap reads a local time that no offset has with the last one that begins before it.
func (z *Zone) beforeGap(local int64) int64 {
	best := local - z.Offsets[0].Seconds*nsPerSecond
	for _, o := range z.Offsets {
		if t := local - o.Seconds*nsPerSecond; t >= o.From*nsPerSecond {
			best = t
		}
	}
	return best
}

func distance(a, b int64) uint64 {
	if a < b {
		a, b = b, a
	}
	return uint64(a) - uint64(b)
}
