package detect

import (
	"encoding/binary"

	"sluice/gateway/telemetry"
)

// seasonal scores the distance from what is usual at this hour of the day. Hours are counted from the epoch, so it needs no time zone;
// in a summer-time change the pattern moves by an hour and is learned again within days. An hour of the day is judged from its
// second visit on: how the first minutes of an hour spread says little about the rest.
type seasonal struct {
	hours [24]moments
	known uint32 // bit h: hour h was visited before
	at    uint8  // hour of the last point
	tail  tail
}

const (
	hour = 3600e9
	// An hour of the day remembers 200 points: at one in five minutes, and at any faster pace, 16 days.
	seasonalRate = 0.005
)

func (m *seasonal) judge(p point) float64 {
	at := hourOfDay(p.t)
	if at != m.at {
		if m.hours[m.at].n >= fewest {
			m.known |= 1 << m.at
		}
		m.at = at
	}
	d := 0.0
	if m.known>>at&1 != 0 {
		d = m.hours[at].deviation(p.v, p.floor)
	}
	m.hours[at].learn(p.v, seasonalRate*p.pace)
	return m.tail.score(d)
}

func hourOfDay(t int64) uint8 {
	h := t / hour % 24
	if t < 0 && t%hour != 0 {
		h-- // division rounds to zero
	}
	return uint8((h + 24) % 24)
}

func (m *seasonal) append(b []byte) []byte {
	b = append(binary.LittleEndian.AppendUint32(b, m.known), m.at)
	for i := range m.hours {
		b = m.hours[i].append(b)
	}
	return m.tail.append(b)
}

func (m *seasonal) restore(d *telemetry.Decoder) {
	for i := range 4 {
		m.known |= uint32(d.Byte()) << (8 * i)
	}
	m.at = d.Byte()
	for i := range m.hours {
		m.hours[i].restore(d)
	}
	m.tail.restore(d)
	if m.known >= 1<<24 || m.at >= 24 {
		d.Fail()
		m.at = 0
	}
}
