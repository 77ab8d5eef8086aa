package decode

import "strings"

// zigbee2mqttDecoder reads what Zigbee2MQTT publishes. The device is what # stands for in the source's topic, slashes and
// spaces included, or the topic's own label device: an object is its state, .../availability says whether it is there, a bare
// value is one attribute (output: attribute). bridge/state is the state of the device bridge; everything else of the bridge,
// .../set and .../get are not read. last_seen, where it is sent, is the time: a state that Zigbee2MQTT repeats from its cache is then no
// news.
type zigbee2mqttDecoder struct {
	object *jsonDecoder
	state  *availabilityDecoder
	scalar scalar
}

func newZigbee2MQTT(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	return &zigbee2mqttDecoder{object: newLayout(spec, zigbee2mqttLayout), state: newAvailabilityDecoder()}, nil
}

func (d *zigbee2mqttDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	device, rest := m.capture("device"), m.Rest
	own := device == "" // the label is ours to give
	if own {
		device, rest = zigbeeName(m.Rest)
	}
	if device == "" && own {
		return nil
	}
	if _, last := lastLevel(m.Topic); !own && rest == "" && last != device && zigbeeTells(last) {
		rest = last // a source for these topics alone
	}
	if device == "bridge" && rest != "state" && rest != "" {
		return nil
	}
	if own && rest == "" && device != "bridge" && !isObject(m.Payload) {
		if device, rest = lastLevel(device); device == "" {
			return nil // no device has a bare value
		}
	}
	err := d.read(m, rest, device, out)
	if err != nil || !own || len(out.Samples)+len(out.States) == 0 {
		return err
	}
	label, bad := d.scalar.label("device", device)
	if bad != nil {
		out.reset()
		return bad
	}
	for i := range out.Samples {
		out.Samples[i].Labels = append(out.Samples[i].Labels, label)
	}
	for i := range out.States {
		out.States[i].Labels = append(out.States[i].Labels, label)
	}
	return nil
}

// zigbeeName splits a friendly name from the level that says what is told of it. A last level that is none of these may be an
// attribute or part of the name: the payload tells.
func zigbeeName(levels string) (device, rest string) {
	if rest, ok := strings.CutPrefix(levels, "bridge/"); ok {
		return "bridge", rest
	}
	if before, last := lastLevel(levels); zigbeeTells(last) {
		return before, last
	}
	for _, command := range [...]string{"/set/", "/get/"} {
		if i := strings.Index(levels, command); i > 0 {
			return levels[:i], "set"
		}
	}
	return levels, ""
}

func zigbeeTells(level string) bool {
	return level == "availability" || level == "set" || level == "get"
}

func (d *zigbee2mqttDecoder) read(m *Message, rest, device string, out *Batch) error {
	switch {
	case rest == "availability", device == "bridge":
		return d.state.Decode(m, out)
	case rest == "set", rest == "get":
		return nil
	case isObject(m.Payload):
		d.object.read(m, out)
		return d.object.finish(out)
	case rest != "":
		return d.scalar.read(m.Payload, out, d.scalar.metric(rest), zigbeeUnits[rest], false)
	}
	return nil
}

func zigbee2mqttLayout(path string) placement {
	switch path {
	case "last_seen":
		return placement{role: roleTime}
	case "update", "device", "update_available", "elapsed", "color_options", "level_config":
		return placement{skip: true}
	}
	return placement{role: roleReading, unit: zigbeeUnits[path], words: strings.HasPrefix(path, "state")}
}

// zigbeeUnits are the units of keys that Zigbee2MQTT's devices agree on. voltage is not among them: battery devices send mV.
var zigbeeUnits = map[string]string{
	"temperature": "°C", "device_temperature": "°C", "local_temperature": "°C", "soil_moisture": "%", "humidity": "%",
	"pressure": "hPa", "battery": "%", "linkquality": "lqi", "illuminance_lux": "lx", "power": "W", "current": "A", "energy": "kWh",
	"co2": "ppm", "pm25": "ug/m3", "voc": "ppb",
}
