package detect

import (
	"math"

	"sluice/gateway/telemetry"
)

// auto looks at a series in three ways and believes the most alarmed: is the value usual at this hour of the day, is the series as
// restless as usual, and has it stopped changing? The second sees what stays within its range but moves differently: noise
// that begins, a pattern that ends.
type auto struct {
	value seasonal
	rest  restlessness
	stuck flatline
}

func (m *auto) judge(p point) float64 {
	return max(m.value.judge(p), m.rest.judge(p), m.stuck.judge(p))
}

func (m *auto) append(b []byte) []byte { return m.stuck.append(m.rest.append(m.value.append(b))) }

func (m *auto) restore(d *telemetry.Decoder) {
	m.value.restore(d)
	m.rest.restore(d)
	m.stuck.restore(d)
}

// restlessness scores the mean size of the last steps against that of many more, on a logarithmic scale.
type restlessness struct {
	before      float64
	short, long float64 // mean size of steps
	n           uint16  // steps, up to the longer memory
	ratio       moments
	tail        tail
}

const (
	restShort = 0.02   // a memory of 50 steps
	restLong  = 0.0004 // 2,500
	restRate  = 0.0005
	restDust  = 0.1  // of the smallest step: less is no movement
	restFloor = 0.02 // 2 % more or less is no news
)

func (m *restlessness) judge(p point) float64 {
	step := math.Abs(p.v - m.before)
	m.before = p.v
	if p.first || p.gap {
		return 0
	}
	if m.n < 1/restLong {
		m.n++
	}
	m.short += max(restShort, 1/float64(m.n)) * (step - m.short)
	m.long += max(restLong, 1/float64(m.n)) * (step - m.long)
	if m.long == 0 {
		return m.tail.score(0)
	}
	dust := restDust * p.floor
	r := math.Log(min((m.short+dust)/(m.long+dust), 1e6) + 0.03) // 3 %: a flat line is not infinitely restful
	d := m.ratio.deviation(r, restFloor)
	m.ratio.learn(r, restRate)
	return m.tail.score(d)
}

func (m *restlessness) append(b []byte) []byte {
	b = appendFloats(append(b, byte(m.n), byte(m.n>>8)), m.before, m.short, m.long)
	return m.tail.append(m.ratio.append(b))
}

func (m *restlessness) restore(d *telemetry.Decoder) {
	m.n = uint16(d.Byte()) | uint16(d.Byte())<<8
	m.before, m.short, m.long = restoreFloat(d), restoreAtLeast(d, 0), restoreAtLeast(d, 0)
	m.ratio.restore(d)
	m.tail.restore(d)
}
