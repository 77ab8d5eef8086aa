package decode

import (
	"bytes"
	"strings"
)

// shellyDecoder reads both generations of Shelly devices.
//
// Gen2 and later: NotifyStatus and NotifyFullStatus on <device>/events/rpc, the same parts on <device>/status/<component>, and
// <device>/online. A NotifyStatus holds only what changed, and that is what is read: a series keeps its last value anyway, and
// to repeat the rest would make old values look measured now. A ts that is null or not yet set means the time of arrival.
// Metrics are component and key: switch_0_apower.
//
// Gen1: one value on shellies/<device>/..., called by its levels: relay_0_power, temperature.
type shellyDecoder struct {
	rpc    *jsonDecoder
	state  *availabilityDecoder
	scalar scalar
}

func newShelly(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	spec.TimeUnit = "s"
	return &shellyDecoder{rpc: newLayout(spec, shellyLayout), state: newAvailabilityDecoder()}, nil
}

func (d *shellyDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	before, last := lastLevel(m.Topic)
	switch {
	case last == "online":
		return d.state.Decode(m, out)
	case strings.HasPrefix(m.Topic, "shellies/") || strings.Contains(m.Topic, "/shellies/"):
		return d.gen1(m, out)
	case last == "rpc" && strings.HasSuffix(before, "/events"):
		if d.rpc.read(m, out); d.rpc.err == nil && !strings.HasPrefix(d.rpc.texts[0], "Notify") {
			out.reset()
		}
		return d.rpc.finish(out)
	case strings.HasSuffix(before, "/status") && isComponent(last) && isObject(m.Payload):
		d.rpc.read(m, out, "params", last)
		return d.rpc.finish(out)
	}
	return nil
}

// isComponent tells a component's key, such as switch:0 or wifi.
func isComponent(level string) bool {
	name, id, _ := strings.Cut(level, ":")
	for i := range len(name) {
		if c := name[i]; c != '_' && !isDigit(c) && (c < 'a' || c > 'z') {
			return false
		}
	}
	for i := range len(id) {
		if !isDigit(id[i]) {
			return false
		}
	}
	return name != "" && len(level) <= MaxKeyBytes
}

func shellyLayout(path string) placement {
	switch path {
	case "params":
		return placement{}
	case "method":
		return placement{role: roleText}
	case "params.ts":
		return placement{role: roleTime}
	}
	path, ok := strings.CutPrefix(path, "params.")
	if !ok {
		return placement{skip: true}
	}
	component, rest, inside := strings.Cut(path, ".")
	key := lastKey(path)
	switch component {
	case "ble", "cloud", "mqtt", "ws", "ui", "kvs", "matter", "knx", "bthome", "modbus", "events":
		return placement{skip: true}
	case "sys":
		if inside && rest != "uptime" && rest != "ram_free" && rest != "fs_free" {
			return placement{skip: true}
		}
	}
	switch key {
	case "id", "ts", "tF", "minute_ts", "by_minute", "started_at", "duration", "errors", "flags":
		return placement{skip: true}
	}
	return placement{role: roleReading, name: joinedName(path), unit: shellyUnits[key]}
}

// shellyUnits are the units of Shelly's documented keys, Gen2 and Gen1; totals of Gen1 relays count watt-minutes and are left out.
var shellyUnits = map[string]string{
	"tC": "°C", "rh": "%", "apower": "W", "voltage": "V", "current": "A", "freq": "Hz", "act_power": "W", "aprt_power": "VA",
	"a_act_power": "W", "b_act_power": "W", "c_act_power": "W", "a_voltage": "V", "b_voltage": "V", "c_voltage": "V",
	"a_current": "A", "b_current": "A", "c_current": "A", "total_act_power": "W", "total_current": "A",
	"total": "Wh", "lux": "lx", "percent": "%", "V": "V", "rssi": "dBm", "uptime": "s", "ram_free": "B", "fs_free": "B",
	"temperature": "°C", "humidity": "%", "battery": "%", "power": "W", "tilt": "°",
}

var shellyOpen, shellyClosed = []byte("1"), []byte("0")

func (d *shellyDecoder) gen1(m *Message, out *Batch) error {
	rest := strings.TrimPrefix(afterDevice(m.Topic, "shellies/"), "sensor/")
	if rest == "" || isObject(m.Payload) || strings.HasSuffix(rest, "/command") || strings.HasSuffix(rest, "_f") {
		return nil
	}
	switch rest {
	case "command", "announce", "info", "error", "act_reasons":
		return nil
	}
	payload := m.Payload
	if rest == "state" { // of a door or window
		switch text := bytes.TrimSpace(payload); {
		case foldEqual(text, "open"):
			payload = shellyOpen
		case foldEqual(text, "close"):
			payload = shellyClosed
		}
	}
	_, key := lastLevel(rest)
	return d.scalar.read(payload, out, d.scalar.metric(rest), shellyUnits[key], false)
}
