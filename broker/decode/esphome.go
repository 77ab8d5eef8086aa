package decode

import "strings"

// esphomeDecoder reads what ESPHome publishes: <prefix>/<component>/<object id>/state, one value each, and <prefix>/status. The
// metric is the object id. nan, by which ESPHome says that a sensor has no value, is no reading and no fault.
type esphomeDecoder struct {
	wanted Spec
	state  *availabilityDecoder
	scalar scalar
}

func newESPHome(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	if len(spec.Labels) > 0 {
		return nil, errScalarLabels(spec.Format)
	}
	return &esphomeDecoder{wanted: Spec{Fields: spec.Fields}, state: newAvailabilityDecoder()}, nil
}

func (d *esphomeDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	before, last := lastLevel(m.Topic)
	if last == "status" {
		return d.state.Decode(m, out)
	}
	before, object := lastLevel(before)
	_, component := lastLevel(before)
	if last != "state" || object == "" {
		return nil
	}
	switch component {
	case "sensor", "binary_sensor", "switch", "number":
		metric := d.scalar.metric(object)
		if !d.wanted.wants(metric) {
			return nil
		}
		return d.scalar.read(m.Payload, out, metric, "", strings.HasPrefix(component, "binary") || component == "switch")
	}
	return nil
}
