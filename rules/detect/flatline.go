package detect

import (
	"encoding/binary"
	"math"

	"sluice/gateway/telemetry"
)

// flatline scores how long the value has not changed. It learns how often a value repeats the one before, and how often again
// after it did: a sensor polled faster than it measures repeats itself all day, one with noise in its last digits never does.
type flatline struct {
	before  float64
	points  float64 // steps seen, with decay
	same    float64 // of them, without a change
	again   float64 // steps after one without a change, with decay
	stayed  float64 // of them, without a change
	longest float64 // run that ended, slowly forgotten
	run     uint32  // steps without a change up to now
}

const (
	flatMemory = 20000 // points; then what was counted is halved
	flatLeast  = 5     // a shorter run is none
	// What never changes has no flat line.
	flatChanges = 3
)

// The score is that of a run's probability: -ln p is worth sqrt(-2 ln p) standard deviations. A run counts half as long as
// the longest one that ended by itself, for runs are not independent. A run that goes on becomes usual: a machine switched
// off for a week alarms once.
func (m *flatline) judge(p point) float64 {
	changed := p.v != m.before
	m.before = p.v
	if p.first {
		return 0
	}
	if p.gap {
		m.run = 0
		return 0
	}
	run := float64(m.run)
	repeat := max(m.same-run+2, 2) / max(m.points-run+10, 10) // before this run
	stay := (m.stayed + 8*max(repeat, 0.3)) / (m.again + 8)
	m.count(changed)
	if changed {
		m.longest = max(m.longest, float64(m.run))
		m.run = 0
		return 0
	}
	if m.run < math.MaxUint32 {
		m.run++
	}
	if run++; run < flatLeast || m.points-m.same < flatChanges {
		return 0
	}
	surprise := -math.Log(repeat) - (run-1)*math.Log(stay)
	return min(MaxScore, math.Sqrt(2*max(0, surprise))*min(1, run/(2*m.longest+1)))
}

func (m *flatline) count(changed bool) {
	m.points++
	if m.run > 0 {
		m.again++
	}
	if !changed {
		m.same++
		if m.run > 0 {
			m.stayed++
		}
	}
	if m.points >= flatMemory {
		m.points, m.same, m.again, m.stayed, m.longest = m.points/2, m.same/2, m.again/2, m.stayed/2, m.longest*0.9
	}
}

func (m *flatline) append(b []byte) []byte {
	b = appendFloats(b, m.before, m.points, m.same, m.again, m.stayed, m.longest)
	return binary.AppendUvarint(b, uint64(m.run))
}

func (m *flatline) restore(d *telemetry.Decoder) {
	m.before = restoreFloat(d)
	for _, f := range [...]*float64{&m.points, &m.same, &m.again, &m.stayed, &m.longest} {
		*f = restoreAtLeast(d, 0)
	}
	m.run = restoreCount(d)
	if m.points > flatMemory || m.same > m.points || m.again > m.points || m.stayed > m.again || m.longest > math.MaxUint32 {
		d.Fail()
	}
}
