package detect

import (
	"math"

	"sluice/gateway/telemetry"
)

// cusum adds up deviations, less a slack, on either side, so that a shift too small for any single point shows after some.
// Page (1954).
type cusum struct {
	level    moments
	up, down float64
	tail     tail
}

const (
	cusumRate  = 0.001
	cusumSlack = 0.5 // standard deviations: a shift of 1 is found soonest
	cusumMost  = 200 // of a sum, so that it comes down again
)

// With this slack a sum is the logarithm of a likelihood ratio, of which sqrt(2 x) is the equivalent standard deviations (Wilks 1938).
func (m *cusum) judge(p point) float64 {
	if p.gap {
		m.up, m.down = 0, 0
	}
	d := m.level.deviation(p.v, p.floor)
	d = max(-4, min(4, d)) // one point proves no shift
	m.level.learn(p.v, cusumRate)
	m.up = max(0, min(cusumMost, m.up+d-cusumSlack))
	m.down = max(0, min(cusumMost, m.down-d-cusumSlack))
	return m.tail.score(math.Sqrt(2 * max(m.up, m.down)))
}

func (m *cusum) append(b []byte) []byte {
	return m.tail.append(appendFloats(m.level.append(b), m.up, m.down))
}

func (m *cusum) restore(d *telemetry.Decoder) {
	m.level.restore(d)
	m.up, m.down = restoreAtLeast(d, 0), restoreAtLeast(d, 0)
	m.tail.restore(d)
	if m.up > cusumMost || m.down > cusumMost {
		d.Fail()
	}
}
