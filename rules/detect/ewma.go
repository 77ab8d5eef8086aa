package detect

import "sluice/gateway/telemetry"

// ewma scores the distance from the exponentially weighted mean.
type ewma struct {
	level moments
	tail  tail
}

const ewmaRate = 0.001 // of learning: a memory of a thousand points

func (m *ewma) judge(p point) float64 {
	d := m.level.deviation(p.v, p.floor)
	m.level.learn(p.v, ewmaRate)
	return m.tail.score(d)
}

func (m *ewma) append(b []byte) []byte { return m.tail.append(m.level.append(b)) }

func (m *ewma) restore(d *telemetry.Decoder) {
	m.level.restore(d)
	m.tail.restore(d)
}
