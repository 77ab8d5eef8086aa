package decode

import "strings"

// chirpstackDecoder reads ChirpStack v4's JSON events: up (readings are what object holds, and rx_rssi and rx_snr of the gateway
// listed first), status (battery and margin) and join. Frames are numbered as ttnDecoder does.
type chirpstackDecoder struct{ up, status *jsonDecoder }

func newChirpStack(spec Spec) (Decoder, error) {
	if err := spec.preset(); err != nil {
		return nil, err
	}
	return &chirpstackDecoder{newLayout(spec, chirpstackUp), newLayout(spec, chirpstackStatus)}, nil
}

func (d *chirpstackDecoder) Decode(m *Message, out *Batch) error {
	out.reset()
	switch _, kind := lastLevel(m.Topic); kind {
	case "join":
		return out.state(true, StateBirth, 0)
	case "up":
		d.up.read(m, out)
		return d.up.uplink(out, "a codec in the device profile")
	case "status":
		d.status.read(m, out)
		if d.status.err == nil && d.status.texts[loraNoBattery] == "true" {
			s := &out.Samples[0]
			for i := range s.Readings {
				if s.Readings[i].Metric == "batteryLevel" {
					s.Readings = append(s.Readings[:i], s.Readings[i+1:]...)
					break
				}
			}
		}
		return d.status.finish(out)
	}
	return nil
}

func chirpstackUp(path string) placement {
	if rest, ok := strings.CutPrefix(path, "object."); ok {
		return placement{role: roleReading, name: joinedName(rest), array: true}
	}
	switch path {
	case "time":
		return placement{role: roleTime}
	case "devAddr":
		return placement{role: roleText, slot: loraAddress}
	case "data":
		return placement{role: roleText, slot: loraFrame}
	case "fCnt":
		return placement{role: roleSequence}
	case "rxInfo":
		return placement{array: true}
	case "rxInfo.0.rssi":
		return placement{role: roleReading, name: "rx_rssi", unit: "dBm"}
	case "rxInfo.0.snr":
		return placement{role: roleReading, name: "rx_snr", unit: "dB"}
	case "object":
		return placement{role: roleText, slot: loraObject}
	case "rxInfo.0":
		return placement{}
	}
	return placement{skip: true}
}

func chirpstackStatus(path string) placement {
	switch path {
	case "time":
		return placement{role: roleTime}
	case "margin":
		return placement{role: roleReading, unit: "dB"}
	case "batteryLevel":
		return placement{role: roleReading, unit: "%"}
	case "externalPowerSource":
		return placement{role: roleReading}
	case "batteryLevelUnavailable":
		return placement{role: roleText, slot: loraNoBattery}
	}
	return placement{skip: true}
}
