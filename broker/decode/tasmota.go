package decode

import "strings"

// tasmotaDecoder reads what Tasmota sends: SENSOR and STATE under tele, the switches in RESULT, and LWT. The topic's last level says
// which, so that any FullTopic will do. All other messages are answers to commands. Metrics are the keys joined
// (DS18B20_Temperature); ON and OFF of POWER and Switch keys are 1 and 0. Time is local, without a zone: see Spec.Zone.
type tasmotaDecoder struct {
	sensor, result *jsonDecoder
	state          *availabilityDecoder
}

func newTasmota(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	return &tasmotaDecoder{newLayout(spec, tasmotaSensor), newLayout(spec, tasmotaResult), newAvailabilityDecoder()}, nil
}

func (d *tasmotaDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	switch _, kind := lastLevel(m.Topic); kind {
	case "LWT":
		return d.state.Decode(m, out)
	case "SENSOR", "STATE":
		d.sensor.read(m, out)
		if d.sensor.err == nil {
			d.units(&out.Samples[0])
		}
		return d.sensor.finish(out)
	case "RESULT":
		d.result.read(m, out)
		return d.result.finish(out)
	}
	return nil
}

// Slots of the units that a SENSOR message states, and what stands for them until it was read.
const (
	tasmotaTemp = iota
	tasmotaPressure
	tasmotaSpeed
)

var tasmotaStated = [...]string{tasmotaTemp: "TempUnit", tasmotaPressure: "PressureUnit", tasmotaSpeed: "SpeedUnit"}

func tasmotaSensor(path string) placement {
	key := lastKey(path)
	switch path {
	case "Time", "Epoch":
		return placement{role: roleTime}
	case "Sleep", "SleepMode", "MqttCount", "Wifi.AP", "Wifi.Channel", "Wifi.LinkCount":
		return placement{skip: true}
	}
	for slot, name := range tasmotaStated {
		if path == name {
			return placement{role: roleText, slot: slot}
		}
	}
	words := strings.HasPrefix(key, "POWER") || strings.HasPrefix(key, "Switch")
	return placement{role: roleReading, unit: tasmotaUnits[key], words: words, array: true}
}

func tasmotaResult(path string) placement {
	if strings.HasPrefix(path, "POWER") {
		return placement{role: roleReading, words: true}
	}
	return placement{skip: true}
}

// tasmotaUnits are the units of Tasmota's documented sensor keys; a name in tasmotaStated stands for what the message says.
var tasmotaUnits = map[string]string{
	"Temperature": "TempUnit", "DewPoint": "TempUnit", "HeatIndex": "TempUnit",
	"Pressure": "PressureUnit", "SeaPressure": "PressureUnit",
	"Humidity": "%", "Illuminance": "lx", "Distance": "cm",
	"Power": "W", "ApparentPower": "VA", "ReactivePower": "var", "Voltage": "V", "Current": "A", "Frequency": "Hz",
	"Total": "kWh", "Today": "kWh", "Yesterday": "kWh",
	"CarbonDioxide": "ppm", "eCO2": "ppm", "TVOC": "ppb", "PM2.5": "ug/m3", "PM10": "ug/m3",
	"RSSI": "%", "Signal": "dBm", "UptimeSec": "s", "Heap": "KiB",
}

// units replaces the names of stated units by what the message said, or drops them.
func (d *tasmotaDecoder) units(s *Sample) {
	kept := s.Units[:0]
	for _, u := range s.Units {
		for slot, name := range tasmotaStated {
			if u.Unit == name {
				u.Unit = d.sensor.texts[slot]
			}
		}
		switch u.Unit {
		case "":
			continue
		case "C":
			u.Unit = "°C"
		case "F":
			u.Unit = "°F"
		}
		kept = append(kept, u)
	}
	s.Units = kept
}
