package rules

import (
	"encoding/binary"
	"slices"
	"time"

	"sluice/gateway/telemetry"
)

// cadence learns how long a device usually is silent between two messages: the longest of its last 16 gaps. The longest, not the
// mean, because devices that wake up, send a burst and sleep are silent as a rule for the length of their sleep.
//
//   - Gaps of a burst, shorter than an eighth of what is learned, are passed over, unless 256 come in a row: then the device has
//     become that fast.
//   - Outages, longer than the rule allows, are passed over, unless three come in a row: then the device has become that slow.
//     Until 16 gaps are known every gap counts, so a device that begins with a burst raises one false alarm at most.
type cadence struct {
	gaps  [16]uint32 // ms
	n     uint8
	pos   uint8 // where the next gap goes
	long  uint8 // outages in a row
	short uint8 // gaps of a burst in a row
}

const (
	minGaps     = 3 // known before a device can be called late
	burst       = 8
	longInARow  = 3
	shortInARow = 255
)

// usual is the longest of the gaps known; 0 while they are too few.
func (c *cadence) usual() time.Duration {
	if c.n < minGaps {
		return 0
	}
	return time.Duration(c.longest()) * time.Millisecond
}

func (c *cadence) longest() uint32 {
	longest := uint32(0)
	for _, g := range c.gaps[:c.n] {
		longest = max(longest, g)
	}
	return longest
}

// learn takes one gap in; outage tells that it was longer than the rule allows.
func (c *cadence) learn(gap time.Duration, outage bool) {
	ms := uint32(min(max(gap.Milliseconds(), 1), 1<<32-1))
	if int(c.n) == len(c.gaps) {
		switch {
		case outage:
			if c.long++; c.long < longInARow {
				return
			}
			*c = cadence{}
		case uint64(ms)*burst < uint64(c.longest()):
			if c.short < shortInARow {
				c.short++
				return
			}
			*c = cadence{}
		}
	}
	c.long, c.short = 0, 0
	c.gaps[c.pos] = ms
	c.pos = (c.pos + 1) % uint8(len(c.gaps))
	c.n = min(c.n+1, uint8(len(c.gaps)))
}

func (c *cadence) snapshot(b []byte) []byte {
	b = append(b, c.n, c.pos, c.long, c.short)
	for _, g := range c.gaps[:c.n] {
		b = binary.AppendUvarint(b, uint64(g))
	}
	return b
}

func (c *cadence) restore(d *telemetry.Decoder) bool {
	c.n, c.pos, c.long, c.short = d.Byte(), d.Byte(), d.Byte(), d.Byte()
	if int(c.n) > len(c.gaps) || int(c.pos) >= len(c.gaps) || int(c.n) < len(c.gaps) && c.pos != c.n || c.long >= longInARow {
		return false
	}
	for i := range c.gaps[:c.n] {
		g := d.Uvarint()
		if g == 0 || g > 1<<32-1 {
			return false
		}
		c.gaps[i] = uint32(g)
	}
	return true
}

// Cadence learns a device's usual interval for those who only show it. The zero value knows nothing.
type Cadence struct{ learned cadence }

// SilentFactor times the usual interval is how long a device may be silent where nothing else says so.
const SilentFactor = 3

// Learn takes in how long after its last life sign another one came.
func (c *Cadence) Learn(gap time.Duration) {
	usual := c.learned.usual()
	c.learned.learn(gap, usual > 0 && gap > max(SilentFactor*usual, minSilence))
}

// Typical is the median of the gaps known; 0 while they are too few.
func (c *Cadence) Typical() time.Duration {
	if c.learned.n < minGaps {
		return 0
	}
	gaps := c.learned.gaps // a copy
	known := gaps[:c.learned.n]
	slices.Sort(known)
	return time.Duration(known[len(known)/2]) * time.Millisecond
}

// Allowed is how long the device may be silent; 0 while nothing is known of it.
func (c *Cadence) Allowed() time.Duration {
	if usual := c.learned.usual(); usual > 0 {
		return min(max(SilentFactor*usual, minSilence), maxSilence)
	}
	return 0
}

// Snapshot appends what is known to b.
func (c *Cadence) Snapshot(b []byte) []byte { return c.learned.snapshot(b) }

// Restore reads what Snapshot wrote; false: it is damaged.
func (c *Cadence) Restore(d *telemetry.Decoder) bool { return c.learned.restore(d) }
