package detect

import "sluice/gateway/telemetry"

// jump scores the step from the reading before. A step over a gap says nothing and is skipped.
type jump struct {
	before float64
	steps  moments
	tail   tail
}

const jumpRate = 0.001

func (m *jump) judge(p point) float64 {
	step := p.v - m.before
	m.before = p.v
	if p.first || p.gap {
		return 0
	}
	d := m.steps.deviation(step, p.floor)
	m.steps.learn(step, jumpRate)
	return m.tail.score(d)
}

func (m *jump) append(b []byte) []byte {
	return m.tail.append(m.steps.append(appendFloats(b, m.before)))
}

func (m *jump) restore(d *telemetry.Decoder) {
	m.before = restoreFloat(d)
	m.steps.restore(d)
	m.tail.restore(d)
}
