package rules

import (
	"encoding/binary"

	"sluice/gateway/telemetry"
	"sluice/rules/detect"
	"sluice/rules/expr"
)

// Anomaly is the condition that a metric behaves unlike itself; see package detect.
type Anomaly struct {
	Metric string
	detect.Config
}

// detection is the detector of one metric of one device for one rule.
type detection struct {
	detector detect.Detector
	score    float64
	alarm    bool
}

func newDetection(a *Anomaly) detection {
	d, err := detect.New(a.Config)
	if err != nil {
		panic("rules: a checked anomaly rule has no detector: " + err.Error())
	}
	return detection{detector: d}
}

func (d *detection) observe(t int64, v float64) { d.score, d.alarm = d.detector.Observe(t, v) }

func (d *detection) holds() expr.Tri {
	if d.alarm {
		return expr.True
	}
	return expr.False
}

// snapshot appends 0 or 1 alarm | score (f64) | the detector's state with its length.
func (d *detection) snapshot(b []byte) []byte {
	if d.alarm {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = telemetry.AppendFloat(b, d.score)
	state := d.detector.Snapshot(nil)
	return append(binary.AppendUvarint(b, uint64(len(state))), state...)
}

func (d *detection) restore(from *telemetry.Decoder) bool {
	alarm := from.Byte()
	d.alarm, d.score = alarm == 1, from.Float()
	state := telemetry.NewDecoder(from.Bytes())
	return alarm <= 1 && finite(d.score) && from.Err() == nil && d.detector.Restore(state) == nil && len(state.Rest()) == 0
}
